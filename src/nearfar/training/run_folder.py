"""The folder of a training run: claimed by one process, and the files that a run resumes from."""

from __future__ import annotations

import logging
import math
from argparse import Namespace
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from filelock import FileLock, Timeout
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from nearfar.atomic import atomic_path, make_folder, names_in, remove_abandoned, write_atomically
from nearfar.data.unreadable import SKIPPED
from nearfar.errors import InputError, first_line
from nearfar.records import as_csv, check_extent
from nearfar.training.saved_state import BEST_FIELDS, LAST_FIELDS, check_fields
from nearfar.training.specs import Recipe

__all__ = [
    "LOCK",
    "WEIGHTS",
    "BestEpoch",
    "MetricsFile",
    "best_path",
    "claimed",
    "last_path",
    "read_best",
    "read_last",
    "write_state",
]

log = logging.getLogger(__name__)

#: Name of the weight file in a run's folder.
WEIGHTS = "weights.safetensors"
#: Name of the file that is locked while a process trains in a folder; a killed run leaves it.
LOCK = ".nearfar.lock"
_CONFIG_HEADER = "# nearfar train --config config.yaml\n"
_FORMAT = 3


@contextmanager
def claimed(out: Path, recipe: Recipe) -> Iterator[None]:
    """Makes ``out`` this run's folder, and this process the only one that trains in it.

    The lock ends with the process, however that ends, and is not inherited by forked processes. On file
    systems without ``flock`` nothing is locked, which is logged.

    Args:
        out: new, empty, or left by an interrupted run of the same settings.
        recipe: of the run.

    Raises:
        InputError: another process trains there, or ``out`` holds something else or cannot be written.
    """
    make_folder(out)
    # Another lock of the same process must be refused too, hence no singleton. A second attempt, because
    # a run that ends may remove its file between our opening and locking it.
    lock = FileLock(
        out / LOCK, timeout=0.2, poll_interval=0.05, fallback_to_soft=False, is_singleton=False
    )
    try:
        lock.acquire()
    except Timeout as cause:
        raise InputError(
            f"another process trains in {out}; wait for it, or choose another folder with --out"
        ) from cause
    except PermissionError as cause:
        raise InputError(
            f"cannot write in {out}: {cause.strerror}; choose another folder with --out"
        ) from cause
    except OSError as cause:
        log.warning("%s cannot be locked (%s): nothing keeps a second run out", out, cause.strerror)
        (out / LOCK).unlink(missing_ok=True)
    try:
        _claim(out, recipe)
        yield
    finally:
        if lock.is_locked:
            # Before the release: afterwards the file may be another process's. Windows refuses.
            with suppress(OSError):
                (out / LOCK).unlink(missing_ok=True)
        lock.release()


def _claim(out: Path, recipe: Recipe) -> None:
    """Writes ``config.yaml``, if the folder is empty or holds an unfinished run of the recipe."""
    config = out / "config.yaml"
    names = names_in(out) - {LOCK}
    if names:
        # A run that was refused before it trained leaves nothing but these two.
        trained_nothing = names <= {config.name, SKIPPED} and _is_config(config)
        if WEIGHTS in names or not (trained_nothing or _holds_recipe(config, recipe)):
            raise InputError(
                f"{out} is not empty and holds no unfinished run of these settings; choose another "
                f"folder with --out, or move that one away"
            )
    for folder in (out, out / "checkpoints"):
        if folder.is_dir():
            remove_abandoned(folder, of_all=True)  # no other process writes here: it is locked
    write_atomically(config, f"{_CONFIG_HEADER}{recipe.as_yaml()}")


def _is_config(config: Path) -> bool:
    return config.is_file() and config.read_bytes().startswith(_CONFIG_HEADER.encode())


def _holds_recipe(config: Path, recipe: Recipe) -> bool:
    try:
        record = yaml.safe_load(config.read_text(encoding="utf-8"))
        check_extent(record)
        return Recipe.from_dict(record) == recipe
    # ValueError: no text, numbers of thousands of digits, or what the recipe refuses.
    except (OSError, yaml.YAMLError, ValueError, RecursionError):
        return False


@dataclass(frozen=True)
class BestEpoch:
    """The epoch whose weights are kept so far, and its figures.

    Attributes:
        epoch: from 0; -1 while there is none.
        loss: on the validation images.
        accuracy: on the validation images.
    """

    epoch: int = -1
    loss: float = math.inf
    accuracy: float = 0.0


def best_path(folder: Path) -> Path:
    """The file of the best epoch's weights and figures."""
    return folder / "checkpoints" / "best.ckpt"


def last_path(folder: Path) -> Path:
    """The file of everything that the rest of a run depends on."""
    return folder / "checkpoints" / "last.ckpt"


def write_state(path: Path, state: dict[str, Any]) -> None:
    """Writes tensors and plain data whole or not at all."""
    with atomic_path(path) as temporary:
        torch.save({"format": _FORMAT, **state}, temporary)


def read_best(folder: Path) -> tuple[BestEpoch, dict[str, Any]] | None:
    """The best epoch and its weights; ``None`` if they cannot be read."""
    state = _read(best_path(folder), BEST_FIELDS)
    return None if state is None else (BestEpoch(**state["best"]), state["weights"])


def read_last(folder: Path, versions: dict[str, str]) -> dict[str, Any] | None:
    """The state to resume from; ``None`` where a run must start from the beginning.

    Args:
        folder: of the run.
        versions: of nearfar and torch now; another torch may round differently, which is logged.
    """
    if not last_path(folder).is_file():
        return None
    state = _read(last_path(folder), LAST_FIELDS)
    if state is not None and state["best"]["epoch"] >= 0:
        # Kills come between the two files: the best may be newer than the last, never older.
        best = read_best(folder)
        if best is None or best[0].epoch < state["best"]["epoch"]:
            log.warning("%s does not belong to last.ckpt beside it", best_path(folder))
            state = None
    if state is None:
        log.warning("%s cannot be resumed; training starts from the beginning", folder)
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


def _read(path: Path, fields: Mapping[str, Any]) -> dict[str, Any] | None:
    try:
        # Tensors and plain data only: a file from elsewhere cannot run code.
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        readable = isinstance(state, dict) and state.get("format") == _FORMAT
        if readable:
            check_fields(state, fields, "its state")
    except Exception as cause:  # torch.load has no one class of errors for damaged files
        log.warning("%s cannot be read: %s", path, first_line(cause))
        return None
    if not readable:
        log.warning("%s has another format", path)
    return state if readable else None


class MetricsFile(Logger):
    """Writes ``metrics.csv`` anew with each row, so that a kill leaves no torn or doubled row.

    Lightning's ``CSVLogger`` rewrites its file in place, and deletes what an interrupted run left.

    Args:
        path: the file.
        rows: of the run that is resumed.
    """

    def __init__(self, path: Path, rows: list[dict[str, float]]) -> None:
        super().__init__()
        self.path = path
        self.rows = [dict(row) for row in rows]

    @property
    def name(self) -> str:
        """Of the logger, for Lightning."""
        return "metrics"

    @property
    def version(self) -> str:
        """None: there is one logger in a folder."""
        return ""

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *_: Any, **__: Any) -> None:
        """Does nothing: they stand in ``config.yaml``."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Adds a row."""
        row = {name: float(value) for name, value in metrics.items() if name != "epoch"}
        integers = {"epoch": int(metrics["epoch"])} if "epoch" in metrics else {}
        self.rows.append({**row, **integers, **({} if step is None else {"step": step})})
        columns = sorted({name for row in self.rows for name in row})
        write_atomically(self.path, as_csv(columns, self.rows))
