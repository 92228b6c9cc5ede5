"""Maps read at other positions: between any two grids, by small matrices or torch's interpolation.

This is the only module that rescales maps; :mod:`nearfar.grid` says where their samples lie.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from nearfar.errors import InputError
from nearfar.grid import Axis, Grid
from nearfar.reference import is_finite, is_ordinary, is_reference_only, reference_only
from nearfar.symbolic_sizes import has_open_size, is_traced, map_size, same

__all__ = [
    "Interpolation",
    "Outside",
    "reading_matrices",
    "reading_matrix",
    "resample",
    "rescale_each",
    "resize",
    "through",
]

Interpolation = Literal["bilinear", "bicubic"]
Outside = Literal["border", "zeros"]


def reading_matrix(
    source: Axis,
    target: Axis,
    antialias: bool,
    kernel: Interpolation = "bilinear",
    outside: Outside = "border",
) -> Tensor:
    """The ``[target.size, source.size]`` matrix that reads one axis at the other's positions; float64.

    Args:
        source: where the samples lie.
        target: where to read.
        antialias: widen the kernel where ``target`` is coarser than ``source``.
        kernel: ``bilinear`` (triangle) or ``bicubic`` (Keys, a = −½).
        outside: what lies beyond the samples of ``source``: the nearest sample, or zeros.
    """
    at = (
        target.start + target.step * torch.arange(target.size, dtype=torch.float64)
    ) - source.start
    at = at / source.step
    width = max(1.0, target.step / source.step) if antialias else 1.0
    return _weights(at, source.size, torch.full((), width, dtype=torch.float64), kernel, outside)


def reading_matrices(
    size: int,
    factors: Tensor,
    target: int,
    antialias: bool,
    kernel: Interpolation = "bicubic",
    outside: Outside = "zeros",
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    """One matrix a factor: ``size`` samples laid about the middle of ``target`` pixels, as large each time.

    Each is the :func:`reading_matrix` of an axis whose samples are ``factor`` pixels apart and whose
    middle is the target's; all come from one computation.

    Args:
        size: how many samples there are.
        factors: ``[B]``, float64: pixels from a sample to the next, above 0.
        target: how many pixels there are.
        antialias, kernel, outside: as in :func:`reading_matrix`.
        dtype: of the result. Positions are computed in float64 whatever it is.

    Returns:
        ``[B, target, size]``, where ``factors`` is, and differentiable by it.
    """
    pixels = torch.arange(target, dtype=torch.float64, device=factors.device)
    at = (pixels + 0.5 - target / 2) / factors[:, None] + (size - 1) / 2
    width = (1 / factors).clamp(min=1.0) if antialias else torch.ones_like(factors)
    return _weights(at, size, width[:, None], kernel, outside, dtype)


def _weights(
    at: Tensor,
    size: int,
    width: Tensor,
    kernel: Interpolation,
    outside: Outside,
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    """What each of ``size`` samples counts at each position, ``[..., M]`` → ``[..., M, size]``.

    Args:
        at: where to read, in samples.
        width: how much wider the kernel is than one sample's; broadcasts against ``at``.
        kernel, outside, dtype: as above.
    """
    profile = _triangle if kernel == "bilinear" else _keys
    if outside == "border":
        at = at.clamp(0, size - 1)
    samples = torch.arange(size, dtype=torch.float64, device=at.device)
    width = width[..., None]
    weights = profile(((at[..., None] - samples) / width).to(dtype))
    if outside == "border":
        return weights / weights.sum(dim=-1, keepdim=True)
    # The samples beyond the ends exist and are zero, so they count in the normalisation.
    reach = math.ceil(2 * float(width.detach().max())) + 1 if width.numel() else 1
    lattice = torch.arange(-reach, reach + 1, dtype=torch.float64, device=at.device)
    whole = profile((((at - at.floor())[..., None] - lattice) / width).to(dtype))
    return weights / whole.sum(dim=-1, keepdim=True)


def _triangle(t: Tensor) -> Tensor:
    return (1 - t.abs()).clamp(min=0)


def _keys(t: Tensor) -> Tensor:
    """Keys' cubic convolution kernel with a = −½ (third-order accurate)."""
    t = t.abs()
    near = (1.5 * t - 2.5) * t * t + 1
    far = ((-0.5 * t + 2.5) * t - 4) * t + 2
    return torch.where(t < 1, near, torch.where(t < 2, far, torch.zeros_like(t)))


def rescale_each(
    x: Tensor,
    factors: Tensor,
    size: tuple[int, int] | None = None,
    *,
    antialias: bool = True,
    kernel: Interpolation = "bicubic",
    outside: Outside = "zeros",
) -> Tensor:
    """Every map of a batch larger or smaller about its centre, each by a factor of its own.

    What :func:`resample` gives map by map, in two batched matrix products; on any device, and
    differentiable by the maps and by the factors.

    Args:
        x: ``[B, C, H, W]``, floating point.
        factors: ``[B]``, positive; 2 makes a map twice as large.
        size: height and width of the result, on whose centre the maps lie; default: those of ``x``.
        antialias: widen the kernel where a map becomes smaller.
        kernel, outside: as in :func:`resample`.

    Returns:
        ``[B, C, *size]``.

    Raises:
        InputError: no batch of maps, not one factor a map, or a factor that is not above 0.
    """
    if x.dim() != 4 or not x.is_floating_point() or factors.shape != x.shape[:1]:
        raise InputError(
            f"rescale_each needs floating-point maps [B, C, H, W] and one factor a map, got shapes "
            f"{tuple(x.shape)} ({x.dtype}) and {tuple(factors.shape)}; add missing axes with unsqueeze"
        )
    if not bool(((factors > 0) & factors.isfinite()).all()):
        raise InputError(f"every factor must be positive and finite, got {factors.tolist()}")
    height, width = size or (int(x.shape[-2]), int(x.shape[-1]))
    # Matrices of half precision would place samples only roughly.
    dtype = x.dtype if x.dtype == torch.float64 else torch.float32
    rows, columns = (
        reading_matrices(
            int(x.shape[axis]), factors.double(), n, antialias, kernel, outside, dtype
        ).to(x.device)
        for axis, n in ((-2, height), (-1, width))
    )
    tall = torch.bmm(x.to(dtype).flatten(1, 2), columns.mT)
    moved = torch.matmul(rows[:, None], tall.view(*x.shape[:3], width)).to(x.dtype)
    last = x.is_contiguous(memory_format=torch.channels_last)
    return moved.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)


def resample(
    x: Tensor,
    source: Grid,
    target: Grid,
    *,
    antialias: bool = False,
    kernel: Interpolation = "bilinear",
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
    if not has_open_size(x) and map_size(x) != (source[0].size, source[1].size):
        raise InputError(
            f"resample got a map of {map_size(x)} for a source grid of "
            f"{(source[0].size, source[1].size)} samples; give the grid that the map lies on"
        )
    if same(source, target) and outside == "border":
        return x
    if kernel == "bilinear" and outside == "border" and _tile_alike(source, target):
        return resize(x, (target[0].size, target[1].size), antialias)
    rows, columns = (
        reading_matrix(source[a], target[a], antialias, kernel, outside).to(x) for a in (0, 1)
    )
    if not is_ordinary(x):
        return (rows @ x @ columns.mT).contiguous(memory_format=_memory_format(x))
    moved = _finite_or(partial(_read, rows=rows, columns=columns), x, rows, columns)
    return moved.contiguous(memory_format=_memory_format(x))


def _read(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """``rows @ x @ columns.mT`` by the entries that are not zero, so that NaN stays where it is read."""
    for matrix in (columns, rows):
        # Weights of 1e-17 are rounding, of positions that meet a sample exactly.
        read = matrix.abs() > 1e-12
        index = read.byte().topk(max(1, int(read.sum(dim=1).max())), dim=1).indices
        weight = matrix.gather(1, index)
        values = x[..., index].masked_fill(~read.gather(1, index), 0)
        x = (values * weight).sum(dim=-1).mT
    return x


def _tile_alike(source: Grid, target: Grid) -> bool:
    """Whether both grids tile the same image: going from one to the other is ordinary resizing."""
    return all(axis.tiles for grid in (source, target) for axis in grid)


def resize(x: Tensor, size: tuple[int, int], antialias: bool) -> Tensor:
    """A map of another size that covers the same stretch of image; bilinear, in any layout.

    Args:
        x: ``[B, C, H, W]`` or ``[C, H, W]``, floating point.
        size: the new height and width.
        antialias: widen the kernel where the map becomes smaller.
    """
    height, width = map_size(x)
    if not has_open_size(x) and (height, width) == size:
        return x
    if x.dim() == 3:
        return resize(x.unsqueeze(0), size, antialias).squeeze(0)
    if not is_traced() and 0 in x.shape[:2]:  # torch refuses to resize nothing
        return x.new_empty((*x.shape[:2], *size)) + x.sum()
    # Antialiasing does not exist in half precision on the CPU, and autocast does not know it.
    exact = x.float() if antialias and x.dtype in (torch.float16, torch.bfloat16) else x
    # Antialiasing only costs time where a map grows.
    antialias = antialias and (has_open_size(x) or size[0] < height or size[1] < width)
    if not antialias or not is_ordinary(x):
        return _interpolate(exact, size, antialias).to(x.dtype)
    # On CPUs, for maps up to some hundred pixels, matrices are three to six times as fast.
    if is_reference_only() or x.device.type != "cpu" or max(height, width) > 256:
        return _shrink(exact, size).to(x.dtype)
    rows, columns = (
        _shrinking_matrix(int(n), m, exact.dtype, x.device)
        for n, m in zip((height, width), size, strict=True)
    )
    return _finite_or(partial(_shrink, size=size), exact, rows, columns).to(x.dtype)


def _shrink(x: Tensor, size: tuple[int, int]) -> Tensor:
    if size[1] == 1:
        # torch (2.15, CPU) repeats the first row where one column comes out; one row comes out right.
        return _interpolate(x.mT, (1, size[0]), True).mT
    return _interpolate(x, size, True)


def _interpolate(x: Tensor, size: tuple[int, int], antialias: bool) -> Tensor:
    return F.interpolate(x, size, mode="bilinear", align_corners=False, antialias=antialias)


def _finite_or(
    definition: Callable[[Tensor], Tensor], x: Tensor, rows: Tensor, columns: Tensor
) -> Tensor:
    """``rows @ x @ columns.mT``; where that is not finite, ``definition(x)``, which is the same.

    The matrices are mostly zeros, and ``0 · NaN`` is NaN: through them one NaN would spread over whole rows
    and columns, of values and of gradients.
    """
    if torch.is_grad_enabled() and x.requires_grad:
        result: Tensor = _ByMatrices.apply(x, rows, columns, definition)
        return result
    y = _by_matrices(x, rows, columns)
    return y if is_finite(y) else definition(x)


class _ByMatrices(torch.autograd.Function):
    """:func:`_finite_or` with its gradient."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, rows: Tensor, columns: Tensor, definition: Callable[[Tensor], Tensor]
    ) -> Tensor:
        ctx.size, ctx.matrices, ctx.definition = x.shape, (rows, columns), definition
        return _finite_or(definition, x, rows, columns)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None, None]:
        rows, columns = ctx.matrices
        if is_finite(g):
            return _by_matrices(g, rows.mT, columns.mT), None, None, None
        create_graph = torch.is_grad_enabled()
        with torch.enable_grad(), reference_only():
            x = g.new_zeros(ctx.size).requires_grad_()
            (gx,) = torch.autograd.grad(ctx.definition(x), x, g, create_graph=create_graph)
        return gx, None, None, None


def _by_matrices(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """``[..., H, W]`` → ``[..., H', W']`` by one matrix an axis; keeps the layout."""
    if torch.is_autocast_enabled(x.device.type):  # which interpolation does not know either
        with torch.autocast(x.device.type, enabled=False):
            return _by_matrices(x, rows, columns)
    if x.dim() == 4 and not x.is_contiguous() and _memory_format(x) == torch.channels_last:
        return through(x.permute(0, 2, 3, 1), rows, columns).permute(0, 3, 1, 2)
    height, width = rows.shape[0], columns.shape[0]
    tall = (x.reshape(-1, x.shape[-1]) @ columns.mT).view(-1, x.shape[-2], width)
    wide = torch.bmm(rows.expand(tall.shape[0], -1, -1), tall)
    return wide.view(*x.shape[:-2], height, width)


@lru_cache(maxsize=256)
def _shrinking_matrix(size: int, new: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    # Cached from call to call, so it must not be a tensor that only inference may use.
    with torch.inference_mode(False):
        matrix = reading_matrix(Axis.tiling(size, size), Axis.tiling(new, size), True)
        return matrix.to(device, dtype)


def through(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """``[B, H, W, C]`` → ``[B, H', W', C]`` by one matrix an axis."""
    batch, height, width, channels = x.shape
    tall = torch.bmm(rows.expand(batch, -1, -1), x.reshape(batch, height, width * channels))
    tall = tall.view(batch * rows.shape[0], width, channels)
    if channels < 16:  # a product with so few columns is slow; with as many as there are rows, not
        wide = (tall.mT.reshape(-1, width) @ columns.mT).view(-1, channels, columns.shape[0]).mT
    else:
        wide = torch.bmm(columns.expand(tall.shape[0], -1, -1), tall)
    return wide.reshape(batch, rows.shape[0], columns.shape[0], channels).contiguous()


def _memory_format(x: Tensor) -> torch.memory_format:
    if x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last):
        return torch.channels_last
    return torch.contiguous_format
