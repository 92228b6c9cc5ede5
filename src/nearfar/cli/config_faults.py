"""All that is wrong with a configuration file, found before any of it is used."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
from argparse import ArgumentError
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_type_hints

import yaml
from jsonargparse import ArgumentParser, get_loader

from nearfar.errors import InputError

__all__ = ["check_configs", "config_values"]

#: What a command line may do besides: these are no options of the function.
_PASSED = {"config"}


def config_values(arguments: list[str]) -> dict[str, Any]:
    """What the files named by ``--config`` say together, later ones winning; files that are not there aside.

    Raises:
        InputError: a file that is no YAML mapping, or that gives an option in two ways.
    """
    merged: dict[str, Any] = {}
    for file in _files(arguments):
        try:
            found = get_loader("yaml")(file.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as cause:
            said = " ".join(str(cause).split())
            raise InputError(f"{file} is not YAML: {said}; mend it there") from cause
        if not isinstance(found, dict):
            raise InputError(
                f"{file} must hold options by name, such as 'seed: 1', got {type(found).__name__}"
            )
        _merge(merged, _unfolded(found, file))
    return merged


def check_configs(function: Callable[..., Any], arguments: list[str]) -> None:
    """Checks every key and value of the files named by ``--config``, and tells all faults at once.

    Unknown keys and values of wrong types are looked for everywhere; what a dataclass refuses is
    looked for where its keys are in order and no option on the command line changes it.

    Args:
        function: whose signature says what there may be.
        arguments: the command line.

    Raises:
        InputError: at least one fault; the message names all of them by their full names.
    """
    values = config_values(arguments)
    hints = get_type_hints(function)
    known = {n: hints[n] for n in inspect.signature(function).parameters if n != "progress"}
    faults: list[str] = []
    _walk(values, known, "", arguments, faults)
    if faults:
        files = ", ".join(str(file) for file in _files(arguments))
        count = "1 thing" if len(faults) == 1 else f"{len(faults)} things"
        raise InputError(f"{files}: {count} cannot be used: {'; '.join(faults)}")


def _files(arguments: list[str]) -> list[Path]:
    named = [
        Path(after if word == "--config" else word.removeprefix("--config="))
        for word, after in pairwise([*arguments, ""])
        if word == "--config" or word.startswith("--config=")
    ]
    return [file for file in named if file.is_file()]  # the parser says what is missing


def _merge(into: dict[str, Any], other: Mapping[str, Any]) -> None:
    for key, value in other.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value


def _unfolded(values: Mapping[Any, Any], file: Path) -> dict[Any, Any]:
    """``fit.epochs: 3`` as ``fit: {epochs: 3}``, at every depth, as the parser takes it."""
    unfolded: dict[Any, Any] = {}
    dotted: set[str] = set()
    for key, value in values.items():
        inner = _unfolded(value, file) if isinstance(value, dict) else value
        first, dot, rest = key.partition(".") if isinstance(key, str) else (key, "", "")
        # The parser would keep only what comes last, and say nothing.
        if first in unfolded and not (dot and first in dotted):
            raise InputError(
                f"{file} gives {first} twice, the second time as {key}; write all of it below one {first}"
            )
        if dot:
            dotted.add(first)
            _merge(unfolded, _unfolded({first: _unfolded({rest: inner}, file)}, file))
        else:
            unfolded[key] = inner
    return unfolded


def _walk(
    values: Mapping[str, Any],
    known: Mapping[str, Any],
    above: str,
    arguments: list[str],
    faults: list[str],
) -> dict[str, Any]:
    """The values as their types make them; what is wrong is added to ``faults``."""
    made: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{above}{key}"
        hint = known.get(str(key))
        if hint is None:
            if above or key not in _PASSED:
                faults.append(f"{name} is not known{_alike(str(key), known)}")
        elif dataclasses.is_dataclass(hint):
            if isinstance(value, dict):
                _part(value, hint, name, arguments, faults, made)
            elif not isinstance(value, str):  # a string is another file's name
                faults.append(f"{name} must hold options by name, got {value!r}")
        else:
            _leaf(str(key), value, hint, name, faults, made)
    return made


def _part(
    value: dict[str, Any],
    hint: Any,
    name: str,
    arguments: list[str],
    faults: list[str],
    made: dict[str, Any],
) -> None:
    before = len(faults)
    inner = _walk(value, get_type_hints(hint), f"{name}.", arguments, faults)
    if len(faults) > before or _changed(name, arguments):
        return
    try:
        made[name.rpartition(".")[2]] = hint(**inner)
    except InputError as cause:
        faults.append(f"{name}: {cause}")


def _changed(name: str, arguments: list[str]) -> bool:
    """Whether an option on the command line is this one, above it or below it."""
    levels = name.split(".")
    same_or_above = {f"--{'.'.join(levels[:depth])}" for depth in range(1, len(levels) + 1)}
    options = [word.partition("=")[0] for word in arguments]
    return any(option in same_or_above or option.startswith(f"--{name}.") for option in options)


def _leaf(
    key: str, value: Any, hint: Any, name: str, faults: list[str], made: dict[str, Any]
) -> None:
    if value is None and not _may_be_none(hint):  # which the parser takes, from a file
        faults.append(f"{name} must be {_said(hint)}, got null; leave it out for its default")
        return
    # The parser's own judgement, one value at a time: it would stop at the first that is wrong.
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--value", type=hint)
    try:
        made[key] = parser.parse_object({"value": value}).value
    except (ArgumentError, TypeError, ValueError):
        faults.append(f"{name} must be {_said(hint)}, got {value!r}")


def _may_be_none(hint: Any) -> bool:
    return hint is Any or hint is NoneType or NoneType in get_args(hint)


def _said(hint: Any) -> str:
    if hint.__class__ is type:
        return f"of type {hint.__name__}"
    return str(hint).replace("typing.", "").replace("pathlib.", "").replace("Literal", "one of ")


def _alike(key: str, known: Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(key, known, n=1)
    return f" (did you mean {close[0]}?)" if close else f" (there are {', '.join(known)})"
