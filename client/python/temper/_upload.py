# SPDX-License-Identifier: Apache-2.0
"""Files of this machine that a job reads, on their way to the server. Does no network I/O: the clients do."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from temper._spec import JobSource
from temper.errors import FieldViolation, InvalidJob, InvalidRequest
from temper.v1 import job_pb2
from temper.v1 import training_service_pb2 as pb

_PIECE = 1 << 20

Holder = job_pb2.DataSource | job_pb2.DataSource.Source | job_pb2.Validation
"""The message whose `uri` names a file."""


@dataclass(frozen=True)
class LocalFile:
    """A file that a field of a job names."""

    field: str
    """Its path: `data.uri`."""
    holder: Holder
    path: Path
    header: pb.UploadHeader

    def uploaded(self, upload: pb.Upload) -> None:
        """From now on the job names the server's file."""
        self.holder.uri = upload.uri

    def question(self) -> Iterator[pb.UploadFileRequest]:
        """Whether the server has it."""
        yield pb.UploadFileRequest(header=self.header)

    def requests(self) -> Iterator[pb.UploadFileRequest]:
        """What sends it."""
        yield pb.UploadFileRequest(header=self.header)
        with self.path.open("rb") as file:
            while piece := file.read(_PIECE):
                yield pb.UploadFileRequest(data=piece)

    def refused(self, source: JobSource, error: InvalidRequest) -> InvalidJob:
        """The server's refusal, in terms of what the user wrote."""
        why = "; ".join(violation.description for violation in error.violations) or error.message
        violation = FieldViolation(self.field, f"{self.path} can't be uploaded: {why}", source.lines.get(self.field))
        return source.refused(InvalidRequest(error.message, reason=error.reason, violations=[violation]))


def local_files(spec: job_pb2.JobSpec) -> list[LocalFile]:
    """Those with samples. One that is missing, or is a directory, is an OSError."""
    holders: list[tuple[str, Holder]] = [("data.uri", spec.data)] if spec.data.uri else []
    holders += [(f"data.sources[{number}].uri", source) for number, source in enumerate(spec.data.sources)]
    if spec.validation.uri:
        holders.append(("validation.uri", spec.validation))
    return [_describe(field, holder) for field, holder in holders if not _is_remote(holder.uri)]


def _is_remote(uri: str) -> bool:
    """Already where the server can read it."""
    return "://" in uri and not uri.startswith("file://")


def _describe(field: str, holder: Holder) -> LocalFile:
    path = Path(unquote(urlsplit(holder.uri).path) if "://" in holder.uri else holder.uri)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        size = file.tell()
    return LocalFile(field, holder, path, pb.UploadHeader(file_name=path.name, sha256=digest, size_bytes=size))
