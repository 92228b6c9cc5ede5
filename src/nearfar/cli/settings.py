"""Settings by dotted names and their short forms, checked one by one: all that is wrong is told at once."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import json
import re
from argparse import ArgumentError
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import yaml
from jsonargparse import ArgumentParser, get_loader

from nearfar.cli.display import console
from nearfar.data import DataSpec, list_sources
from nearfar.data.sources import is_own
from nearfar.errors import InputError
from nearfar.models import input_size
from nearfar.records import check_extent, described_type, short_repr
from nearfar.training import ModelSpec

__all__ = ["Settings", "element_of", "photo_sizes", "read_mapping", "written_out"]


_JSON = re.compile(r"\[|(true|false|null)$", re.IGNORECASE)


class Settings:
    """What files and the command line say; ``parser`` knows the types, none of its options is required."""

    def __init__(self, parser: ArgumentParser, hints: Mapping[str, Any]) -> None:
        self._parser, self._hints = parser, dict(_dotted(hints))
        self._values: dict[str, Any] = {}
        self._sources: dict[str, str] = {}  # the file's name; "" for the command line
        self._faults: dict[str, list[str]] = {}
        self._faulty: set[str] = set()
        self._shortened: set[str] = set()

    def hint(self, key: str) -> Any:
        """The type of a setting, or of an item of one that is a dictionary; ``None`` if there is none."""
        above = get_origin(self._hints.get(key.rpartition(".")[0]))
        return self._hints.get(key, Any if above is dict else None)

    def alike(self, key: str) -> str:
        """Which setting may be meant by one that is not known, or which there are beside it."""
        close = difflib.get_close_matches(key, self._hints, n=1, cutoff=0.7)
        above = key.rpartition(".")[0] if key.rpartition(".")[0] in self._hints else ""
        beside = [name for name in self._hints if name.rpartition(".")[0] == above]
        return f" (did you mean {close[0]}?)" if close else f" (there are {', '.join(beside)})"

    def add(self, key: str, value: Any, source: str = "") -> None:
        """Adds one setting, or a dataclass's settings; :meth:`arguments` tells what is wrong with them."""
        hint, again = self.hint(key), source == self._sources.get(key) == ""
        self._sources[key] = source
        try:
            if hint is None:
                raise InputError(f"{key} is not known{self.alike(key)}")
            if (group := _dataclass_of(hint)) and (value is not None or not _takes_none(hint)):
                for name, inner in self._below(key, value, group).items():
                    self.add(f"{key}.{name}", inner, source)
            elif key in self._hints:
                typed = self._typed(key, value, hint)
                # Words that are given several times on the command line add up.
                adds_up = again and element_of(hint) in (str, Path) and key in self._values
                self._values[key] = (*self._values[key], *typed) if adds_up else typed
            else:
                above, _, item = key.rpartition(".")
                value = get_loader("yaml")(value) if isinstance(value, str) else value
                self._values[above] = {**self._values.get(above, {}), item: value}
        except InputError as cause:
            self.refuse(str(cause), source, key)

    def refuse(self, reason: str, source: str = "", key: str = "") -> None:
        """Notes what cannot be used."""
        self._faults.setdefault(source, []).append(reason)
        self._faulty.add(key)

    def _below(self, key: str, value: Any, group: type) -> dict[Any, Any]:
        """A dataclass's settings: a mapping, one in YAML, a file's, or what one word stands for."""
        if isinstance(value, str) and value.startswith("{"):
            return read_mapping(value.encode(), key)
        if isinstance(value, str) and Path(value).is_file():
            return read_mapping(Path(value).read_bytes(), value)
        if isinstance(value, str):
            self._shortened.add(key)
            return written_out(group, key, value)
        if not isinstance(value, dict):
            raise InputError(f"{key} must hold options by name, got {short_repr(value)}")
        return value

    def _typed(self, key: str, value: Any, hint: Any) -> Any:
        element, readings = element_of(hint), [value]
        if isinstance(value, str) and element in (str, Path) and not _JSON.match(value):
            readings = [json.dumps([word.strip() for word in value.split(",")])]
        elif isinstance(value, str) and element:
            readings = [value, f"[{value}]"]
        for reading in readings:
            with contextlib.suppress(ArgumentError, TypeError, ValueError):
                typed = self._parser.parse_object({key: reading}, defaults=False)[key]
                break
        else:
            raise InputError(f"{key} must be {_described(hint)}, got {short_repr(value)}")
        if typed is None and not _takes_none(hint):
            raise InputError(
                f"{key} must be {_described(hint)}, got null; leave it out for its default"
            )
        return typed

    def arguments(self, required: list[str]) -> dict[str, Any]:
        """The function's arguments by name, or an ``InputError`` of all that is wrong."""
        if "data" in self._shortened and "model.name" in self._hints:
            self._values |= photo_sizes(self._values)
        settings = self._parser.parse_object(self._values)
        names = [name for name in self._hints if "." not in name]
        arguments = {name: self._built(name, self._hints[name], settings[name]) for name in names}
        missing = [name for name in required if name not in self._values]
        if missing and not self._faults:
            self.refuse(f"the following arguments are required: {', '.join(missing)}")
        parts = []
        for file, reasons in self._faults.items():
            count = "1 thing" if len(reasons) == 1 else f"{len(reasons)} things"
            parts.append(f"{file}: {count} cannot be used: " * bool(file) + "; ".join(reasons))
        if parts:
            raise InputError(f"{'; '.join(parts)}; see '{self._parser.prog} --help'")
        return arguments

    def _built(self, key: str, hint: Any, value: Any) -> Any:
        """A dataclass of its settings; ``None`` where one of them cannot be used, or all together."""
        if (group := _dataclass_of(hint)) is None or value is None:
            return value
        hints = get_type_hints(group)
        inner = {name: self._built(f"{key}.{name}", hints[name], value[name]) for name in hints}
        if any(f"{faulty}.".startswith(f"{key}.") for faulty in self._faulty):
            return None
        try:
            return group(**inner)
        except InputError as cause:
            sources = [s for name, s in self._sources.items() if name.startswith(f"{key}.")]
            self.refuse(f"{key}: {cause}", sources[-1] if sources else "", key)
            return None


def element_of(hint: Any) -> Any:
    """What a list that a setting is or may be consists of; ``None`` where it is no list."""
    lists = [t for t in (hint, *get_args(hint)) if get_origin(t) in (tuple, list, Sequence)]
    return get_args(lists[0])[0] if lists else None


def read_mapping(text: bytes, origin: str) -> dict[Any, Any]:
    """A mapping in YAML."""
    try:
        values = get_loader("yaml")(text.decode())
        check_extent(values)
    # ValueError: bytes that are no text, numbers of thousands of digits, too many levels.
    except (yaml.YAMLError, ValueError, RecursionError) as cause:
        reason = "it is nested too deep" if isinstance(cause, RecursionError) else cause
        raise InputError(
            f"{origin} is not YAML that can be read: {reason}; mend it there"
        ) from cause
    if not isinstance(values, dict):
        kind = type(values).__name__
        raise InputError(f"{origin} must hold options by name, such as 'seed: 1', got {kind}")
    return values


def _dataclass_of(hint: Any) -> Any:
    """The dataclass that a setting is or may be; ``None`` where it takes a mapping of its own too."""
    kinds = (hint, *get_args(hint))
    if any(get_origin(kind) is dict for kind in kinds):
        return None
    return next((kind for kind in kinds if dataclasses.is_dataclass(kind)), None)


def _takes_none(hint: Any) -> bool:
    return hint is Any or NoneType in get_args(hint)


def _dotted(hints: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Every setting with its type; those of a dataclass follow it."""
    for name, hint in hints.items():
        yield above + name, hint
        if group := _dataclass_of(hint):
            yield from _dotted(get_type_hints(group), f"{above}{name}.")


def _described(hint: Any) -> str:
    """A type in words, lists as a command line has them."""
    kinds = get_args(hint)
    if get_origin(hint) in (Union, UnionType):
        return " or ".join(map(_described, kinds))
    if element_of(hint):
        count = "" if ... in kinds or len(kinds) == 1 else f"{len(kinds)} "
        return f"{count}{described_type(kinds[0]).removeprefix('a ')}s with commas between"
    return described_type(hint)


def written_out(group: type, key: str, word: str) -> dict[str, Any]:
    """What one word stands for: the name of a model, of a data set, or of a folder of images."""
    if group is ModelSpec:
        return {"name": word}
    if group is not DataSpec:
        raise InputError(f"{key} must hold options by name, got {word!r}")
    if word in list_sources() or is_own(word):
        return {"source": word}
    if Path(word).is_dir():
        return {"source": "folder", "root": word}
    raise InputError(
        f"--{key} takes a folder of images, or one of {', '.join(list_sources())}, got {word!r}, which "
        f"is neither; make the folder, or mend the name"
    )


def photo_sizes(values: Mapping[str, Any]) -> dict[str, int]:
    """Canvas and content for anybody's images, where nobody says them: a protocol's own are for digits.

    Args:
        values: all settings by their dotted names.

    Returns:
        Two more: both are the side of the images that the model was made for.
    """
    has_sizes = any(key.startswith("data.protocol.") for key in values)
    if has_sizes or not is_own(values.get("data.source", "")):
        return {}
    name = values.get("model.name", ModelSpec().name)
    side = min(input_size(name)[1:])
    console.print(
        f"Images of the folder are shown on {side}×{side} pixels, what {name} was made for; "
        f"--data.protocol.canvas and --data.protocol.content change that.",
        highlight=False,
    )
    return {"data.protocol.canvas": side, "data.protocol.content": side}
