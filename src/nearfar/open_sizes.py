"""Sizes that are left open while a network is exported.

``torch.export`` follows a network with the letters h and w in the place of numbers. Asking whether h is
24 would make it a network for maps of 24 rows, so nothing here asks what is not known for every size.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.fx.experimental.symbolic_shapes import statically_known_true

from nearfar.grid import Grid

__all__ = ["has_open_size", "same"]


def has_open_size(x: Tensor) -> bool:
    """Whether height or width of a map is open."""
    return any(isinstance(n, torch.SymInt) for n in x.shape[-2:])


def same(one: Grid, other: Grid) -> bool:
    """Whether two grids are known to be the same.

    While a network is exported with open sizes, some are the same for some sizes only; these count as
    different, because resizing between equal grids changes nothing but time.
    """
    if any(isinstance(axis.size, torch.SymInt) for grid in (one, other) for axis in grid):
        return all(
            statically_known_true(a.size == b.size)
            and statically_known_true(a.start == b.start)
            and statically_known_true(a.step == b.step)
            and a.tiles == b.tiles
            for a, b in zip(one, other, strict=True)
        )
    return one == other
