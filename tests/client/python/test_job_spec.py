# SPDX-License-Identifier: Apache-2.0
"""Job files, dicts and messages become the JobSpec that the `temper` command makes of them."""

import json
import sys
from pathlib import Path

import numpy
import pytest
import temper
from temper import _spec
from temper.v1 import job_pb2

ROOT = Path(__file__).resolve().parents[3]


def read(spec):
    return _spec.read_spec(spec).spec


def test_example_is_read():
    spec = read(ROOT / "client/examples/sft.yaml")
    assert spec.training.learning_rate == 1e-4
    assert spec.training.schedule == job_pb2.Training.SCHEDULE_COSINE
    assert spec.training.precision == job_pb2.Training.PRECISION_AUTO
    assert spec.data.overlong == job_pb2.DataSource.OVERLONG_DROP
    assert spec.data.uri == str(ROOT / "client/examples/train.jsonl")
    assert spec.training.WhichOneof("length") == "epochs"
    assert spec.training.warmup_steps == 5


def test_json_yaml_dict_and_message_are_the_same(tmp_path):
    job = {
        "display_name": "größer 😀",
        "model": {"uri": "/m"},
        "data": {"uri": "/d"},
        "training": {"steps": 10, "learning_rate": 0.5, "schedule": "LINEAR", "warmupSteps": 0},
        "lora": {"targets": ["q_proj", "v_proj"]},
        "method": {"sft": {}},
        "output": {"uri": "/o"},
    }
    (tmp_path / "job.json").write_text(json.dumps(job))
    (tmp_path / "job.yaml").write_text(
        "display_name: größer 😀\nmodel: {uri: /m}\ndata: {uri: /d}\n"
        "training:\n  steps: 1e1\n  learning_rate: 5e-1\n  schedule: linear\n  warmup_steps: 0\n"
        "lora: {targets: [q_proj, v_proj]}\nmethod: {sft: {}}\noutput: {uri: /o}\n"
    )
    spec = read(job)
    assert spec == read(tmp_path / "job.json") == read(str(tmp_path / "job.yaml")) == read(spec)
    assert spec.training.HasField("warmup_steps")
    assert spec.method.HasField("sft")


def test_relative_uris_are_resolved(tmp_path, monkeypatch):
    job = "{model: {uri: ../m}, data: {uri: ~/d}, output: {uri: 'file:///o'}, resume_from: step-1}"
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs/job.yaml").write_text(job)
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.chdir(tmp_path)
    spec = read(Path("jobs/job.yaml"))
    uris = (spec.model.uri, spec.data.uri, spec.output.uri, spec.resume_from)
    assert uris == (f"{tmp_path}/m", "/home/somebody/d", "file:///o", f"{tmp_path}/jobs/step-1")
    assert read({"model": {"uri": Path("m")}}).model.uri == f"{tmp_path}/m"
    message = temper.JobSpec(model={"uri": "m"})
    assert read(message).model.uri == f"{tmp_path}/m"
    assert message.model.uri == "m"
    spec = read({"data": {"sources": [{"uri": "a"}]}, "validation": {"uri": "v"}, "lora": {"adapter": "l"}})
    assert (spec.data.sources[0].uri, spec.validation.uri) == (f"{tmp_path}/a", f"{tmp_path}/v")
    assert spec.lora.adapter == f"{tmp_path}/l"
    assert not read({"model": {"uri": "m"}}).HasField("validation")
    assert not read({"model": {"uri": "m"}}).HasField("method")
    method = read({"method": {"distillation": {"teacher": "t"}}}).method
    assert method.distillation.teacher == f"{tmp_path}/t"


@pytest.mark.parametrize(
    ("value", "read_as"),
    [(7, 7), ("7", 7), ("1e6", 10**6), (12.0, 12), (numpy.int64(3), 3), (numpy.float32(4), 4), (2**53 + 1, 2**53 + 1)],
)
def test_whole_numbers(value, read_as):
    assert read({"training": {"steps": value}}).training.steps == read_as


def test_a_list_of_one_needs_no_brackets():
    assert list(read({"lora": {"targets": "q_proj"}}).lora.targets) == ["q_proj"]


@pytest.mark.parametrize(
    ("job", "problem"),
    [
        ({"modle": {}}, "modle: unknown field; did you mean 'model'?"),
        ({"training": {"qqq": 1}}, "training.qqq: unknown field; possible here: steps, epochs"),
        ({"method": {"sft": {"x": 1}}}, "method.sft.x: unknown field; nothing can be set here"),
        ({"training": {"steps": 1.5}}, "training.steps: expected a whole number, found '1.5'"),
        ({"training": {"steps": True}}, "training.steps: expected a whole number, found 'True'"),
        ({"training": {"steps": 2**63}}, "which does not fit"),
        ({"priority": 2**31}, "priority: expected a whole number, found '2147483648', which does not fit"),
        ({"training": {"learning_rate": "nan"}}, "training.learning_rate: expected a number, found 'nan'"),
        ({"training": {"learning_rate": []}}, "training.learning_rate: expected a number, found a list"),
        ({"training": {"schedule": "cosin"}}, "constant, linear, cosine, wsd, found 'cosin'; did you mean 'cosine'?"),
        ({"training": {"steps": 1, "epochs": 1}}, "training.epochs: excludes 'steps', which is given too"),
        ({"training": {"warmup_steps": 1, "warmupSteps": 1}}, "training.warmup_steps: is given twice"),
        ({"training": None}, "training: has no value; write {} to take it with its defaults"),
        ({"priority": None}, "priority: has no value; expected a whole number"),
        ({"model": "/m"}, "model: expected a map with uri, found '/m'"),
        ({"display_name": 7}, "display_name: expected text, found '7'"),
        ({"lora": {"targets": ["q", 1]}}, "lora.targets[1]: expected text, found '1'"),
    ],
)
def test_problems(job, problem):
    with pytest.raises(temper.InvalidJob) as error:
        read(job)
    assert problem in str(error.value)
    assert error.value.violations


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("model:\n  uri: /m\ntrainign: {}\n", "job:3: trainign: unknown field; did you mean 'training'?"),
        ("training:\n  steps: x\n  schedule: y\n", "job:2: training.steps"),
        ("training:\n  steps: x\n  schedule: y\n", "job:3: training.schedule"),
        ("priority: 1\npriority: 2\n", "job:2: priority: is given twice"),
        ('{"priority": 1, "priority": 2}', "job: priority: is given twice"),
        ("training:\n", "job:1: training: has no value"),
        ("a: [\n", "job:2: is not valid YAML or JSON"),
        ("", "job: is empty"),
        ("--- {}\n--- {}\n", "job: holds 2 documents"),
        ("- 1\n", "job: expected a map with display_name, model"),
        ("lora: &a\n  targets: *a\n", "contains itself"),
        ("\x00", "is not valid YAML or JSON"),
        (" " * (1 << 20) + "x", "is larger than 1 MiB"),
    ],
)
def test_problems_in_files(tmp_path, monkeypatch, text, problem):
    monkeypatch.chdir(tmp_path)
    Path("job").write_text(text)
    with pytest.raises(temper.InvalidJob) as error:
        read("job")
    assert problem in str(error.value)


def test_missing_file():
    with pytest.raises(FileNotFoundError):
        read("/nowhere.yaml")


def test_without_pyyaml_json_is_read_and_yaml_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "yaml", None)
    (tmp_path / "job.json").write_text('{"priority": 1}')
    assert read(tmp_path / "job.json").priority == 1
    (tmp_path / "bad.json").write_text('{"priority": 1\n"x"}')
    with pytest.raises(temper.InvalidJob, match=r"bad.json:2: is not valid JSON"):
        read(tmp_path / "bad.json")
    (tmp_path / "job.yaml").write_text("priority: 1")
    with pytest.raises(ImportError, match=r"pip install 'temper-client\[yaml\]'"):
        read(tmp_path / "job.yaml")
