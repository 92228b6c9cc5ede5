"""A scale by its level, in channels-last: rescale, convolve, and the adjoints of both; layouts, portions.

What the two fast paths have in common: :mod:`nearfar.kernels.si_max` and
:mod:`nearfar.kernels.pyramid_concat`.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from nearfar.kernels.plan import Level, SIPlan
from nearfar.resampling import reading_matrix, through

__all__ = [
    "convolve",
    "convolve_adjoint",
    "is_channels_last",
    "portions",
    "rescale",
    "rescale_adjoint",
]

#: Output elements a portion: 2 MiB of floats, small against a batch and large against the cost of a call.
_PORTION = 1 << 19


def is_channels_last(x: Tensor, weight: Tensor) -> bool:
    """Whether an output is to be channels-last: where either argument is, as with torch's convolution.

    A network whose weights were brought to channels-last then stays in that layout from its first
    layer on, whatever the layout of the images.
    """
    layout = torch.channels_last
    # Contiguous is asked first, since maps of one channel are both.
    return any(not t.is_contiguous() and t.is_contiguous(memory_format=layout) for t in (x, weight))


def portions(out: Tensor) -> Iterator[slice]:
    """The batch in parts that stay in the cache; on a GPU, whole."""
    batch, one = out.shape[0], max(1, out[:1].numel())
    images = max(1, _PORTION // one) if out.device.type == "cpu" else max(1, batch)
    return (slice(first, first + images) for first in range(0, batch, images))


def rescale(x: Tensor, level: Level, plan: SIPlan) -> Tensor:
    """The input at the level's scale, ``[B, H, W, C]`` → ``[B, H', W', C]``."""
    if level.grid == plan.base:
        return x
    return through(x, *_rescaling_matrices(level, plan, x))


def rescale_adjoint(g: Tensor, level: Level, plan: SIPlan) -> Tensor:
    """The gradient in the input, from that in the level."""
    if level.grid == plan.base:
        return g
    rows, columns = _rescaling_matrices(level, plan, g)
    return through(g, rows.mT, columns.mT)


def _rescaling_matrices(level: Level, plan: SIPlan, like: Tensor) -> list[Tensor]:
    cache = level.rows.cache
    key = ("level", like.dtype, like.device)
    if key not in cache:
        antialias = plan.composition.antialias
        cache[key] = [
            reading_matrix(plan.base[a], level.grid[a], antialias).to(like) for a in (0, 1)
        ]
    matrices: list[Tensor] = cache[key]
    return matrices


def convolve(level: Tensor, weight: Tensor, plan: SIPlan) -> Tensor:
    """The convolution on a level: ``[B, H', W', C_in]`` → ``[B, C_out, H'', W'']`` in channels-last."""
    window, groups = plan.composition.window, plan.composition.groups
    padding = (window.padding[0][0], window.padding[1][0])
    x = level.permute(0, 3, 1, 2)
    y = F.conv2d(x, weight, None, window.stride, padding, window.dilation, groups)
    return y.contiguous(memory_format=torch.channels_last)


def convolve_adjoint(
    g: Tensor, level: Tensor, weight: Tensor, plan: SIPlan, needed: tuple[bool, bool]
) -> tuple[Tensor, Tensor]:
    """Its gradients in the level (``[B, H', W', C_in]``) and in the weight; only those needed."""
    window, groups = plan.composition.window, plan.composition.groups
    gradients = torch.ops.aten.convolution_backward(
        g.permute(0, 3, 1, 2),
        level.permute(0, 3, 1, 2),
        weight,
        None,
        list(window.stride),
        [window.padding[0][0], window.padding[1][0]],
        list(window.dilation),
        False,
        [0, 0],
        groups,
        [*needed, False],
    )
    return gradients[0].permute(0, 2, 3, 1) if needed[0] else g, gradients[1]
