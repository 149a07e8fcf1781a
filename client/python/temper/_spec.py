# SPDX-License-Identifier: Apache-2.0
"""A job as people write it (a file, a dict or a message) becomes a JobSpec."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from temper._message_reader import Key, MessageReader
from temper.errors import FieldViolation, InvalidJob, InvalidRequest
from temper.v1 import job_pb2

Spec = job_pb2.JobSpec | Mapping[str, Any] | str | os.PathLike[str]
"""A job: a message, a dict with the fields of a job file, or the path of a YAML or JSON file."""

_MAX_FILE_SIZE = 1 << 20
_MAX_PROBLEMS_SHOWN = 20


@dataclass(frozen=True)
class JobSource:
    """A job, and where it came from."""

    spec: job_pb2.JobSpec
    name: str
    """For messages: the file's path; empty for a dict or a message."""
    lines: Mapping[str, int]
    """Where each field stands in the file, by dotted path."""

    def refused(self, error: InvalidRequest) -> InvalidJob:
        """The server's refusal, in terms of what the user wrote."""
        violations = []
        for violation in error.violations:
            path = violation.field.removeprefix("job.").removeprefix("spec.")
            violations.append(FieldViolation(path, violation.description, self.lines.get(path)))
        text = _describe(self.name, violations) if violations else error.message
        return InvalidJob(
            f"the server refused the job: {text}", reason=error.reason, metadata=error.metadata, violations=violations
        )


def read_spec(spec: Spec) -> JobSource:
    """Reads a job; InvalidJob says all that is wrong with it. A missing file is a FileNotFoundError.

    Relative URIs are made absolute, for the server does not know where the user stands: against the job file's
    directory, or for a dict or a message the working directory. `~/` is the user's home.
    """
    if isinstance(spec, job_pb2.JobSpec):
        copy = job_pb2.JobSpec()
        copy.CopyFrom(spec)
        _resolve_uris(copy, Path.cwd())
        return JobSource(copy, "", {})
    if isinstance(spec, Mapping):
        return _read(spec, "", Path.cwd())
    path = Path(spec)
    with path.open("rb") as file:
        content = file.read(_MAX_FILE_SIZE + 1)
    name = str(path)
    if len(content) > _MAX_FILE_SIZE:
        raise InvalidJob(f"{name}: is larger than 1 MiB; is it really a job file?")
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise InvalidJob(f"{name}: is not UTF-8: {error}") from None
    return _read(_parse(text, name), name, path.parent)


def absolute_uri(uri: str, directory: Path) -> str:
    """A path that is relative to `directory`, or to the user's home, made absolute."""
    if not uri or uri.startswith("/") or "://" in uri:
        return uri
    if uri == "~" or uri.startswith("~/"):
        return str(Path(uri).expanduser())
    return os.path.normpath(directory.absolute() / uri)


def _resolve_uris(spec: job_pb2.JobSpec, directory: Path) -> None:
    for name in ("model", "data", "output"):
        if spec.HasField(name):  # type: ignore[arg-type, unused-ignore]
            source = getattr(spec, name)
            source.uri = absolute_uri(source.uri, directory)
    for each in spec.data.sources:
        each.uri = absolute_uri(each.uri, directory)
    if spec.validation.uri:
        spec.validation.uri = absolute_uri(spec.validation.uri, directory)
    distillation = spec.method.distillation
    if distillation.teacher:
        distillation.teacher = absolute_uri(distillation.teacher, directory)
    if spec.lora.adapter:
        spec.lora.adapter = absolute_uri(spec.lora.adapter, directory)
    spec.resume_from = absolute_uri(spec.resume_from, directory)


def _read(document: object, name: str, directory: Path) -> JobSource:
    reader = MessageReader()
    spec = job_pb2.JobSpec()
    reader.read_message(document, "", spec)
    if reader.problems:
        raise InvalidJob(_describe(name, reader.problems), violations=reader.problems)
    _resolve_uris(spec, directory)
    return JobSource(spec, name, reader.lines)


def _describe(name: str, problems: Sequence[FieldViolation]) -> str:
    lines = []
    for problem in problems[:_MAX_PROBLEMS_SHOWN]:
        where = f"{name}:{problem.line}" if name and problem.line else name
        lines.append(": ".join(part for part in (where, problem.field, problem.description) if part))
    if len(problems) > _MAX_PROBLEMS_SHOWN:
        lines.append(f"and {len(problems) - _MAX_PROBLEMS_SHOWN} more")
    return "\n".join(lines)


# Documents: JSON and YAML become dicts and lists whose scalars are Python's, or text as it was written.


def _parse(text: str, name: str) -> object:
    if text.lstrip().startswith("{"):
        try:
            return json.loads(text, object_pairs_hook=lambda pairs: _without_twins(pairs, name))
        except json.JSONDecodeError as error:
            try:
                return _parse_yaml(text, name)  # in which braces may be written too
            except ImportError:
                raise InvalidJob(f"{name}:{error.lineno}: is not valid JSON: {error.msg}") from None
    return _parse_yaml(text, name)


def _without_twins(pairs: Sequence[tuple[str, Any]], name: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            line = key.line if isinstance(key, Key) else None
            problem = FieldViolation(str(key), "is given twice; remove one of the two", line)
            raise InvalidJob(_describe(name, [problem]), violations=[problem])
        found[key] = value
    return found


def _parse_yaml(text: str, name: str) -> object:
    try:
        import yaml
    except ImportError:
        raise ImportError("a YAML job file needs PyYAML: pip install 'temper-client[yaml]'") from None

    def plain(node: yaml.Node, above: tuple[yaml.Node, ...]) -> object:
        if node in above:
            raise InvalidJob(f"{name}:{node.start_mark.line + 1}: contains itself")
        above = (*above, node)
        if isinstance(node, yaml.MappingNode):
            pairs = []
            for key_node, value_node in node.value:
                key = Key(key_node.value if isinstance(key_node, yaml.ScalarNode) else "?")
                key.line = key_node.start_mark.line + 1
                pairs.append((key, plain(value_node, above)))
            return _without_twins(pairs, name)
        if isinstance(node, yaml.SequenceNode):
            return [plain(item, above) for item in node.value]
        # As text: the field knows better than YAML what 3e-4 or `off` are.
        return None if node.tag == "tag:yaml.org,2002:null" else str(node.value)

    try:
        documents = list(yaml.compose_all(text, Loader=yaml.SafeLoader))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{name}:{mark.line + 1}" if mark else name
        problem = getattr(error, "problem", None) or str(error)
        raise InvalidJob(f"{where}: is not valid YAML or JSON: {problem}") from None
    if len(documents) > 1:
        raise InvalidJob(f"{name}: holds {len(documents)} documents; one job per file")
    document = plain(documents[0], ()) if documents else None
    if document is None:
        raise InvalidJob(f"{name}: is empty; client/examples/sft.yaml is a job to start from")
    return document
