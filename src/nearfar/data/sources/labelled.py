"""LabelledImages: what every source gives."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

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
        sides: ``[N, 2]``, the shorter and the longer side of each image in pixels, as it was before it was
            stored; ``None`` where images are stored as they are, and of streams, which are not looked at
            beforehand.
        edition: of a published set that exists in several, the folder's name: ``cifar10-jpeg``.
    """

    images: StoredImages
    labels: Tensor
    class_names: tuple[str, ...]
    test_from: int | None = None
    validation_from: int | None = None
    skipped: tuple[tuple[str, str], ...] = ()
    sides: Tensor | None = None
    edition: str = ""

    def fingerprint(self) -> dict[str, Any]:
        """What splits depend on besides their spec, as plain data: equal where the splits are.

        ``images``: how many there are. ``sha256``: of their number, their labels in order, and where the
        source's own parts begin. The images themselves are not read.
        """
        parts = {"test_from": self.test_from, "validation_from": self.validation_from}
        digest = hashlib.sha256(repr((len(self.labels), sorted(parts.items()))).encode())
        digest.update(self.labels.numpy().astype("<i8").tobytes())
        return {"images": len(self.labels), "sha256": digest.hexdigest()}


def data_folder(root: Path | None) -> Path:
    """The folder that holds data sets: the given one, or ``$NEARFAR_DATA``, or ``./data``."""
    return root or Path(os.environ.get("NEARFAR_DATA", "data"))
