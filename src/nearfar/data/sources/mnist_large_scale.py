"""MNIST Large Scale: digits from half to eight times their size, made by the published rules."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor
from torchvision.datasets import MNIST

from nearfar.data.cache import cached_tensors, checksum
from nearfar.data.image_dataset import LabelledImages
from nearfar.data.sources.mnist import idx_source
from nearfar.data.sources.registry import register_source
from nearfar.errors import InputError
from nearfar.grid import Axis
from nearfar.resampling import reading_matrix

__all__ = ["CANVAS", "SCALES", "mnist_large_scale_source", "smoothed_digits"]

#: Seventeen scales, four an octave.
SCALES = tuple(2 ** (i / 4) for i in range(-4, 13))
CANVAS = 112
#: Where validation images begin among MNIST's 60,000 training images.
_VALIDATION = 50_000
_TRAINED = ("1", "2", "4")
# Part of the cache file's name: a change of what follows must not meet old files.
_VERSION = 1
_BATCH = 2_000


@register_source("mnist_large_scale/")
def mnist_large_scale_source(root: Path | None, name: str) -> LabelledImages:
    """MNIST Large Scale: trained at one scale, tested at one.

    ``mnist_large_scale/1-4`` has training and validation images at scale 1 and test images at scale 4. The
    first is 1, 2 or 4; the second one of the 17 scales from 0.5 to 8, four an octave, with up to three
    decimals (0.5, 0.595, 0.707, 0.841, 1 …).

    Args:
        root: the folder that holds MNIST; default ``$NEARFAR_DATA``, else ``./data``.
        name: the scales of training and test, with a hyphen between.

    Returns:
        70,000 images of 112×112: 50,000 to train, 10,000 to validate, 10,000 to test.

    Raises:
        InputError: other scales, or MNIST is not there or damaged.

    Limits:
        The published set is given on request only; this one is made by its rules. The publication splits off
        other validation images, and its bicubic reading was MATLAB's.

    Source: Y. Jansson and T. Lindeberg 2022, "Scale-invariant scale-channel networks", appendix on the data
    set; the rules as :func:`smoothed_digits` has them.
    """
    trained, _, tested = name.partition("-")
    names = {f"{round(s, 3):g}": s for s in SCALES}
    if trained not in _TRAINED or tested not in names:
        raise InputError(
            f"mnist_large_scale/ takes the scale of training (1, 2 or 4), a hyphen, and one of "
            f"{', '.join(names)} to test at, such as mnist_large_scale/1-4, got {name!r}"
        )
    pool = idx_source(MNIST)(root)
    images = pool.images
    assert isinstance(images, Tensor), "idx files are held in memory"
    assert pool.test_from is not None
    parts = [(images[: pool.test_from], names[trained]), (images[pool.test_from :], names[tested])]
    rendered = [_cached(part[:, 0], scale) for part, scale in parts]
    return LabelledImages(
        torch.cat(rendered),
        pool.labels,
        pool.class_names,
        test_from=pool.test_from,
        validation_from=min(_VALIDATION, pool.test_from),
    )


def _cached(images: Tensor, scale: float) -> Tensor:
    key = checksum({"images": images})[:12]
    side = images.shape[-1] * scale
    begin = (CANVAS - side) / 2
    name = f"mnist_large_scale-{_VERSION}-{key}-{scale:.3f}"
    return cached_tensors(
        name, lambda: {"images": smoothed_digits(images, side, CANVAS, begin, begin)}
    )["images"]


def smoothed_digits(images: Tensor, side: float, canvas: int, top: float, left: float) -> Tensor:
    """Digits resized on a black canvas, smoothed in proportion, and sharpened again.

    Read bicubically; blurred by a Gaussian of 7/8 pixels times the magnification; then, as the eye does not
    care for a digit's grey, ``2/π · arctan(0.02 (v − 128))``, stretched to 0 … 255 and cut to whole numbers.

    Args:
        images: ``[N, h, h]``, uint8.
        side: of the digit's image on the canvas, in pixels.
        canvas: side of the canvas.
        top, left: where the digit's image begins on the canvas; what lies beyond it is cut off.

    Returns:
        ``[N, 1, canvas, canvas]``, uint8.
    """
    size = images.shape[-1]
    step = side / size
    sigma = 7 / 8 * step
    margin = math.ceil(4 * sigma)
    wide = canvas + 2 * margin

    def line(begin: float) -> Tensor:
        source = Axis(size, begin + margin + step / 2, step, False)
        read = reading_matrix(source, Axis.tiling(wide, wide), True, "bicubic", "zeros")
        steps = torch.arange(wide, dtype=torch.float64)
        blur = torch.exp(-(steps[:, None] - steps).square() / (2 * sigma**2))
        blur = blur / torch.exp(-(steps - wide // 2).square() / (2 * sigma**2)).sum()
        return (blur @ read)[margin : margin + canvas].float()

    rows, columns = line(top), line(left)
    parts = []
    for batch in torch.split(images, _BATCH):
        v = rows @ batch.float() @ columns.mT
        v = 2 / math.pi * torch.atan(0.02 * (v - 128))
        low, high = v.amin((1, 2), keepdim=True), v.amax((1, 2), keepdim=True)
        parts.append((255 * (v - low) / (high - low).clamp(min=1e-12)).to(torch.uint8))
    return torch.cat(parts).unsqueeze(1)
