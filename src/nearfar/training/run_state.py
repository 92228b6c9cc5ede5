"""``last.ckpt`` and ``best.ckpt``: what a run is taken up from."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from nearfar.atomic import atomic_path

__all__ = ["Kept", "best_path", "last_path", "read_best", "read_last", "sweep", "write_state"]

log = logging.getLogger(__name__)

_FORMAT = 2


@dataclass(frozen=True)
class Kept:
    """The epoch whose weights are kept so far, and its figures.

    Attributes:
        epoch: from 0; -1 where no epoch was fit to be kept.
        loss: on the validation images.
        accuracy: on the validation images.
    """

    epoch: int = -1
    loss: float = math.inf
    accuracy: float = 0.0


def best_path(folder: Path) -> Path:
    """The kept epoch's weights and figures."""
    return folder / "checkpoints" / "best.ckpt"


def last_path(folder: Path) -> Path:
    """Everything that the rest of a run depends on."""
    return folder / "checkpoints" / "last.ckpt"


def write_state(path: Path, state: dict[str, Any]) -> None:
    """Writes tensors and plain data whole or not at all."""
    with atomic_path(path) as temporary:
        torch.save({"format": _FORMAT, **state}, temporary)


def read_best(folder: Path) -> tuple[Kept, dict[str, Any]] | None:
    """The kept figures and weights; ``None`` if they cannot be read."""
    state = _read(best_path(folder))
    return None if state is None else (Kept(**state["kept"]), state["weights"])


def read_last(folder: Path, versions: dict[str, str]) -> dict[str, Any] | None:
    """The state to go on from; ``None`` where a run must start from the beginning.

    Args:
        folder: the run's.
        versions: of nearfar and torch now; another torch may round otherwise, which is logged.
    """
    if not last_path(folder).is_file():
        return None
    state = _read(last_path(folder))
    if state is not None:
        # Kills come between the two files: the best may be newer than the last, never older.
        best = read_best(folder) if state["kept"]["epoch"] >= 0 else (Kept(), {})
        if best is None or best[0].epoch < state["kept"]["epoch"]:
            log.warning("%s does not belong to last.ckpt beside it", best_path(folder))
            state = None
    if state is None:
        log.warning("%s cannot be continued; training starts from the beginning", folder)
        return None
    if state["versions"] != versions:
        log.warning(
            "%s was begun with %s and goes on with %s: its weights may differ in the last digits from those "
            "of a run without interruption",
            folder,
            state["versions"],
            versions,
        )
    return state


def sweep(folder: Path) -> None:
    """Removes what writing left behind when it was killed."""
    for pattern in (".*.ckpt.*.ckpt", ".metrics.csv.*.csv", ".weights.safetensors.*.safetensors"):
        for left in (*folder.glob(pattern), *(folder / "checkpoints").glob(pattern)):
            left.unlink(missing_ok=True)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        # Tensors and plain data only: a file from elsewhere cannot run code.
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        readable = isinstance(state, dict) and state.get("format") == _FORMAT
    except Exception as cause:  # torch.load has no one class of errors for what is damaged
        log.warning("%s cannot be read: %s", path, str(cause).partition("\n")[0])
        return None
    if not readable:
        log.warning("%s has another format", path)
    return state if readable else None
