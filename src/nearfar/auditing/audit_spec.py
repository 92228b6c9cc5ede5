"""What is set about an audit: what is measured, and on which images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nearfar.data.preprocess import Background
from nearfar.errors import InputError
from nearfar.scale_sets import as_scales

__all__ = ["AuditSpec", "ImageSelection"]


@dataclass(frozen=True)
class AuditSpec:
    """What an audit measures.

    Args:
        scales: of the axis ``content``: at which scales, as factors; default: those of the baseline's
            protocol. 1 is added.
        layers: measure single layers too: invariance score and equivariance error of the convolutions, or of
            the layers whose names match patterns. Of the axis ``content`` only.
        flips: for how many images the smallest flipping change of scale is searched for; 0 for none. Default:
            200, of the axis ``content`` only.
        max_loss: a classifier holds where its accuracy falls by at most this, as a fraction.
        background: black, grey or edge: what content does not cover; default: as the model was trained, or
            black.
        batch_size: images at a time; it does not change the predictions.
        axis: along what size changes: ``content`` zooms what an image shows on a canvas that stays, ``input``
            changes the side of the network's input, ``stored`` the resolution of the image files, ``box``
            groups things by the sizes that they have.
        sides: of the axes ``input`` (sides of the input) and ``stored`` (longer sides of files): at which, in
            pixels. Default: of ``input`` from 4/7 to twice the model's own, which is added; of ``stored``
            in octaves up to the largest image's own, which is added.
        quality: of the axis ``stored``: of the JPEG file as which an image is written where it is reduced,
            from 1 to 95; default: it is not written anew.
        bins: of the axis ``box``: in how many groups of equal counts, at least 2; default: 8.
        crop: of the axis ``box``: show what each box holds, and not the whole image.

    Raises:
        InputError: a number out of range, or a point that is named twice.
    """

    scales: tuple[float, ...] = ()
    layers: bool | tuple[str, ...] = False
    flips: int | None = None
    max_loss: float = 0.05
    background: Background | None = None
    batch_size: int = 128
    axis: str = "content"
    sides: tuple[int, ...] = ()
    quality: int | None = None
    bins: int | None = None
    crop: bool = False

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise InputError(f"batch_size must be at least 1, got {self.batch_size}")
        if self.flips is not None and self.flips < 0:
            raise InputError(f"flips must be at least 0, got {self.flips}")
        if not 0 <= self.max_loss < 1:
            raise InputError(f"max_loss is a fraction, 0.05 for five points, got {self.max_loss}")
        scales = as_scales(self.scales) if self.scales else ()
        if len(set(scales)) < len(scales):
            raise InputError(f"scales names a scale twice: {scales}")
        object.__setattr__(self, "scales", scales)
        sides = tuple(self.sides)
        if any(not isinstance(side, int) or side < 1 for side in sides):
            raise InputError(f"sides are whole numbers of pixels, at least 1, got {sides}")
        if len(set(sides)) < len(sides):
            raise InputError(f"sides names a side twice: {sides}")
        object.__setattr__(self, "sides", tuple(sorted(sides)))
        if self.quality is not None and not 1 <= self.quality <= 95:
            raise InputError(f"quality is that of a JPEG file, from 1 to 95, got {self.quality}")
        if self.bins is not None and self.bins < 2:
            raise InputError(f"bins is how many groups there are, at least 2, got {self.bins}")


@dataclass(frozen=True)
class ImageSelection:
    """Which of a dataset's images are shown.

    Args:
        root: folder that holds the dataset, where its name does not say.
        count: how many test images, all classes in proportion; 0 takes all.
        max_skipped: which share of a folder's or stream's images may be left out because they cannot be
            read, from 0 to below 1; default: as the data say, or 0.01.

    Raises:
        InputError: a negative count.
    """

    root: Path | None = None
    count: int = 0
    max_skipped: float | None = None

    def __post_init__(self) -> None:
        if self.root is not None:
            object.__setattr__(self, "root", Path(self.root))
        if self.count < 0:
            raise InputError(f"images must be at least 0 (0 takes all), got {self.count}")
