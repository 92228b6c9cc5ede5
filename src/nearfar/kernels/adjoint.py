"""The adjoints of resizing, reading and convolving: what carries a gradient back, without a graph."""

from __future__ import annotations

import torch
from torch import Tensor

from nearfar.grid import Grid, Window
from nearfar.pyramid import reading_matrices, resizes

__all__ = ["convolve_adjoint", "resample_adjoint"]


def resample_adjoint(g: Tensor, source: Grid, target: Grid, antialias: bool) -> Tensor:
    """The gradient of ``resample(x, source, target)`` in ``x``, from that of its result."""
    if source == target:
        return g
    size = (source[0].size, source[1].size)
    if not resizes(source, target):
        rows, columns = (m.to(g) for m in reading_matrices(source, target, antialias))
        return torch.matmul(torch.matmul(rows.mT, g), columns)
    new = (target[0].size, target[1].size)
    shape = [g.shape[0], g.shape[1], *size]
    if g.dtype in (torch.float16, torch.bfloat16):
        return resample_adjoint(g.float(), source, target, antialias).to(g.dtype)
    if antialias and (new[0] < size[0] or new[1] < size[1]):
        averaged: Tensor = torch.ops.aten._upsample_bilinear2d_aa_backward(g, new, shape, False)
        return averaged
    sampled: Tensor = torch.ops.aten.upsample_bilinear2d_backward(g, new, shape, False)
    return sampled


def convolve_adjoint(
    g: Tensor, x: Tensor, weight: Tensor, window: Window, groups: int, wanted: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients of a convolution with symmetric zero padding in its input and its weight."""
    padding = [window.padding[0][0], window.padding[1][0]]
    found = torch.ops.aten.convolution_backward(
        g,
        x,
        weight,
        None,
        list(window.stride),
        padding,
        list(window.dilation),
        False,
        [0, 0],
        groups,
        [*wanted, False],
    )
    return found[0], found[1]
