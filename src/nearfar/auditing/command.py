"""The command line that makes an audit again."""

from __future__ import annotations

import inspect
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

__all__ = ["command_of"]


def command_of(function: Callable[..., Any], given: Mapping[str, Any]) -> str:
    """What a user would type for a call.

    Args:
        function: behind the command; its first parameter is the models.
        given: its arguments by name.

    Returns:
        One line; empty where something was given that has no name, such as a network.
    """
    parameters = iter(inspect.signature(function).parameters.values())
    models = given[next(parameters).name]
    named = [models] if isinstance(models, (str, Path)) else models
    if not isinstance(named, (list, tuple)) or not all(isinstance(m, (str, Path)) for m in named):
        return ""
    words = ["nearfar", function.__name__, *map(str, named)]
    for parameter in parameters:
        value = given[parameter.name]
        if parameter.name == "progress" or value == parameter.default:
            continue
        if isinstance(value, tuple):
            value = ",".join(
                str(int(x)) if isinstance(x, float) and x == int(x) else str(x) for x in value
            )
        elif value is True:
            words.append(f"--{parameter.name}")
            continue
        elif not isinstance(value, (str, Path, int, float)):
            return ""
        words.append(f"--{parameter.name}={value}")
    return shlex.join(words)
