# SPDX-License-Identifier: Apache-2.0
"""How artifacts become files. Does no network I/O: the clients do."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import grpc

from temper._place import Place
from temper.errors import DataLoss, FailedPrecondition, TemperError
from temper.v1 import training_service_pb2 as pb

# A stream that breaks is opened again at once as long as each one brings something, and this often when it does not.
_FRUITLESS_STREAMS = 3
# CANCELLED is what a server does that stops, or that has waited for us for too long.
_WORTH_ANOTHER = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
_BLOCK = 1 << 20


@dataclass(frozen=True)
class DownloadProgress:
    """How far a download is."""

    done_bytes: int
    """Of all files, those that were there before included."""
    total_bytes: int
    path: str
    """The file that is being received."""


@dataclass(frozen=True)
class DownloadResult:
    """What a download brought."""

    directory: Path
    files: int
    bytes: int
    """Of all files."""
    received_bytes: int
    """That came over the network this time."""


Progress = Callable[[DownloadProgress], object]


class Download:
    """The files of an export or a checkpoint on their way into `directory`.

    Files that are there with the right size and SHA-256 are kept; a partial one (NAME.part, from an interrupted
    download) goes on where it ended. A file appears under its name, by an atomic rename, only when it is whole,
    verified and on disk.
    """

    def __init__(
        self,
        parent: str,
        artifacts: Iterable[pb.Artifact],
        directory: str | os.PathLike[str],
        progress: Progress | None,
    ) -> None:
        self.parent = parent
        self.received_bytes = 0
        self.done_bytes = 0
        self._artifacts = list(artifacts)
        self._directory = Path(directory)
        self._progress = progress
        if not self._artifacts:
            raise FailedPrecondition(f"{parent} has no export yet")
        for artifact in self._artifacts:
            _check_path(artifact.path)
        self._remaining = self._incomplete()

    def next_file(self) -> "PartialFile | None":
        """The next file that is not whole; None when all are. Reads those that are there."""
        return next(self._remaining, None)

    def report(self, path: str) -> None:
        """Tells whoever wants to know."""
        if self._progress is not None:
            self._progress(DownloadProgress(self.done_bytes, self._total_bytes, path))

    @property
    def result(self) -> DownloadResult:
        """Once every file is whole."""
        return DownloadResult(self._directory, len(self._artifacts), self._total_bytes, self.received_bytes)

    @property
    def _total_bytes(self) -> int:
        return sum(artifact.size_bytes for artifact in self._artifacts)

    def _incomplete(self) -> Iterator["PartialFile"]:
        before = 0
        for artifact in self._artifacts:
            self.done_bytes = before
            path = self._directory / artifact.path
            if not _is_whole(path, artifact):
                yield PartialFile(self, artifact, path)
            before += artifact.size_bytes
        self.done_bytes = before


class PartialFile:
    """A file that grows under the name NAME.part and takes its own name when it is whole."""

    def __init__(self, download: Download, artifact: pb.Artifact, path: Path) -> None:
        self._download = download
        self._artifact = artifact
        self._path = path
        self._partial = path.with_name(path.name + ".part")
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._partial.open("a+b")
        self._file.seek(0)
        self._digest = hashlib.sha256()
        self._written = 0
        while block := self._file.read(_BLOCK):
            self._count(block)
        if self._written > artifact.size_bytes:
            self._restart()
        self._restarted = False
        self._at_end = False  # the server has no more
        self._stream_start = 0
        self._fruitless = 0
        self._place = Place()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()

    @property
    def path(self) -> str:
        """Below the directory."""
        return self._artifact.path

    def next_request(self) -> pb.ReadArtifactRequest | None:
        """For the next stream; None when the file has its name. DataLoss when what comes is wrong, twice."""
        if self._at_end or self._written >= self._artifact.size_bytes:
            if self._written == self._artifact.size_bytes and self._digest.hexdigest() == self._artifact.sha256:
                self._commit()
                return None
            if self._restarted:
                raise DataLoss(
                    f"{self.path}: what the server sends has the SHA-256 {self._digest.hexdigest()} "
                    f"and {self._written} bytes, but was committed with {self._artifact.sha256} "
                    f"and {self._artifact.size_bytes} bytes; the stored file is damaged"
                )
            # The partial file was damaged, or belongs to another export.
            self._restart()
            self._restarted = True
        self._at_end = False
        self._stream_start = self._written
        return pb.ReadArtifactRequest(parent=self._download.parent, path=self.path, offset=self._written)

    def write(self, data: bytes) -> None:
        """Appends what came."""
        self._file.write(data)
        self._count(data)
        self._download.received_bytes += len(data)
        self._download.done_bytes += len(data)

    def stream_ended(self) -> None:
        """The server has sent all it has."""
        self._at_end = True

    def stream_broke(self, error: TemperError) -> float:
        """Seconds to wait before another stream; raises when there is no point in one."""
        if error.code not in _WORTH_ANOTHER:
            return self._place.refused(error)
        self._place = Place()  # it had one
        self._fruitless = 0 if self._written > self._stream_start else self._fruitless + 1
        if self._fruitless >= _FRUITLESS_STREAMS:
            raise error
        return 0.0

    def _count(self, data: bytes) -> None:
        self._digest.update(data)
        self._written += len(data)

    def _restart(self) -> None:
        self._file.truncate(0)
        self._download.done_bytes -= self._written
        self._written = 0
        self._digest = hashlib.sha256()

    def _commit(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._partial.replace(self._path)


def _check_path(path: str) -> None:
    """A server may not make us write outside the directory that the user named."""
    if any(part in ("", ".", "..") or "\0" in part for part in path.split("/")):
        raise DataLoss(
            f"the server lists a file with the path '{path}', which is not below its directory; nothing was downloaded"
        )


def _is_whole(path: Path, artifact: pb.Artifact) -> bool:
    if not path.is_file() or path.stat().st_size != artifact.size_bytes:
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == artifact.sha256
