"""Which way each scale of an operator is computed, and in what portions: geometry and arithmetic only.

There are two ways to a scale's output ``T⁻¹ (W * T x)``:

**by its level**  rescale the input, convolve, restore the output: s² times the multiplications of the
    plain convolution. Best where the level is small.
**by tap maps**   mix channels once, ``W_j x`` for every tap j of the kernel, as many multiplications as one
    plain convolution; then every scale is a few shifted, weighted sums of these (see
    :mod:`nearfar.kernels.taps`), whose cost depends on neither the scale nor the input channels.

The plan takes what costs less. It is made once for each input size and cached.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache

from torch import Tensor

from nearfar.grid import Axis, Grid, base_grid, level_grid
from nearfar.kernels.composition import Composition
from nearfar.kernels.taps import Taps, restoring_taps, scale_taps

__all__ = ["Band", "Job", "Level", "Rates", "SIPlan", "make_plan"]


#: With fewer output channels a group, rows of tap maps are too short to be worth their lists.
_LEAST_CHANNELS = 8


@dataclass(frozen=True)
class Rates:
    """What an engine's work costs, in multiplications of an ordinary convolution; and its portions.

    Attributes:
        sparse: one entry of a tap list, at one output element; 0 for engines that multiply matrices.
        band: rows of outputs in one portion, for engines that multiply matrices.
        budget: elements of tap maps in one portion.
        least: output elements below which a call costs more than the fast path saves.
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
    """A scale that is computed by its level.

    Attributes:
        scale: its index.
        grid: of the level.
        outputs: the grid of the convolution's outputs on the level.
        rows, columns: how the layer's outputs are read from these.
    """

    scale: int
    grid: Grid
    outputs: Grid
    rows: Taps
    columns: Taps


@dataclass(frozen=True, eq=False)
class SIPlan:
    """How a composition is computed at one input size.

    Attributes:
        composition: what is computed; its padding is symmetric, of zeros.
        base: the input's grid.
        target: the outputs' grid.
        levels: the scales computed by their levels.
        shared: the indices of the scales computed by tap maps.
        rows, columns: their taps; None where there are none.
        rates: the engine's.
    """

    composition: Composition
    base: Grid
    target: Grid
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
        """Whether there is enough work; with less, the plain composition is faster."""
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
            for group in range(self.composition.groups):
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
        if (rows, count) not in self._band_cache:
            edges = [height * i // count for i in range(count + 1)]
            bands = []
            for first, last in itertools.pairwise(edges):
                taps, low, high = self.rows.band(first, last)
                bands.append(Band(first, last, low, high, taps))
            self._band_cache[rows, count] = bands
        return self._band_cache[rows, count]

    @cached_property
    def _band_cache(self) -> dict[tuple[int, int], list[Band]]:
        return {}


@lru_cache(maxsize=256)
def make_plan(
    size: tuple[int, int], composition: Composition, channels: tuple[int, int], rates: Rates
) -> SIPlan:
    """The plan for inputs of ``size`` (H, W) and ``channels`` (in, out).

    Where the scales' outputs are concatenated, every scale is computed by its level.
    """
    window, groups = composition.window, composition.groups
    base = base_grid(*size)
    target = window.apply(base)
    grids = [level_grid(*size, s) for s in composition.scales]
    pairs = [(grid, window.apply(grid)) for grid in grids]
    taps: list[tuple[Tensor, Tensor]] = []
    shared: tuple[int, ...] = ()
    if composition.how == "max":
        taps = [_taps_of(pair, base, target, composition) for pair in pairs]
        inputs, outputs = channels
        mixing = window.kernel[0] * window.kernel[1] * inputs / groups
        pixels = _area(base) / _area(target)
        saved = [
            mixing * _area(level_outputs) / _area(target)
            + _resizing_cost(grid, level_outputs, target, inputs / outputs, rates)
            - _combining_cost(Taps.of([tall]), Taps.of([wide]), base, target, rates)
            for (grid, level_outputs), (tall, wide) in zip(pairs, taps, strict=True)
        ]
        if (
            sum(s for s in saved if s > 0) > 1.2 * mixing * pixels
            and outputs // groups >= _LEAST_CHANNELS
        ):
            shared = tuple(i for i, s in enumerate(saved) if s > 0)
    return SIPlan(
        composition,
        base,
        target,
        tuple(_level(i, *pairs[i], target) for i in range(len(pairs)) if i not in shared),
        shared,
        Taps.of([taps[i][0] for i in shared]) if shared else None,
        Taps.of([taps[i][1] for i in shared]) if shared else None,
        rates,
    )


def _level(scale: int, grid: Grid, outputs: Grid, target: Grid) -> Level:
    rows, columns = (restoring_taps(outputs[a], target[a]) for a in (0, 1))
    return Level(scale, grid, outputs, rows, columns)


def _taps_of(
    pair: tuple[Grid, Grid], base: Grid, target: Grid, composition: Composition
) -> tuple[Tensor, Tensor]:
    """The vertical and the horizontal matrices of the scale with this level and these outputs on it."""

    def along(a: int) -> Tensor:
        window = composition.window
        geometry = (window.kernel[a], window.stride[a], window.padding[a][0], window.dilation[a])
        level, outputs = pair[0][a], pair[1][a]
        return scale_taps(base[a], level, outputs, target[a], geometry, composition.antialias)

    return along(0), along(1)


def _area(grid: Grid) -> int:
    return grid[0].size * grid[1].size


def _combining_cost(rows: Taps, columns: Taps, base: Grid, target: Grid, rates: Rates) -> float:
    """Multiplications an output element for one scale from its tap maps."""
    wide = base[1].size / target[1].size
    if rates.sparse:
        return rates.sparse * (rows.cost * columns.taps * wide + columns.cost)
    reach = min(base[0].size, rates.band * base[0].size / target[0].size + rows.taps)
    return 1.3 * (reach * rows.taps * columns.taps * wide + base[1].size * columns.taps)


def _resizing_cost(grid: Grid, outputs: Grid, target: Grid, share: float, rates: Rates) -> float:
    """Multiplications an output element for making a level and restoring its output."""

    def dense(source: tuple[Axis, Axis], to: tuple[Axis, Axis]) -> float:
        rows = to[0].size * source[0].size * source[1].size
        return (rows + _area(to) * source[1].size) / _area(target)

    back = rates.sparse * 4 if rates.sparse else dense(outputs, target)
    return 20 + share * dense(target, grid) + back
