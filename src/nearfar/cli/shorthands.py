"""``--data DIR`` and ``--model NAME`` in place of the options they stand for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nearfar.cli.display import console
from nearfar.data import DataSpec, list_sources
from nearfar.data.sources import is_own
from nearfar.errors import InputError
from nearfar.models import input_size
from nearfar.training import ModelSpec

__all__ = ["photo_sizes", "written_out"]


def written_out(group: type, key: str, word: str) -> dict[str, Any]:
    """What one word stands for: the name of a model, of a data set, or of a folder of images."""
    if group is ModelSpec:
        return {"name": word}
    if group is not DataSpec:
        raise InputError(f"{key} must hold options by name, got {word!r}")
    if word in list_sources() or is_own(word):
        return {"source": word}
    if Path(word).is_dir():
        return {"source": "folder", "root": word}
    raise InputError(
        f"--{key} takes a folder of images, or one of {', '.join(list_sources())}, got {word!r}, which "
        f"is neither; make the folder, or mend the name"
    )


def photo_sizes(values: Mapping[str, Any]) -> dict[str, int]:
    """Canvas and content for anybody's images, where nobody says them: a protocol's own are for digits.

    Args:
        values: all settings by their dotted names.

    Returns:
        Two more: both are the side of the images that the model was made for.
    """
    has_sizes = any(key.startswith("data.protocol.") for key in values)
    if has_sizes or not is_own(values.get("data.source", "")):
        return {}
    name = values.get("model.name", ModelSpec().name)
    side = min(input_size(name)[1:])
    console.print(
        f"Images of the folder are shown on {side}×{side} pixels, what {name} was made for; "
        f"--data.protocol.canvas and --data.protocol.content change that.",
        highlight=False,
    )
    return {"data.protocol.canvas": side, "data.protocol.content": side}
