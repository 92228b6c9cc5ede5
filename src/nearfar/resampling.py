"""How one axis of samples is read at the positions of another: small matrices, and maps through them."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

from nearfar.errors import InputError
from nearfar.grid import Axis

__all__ = [
    "Kernel",
    "Outside",
    "reading_matrices",
    "reading_matrix",
    "rescale_each",
    "resize",
    "through",
]

Kernel = Literal["bilinear", "bicubic"]
Outside = Literal["border", "zeros"]


def reading_matrix(
    source: Axis,
    target: Axis,
    antialias: bool,
    kernel: Kernel = "bilinear",
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
    return _weights(at, source.size, torch.tensor(width, dtype=torch.float64), kernel, outside)


def reading_matrices(
    size: int,
    factors: Tensor,
    target: int,
    antialias: bool,
    kernel: Kernel = "bicubic",
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
    kernel: Kernel,
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


def resize(x: Tensor, height: int, width: int) -> Tensor:
    """A smaller copy of a concrete map, antialiased, ``[B, C, H, W]`` → ``[B, C, height, width]``.

    What ``torch.nn.functional.interpolate`` does with ``antialias=True``, three to six times as fast on
    CPUs for maps up to some hundred pixels, and right where one column comes out. Keeps the layout.
    """
    rows, columns = (
        _shrinking(int(n), m, x.dtype, x.device)
        for n, m in ((x.shape[-2], height), (x.shape[-1], width))
    )
    if x.is_contiguous() or not x.is_contiguous(memory_format=torch.channels_last):
        tall = (x.reshape(-1, x.shape[-1]) @ columns.mT).view(-1, x.shape[-2], width)
        wide = torch.bmm(rows.expand(tall.shape[0], -1, -1), tall)
        return wide.view(*x.shape[:2], height, width)
    return through(x.permute(0, 2, 3, 1), rows, columns).permute(0, 3, 1, 2)


@lru_cache(maxsize=256)
def _shrinking(size: int, new: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    # Kept from call to call, so it must not be a tensor that only inference may use.
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


def rescale_each(
    x: Tensor,
    factors: Tensor,
    size: tuple[int, int] | None = None,
    *,
    antialias: bool = True,
    kernel: Kernel = "bicubic",
    outside: Outside = "zeros",
) -> Tensor:
    """Every map of a batch larger or smaller about its centre, each by a factor of its own.

    What :func:`nearfar.pyramid.resample` gives map by map, in two batched matrix products; on any device, and
    differentiable by the maps and by the factors.

    Args:
        x: ``[B, C, H, W]``, floating point.
        factors: ``[B]``, positive; 2 makes a map twice as large.
        size: height and width of the result, on whose centre the maps lie; default: those of ``x``.
        antialias: widen the kernel where a map becomes smaller.
        kernel, outside: as in :func:`nearfar.pyramid.resample`.

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
