#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes docs/API.md from the comments of the public protos. `make format` runs it, `make lint` checks that it did."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    ServiceDescriptorProto,
)
from grpc_tools import protoc

REPOSITORY = Path(__file__).resolve().parent.parent
REFERENCE = REPOSITORY / "docs/API.md"
# What clients use; worker_service.proto is between temper's own processes.
PROTOS = ("temper/v1/training_service.proto", "temper/v1/job.proto", "temper/v1/token_service.proto")
WELL_KNOWN = "https://protobuf.dev/reference/protobuf/google.protobuf/"

HEAD = """\
<!-- SPDX-License-Identifier: Apache-2.0 -->
<!-- Written by tools/api_reference.py from proto/; change the comments there, then `make format`. -->
# API

gRPC, package `temper.v1`: [training_service.proto](../proto/temper/v1/training_service.proto) has the calls,
[job.proto](../proto/temper/v1/job.proto) what a job file says,
[token_service.proto](../proto/temper/v1/token_service.proto) who may use a server that asks for tokens. The server
answers health checks and reflection, too:
`grpcurl -plaintext 127.0.0.1:8470 describe temper.v1.TrainingService`. The client in C++ ([client/](../client)) wraps
all of it, the one in [Python](../client/python/README.md) all but tokens.
"""

# Paths of SourceCodeInfo: field numbers of descriptor.proto.
_MESSAGE, _ENUM, _SERVICE = 4, 5, 6  # of a file
_FIELD, _NESTED, _NESTED_ENUM = 2, 3, 4  # of a message
_VALUE = _METHOD = 2  # of an enum, of a service

_SCALARS = {
    number: name.removeprefix("TYPE_").lower()
    for name, number in FieldDescriptorProto.Type.items()
    if name not in ("TYPE_MESSAGE", "TYPE_ENUM", "TYPE_GROUP")
}


class Reference:
    """The text, of one file after another."""

    def __init__(self, files: list[FileDescriptorProto]) -> None:
        self._files = files
        self._local = {f".{file.package}.{name}" for file in files for name in _top_level_names(file)}

    def text(self) -> str:
        lines = [HEAD]
        for file in self._files:
            comments = _Comments(file)
            for i, service in enumerate(file.service):
                lines += self._service(service, comments, (_SERVICE, i))
        for file in self._files:
            comments = _Comments(file)
            lines += [f"## {Path(file.name).name}", ""]
            for i, message in enumerate(file.message_type):
                lines += self._message(message, message.name, comments, (_MESSAGE, i))
            for i, enum in enumerate(file.enum_type):
                lines += self._enum(enum, enum.name, comments, (_ENUM, i))
        return "\n".join(lines).rstrip("\n") + "\n"

    def _service(self, service: ServiceDescriptorProto, comments: "_Comments", path: tuple[int, ...]) -> Iterator[str]:
        yield from (f"## {service.name}", "", comments.text(path), "")
        for i, method in enumerate(service.method):
            request, response = self._link(method.input_type), self._link(method.output_type)
            stream = "stream of " if method.server_streaming else ""
            yield from (f"### {method.name}", "", f"{request} → {stream}{response}", "")
            yield from (comments.text((*path, _METHOD, i)), "")

    def _message(
        self, message: DescriptorProto, name: str, comments: "_Comments", path: tuple[int, ...]
    ) -> Iterator[str]:
        yield from (f"### {name}", "")
        if text := comments.text(path):  # requests are explained by their calls
            yield from (text, "")
        if message.field:
            yield from ("| field | type | |", "|---|---|---|")
            for i, field in enumerate(message.field):
                text = comments.cell((*path, _FIELD, i))
                if field.HasField("oneof_index") and not field.proto3_optional:
                    text = f"{text} (One of `{message.oneof_decl[field.oneof_index].name}`.)".strip()
                yield f"| `{field.name}` | {self._type(field, message)} | {text} |"
            yield ""
        for i, nested in enumerate(message.nested_type):
            if not nested.options.map_entry:
                yield from self._message(nested, f"{name}.{nested.name}", comments, (*path, _NESTED, i))
        for i, enum in enumerate(message.enum_type):
            yield from self._enum(enum, f"{name}.{enum.name}", comments, (*path, _NESTED_ENUM, i))

    def _enum(
        self, enum: EnumDescriptorProto, name: str, comments: "_Comments", path: tuple[int, ...]
    ) -> Iterator[str]:
        yield from (f"### {name}", "", comments.text(path), "", "| value | |", "|---|---|")
        for i, value in enumerate(enum.value):
            yield f"| `{value.name}` | {comments.cell((*path, _VALUE, i))} |"
        yield ""

    def _type(self, field: FieldDescriptorProto, message: DescriptorProto) -> str:
        if field.type not in (FieldDescriptorProto.TYPE_MESSAGE, FieldDescriptorProto.TYPE_ENUM):
            name = _SCALARS[field.type]
        else:
            name = self._link(field.type_name)
        for nested in message.nested_type:
            if nested.options.map_entry and field.type_name.endswith(f".{message.name}.{nested.name}"):
                key, value = nested.field
                return f"map of {self._type(key, nested)} to {self._type(value, nested)}"
        if field.label == FieldDescriptorProto.LABEL_REPEATED:
            return f"list of {name}"
        return f"{name}, optional" if field.proto3_optional else name

    def _link(self, full_name: str) -> str:
        short = full_name.removeprefix(".temper.v1.")
        if full_name in self._local:
            return f"[{short}](#{short.lower().replace('.', '')})"
        short = short.removeprefix(".")
        return f"[{short}]({WELL_KNOWN})" if short.startswith("google.protobuf.") else short


class _Comments:
    def __init__(self, file: FileDescriptorProto) -> None:
        self._of = {tuple(location.path): location.leading_comments for location in file.source_code_info.location}

    def text(self, path: tuple[int, ...]) -> str:
        """As paragraphs."""
        return "\n".join(line.strip() for line in self._of.get(path, "").strip().splitlines())

    def cell(self, path: tuple[int, ...]) -> str:
        """As one line of a table."""
        paragraphs = self.text(path).split("\n\n")
        return "<br>".join(" ".join(paragraph.split()) for paragraph in paragraphs).replace("|", "\\|")


def _top_level_names(file: FileDescriptorProto) -> Iterator[str]:
    for message in file.message_type:
        yield message.name
        yield from (f"{message.name}.{nested.name}" for nested in (*message.nested_type, *message.enum_type))
    yield from (enum.name for enum in file.enum_type)


def describe(root: Path, protos: tuple[str, ...]) -> list[FileDescriptorProto]:
    """The protos below `root`, with their comments."""
    with tempfile.NamedTemporaryFile() as out:
        well_known = Path(protoc.__file__).parent / "_proto"
        arguments = [f"-I{root}", f"-I{well_known}", "--include_source_info", f"--descriptor_set_out={out.name}"]
        if protoc.main(["protoc", *arguments, *protos]) != 0:
            raise ValueError("the protos do not compile")
        files = {file.name: file for file in FileDescriptorSet.FromString(Path(out.name).read_bytes()).file}
    return [files[name] for name in protos]


def reference() -> str:
    return Reference(describe(REPOSITORY / "proto", PROTOS)).text()


if __name__ == "__main__":
    REFERENCE.write_text(reference(), encoding="utf-8")
