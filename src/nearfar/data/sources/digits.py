"""scikit-learn's handwritten digits."""

from __future__ import annotations

from pathlib import Path

import torch
from sklearn.datasets import load_digits

from nearfar.data.sources.labelled import LabelledImages

__all__ = ["digits_source"]


def digits_source(root: Path | None) -> LabelledImages:
    """1,797 real digits of 8×8 pixels and 17 grey levels; they come with scikit-learn."""
    bunch = load_digits()
    images = torch.tensor(bunch.images, dtype=torch.float32).unsqueeze(1) / 16
    return LabelledImages(images, torch.tensor(bunch.target), tuple(str(d) for d in range(10)))
