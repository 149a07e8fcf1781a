# SPDX-License-Identifier: Apache-2.0
"""The step loop on several ranks, over real data: the same steps in every world, and the same end on every rank."""

import functools
import json
import os
import subprocess

import gang_report
import pytest
from e2e import tiny_chat_model
from safetensors.torch import load_file
from worker.train.backends import ONE_SHOWS_AS_MUCH, backend_of
from worker.train.training_run import RANK

PROBE = RANK.parents[1] / "tests/gang_probe"


@pytest.fixture
def run(inputs):
    """Lines of all ranks together."""

    def run(world, *options, model=inputs / "model"):
        command = [PROBE, model, inputs / "train.jsonl", "--world", str(world), *map(str, options)]
        if backend_of(inputs) == "hf":
            command.append("--hf")
        result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=os.environ)
        return [json.loads(line) for line in result.stdout.splitlines()], result

    return run


def values(lines, key):
    return [line[key] for line in lines if key in line]


def steps_of(lines):
    return {line["step"]: line["loss"] for line in lines if "loss" in line}


def ends(lines):
    return {line["rank"]: (line["steps"], line["end"]) for line in lines if "rank" in line}


# Each run of transformers takes seconds to start, so there is one world that has all that may go wrong: five rows a
# step, so that one of three ranks has nothing to compute. Of all weights, tests/e2e/test_fallback.py compares worlds.
WORLDS = {"native": (2, 3, 4), "hf": (3,)}


@pytest.mark.parametrize(
    ("inputs", "options"),
    [("native", ()), ("native", ("--lora", "all-linear")), ("hf", ("--lora", "all-linear"))],
    ids=["full", "lora", "hf, lora"],
    indirect=["inputs"],
)
def test_every_world_takes_the_same_steps(run, inputs, options):
    approximately = functools.partial(pytest.approx, rel=1e-4)
    expected, _ = run(1, *options)
    assert len(values(expected, "validation_loss")) == 1
    for world in WORLDS[backend_of(inputs)]:
        lines, result = run(world, *options)
        assert ends(lines) == dict.fromkeys(range(world), (4, "done")), result.stderr
        for key in ("step", "scored_tokens"):
            assert values(lines, key) == values(expected, key)
        for key in ("loss", "grad_norm", "validation_loss"):
            assert values(lines, key) == approximately(values(expected, key))


@ONE_SHOWS_AS_MUCH
@pytest.mark.parametrize("world", [1, 2])
def test_waiting_for_other_ranks_is_communication(run, world):
    lines, _ = run(world)
    seconds, waited = values(lines, "seconds"), values(lines, "communication")
    assert values(lines, "phases") == pytest.approx(seconds, rel=1e-6)
    if world == 1:
        assert waited == [0] * 4
    else:
        assert all(0 < part < step for part, step in zip(waited, seconds, strict=True))


@ONE_SHOWS_AS_MUCH
def test_a_rank_that_is_told_to_stop_ends_all_after_the_same_step(run):
    lines, result = run(3, "--stop-rank", 1, "--stop-after", 1)
    assert ends(lines) == dict.fromkeys(range(3), (2, "stopped on request")), result.stderr


@ONE_SHOWS_AS_MUCH
def test_a_rank_that_dies_is_missed_by_the_others(run):
    lines, result = run(3, "--die-rank", 2, "--die-after", 2)
    assert result.returncode != 0
    found = ends(lines)
    assert found.keys() == {0, 1}
    for rank, (steps, end) in found.items():
        assert steps == 2
        assert end.startswith(f"rank {rank} of 3 has lost rank "), result.stderr
    assert any(" has lost rank 2, " in end for _, end in found.values())


def files(directory):
    return {path.relative_to(directory): path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file()}


# Adapters are on parts of fused matrices, on embedding and head; the modules beside them are a part of one and a norm.
EXPORTS = {
    "full": (),
    "adapter": ("--lora", "q_proj", "down_proj", "--modules", "v_proj", "model.norm"),
    "both, tokens": ("--lora", "q_proj", "embed_tokens", "lm_head", "--adapters", "both"),
    "both, DoRA": ("--lora", "all-linear", "--dora", "--adapters", "both"),
    "merged": ("--lora", "q_proj", "--modules", "v_proj", "lm_head", "--adapters", "merged"),
}


@ONE_SHOWS_AS_MUCH
@pytest.mark.parametrize("mode", EXPORTS)
def test_every_world_exports_the_same_files(run, tmp_path, mode):
    """From the same weights: training itself adds up in another order in each world."""
    found = {}
    for world in (1, 2, 3):
        output = tmp_path / str(world)
        lines, result = run(world, "--steps", 0, "--nudge", "--export", output, *EXPORTS[mode])
        assert ends(lines) == dict.fromkeys(range(world), (0, "done")), result.stderr
        found[world] = files(output / "probe/export-e0001")
    assert {str(name) for name in found[1]} >= {"manifest.json", "verification.json"}
    assert found[2] == found[1]
    assert found[3] == found[1]


WIDE = {"hidden_size": 384, "intermediate_size": 1024, "num_hidden_layers": 12, "num_attention_heads": 6}
MEMORY = "memory: full, 77 MB of fp32 weights"
SLACK = 12 << 20  # bytes that a process gets to have beside tensors, pages of its libraries among them


@pytest.fixture(scope="module")
def wide_model(tmp_path_factory):
    """77 MB of weights, none of them large."""
    directory = tmp_path_factory.mktemp("wide")
    tiny_chat_model.write_model(directory, **WIDE)
    return directory


@ONE_SHOWS_AS_MUCH
def test_four_ranks_have_room_for_a_model_that_one_has_not(run, tmp_path, wide_model):
    """The limit is a little less than weights, gradients and two moments take together."""
    megabytes = (wide_model / "model.safetensors").stat().st_size >> 20
    limit = ("--memory-limit", int(0.9 * 4 * megabytes), "--export", tmp_path / "out", "--steps", 1)
    alone, result = run(1, *limit, model=wide_model)
    assert any(word in result.stderr + json.dumps(alone) for word in ("memory", "bad_alloc"))
    assert not (tmp_path / "out").exists()
    lines, result = run(4, *limit, model=wide_model)
    assert ends(lines) == dict.fromkeys(range(4), (1, "done")), result.stderr
    assert (tmp_path / "out/probe/export-e0001/manifest.json").exists()


@ONE_SHOWS_AS_MUCH
def test_a_rank_that_loads_holds_its_shard_and_one_tensor(run, wide_model):
    weights = load_file(wide_model / "model.safetensors")
    whole = sum(tensor.nbytes for tensor in weights.values())
    largest = max(tensor.nbytes for tensor in weights.values())
    for world in (1, 2, 4):
        # Frozen, so that there are no gradients.
        lines, result = run(world, "--steps", 0, "--lora", "q_proj", model=wide_model)
        peaks = {line["loaded_on"]: line["peak_bytes"] for line in lines if "loaded_on" in line}
        assert peaks.keys() == set(range(world)), result.stderr
        for peak in peaks.values():
            assert whole / world <= peak <= whole / world + largest + SLACK


@ONE_SHOWS_AS_MUCH
def test_memory_of_a_rank_shrinks_with_their_number(run, wide_model):
    """What more a rank of several has: two blocks that are gathered, with gradients of its own and of the others."""
    gathered = 40 << 20
    state = 4 * sum(tensor.nbytes for tensor in load_file(wide_model / "model.safetensors").values())
    peaks = {}
    for world in (1, 2, 3, 4):
        lines, result = run(world, "--steps", 1, model=wide_model)
        assert ends(lines) == dict.fromkeys(range(world), (1, "done")), result.stderr
        peaks[world] = max(line["peak_bytes"] for line in lines if "rank" in line)
    gang_report.add(
        [{"world": world, "mode": MEMORY, "peak_rank_mb": round(peak / 1e6, 1)} for world, peak in peaks.items()]
    )
    for world in (2, 3, 4):
        assert peaks[world] <= peaks[1] - state * (1 - 1 / world) + gathered, peaks


def checkpoint(output, step):
    return output / f"probe/checkpoints/step-{step:08}-e0001"


@ONE_SHOWS_AS_MUCH
@pytest.mark.parametrize(("before", "after"), [(1, 4), (4, 2), (3, 1)])
def test_what_one_world_saved_another_goes_on_from(run, tmp_path, before, after):
    whole, result = run(1, "--steps", 6, "--job", tmp_path / "whole")
    assert ends(whole) == {0: (6, "done")}, result.stderr
    first, result = run(before, "--steps", 6, "--job", tmp_path / "first", "--checkpoint-every", 3)
    assert ends(first) == dict.fromkeys(range(before), (6, "done")), result.stderr
    source = checkpoint(tmp_path / "first", 3)
    assert len(list((source / "optimizer").iterdir())) == before
    second, result = run(after, "--steps", 6, "--job", tmp_path / "second", "--resume-from", source)
    assert ends(second) == dict.fromkeys(range(after), (6, "done")), result.stderr
    assert values(second, "resumed_after") == [3]
    expected = steps_of(whole)
    assert steps_of(second).keys() == {4, 5, 6}
    for found in (steps_of(first), steps_of(second)):
        assert found == {step: pytest.approx(expected[step], rel=1e-4) for step in found}


DROPPING_LORA = ("--lora", "q_proj", "down_proj", "--modules", "v_proj", "--dropout", "0.3")


@pytest.mark.parametrize(
    ("inputs", "options"),
    [("native", ()), ("native", ("--bf16",)), ("native", DROPPING_LORA), ("hf", DROPPING_LORA)],
    ids=["full", "bf16", "lora that drops", "hf, lora that drops"],
    indirect=["inputs"],
)
def test_a_gang_that_was_stopped_goes_on_bit_for_bit(run, tmp_path, options):
    """Rank 1 is told to stop: all of them commit a checkpoint of the step that they took next."""
    whole, result = run(3, "--steps", 6, "--job", tmp_path / "whole", *options)
    assert ends(whole) == dict.fromkeys(range(3), (6, "done")), result.stderr
    stop = ("--stop-rank", 1, "--stop-after", 2)
    first, result = run(3, "--steps", 6, "--job", tmp_path / "first", *stop, *options)
    assert ends(first) == dict.fromkeys(range(3), (3, "stopped on request")), result.stderr
    source = checkpoint(tmp_path / "first", 3)
    assert values(first, "checkpoint") == [str(source)]
    assert values(first, "bytes") == [
        sum(len(data) for name, data in files(source).items() if name.name != "manifest.json")
    ]
    second, result = run(3, "--steps", 6, "--job", tmp_path / "second", "--resume-from", source, *options)
    assert ends(second) == dict.fromkeys(range(3), (6, "done")), result.stderr
    assert {**steps_of(first), **steps_of(second)} == steps_of(whole)
    exports = [files(tmp_path / name / "probe/export-e0001") for name in ("whole", "second")]
    assert exports[0] == exports[1]


@ONE_SHOWS_AS_MUCH
@pytest.mark.parametrize(("world", "options"), [(2, ()), (3, ("--lora", "q_proj"))], ids=["full", "LoRA"])
def test_weights_that_are_kept_for_the_way_back_change_no_bit(run, tmp_path, world, options):
    plain, result = run(world, "--steps", 3, "--job", tmp_path / "plain", *options)
    assert ends(plain) == dict.fromkeys(range(world), (3, "done")), result.stderr
    lines, result = run(world, "--steps", 3, "--job", tmp_path / "out", "--keep-weights", *options)
    assert ends(lines) == dict.fromkeys(range(world), (3, "done")), result.stderr
    assert steps_of(lines) == steps_of(plain)
    assert all(
        sent < usually for sent, usually in zip(values(lines, "sent_bytes"), values(plain, "sent_bytes"), strict=True)
    )
    exports = [files(tmp_path / name / "probe/export-e0001") for name in ("plain", "out")]
    assert exports[0] == exports[1]


@ONE_SHOWS_AS_MUCH
def test_gradients_that_are_reduced_once_a_step_are_the_same(run, tmp_path):
    """Five rows a step on two ranks: three micro-batches, of which each gathers twice, and the last one reduces."""
    plain, _ = run(2, "--steps", 4, "--job", tmp_path / "plain")
    lines, result = run(2, "--steps", 4, "--job", tmp_path / "out", "--reduce-once")
    assert ends(lines) == dict.fromkeys(range(2), (4, "done")), result.stderr
    assert steps_of(lines) == pytest.approx(steps_of(plain), rel=1e-5)
    for sent, usually in zip(values(lines, "sent_bytes"), values(plain, "sent_bytes"), strict=True):
        assert sent == pytest.approx(usually * (3 * 2 + 1) / (3 * 3), rel=1e-3)


def profile_of(run, directory, world, *options, model):
    """Events of the second step, by name: when they began and ended, in microseconds."""
    lines, result = run(world, "--steps", 3, "--job", directory, "--profile", 2, *options, model=model)
    assert ends(lines) == dict.fromkeys(range(world), (3, "done")), result.stderr
    (trace,) = (directory / "probe/profile-e0001").iterdir()
    events = {}
    for event in json.loads(trace.read_text())["traceEvents"]:
        if event.get("ph") == "X":
            events.setdefault(event["name"], []).append((event["ts"], event["ts"] + event["dur"]))
    return {name: sorted(spans) for name, spans in events.items()}


@ONE_SHOWS_AS_MUCH
def test_weights_are_gathered_while_the_unit_before_is_computed(run, tmp_path, wide_model):
    """… and gradients are on their way while the unit after is."""
    events = profile_of(run, tmp_path / "out", 2, model=wide_model)
    last = WIDE["num_hidden_layers"] - 1
    # collective → what is computed meanwhile
    pairs = [(f"all-gather, unit {unit}", f"forward, unit {unit - 1}") for unit in range(1, last + 1)]
    pairs += [(f"all-gather, unit {unit}", f"backward, unit {unit + 1}") for unit in range(last)]
    pairs += [(f"all-to-all, unit {unit}", f"backward, unit {unit - 1}") for unit in range(1, last + 1)]
    overlapping = [
        any(
            begin < end_of_other and begin_of_other < end
            for begin, end in events[collective]
            for begin_of_other, end_of_other in events[computed]
        )
        for collective, computed in pairs
    ]
    # On a busy machine a collective may be over before a thread that has waited for its core begins to compute.
    assert sum(overlapping) >= 0.6 * len(pairs), [pair for pair, together in zip(pairs, overlapping) if not together]


@ONE_SHOWS_AS_MUCH
def test_a_checkpoint_that_can_not_be_written_is_a_warning_on_all_ranks(run, tmp_path):
    (tmp_path / "out/probe").mkdir(parents=True)
    (tmp_path / "out/probe/checkpoints").write_text("in the way")
    lines, result = run(2, "--steps", 3, "--job", tmp_path / "out", "--checkpoint-every", 1)
    assert ends(lines) == dict.fromkeys(range(2), (3, "done")), result.stderr
    for rank in range(2):
        assert f"rank {rank}: the checkpoint of step 1 could not be written; training goes on" in result.stderr
    assert (tmp_path / "out/probe/export-e0001/manifest.json").exists()
