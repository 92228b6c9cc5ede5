"""What can be set about a wrapper besides its budget and its images."""

from __future__ import annotations

from dataclasses import dataclass

from nearfar.conversion.ensemble import Window
from nearfar.errors import InputError
from nearfar.scale_sets import as_scales
from nearfar.wrapping import LEVELS

__all__ = ["SIZES", "WrapSpec"]

#: The sizes at which things are to be known: from half to twice, all counting alike.
SIZES = (0.5, 0.6, 0.75, 1.0, 1.25, 1.5, 2.0)


@dataclass(frozen=True)
class WrapSpec:
    """How a wrapper's levels are chosen.

    Args:
        sizes: at which sizes the things on the images are to be known, as factors; all count alike. 1 alone
            chooses for the images as they are.
        levels: at which scales the network may meet an image; 1 is added.
        most: how many of these vote at most.
        cascade: whether it may look again only where it is unsure.
        window: how much of an image a level shows: ``image``, ``all`` or ``fixed``, as in
            :class:`nearfar.conversion.PyramidEnsemble`. Default: ``image``, or ``fixed`` where the network
            takes images of one size.
        choose_on: on how many images levels are chosen, at most half of all.
        check: on how many others the result is compared with the network, at most.
        max_loss: how much accuracy may be lost at the images' own size, as a fraction.

    Raises:
        InputError: sizes or levels that are not positive and finite, or numbers out of range.
    """

    sizes: tuple[float, ...] = SIZES
    levels: tuple[float, ...] = LEVELS
    most: int = 4
    cascade: bool = True
    window: Window | None = None
    choose_on: int = 400
    check: int = 2000
    max_loss: float = 0.01

    def __post_init__(self) -> None:
        for name in ("sizes", "levels"):
            values = as_scales(getattr(self, name))
            if len(set(values)) < len(values):
                raise InputError(f"{name} has a number twice: {values}")
            object.__setattr__(self, name, tuple(sorted(values)))
        if self.choose_on < 10 or self.check < 1 or self.most < 1:
            raise InputError(
                f"levels are chosen on at least 10 images, at most at least 1 of them votes, and at least 1 "
                f"image is compared, got choose_on={self.choose_on}, most={self.most} and check={self.check}"
            )
        if not 0 <= self.max_loss <= 1:
            raise InputError(f"max_loss is a fraction from 0 to 1, got {self.max_loss}")
