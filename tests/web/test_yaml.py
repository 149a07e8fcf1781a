# SPDX-License-Identifier: Apache-2.0
import pytest
import yaml


@pytest.mark.parametrize(
    "spec",
    [
        {"model": {"uri": "/models/a b"}, "training": {"steps": 400, "learning_rate": 2e-5}},
        {"labels": {"yes": "no", "1": "null", "a: b": "# c", "": "'\"\\"}, "freeze": ["embed", "x*"], "none": {}},
        {"data": {"sources": [{"uri": "/a", "weight": 1}, {"uri": "-"}]}, "text": "two\nlines", "empty": []},
    ],
)
def test_a_specification_is_shown_as_yaml_that_says_the_same(evaluate, spec):
    assert yaml.safe_load(evaluate("yaml", "return page.toYaml(given);", spec)) == spec


def test_differences_are_fields_by_their_path(evaluate):
    specs = [{"training": {"steps": 1, "seed": 7}}, {"training": {"steps": 2, "seed": 7}, "lora": {"rank": 8}}]
    found = evaluate("yaml", "return page.differences(given);", specs)
    assert found == [["training.steps", ["1", "2"]], ["lora.rank", ["–", "8"]]]
