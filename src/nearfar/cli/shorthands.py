"""``--data DIR`` and ``--model NAME`` in place of the options they stand for."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args, get_type_hints

from nearfar.cli.config_faults import config_values
from nearfar.cli.display import console
from nearfar.data import DataSpec, list_sources
from nearfar.data.sources import is_own
from nearfar.errors import InputError
from nearfar.models import input_size
from nearfar.training.specs import ModelSpec

__all__ = ["written_out"]


def written_out(function: Callable[..., Any], arguments: list[str]) -> list[str]:
    """The command line with shorthands written out.

    For every parameter that is or may be a :class:`DataSpec`, ``--data DIR`` (an existing folder) becomes
    ``--data.source folder --data.root DIR``, and ``--data NAME`` (a data set's, or ``hfds/…``)
    ``--data.source NAME``;
    for every :class:`ModelSpec`, ``--model NAME`` becomes ``--model.name NAME``. What names a file or
    begins with a brace is left as it is: options in YAML.

    With a folder or a stream for which neither the command line nor a configuration says how large images are
    shown, canvas and content become the side of the images that the model was designed for.

    Args:
        function: behind the command.
        arguments: what follows the command's name.

    Raises:
        InputError: a word after ``--data`` that is neither.
    """
    hints = get_type_hints(function)
    parameters = inspect.signature(function).parameters
    data = next((n for n in parameters if _is_data(hints.get(n))), None)
    model = next((n for n in parameters if hints.get(n) is ModelSpec), None)
    words: list[str] = []
    is_folder = False
    rest = iter(arguments)
    for word in rest:
        option, equals, value = word.partition("=")
        if option not in (f"--{data}", f"--{model}"):
            words.append(word)
            continue
        if not equals:
            value = next(rest, "")
        if not value or value.startswith(("{", "--")) or Path(value).is_file():
            words += [word] if equals else [option, *([value] if value else [])]
        elif option == f"--{model}":
            words += [f"--{model}.name", value]
        elif value in list_sources() or is_own(value):
            words += [f"--{data}.source", value]
            is_folder = is_own(value)
        elif Path(value).is_dir():
            words += [f"--{data}.source", "folder", f"--{data}.root", value]
            is_folder = True
        else:
            raise InputError(
                f"{option} takes a folder of images, or one of {', '.join(list_sources())}, got {value!r}, "
                f"which is neither; make the folder, or mend the name"
            )
    if is_folder and data and model:
        words = [*_sizes(words, data, model), *words]
    return words


def _is_data(hint: Any) -> bool:
    return hint is DataSpec or DataSpec in get_args(hint)


def _sizes(words: list[str], data: str, model: str) -> list[str]:
    """Canvas and content for photographs, where nobody says them: a protocol's own are for digits."""
    asked = (f"--{data}.protocol.canvas", f"--{data}.protocol.content", f"--{data}.protocol")
    said = config_values(words)
    configured = (
        (said.get(data) or {}).get("protocol") if isinstance(said.get(data), dict) else None
    )
    if configured or any(word.partition("=")[0] in asked for word in words):
        return []
    name = _last(words, f"--{model}.name")
    if name is None and isinstance(said.get(model), dict):
        name = said[model].get("name")
    name = name or ModelSpec().name
    side = str(min(input_size(name)[1:]))
    console.print(
        f"Images of the folder are shown on {side}×{side} pixels, what {name} was made for; "
        f"--{data}.protocol.canvas and --{data}.protocol.content change that.",
        highlight=False,
    )
    return [f"--{data}.protocol.canvas", side, f"--{data}.protocol.content", side]


def _last(words: list[str], option: str) -> str | None:
    found = None
    for word, after in pairwise([*words, ""]):
        if word == option:
            found = after
        elif word.startswith(f"{option}="):
            found = word.partition("=")[2]
    return found
