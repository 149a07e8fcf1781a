# SPDX-License-Identifier: Apache-2.0
import pytest

LOADED = """
const history = new page.StepHistory(given.most ?? 10_000);
history.load(given.columns, {last_sequence: 0, times: given.times, events: given.events ?? []});
"""
# Steps that come live, each a second after the one before it.
TAKEN = """
for (let step = 1; step <= given.steps; ++step) {
  const time = new Date(1000 * step).toISOString();
  history.take({sequence: String(step), time, step: {step: String(step), loss: 1 / step, seconds: 0.5}}, 0);
}
"""
EMPTY = {"columns": {}, "times": {"step": [], "seconds": []}}


def job(steps: list[int], seconds: list[float], timed: list[int], ended: list[float], **more) -> dict:
    columns = {"step": steps, "seconds": seconds, "loss": [1.0] * len(steps)}
    return {"columns": columns, "times": {"step": timed, "seconds": ended}} | more


def test_goodput_of_a_long_history_is_known_at_each_of_its_steps(evaluate):
    """Its steps and its times are thinned, and not to the same steps."""
    steps, timed = list(range(1, 30_001, 4)), list(range(3, 30_001, 3))
    given = job(steps, [1.0] * len(steps), timed, [2.0 * step for step in timed])
    goodput = evaluate("history", LOADED + "return history.goodput();", given)
    assert goodput[0] is None  # before the first time that is known
    assert goodput[1:] == [pytest.approx(0.5, rel=1e-3)] * (len(steps) - 1)


def test_first_step_of_a_job_that_goes_on_from_another_is_one(evaluate):
    given = job([5001, 5002], [1.0, 1.0], [5001, 5002], [4.0, 5.0])
    assert evaluate("history", LOADED + "return history.goodput();", given) == [0.25, 0.4]


def test_open_page_keeps_no_more_than_twice_what_the_server_sends(evaluate):
    body = LOADED + TAKEN + "return {steps: history.steps, columns: history.columns, goodput: history.goodput()};"
    found = evaluate("history", body, EMPTY | {"most": 100, "steps": 10_000})
    steps = found["steps"]
    assert 50 <= len(steps) <= 200
    assert (steps[0], steps[-1]) == (1, 10_000)
    assert {len(column) for column in found["columns"].values()} == {len(steps)}
    assert found["columns"]["loss"] == [pytest.approx(1 / step) for step in steps]
    assert found["goodput"] == [pytest.approx(0.5)] * len(steps)
    gaps = [after - before for before, after in zip(steps, steps[1:])]
    assert max(gaps) <= 2 * 10_000 / 50  # no stretch is lost


def test_step_that_is_taken_again_takes_the_place_of_the_first(evaluate):
    given = job([1, 2, 3], [1.0] * 3, [1, 2, 3], [1.0, 2.0, 3.0])
    again = """
    history.take({sequence: "9", time: "1970-01-01T00:00:10Z", step: {step: "2", loss: 7, seconds: 1}}, 0);
    return [history.steps, history.column("loss"), history.goodput()];
    """
    assert evaluate("history", LOADED + again, given) == [[1, 2, 3], [1, 7, 1], [1, 0.2, None]]


def test_validation_between_the_steps_of_a_thinned_history_stands_at_the_nearest(evaluate):
    events = [{"sequence": "1", "time": "1970-01-01T00:00:00Z", "validation": {"step": "104", "loss": 0.5}}]
    given = job([1, 101, 201], [1.0] * 3, [], [], events=events)
    assert evaluate("history", LOADED + "return history.validationColumn();", given) == [None, 0.5, None]


def test_marks_are_where_things_happened(evaluate):
    events = [
        {"checkpoint": {"step": "10", "best": True}},
        {"checkpoint": {"step": "20", "best": True}},
        {"resumption": {"step": "20", "lost_steps": "5"}},
        {"log": {"text": "step 23: a spike of the loss"}},
    ]
    events = [event | {"sequence": str(i), "time": "1970-01-01T00:00:00Z"} for i, event in enumerate(events)]
    given = job([10, 20, 30], [1.0] * 3, [], [], events=events)
    given["columns"]["skipped"] = [0, 0, 1]
    marks = evaluate("history", LOADED + "return history.allMarkers();", given)
    assert [(mark["step"], mark["kind"]) for mark in marks] == [
        (10, "checkpoint"),
        (20, "best"),
        (20, "restart"),
        (23, "spike"),
        (30, "spike"),
    ]
