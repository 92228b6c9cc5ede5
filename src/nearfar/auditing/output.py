"""What an audit writes: its folder, and the command line recorded in it."""

from __future__ import annotations

import inspect
import shlex
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nearfar.atomic import make_folder
from nearfar.errors import InputError

__all__ = ["SKIPPED", "claim", "command_of"]

#: Name of the list of images left out: a training run's list may lie in the same folder.
SKIPPED = "audit-skipped.csv"


def claim(out: Path) -> tuple[Path, Path]:
    """The paths of ``audit.json`` and ``report.html``, checked to be writable before anything is measured.

    Raises:
        InputError: the folder cannot be written, or has a file of either name that is not an audit's.
    """
    make_folder(out)
    figures, page = out / "audit.json", out / "report.html"
    is_audit = (
        figures.exists()
        and '"nearfar.audit/' in figures.read_text("utf-8", errors="replace")[:4096]
    )
    if figures.exists() and not is_audit:
        raise InputError(
            f"{figures} is not an audit of nearfar's; choose another folder with --out"
        )
    if page.exists() and "<title>nearfar" not in page.read_text("utf-8", errors="replace")[:4096]:
        raise InputError(f"{page} is not an audit of nearfar's; choose another folder with --out")
    try:
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as cause:
        raise InputError(
            f"cannot write in {out}: {cause.strerror}; choose another folder with --out"
        ) from cause
    return figures, page


def command_of(function: Callable[..., Any], arguments: Mapping[str, Any]) -> str:
    """The command line of a call.

    Args:
        function: of the command; its first parameter is the models.
        arguments: of the call, by name.

    Returns:
        One line; empty where an argument has no name, such as a network.
    """
    parameters = iter(inspect.signature(function).parameters.values())
    models = arguments[next(parameters).name]
    named = [models] if isinstance(models, (str, Path)) else models
    if not isinstance(named, (list, tuple)) or not all(isinstance(m, (str, Path)) for m in named):
        return ""
    words = ["nearfar", function.__name__, *map(str, named)]
    for parameter in parameters:
        value = arguments[parameter.name]
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
