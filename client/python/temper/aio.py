# SPDX-License-Identifier: Apache-2.0
"""The same for asyncio: `temper.aio.Client` has the surface of `temper.Client`, to be awaited.

An `async for` that is left early should be closed, as any asynchronous generator: `contextlib.aclosing(job.events())`.
"""

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import TYPE_CHECKING, Self

import grpc
import grpc.aio

from temper import _calls as calls
from temper._calls import Connection, Method, Request, Response
from temper._download import Download, DownloadResult, Progress
from temper._follow import Follower
from temper._handle import JobHandle
from temper._metrics import StepHistory
from temper._place import Place
from temper._spec import JobSource, Spec, read_spec
from temper._state import State
from temper._upload import local_files
from temper.errors import InvalidRequest, NotFound, TemperError
from temper.v1 import training_service_pb2 as pb

if TYPE_CHECKING:
    import pandas

__all__ = ["Client", "Job"]


class Client:
    """A temper-server, for one event loop. Close it, or use it in `async with`. `temper.Client` explains the rest."""

    def __init__(
        self,
        address: str | None = None,
        token: str | None = None,
        *,
        ca_file: str | None = None,
        insecure: bool | None = None,
        deadline: float = calls.DEFAULT_DEADLINE,
    ) -> None:
        self._connection = Connection.of(address, token, ca_file, deadline, insecure)
        self._opened: grpc.aio.Channel | None = None
        self._closed = False

    @property
    def address(self) -> str:
        """Where the server is."""
        return self._connection.address

    async def close(self) -> None:
        """Ends every call. Jobs go on."""
        self._closed = True
        if self._opened is not None:
            await self._opened.close(None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def submit(
        self,
        spec: Spec,
        job_id: str | None = None,
        request_id: str | None = None,
        resume_from: str | os.PathLike[str] | None = None,
        *,
        preflight_only: bool = False,
        upload: bool = False,
    ) -> "Job":
        """Queues a job. As `temper.Client.submit`."""
        source = read_spec(spec)
        if upload:
            await self._upload(source)
        request = calls.create_request(source, job_id, request_id, resume_from, preflight_only)
        try:
            return Job(self, await self._call(calls.CREATE_JOB, request))
        except InvalidRequest as error:
            raise source.refused(error) from None

    async def verify(
        self, model: str | os.PathLike[str], *, dtype: str = "fp32", layers: bool = False, gradients: bool = False
    ) -> "Job":
        """Begins to compare temper's model with transformers' own. As `temper.Client.verify`."""
        return Job(self, await self._call(calls.CREATE_JOB, calls.verify_request(model, dtype, layers, gradients)))

    async def families(self) -> Sequence[pb.ModelFamily]:
        """The families of models that temper trains by itself. As `temper.Client.families`."""
        return (await self._call(calls.LIST_FAMILIES, pb.ListFamiliesRequest())).families

    async def get(self, job: str) -> "Job":
        """A job by its id or name. Raises NotFound."""
        return Job(self, await self._call(calls.GET_JOB, pb.GetJobRequest(name=calls.job_name(job))))

    def list(
        self, states: Iterable[State | str] = (), *, owner: str = "", labels: Mapping[str, str] | None = None
    ) -> AsyncIterator["Job"]:
        """Jobs, newest first, only those in one of `states`, of `owner` and with all of `labels`, where given.

        Asks for a page when it is needed.
        """
        return self._pages(calls.list_request(states, owner, labels))

    async def _pages(self, request: pb.ListJobsRequest) -> AsyncIterator["Job"]:
        while True:
            page = await self._call(calls.LIST_JOBS, request)
            for job in page.jobs:
                yield Job(self, job)
            request.page_token = page.next_page_token
            if not request.page_token:
                return

    @property
    def _channel(self) -> grpc.aio.Channel:
        # Not before there is an event loop, to which it belongs.
        if self._opened is None:
            where, credentials = self._connection.address, self._connection.credentials
            options = self._connection.channel_options
            if credentials is None:
                self._opened = grpc.aio.insecure_channel(where, options)
            else:
                self._opened = grpc.aio.secure_channel(where, credentials, options)
        return self._opened

    async def _upload(self, source: JobSource) -> None:
        for file in await asyncio.to_thread(local_files, source.spec):
            try:
                try:
                    answer = await self._send(file.question, self._connection.deadline)
                except NotFound:
                    answer = await self._send(file.requests, None)
            except InvalidRequest as error:
                raise file.refused(source, error) from None
            file.uploaded(answer)

    async def _send(self, requests: Callable[[], Iterator[pb.UploadFileRequest]], timeout: float | None) -> pb.Upload:
        call = self._channel.stream_unary(
            calls.UPLOAD_FILE.path,
            request_serializer=pb.UploadFileRequest.SerializeToString,
            response_deserializer=pb.Upload.FromString,
        )
        place = Place()
        while True:
            try:
                answer: pb.Upload = await call(requests(), timeout=timeout, metadata=self._connection.metadata)
            except grpc.RpcError as error:
                refusal = self._connection.error(error)
            else:
                return answer
            await asyncio.sleep(place.refused(refusal))

    async def _call(self, method: Method[Request, Response], request: Request) -> Response:
        call = self._channel.unary_unary(
            method.path,
            request_serializer=method.request.SerializeToString,
            response_deserializer=method.response.FromString,
        )
        try:
            response: Response = await call(
                request, timeout=self._connection.deadline, metadata=self._connection.metadata
            )
        except grpc.RpcError as error:
            raise self._connection.error(error) from None
        return response

    async def _stream(
        self, method: Method[Request, Response], request: Request, timeout: float | None = None
    ) -> AsyncGenerator[Response]:
        open_stream = self._channel.unary_stream(
            method.path,
            request_serializer=method.request.SerializeToString,
            response_deserializer=method.response.FromString,
        )
        stream = open_stream(request, timeout=timeout, metadata=self._connection.metadata)
        try:
            async for message in stream:
                yield message
        except grpc.RpcError as error:
            raise self._connection.error(error) from None
        finally:
            stream.cancel()


class Job(JobHandle):
    """A job of a server. `temper.Job` explains the rest."""

    def __init__(self, client: Client, info: pb.Job) -> None:
        super().__init__(info)
        self._client = client

    async def refresh(self) -> Self:
        """Asks the server how the job is."""
        self._info = await self._client._call(calls.GET_JOB, pb.GetJobRequest(name=self.name))
        return self

    async def cancel(self) -> Self:
        """Asks it to stop for good, and returns at once. FailedPrecondition when it has succeeded or failed."""
        self._info = await self._client._call(calls.CANCEL_JOB, pb.CancelJobRequest(name=self.name))
        return self

    async def pause(self) -> Self:
        """Asks it to finish its step, commit a checkpoint and free the device, and returns at once."""
        self._info = await self._client._call(calls.PAUSE_JOB, pb.PauseJobRequest(name=self.name))
        return self

    async def resume(self) -> Self:
        """Lets it go on from its newest checkpoint."""
        self._info = await self._client._call(calls.RESUME_JOB, pb.ResumeJobRequest(name=self.name))
        return self

    async def delete(self) -> None:
        """Forgets it; what it wrote to its output stays. FailedPrecondition when it has not ended."""
        await self._client._call(calls.DELETE_JOB, pb.DeleteJobRequest(name=self.name))

    async def checkpoints(self) -> list[pb.Checkpoint]:
        """Those that are committed, newest first."""
        request = pb.ListCheckpointsRequest(parent=self.name)
        return list((await self._client._call(calls.LIST_CHECKPOINTS, request)).checkpoints)

    async def events(self, after: int = 0) -> AsyncGenerator[pb.JobEvent]:
        """What has happened since event `after`, and then what happens. As `temper.Job.events`."""
        await self.refresh()  # from here on the server is known to be there
        async with aclosing(self._follow(Follower(self.name, after))) as events:
            async for event in events:
                yield event

    async def wait(self, timeout: float | None = None, *, check: bool = True) -> State:
        """Waits until the job has ended, also over restarts of the server. As `temper.Job.wait`."""
        if not (await self.refresh()).state.is_end:
            async with aclosing(self._follow(Follower(self.name, self._info.last_sequence, timeout))) as events:
                async for _ in events:
                    pass
            await self.refresh()
        return self._ended(check)

    async def metrics(self, max_points: int | None = None) -> list[pb.StepMetrics]:
        """Figures of every step so far, in order. As `temper.Job.metrics`."""
        if max_points is None:
            return (await self._history()).steps
        request = pb.QueryMetricsRequest(parent=self.name, max_points=max_points)
        return list((await self._client._call(calls.QUERY_METRICS, request)).steps)

    async def to_pandas(self) -> "pandas.DataFrame":
        """The same as a DataFrame: a row a step, a column a figure, and `time`. Needs `temper-client[pandas]`."""
        return (await self._history()).to_pandas()

    async def download(
        self,
        directory: str | os.PathLike[str],
        checkpoint: int | pb.Checkpoint | None = None,
        progress: Progress | None = None,
    ) -> DownloadResult:
        """Takes the export home, or a checkpoint. As `temper.Job.download`; files are read and written in threads."""
        parent = calls.artifacts_parent(self.name, checkpoint)
        listed = await self._client._call(calls.LIST_ARTIFACTS, pb.ListArtifactsRequest(parent=parent))
        download = Download(parent, listed.artifacts, directory, progress)
        while (file := await asyncio.to_thread(download.next_file)) is not None:
            with file:
                while (request := await asyncio.to_thread(file.next_request)) is not None:
                    try:
                        async with aclosing(self._client._stream(calls.READ_ARTIFACT, request)) as stream:
                            async for chunk in stream:
                                await asyncio.to_thread(file.write, chunk.data)
                                download.report(file.path)
                        file.stream_ended()
                    except TemperError as error:
                        if self._client._closed:
                            raise
                        await asyncio.sleep(file.stream_broke(error))
        return download.result

    async def _follow(self, follower: Follower) -> AsyncGenerator[pb.JobEvent]:
        while True:
            try:
                async with aclosing(
                    self._client._stream(calls.WATCH_JOB, follower.request, follower.remaining)
                ) as stream:
                    async for event in stream:
                        yield self._observe(follower.accept(event))
                return
            except TemperError as error:
                if self._client._closed:
                    raise
                pause = follower.interrupted(error)
            await asyncio.sleep(pause)

    async def _history(self) -> StepHistory:
        history = StepHistory(until=(await self.refresh()).info.last_sequence)
        if not history.is_complete:
            async with aclosing(self._follow(Follower(self.name, 0))) as events:
                async for event in events:
                    history.add(event)
                    if history.is_complete:
                        break
        return history
