"""ScaleProtocol: at which sizes a thing is shown, on one canvas that never changes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nearfar.data.preprocess import Preprocess
from nearfar.errors import InputError
from nearfar.scale_sets import as_scales

__all__ = ["ScaleProtocol"]


@dataclass(frozen=True)
class ScaleProtocol(Preprocess):
    """How a network wants its images, and at which scales it is trained and tested.

    Args:
        canvas, content, side, interpolation, background: as in :class:`nearfar.data.Preprocess`.
        train_scales: scales of training and validation images; each image is shown at one of them,
            drawn by seed.
        train_band: smallest and largest scale, in place of ``train_scales``: each image is shown at a
            scale of its own from between them, drawn uniformly by seed. That is how MNIST-Scale is made,
            here of any data set.
        test_scales: scales at which every test image is shown.

    Raises:
        InputError: a size below 1, an unknown word, or bad scales.
    """

    train_scales: tuple[float, ...] = (1.0,)
    test_scales: tuple[float, ...] = (0.3, 0.4, 0.5, 0.6, 0.75, 1.0, 1.25, 1.5, 2.0)
    train_band: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in ("train_scales", "test_scales"):
            values = as_scales(getattr(self, field))
            if len(set(values)) < len(values):
                raise InputError(f"{field} names a scale twice: {values}")
            object.__setattr__(self, field, values)
        if self.train_band is not None:
            band = as_scales(self.train_band)
            if len(band) != 2 or not band[0] < band[1] or self.train_scales != (1.0,):
                raise InputError(
                    f"train_band is a smallest and a largest scale, such as [0.3, 1], in place of "
                    f"train_scales, got train_band={list(band)} and train_scales={list(self.train_scales)}"
                )
            object.__setattr__(self, "train_band", band)

    def draw(self, count: int, seed: int) -> Tensor:
        """At which scale each of a split's images is shown in training: ``[count]``, float64.

        Args:
            count: of the split.
            seed: decides every draw.
        """
        draw = torch.Generator().manual_seed(seed)
        if self.train_band is not None:
            low, high = self.train_band
            return low + (high - low) * torch.rand(count, generator=draw, dtype=torch.float64)
        scales = torch.tensor(self.train_scales, dtype=torch.float64)
        return scales[torch.randint(len(scales), (count,), generator=draw)]
