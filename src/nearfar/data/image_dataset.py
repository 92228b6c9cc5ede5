"""LabelledImages: what every data source gives."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

__all__ = [
    "ImageStore",
    "LabelledImages",
    "channels_of",
    "data_folder",
    "image_sizes",
    "take_images",
]


class ImageStore(Protocol):
    """Decoded images of any sizes, in memory or read when they are asked for."""

    channels: int

    @property
    def sizes(self) -> Tensor | None:
        """``[N, 2]``: height and width of each image; ``None`` where nobody has looked yet."""

    def __len__(self) -> int: ...

    def __getitem__(self, indices: Tensor, /) -> Sequence[Tensor]:
        """Images by their indices, ``[B]`` → B tensors ``[C, h, w]``, uint8."""


@dataclass(frozen=True)
class LabelledImages:
    """A dataset.

    Attributes:
        images: ``[N, C, h, w]``, uint8 from 0 to 255 or float32 from 0 to 1, where all have one size and lie
            in memory; else a store of decoded images. :meth:`nearfar.data.Preprocess.render` takes what
            indexing either gives.
        labels: ``[N]``, int64.
        class_names: what the labels stand for, in order.
        test_from: where a dataset has an official test part: images from this index on are it, all
            before it are its training part.
        validation_from: where a dataset has an official validation part too: images from this index to
            ``test_from`` are it.
        skipped: files that were left out because they cannot be read: (path, why).
        edition: of a published dataset that exists in several, the folder's name: ``cifar10-jpeg``.
    """

    images: Tensor | ImageStore
    labels: Tensor
    class_names: tuple[str, ...]
    test_from: int | None = None
    validation_from: int | None = None
    skipped: tuple[tuple[str, str], ...] = ()
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


class _Subset:
    """Some images of a store."""

    def __init__(self, images: ImageStore, indices: Tensor) -> None:
        self.channels = images.channels
        self._images, self._indices = images, indices

    @property
    def sizes(self) -> Tensor | None:
        sizes = self._images.sizes
        return None if sizes is None else sizes[self._indices]

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, indices: Tensor, /) -> Sequence[Tensor]:
        return self._images[self._indices[indices]]


def take_images(images: Tensor | ImageStore, indices: Tensor) -> Tensor | ImageStore:
    """Some of the images of a dataset; those of a store are read when they are asked for."""
    return images[indices] if isinstance(images, Tensor) else _Subset(images, indices)


def channels_of(images: Tensor | ImageStore) -> int:
    """Channels of a dataset's images."""
    return int(images.shape[1]) if isinstance(images, Tensor) else images.channels


def image_sizes(images: Tensor | ImageStore) -> Tensor | None:
    """``[N, 2]``: height and width of a dataset's images in pixels; ``None`` where they are not known."""
    if isinstance(images, Tensor):
        return torch.tensor(images.shape[-2:]).expand(len(images), 2)
    return images.sizes


def data_folder(root: Path | None) -> Path:
    """The folder that holds datasets: the given one, or ``$NEARFAR_DATA``, or ``./data``."""
    return root or Path(os.environ.get("NEARFAR_DATA", "data"))
