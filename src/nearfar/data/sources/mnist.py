"""Digits: scikit-learn's, which come with the installation, MNIST and Fashion-MNIST."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torchvision.datasets import MNIST, FashionMNIST

from nearfar.data.image_dataset import LabelledImages, data_folder
from nearfar.data.sources.registry import register_source
from nearfar.errors import InputError

__all__ = ["idx_source"]

_BYTES = 8  # the format's code for unsigned bytes


@register_source("digits")
def digits_source(root: Path | None) -> LabelledImages:
    """1,797 real digits of 8×8 pixels and 17 grey levels; they come with scikit-learn."""
    bunch = load_digits()
    images = torch.tensor(bunch.images, dtype=torch.float32).unsqueeze(1) / 16
    return LabelledImages(images, torch.tensor(bunch.target), tuple(str(d) for d in range(10)))


def idx_source(kind: type[MNIST]) -> Callable[[Path | None], LabelledImages]:
    """A reader of torchvision's folder layout: 60,000 training and 10,000 test images."""

    def load(root: Path | None) -> LabelledImages:
        folder = data_folder(root)
        raw = folder / kind.__name__ / "raw"
        fetch = f"fetch it afresh with torchvision.datasets.{kind.__name__}({str(folder)!r}, download=True)"
        names = tuple(c.split(" - ")[0] for c in kind.classes)
        parts = []
        for prefix in ("train", "t10k"):
            files = [raw / f"{prefix}-{what}-ubyte" for what in ("images-idx3", "labels-idx1")]
            if not all(file.is_file() for file in files):
                raise InputError(
                    f"{kind.__name__} was not found in {raw}; name the folder that holds it as root or in "
                    f"NEARFAR_DATA, or {fetch}"
                )
            images, labels = (
                _read(file, axes, fetch) for file, axes in zip(files, (3, 1), strict=True)
            )
            if len(images) != len(labels):
                raise InputError(
                    f"{files[0]} holds {len(images)} images and {files[1].name} {len(labels)} labels, where "
                    f"each image needs one; {fetch}"
                )
            if len(labels) and int(labels.max()) >= len(names):
                raise InputError(
                    f"{files[1]} has the label {int(labels.max())}, but {kind.__name__} has the {len(names)} "
                    f"classes 0 to {len(names) - 1}; {fetch}"
                )
            parts.append((images, labels.long()))
        return LabelledImages(
            torch.cat([images for images, _ in parts]).unsqueeze(1),
            torch.cat([labels for _, labels in parts]),
            names,
            test_from=len(parts[0][0]),
        )

    return load


def _read(file: Path, axes: int, fetch: str) -> Tensor:
    """An idx file of bytes: two zeros, type, number of axes, their sizes, then the values.

    Here and not with torchvision, which takes a file that is too long or of wrong sizes for another's.
    """
    content = file.read_bytes()
    head = 4 + 4 * axes
    if len(content) < head or content[:4] != bytes((0, 0, _BYTES, axes)):
        raise InputError(
            f"{file} is no idx file of {axes} {'axis' if axes == 1 else 'axes'} of bytes: it begins with "
            f"{content[:4].hex() or 'nothing'} where {bytes((0, 0, _BYTES, axes)).hex()} is expected; "
            f"{fetch}"
        )
    shape = np.frombuffer(content, ">u4", axes, offset=4).astype(np.int64)
    needed = head + int(np.prod(shape))
    if len(content) != needed:
        product = "×".join(str(n) for n in shape)
        raise InputError(
            f"{file} is damaged: its head promises {product} values, that is {needed} bytes, but it has "
            f"{len(content)}; {fetch}"
        )
    values = np.frombuffer(content, np.uint8, offset=head).reshape(shape)
    return torch.from_numpy(values.copy())


register_source("mnist")(idx_source(MNIST))
register_source("fashion_mnist")(idx_source(FashionMNIST))
