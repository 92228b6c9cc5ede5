"""LabelledImages: what every source gives."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

__all__ = ["LabelledImages", "StoredImages", "data_folder"]


class StoredImages(Protocol):
    """Images that are there when asked for: a tensor, or files that are read then."""

    @property
    def shape(self) -> torch.Size:
        """``[N, C, h, w]``."""

    def __getitem__(self, which: Tensor, /) -> Tensor:
        """Images by their indices, ``[B]`` → ``[B, C, h, w]``."""

    def __len__(self) -> int: ...


@dataclass(frozen=True)
class LabelledImages:
    """A data set.

    Attributes:
        images: ``[N, C, h, w]``, uint8 from 0 to 255 or float32 from 0 to 1:
            :meth:`nearfar.data.ScaleProtocol.render` takes both. In memory, or streamed.
        labels: ``[N]``, int64.
        class_names: what the labels stand for, in order.
        test_from: where a data set has an official test part: images from this index on are it, all
            before it are its training part.
        validation_from: where a data set has an official validation part too: images from this index to
            ``test_from`` are it.
        skipped: files that were left out because they cannot be read: (path, why).
    """

    images: StoredImages
    labels: Tensor
    class_names: tuple[str, ...]
    test_from: int | None = None
    validation_from: int | None = None
    skipped: tuple[tuple[str, str], ...] = ()


def data_folder(root: Path | None) -> Path:
    """The folder that holds data sets: the given one, or ``$NEARFAR_DATA``, or ``./data``."""
    return root or Path(os.environ.get("NEARFAR_DATA", "data"))
