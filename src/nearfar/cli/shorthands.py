"""``--data DIR`` and ``--model NAME`` in place of the options they stand for."""

from __future__ import annotations

from pathlib import Path

from nearfar.cli.display import console
from nearfar.data import DataSpec, list_sources
from nearfar.data.sources import is_own
from nearfar.errors import InputError
from nearfar.models import input_size
from nearfar.training import ModelSpec

__all__ = ["photo_side", "written_out"]


def written_out(group: type, key: str, word: str) -> tuple[dict[str, str], bool]:
    """The options that one word stands for, and whether they are anybody's own images.

    Args:
        group: the dataclass; a ``ModelSpec`` takes a name, a ``DataSpec`` a data set's name or a folder.
        key: its option.
        word: what follows the option.

    Raises:
        InputError: a word that stands for nothing.
    """
    if group is ModelSpec:
        return {"name": word}, False
    if group is not DataSpec:
        raise InputError(f"{key} must hold options by name, got {word!r}")
    if word in list_sources() or is_own(word):
        return {"source": word}, is_own(word)
    if Path(word).is_dir():
        return {"source": "folder", "root": word}, True
    raise InputError(
        f"--{key} takes a folder of images, or one of {', '.join(list_sources())}, got {word!r}, which "
        f"is neither; make the folder, or mend the name"
    )


def photo_side(model: str | None, protocol: str) -> int:
    """The side of the images that a model was made for: a protocol's own sizes are for digits."""
    name = model or ModelSpec().name
    side = min(input_size(name)[1:])
    console.print(
        f"Images of the folder are shown on {side}×{side} pixels, what {name} was made for; "
        f"--{protocol}.canvas and --{protocol}.content change that.",
        highlight=False,
    )
    return side
