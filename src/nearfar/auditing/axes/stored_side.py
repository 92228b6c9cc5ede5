"""The axis ``stored``: the resolution at which an image file was stored, before any preprocessing."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from nearfar.auditing.audit_spec import AuditSpec
from nearfar.auditing.audited_images import AuditedImages
from nearfar.auditing.audited_models import AuditedModel
from nearfar.auditing.axes.axis import AuditAxis, AuditPoints, register_axis
from nearfar.auditing.notes import background_note, covers
from nearfar.auditing.wording import STORED_SIDES
from nearfar.data.preprocess import Images
from nearfar.errors import InputError

__all__ = ["StoredSideAxis", "reduced"]

#: Default sides begin here, or at the smallest of images that are not much larger.
_SMALLEST, _SMALLEST_OF_SMALL = 64, 8
_FEW_PIXELS = 128


@register_axis("stored")
class StoredSideAxis(AuditAxis):
    """Reduces each image to a longer side before a model's own preprocessing, as if its file were so large.

    Images are reduced by Pillow's Lanczos filter to ``round(length · side / longer)`` pixels, at least 1, of
    8 bits; never enlarged: an image that is no larger stays as it is, and so do all at the largest point.

    Args:
        sides: longer sides in pixels; none: octaves from 64 (of images below 128 pixels from 8, with a step
            between). The largest image's own is added.
        quality: of the JPEG file as which an image is written and read again where it is reduced, with
            Pillow's defaults otherwise; ``None``: it is not.
    """

    settings = ("sides", "quality")

    def __init__(self, sides: tuple[int, ...] = (), quality: int | None = None) -> None:
        self.sides, self.quality = sides, quality
        self._longer = torch.zeros(0)

    @classmethod
    def of(cls, spec: AuditSpec) -> StoredSideAxis:
        """The axis at a specification's sides and quality."""
        return cls(spec.sides, spec.quality)

    @property
    def data_has_sizes(self) -> bool:
        """The largest point is the largest image's own side."""
        return True

    def points(
        self, audited_models: Sequence[AuditedModel], images: AuditedImages | None
    ) -> AuditPoints:
        """The sides, and the largest image's own, at which all are as they are.

        Raises:
            InputError: a side that no image has, or images that no JPEG file holds.
        """
        assert images is not None, "points depend on them"
        if self.quality is not None and images.channels not in (1, 3):
            raise InputError(
                f"JPEG files hold 1 or 3 channels, the images of {images.source} have {images.channels}; "
                f"leave quality out"
            )
        self._longer = _longer_sides(images)
        longest = int(self._longer.max())
        sides = self.sides or _default_sides(longest)
        if max(sides) > longest:
            raise InputError(
                f"no image of {images.source} has a longer side of {max(sides)} pixels: the largest has "
                f"{longest}, and images are never enlarged; take sides up to {longest}"
            )
        values = tuple(map(float, sorted({*sides, longest})))
        return AuditPoints(values, float(longest), STORED_SIDES, self._points_notes(values))

    def prepare(self, images: Images, point: float) -> Images:
        """Decoded images at a longer side; those that are no larger as they are."""
        side = int(point)
        if isinstance(images, Tensor):
            if max(images.shape[-2:]) <= side:
                return images
            return torch.stack([reduced(image, side, self.quality) for image in images])
        return [reduced(image, side, self.quality) for image in images]

    def notes(
        self, model: AuditedModel, images: AuditedImages, points: AuditPoints
    ) -> tuple[str, ...]:
        """What a model's own preprocessing does with any file."""
        protocol = model.protocol
        canvas = "×".join(map(str, protocol.canvas_size))
        return (
            f"However large its file, {covers(protocol, str(protocol.content))} about the middle of "
            f"{model.name}'s input of {canvas}; what is left empty is {background_note(protocol)}.",
        )

    def _points_notes(self, values: Sequence[float]) -> tuple[str, ...]:
        """How images are reduced, and how many are smaller than a point."""
        how = (
            "reduced by Pillow's Lanczos filter to a longer side of so many pixels, never enlarged"
        )
        if self.quality is not None:
            how += f", and written and read again as JPEG of quality {self.quality} where they were reduced"
        smaller = [
            f"{count:,} at {value:g} px"
            for value in values[:-1]
            if (count := int((self._longer <= value).sum()))
        ]
        unchanged = (
            f"Of {len(self._longer):,} images so many are no larger, and stay as they are: "
            f"{', '.join(smaller)}; at {values[-1]:g} px all do."
            if smaller
            else f"At {values[-1]:g} px they are as they are."
        )
        return (f"Images are {how}. {unchanged}",)


def reduced(image: Tensor, side: int, quality: int | None = None) -> Tensor:
    """An image at a longer side, never enlarged.

    Args:
        image: ``[C, h, w]``, uint8, or floating point from 0 to 1.
        side: of the longer side, in pixels.
        quality: of a JPEG file as which it is written and read again; ``None``: it is not.

    Returns:
        ``[C, h', w']`` uint8; the image itself where it is no larger.
    """
    height, width = image.shape[-2:]
    longer = max(height, width)
    if longer <= side:
        return image
    size = tuple(max(1, round(n * side / longer)) for n in (width, height))
    if image.dtype != torch.uint8:
        image = (image.clamp(0, 1) * 255).round().byte()
    bands = image.permute(1, 2, 0).numpy() if len(image) == 3 else None
    if bands is not None:
        pictures = [Image.fromarray(np.ascontiguousarray(bands))]
    else:
        pictures = [Image.fromarray(band.numpy()) for band in image]
    small = [picture.resize((size[0], size[1]), Image.Resampling.LANCZOS) for picture in pictures]
    if quality is not None:
        small = [_written(picture, quality) for picture in small]
    if bands is not None:
        return torch.from_numpy(np.array(small[0])).permute(2, 0, 1)
    return torch.stack([torch.from_numpy(np.array(picture)) for picture in small])


def _written(picture: Image.Image, quality: int) -> Image.Image:
    """A picture as a JPEG file gives it back."""
    file = io.BytesIO()
    picture.save(file, format="JPEG", quality=quality)
    return Image.open(file)


def _longer_sides(images: AuditedImages) -> Tensor:
    """``[N]``: longer sides of the images, looked up or looked at."""
    if images.sizes is not None:
        return images.sizes.amax(1)
    sides = [
        max(image.shape[-2:])
        for at in images.batches(torch.arange(len(images)), 64)
        for image in images.read(at)
    ]
    return torch.tensor(sides)


def _default_sides(longest: int) -> tuple[int, ...]:
    """Octaves from 64 up, or from 8 of small images, with a step between."""
    small = longest < _FEW_PIXELS
    side = _SMALLEST_OF_SMALL if small else _SMALLEST
    sides = []
    while side < longest:
        sides.append(side)
        if small and side * 3 // 2 < longest:
            sides.append(side * 3 // 2)
        side *= 2
    return (*sides, longest)
