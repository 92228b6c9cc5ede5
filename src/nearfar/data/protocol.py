"""ScaleProtocol: at which sizes a thing is shown, on one canvas that never changes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nearfar.errors import InputError
from nearfar.grid import Axis
from nearfar.pyramid import Kernel, resample
from nearfar.scale_sets import as_scales

__all__ = ["ScaleProtocol"]


@dataclass(frozen=True)
class ScaleProtocol:
    """Which scales to train on and which to test on, and how an image is shown at a scale.

    At scale ``s`` an image's longer side covers ``content · s`` pixels of the canvas, whatever the
    size the image is stored in; it lies at the canvas's centre, to the fraction of a pixel, on a
    background of zeros. What does not fit on the canvas is cut off.

    Args:
        canvas: side of the square canvas, in pixels.
        content: side of the content at scale 1, in pixels.
        train_scales: scales of training and validation images; each image is shown at one of them,
            drawn by seed.
        test_scales: scales at which every test image is shown.
        interpolation: ``bicubic`` or ``bilinear``, antialiased; the result is cut to [0, 1].

    Raises:
        InputError: a size below 1, or bad scales.
    """

    canvas: int = 28
    content: int = 12
    train_scales: tuple[float, ...] = (1.0,)
    test_scales: tuple[float, ...] = (0.3, 0.4, 0.5, 0.6, 0.75, 1.0, 1.25, 1.5, 2.0)
    interpolation: Kernel = "bicubic"

    def __post_init__(self) -> None:
        if not all(isinstance(n, int) and n >= 1 for n in (self.canvas, self.content)):
            raise InputError(
                f"canvas and content must be whole numbers of at least 1 pixel, got canvas={self.canvas} and "
                f"content={self.content}"
            )
        if self.interpolation not in ("bicubic", "bilinear"):
            raise InputError(
                f"interpolation must be 'bicubic' or 'bilinear', got {self.interpolation!r}"
            )
        for field in ("train_scales", "test_scales"):
            values = as_scales(getattr(self, field))
            if len(set(values)) < len(values):
                raise InputError(f"{field} names a scale twice: {values}")
            object.__setattr__(self, field, values)

    def render(self, images: Tensor, scale: float) -> Tensor:
        """Shows images at a scale.

        Args:
            images: ``[N, C, h, w]``, values from 0 to 1, or uint8 from 0 to 255.
            scale: any positive number, one of the protocol's or not.

        Returns:
            ``[N, C, canvas, canvas]``, floating point, values from 0 to 1.
        """
        (scale,) = as_scales((scale,))
        height, width = int(images.shape[-2]), int(images.shape[-1])
        side = self.content * scale
        if not 1 <= side <= 64 * self.canvas:
            raise InputError(
                f"at scale {scale:g} the content of {self.content} pixels would cover {side:g}; it must "
                f"cover at least 1 pixel and at most 64 canvases of {self.canvas}"
            )
        if images.dtype == torch.uint8:
            images = images.float() / 255
        if height == width == self.canvas == side:  # reading it anew would give the same bits
            return images.clamp(0, 1)
        step = side / max(height, width)
        placed = (self._axis(height, step), self._axis(width, step))
        canvas = Axis.tiling(self.canvas, self.canvas)
        shown = resample(
            images,
            placed,
            (canvas, canvas),
            antialias=True,
            kernel=self.interpolation,
            outside="zeros",
        )
        return shown.clamp(0, 1)

    def _axis(self, size: int, step: float) -> Axis:
        return Axis(size, self.canvas / 2 - step * (size - 1) / 2, step, tiles=False)
