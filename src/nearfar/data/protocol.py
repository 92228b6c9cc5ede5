"""ScaleProtocol: at which sizes a thing is shown, on one canvas that never changes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from nearfar.errors import InputError
from nearfar.grid import Axis
from nearfar.pyramid import Kernel, Outside, resample, rescale_each
from nearfar.scale_sets import as_scales

__all__ = ["Background", "ScaleProtocol"]

Background = Literal["black", "grey", "edge"]
_GREY = 0.5


@dataclass(frozen=True)
class ScaleProtocol:
    """Which scales to train on and which to test on, and how an image is shown at a scale.

    At scale ``s`` an image's longer side (or its shorter one, as ``side`` says) covers ``content · s``
    pixels of the canvas, whatever the size the image is stored in; it lies at the canvas's centre, to
    the fraction of a pixel, on a black background. What does not fit on the canvas is cut off.

    Args:
        canvas: side of the square canvas, in pixels.
        content: side of the content at scale 1, in pixels.
        train_scales: scales of training and validation images; each image is shown at one of them,
            drawn by seed.
        train_band: smallest and largest scale, in place of ``train_scales``: each image is shown at a
            scale of its own from between them, drawn uniformly by seed. That is how MNIST-Scale is made,
            here of any data set.
        test_scales: scales at which every test image is shown.
        interpolation: ``bicubic`` or ``bilinear``, antialiased; the result is cut to [0, 1].
        side: which side of an image the content is: ``longer`` shows all of it, ``shorter`` fills a
            square and cuts off the rest: with canvas 224 and content 256 that is ImageNet's centre crop.
        background: what the content does not cover: ``black`` (0), ``grey`` (½), or ``edge``, the
            content's outermost pixels repeated.

    Raises:
        InputError: a size below 1, an unknown word, or bad scales.
    """

    canvas: int = 28
    content: int = 12
    train_scales: tuple[float, ...] = (1.0,)
    test_scales: tuple[float, ...] = (0.3, 0.4, 0.5, 0.6, 0.75, 1.0, 1.25, 1.5, 2.0)
    interpolation: Kernel = "bicubic"
    side: Literal["longer", "shorter"] = "longer"
    train_band: tuple[float, float] | None = None
    background: Background = "black"

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
        if self.side not in ("longer", "shorter"):
            raise InputError(f"side must be 'longer' or 'shorter', got {self.side!r}")
        if self.background not in get_args(Background):
            raise InputError(
                f"background must be one of {', '.join(get_args(Background))}, got {self.background!r}"
            )
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
        step = side / self._whole(height, width)
        placed = (self._axis(height, step), self._axis(width, step))
        canvas = Axis.tiling(self.canvas, self.canvas)
        shown = resample(
            self._darker(images),
            placed,
            (canvas, canvas),
            antialias=True,
            kernel=self.interpolation,
            outside=self._outside,
        )
        return self._lighter(shown).clamp(0, 1)

    def render_each(self, images: Tensor, scales: Tensor) -> Tensor:
        """Shows every image at a scale of its own: :meth:`render`, in one computation for all.

        Args:
            images: as :meth:`render` takes them.
            scales: ``[N]``, positive.

        Returns:
            ``[N, C, canvas, canvas]``: what :meth:`render` gives, but for rounding.

        Raises:
            InputError: not one scale an image, or a scale that :meth:`render` would refuse.
        """
        sides = self.content * scales.double()
        if len(sides) and not bool(((sides >= 1) & (sides <= 64 * self.canvas)).all()):
            raise InputError(
                f"every image's content of {self.content} pixels, times its scale, must cover at least 1 "
                f"pixel and at most 64 canvases of {self.canvas}, got scales from "
                f"{float(scales.min()):g} to {float(scales.max()):g}"
            )
        if images.dtype == torch.uint8:
            images = images.float() / 255
        steps = sides / self._whole(*images.shape[-2:])
        shown = rescale_each(
            self._darker(images),
            steps,
            (self.canvas, self.canvas),
            kernel=self.interpolation,
            outside=self._outside,
        )
        return self._lighter(shown).clamp(0, 1)

    @property
    def level(self) -> float | None:
        """The background's value in every channel, from 0 to 1; ``None`` where it is the content's edge."""
        return {"black": 0.0, "grey": _GREY, "edge": None}[self.background]

    @property
    def _outside(self) -> Outside:
        return "border" if self.background == "edge" else "zeros"

    # Reading is linear: a grey background is a black one about images that are so much darker.
    def _darker(self, images: Tensor) -> Tensor:
        return images - _GREY if self.background == "grey" else images

    def _lighter(self, shown: Tensor) -> Tensor:
        return shown + _GREY if self.background == "grey" else shown

    def _whole(self, height: int, width: int) -> int:
        return max(height, width) if self.side == "longer" else min(height, width)

    def _axis(self, size: int, step: float) -> Axis:
        return Axis(size, self.canvas / 2 - step * (size - 1) / 2, step, tiles=False)
