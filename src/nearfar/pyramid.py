"""The algebra: one map becomes a pyramid, one function acts on every level, the levels become one.

==============================  =====================================================  ===========
``expand(x, scales)``           one map → a pyramid: ``x`` seen at every scale          ``T_i``
``map(f, pyramid)``             the *same* ``f`` (shared weights) on every level        ``W *``
``collapse(pyramid, how)``      back to the base grid, then combined over the levels    ``T_i⁻¹``, pool
==============================  =====================================================  ===========

Every scale-aware network of this library is these three steps, and this is the only module that
rescales maps. Where samples lie is the business of :mod:`nearfar.grid`, which also states the
coordinate convention (pixel centres at ``i + ½``, that is ``align_corners=False``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, cast, get_args, overload

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nearfar.errors import InputError
from nearfar.grid import Axis, Grid, Window, base_grid, level_grid, level_size
from nearfar.maximum import maximum
from nearfar.open_sizes import has_open_size, in_proportion, nearest, resized, same
from nearfar.reference import is_reference_only
from nearfar.resampling import Kernel, Outside, reading_matrix, rescale_each, resize
from nearfar.scale_sets import ScaleSet, as_ratio, as_scales

__all__ = [
    "How",
    "Kernel",
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
            a whole network has answered and no place is left.
        scales: the scale of each level relative to the base: 0.5 is the image at half size.
        grids: where each level's samples lie, in base pixels; ``None`` for levels without place.
        base: the grid that :func:`collapse` returns to; ``None`` for levels without place.

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
        seen = ", ".join(
            f"{scale:g}: {'×'.join(str(n) for n in level.shape)}"
            for scale, level in zip(self.scales, self.levels, strict=True)
        )
        return f"Pyramid({seen})"


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
    height, width = x.shape[-2:]
    sizes = [(level_size(height, s), level_size(width, s)) for s in values]
    for s, size in zip(values, sizes, strict=True):
        if size[0] < 1 or size[1] < 1:
            raise InputError(
                f"at scale {s:g} an input of {height}×{width} has no sample left; leave that scale "
                f"out or give a larger input"
            )
    levels = [
        x if as_ratio(s) == 1 else _resize(x, size, antialias)
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
    for dim, (axis, wanted) in enumerate(zip(grid, size, strict=True)):
        before = (axis.size - wanted) // 2
        level = level.narrow(dim - 2, before, wanted)
        axes.append(Axis(wanted, axis.start + before * axis.step, axis.step, tiles=False))
    return level, (axes[0], axes[1])


def zoom(x: Tensor, scales: ScaleSet, size: int, *, kernel: Kernel = "bicubic") -> Pyramid:
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
    base = base_grid(x.shape[-2], x.shape[-1])
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
        The answers. Where ``f`` returns tensors of rank 2 (``[B, K]``: a network's logits), the
        result has no place left and collapses without resizing.
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
        in_proportion(base[a].size, grids[like][a].size, levels[like].shape[a - 2]) for a in (0, 1)
    ]
    return Pyramid(
        levels,
        pyramid.scales,
        tuple(resized(g, y.shape) for g, y in zip(grids, levels, strict=True)),
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
        ``[B, C, H, W]`` on the base grid (``[B, K]`` for levels without place), and with
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
        best, winner = maximum(levels)
        return (best, winner) if return_winner else best
    if how == "logsumexp":
        return torch.logsumexp(torch.stack(levels), dim=0)
    total = levels[0]
    for level in levels[1:]:
        total = total + level
    return total / len(levels) if how == "mean" else total


def resample(
    x: Tensor,
    source: Grid,
    target: Grid,
    *,
    antialias: bool = False,
    kernel: Kernel = "bilinear",
    outside: Outside = "border",
) -> Tensor:
    """Reads the map ``x``, whose samples lie on ``source``, at the samples of ``target``.

    Separable linear interpolation at exact positions: no rounding to whole pixels. Between two
    tilings of the same stretch (the usual case) it is ``torch.nn.functional.interpolate``; for all
    other grids it is one small matrix an axis.

    Args:
        x: ``[..., H, W]`` with the sizes of ``source``.
        source: where the samples of ``x`` lie.
        target: where to read.
        antialias: widen the kernel where ``target`` is coarser than ``source``.
        kernel: ``bilinear`` (triangle) or ``bicubic`` (Keys, a = −½).
        outside: what lies beyond the samples of ``source``: the nearest sample (``border``), or
            nothing (``zeros``), which is how an image is laid on an empty canvas.

    Raises:
        InputError: the sizes of ``x`` are not those of ``source``.
    """
    if not has_open_size(x) and tuple(x.shape[-2:]) != (source[0].size, source[1].size):
        raise InputError(
            f"resample got a map of {tuple(x.shape[-2:])} for a source grid of "
            f"{(source[0].size, source[1].size)} samples; give the grid that the map lies on"
        )
    if same(source, target) and outside == "border":
        return x
    if kernel == "bilinear" and outside == "border" and resizes(source, target):
        return _resize(x, (target[0].size, target[1].size), antialias)
    rows, columns = (
        reading_matrix(source[a], target[a], antialias, kernel, outside).to(x) for a in (0, 1)
    )
    moved = torch.matmul(torch.matmul(rows, x), columns.mT)
    return moved.contiguous(memory_format=_memory_format(x))


def resizes(source: Grid, target: Grid) -> bool:
    """Whether going from one grid to the other is ordinary resizing: both tile the same image."""
    return all(axis.tiles for grid in (source, target) for axis in grid)


def _resize(x: Tensor, size: tuple[int, int], antialias: bool) -> Tensor:
    if not has_open_size(x) and tuple(x.shape[-2:]) == size:
        return x
    if x.dim() == 3:
        return _resize(x.unsqueeze(0), size, antialias).squeeze(0)
    if x.shape[0] == 0 or x.shape[1] == 0:  # torch refuses to resize nothing
        return x.new_empty((*x.shape[:2], *size)) + x.sum()
    # Antialiasing does not exist in half precision on the CPU, and autocast does not know it.
    exact = x.float() if antialias and x.dtype in (torch.float16, torch.bfloat16) else x
    # Antialiasing only costs time where a map grows.
    smaller = has_open_size(x) or size[0] < x.shape[-2] or size[1] < x.shape[-1]
    if antialias and smaller and _by_matrices(exact, size[1]):
        return resize(exact, *size).to(x.dtype)
    resized = F.interpolate(
        exact, size=size, mode="bilinear", align_corners=False, antialias=antialias and smaller
    )
    return resized.to(x.dtype)


def _by_matrices(x: Tensor, width: int) -> bool:
    """Whether to shrink by matrices: where that is right, and torch's interpolation wrong or slower.

    Matrices need sizes that are known now, and on the CPU win up to a few hundred pixels. Where one
    column comes out, torch (2.15, CPU) repeats the first row in all of them.
    """
    concrete = type(x) in (Tensor, nn.Parameter) and not torch.compiler.is_compiling()
    if not concrete or torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
        return False
    small = x.device.type == "cpu" and max(x.shape[-2:]) <= 256
    return width == 1 or (small and not is_reference_only())


def _placed(pyramid: Pyramid) -> tuple[Grid, tuple[Grid, ...]]:
    if pyramid.base is None or any(grid is None for grid in pyramid.grids):
        raise InputError("these levels have no place in the image: they can only be collapsed")
    return pyramid.base, cast("tuple[Grid, ...]", pyramid.grids)


def _memory_format(x: Tensor) -> torch.memory_format:
    if x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last):
        return torch.channels_last
    return torch.contiguous_format


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
