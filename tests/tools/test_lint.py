# SPDX-License-Identifier: Apache-2.0
import lint

FAMILY = {"worker/families/llama.cc": '.name = "llama",\n.architecture = "LlamaForCausalLM",\n'}


def test_code_that_asks_for_a_family_is_found():
    code = '// as "llama"\nif (family.name == "llama") return;\n'
    assert lint.family_names(FAMILY | {"worker/model/attention.cc": code}) == ["worker/model/attention.cc:2"]
    code = 'return config["architectures"][0] == "LlamaForCausalLM";\n'
    assert lint.family_names(FAMILY | {"server/jobs/job_spec.cc": code}) == ["server/jobs/job_spec.cc:1"]


def test_families_themselves_comments_and_tests_may_name_them():
    others = {
        "worker/families/families.cc": 'Find("llama");\n',
        "worker/verify/verdict.h": 'std::string family;  // "llama"\n',
        "tests/worker/families/families_test.cc": 'Find("llama");\n',
    }
    assert lint.family_names(FAMILY | others) == []
