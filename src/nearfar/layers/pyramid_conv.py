"""PyramidConv2d: a few filters at several scales, their outputs concatenated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nearfar.errors import InputError
from nearfar.functional import pyramid_conv2d
from nearfar.grid import Padding, Window
from nearfar.layers.receptive_field import AxisField, ScaleLayer, over_scales
from nearfar.pyramid import Pyramid

__all__ = ["PyramidConv2d"]


class PyramidConv2d(ScaleLayer, nn.Conv2d):
    """Pyramid layer, step 1: multi-scale features with 1/S of a convolution's parameters.

    .. math:: y = \\mathrm{concat}_i\\, T_i^{-1}\\bigl(W * T_i(x) + b\\bigr), \\quad i = 0 … S - 1

    ``out_channels / S`` filters meet the input at scales 1, 1/2, 1/4 … and their outputs fill the
    output's channels, level-major: the scale axis sits in the channels.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias,
            padding_mode, device, dtype: as in ``torch.nn.Conv2d``.
        levels: S, the number of scales; must divide ``out_channels``.
        antialias: average where a level is made smaller.

    Shape:
        ``[B, C_in, H, W]`` → ``[B, C_out, H', W']``. ``weight`` is ``[C_out / S, C_in / groups,
        k_h, k_w]`` and ``bias`` is ``[C_out / S]``.

    Raises:
        InputError: ``levels`` is below 1 or does not divide ``out_channels``.

    Limits:
        It sees several scales but does not slide over them: a thing at another size lights other
        channels, and what follows must have learnt both. The coarsest level needs an input of at
        least ``2^(S-1)`` kernels.

    Source: "Convolution over a scale pyramid", §3 step 1 and §5.5; layers with 4, 3 and 2 levels
    have the 1/4, 1/3 and 1/2 of the parameters given there.
    """

    contract = (
        "the image halved, the answer is halved and moves one block of channels on: block i is what block "
        "i + 1 of the image was"
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
        levels: int = 4,
        antialias: bool = True,
    ) -> None:
        if levels < 1 or out_channels % levels:
            raise InputError(
                f"out_channels must be a multiple of levels, got out_channels={out_channels} and "
                f"levels={levels}; take {max(levels, 1) * max(1, out_channels // max(levels, 1))} "
                f"channels or another number of levels"
            )
        plain: Any = (
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            bias,
            padding_mode,
            device,
            dtype,
        )
        super().__init__(in_channels, out_channels // levels, *plain)
        # The parent knows the filters; to the net, the layer has S times as many channels.
        self.out_channels = out_channels
        self.levels = levels
        self.scales = tuple(0.5**i for i in range(levels))
        self.antialias = antialias

    def forward(self, x: Tensor) -> Tensor:
        return pyramid_conv2d(
            x,
            self.weight,
            self.bias,
            self.stride,
            self.padding,  # type: ignore[arg-type]
            self.dilation,
            self.groups,
            scales=self.scales,
            antialias=self.antialias,
            padding_mode=self.padding_mode,
        )

    def parts(self, y: Tensor) -> list[tuple[float | None, Tensor]]:
        return list(zip(self.scales, y.chunk(self.levels, dim=-3), strict=True))

    def receptive_field(
        self, x: Tensor | Pyramid, fields: Sequence[AxisField], axis: int
    ) -> list[AxisField]:
        assert isinstance(x, Tensor)
        window = Window.of(self)
        return [over_scales(fields[0], x, self.scales, window, axis, self.antialias)]

    def extra_repr(self) -> str:
        plain = super().extra_repr()  # type: ignore[no-untyped-call]
        return f"{plain}, levels={self.levels}, antialias={self.antialias}"
