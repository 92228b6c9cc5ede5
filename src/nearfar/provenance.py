"""Where and when a figure was made."""

from __future__ import annotations

import datetime
import platform

import torch

__all__ = ["machine", "today"]


def machine() -> str:
    """System, processor family and threads used."""
    count = torch.get_num_threads()
    return f"{platform.system()} {platform.machine()}, {count} thread{'s'[: count > 1]}, CPU"


def today() -> str:
    """The date in UTC, ``YYYY-MM-DD``."""
    return datetime.datetime.now(datetime.UTC).date().isoformat()
