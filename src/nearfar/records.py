"""Records: plain data out of JSON and YAML that anybody may have written, checked by type; and tables as CSV.

A record never decides what is run: it is numbers, words, lists and mappings, within bounds, and it becomes a
dataclass only where every value has the type of its field.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from nearfar.errors import InputError, first_line

__all__ = [
    "as_csv",
    "as_dataclass",
    "as_typed",
    "check_extent",
    "described_type",
    "parse_json",
    "short_repr",
]

#: Levels of lists and mappings within each other; ours have eight.
_DEPTH = 64
#: Whole numbers beyond what files, tensors and seeds can count.
_LARGEST = 2**64
_NAMES = {
    bool: "true or false",
    float: "a number",
    int: "a whole number",
    NoneType: "null",
    str: "a text",
    Path: "a path",
}
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
_Class = TypeVar("_Class")


def parse_json(
    text: str | bytes, source: str, mend: str, *, finite: bool = True, most: int = 1_000_000
) -> Any:
    """The data in a JSON text.

    Args:
        text: UTF-8 where it is bytes.
        source: what it came from, for the error's text.
        mend: how to come by a whole one, for the error's text.
        finite: whether numbers must be.
        most: how many values there may be.

    Raises:
        InputError: not JSON, nested deeper than 64 levels, more values than ``most``, a number that is
            not finite, or a whole number beyond 64 bits.
    """
    try:
        number = _finite if finite else float
        data = json.loads(text, parse_int=_bounded, parse_float=number, parse_constant=number)
        check_extent(data, most)
    except RecursionError as cause:
        raise InputError(f"{source} cannot be read: it is nested too deep; {mend}") from cause
    except ValueError as cause:  # UnicodeDecodeError and JSONDecodeError among them
        raise InputError(
            f"{source} is not JSON that can be read: {first_line(cause)}; {mend}"
        ) from cause
    return data


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {text[:20]} is not finite")
    return number


def _bounded(digits: str) -> int:
    number = int(digits) if len(digits) <= len(str(_LARGEST)) + 1 else _LARGEST + 1
    if abs(number) > _LARGEST:
        raise ValueError(f"the number {digits[:8]}… of {len(digits)} digits is too large")
    return number


def check_extent(data: Any, most: int = 1_000_000) -> None:
    """Refuses data that are nested deeper than 64 levels, or are more than ``most`` values.

    What a YAML file names once and refers to from many places counts as often as it is referred to.

    Raises:
        ValueError: they are.
    """
    counts: dict[int, int] = {}

    def count(value: Any, depth: int) -> int:
        inner = value.values() if isinstance(value, Mapping) else value
        if not isinstance(value, (Mapping, list, tuple)):
            return 1
        if depth == _DEPTH:
            raise ValueError(f"it is nested deeper than {_DEPTH} levels")
        if id(value) not in counts:
            counts[id(value)] = 1 + sum(count(part, depth + 1) for part in inner)
        if counts[id(value)] > most:
            raise ValueError(f"it has more than {most:,} values")
        return counts[id(value)]

    count(data, 0)


def as_dataclass(kind: type[_Class], record: Any, name: str) -> _Class:
    """A dataclass out of a mapping, each value checked by its field's type.

    Args:
        kind: the dataclass; fields may be numbers, words, paths, lists, mappings and other dataclasses.
        record: its fields by name; a list stands for a tuple.
        name: of the record, for the error's text.

    Raises:
        InputError: not a mapping, a field that is missing, unknown or of another type, or values that the
            dataclass itself refuses.
    """
    if not isinstance(record, Mapping):
        raise InputError(f"{name} must be a mapping of names to values, got {short_repr(record)}")
    fields = {f.name: f for f in dataclasses.fields(kind) if f.init}  # type: ignore[arg-type]
    unknown = [short_repr(key) for key in record if key not in fields]
    required = [
        name
        for name, field in fields.items()
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    missing = [key for key in required if key not in record]
    if unknown or missing:
        faults = [f"has unknown {', '.join(unknown[:5])}"] if unknown else []
        faults += [f"lacks {', '.join(missing)}"] if missing else []
        raise InputError(f"{name} {' and '.join(faults)}")
    hints = get_type_hints(kind)
    values = {key: as_typed(hints[key], value, f"{name}.{key}") for key, value in record.items()}
    try:
        return kind(**values)
    except InputError as cause:
        raise InputError(f"{name}: {cause}") from cause


def as_typed(hint: Any, value: Any, name: str) -> Any:
    """A value as its type has it: lists become tuples, texts paths and mappings dataclasses.

    Args:
        hint: the type, as annotations have it.
        value: plain data.
        name: of the value, for the error's text.

    Raises:
        InputError: it has another type; a number that is not finite; a path with a null byte in it.
    """
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return _as_one_of(hint, arguments, value, name)
    if hint is Any:
        return value
    if origin is Literal:
        if any(value == word and type(value) is type(word) for word in arguments):
            return value
    elif dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return value if isinstance(value, hint) else as_dataclass(hint, value, name)
    elif origin in (tuple, list, Sequence) and isinstance(value, (list, tuple)):
        return _as_sequence(origin, arguments, value, name, hint)
    elif origin in (dict, Mapping) and isinstance(value, Mapping):
        keys, values = arguments
        pairs = ((as_typed(keys, k, f"a name in {name}"), v) for k, v in value.items())
        return {key: as_typed(values, inner, f"{name}.{key}") for key, inner in pairs}
    elif _is_plain(hint, value):
        return hint(value) if hint in (Path, int, float) else value
    raise InputError(f"{name} must be {described_type(hint)}, got {short_repr(value)}")


def _as_one_of(hint: Any, kinds: tuple[Any, ...], value: Any, name: str) -> Any:
    """As the first of several types that it has; of a mapping a dataclass says what is wrong with it."""
    reasons = []
    for kind in kinds:
        try:
            return as_typed(kind, value, name)
        except InputError as cause:
            reasons += (
                [cause] if dataclasses.is_dataclass(kind) and isinstance(value, Mapping) else []
            )
    if reasons:
        raise reasons[0]
    raise InputError(f"{name} must be {described_type(hint)}, got {short_repr(value)}")


def _as_sequence(
    origin: Any, arguments: tuple[Any, ...], value: Sequence[Any], name: str, hint: Any
) -> Any:
    is_fixed = origin is tuple and ... not in arguments
    if is_fixed and len(value) != len(arguments):
        raise InputError(f"{name} must be {described_type(hint)}, got {short_repr(value)}")
    kinds = arguments if is_fixed else (arguments[0],) * len(value)
    items = [
        as_typed(kind, v, f"{name}[{i}]")
        for i, (kind, v) in enumerate(zip(kinds, value, strict=True))
    ]
    return items if origin is list else tuple(items)


def _is_plain(hint: Any, value: Any) -> bool:
    """Whether a value is of a type that has no parts."""
    if hint in (int, float):
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return is_number and math.isfinite(value) and (hint is float or value == int(value))
    if hint is Path:
        return isinstance(value, (str, Path)) and "\0" not in str(value)
    if hint is None or hint is NoneType:
        return value is None
    return isinstance(hint, type) and isinstance(value, hint)


def described_type(hint: Any) -> str:
    """A type in words: ``a whole number``, ``one of mean, max``, ``3 numbers``."""
    kinds = get_args(hint)
    origin = get_origin(hint)
    if origin is Literal:
        return f"one of {', '.join(map(str, kinds))}"
    if origin in (Union, UnionType):
        return " or ".join(described_type(kind) for kind in kinds)
    if origin in (tuple, list, Sequence):
        count = "a list of " if ... in kinds or len(kinds) == 1 else f"{len(kinds)} "
        return f"{count}{described_type(kinds[0]).removeprefix('a ')}s"
    if origin in (dict, Mapping) or dataclasses.is_dataclass(hint):
        return "a mapping of names to values"
    return _NAMES.get(hint, getattr(hint, "__name__", str(hint)))


def as_csv(names: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """A line of names, and a line for each row.

    Spreadsheets run a text that begins like a formula: before ``=``, ``+``, ``-``, ``@`` and controls it gets
    an apostrophe, which they do not show.

    Args:
        names: of the columns.
        rows: values by name; what a row lacks is empty.
    """
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)
    return text.getvalue()


def _cell(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    text = f"'{value}" if value.startswith(_FORMULA) else value
    return text.replace(
        "\r", "\\r"
    )  # which csv leaves unquoted, and its reader takes for a line's end


def short_repr(value: Any) -> str:
    """What a value looks like, at most 80 characters of it."""
    try:
        text = repr(value)
    except ValueError:  # a whole number of more digits than Python writes
        text = f"a number of {value.bit_length()} bits"
    return text if len(text) <= 80 else f"{text[:77]}…"
