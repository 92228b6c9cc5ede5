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

__all__ = ["atomic_path", "make_folder", "names_in", "remove_abandoned", "write_atomically"]

_HOST = re.sub(r"\W", "_", platform.node())
#: Name of a temporary file: its target's, then machine and process.
_TEMPORARY = re.compile(r"\..+\.(?P<host>\w*)-(?P<process>\d+)-\w+(?:\.\w+)?")


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside ``path``; on a clean exit it takes the place of ``path``.

    Whatever interrupts the writing, a file of that name is either the old one or the new one, never
    a part. The new content is on the disk before the old one is given up. What a killed process left of
    an earlier attempt is removed at the next one.
    """
    make_folder(path.parent)
    remove_abandoned(path.parent)
    prefix = f".{path.name}.{_HOST}-{os.getpid()}-"
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
    except OSError:
        raise
    except Exception as cause:
        _raise_if_full(temporary, cause)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def _raise_if_full(path: Path, cause: Exception) -> None:
    """Raises what the system says where nothing more can be written.

    Writers in native code, torch's among them, say of a full disk that a position is unexpected.
    """
    try:
        with path.open("ab") as file:
            file.write(bytes(2**20))
            file.flush()
            os.fsync(file.fileno())
    except OSError as fault:
        raise OSError(fault.errno, fault.strerror, str(path.parent)) from cause


def remove_abandoned(folder: Path, *, of_all: bool = False) -> None:
    """Removes the temporary files in a folder of processes of this machine that are no more.

    Args:
        folder: where they are looked for.
        of_all: also those of other machines' and living processes: for whoever alone may write there.
    """
    for entry in folder.iterdir():
        match = _TEMPORARY.fullmatch(entry.name)
        if match is not None and (
            of_all or (match["host"] == _HOST and not _is_alive(int(match["process"])))
        ):
            entry.unlink(missing_ok=True)


def names_in(folder: Path) -> set[str]:
    """Names of what is in a folder, without temporary files, which may be of a write that was killed."""
    return {entry.name for entry in folder.iterdir() if not _TEMPORARY.fullmatch(entry.name)}


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
