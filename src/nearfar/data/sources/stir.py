"""STIR's digits: one of each class at each of 48 sizes, anywhere; trained on a band of sizes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchvision.datasets import MNIST

from nearfar.data.image_dataset import LabelledImages
from nearfar.data.sources.mnist import idx_source
from nearfar.data.sources.mnist_large_scale import smoothed_digits
from nearfar.data.sources.registry import register_source
from nearfar.errors import InputError

__all__ = ["BANDS", "stir_digits_source"]

#: Smallest and largest side of the digits that are trained on, in pixels.
BANDS: dict[str, tuple[int, int]] = {
    "small": (17, 32),
    "middle": (33, 48),
    "large": (49, 64),
    "all": (17, 64),
}
_SIDES = range(17, 65)
_CANVAS = 64
_SEED = 42
#: How far along in a class's shuffled digits the validation and the test digits begin.
_NEXT_PART = 32


@register_source("stir_digits/")
def stir_digits_source(root: Path | None, band: str) -> LabelledImages:
    """Scaled and translated image recognition (STIR), its digits, trained on a band of sizes.

    ``stir_digits/small`` trains on sides of 17 to 32 pixels, ``middle`` 33 to 48, ``large`` 49 to 64; test
    images have the sizes outside. ``all`` trains and tests on all. For every size and class there is one
    training, one validation and one test image, on a canvas of 64 pixels, anywhere where it fits. Test
    digits are MNIST's test digits.

    Args:
        root: the folder that holds MNIST; default ``$NEARFAR_DATA``, else ``./data``.
        band: ``small``, ``middle``, ``large`` or ``all``.

    Returns:
        160 (all: 480) training images, as many to validate, 320 (480) to test.

    Raises:
        InputError: another band, or MNIST is not there or damaged.

    Limits:
        Made by the rules of the published generator; its places came from another order of draws, and its
        reading was by splines, so these are images like its, not copies. As in its code, a class's digits 33
        to 48 are both training and validation digits, at other sizes.

    Source: T. Altstidl, A. Nguyen, L. Schwinn et al. 2023, "Just a Matter of Scale? Reevaluating Scale
    Equivariance in Convolutional Neural Networks"; data/gen_mnist.py of taltstidl/scale-equivariant-cnn.
    """
    if band not in BANDS:
        raise InputError(
            f"stir_digits/ takes one of {', '.join(BANDS)}, such as stir_digits/small, got {band!r}"
        )
    pool = idx_source(MNIST)(root)
    images = pool.images
    assert isinstance(images, Tensor), "idx files are held in memory"
    low, high = BANDS[band]
    trained = [side for side in _SIDES if low <= side <= high]
    tested = [side for side in _SIDES if side not in trained] or trained
    first_test = pool.test_from or 0
    digits = [images[:first_test, 0], images[:first_test, 0], images[first_test:, 0]]
    labels = [pool.labels[:first_test], pool.labels[:first_test], pool.labels[first_test:]]
    parts = [
        _part(digits[p], labels[p], sides, p, len(pool.class_names))
        for p, sides in enumerate((trained, trained, tested))
    ]
    counts = [len(part_labels) for _, part_labels in parts]
    return LabelledImages(
        torch.cat([part for part, _ in parts]),
        torch.cat([part_labels for _, part_labels in parts]),
        pool.class_names,
        validation_from=counts[0],
        test_from=counts[0] + counts[1],
    )


def _part(
    images: Tensor, labels: Tensor, sides: list[int], part: int, classes: int
) -> tuple[Tensor, Tensor]:
    """A digit of every class at every side; a size's digit and position do not depend on the band."""
    rendered, targets = [], []
    for label in range(classes):
        own = torch.nonzero(labels == label)[:, 0].numpy()
        np.random.default_rng(_SEED).shuffle(own)
        for side in sides:
            index = _SIDES[-1] - side + part * _NEXT_PART
            if index >= len(own):
                raise InputError(
                    f"STIR's digits need {index + 1} digits of each class, class {label} has {len(own)}; "
                    f"name the folder of the whole MNIST as root or in NEARFAR_DATA"
                )
            draw = np.random.default_rng([_SEED, label, side, part])
            top, left = draw.integers(0, _CANVAS - side + 1, 2)
            digit = images[int(own[index])][None]
            rendered.append(smoothed_digits(digit, side, _CANVAS, float(top), float(left)))
            targets.append(label)
    return torch.cat(rendered), torch.tensor(targets)
