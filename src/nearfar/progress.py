"""How long work reports how far it is. The library only calls back; showing is the caller's."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Progress", "Step", "quiet_lightning", "silent"]


@dataclass(frozen=True)
class Step:
    """A piece of work and how far it has come.

    Attributes:
        task: what is being done.
        done: units done so far.
        total: units in all.
        note: the latest figure worth seeing, or nothing.
    """

    task: str
    done: float
    total: float
    note: str = ""


Progress = Callable[[Step], None]
"""What a long function calls after each unit of work."""


def silent(step: Step) -> None:
    """Shows nothing."""


def quiet_lightning() -> None:
    """Keeps Lightning from reporting its set-up: where progress is shown, that is the report."""
    for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
