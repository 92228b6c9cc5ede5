"""Which way each scale of an SI-layer is computed, and in what portions: geometry and arithmetic only.

Two ways lead to a scale's answer ``T⁻¹ (W * T x)``:

**by its level**  rescale the input, convolve, bring the answer back: s² times the multiplications of the
    plain convolution. Best where the level is small.
**by tap maps**   mix channels once, ``W_j x`` for every tap j of the kernel, as many multiplications as one
    plain convolution; then every scale is a few shifted, weighted sums of these (see
    :mod:`nearfar.kernels.taps`), whose cost depends on neither the scale nor the input channels.

The plan takes what costs less. It is made once for each input size and kept.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache

from torch import Tensor

from nearfar.grid import Axis, Grid, Window, base_grid, level_grid
from nearfar.kernels.taps import Taps, restoring, scale_taps

__all__ = ["Band", "Job", "Level", "Plan", "Rates", "make_level_plan", "make_plan"]


#: Fewer output channels than this a group make rows of tap maps too short to be worth their lists.
_NARROWEST = 8


@dataclass(frozen=True)
class Rates:
    """What an engine's work costs, in multiplications of an ordinary convolution; and its portions.

    Attributes:
        sparse: one entry of a tap list, at one output element; 0 for engines that multiply matrices.
        band: rows of outputs in one portion, for engines that multiply matrices.
        budget: elements of tap maps in one portion.
        least: output elements below which a call costs more than the composition saves.
    """

    sparse: float
    band: int
    budget: int
    least: int = 0


@dataclass(frozen=True, eq=False)
class Band:
    """Rows ``first`` to ``last`` of the outputs, and the rows of the input that they read."""

    first: int
    last: int
    low: int
    high: int
    taps: Taps


@dataclass(frozen=True)
class Job:
    """One portion of work by tap maps: some images, some rows, some output channels of one group."""

    images: slice
    band: Band
    inputs: slice
    outputs: slice


@dataclass(frozen=True, eq=False)
class Level:
    """A scale that is computed by its level."""

    scale: int
    grid: Grid
    seen: Grid
    rows: Taps
    columns: Taps


@dataclass(frozen=True, eq=False)
class Plan:
    """What an SI-layer does at one input size.

    Attributes:
        base: the input's grid.
        target: the outputs' grid.
        window: the convolution's geometry, with symmetric zero padding.
        groups: of the convolution.
        antialias: average where a level is made smaller.
        levels: the scales computed by their levels.
        shared: the indices of the scales computed by tap maps.
        rows, columns: their taps; None where there are none.
        rates: the engine's.
    """

    base: Grid
    target: Grid
    window: Window
    groups: int
    antialias: bool
    levels: tuple[Level, ...]
    shared: tuple[int, ...]
    rows: Taps | None
    columns: Taps | None
    rates: Rates

    @cached_property
    def order(self) -> tuple[int, ...]:
        """The scales' indices in the order in which they are computed."""
        return (*(level.scale for level in self.levels), *self.shared)

    def pays(self, batch: int, outputs: int) -> bool:
        """Whether so much work is worth its calls; where not, the plain composition is faster."""
        elements = batch * outputs * self.target[0].size * self.target[1].size
        return elements >= (self.rates.least // 16 if self.shared else self.rates.least)

    def jobs(self, batch: int, inputs: int, outputs: int) -> Iterator[Job]:
        """The portions of work by tap maps, for channels a group of ``inputs`` and ``outputs``."""
        if self.rows is None or self.columns is None:
            return
        one = self.base[1].size * self.rows.taps * self.columns.taps  # a row of one channel's maps
        block = outputs
        while block > 32 and one * self.base[0].size * block > self.rates.budget:
            block = (block // 2 + 15) // 16 * 16
        for band in self._bands(one * block):
            size = one * (band.high - band.low) * block
            images = max(1, self.rates.budget // size)
            for group in range(self.groups):
                for first in range(0, outputs, block):
                    start, stop = (
                        group * outputs + first,
                        group * outputs + min(outputs, first + block),
                    )
                    for image in range(0, batch, images):
                        yield Job(
                            slice(image, min(batch, image + images)),
                            band,
                            slice(group * inputs, (group + 1) * inputs),
                            slice(start, stop),
                        )

    def _bands(self, row: int) -> list[Band]:
        assert self.rows is not None
        height = self.target[0].size
        # Half the budget again may be halo; more rows than needed cost nothing but cache.
        fitting = max(8, self.rates.budget // max(1, row))
        rows = min(height, self.rates.band or fitting)
        count = -(-height // rows)
        if (rows, count) not in self._made:
            edges = [height * i // count for i in range(count + 1)]
            made = []
            for first, last in itertools.pairwise(edges):
                taps, low, high = self.rows.band(first, last)
                made.append(Band(first, last, low, high, taps))
            self._made[rows, count] = made
        return self._made[rows, count]

    @cached_property
    def _made(self) -> dict[tuple[int, int], list[Band]]:
        return {}


@lru_cache(maxsize=128)
def make_plan(
    size: tuple[int, int],
    scales: tuple[float, ...],
    window: Window,
    channels: tuple[int, int, int],
    antialias: bool,
    rates: Rates,
) -> Plan:
    """The plan for inputs of ``size`` (H, W) and ``channels`` (in, out, groups)."""
    inputs, outputs, groups = channels
    base = base_grid(*size)
    target = window.apply(base)
    grids = [level_grid(*size, s) for s in scales]
    seen = [window.apply(grid) for grid in grids]

    def along(a: int, grid: Grid, there: Grid) -> Tensor:
        return scale_taps(base[a], grid[a], there[a], target[a], _along(window, a), antialias)

    taps = [(along(0, *pair), along(1, *pair)) for pair in zip(grids, seen, strict=True)]
    each = [(Taps.of([tall]), Taps.of([wide])) for tall, wide in taps]

    mixing = window.kernel[0] * window.kernel[1] * inputs / groups
    pixels = base[0].size * base[1].size / (target[0].size * target[1].size)
    saved = [
        mixing * _area(there) / _area(target)
        + _resizing(grid, there, target, inputs / outputs, rates)
        - _combining(*pair, base, target, rates)
        for grid, there, pair in zip(grids, seen, each, strict=True)
    ]
    gain = sum(s for s in saved if s > 0)
    worth = gain > 1.2 * mixing * pixels and outputs // groups >= _NARROWEST
    shared = tuple(i for i, s in enumerate(saved) if s > 0) if worth else ()
    return Plan(
        base,
        target,
        window,
        groups,
        antialias,
        tuple(_level(i, grids[i], seen[i], target) for i in range(len(scales)) if i not in shared),
        shared,
        Taps.of([taps[i][0] for i in shared]) if shared else None,
        Taps.of([taps[i][1] for i in shared]) if shared else None,
        rates,
    )


@lru_cache(maxsize=128)
def make_level_plan(
    size: tuple[int, int],
    scales: tuple[float, ...],
    window: Window,
    groups: int,
    antialias: bool,
    rates: Rates,
) -> Plan:
    """The plan that computes every scale by its level."""
    base = base_grid(*size)
    target = window.apply(base)
    grids = [level_grid(*size, s) for s in scales]
    levels = tuple(_level(i, grid, window.apply(grid), target) for i, grid in enumerate(grids))
    return Plan(base, target, window, groups, antialias, levels, (), None, None, rates)


def _level(scale: int, grid: Grid, seen: Grid, target: Grid) -> Level:
    rows, columns = (restoring(seen[a], target[a]) for a in (0, 1))
    return Level(scale, grid, seen, rows, columns)


def _along(window: Window, a: int) -> tuple[int, int, int, int]:
    return window.kernel[a], window.stride[a], window.padding[a][0], window.dilation[a]


def _area(grid: Grid) -> int:
    return grid[0].size * grid[1].size


def _combining(rows: Taps, columns: Taps, base: Grid, target: Grid, rates: Rates) -> float:
    """Multiplications an output element for one scale from its tap maps."""
    wide = base[1].size / target[1].size
    if rates.sparse:
        return rates.sparse * (rows.cost * columns.taps * wide + columns.cost)
    reach = min(base[0].size, rates.band * base[0].size / target[0].size + rows.taps)
    return 1.3 * (reach * rows.taps * columns.taps * wide + base[1].size * columns.taps)


def _resizing(grid: Grid, seen: Grid, target: Grid, share: float, rates: Rates) -> float:
    """Multiplications an output element for making a level and bringing its answer back."""

    def dense(source: tuple[Axis, Axis], there: tuple[Axis, Axis]) -> float:
        rows = there[0].size * source[0].size * source[1].size
        return (rows + _area(there) * source[1].size) / _area(target)

    back = rates.sparse * 4 if rates.sparse else dense(seen, target)
    return 20 + share * dense(target, grid) + back
