# SPDX-License-Identifier: Apache-2.0
"""`temper.aio.Client` against a real server."""

import asyncio
import inspect
import shutil
from contextlib import aclosing
from pathlib import Path

import pytest
import temper
import temper.aio


def run(server, test):
    async def main():
        async with temper.aio.Client(server.listen) as client:
            await test(client)

    asyncio.run(main())


async def first_step(job):
    async with aclosing(job.events()) as events:
        async for event in events:
            if event.HasField("step"):
                return event
    raise AssertionError(f"{job} ended before its first step")


@pytest.mark.usefixtures("client")  # which ends what is left
def test_submit_follow_download(server, spec, tmp_path):
    async def test(client):
        job = await client.submit(spec)
        sequences = [event.sequence async for event in job.events()]
        assert sequences == list(range(1, len(sequences) + 1))
        assert job.state is await job.wait() is temper.State.SUCCEEDED
        assert [step.step for step in await job.metrics()] == list(range(1, 61))
        assert [step.step for step in await job.metrics(max_points=2)] == [1, 60]
        seen = []
        result = await job.download(tmp_path / "home", progress=seen.append)
        assert result.received_bytes == result.bytes == seen[-1].done_bytes
        weights = tmp_path / "home/model.safetensors"
        content = weights.read_bytes()
        weights.unlink()
        weights.with_name("model.safetensors.part").write_bytes(content[:1000])
        assert (await job.download(tmp_path / "home")).received_bytes == len(content) - 1000
        assert weights.read_bytes() == content

    run(server, test)


@pytest.mark.usefixtures("client")
def test_events_and_wait_go_on_when_the_server_comes_back(server, endless_spec):
    async def test(client):
        job = await client.submit(endless_spec)
        await first_step(job)
        waiting = await client.get(job.id)
        waiter = asyncio.create_task(waiting.wait(check=False))
        sequences = []
        restarted = None  # the last event before
        async for event in job.events():
            sequences.append(event.sequence)
            if event.step.step == 3:
                await asyncio.to_thread(server.kill)
                await asyncio.to_thread(server.start)
                restarted = (await job.refresh()).info.last_sequence
            elif restarted is not None and event.sequence == restarted + 3:
                await job.cancel()
        assert sequences == list(range(1, len(sequences) + 1))
        assert await waiter == "cancelled"

    run(server, test)


@pytest.mark.usefixtures("client")
def test_pause_resume_checkpoints_cancel_delete(server, long_spec, tmp_path):
    async def test(client):
        job = await client.submit(long_spec)
        await first_step(job)
        other = await client.get(job.id)
        await job.pause()
        async with aclosing(job.events()) as events:
            async for _ in events:
                if job.state is temper.State.PAUSED:
                    break
        assert other.state is temper.State.RUNNING
        assert (await other.refresh()).state is temper.State.PAUSED
        newest = (await job.checkpoints())[0]
        result = await job.download(tmp_path / "checkpoint", checkpoint=newest.step)
        assert result.bytes > newest.size_bytes  # which leaves the manifest out
        await job.resume()
        await first_step(job)
        with pytest.raises(temper.FailedPrecondition):
            await job.delete()
        await job.cancel()
        assert await job.wait(check=False) is temper.State.CANCELLED
        await job.delete()
        with pytest.raises(temper.NotFound):
            await job.refresh()

    run(server, test)


def test_upload(server, spec, inputs, tmp_path):
    async def test(client):
        spec["data"]["uri"] = shutil.copy(inputs / "train.jsonl", tmp_path / "mine.jsonl")
        job = await client.submit(spec, preflight_only=True, upload=True)
        uploaded = Path(job.info.spec.data.uri)
        assert uploaded != tmp_path / "mine.jsonl"
        assert uploaded.read_bytes() == (inputs / "train.jsonl").read_bytes()
        assert await job.wait() is temper.State.SUCCEEDED
        assert (await client.submit(spec, preflight_only=True, upload=True)).info.spec == job.info.spec
        (tmp_path / "mine.jsonl").write_bytes(b"")
        with pytest.raises(temper.InvalidJob, match="an empty file has no samples"):
            await client.submit(spec, upload=True)

    run(server, test)


def test_list_and_get(server, finished):
    async def test(client):
        assert finished in [job.id async for job in client.list(states=["succeeded"])]
        assert (await client.get(finished)).state is temper.State.SUCCEEDED

    run(server, test)


def test_errors(server, spec):
    async def test(client):
        with pytest.raises(temper.NotFound):
            await client.get("nobody")
        spec["training"]["steps"] = 0
        with pytest.raises(temper.InvalidJob) as error:
            await client.submit(spec)
        assert [violation.field for violation in error.value.violations] == ["training.steps"]
        async with temper.aio.Client("127.0.0.1:1") as nobody:
            with pytest.raises(temper.Unavailable):
                await nobody.get("a")

    run(server, test)


@pytest.mark.usefixtures("client")
def test_waiting_can_be_cancelled(server, endless_spec):
    async def test(client):
        job = await client.submit(endless_spec)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await job.wait()
        with pytest.raises(temper.DeadlineExceeded):
            await job.wait(timeout=0.2)

    run(server, test)


@pytest.mark.parametrize("name", ["Client", "Job"])
def test_both_have_the_same_surface(name):
    def surface(kind):
        members = inspect.getmembers(kind, lambda member: inspect.isfunction(member) or isinstance(member, property))
        return {
            key: list(inspect.signature(member).parameters) if inspect.isfunction(member) else None
            for key, member in members
            if not key.startswith("_")
        }

    assert surface(getattr(temper, name)) == surface(getattr(temper.aio, name))
