"""Sizes that are left open while a network is exported.

``torch.export`` follows a network with the letters h and w instead of numbers. Asking whether h is
24 would make it a network for maps of 24 rows, so nothing here asks what is not known for every size.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.fx.experimental.symbolic_shapes import statically_known_true

from nearfar.grid import Axis, Grid

__all__ = ["has_open_size", "in_proportion", "is_traced", "map_size", "nearest", "resized", "same"]


def is_traced() -> bool:
    """Whether ``torch.jit.trace`` follows the network."""
    traced: bool = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    return traced


def map_size(x: Tensor) -> tuple[int, int]:
    """Height and width of a map, or of a kernel.

    While ``torch.jit.trace`` follows a network, sizes are tensors, which no arithmetic here is meant for:
    the traced network is for maps of the sizes that it was traced with.
    """
    height, width = x.shape[-2:]
    if not is_traced():
        return height, width
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # type: ignore[attr-defined]
        return int(height), int(width)


def has_open_size(x: Tensor) -> bool:
    """Whether height or width of a map is open."""
    return any(isinstance(n, torch.SymInt) for n in x.shape[-2:])


def same(one: Grid, other: Grid) -> bool:
    """Whether two grids are known to be the same.

    While a network is exported with open sizes, some are the same for some sizes only; these count as
    different, because resizing between equal grids changes nothing but time.
    """
    if _is_open(one, other):
        return all(
            statically_known_true(a.size == b.size)
            and statically_known_true(a.start == b.start)
            and statically_known_true(a.step == b.step)
            and a.tiles == b.tiles
            for a, b in zip(one, other, strict=True)
        )
    return one == other


def nearest(grids: Sequence[Grid], base: Grid, scales: Sequence[float]) -> int:
    """Which of a pyramid's levels has most nearly the base's number of samples.

    Args:
        grids: the levels', at least one.
        base: of the pyramid.
        scales: the levels': these decide where sizes are open.
    """
    if _is_open(base, *grids):
        return min(range(len(grids)), key=lambda i: abs(math.log(scales[i])))
    return min(range(len(grids)), key=lambda i: abs(grids[i][0].size - base[0].size))


def in_proportion(size: int, before: int, after: int) -> int:
    """How many samples become of ``size`` where ``before`` become ``after``: rounded, at least 1."""
    if not any(isinstance(n, torch.SymInt) for n in (size, before, after)):
        return max(1, round(size * after / before))
    if statically_known_true(size == before):
        return after
    rounded = (2 * size * after + before) // (2 * before)
    return torch.sym_max(1, rounded)  # type: ignore[return-value]  # a SymInt stands for an int


def resized(grid: Grid, size: Sequence[int]) -> Grid:
    """A grid's axes, :meth:`~nearfar.grid.Axis.resized` to a height and a width."""
    rows, columns = (_resized(axis, n) for axis, n in zip(grid, size, strict=True))
    return rows, columns


def _resized(axis: Axis, size: int) -> Axis:
    if not any(isinstance(n, torch.SymInt) for n in (axis.size, size)):
        return axis.resized(int(size))
    return axis if statically_known_true(axis.size == size) else axis.divided(size)


def _is_open(*grids: Grid) -> bool:
    return any(isinstance(axis.size, torch.SymInt) for grid in grids for axis in grid)
