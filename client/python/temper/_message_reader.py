# SPDX-License-Identifier: Apache-2.0
"""Fills a message from dicts, lists and scalars, by the message's own schema.

The rules are those of the `temper` command: fields go by their proto names or in lowerCamelCase, enum values may be
written in short (`cosine` for SCHEDULE_COSINE), whole numbers as 1e6, a list of one without brackets; whatever is wrong
is said at once, with field and what to write instead.
"""

import difflib
import math
import os
from collections.abc import Mapping, Sequence
from functools import partial
from numbers import Integral, Real
from typing import Any, cast

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message

from temper.errors import FieldViolation

_EXACT = 2**53  # beyond it doubles skip whole numbers


class Key(str):
    """A key of a mapping that knows on which line of its file it stands."""

    line: int


class _Mistyped(Exception):
    """The value does not fit its field; the text says why, if there is more to say."""


class MessageReader:
    """Collects all problems, and the lines of the fields that it has read."""

    def __init__(self) -> None:
        self.problems: list[FieldViolation] = []
        self.lines: dict[str, int] = {}

    def read_message(self, value: object, path: str, message: Message, line: int | None = None) -> None:
        """Merges a mapping into `message`."""
        descriptor = cast(Descriptor, message.DESCRIPTOR)
        if not isinstance(value, Mapping):
            self._problem(path, f"expected a map with {', '.join(_names(descriptor))}, found {_found(value)}", line)
            return
        seen: set[str] = set()
        for key, item in value.items():
            line = getattr(key, "line", None)
            field = self._find(descriptor, str(key), path, line)
            if field is None:
                continue
            field_path = _join(path, field.name)
            oneof = field.containing_oneof
            other = message.WhichOneof(oneof.name) if oneof is not None else None
            if field.name in seen:
                self._problem(field_path, "is given twice; remove one of the two", line)
            elif other is not None and other != field.name:
                self._problem(field_path, f"excludes '{other}', which is given too; remove one of the two", line)
            else:
                seen.add(field.name)
                if line is not None:
                    self.lines[field_path] = line
                self._read_field(item, field_path, field, message, line)

    def _problem(self, path: str, text: str, line: int | None) -> None:
        self.problems.append(FieldViolation(path, text, line))

    def _find(self, descriptor: Descriptor, name: str, path: str, line: int | None) -> FieldDescriptor | None:
        for field in descriptor.fields:
            if name in (field.name, field.camelcase_name):
                return field
        names = _names(descriptor)
        meant = _closest(name, names)
        if meant:
            hint = f"did you mean '{meant}'?"
        else:
            hint = f"possible here: {', '.join(names)}" if names else "nothing can be set here"
        self._problem(_join(path, name), f"unknown field; {hint}", line)
        return None

    def _read_field(self, value: object, path: str, field: FieldDescriptor, message: Message, line: int | None) -> None:
        kind: Descriptor | None = field.message_type
        is_message = kind is not None
        if value is None:
            way_out = "write {} to take it with its defaults" if is_message else f"expected {_expected(field)}"
            self._problem(path, f"has no value; {way_out}, or remove it", line)
        elif kind is not None and kind.GetOptions().map_entry:
            self._read_map(value, path, kind.fields_by_name["value"], getattr(message, field.name), line)
        elif field.is_repeated:
            many = isinstance(value, Sequence) and not isinstance(value, str)
            for i, item in enumerate(value if many else [value]):  # type: ignore[arg-type, var-annotated]
                item_path = f"{path}[{i}]" if many else path
                if is_message:
                    self.read_message(item, item_path, getattr(message, field.name).add(), line)
                else:
                    self._store(item, item_path, field, getattr(message, field.name).append, line)
        elif is_message:
            child: Message = getattr(message, field.name)
            child.SetInParent()
            self.read_message(value, path, child, line)
        else:
            self._store(value, path, field, lambda scalar: setattr(message, field.name, scalar), line)

    def _read_map(self, value: object, path: str, field: FieldDescriptor, entries: Any, line: int | None) -> None:
        """`field` is that of the map's values."""
        if not isinstance(value, Mapping):
            self._problem(path, f"expected a mapping, found {_found(value)}", line)
            return
        for name, item in value.items():
            self._store(item, _join(path, str(name)), field, partial(entries.__setitem__, str(name)), line)

    def _store(self, value: object, path: str, field: FieldDescriptor, store: Any, line: int | None) -> None:
        try:
            scalar = _scalar(field, value)
            try:
                store(scalar)
            except ValueError:
                raise _Mistyped(", which does not fit" if isinstance(scalar, int) else "") from None
        except _Mistyped as why:
            self._problem(path, f"expected {_expected(field)}, found {_found(value)}{why}", line)


def _scalar(field: FieldDescriptor, value: object) -> object:
    """What a field of that kind stores."""
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    kind = field.cpp_type
    if kind == FieldDescriptor.CPPTYPE_STRING and isinstance(value, str):
        return str(value)
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        words = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
        found = words.get(value.lower()) if isinstance(value, str) else value
        if isinstance(found, bool):
            return found
    elif kind == FieldDescriptor.CPPTYPE_ENUM:
        return _enum_number(cast(EnumDescriptor, field.enum_type), value)
    elif kind in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT):
        number = _number(value)
        if number is not None:
            return float(number)
    elif kind != FieldDescriptor.CPPTYPE_STRING:
        number = _number(value)
        if isinstance(number, int):
            return number
        if number is not None and number == math.trunc(number) and abs(number) <= _EXACT:
            return int(number)
    raise _Mistyped


def _number(value: object) -> int | float | None:
    """A finite number; None when it is none."""
    number: int | float
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        try:
            number = int(value)
        except ValueError:
            try:
                number = float(value)
            except ValueError:
                return None
    elif isinstance(value, Integral):
        number = int(value)
    elif isinstance(value, Real):
        number = float(value)
    else:
        return None
    return number if isinstance(number, int) or math.isfinite(number) else None


def _enum_number(enum: EnumDescriptor, value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value in enum.values_by_number:
        return value
    if not isinstance(value, str):
        raise _Mistyped
    name = value.upper().replace("-", "_")
    for candidate in (name, _enum_prefix(enum) + name):
        if candidate in enum.values_by_name:
            return enum.values_by_name[candidate].number
    meant = _closest(value, _short_enum_names(enum))
    raise _Mistyped(f"; did you mean '{meant}'?" if meant else "")


def _enum_prefix(enum: EnumDescriptor) -> str:
    """`SCHEDULE_` of enum Schedule { SCHEDULE_UNSPECIFIED, … }, by buf's rule for the name of the zero value."""
    zero = enum.values[0].name
    return zero.removesuffix("UNSPECIFIED") if zero.endswith("UNSPECIFIED") else ""


def _short_enum_names(enum: EnumDescriptor) -> list[str]:
    """The names that people write."""
    prefix = _enum_prefix(enum)
    return [value.name.removeprefix(prefix).lower() for value in enum.values if value.number != 0 or not prefix]


def _names(descriptor: Descriptor) -> list[str]:
    return [field.name for field in descriptor.fields]


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _closest(word: str, candidates: Sequence[str]) -> str | None:
    return next(iter(difflib.get_close_matches(word[:100].lower(), candidates, n=1)), None)


def _expected(field: FieldDescriptor) -> str:
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_MESSAGE:
            return f"a map with {', '.join(_names(cast(Descriptor, field.message_type)))}"
        case FieldDescriptor.CPPTYPE_ENUM:
            return f"one of {', '.join(_short_enum_names(cast(EnumDescriptor, field.enum_type)))}"
        case FieldDescriptor.CPPTYPE_STRING:
            return "text"
        case FieldDescriptor.CPPTYPE_BOOL:
            return "true or false"
        case FieldDescriptor.CPPTYPE_DOUBLE | FieldDescriptor.CPPTYPE_FLOAT:
            return "a number"
        case _:
            return "a whole number"


def _found(value: object) -> str:
    if isinstance(value, Mapping):
        return "a map"
    if value is None:
        return "nothing"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "a list"
    text = str(value)
    return f"'{text if len(text) <= 60 else text[:57] + '...'}'"
