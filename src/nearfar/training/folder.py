"""A run's folder: recognised, made, and held against other processes for the time of the run."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import yaml

from nearfar.atomic import make_folder, write_atomically
from nearfar.data.unreadable import SKIPPED
from nearfar.errors import InputError
from nearfar.training.run_state import sweep
from nearfar.training.specs import Recipe

try:
    import fcntl
except ImportError:  # not on Windows: there nothing is locked
    fcntl = None  # type: ignore[assignment]

__all__ = ["LOCK", "WEIGHTS", "claimed"]

log = logging.getLogger(__name__)

#: Name of the weight file in a run's folder.
WEIGHTS = "weights.safetensors"
#: Name of the file that is locked while a process trains in a folder; a killed run leaves it.
LOCK = ".nearfar.lock"
_HEAD = "# nearfar train --config config.yaml\n"

_held: set[int] = set()


@contextmanager
def claimed(out: Path, recipe: Recipe) -> Iterator[None]:
    """Makes ``out`` this run's folder, and this process the only one that trains in it.

    The lock ends with the process, however that ends. Platforms and file systems without ``flock`` lock
    nothing.

    Args:
        out: new, empty, or left by an interrupted run of these settings.
        recipe: the run's.

    Raises:
        InputError: another process trains there, ``out`` holds something else or cannot be written.
    """
    make_folder(out)
    handle = _lock(out)
    try:
        _claim(out, recipe)
        yield
    finally:
        if handle in _held:
            _held.discard(handle)
            # Before the lock ends: afterwards the file may be another process's.
            with suppress(OSError):
                (out / LOCK).unlink(missing_ok=True)
            os.close(handle)


def _claim(out: Path, recipe: Recipe) -> None:
    marker = out / "config.yaml"
    found = {path.name for path in out.iterdir()} - {LOCK}
    if found:
        # Of what was refused before it trained there is nothing but these two.
        begun = found - {marker.name, SKIPPED}
        mine = _asks_for(marker, recipe) or (not begun and _is_ours(marker))
        if not mine or WEIGHTS in found:
            raise InputError(
                f"{out} is not empty and holds no unfinished run of these settings; choose another "
                f"folder with --out, or move that one away"
            )
        sweep(out)
    write_atomically(marker, f"{_HEAD}{recipe.as_yaml()}")


def _is_ours(config: Path) -> bool:
    return config.is_file() and config.read_bytes().startswith(_HEAD.encode())


def _asks_for(config: Path, recipe: Recipe) -> bool:
    """Whether a configuration, of this or an older nearfar, is of these settings."""
    try:
        return Recipe.from_dict(yaml.safe_load(config.read_text(encoding="utf-8"))) == recipe
    except (OSError, UnicodeDecodeError, yaml.YAMLError, InputError):
        return False


def _lock(out: Path) -> int:
    """The open, locked file; -1 where there are no locks."""
    if fcntl is None:
        return -1
    file = out / LOCK
    while True:
        try:
            handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as cause:
            raise InputError(
                f"cannot write in {out}: {cause.strerror}; choose another folder with --out"
            ) from cause
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # A run that ended just now may have removed the file that was opened here.
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(handle), file.stat()):
                    _held.add(handle)
                    return handle
        except BlockingIOError as cause:
            raise InputError(
                f"another process trains in {out}; wait for it, or choose another folder with --out"
            ) from cause
        except OSError as cause:
            log.warning(
                "%s cannot be locked (%s): nothing keeps a second run out", out, cause.strerror
            )
            file.unlink(missing_ok=True)
            return -1
        finally:
            if handle not in _held:
                os.close(handle)


def _let_go() -> None:
    """Forked processes, such as those that read images, must not outlive the run with its lock."""
    for handle in _held:
        os.close(handle)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)
