"""CIFAR-10 and CIFAR-100."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torchvision.datasets import CIFAR10, CIFAR100

from nearfar.data.image_dataset import LabelledImages, data_folder
from nearfar.data.sources.folder import folder_index
from nearfar.data.sources.registry import register_source
from nearfar.data.stored_images import hold_images
from nearfar.data.unreadable import refuse_too_many
from nearfar.errors import InputError

__all__ = ["cifar_source"]

_SIDE = 32


def cifar_source(name: str, kind: type[CIFAR10]) -> Callable[[Path | None], LabelledImages]:
    """A reader of 50,000 training and 10,000 test images of 32×32, lossless or from files.

    torchvision's own layout comes first, then ``name/{train,test}/CLASS/*``, then the same below
    ``name-jpeg``. JPEG copies are lossy: nets can be compared on them with each other, but not with
    figures for the lossless set.
    """

    def load(root: Path | None) -> LabelledImages:
        folder = data_folder(root)
        if (folder / kind.base_folder).is_dir():
            return _original(kind, folder)
        for copy in (folder / name, folder / f"{name}-jpeg"):
            if copy.is_dir():
                return _copied(copy)
        raise InputError(
            f"{kind.__name__} was not found in {folder}: neither torchvision's {kind.base_folder} nor "
            f"{name}/train and {name}/test with a sub-folder a class; name the folder that holds one of "
            f"them as root or in NEARFAR_DATA, or fetch it once with "
            f"torchvision.datasets.{kind.__name__}({str(folder)!r}, download=True)"
        )

    return load


def _copied(folder: Path) -> LabelledImages:
    index, identity = folder_index([folder / "train"], folder / "test")
    images, _, faults = hold_images(index.entries, identity, index.encoded_bytes, _SIDE)
    skipped = [(str(index.entries[fault.index]), fault.why) for fault in faults]
    refuse_too_many(skipped, len(index.entries), 0)
    return LabelledImages(
        images, torch.tensor(index.labels), index.class_names, index.test_from, edition=folder.name
    )


def _original(kind: type[CIFAR10], folder: Path) -> LabelledImages:
    try:  # torchvision unpickles, but only files of the checksums it knows
        parts = [kind(root=str(folder), train=train) for train in (True, False)]
    except RuntimeError as cause:
        raise InputError(
            f"{kind.__name__} in {folder / kind.base_folder} is damaged or not whole: {cause}; remove "
            f"that folder and fetch it again with torchvision.datasets.{kind.__name__}({str(folder)!r}, "
            f"download=True)"
        ) from cause
    return LabelledImages(
        torch.from_numpy(np.concatenate([p.data for p in parts])).permute(0, 3, 1, 2).contiguous(),
        torch.tensor([label for part in parts for label in part.targets]),
        tuple(parts[0].classes),
        test_from=len(parts[0].data),
        edition=kind.base_folder,
    )


register_source("cifar10")(cifar_source("cifar10", CIFAR10))
register_source("cifar100")(cifar_source("cifar100", CIFAR100))
