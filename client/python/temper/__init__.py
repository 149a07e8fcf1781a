# SPDX-License-Identifier: Apache-2.0
"""Python client of temper, post-training as a service.

    with temper.Client() as client:
        job = client.submit("sft.yaml")
        for event in job.events():
            ...
        job.download("my-finetune")

`temper.aio` has the same for asyncio, `temper.v1` the generated messages and stubs.
"""

from temper._client import Client, Job
from temper._download import DownloadProgress, DownloadResult
from temper._spec import Spec
from temper._state import State
from temper.errors import (
    AlreadyExists,
    DataLoss,
    DeadlineExceeded,
    FailedPrecondition,
    FieldViolation,
    InvalidJob,
    InvalidRequest,
    JobFailed,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    TemperError,
    Unauthenticated,
    Unavailable,
)
from temper.v1.job_pb2 import JobSpec
from temper.v1.training_service_pb2 import Checkpoint, JobEvent, StepMetrics

__all__ = [
    "AlreadyExists",
    "Checkpoint",
    "Client",
    "DataLoss",
    "DeadlineExceeded",
    "DownloadProgress",
    "DownloadResult",
    "FailedPrecondition",
    "FieldViolation",
    "InvalidJob",
    "InvalidRequest",
    "Job",
    "JobEvent",
    "JobFailed",
    "JobSpec",
    "NotFound",
    "PermissionDenied",
    "ResourceExhausted",
    "Spec",
    "State",
    "StepMetrics",
    "TemperError",
    "Unauthenticated",
    "Unavailable",
]
