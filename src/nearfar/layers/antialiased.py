"""What halves a map without folding fine detail into false patterns: blurred convolution and pooling."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nearfar.errors import InputError
from nearfar.symbolic_sizes import map_size

__all__ = ["AntialiasedConv2d", "AntialiasedMaxPool2d"]


class AntialiasedConv2d(nn.Conv2d):
    """A convolution with a stride that blurs what it computes before it leaves samples out.

    .. math:: y = (b * (W * x + c)) \\downarrow_{stride}

    with the binomial filter ``b`` = (¼, ½, ¼) along both axes. Both filters are convolved with each
    other first, so that it multiplies ``(k + 2)² / k²`` times as often as the plain convolution, not
    ``stride²`` times. It *is* a ``torch.nn.Conv2d`` with the same arguments, weights and state dict.

    Shape:
        ``[B, C_in, H, W]`` → ``[B, C_out, H', W']``, the shape of the plain convolution's output.

    Raises:
        InputError: a dilation, or a padding other than with zeros.

    Limits:
        Beyond the border the plane goes on with zeros, also for the outputs that are blurred in.

    Source: R. Zhang 2019, "Making Convolutional Networks Shift-Invariant Again" (there the blur comes
    after the activation).
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        why = refused(self)
        if why:
            raise InputError(f"AntialiasedConv2d cannot stand for this convolution: {why}")

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = (int(n) + 1 for n in self.padding)
        kernel = _blurred(self.weight)
        return F.conv2d(x, kernel, self.bias, self.stride, (rows, columns), 1, self.groups)


def refused(conv: nn.Conv2d) -> str:
    """Why a convolution cannot be antialiased; empty where it can."""
    if conv.dilation != (1, 1):
        return f"it has a dilation of {conv.dilation}"
    if conv.padding_mode != "zeros" or isinstance(conv.padding, str):
        return f"it pads by {conv.padding_mode!r} and {conv.padding!r}, not with a number of zeros"
    return ""


def _blurred(weight: Tensor) -> Tensor:
    """``[O, I, h, w]`` → ``[O, I, h + 2, w + 2]``: filters convolved with the binomial one."""
    line = _binomial(weight)
    rows = F.pad(weight, (0, 0, 2, 2)).unfold(-2, 3, 1) @ line
    return F.pad(rows, (2, 2)).unfold(-1, 3, 1) @ line


class AntialiasedMaxPool2d(nn.MaxPool2d):
    """A maximum pool that takes every maximum, blurs, and only then leaves samples out.

    The blur is binomial (¼, ½, ¼); beyond the border it meets the nearest sample.

    Args:
        As ``torch.nn.MaxPool2d``, without ``return_indices``.

    Shape:
        As ``torch.nn.MaxPool2d``.

    Raises:
        InputError: ``return_indices``: an output is a mean of several maxima, and has no index.

    Source: R. Zhang 2019, §3.2.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.return_indices:
            raise InputError(
                "AntialiasedMaxPool2d gives means of several maxima, which have no index, got "
                "return_indices=True; keep the plain MaxPool2d where its indices are needed"
            )

    def forward(self, x: Tensor) -> Tensor:
        strides = _pair(self.stride)
        sizes = [
            _pooled(n, k, s, p, d, self.ceil_mode)
            for n, k, s, p, d in zip(
                map_size(x),
                _pair(self.kernel_size),
                strides,
                _pair(self.padding),
                _pair(self.dilation),
                strict=True,
            )
        ]
        dense = F.max_pool2d(x, self.kernel_size, 1, self.padding, self.dilation)
        # What ceil_mode lets hang over the edge.
        over = [
            (m - 1) * s + 1 - n for m, s, n in zip(sizes, strides, map_size(dense), strict=True)
        ]
        edges = (1, 1 + max(0, over[1]), 1, 1 + max(0, over[0]))
        dense = F.pad(dense, edges, mode="replicate")
        line = _binomial(x)
        kernel = (line[:, None] * line).expand(x.shape[-3], 1, 3, 3)
        blurred = F.conv2d(dense, kernel, None, strides, groups=x.shape[-3])
        return blurred[..., : sizes[0], : sizes[1]]


def _binomial(like: Tensor) -> Tensor:
    """(¼, ½, ¼); computed, since a tensor made of numbers is a warning where a network is traced."""
    steps = torch.arange(-1, 2, dtype=like.dtype, device=like.device)
    return (2 - steps.abs()) / 4


def _pair(value: int | tuple[int, ...]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def _pooled(n: int, kernel: int, stride: int, padding: int, dilation: int, ceil: bool) -> int:
    """How many samples a pool gives along an axis of n."""
    spare = n + 2 * padding - dilation * (kernel - 1) - 1
    count = (spare + (stride - 1 if ceil else 0)) // stride + 1
    # With ceil_mode, windows that begin beyond the map are left out.
    return count - 1 if ceil and (count - 1) * stride >= n + padding else count
