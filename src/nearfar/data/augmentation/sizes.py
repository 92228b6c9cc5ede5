"""Every image at a size of its own each epoch: drawn, or another image's."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from nearfar.data.augmentation.draws import generator_of
from nearfar.errors import InputError

__all__ = ["box_sides", "draw_exchanges", "draw_scales"]


_DRAWN = 1
_EXCHANGED = 4
#: Values from 0 to 1 that differ by no more are background: resampling rings, JPEG adds noise.
_DIFFERS = 0.1


def draw_scales(count: int, low: float, high: float, seed: int, epoch: int) -> Tensor:
    """One epoch's random factors, log-uniform: as many images in one octave as in another.

    :func:`nearfar.pyramid.rescale_each` and :meth:`nearfar.data.ScaleProtocol.render_each` take them.

    Args:
        count: N, how many images there are.
        low, high: the bounds, above 0.
        seed: the run's.
        epoch: from 0.

    Returns:
        ``[N]``, float64.
    """
    drawn = torch.rand(count, generator=generator_of(seed, epoch, _DRAWN), dtype=torch.float64)
    return torch.exp(math.log(low) + drawn * (math.log(high) - math.log(low)))


def box_sides(batches: Iterable[Tensor], background: float = 0.0) -> Tensor:
    """How large the thing on each image is: the longer side of the upright box that holds it.

    The thing is what differs from the background by more than a tenth in any channel.

    Args:
        batches: of images ``[B, C, H, W]``, values from 0 to 1.
        background: its value in every channel.

    Returns:
        ``[N]``, int64, in pixels, of all batches; 0 where nothing differs.
    """
    sides = []
    for images in batches:
        thing = ((images - background).abs() > _DIFFERS).any(1)
        sides.append(torch.maximum(_extent(thing.any(2)), _extent(thing.any(1))))
    return torch.cat(sides) if sides else torch.zeros(0, dtype=torch.int64)


def _extent(hit: Tensor) -> Tensor:
    """From the first to the last place hit, both included: ``[B, L]``, bool → ``[B]``."""
    length = hit.shape[1]
    first = hit.int().argmax(1)
    last = length - 1 - hit.flip(1).int().argmax(1)
    return torch.where(hit.any(1), last - first + 1, 0)


def draw_exchanges(sides: Tensor, low: float, high: float, seed: int, epoch: int) -> Tensor:
    """One epoch's factors that give each image the size of another one, drawn by lot.

    The sizes change hands: unless the bounds cut factors off, an epoch shows exactly the sizes that there
    are, each as often, but on other things. Factors drawn at random (:func:`draw_scales`) also make sizes
    that there are not, above and below.

    Args:
        sides: ``[N]``, how large the thing on each image is, in any unit; 0 where that is not known:
            such images keep their size, and nothing gets theirs.
        low, high: factors are cut off at these bounds, above 0.
        seed: the run's.
        epoch: from 0.

    Returns:
        ``[N]``, float64, what to multiply each image's scale with.

    Raises:
        InputError: sides that are not one-dimensional or below 0.
    """
    if sides.dim() != 1 or (sides < 0).any():
        raise InputError(
            f"draw_exchanges needs sides [N] of at least 0, got shape {tuple(sides.shape)}"
            + (f" with {sides.min().item()}" if sides.dim() == 1 else "")
        )
    has_size = sides > 0
    sizes = sides[has_size].double()
    order = torch.randperm(len(sizes), generator=generator_of(seed, epoch, _EXCHANGED))
    factors = torch.ones(len(sides), dtype=torch.float64)
    factors[has_size] = (sizes[order] / sizes).clamp(low, high)
    return factors
