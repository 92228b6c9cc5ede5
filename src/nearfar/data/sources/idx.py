"""MNIST and Fashion-MNIST."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torchvision.datasets import MNIST

from nearfar.data.sources.labelled import LabelledImages, data_folder
from nearfar.errors import InputError

__all__ = ["idx_source"]


def idx_source(kind: type[MNIST]) -> Callable[[Path | None], LabelledImages]:
    """A reader of torchvision's folder layout: 60,000 training and 10,000 test images."""

    def load(root: Path | None) -> LabelledImages:
        folder = data_folder(root)
        try:
            parts = [kind(root=str(folder), train=train) for train in (True, False)]
        except RuntimeError as cause:
            raise InputError(
                f"{kind.__name__} was not found, or is damaged, in {folder / kind.__name__ / 'raw'}; name "
                f"the folder that holds it as root or in NEARFAR_DATA, or fetch it once with "
                f"torchvision.datasets.{kind.__name__}({str(folder)!r}, download=True)"
            ) from cause
        return LabelledImages(
            torch.cat([part.data for part in parts]).unsqueeze(1),
            torch.cat([part.targets for part in parts]),
            tuple(c.split(" - ")[0] for c in parts[0].classes),
            test_from=len(parts[0].data),
        )

    return load
