"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import platform
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nearfar.errors import InputError

__all__ = ["atomic_path", "make_folder", "write_atomically"]


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside ``path``; on a clean exit it takes the place of ``path``.

    Whatever interrupts the writing, a file of that name is either the old one or the new one, never
    a part. The new content is on the disk before the old one is given up. What a killed process left of
    an earlier attempt is removed at the next one.
    """
    make_folder(path.parent)
    _remove_abandoned(path)
    prefix = f"{_prefix(path)}{os.getpid()}-"
    handle, name = tempfile.mkstemp(prefix=prefix, suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        # mkstemp makes private files; the result gets the permissions of any new file.
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _prefix(path: Path) -> str:
    """What names of temporary files for ``path`` begin with on this machine; the process's number follows."""
    host = re.sub(r"\W", "_", platform.node())
    return f".{path.name}.{host}-"


def _remove_abandoned(path: Path) -> None:
    """Removes temporary files for ``path`` of processes of this machine that are no more."""
    pattern = re.compile(re.escape(_prefix(path)) + r"(\d+)-\w+" + re.escape(path.suffix))
    for entry in path.parent.iterdir():
        match = pattern.fullmatch(entry.name)
        if match is not None and not _is_alive(int(match[1])):
            entry.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    if os.name == "nt":  # where signal 0 is a real one
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # somebody else's
        return True
    return True


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes a whole file as :func:`atomic_path` does; text as UTF-8."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def make_folder(path: Path) -> None:
    """Makes a folder and its parents.

    Raises:
        InputError: a file is in the way, or the place cannot be written.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as cause:
        raise InputError(
            f"cannot make the folder {path}: {cause.strerror}; choose another with --out"
        ) from cause


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
