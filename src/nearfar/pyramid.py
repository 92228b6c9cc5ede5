"""The algebra: one map becomes a pyramid, one function acts on every level, the levels become one.

==============================  =====================================================  ===========
``expand(x, scales)``           one map → a pyramid: ``x`` seen at every scale          ``T_i``
``map(f, pyramid)``             the *same* ``f`` (shared weights) on every level        ``W *``
``collapse(pyramid, how)``      back to the base grid, then combined over the levels    ``T_i⁻¹``, pool
==============================  =====================================================  ===========

Every scale-aware network of this library is these three steps. :mod:`nearfar.resampling` rescales maps;
where samples lie is the business of :mod:`nearfar.grid`, which also states the coordinate convention
(pixel centres at ``i + ½``, that is ``align_corners=False``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args, overload

import torch
from torch import Tensor

from nearfar.errors import InputError
from nearfar.grid import Axis, Grid, Window, base_grid, level_grid, level_size
from nearfar.resampling import Interpolation, Outside, resample, rescale_each, resize
from nearfar.scale_sets import ScaleSet, as_ratio, as_scales
from nearfar.symbolic_sizes import in_proportion, is_traced, map_size, nearest, resized

__all__ = [
    "How",
    "Interpolation",
    "Outside",
    "Pyramid",
    "collapse",
    "expand",
    "map",
    "resample",
    "rescale_each",
    "zoom",
]

How = Literal["max", "mean", "sum", "logsumexp", "concat"]


@dataclass(frozen=True)
class Pyramid:
    """A feature map seen at several scales.

    Attributes:
        levels: one tensor a level, ``[B, C, H_i, W_i]`` (or ``[C, H_i, W_i]``), or ``[B, K]`` once
            a whole network has been applied and no position is left.
        scales: the scale of each level relative to the base: 0.5 is the image at half size.
        grids: where each level's samples lie, in base pixels; ``None`` for levels without position.
        base: the grid that :func:`collapse` returns to; ``None`` for levels without position.

    Raises:
        InputError: no level, or the fields' lengths or the levels' ranks differ.
    """

    levels: tuple[Tensor, ...]
    scales: tuple[float, ...]
    grids: tuple[Grid | None, ...]
    base: Grid | None

    def __post_init__(self) -> None:
        counts = (len(self.levels), len(self.scales), len(self.grids))
        if not self.levels or len(set(counts)) > 1:
            raise InputError(
                "a pyramid needs as many scales and grids as levels, and at least one, got "
                f"{counts[0]} levels, {counts[1]} scales, {counts[2]} grids"
            )
        if len({level.dim() for level in self.levels}) > 1:
            raise InputError(
                "the levels of a pyramid must have the same number of dimensions, got shapes "
                + ", ".join(str(tuple(level.shape)) for level in self.levels)
            )

    def __len__(self) -> int:
        return len(self.levels)

    def __repr__(self) -> str:
        levels = ", ".join(
            f"{scale:g}: {'×'.join(str(n) for n in level.shape)}"
            for scale, level in zip(self.scales, self.levels, strict=True)
        )
        return f"Pyramid({levels})"


def expand(x: Tensor, scales: ScaleSet, *, antialias: bool = True, crop: bool = False) -> Pyramid:
    """One map → a pyramid: ``x`` resized to each scale by bilinear interpolation.

    A level at scale ``s`` has ``⌊s · size + ½⌋`` samples along each axis (see
    :func:`nearfar.grid.level_size`). A level of the input's own size is the input itself, bit for
    bit.

    Args:
        x: ``[B, C, H, W]`` or ``[C, H, W]``, floating point; any memory format.
        scales: positive factors, or the name of a set.
        antialias: widen the interpolation kernel where a level is smaller than the input, so that
            detail too fine for the level is averaged away instead of folding into false patterns.
        crop: of levels larger than the input, keep the middle of the input's size: a level at scale 2
            then costs no more than the input itself, and sees a quarter of it.

    Raises:
        InputError: wrong rank or dtype, bad scales, or a level that would have no sample.
    """
    values = as_scales(scales)
    check_map(x, "expand")
    height, width = map_size(x)
    sizes = [(level_size(height, s), level_size(width, s)) for s in values]
    for s, size in zip(values, sizes, strict=True):
        if size[0] < 1 or size[1] < 1:
            raise InputError(
                f"at scale {s:g} an input of {height}×{width} has no sample left; leave that scale "
                f"out or give a larger input"
            )
    levels = [
        x if as_ratio(s) == 1 else resize(x, size, antialias)
        for s, size in zip(values, sizes, strict=True)
    ]
    grids = [level_grid(height, width, s) for s in values]
    if crop:
        for i, s in enumerate(values):
            if s > 1:
                levels[i], grids[i] = _middle(levels[i], grids[i], (height, width))
    return Pyramid(tuple(levels), values, tuple(grids), base_grid(height, width))


def _middle(level: Tensor, grid: Grid, size: tuple[int, int]) -> tuple[Tensor, Grid]:
    """The middle of a level, to half a sample, and where it lies."""
    axes = []
    for dim, (axis, length) in enumerate(zip(grid, size, strict=True)):
        before = (axis.size - length) // 2
        level = level.narrow(dim - 2, before, length)
        axes.append(Axis(length, axis.start + before * axis.step, axis.step, tiles=False))
    return level, (axes[0], axes[1])


def zoom(x: Tensor, scales: ScaleSet, size: int, *, kernel: Interpolation = "bicubic") -> Pyramid:
    """One map → a pyramid of levels of one size, each the middle of ``x`` seen at its scale.

    Where :func:`expand` gives all of ``x`` at every scale, and so ever larger levels, this looks
    through a window of ``size × size`` samples: the larger the scale, the less of ``x`` is in it. All
    levels together cost as many times one level as there are scales, however large those are.

    Args:
        x: ``[B, C, H, W]`` or ``[C, H, W]``, floating point.
        scales: positive factors, or the name of a set.
        size: samples along both sides of every level.
        kernel: how ``x`` is read, antialiased; what lies beyond its edge is the edge repeated.

    Raises:
        InputError: wrong rank or dtype, bad scales, or a ``size`` below 1.
    """
    values = as_scales(scales)
    check_map(x, "zoom")
    if size < 1:
        raise InputError(f"zoom needs windows of at least 1 sample, got size={size}")
    base = base_grid(*map_size(x))
    grids = tuple(
        tuple(Axis(size, axis.size / 2 - (size - 1) / 2 / s, 1 / s, False) for axis in base)
        for s in values
    )
    levels = tuple(resample(x, base, grid, antialias=True, kernel=kernel) for grid in grids)  # type: ignore[arg-type]
    return Pyramid(levels, values, grids, base)  # type: ignore[arg-type]


def map(
    f: Callable[[Tensor], Tensor],
    pyramid: Pyramid,
    *,
    window: Window | None = None,
    as_one_batch: bool = False,
) -> Pyramid:
    """The same ``f`` on every level, with an account of where its outputs lie.

    Args:
        f: what to apply; one module for all levels means shared weights.
        pyramid: levels to apply it to.
        window: the sliding-window geometry of ``f`` (``Window.of(conv)``), so that outputs are
            placed at their receptive fields' centres whatever the stride and padding. ``None``
            says that the outputs of ``f`` share the stretch of image that its inputs cover: right
            for pointwise functions, odd kernels with 'same' padding, and whole networks.
        as_one_batch: all levels, which must have one size, go through ``f`` as one batch: fewer and
            larger computations, and batch norm sees all scales at once, as its running statistics do.

    Returns:
        The outputs. Where ``f`` returns tensors of rank 2 (``[B, K]``: a network's logits), the
        result has no position left and collapses without resizing.
    """
    if as_one_batch:
        together = f(torch.cat(pyramid.levels))
        count = len(pyramid.levels)
        levels = torch.unflatten(together, 0, (count, together.shape[0] // count)).unbind(0)
    else:
        levels = tuple(f(level) for level in pyramid.levels)
    if levels[0].dim() < 3:
        return Pyramid(levels, pyramid.scales, (None,) * len(levels), None)
    base, grids = _placed(pyramid)
    if window is not None:
        moved = window.apply(base)
        return Pyramid(levels, pyramid.scales, tuple(window.apply(g) for g in grids), moved)
    # How much coarser than its input is what f returns? Read off the level that is nearest to the
    # base; where the base is a level itself, as in most pyramids, that is exact.
    like = nearest(grids, base, pyramid.scales)
    shape = [
        in_proportion(base[a].size, grids[like][a].size, map_size(levels[like])[a]) for a in (0, 1)
    ]
    return Pyramid(
        levels,
        pyramid.scales,
        tuple(resized(g, map_size(y)) for g, y in zip(grids, levels, strict=True)),
        resized(base, shape),
    )


@overload
def collapse(
    pyramid: Pyramid, how: How = ..., *, antialias: bool = ..., return_winner: Literal[False] = ...
) -> Tensor: ...
@overload
def collapse(
    pyramid: Pyramid, how: How = ..., *, antialias: bool = ..., return_winner: Literal[True]
) -> tuple[Tensor, Tensor]: ...
def collapse(
    pyramid: Pyramid, how: How = "max", *, antialias: bool = False, return_winner: bool = False
) -> Tensor | tuple[Tensor, Tensor]:
    """A pyramid → one map: every level back onto the base grid, then combined over the levels.

    Args:
        pyramid: what to combine.
        how: ``max``, ``mean``, ``sum``, ``logsumexp`` over the levels, or ``concat`` along the
            channels, level-major (all channels of the first level, then of the second …).
        antialias: average, instead of sampling, where a level is finer than the base grid.
        return_winner: with ``max`` only: also return which level won at every element.

    Returns:
        ``[B, C, H, W]`` on the base grid (``[B, K]`` for levels without position), and with
        ``return_winner`` a ``uint8`` tensor of the same shape holding the winning level's index.
        Ties go to the level that comes first, and so does the whole gradient there; NaN wins
        over every number, so that it is not lost.

    Raises:
        InputError: unknown ``how``, ``return_winner`` without ``max``, or over 255 levels with it.
    """
    if how not in get_args(How):
        raise InputError(f"how must be one of {', '.join(get_args(How))}, got {how!r}")
    if return_winner and (how != "max" or len(pyramid) > 255):
        raise InputError(
            f"return_winner needs how='max' and at most 255 levels, got how={how!r} and "
            f"{len(pyramid)} levels"
        )
    if pyramid.base is None:
        levels = list(pyramid.levels)
    else:
        base, grids = _placed(pyramid)
        levels = [
            resample(level, grid, base, antialias=antialias)
            for level, grid in zip(pyramid.levels, grids, strict=True)
        ]
    if how == "concat":
        return torch.cat(levels, dim=1 if pyramid.base is None else -3)
    if how == "max":
        best, winner = _maximum(levels)
        return (best, winner) if return_winner else best
    if how == "logsumexp":
        return torch.logsumexp(torch.stack(levels), dim=0)
    total = levels[0]
    for level in levels[1:]:
        total = total + level
    return total / len(levels) if how == "mean" else total


def _placed(pyramid: Pyramid) -> tuple[Grid, tuple[Grid, ...]]:
    if pyramid.base is None or any(grid is None for grid in pyramid.grids):
        raise InputError("these levels have no place in the image: they can only be collapsed")
    return pyramid.base, cast("tuple[Grid, ...]", pyramid.grids)


def check_map(x: Tensor, name: str) -> None:
    """Refuses what is no map: another rank than 3 or 4, or not floating point.

    Raises:
        InputError: as said; ``name`` begins the message.
    """
    if x.dim() not in (3, 4) or not x.is_floating_point():
        raise InputError(
            f"{name} needs a floating-point map [B, C, H, W] or [C, H, W], got shape "
            f"{tuple(x.shape)} of {x.dtype}; add the missing axes with unsqueeze, or convert with "
            f".float()"
        )


def _maximum(levels: list[Tensor]) -> tuple[Tensor, Tensor]:
    """The largest value at each position, and the level it comes from; of equal ones the first.

    Args:
        levels: of one shape; not a number counts as largest.

    Returns:
        The values, and uint8 ranks, which have no gradient.
    """
    # Dynamo cannot follow a function with its own jvp, and a traced network cannot be saved with one.
    if torch.compiler.is_dynamo_compiling() or is_traced():
        best, winner = levels[0], torch.zeros_like(levels[0], dtype=torch.uint8)
        for i, level in enumerate(levels[1:], start=1):
            better = (level > best) | level.isnan()
            best, winner = torch.where(better, level, best), winner.masked_fill(better, i)
        return best, winner
    best, winner = _Maximum.apply(*levels)
    return best, winner


class _Maximum(torch.autograd.Function):
    """The running maximum over levels, and the level it comes from.

    For the backward pass it stores one byte an element, the winner, where differentiating through a
    chain of ``torch.maximum`` would store every level, and would split the gradient of a tie.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(*levels: Tensor) -> tuple[Tensor, Tensor]:
        best = levels[0]
        winner = torch.zeros_like(best, dtype=torch.uint8)
        for i, level in enumerate(levels[1:], start=1):
            winner.masked_fill_((level > best) | level.isnan(), i)
            best = torch.maximum(best, level)
        return best.clone() if best is levels[0] else best, winner

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.levels = len(inputs)
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(output[1])
        ctx.save_for_forward(output[1])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor, ...]:
        (winner,) = ctx.saved_tensors
        # Not masked_fill, which would leave the channels-last layout; nor a product, since 0 · NaN is NaN.
        zero = gradient.new_zeros(())
        return tuple(torch.where(winner == i, gradient, zero) for i in range(ctx.levels))

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> tuple[Tensor, None]:
        (winner,) = ctx.saved_tensors
        own = [t.where(winner == i, 0) for i, t in enumerate(tangents) if t is not None]
        return torch.stack(own).sum(dim=0), None
