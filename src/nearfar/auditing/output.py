"""What an audit writes: its folder, and the command line recorded in it."""

from __future__ import annotations

import dataclasses
import shlex
import tempfile
from pathlib import Path
from typing import Any

from nearfar.atomic import make_folder
from nearfar.auditing.audit_spec import AuditSpec, ImageSelection
from nearfar.classifiers import InputOptions
from nearfar.errors import InputError

__all__ = ["SKIPPED", "claim", "command_of"]

#: Name of the list of images left out: a training run's list may lie in the same folder.
SKIPPED = "audit-skipped.csv"
#: Settings whose option on the command line has another name.
_OPTIONS = {"count": "images"}


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


def command_of(
    models: Any,
    data: Any,
    spec: AuditSpec,
    selection: ImageSelection,
    inputs: InputOptions,
    **options: Any,
) -> str:
    """The command line of an audit.

    Args:
        models, data, spec, selection, inputs: of the audit.
        options: what is set besides, by name; what is empty is left out.

    Returns:
        One line; empty where an argument has no name, such as a network.
    """
    paths = [models] if isinstance(models, (str, Path)) else models
    if not isinstance(paths, (list, tuple)) or not all(isinstance(m, (str, Path)) for m in paths):
        return ""
    settings = {"data": data, **options}
    for group in (spec, selection, inputs):
        for field in dataclasses.fields(group):
            value = getattr(group, field.name)
            if value != field.default:
                settings[_OPTIONS.get(field.name, field.name)] = value
    words = ["nearfar", "audit", *map(str, paths)]
    for name, value in settings.items():
        if value is None or value == "" or value == ():
            continue
        if value is True:
            words.append(f"--{name}")
        elif isinstance(value, tuple):
            numbers = [int(x) if isinstance(x, float) and x == int(x) else x for x in value]
            words.append(f"--{name}={','.join(map(str, numbers))}")
        elif isinstance(value, (str, Path, int, float)):
            words.append(f"--{name}={value}")
        else:
            return ""
    return shlex.join(words)
