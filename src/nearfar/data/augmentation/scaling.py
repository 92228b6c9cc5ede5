"""Every image at a size of its own each epoch."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nearfar.data.augmentation.draws import generator_of

__all__ = ["draw_scales"]

_KIND = 1


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
    drawn = torch.rand(count, generator=generator_of(seed, epoch, _KIND), dtype=torch.float64)
    return torch.exp(math.log(low) + drawn * (math.log(high) - math.log(low)))
