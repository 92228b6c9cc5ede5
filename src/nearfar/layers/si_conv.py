"""SIConv2d: one filter over several scales of the input, and the maximum of its outputs."""

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
from nearfar.reference import is_ordinary
from nearfar.scale_sets import ScaleSet, as_scales

__all__ = ["SIConv2d"]

#: By how much filters times a number differ from others, as a share, when that was computed in float32.
_ROUNDING = 1e-5


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
        has (docs/operators_cost.md). A maximum does not turn its sign with its filters', so a batch norm
        with negative weights cannot be fused into the layer: where
        ``torch.nn.utils.fuse_conv_bn_eval`` tries, the layer refuses the weights.

    Source: A. Akbari, "ImageNet Object Recognition with Scale-Invariant Deep Convolutional Neural
    Network", §II-A.2 and eq. 3–5.
    """

    contract = "the image rescaled, the answer is rescaled, as far as the set of scales reaches"
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

    def __setattr__(self, name: str, value: Any) -> None:
        # What fusing a batch norm does, and hardly anything else: the same filters times a number each.
        if name == "weight" and isinstance(value, Tensor) and "reduce" in self.__dict__:
            factors = _factors(self._parameters.get("weight"), value)
            wrong = {"max": factors < 0, "logsumexp": factors != 1}.get(self.reduce)
            if wrong is not None and bool(wrong.any()):
                raise InputError(
                    f"SIConv2d with reduce={self.reduce!r} is not linear: with its filters times "
                    f"{float(factors[wrong][0]):.3g} it would not give its outputs times that; leave the "
                    f"batch norm after it unfused, or write such weights into weight.data"
                )
        super().__setattr__(name, value)

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


def _factors(old: Tensor | None, new: Tensor) -> Tensor:
    """By which number each filter was multiplied; none where some filters are others than before."""
    nothing = torch.empty(0)
    if (
        old is None
        or not is_ordinary(old, new)
        or old.shape != new.shape
        or old[0].numel() < 2
        or not old.is_floating_point()
    ):
        return nothing
    before, after = (
        old.detach().double().flatten(1),
        new.detach().to(old.device).double().flatten(1),
    )
    square, product = before.square().sum(1), (before * after).sum(1)
    factors = torch.where(square > 0, product / square, 1.0)
    same = (after - factors[:, None] * before).norm(dim=1) <= _ROUNDING * after.norm(dim=1)
    if not bool(same.all()):
        return nothing
    return torch.where((factors - 1).abs() <= _ROUNDING, 1.0, factors)
