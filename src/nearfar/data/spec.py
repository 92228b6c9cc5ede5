"""DataSpec: which images, how they are split, at which scales they are shown."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from nearfar.data.protocol import ScaleProtocol
from nearfar.errors import InputError

__all__ = ["DataSpec"]

# Sources that first had these numbers as their default; runs recorded then must stay what they were.
_COUNTED = {"digits": (900, 300), "mnist": (900, 300), "fashion_mnist": (900, 300)}
_PAD = 4


@dataclass(frozen=True)
class DataSpec:
    """Which images, how they are split, and at which scales they are shown.

    Args:
        source: name of the data set (``nearfar.data.list_sources()``).
        root: folder that holds it; not needed for ``digits``.
        protocol: canvas and scales.
        train: number of training images; 0 takes all that validation leaves, with ``split: seed``
            but for a fifth of all images, which is kept for testing. Default: 900 for ``digits``,
            ``mnist`` and ``fashion_mnist``, 0 for others.
        validation: number of validation images, on which the best epoch is chosen; 0 takes a tenth.
            Default: 300 for ``digits``, ``mnist`` and ``fashion_mnist``, 0 for others.
        test: number of test images; 0 takes all that are left.
        split_seed: which images go where; every split holds all classes in equal proportion.
        split: ``seed`` draws all three splits from all images; ``official`` takes test images from
            the source's own test part (of Tiny ImageNet and folders without ``test``: from ``val``),
            training and validation images from the rest.
        augment: ``crop_flip``: each epoch shows each training image shifted by up to ``pad`` pixels
            along each axis, zeros filling the gap, and mirrored left to right half of the times
            (K. He et al. 2016, section 4.2, on CIFAR).
        pad: in pixels of the canvas; default 4; only with ``crop_flip``.
        normalize: ``standard`` gives the net images of mean 0 and standard deviation 1 in every
            channel, over the training images as they are shown (without augmentation). The figures
            stand in the checkpoint's record, and the checkpoint's net applies them itself.
        size: with ``folder``, and only there: side in pixels at which its images are stored; default
            the largest at which the protocol shows one.

    Raises:
        InputError: a negative number, an unknown word, or an argument without effect.
    """

    source: str = "digits"
    root: Path | None = None
    protocol: ScaleProtocol = field(default_factory=ScaleProtocol)
    train: int | None = None
    validation: int | None = None
    test: int = 0
    split_seed: int = 0
    split: Literal["seed", "official"] = "seed"
    augment: Literal["none", "crop_flip"] = "none"
    pad: int | None = None
    normalize: Literal["none", "standard"] = "none"
    size: int | None = None

    def __post_init__(self) -> None:
        if (self.train or 0) < 0 or (self.validation or 0) < 0 or self.test < 0:
            raise InputError(
                f"data needs train, validation and test of at least 0, got train={self.train}, "
                f"validation={self.validation}, test={self.test}"
            )
        if not 0 <= self.split_seed < 2**32:
            raise InputError(
                f"split_seed must be from 0 to {2**32 - 1}, got split_seed={self.split_seed}"
            )
        for name, words in (
            ("split", ("seed", "official")),
            ("augment", ("none", "crop_flip")),
            ("normalize", ("none", "standard")),
        ):
            if getattr(self, name) not in words:
                raise InputError(f"{name} must be one of {words}, got {getattr(self, name)!r}")
        if self.pad is not None and (self.augment != "crop_flip" or self.pad < 1):
            raise InputError(
                f"pad is how far augment='crop_flip' shifts, at least 1 pixel, got pad={self.pad} with "
                f"augment={self.augment!r}; leave one out or give both"
            )
        if self.size is not None and self.size < 1:
            raise InputError(f"size must be at least 1 pixel, got {self.size}")

    def explicit(self) -> DataSpec:
        """The same spec with the defaults that depend on other fields written out."""
        train, validation = _COUNTED.get(self.source, (0, 0))
        pad, size = self.pad, self.size
        if self.augment == "crop_flip" and pad is None:
            pad = _PAD
        if self.source == "folder" and size is None:
            largest = max(*self.protocol.train_scales, *self.protocol.test_scales)
            size = math.ceil(self.protocol.content * largest)
        return dataclasses.replace(
            self,
            train=train if self.train is None else self.train,
            validation=validation if self.validation is None else self.validation,
            pad=pad,
            size=size,
        )
