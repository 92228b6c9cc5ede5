"""Where images come from: data sets by name, each as tensors with labels."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torchvision.datasets import MNIST, FashionMNIST

from nearfar.errors import InputError

__all__ = ["LabelledImages", "list_sources", "load_source"]


@dataclass(frozen=True)
class LabelledImages:
    """A data set in memory.

    Attributes:
        images: ``[N, C, h, w]``, float32 from 0 to 1.
        labels: ``[N]``, int64.
        class_names: what the labels stand for, in order.
    """

    images: Tensor
    labels: Tensor
    class_names: tuple[str, ...]


def _digits(root: Path | None) -> LabelledImages:
    """scikit-learn's handwritten digits: 1,797 real ones of 8×8 pixels and 17 grey levels."""
    bunch = load_digits()
    images = torch.tensor(bunch.images, dtype=torch.float32).unsqueeze(1) / 16
    return LabelledImages(images, torch.tensor(bunch.target), tuple(str(d) for d in range(10)))


def _idx(kind: type[MNIST]) -> Callable[[Path | None], LabelledImages]:
    """MNIST or Fashion-MNIST from torchvision's folder layout: its 60,000 and 10,000 together."""

    def load(root: Path | None) -> LabelledImages:
        folder = root or Path(os.environ.get("NEARFAR_DATA", "data"))
        try:
            parts = [kind(root=str(folder), train=train) for train in (True, False)]
        except RuntimeError as cause:
            raise InputError(
                f"{kind.__name__} was not found, or is damaged, in {folder / kind.__name__ / 'raw'}; name "
                f"the folder that holds it as root or in NEARFAR_DATA, or fetch it once with "
                f"torchvision.datasets.{kind.__name__}({str(folder)!r}, download=True)"
            ) from cause
        images = torch.cat([part.data for part in parts]).unsqueeze(1).float() / 255
        labels = torch.cat([part.targets for part in parts])
        return LabelledImages(images, labels, tuple(c.split(" - ")[0] for c in parts[0].classes))

    return load


_SOURCES: dict[str, Callable[[Path | None], LabelledImages]] = {
    "digits": _digits,
    "mnist": _idx(MNIST),
    "fashion_mnist": _idx(FashionMNIST),
}


def list_sources() -> list[str]:
    """Names of the data sets that :func:`load_source` knows."""
    return list(_SOURCES)


def load_source(name: str, root: Path | None = None) -> LabelledImages:
    """A data set by name.

    Args:
        name: one of :func:`list_sources`; ``digits`` comes with the installation.
        root: the folder that holds the data; default ``$NEARFAR_DATA``, else ``./data``.

    Raises:
        InputError: unknown name, or the files are not there.
    """
    if name not in _SOURCES:
        raise InputError(f"no data set is named {name!r}; the known ones are {', '.join(_SOURCES)}")
    return _SOURCES[name](root)
