"""LabelledImages: what every source gives."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

__all__ = ["LabelledImages", "data_folder"]


@dataclass(frozen=True)
class LabelledImages:
    """A data set in memory.

    Attributes:
        images: ``[N, C, h, w]``, uint8 from 0 to 255 or float32 from 0 to 1:
            :meth:`nearfar.data.ScaleProtocol.render` takes both.
        labels: ``[N]``, int64.
        class_names: what the labels stand for, in order.
        test_from: where a data set has an official test part: images from this index on are it, all
            before it are its training part.
    """

    images: Tensor
    labels: Tensor
    class_names: tuple[str, ...]
    test_from: int | None = None


def data_folder(root: Path | None) -> Path:
    """The folder that holds data sets: the given one, or ``$NEARFAR_DATA``, or ``./data``."""
    return root or Path(os.environ.get("NEARFAR_DATA", "data"))
