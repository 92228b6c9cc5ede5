"""Files that cannot be read: left out up to a share, and listed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from nearfar.atomic import write_atomically
from nearfar.errors import InputError
from nearfar.records import as_csv

__all__ = [
    "SKIPPED",
    "Skipped",
    "UnreadableFilesError",
    "describe_skipped",
    "list_skipped",
    "listing_refused",
    "listing_skipped",
    "refuse_too_many",
]

#: Name of the list in a run's folder.
SKIPPED = "skipped.csv"
_NAMED = 5

Skipped = tuple[tuple[str, str], ...]
"""Files that were left out, each with the reason."""

_Loaded = TypeVar("_Loaded")


class UnreadableFilesError(InputError):
    """More files cannot be read than may be left out.

    Attributes:
        skipped: all of them: (path, why).
    """

    def __init__(self, message: str, skipped: Skipped) -> None:
        super().__init__(message)
        self.skipped = skipped


def refuse_too_many(
    skipped: Sequence[tuple[str, str]],
    count: int,
    share: float,
    what: str = "images cannot be read",
) -> None:
    """Refuses a data set of which too many files cannot be read.

    Args:
        skipped: which cannot be read: (path, why).
        count: how many files there are.
        share: how many of them may be left out, from 0 to 1.
        what: of what there are too many.

    Raises:
        UnreadableFilesError: they are more; the first five are named.
    """
    if len(skipped) <= share * count:
        return
    named = "; ".join(f"{path} ({why})" for path, why in skipped[:_NAMED])
    more = f"; and {len(skipped) - _NAMED} more" if len(skipped) > _NAMED else ""
    mend = "repair or remove them"
    if share:
        mend += f", or raise max_skipped={share:g} (of train and convert: data.max_skipped)"
    raise UnreadableFilesError(
        f"{len(skipped)} of {count} {what}: {named}{more}; {mend}", tuple(skipped)
    )


def describe_skipped(skipped: Skipped, readable: int) -> str:
    """A sentence on what was left out; empty where nothing was.

    Args:
        skipped: which files.
        readable: how many others there are.
    """
    if not skipped:
        return ""
    path, why = skipped[0]
    which = (
        "one cannot be read and is"
        if len(skipped) == 1
        else f"{len(skipped):,} cannot be read and are"
    )
    return f"Of {readable + len(skipped):,} files, {which} left out (the first: {path}, {why})."


def listing_skipped(load: Callable[[], _Loaded], file: Path) -> _Loaded:
    """Loads a data set and lists in a CSV file which files were left out, or are too many.

    Args:
        load: gives something with ``skipped``, such as :class:`nearfar.data.ScaleDataModule`.
        file: the list. It is there only where there is something to list: an older one goes.

    Raises:
        InputError: as ``load`` does; of too many files, it names the list.
    """
    loaded = listing_refused(load, file)
    list_skipped(getattr(loaded, "skipped", ()), file)
    return loaded


def listing_refused(load: Callable[[], _Loaded], file: Path) -> _Loaded:
    """:func:`listing_skipped` for a caller that lists by itself what a loaded data set left out."""
    try:
        return load()
    except UnreadableFilesError as fault:
        list_skipped(fault.skipped, file)
        raise InputError(f"{fault}; all are listed in {file}") from fault


def list_skipped(skipped: Skipped, file: Path) -> None:
    """Lists in a CSV file which files were left out; where none was, an older list goes."""
    if not skipped:
        file.unlink(missing_ok=True)
        return
    names = ("path", "reason")
    write_atomically(file, as_csv(names, [dict(zip(names, row, strict=True)) for row in skipped]))
