"""DataSpec: which images, how they are split, at which scales they are shown."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from nearfar.data.protocol import ScaleProtocol
from nearfar.data.sources import has_test_part, is_own
from nearfar.errors import InputError
from nearfar.scale_sets import as_scales

__all__ = ["DataSpec"]

# Sources that first had these numbers as their default; runs recorded then must stay what they were.
_COUNTED = {"digits": (900, 300), "mnist": (900, 300), "fashion_mnist": (900, 300)}
_MAX_SKIPPED = 0.01
_PAD = {"crop_flip": 4, "views": 16}


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
            training and validation images from the rest. Default: ``official`` for a ``folder``,
            ``stream_…`` and ``hfds/…`` with a test part, which is never trained on unasked; ``seed`` for
            others.
        augment: ``crop_flip``: each epoch shows each training image shifted by up to ``pad`` pixels
            along each axis, zeros filling the gap, and mirrored left to right half of the times
            (K. He et al. 2016, section 4.2, on CIFAR). ``views``: as much, but the image is rendered
            larger by ``pad`` pixels on all sides and the crop is taken out of that (A. Krizhevsky et al.
            2012, section 4.1: 2,048 views with canvas 224, content 256, ``side: shorter``).
        pad: in pixels of the canvas; default 4, of ``views`` 16; only with these two.
        random_scale: bounds of a factor, such as ``[0.5, 2]``: each epoch shows each training image at
            its scale times a factor of its own, drawn log-uniformly. Validation images get such factors too,
            drawn once, so that the best epoch is the best one at the sizes of training.
        exchange_sizes: bounds of the same factor, such as ``[0.35, 2]``: each epoch gives each training image
            the size of another one, drawn by lot, so that the sizes together stay what they are
            (:func:`nearfar.data.augmentation.draw_exchanges`). A thing's size is the longer side of the
            box of what differs from the background by more than a tenth, at the image's scale, on the
            canvas, which must hold it whole. Not with ``random_scale``, background ``edge`` or streams.
        rotate: each epoch turns each training image by an angle of its own, of up to so many degrees (at
            most 180) either way, about the canvas' middle: once it is at its scale, before crops. Outside
            is the edge repeated. Like the next two it leaves areas what they are
            (:func:`nearfar.data.augmentation.draw_warps`). 0: none.
        shear: the same for upright lines, which slant by up to so many degrees (at most 60). 0: none.
        stretch: the same for widths: up to so many times (at most 4) as wide and so many times less high,
            or the other way round. 1: none.
        colour: standard deviation of the amounts by which each epoch moves each training image's
            colours along their principal components over the training images (of a stream: 10,000 of
            them) (A. Krizhevsky et al. 2012: 0.1); the components stand in the checkpoint's record. 0: none.
        normalize: ``standard`` gives the net images of mean 0 and standard deviation 1 in every
            channel, over the training images as they are shown (without augmentation; of a stream,
            over 10,000 of them). The figures
            stand in the checkpoint's record, and the checkpoint's net applies them itself.
        channels: how images are shown: 3, or 1 for grey (0.299 R + 0.587 G + 0.114 B). Default: as the source
            holds them; files hold 3.
        max_skipped: of one's own images (``folder``, ``unlabelled``, ``stream_…``, ``hfds/…``): which share
            may be left out because they cannot be read; ``skipped.csv`` in the run's folder lists them.
            Default 0.01.
        workers: processes that read and render training and validation images; 0 does it in a thread.
            The images are the same. Streams gain most.

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
    split: Literal["seed", "official"] | None = None
    augment: Literal["none", "crop_flip", "views"] = "none"
    pad: int | None = None
    random_scale: tuple[float, float] | None = None
    exchange_sizes: tuple[float, float] | None = None
    rotate: float = 0.0
    shear: float = 0.0
    stretch: float = 1.0
    colour: float = 0.0
    normalize: Literal["none", "standard"] = "none"
    channels: Literal[1, 3] | None = None
    max_skipped: float | None = None
    workers: int = 0

    def __post_init__(self) -> None:
        if self.root is not None:
            object.__setattr__(self, "root", Path(self.root))
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
            ("split", (None, "seed", "official")),
            ("augment", ("none", "crop_flip", "views")),
            ("normalize", ("none", "standard")),
        ):
            if getattr(self, name) not in words:
                choices = tuple(word for word in words if word is not None)
                raise InputError(f"{name} must be one of {choices}, got {getattr(self, name)!r}")
        if self.pad is not None and (self.augment == "none" or self.pad < 1):
            raise InputError(
                f"pad is how far augment='crop_flip' and 'views' shift, at least 1 pixel, got "
                f"pad={self.pad} with augment={self.augment!r}; leave one out or give both"
            )
        self._check_scales()
        self._check_warp()
        if not (math.isfinite(self.colour) and self.colour >= 0):
            raise InputError(
                f"colour is a standard deviation, such as 0.1, or 0 for none, got colour={self.colour}"
            )
        if self.max_skipped is not None and not 0 <= self.max_skipped < 1:
            raise InputError(
                f"max_skipped must be a share of the images, from 0 to below 1, got {self.max_skipped}"
            )
        if self.workers < 0:
            raise InputError(f"workers must be at least 0, got {self.workers}")
        if self.channels not in (None, 1, 3):
            raise InputError(f"channels must be 1 (grey) or 3 (RGB), got {self.channels}")

    @property
    def warp(self) -> tuple[float, float, float] | None:
        """``rotate``, ``shear`` and ``stretch``; or nothing."""
        warp = (self.rotate, self.shear, self.stretch)
        return None if warp == (0, 0, 1) else warp

    def _check_scales(self) -> None:
        for name in ("random_scale", "exchange_sizes"):
            if (bounds := getattr(self, name)) is not None:
                object.__setattr__(self, name, _bounds(name, bounds))
        if self.exchange_sizes is None:
            return
        if self.random_scale is not None:
            raise InputError(
                f"random_scale and exchange_sizes both change images' sizes, got {list(self.random_scale)} "
                f"and {list(self.exchange_sizes)}; leave one out"
            )
        if self.protocol.level is None:
            raise InputError(
                f"exchange_sizes measures things before a plain background, and protocol.background is "
                f"{self.protocol.background!r}; take 'black' or 'grey', or random_scale"
            )
        largest = max(self.protocol.content_size) * max(
            self.protocol.train_band or self.protocol.train_scales
        )
        if largest > min(self.protocol.canvas_size) or self.protocol.side != "longer":
            raise InputError(
                f"exchange_sizes measures things on the canvas, which must hold all of every training "
                f"image; the protocol shows up to {largest:g} pixels of the {self.protocol.side} side on "
                f"{self.protocol.canvas}; take a larger canvas, or random_scale"
            )

    def _check_warp(self) -> None:
        warp = (self.rotate, self.shear, self.stretch)
        numbers = all(isinstance(n, int | float) and not isinstance(n, bool) for n in warp)
        # Beyond these a thing is hardly the same thing; further stretching would alias.
        if not (numbers and 0 <= warp[0] <= 180 and 0 <= warp[1] <= 60 and 1 <= warp[2] <= 4):
            raise InputError(
                "rotate is from 0 to 180 degrees, shear from 0 to 60 degrees, stretch a factor from 1 to 4, "
                f"got rotate={self.rotate!r}, shear={self.shear!r}, stretch={self.stretch!r}"
            )

    def explicit(self) -> DataSpec:
        """The same spec with the defaults that depend on other fields written out.

        The split of one's own images depends on the files too: ``split`` stays ``None`` where they are
        not there, or cannot be used, which loading them says.
        """
        train, validation = _COUNTED.get(self.source, (0, 0))
        pad = self.pad
        if pad is None:
            pad = _PAD.get(self.augment)
        max_skipped = self.max_skipped
        if is_own(self.source) and max_skipped is None:
            max_skipped = _MAX_SKIPPED
        return dataclasses.replace(
            self,
            train=train if self.train is None else self.train,
            validation=validation if self.validation is None else self.validation,
            split=self._split(),
            pad=pad,
            max_skipped=max_skipped,
        )

    def _split(self) -> Literal["seed", "official"] | None:
        if self.split is not None or not is_own(self.source):
            return self.split or "seed"
        try:
            return "official" if has_test_part(self.source, self.root) else "seed"
        except InputError:
            return None


def _bounds(name: str, bounds: Sequence[float]) -> tuple[float, float]:
    values = as_scales(bounds)
    if len(values) != 2 or not values[0] < values[1]:
        raise InputError(
            f"{name} must be a smallest and a largest factor, such as [0.5, 2], got {list(bounds)}"
        )
    return values[0], values[1]
