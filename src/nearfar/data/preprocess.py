"""Preprocess: from decoded pixels to a network's canvas, at any scale. The only way in for images.

Training, audits, conversions, predictions and exported files call :meth:`Preprocess.render`, so the same file
gives the same pixels everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from nearfar.data.canvas import FILTERS, AxisMap, Filter, read_canvas, read_canvases
from nearfar.errors import InputError
from nearfar.records import short_repr
from nearfar.scale_sets import as_scales

__all__ = ["Background", "Colour", "Images", "Preprocess", "Side", "in_channels"]

Colour = tuple[int, int, int]
Background = Literal["black", "grey", "edge"] | Colour
Side = Literal["longer", "shorter", "both"]

Images = Tensor | Sequence[Tensor]
"""Decoded images: ``[N, C, h, w]`` of one size, or a sequence of ``[C, h, w]`` of any sizes; uint8 from 0 to
255, or floating point from 0 to 1."""

_Render = Callable[[Tensor, Tensor], Tensor]

_GREY = 0.5
#: Side of a canvas or content in pixels: a batch of such images is more than a machine holds.
_LONGEST = 16_384
#: Where resizing all of an image would take more pixels than this, only what the canvas sees is resized.
_RESIZED_LIMIT = 100_000_000


@dataclass(frozen=True)
class Preprocess:
    """How a network wants its images: a canvas, and how an image lies on it at scale 1.

    At scale 1 the image is resized by Pillow so that its longer side (or its shorter one, or both: ``side``)
    measures ``content`` pixels, and its middle is cut out or laid on the background; bit for bit what
    torchvision's and timm's evaluation transforms do. At scale ``s`` the image is ``s`` times as large about
    the canvas's centre, read from its own pixels in one resampling, to the fraction of a pixel. So the pixels
    at one scale depend on no other scale, nor on how many images are rendered together.

    Args:
        canvas: side of the square canvas in pixels, or its height and width.
        content: side of the resized image at scale 1 in pixels, or height and width.
        side: which side of an image the content is: ``longer`` shows all of it, ``shorter`` fills the content
            and cuts off the rest (canvas 224, content 256: ImageNet's centre crop), ``both`` stretches the
            image to the content ("squash").
        interpolation: a filter of Pillow's: ``nearest``, ``box``, ``bilinear``, ``hamming``, ``bicubic`` or
            ``lanczos``, antialiased.
        background: what the image does not cover: ``black``, ``grey``, ``edge`` (the image's outermost pixels
            repeated), or a colour as red, green, blue from 0 to 255.

    Raises:
        InputError: a size below 1 or an unknown word.

    Source: torchvision ``ImageClassification`` and timm ``transforms_imagenet_eval`` for scale 1.
    """

    canvas: int | tuple[int, int] = 28
    content: int | tuple[int, int] = 12
    side: Side = "longer"
    interpolation: Filter = "bicubic"
    background: Background = "black"

    def __post_init__(self) -> None:
        for field in ("canvas", "content"):
            object.__setattr__(self, field, _as_size(field, getattr(self, field)))
        if self.interpolation not in FILTERS:
            raise InputError(
                f"interpolation must be one of {', '.join(FILTERS)}, got {self.interpolation!r}"
            )
        if self.side not in get_args(Side):
            raise InputError(f"side must be one of {', '.join(get_args(Side))}, got {self.side!r}")
        if isinstance(self.background, str):
            if self.background not in ("black", "grey", "edge"):
                raise InputError(
                    f"background must be one of black, grey, edge, or a colour as three numbers from 0 to "
                    f"255, got {self.background!r}"
                )
        else:
            colour = tuple(self.background)
            if len(colour) != 3 or not all(isinstance(v, int) and 0 <= v <= 255 for v in colour):
                raise InputError(
                    f"a background colour is red, green and blue from 0 to 255, got {self.background}"
                )
            object.__setattr__(self, "background", colour)

    @property
    def canvas_size(self) -> tuple[int, int]:
        """Height and width of the canvas."""
        return (self.canvas, self.canvas) if isinstance(self.canvas, int) else self.canvas

    @property
    def content_size(self) -> tuple[int, int]:
        """Height and width of the content at scale 1."""
        return (self.content, self.content) if isinstance(self.content, int) else self.content

    @property
    def level(self) -> float | None:
        """The background's value in every channel, from 0 to 1; ``None`` where there is no such value."""
        words: dict[Background, float] = {"black": 0.0, "grey": _GREY}
        return words.get(self.background)

    def resized_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width to which an image is resized at scale 1."""
        content = self.content_size
        if self.side == "both":
            return content
        if self.side == "shorter" and content[0] == content[1]:
            # torchvision's rule: the longer side is rounded down.
            shorter, longer = sorted((height, width))
            long = int(content[0] * longer / shorter)
            return (content[0], long) if height <= width else (long, content[0])
        # timm's ResizeKeepRatio.
        ratios = (height / content[0], width / content[1])
        ratio = max(ratios) if self.side == "longer" else min(ratios)
        return max(1, round(height / ratio)), max(1, round(width / ratio))

    def enlarges(self, height: int, width: int, scale: float) -> bool:
        """Whether an image is shown with more pixels than it has."""
        resized = self.resized_size(height, width)
        return any(
            r * scale > n * (1 + 1e-6) for r, n in zip(resized, (height, width), strict=True)
        )

    def check_scale(self, *scales: float) -> None:
        """Refuses scales at which nothing, or no more than a sliver of an image, would be on the canvas.

        Raises:
            InputError: the content would cover less than 1 pixel or more than 64 canvases.
        """
        for scale in as_scales(scales):
            low, high = min(self.content_size) * scale, max(self.content_size) * scale
            if not (low >= 1 and high <= 64 * max(self.canvas_size)):
                raise InputError(
                    f"at scale {scale:g} the content of {self.content} pixels would cover "
                    f"{high if high > 1 else low:g}; it must cover at least 1 pixel and at most 64 canvases "
                    f"of {self.canvas}"
                )

    def render(
        self, images: Images, scale: float, *, channels: int | None = None, margin: int = 0
    ) -> Tensor:
        """Images on the canvas at one scale.

        Args:
            images: decoded, of any sizes.
            scale: any positive number.
            channels: 1 or 3: colours become grey as Pillow's mode L has them (0.299 R + 0.587 G + 0.114 B,
                rounded), grey becomes three equal channels. Default: as they are.
            margin: by how many pixels the canvas is larger on each side.

        Returns:
            ``[N, channels, height, width]``, floating point, from 0 to 1.

        Raises:
            InputError: a scale that shows nothing, or channels that cannot be made.
        """
        self.check_scale(scale)
        if scale == 1:
            return self._per_size(
                images, lambda same, _: self._at_one(same, margin), channels, margin
            )
        factors = torch.tensor([scale], dtype=torch.float64)
        return self._per_size(
            images, lambda same, _: self._zoomed(same, factors, margin), channels, margin
        )

    def render_each(
        self, images: Images, scales: Tensor, *, channels: int | None = None, margin: int = 0
    ) -> Tensor:
        """Every image at a scale of its own: what :meth:`render` gives for each.

        Args:
            images, channels, margin: as in :meth:`render`.
            scales: ``[N]``, positive.

        Raises:
            InputError: not one scale an image, or one that :meth:`render` would refuse.
        """
        scales = scales.double()
        if scales.shape != (len(images),):
            raise InputError(
                f"render_each needs one scale an image, got scales of shape {tuple(scales.shape)} for "
                f"{len(images)} images"
            )
        if len(scales):
            self.check_scale(float(scales.min()), float(scales.max()))

        def zoom(same: Tensor, at: Tensor) -> Tensor:
            factors = scales[at]
            canvases = self._zoomed(same, factors, margin)
            plain = (factors == 1).nonzero().flatten()
            if len(plain):
                canvases[plain] = self._at_one(same[plain], margin)
            return canvases

        return self._per_size(images, zoom, channels, margin)

    def _per_size(
        self, images: Images, render: _Render, channels: int | None, margin: int
    ) -> Tensor:
        """Applies ``render`` to the images of each size together."""
        if isinstance(images, Tensor):
            return render(in_channels(images, channels), torch.arange(len(images)))
        positions: dict[tuple[int, ...], list[int]] = {}
        for i, image in enumerate(images):
            positions.setdefault(tuple(image.shape), []).append(i)
        height, width = (n + 2 * margin for n in self.canvas_size)
        rendered: Tensor | None = None
        for at in positions.values():
            same = in_channels(torch.stack([images[i] for i in at]), channels)
            canvases = render(same, torch.tensor(at))
            if len(positions) == 1:
                return canvases
            if rendered is None:
                rendered = canvases.new_zeros(len(images), canvases.shape[1], height, width)
            rendered[torch.tensor(at)] = canvases
        return torch.zeros(0, channels or 3, height, width) if rendered is None else rendered

    def layout(self, height: int, width: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """Height and width of an image resized at scale 1, and where its first pixel lies on the canvas.

        Negative: so many rows or columns are cut off.
        """
        resized = self.resized_size(height, width)
        offsets = [
            (c - r) // 2 if r < c else -round((r - c) / 2)
            for r, c in zip(resized, self.canvas_size, strict=True)
        ]
        return resized, (offsets[0], offsets[1])

    def _at_one(self, images: Tensor, margin: int) -> Tensor:
        """Images of one size at scale 1: by Pillow where they are bytes."""
        height, width = images.shape[-2:]
        resized, (top, left) = self.layout(height, width)
        if (height, width) != resized:
            too_many = resized[0] * resized[1] > _RESIZED_LIMIT
            if images.dtype != torch.uint8 or too_many:
                return self._zoomed(images, torch.ones(1, dtype=torch.float64), margin)
            filter_code = Image.Resampling[self.interpolation.upper()]
            images = torch.stack([_resized(image, resized, filter_code) for image in images])
        top, left = top + margin, left + margin
        canvas = [n + 2 * margin for n in self.canvas_size]
        ends = (canvas[0] - top - resized[0], canvas[1] - left - resized[1])
        images = _floating(images).clamp(0, 1)
        images = images[
            ...,
            max(0, -top) : resized[0] + min(0, ends[0]),
            max(0, -left) : resized[1] + min(0, ends[1]),
        ]
        padding = [max(0, left), max(0, top), max(0, ends[1]), max(0, ends[0])]
        if not any(padding):
            return images
        if self.background == "edge":
            edges = (padding[0], padding[2], padding[1], padding[3])
            return torch.nn.functional.pad(images, edges, mode="replicate")
        around = self._background(images)
        canvases = around.expand(len(images), -1, *canvas).clone()
        high, wide = images.shape[-2:]
        canvases[..., padding[1] : padding[1] + high, padding[0] : padding[0] + wide] = images
        return canvases

    def _zoomed(self, images: Tensor, factors: Tensor, margin: int) -> Tensor:
        """Images of one size larger by their factors (one for all, or one each) about the canvas's centre."""
        sizes = (int(images.shape[-2]), int(images.shape[-1]))
        resized, offsets = self.layout(*sizes)
        axes = [
            AxisMap(
                size,
                canvas + 2 * margin,
                canvas / 2 + margin + factors * (offset - canvas / 2),
                factors * length / size,
            )
            for size, canvas, length, offset in zip(
                sizes, self.canvas_size, resized, offsets, strict=True
            )
        ]
        read = read_canvas if len(factors) == 1 else read_canvases
        images = _floating(images)
        canvases = read(images, axes[0], axes[1], self.interpolation)
        rows, columns = (axis.coverage().to(canvases.dtype) for axis in axes)
        if self.background != "edge" and not bool((rows == 1).all() and (columns == 1).all()):
            covered = (rows[:, :, None] * columns[:, None, :])[:, None]
            if self.level == 0:
                canvases *= covered
            else:
                around = self._background(images)
                canvases = around + covered * (canvases - around)
        return canvases.clamp_(0, 1)

    def _background(self, images: Tensor) -> Tensor:
        """The background's colour, ``[C or 1, 1, 1]``."""
        if self.level is not None:
            return images.new_full((images.shape[1], 1, 1), self.level)
        colour = torch.tensor(self.background, dtype=torch.uint8).view(1, 3, 1, 1)
        return _floating(in_channels(colour, images.shape[1]))[0].to(images.dtype)


def in_channels(images: Tensor, channels: int | None) -> Tensor:
    """Images with 1 or 3 channels, ``[N, C, h, w]``.

    Args:
        images: of 1 or 3 channels.
        channels: as many are wanted; ``None``: as they are. Grey is 0.299 R + 0.587 G + 0.114 B; of bytes
            exactly as Pillow converts to mode L, so that three equal channels keep their values.

    Raises:
        InputError: other numbers of channels.
    """
    count = images.shape[1]
    if channels is None or channels == count:
        return images
    if count == 1:
        return images.expand(-1, channels, -1, -1)
    if (count, channels) != (3, 1):
        raise InputError(
            f"images of {count} channels cannot be shown to a network of {channels}: only 1 (grey) and 3 "
            f"(RGB) become each other"
        )
    if images.dtype == torch.uint8:
        luma = torch.tensor((19595, 38470, 7471), dtype=torch.int32).view(1, 3, 1, 1)
        grey = (images.int() * luma).sum(1, keepdim=True) + 2**15 >> 16
        return grey.to(torch.uint8)
    weights = images.new_tensor((0.299, 0.587, 0.114)).view(1, 3, 1, 1)
    return (images * weights).sum(1, keepdim=True)


def _as_size(name: str, size: int | Sequence[int]) -> int | tuple[int, int]:
    sides = tuple(size) if isinstance(size, Sequence) else (size,)
    if len(sides) not in (1, 2) or not all(
        isinstance(n, int) and 1 <= n <= _LONGEST for n in sides
    ):
        raise InputError(
            f"{name} must be a whole number from 1 to {_LONGEST} pixels, or two (height, width), got "
            f"{name}={short_repr(size)}"
        )
    return sides[0] if len(set(sides)) == 1 else (sides[0], sides[1])


def _floating(images: Tensor) -> Tensor:
    return images.float().div_(255) if images.dtype == torch.uint8 else images


def _resized(image: Tensor, size: tuple[int, int], resampling: Image.Resampling) -> Tensor:
    """One image of bytes, ``[C, h, w]``, resized by Pillow."""
    if len(image) not in (1, 3):
        return torch.cat([_resized(channel[None], size, resampling) for channel in image])
    pixels = image[0] if len(image) == 1 else image.permute(1, 2, 0)
    resized = Image.fromarray(pixels.numpy()).resize((size[1], size[0]), resampling)
    return torch.from_numpy(np.atleast_3d(np.array(resized)).transpose(2, 0, 1))
