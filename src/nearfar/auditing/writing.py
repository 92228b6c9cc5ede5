"""Where an audit is written."""

from __future__ import annotations

import tempfile
from pathlib import Path

from nearfar.atomic import make_folder
from nearfar.errors import InputError

__all__ = ["SKIPPED", "claim"]

#: Name of the list of images left out: a training run's list may lie in the same folder.
SKIPPED = "audit-skipped.csv"


def claim(out: Path) -> tuple[Path, Path]:
    """The paths of ``audit.json`` and ``report.html``, found ours to write before the work is done.

    Raises:
        InputError: the folder cannot be written, or holds a file of either name that is no audit's.
    """
    make_folder(out)
    form, page = out / "audit.json", out / "report.html"
    ours = form.exists() and '"nearfar.audit/' in form.read_text("utf-8", errors="replace")[:4096]
    if form.exists() and not ours:
        raise InputError(f"{form} is not an audit of nearfar's; choose another folder with --out")
    if page.exists() and "<title>nearfar" not in page.read_text("utf-8", errors="replace")[:4096]:
        raise InputError(f"{page} is not an audit of nearfar's; choose another folder with --out")
    try:
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as cause:
        raise InputError(
            f"cannot write in {out}: {cause.strerror}; choose another folder with --out"
        ) from cause
    return form, page
