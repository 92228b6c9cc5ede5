"""SIConv2d: one filter over several scales of the input, the strongest answer kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import torch
from torch import Tensor, nn

from nearfar.errors import InputError
from nearfar.functional import Reduce, si_conv2d
from nearfar.grid import Padding, Window
from nearfar.layers.receptive_field import AxisField, ScaleLayer, over_scales
from nearfar.pyramid import Pyramid
from nearfar.scale_sets import ScaleSet, as_scales

__all__ = ["SIConv2d"]


class SIConv2d(ScaleLayer, nn.Conv2d):
    """Scale-invariant convolution layer (SI-layer).

    .. math:: h = \\max_i T_i^{-1}\\bigl(W * T_i(x) + b\\bigr)

    It *is* a ``torch.nn.Conv2d`` with the same arguments, weights, initialisation and state dict,
    and takes a plain convolution's place without a new parameter.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias,
            padding_mode, device, dtype: as in ``torch.nn.Conv2d``.
        scales: at which scales the filter meets the input (see
            :func:`nearfar.functional.si_conv2d`).
        antialias: average where a level is made smaller.
        reduce: ``max``, ``mean`` or ``logsumexp`` over the scales.

    Shape:
        ``[B, C_in, H, W]`` → ``[B, C_out, H', W']``, the shape of the plain convolution's output.

    Raises:
        InputError: bad scales or ``reduce``.

    Limits:
        Invariance ends where the set of scales ends, and at the borders, where zero padding looks
        different at each scale. By definition it multiplies about the sum of the squared scales as
        often as the plain convolution; what it takes is less, the less the more input channels it
        has (docs/operators_cost.md). Tools that take every ``Conv2d`` for linear, such as
        ``torch.nn.utils.fuse_conv_bn_eval``, must not be used on it.

    Source: A. Akbari, "ImageNet Object Recognition with Scale-Invariant Deep Convolutional Neural
    Network", §II-A.2 and eq. 3–5.
    """

    scales: tuple[float, ...]

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
        scales: ScaleSet = "octave",
        antialias: bool = True,
        reduce: Reduce = "max",
    ) -> None:
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
        super().__init__(in_channels, out_channels, *plain)
        if reduce not in get_args(Reduce):
            raise InputError(f"reduce must be one of {', '.join(get_args(Reduce))}, got {reduce!r}")
        self.scales = as_scales(scales)
        self.antialias = antialias
        self.reduce: Reduce = reduce

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = si_conv2d(x, self.weight, self.bias, **self.settings())
        return output

    def forward_with_winner(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The output, and the index into ``scales`` that won at each of its elements (``uint8``).

        Raises:
            InputError: the layer does not reduce by ``max``.
        """
        return si_conv2d(x, self.weight, self.bias, return_winner=True, **self.settings())

    def settings(self) -> dict[str, Any]:
        """The keyword arguments with which the layer calls ``nearfar.functional.si_conv2d``."""
        return {
            "stride": self.stride,
            "padding": self.padding,
            "dilation": self.dilation,
            "groups": self.groups,
            "padding_mode": self.padding_mode,
            "scales": self.scales,
            "antialias": self.antialias,
            "reduce": self.reduce,
        }

    def receptive_field(
        self, x: Tensor | Pyramid, fields: Sequence[AxisField], axis: int
    ) -> list[AxisField]:
        assert isinstance(x, Tensor)
        window = Window.of(self)
        return [over_scales(fields[0], x, self.scales, window, axis, self.antialias)]

    def extra_repr(self) -> str:
        plain = super().extra_repr()  # type: ignore[no-untyped-call]
        return f"{plain}, scales={self.scales}, antialias={self.antialias}, reduce={self.reduce!r}"
