"""ScaleConv2d, whose filters extend over neighbouring scales and slide over them, and ScalePool, its end."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from nearfar.errors import InputError
from nearfar.functional import check_scale_padding, scale_conv2d
from nearfar.grid import Padding, Window
from nearfar.kernels.composition import check_padding_mode
from nearfar.layers.filter_layer import FilterLayer, check_channels
from nearfar.layers.receptive_field import AxisField, ScaleLayer, convolved
from nearfar.pyramid import How, Pyramid, collapse, expand

__all__ = ["ScaleConv2d", "ScalePool"]

#: The levels of the pyramids on which these layers are checked: half octaves from 2 to 1/4.
HALF_OCTAVES = tuple(round(2 ** (1 - i / 2), 4) for i in range(7))


class ScaleConv2d(FilterLayer):
    """Pyramid layer, step 2: convolution over position *and* scale. Pyramid in, pyramid out.

    .. math:: y_s = \\sum_{k=0}^{K-1} W_k * \\mathrm{resample}(x_{s+k} \\to s) + b

    The same filter is applied at every level, so a pattern made of a large and a small part is
    found at whatever level its size puts it; K = 1 is the plain convolution on every level.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias,
            padding_mode, device, dtype: as in ``torch.nn.Conv2d``, acting alike on every level.
        scale_extent: K, how many neighbouring levels a filter sees.
        scale_padding: ``end`` keeps all levels (those beyond the last count as zero); ``valid``
            keeps the L − K + 1 levels that see the whole filter.
        antialias: average where a level is brought onto a coarser one.

    Shape:
        Pyramid of L levels ``[B, C_in, H_s, W_s]`` → pyramid of L (or L − K + 1) levels
        ``[B, C_out, H'_s, W'_s]``. ``weight`` is ``[C_out, C_in / groups, K, k_h, k_w]``.

    Raises:
        InputError: channels that ``groups`` does not divide, or numbers below 1.

    Source: "Convolution over a scale pyramid", §3 step 2, Fig. 5–7.
    """

    contract = (
        "the image rescaled from one level's scale to another's, each level's answer is that of the other "
        "level; levels whose filter reaches beyond the last are left out"
    )

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        padding: Padding = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        scale_extent: int = 2,
        scale_padding: Literal["end", "valid"] = "end",
        antialias: bool = True,
    ) -> None:
        super().__init__()
        check_channels(in_channels, out_channels, groups, scale_extent)
        check_scale_padding(scale_padding)
        check_padding_mode(padding_mode)
        window = Window.make(kernel_size, stride, padding, dilation)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = window.kernel
        self.stride = window.stride
        self.padding = padding
        self.dilation = window.dilation
        self.groups = groups
        self.padding_mode = padding_mode
        self.scale_extent = scale_extent
        self.scale_padding: Literal["end", "valid"] = scale_padding
        self.antialias = antialias
        shape = (out_channels, in_channels // groups, scale_extent, *window.kernel)
        self.make_parameters(shape, bias, device, dtype)

    def forward(self, x: Pyramid) -> Pyramid:
        return scale_conv2d(
            x,
            self.weight,
            self.bias,
            self.stride,
            self.padding,
            self.dilation,
            self.groups,
            scale_padding=self.scale_padding,
            antialias=self.antialias,
            padding_mode=self.padding_mode,
        )

    def input_for(self, x: Tensor) -> Pyramid:
        return expand(x, HALF_OCTAVES, antialias=self.antialias)

    def whole_levels(self, count: int) -> int:
        return count - (self.scale_extent - 1 if self.scale_padding == "end" else 0)

    def receptive_field(
        self, x: Tensor | Pyramid, fields: Sequence[AxisField], axis: int
    ) -> list[AxisField]:
        assert isinstance(x, Pyramid)
        window = Window.make(self.kernel_size, self.stride, self.padding, self.dilation)
        axes = [grid[axis] for grid in x.grids if grid is not None]
        levels = len(x) - (self.scale_extent - 1 if self.scale_padding == "valid" else 0)
        outputs = []
        for s in range(levels):
            size = window.output_size(axes[s].size, axis)
            neighbours = range(s, min(s + self.scale_extent, len(x)))
            parts = [
                convolved(
                    fields[k].resample(axes[k], axes[s], self.antialias), axes[s].size, window, axis
                )
                for k in neighbours
            ]
            outputs.append(functools.reduce(lambda one, other: one.union(other, size), parts))
        return outputs

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, "
            f"stride={self.stride}, padding={self.padding}, dilation={self.dilation}, "
            f"groups={self.groups}, bias={self.bias is not None}, "
            f"padding_mode={self.padding_mode!r}, scale_extent={self.scale_extent}, "
            f"scale_padding={self.scale_padding!r}, antialias={self.antialias}"
        )


class ScalePool(ScaleLayer, nn.Module):
    """Pools over scale: every level back onto the base grid, then the ``max`` (or another) of them.

    Args:
        how: ``max``, ``mean``, ``sum``, ``logsumexp`` or ``concat``.
        antialias: average where a level is finer than the base grid.

    Shape:
        Pyramid of levels ``[B, C, H_s, W_s]`` → ``[B, C, H, W]`` (``concat``: ``[B, L · C, H, W]``).

    Raises:
        InputError: unknown ``how``.
    """

    contract = (
        "levels of the image rescaled, the pooled map is rescaled, as far as the levels reach"
    )

    def __init__(self, how: How = "max", *, antialias: bool = False) -> None:
        super().__init__()
        if how not in get_args(How):
            raise InputError(f"how must be one of {', '.join(get_args(How))}, got {how!r}")
        self.how: How = how
        self.antialias = antialias

    def forward(self, x: Pyramid) -> Tensor:
        return collapse(x, self.how, antialias=self.antialias)

    def input_for(self, x: Tensor) -> Pyramid:
        return expand(x, HALF_OCTAVES)

    def parts(self, y: Tensor) -> list[tuple[float | None, Tensor]]:
        if self.how != "concat":
            return [(None, y)]
        return list(zip(HALF_OCTAVES, y.chunk(len(HALF_OCTAVES), dim=-3), strict=True))

    def receptive_field(
        self, x: Tensor | Pyramid, fields: Sequence[AxisField], axis: int
    ) -> list[AxisField]:
        assert isinstance(x, Pyramid)
        assert x.base is not None
        target = x.base[axis]
        parts = [
            field.resample(grid[axis], target, self.antialias)
            for field, grid in zip(fields, x.grids, strict=True)
            if grid is not None
        ]
        return [functools.reduce(lambda one, other: one.union(other, target.size), parts)]

    def pooled(self, x: Tensor | Pyramid) -> int:
        assert isinstance(x, Pyramid)
        return 0 if self.how == "concat" else len(x)

    def extra_repr(self) -> str:
        return f"how={self.how!r}, antialias={self.antialias}"
