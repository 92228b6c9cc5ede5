"""Where and with what a figure was made."""

from __future__ import annotations

import datetime
import platform

import torch

from nearfar.version import __version__

__all__ = ["machine", "today", "versions"]


def machine(threads: int | None = None) -> str:
    """System, processor family and threads used."""
    count = torch.get_num_threads() if threads is None else threads
    return f"{platform.system()} {platform.machine()}, {count} thread{'s'[: count > 1]}, CPU"


def today() -> str:
    """The date in UTC, ``YYYY-MM-DD``."""
    return datetime.datetime.now(datetime.UTC).date().isoformat()


def versions() -> dict[str, str]:
    """Of nearfar and torch."""
    return {"nearfar": __version__, "torch": torch.__version__}
