# SPDX-License-Identifier: Apache-2.0
"""How streams that break go on, without a server and on a clock of the test's own."""

import hashlib

import grpc
import pytest
import temper
from temper._download import Download
from temper._follow import Follower
from temper._metrics import StepHistory
from temper._place import Place
from temper.v1 import training_service_pb2 as pb

AWAY = temper.Unavailable("away")


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def test_pauses_grow_until_an_event_comes(clock):
    follower = Follower("jobs/a", after=4, clock=clock)
    assert [follower.interrupted(AWAY) for _ in range(7)] == [0.2, 0.4, 0.8, 1.6, 3.2, 5, 5]
    follower.accept(pb.JobEvent(sequence=5))
    assert follower.interrupted(AWAY) == 0.2
    assert follower.request == pb.WatchJobRequest(name="jobs/a", after_sequence=5)


def test_patience_ends(clock):
    follower = Follower("jobs/a", 0, clock=clock)
    follower.interrupted(AWAY)
    clock.now = 600
    follower.interrupted(AWAY)
    clock.now = 601
    with pytest.raises(temper.Unavailable):
        follower.interrupted(AWAY)


NO_PLACE = temper.ResourceExhausted("all are taken", reason="TOO_MANY_STREAMS")


def test_place_is_waited_for_with_pauses_of_random_length(clock, caplog):
    place = Place(clock)
    for longest in (0.2, 0.4, 0.8, 1.6, 3.2, 5, 5):
        assert longest / 2 <= place.refused(NO_PLACE) <= longest
    assert caplog.messages == ["all are taken. Waiting for that, up to 10 minutes"]
    clock.now = 601
    with pytest.raises(temper.ResourceExhausted):
        place.refused(NO_PLACE)


@pytest.mark.parametrize("error", [temper.ResourceExhausted("the disk is full"), temper.NotFound("no such job")])
def test_what_is_no_want_of_a_place_is_not_waited_for(clock, error):
    with pytest.raises(type(error)):
        Place(clock).refused(error)


def test_no_pause_is_longer_than_the_timeout(clock):
    follower = Follower("jobs/a", 0, timeout=0.3, clock=clock)
    assert follower.remaining == 0.3
    clock.now = 0.2
    assert follower.interrupted(AWAY) == pytest.approx(0.1)
    clock.now = 0.3
    with pytest.raises(temper.DeadlineExceeded, match=r"jobs/a has not ended within 0.3 s"):
        follower.interrupted(AWAY)


@pytest.mark.parametrize("code", [grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INTERNAL])
def test_other_errors_are_raised(clock, code):
    error = temper.TemperError("no", code=code)
    with pytest.raises(temper.TemperError) as raised:
        Follower("jobs/a", 0, clock=clock).interrupted(error)
    assert raised.value is error


@pytest.mark.parametrize("sequence", [1, 2, 4])
def test_gap_or_repetition_is_data_loss(clock, sequence):
    follower = Follower("jobs/a", after=2, clock=clock)
    with pytest.raises(temper.DataLoss, match="after event 2"):
        follower.accept(pb.JobEvent(sequence=sequence))


def test_steps_taken_again_replace_those_before():
    history = StepHistory(until=6)
    for sequence, event in enumerate(
        [
            {"step": pb.StepMetrics(step=1, loss=1)},
            {"step": pb.StepMetrics(step=2, loss=2)},
            {"step": pb.StepMetrics(step=3, loss=3)},
            {"resumption": pb.Resumption(step=1)},
            {"step": pb.StepMetrics(step=2, loss=20)},
            {"log": pb.LogLine(text="x")},
        ],
        start=1,
    ):
        assert not history.is_complete
        history.add(pb.JobEvent(sequence=sequence, **event))
    assert history.is_complete
    assert [(step.step, step.loss) for step in history.steps] == [(1, 1), (2, 20)]
    assert [(row["step"], row["loss"]) for row in history.rows] == [(1, 1), (2, 20)]
    figures = {field.name for field in pb.StepMetrics.DESCRIPTOR.fields} - {"phases", "objective"}
    phases = {f"phases.{field.name}" for field in pb.StepPhases.DESCRIPTOR.fields}
    assert set(history.rows[0]) == figures | phases | {"time"}
    nothing = StepHistory(until=0)
    assert nothing.is_complete
    assert nothing.to_pandas().empty
    assert {"step", *nothing.to_pandas().columns} == set(history.to_pandas().reset_index().columns)


def artifact(path="a/b.bin", content=b"0123456789"):
    return pb.Artifact(path=path, size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest())


def test_broken_stream_goes_on_while_each_brings_something(tmp_path):
    download = Download("jobs/a", [artifact()], tmp_path, None)
    file = download.next_file()
    with file:
        for i in range(10):
            assert file.next_request().offset == i
            file.write(b"%d" % i)
            file.stream_broke(AWAY)
        assert file.next_request() is None
    assert download.next_file() is None
    assert (tmp_path / "a/b.bin").read_bytes() == b"0123456789"
    assert download.result.received_bytes == 10


def test_fruitless_streams_end_the_download_and_keep_what_came(tmp_path):
    with Download("jobs/a", [artifact()], tmp_path, None).next_file() as file:
        file.next_request()
        file.write(b"012")
        file.stream_broke(AWAY)
        for _ in range(2):
            file.next_request()
            file.stream_broke(AWAY)
        file.next_request()
        with pytest.raises(temper.Unavailable):
            file.stream_broke(AWAY)
    assert (tmp_path / "a/b.bin.part").read_bytes() == b"012"
    with Download("jobs/a", [artifact()], tmp_path, None).next_file() as file:
        assert file.next_request().offset == 3


def test_wrong_bytes_are_asked_for_once_more(tmp_path):
    with Download("jobs/a", [artifact()], tmp_path, None).next_file() as file:
        for _ in range(2):
            assert file.next_request().offset == 0
            file.write(b"9876543210")
            file.stream_ended()
        with pytest.raises(temper.DataLoss, match="the stored file is damaged"):
            file.next_request()


def test_empty_file(tmp_path):
    with Download("jobs/a", [artifact(content=b"")], tmp_path, None).next_file() as file:
        assert file.next_request() is None
    assert (tmp_path / "a/b.bin").read_bytes() == b""


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../../x", "a//b", "", "a\0b"])
def test_files_outside_the_directory_are_refused(tmp_path, path):
    with pytest.raises(temper.DataLoss, match="nothing was downloaded"):
        Download("jobs/a", [artifact(), artifact(path)], tmp_path / "home", None)
    assert not (tmp_path / "home").exists()


def test_figures_of_a_method_have_columns_of_their_own():
    history = StepHistory(until=1)
    step = pb.StepMetrics(step=1, loss=0.5, objective={"rewards/margins": 2.0, "kl": 0.25})
    step.phases.forward = 0.125
    history.add(pb.JobEvent(sequence=1, step=step))
    (row,) = history.rows
    assert (row["objective.kl"], row["objective.rewards/margins"], row["phases.forward"]) == (0.25, 2.0, 0.125)
    assert "objective" not in row
