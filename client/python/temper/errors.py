# SPDX-License-Identifier: Apache-2.0
"""What can go wrong: a `TemperError`, or Python's own OSError, ValueError and (an extra is missing) ImportError."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import grpc
from google.rpc import error_details_pb2, status_pb2

from temper._state import State


@dataclass(frozen=True)
class FieldViolation:
    """One wrong field."""

    field: str
    """Its path as in a job file: `training.steps`. Empty for the whole."""
    description: str
    """What is wrong, and what to write instead."""
    line: int | None = None
    """Where it stands in the job file, from 1. None for JSON, for a dict, and for what does not stand there."""


class TemperError(Exception):
    """What the server refused, or could not do."""

    default_code: ClassVar[grpc.StatusCode] = grpc.StatusCode.UNKNOWN

    def __init__(
        self,
        message: str,
        *,
        code: grpc.StatusCode | None = None,
        reason: str = "",
        metadata: Mapping[str, str] | None = None,
        violations: Iterable[FieldViolation] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.reason = reason or self.code.name
        """In UPPER_SNAKE_CASE, for programs (`JOB_NOT_FOUND`): of google.rpc.ErrorInfo, or else the code's name."""
        self.metadata = dict(metadata or {})
        """What google.rpc.ErrorInfo says beside it."""
        self.violations = tuple(violations)


class InvalidRequest(TemperError):
    """Something in the request is wrong; `violations` says which fields."""

    default_code = grpc.StatusCode.INVALID_ARGUMENT


class InvalidJob(InvalidRequest):
    """The job can't be read, or the server refused it; `violations` says which fields of it are wrong."""


class NotFound(TemperError):
    """There is no such job, checkpoint or file."""

    default_code = grpc.StatusCode.NOT_FOUND


class AlreadyExists(TemperError):
    """`job_id` is taken, or `request_id` was used with another job."""

    default_code = grpc.StatusCode.ALREADY_EXISTS


class FailedPrecondition(TemperError):
    """The job is not in a state that allows this."""

    default_code = grpc.StatusCode.FAILED_PRECONDITION


class Unavailable(TemperError):
    """No server answers."""

    default_code = grpc.StatusCode.UNAVAILABLE


class DeadlineExceeded(TemperError, TimeoutError):
    """The server answered too late, or what was waited for did not happen in time."""

    default_code = grpc.StatusCode.DEADLINE_EXCEEDED


class ResourceExhausted(TemperError):
    """The server has too much to do; try again later."""

    default_code = grpc.StatusCode.RESOURCE_EXHAUSTED


class Unauthenticated(TemperError):
    """The token is missing or wrong, was revoked, or has expired."""

    default_code = grpc.StatusCode.UNAUTHENTICATED


class PermissionDenied(TemperError):
    """The token's role does not allow this, or the job is somebody else's."""

    default_code = grpc.StatusCode.PERMISSION_DENIED


class DataLoss(TemperError):
    """What the server sent is not what it promised: damaged files, a gap between events."""

    default_code = grpc.StatusCode.DATA_LOSS


class JobFailed(TemperError):
    """A job that was waited for ended, but not well. `reason` is the cause (`USER_INPUT`), or `CANCELLED`."""

    default_code = grpc.StatusCode.ABORTED

    def __init__(self, message: str, *, state: State = State.FAILED, **details: Any) -> None:
        super().__init__(message, **details)
        self.state = state
        """FAILED or CANCELLED."""


_BY_CODE: dict[grpc.StatusCode, type[TemperError]] = {
    error.default_code: error
    for error in (
        InvalidRequest,
        NotFound,
        AlreadyExists,
        FailedPrecondition,
        Unavailable,
        DeadlineExceeded,
        ResourceExhausted,
        Unauthenticated,
        PermissionDenied,
        DataLoss,
    )
}


def from_rpc_error(error: grpc.RpcError, address: str) -> TemperError:
    """The exception for what a call to the server at `address` ended with."""
    call: Any = error  # grpc's errors are calls too: their type does not say so
    code: grpc.StatusCode = call.code()
    message: str = call.details() or code.name
    info = error_details_pb2.ErrorInfo()
    bad_request = error_details_pb2.BadRequest()
    for key, value in call.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            for detail in status_pb2.Status.FromString(value).details:
                detail.Unpack(info)
                detail.Unpack(bad_request)
    if code is grpc.StatusCode.UNAVAILABLE and not info.reason:  # of the transport, not of a server
        message = (
            f"no server answers at {address} ({message}); "
            "start one with `temper-server`, or name another with Client(address) or TEMPER_SERVER"
        )
    violations = [FieldViolation(v.field, v.description) for v in bad_request.field_violations]
    return _BY_CODE.get(code, TemperError)(
        message, code=code, reason=info.reason, metadata=dict(info.metadata), violations=violations
    )
