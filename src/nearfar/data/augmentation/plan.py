"""Augmentation: all that is changed about training images, epoch by epoch."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from nearfar.data.augmentation.colour import Colours, draw_colours, shift_colours
from nearfar.data.augmentation.crops import crop, crop_flip, draw_crop_flip
from nearfar.data.augmentation.sizes import draw_exchanges, draw_scales
from nearfar.data.augmentation.warping import draw_warps, warp

__all__ = ["Augmentation", "Draws"]


@dataclass(frozen=True)
class Augmentation:
    """What to do to training images; by default nothing.

    Args:
        pad: the largest shift of crops and flips, in pixels; 0: none.
        views: crops come out of a picture rendered larger by ``pad`` on all sides, not out of zeros.
        scale: bounds of the factor by which each image's scale is multiplied.
        exchange: bounds of the same factor where it gives each image the size of another one
            (:func:`draw_exchanges`), in place of ``scale``.
        sides: ``[N]``, how large the thing on each image is; needed with ``exchange``.
        warp: the largest angle and slant, in degrees, and stretch (:func:`draw_warps`); none by default.
        colour: standard deviation of the amounts by which colours are moved; 0: none.
        colours: along what they are moved; needed with ``colour``.
    """

    pad: int = 0
    views: bool = False
    scale: tuple[float, float] | None = None
    exchange: tuple[float, float] | None = None
    sides: Tensor | None = None
    warp: tuple[float, float, float] | None = None
    colour: float = 0.0
    colours: Colours | None = None

    @property
    def margin(self) -> int:
        """By how many pixels on each side images are rendered larger than they are shown."""
        return self.pad if self.views else 0

    def draw(self, count: int, seed: int, epoch: int) -> Draws:
        """One epoch's random numbers for ``count`` images."""
        # An even number of places: 32 along each axis for 256 less 224 pixels, 2,048 views in all.
        places = 2 * self.pad if self.views else None
        return Draws(
            self,
            self._factors(count, seed, epoch),
            draw_warps(count, *self.warp, seed, epoch) if self.warp else None,
            draw_crop_flip(count, self.pad, seed, epoch, places) if self.pad else None,
            draw_colours(count, self.colour, seed, epoch) if self.colour else None,
        )

    @property
    def rescales(self) -> bool:
        """Whether images are shown at other scales than theirs."""
        return self.scale is not None or self.exchange is not None

    def _factors(self, count: int, seed: int, epoch: int) -> Tensor | None:
        if self.exchange is not None:
            assert self.sides is not None, "sizes are measured before they are exchanged"
            return draw_exchanges(self.sides, *self.exchange, seed, epoch)
        return draw_scales(count, *self.scale, seed, epoch) if self.scale else None


@dataclass(frozen=True)
class Draws:
    """One epoch's random numbers of all images, as :class:`Augmentation` draws them.

    Attributes:
        augmentation: what drew them.
        factors: ``[N]``, what to multiply each image's scale with.
        warps: ``[N, 2, 2]``, how images are turned, slanted and stretched.
        moves: where crops begin, ``[N, 2]``, and whether they are mirrored, ``[N]``.
        amounts: ``[N, 3]``, by how much colours are moved.
    """

    augmentation: Augmentation
    factors: Tensor | None = None
    warps: Tensor | None = None
    moves: tuple[Tensor, Tensor] | None = None
    amounts: Tensor | None = None

    def apply(self, images: Tensor, at: Tensor) -> Tensor:
        """Warps, crops, flips and colours of images that are rendered at their scales; on any device.

        Args:
            images: ``[B, C, H, W]``, with the margin.
            at: ``[B]``, which images they are.

        Returns:
            ``[B, C, H - 2 · margin, W - 2 · margin]``.
        """
        plan = self.augmentation
        if self.warps is not None:
            images = warp(images, self.warps[at])
        if self.moves is not None:
            starts, flips = (part[at] for part in self.moves)
            if plan.views:
                height, width = (int(n) - 2 * plan.pad for n in images.shape[-2:])
                images = crop(images, starts, flips, (height, width))
            else:
                images = crop_flip(images, starts, flips, plan.pad)
        if self.amounts is not None:
            assert plan.colours is not None, "colours are measured before they are moved"
            images = shift_colours(images, self.amounts[at], plan.colours)
        return images
