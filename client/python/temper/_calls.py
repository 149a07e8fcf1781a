# SPDX-License-Identifier: Apache-2.0
"""The calls of temper.v1.TrainingService with their types, and how they are made. Shared by both clients."""

import ipaddress
import json
import os
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import grpc
from google.protobuf import empty_pb2
from google.protobuf.message import Message

from temper._config import config_path, read_config
from temper._spec import JobSource, absolute_uri
from temper._state import State, state_names
from temper.errors import TemperError, from_rpc_error
from temper.v1 import training_service_pb2 as pb

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)

DEFAULT_ADDRESS = "127.0.0.1:8470"
DEFAULT_DEADLINE = 10.0


@dataclass(frozen=True)
class Method(Generic[Request, Response]):
    name: str
    request: type[Request]
    response: type[Response]

    @property
    def path(self) -> str:
        return f"/temper.v1.TrainingService/{self.name}"


CREATE_JOB = Method("CreateJob", pb.CreateJobRequest, pb.Job)
GET_JOB = Method("GetJob", pb.GetJobRequest, pb.Job)
LIST_JOBS = Method("ListJobs", pb.ListJobsRequest, pb.ListJobsResponse)
CANCEL_JOB = Method("CancelJob", pb.CancelJobRequest, pb.Job)
PAUSE_JOB = Method("PauseJob", pb.PauseJobRequest, pb.Job)
RESUME_JOB = Method("ResumeJob", pb.ResumeJobRequest, pb.Job)
DELETE_JOB = Method("DeleteJob", pb.DeleteJobRequest, empty_pb2.Empty)
QUERY_METRICS = Method("QueryMetrics", pb.QueryMetricsRequest, pb.QueryMetricsResponse)
LIST_CHECKPOINTS = Method("ListCheckpoints", pb.ListCheckpointsRequest, pb.ListCheckpointsResponse)
LIST_ARTIFACTS = Method("ListArtifacts", pb.ListArtifactsRequest, pb.ListArtifactsResponse)
READ_ARTIFACT = Method("ReadArtifact", pb.ReadArtifactRequest, pb.ReadArtifactResponse)
LIST_FAMILIES = Method("ListFamilies", pb.ListFamiliesRequest, pb.ListFamiliesResponse)
UPLOAD_FILE = Method("UploadFile", pb.UploadFileRequest, pb.Upload)
WATCH_JOB = Method("WatchJob", pb.WatchJobRequest, pb.JobEvent)

# A unary call whose server is away is repeated for about two seconds: all are safe to repeat (CreateJob by its
# request_id).
_SERVICE_CONFIG = {
    "methodConfig": [
        {
            "name": [{"service": "temper.v1.TrainingService"}],
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.2s",
                "maxBackoff": "1s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ]
}


def is_this_host(address: str) -> bool:
    """Whether what is sent there stays on this machine."""
    if address.startswith("unix:"):
        return True
    host = address.rpartition(":")[0].removeprefix("[").removesuffix("]")
    try:
        return host.lower() == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True)
class Connection:
    """Where the server is, and how it is talked to."""

    address: str
    deadline: float
    token: str = field(default="", repr=False)
    tls: bool = False
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""

    @classmethod
    def of(
        cls,
        address: str | None,
        token: str | None,
        ca_file: str | None,
        deadline: float,
        insecure: bool | None = None,
    ) -> "Connection":
        """What is None is taken from the environment, or else from the user's config file.

        ValueError: the file is wrong, or the token would be sent to another host in plain text.
        """
        address = os.environ.get("TEMPER_SERVER") if address is None else address
        token = os.environ.get("TEMPER_TOKEN") if token is None else token
        ca_file = os.environ.get("TEMPER_CA_FILE") if ca_file is None else ca_file
        config = read_config(config_path())
        address = address or config.server or DEFAULT_ADDRESS
        ca_file = config.ca_file if ca_file is None else ca_file
        cert_file = os.environ.get("TEMPER_CERT_FILE", config.cert_file)
        key_file = os.environ.get("TEMPER_KEY_FILE", config.key_file)
        token = config.token if token is None else token
        tls = address.startswith("https://") or bool(ca_file or cert_file or key_file)
        insecure = config.insecure if insecure is None else insecure
        if token and not (tls or insecure or is_this_host(address)):
            raise ValueError(
                f"the token would be sent to {address} in plain text: use https://HOST:PORT or ca_file, "
                "or accept that with insecure"
            )
        return cls(
            address.removeprefix("https://"),
            deadline,
            token,
            tls=tls,
            ca_file=ca_file,
            cert_file=cert_file,
            key_file=key_file,
        )

    @property
    def credentials(self) -> grpc.ChannelCredentials | None:
        """Of a channel over TLS. None: plain text. OSError: a file can't be read."""
        if not self.tls:
            return None
        if bool(self.cert_file) != bool(self.key_file):
            raise ValueError("a client's certificate needs its key, and the key its certificate")
        ca, key, certificate = (
            Path(file).read_bytes() if file else None for file in (self.ca_file, self.key_file, self.cert_file)
        )
        return grpc.ssl_channel_credentials(ca, key, certificate)

    @property
    def channel_options(self) -> list[tuple[str, Any]]:
        options: list[tuple[str, Any]] = [
            ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
            # So that a dead peer is noticed within half a minute; the server allows a ping every 10 s.
            ("grpc.keepalive_time_ms", 20_000),
            ("grpc.keepalive_timeout_ms", 10_000),
            ("grpc.http2.max_pings_without_data", 0),
            ("grpc.initial_reconnect_backoff_ms", 200),
            ("grpc.max_reconnect_backoff_ms", 2_000),
        ]
        if is_this_host(self.address):
            options.append(("grpc.enable_http_proxy", 0))
        return options

    @property
    def metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        return (("authorization", f"Bearer {self.token}"),) if self.token else ()

    def error(self, error: grpc.RpcError) -> TemperError:
        return from_rpc_error(error, self.address)


def job_name(id_or_name: str) -> str:
    return id_or_name if id_or_name.startswith("jobs/") else f"jobs/{id_or_name}"


def create_request(
    source: JobSource,
    job_id: str | None,
    request_id: str | None,
    resume_from: str | os.PathLike[str] | None,
    preflight_only: bool,
) -> pb.CreateJobRequest:
    request = pb.CreateJobRequest(
        job=pb.Job(spec=source.spec),
        job_id=job_id or "",
        request_id=request_id or str(uuid.uuid4()),
        preflight_only=preflight_only,
    )
    if resume_from is not None:
        request.job.spec.resume_from = absolute_uri(os.fspath(resume_from), Path.cwd())
    return request


def verify_request(model: str | os.PathLike[str], dtype: str, layers: bool, gradients: bool) -> pb.CreateJobRequest:
    request = pb.CreateJobRequest(request_id=str(uuid.uuid4()))
    request.job.spec.model.uri = absolute_uri(os.fspath(model), Path.cwd())
    request.verify.CopyFrom(pb.VerifyOptions(dtype=dtype, layers=layers, gradients=gradients))
    return request


def list_request(states: Iterable[State | str], owner: str, labels: Mapping[str, str] | None) -> pb.ListJobsRequest:
    return pb.ListJobsRequest(states=state_names(states), owner=owner, labels=labels)


def artifacts_parent(job: str, checkpoint: "int | pb.Checkpoint | None") -> str:
    if checkpoint is None:
        return job
    return f"{job}/checkpoints/{checkpoint if isinstance(checkpoint, int) else checkpoint.step}"
