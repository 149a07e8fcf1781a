# SPDX-License-Identifier: Apache-2.0
import contextlib
import os
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

import grpc

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


class Client:
    """A temper-server. Any thread may use it; close it, or use it in `with`.

    `address` is HOST:PORT; `token`, where there is one, is sent with every call. By default they are what TEMPER_SERVER
    and TEMPER_TOKEN say, or else `server` and `token` of ~/.config/temper/config.yaml, or else 127.0.0.1:8470 and none.
    Calls go over TLS to https://HOST:PORT, or with `ca_file`, who may have signed the server's certificate (or
    TEMPER_CA_FILE, or the config's; TEMPER_CERT_FILE and TEMPER_KEY_FILE for a server that asks for a certificate), and
    in plain text otherwise. That is for loopback: a token goes in plain text to another host only with `insecure` (or
    the config's; False: not even then), for a network that is trusted, and is a ValueError otherwise. A call that is
    answered at once takes at most `deadline` seconds. Connects when it is needed.
    """

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
        where, credentials = self._connection.address, self._connection.credentials
        options = self._connection.channel_options
        if credentials is None:
            self._channel = grpc.insecure_channel(where, options)
        else:
            self._channel = grpc.secure_channel(where, credentials, options)
        self._closed = False

    @property
    def address(self) -> str:
        """Where the server is."""
        return self._connection.address

    def close(self) -> None:
        """Ends every call. Jobs go on."""
        self._closed = True
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def submit(
        self,
        spec: Spec,
        job_id: str | None = None,
        request_id: str | None = None,
        resume_from: str | os.PathLike[str] | None = None,
        *,
        preflight_only: bool = False,
        upload: bool = False,
    ) -> "Job":
        """Queues a job.

        `spec` is a JobSpec, a dict with the fields of a job file, or the path of a YAML or JSON file; relative paths in
        it are meant relative to the file, or else to the working directory. `job_id`: default: the server chooses.
        `request_id` is a UUID that makes the call safe to repeat: the same id and job create one job. `resume_from`:
        URI or path of a checkpoint of any job to go on from. `preflight_only`: look at model and data, train nothing;
        a job that has succeeded has `info.preflight`. `upload`: the files that `data` and `validation` name are of this
        machine, and are sent to the server, unless it has them; small ones, as it says how large they may be.

        Raises InvalidJob, AlreadyExists.
        """
        source = read_spec(spec)
        if upload:
            self._upload(source)
        request = calls.create_request(source, job_id, request_id, resume_from, preflight_only)
        try:
            return Job(self, self._call(calls.CREATE_JOB, request))
        except InvalidRequest as error:
            raise source.refused(error) from None

    def verify(
        self, model: str | os.PathLike[str], *, dtype: str = "fp32", layers: bool = False, gradients: bool = False
    ) -> "Job":
        """Begins to compare temper's model with transformers' own on a checkpoint; nothing is trained.

        The answer is a job: when it has succeeded, `info.verdict` says whether the model passed. `layers`: also name
        the first module whose output departs; `gradients`: also compare those of every weight (fp32 only).
        """
        return Job(self, self._call(calls.CREATE_JOB, calls.verify_request(model, dtype, layers, gradients)))

    def families(self) -> Sequence[pb.ModelFamily]:
        """The families of models that temper trains by itself, with its verdicts on how exactly it computes them."""
        return self._call(calls.LIST_FAMILIES, pb.ListFamiliesRequest()).families

    def get(self, job: str) -> "Job":
        """A job by its id or name. Raises NotFound."""
        return Job(self, self._call(calls.GET_JOB, pb.GetJobRequest(name=calls.job_name(job))))

    def list(
        self, states: Iterable[State | str] = (), *, owner: str = "", labels: Mapping[str, str] | None = None
    ) -> Iterator["Job"]:
        """Jobs, newest first, only those in one of `states`, of `owner` and with all of `labels`, where given.

        Asks for a page when it is needed.
        """
        return self._pages(calls.list_request(states, owner, labels))

    def _pages(self, request: pb.ListJobsRequest) -> Iterator["Job"]:
        while True:
            page = self._call(calls.LIST_JOBS, request)
            yield from (Job(self, job) for job in page.jobs)
            request.page_token = page.next_page_token
            if not request.page_token:
                return

    def _upload(self, source: JobSource) -> None:
        for file in local_files(source.spec):
            try:
                try:
                    answer = self._send(file.question, self._connection.deadline)
                except NotFound:
                    answer = self._send(file.requests, None)
            except InvalidRequest as error:
                raise file.refused(source, error) from None
            file.uploaded(answer)

    def _send(self, requests: Callable[[], Iterator[pb.UploadFileRequest]], timeout: float | None) -> pb.Upload:
        call = self._channel.stream_unary(
            calls.UPLOAD_FILE.path,
            request_serializer=pb.UploadFileRequest.SerializeToString,
            response_deserializer=pb.Upload.FromString,
        )
        place = Place()
        while True:
            try:
                answer: pb.Upload = call(requests(), timeout=timeout, metadata=self._connection.metadata)
            except grpc.RpcError as error:
                refusal = self._connection.error(error)
            else:
                return answer
            time.sleep(place.refused(refusal))

    def _call(self, method: Method[Request, Response], request: Request) -> Response:
        call = self._channel.unary_unary(
            method.path,
            request_serializer=method.request.SerializeToString,
            response_deserializer=method.response.FromString,
        )
        try:
            response: Response = call(request, timeout=self._connection.deadline, metadata=self._connection.metadata)
        except grpc.RpcError as error:
            raise self._connection.error(error) from None
        return response

    def _stream(
        self, method: Method[Request, Response], request: Request, timeout: float | None = None
    ) -> Generator[Response]:
        open_stream = self._channel.unary_stream(
            method.path,
            request_serializer=method.request.SerializeToString,
            response_deserializer=method.response.FromString,
        )
        stream = open_stream(request, timeout=timeout, metadata=self._connection.metadata)
        try:
            yield from stream
        except grpc.RpcError as error:
            raise self._connection.error(error) from None
        finally:
            stream.cancel()  # type: ignore[no-untyped-call, unused-ignore]


class Job(JobHandle):
    """A job of a server."""

    def __init__(self, client: Client, info: pb.Job) -> None:
        super().__init__(info)
        self._client = client

    def refresh(self) -> Self:
        """Asks the server how the job is."""
        self._info = self._client._call(calls.GET_JOB, pb.GetJobRequest(name=self.name))
        return self

    def cancel(self) -> Self:
        """Asks it to stop for good, and returns at once. FailedPrecondition when it has succeeded or failed."""
        self._info = self._client._call(calls.CANCEL_JOB, pb.CancelJobRequest(name=self.name))
        return self

    def pause(self) -> Self:
        """Asks it to finish its step, commit a checkpoint and free the device, and returns at once.

        FailedPrecondition when it has ended or is being cancelled.
        """
        self._info = self._client._call(calls.PAUSE_JOB, pb.PauseJobRequest(name=self.name))
        return self

    def resume(self) -> Self:
        """Lets it go on from its newest checkpoint. FailedPrecondition when it has ended or is being cancelled."""
        self._info = self._client._call(calls.RESUME_JOB, pb.ResumeJobRequest(name=self.name))
        return self

    def delete(self) -> None:
        """Forgets it; what it wrote to its output stays. FailedPrecondition when it has not ended."""
        self._client._call(calls.DELETE_JOB, pb.DeleteJobRequest(name=self.name))

    def checkpoints(self) -> list[pb.Checkpoint]:
        """Those that are committed, newest first."""
        request = pb.ListCheckpointsRequest(parent=self.name)
        return list(self._client._call(calls.LIST_CHECKPOINTS, request).checkpoints)

    def events(self, after: int = 0) -> Generator[pb.JobEvent]:
        """What has happened since event `after`, and then what happens, until the job has ended.

        Each event comes once and in order, however often the connection breaks: it is opened again, for ten minutes.
        Raises NotFound, Unavailable.
        """
        self.refresh()  # from here on the server is known to be there
        yield from self._follow(Follower(self.name, after))

    def wait(self, timeout: float | None = None, *, check: bool = True) -> State:
        """Waits until the job has ended, also over restarts of the server.

        Raises DeadlineExceeded (a TimeoutError) after `timeout` seconds, and JobFailed when the job has not succeeded,
        unless `check` is false.
        """
        if not self.refresh().state.is_end:
            with contextlib.closing(self._follow(Follower(self.name, self._info.last_sequence, timeout))) as events:
                for _ in events:
                    pass
            self.refresh()
        return self._ended(check)

    def metrics(self, max_points: int | None = None) -> list[pb.StepMetrics]:
        """Figures of every step so far, in order; with `max_points` (2 to 10,000), of every n-th and the newest."""
        if max_points is None:
            return self._history().steps
        request = pb.QueryMetricsRequest(parent=self.name, max_points=max_points)
        return list(self._client._call(calls.QUERY_METRICS, request).steps)

    def to_pandas(self) -> "pandas.DataFrame":
        """The same as a DataFrame: a row a step, a column a figure, and `time`. Needs `temper-client[pandas]`."""
        return self._history().to_pandas()

    def download(
        self,
        directory: str | os.PathLike[str],
        checkpoint: int | pb.Checkpoint | None = None,
        progress: Progress | None = None,
    ) -> DownloadResult:
        """Takes the export home, or a checkpoint (a step, or one of `checkpoints()`): every file into `directory`.

        Run it again after an interruption: whole files are kept, partial ones (NAME.part) go on where they ended. A
        file has its name only when its SHA-256 is right. `progress` is called with a DownloadProgress now and then.

        Raises FailedPrecondition when there is no export yet, NotFound, DataLoss when what comes is wrong, twice.
        """
        parent = calls.artifacts_parent(self.name, checkpoint)
        listed = self._client._call(calls.LIST_ARTIFACTS, pb.ListArtifactsRequest(parent=parent))
        download = Download(parent, listed.artifacts, directory, progress)
        while (file := download.next_file()) is not None:
            with file:
                while (request := file.next_request()) is not None:
                    try:
                        for chunk in self._client._stream(calls.READ_ARTIFACT, request):
                            file.write(chunk.data)
                            download.report(file.path)
                        file.stream_ended()
                    except TemperError as error:
                        if self._client._closed:
                            raise
                        time.sleep(file.stream_broke(error))
        return download.result

    def _follow(self, follower: Follower) -> Generator[pb.JobEvent]:
        while True:
            try:
                with contextlib.closing(
                    self._client._stream(calls.WATCH_JOB, follower.request, follower.remaining)
                ) as stream:
                    for event in stream:
                        yield self._observe(follower.accept(event))
                return
            except TemperError as error:
                if self._client._closed:
                    raise
                pause = follower.interrupted(error)
            time.sleep(pause)

    def _history(self) -> StepHistory:
        history = StepHistory(until=self.refresh().info.last_sequence)
        if not history.is_complete:
            with contextlib.closing(self._follow(Follower(self.name, 0))) as events:
                for event in events:
                    history.add(event)
                    if history.is_complete:
                        break
        return history
