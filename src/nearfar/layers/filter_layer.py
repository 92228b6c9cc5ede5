"""FilterLayer: what layers over scales with filters of their own have in common, beside no ``nn.Conv2d``."""

from __future__ import annotations

import math

import torch
from torch import nn

from nearfar.errors import InputError
from nearfar.layers.receptive_field import ScaleLayer

__all__ = ["FilterLayer", "check_channels"]


def check_channels(in_channels: int, out_channels: int, groups: int, scale_extent: int) -> None:
    """Refuses numbers below 1, and channels that groups do not divide.

    Raises:
        InputError: they are.
    """
    if min(in_channels, out_channels, groups, scale_extent) < 1:
        raise InputError(
            f"channels, groups and scale_extent must be at least 1, got in_channels={in_channels}, "
            f"out_channels={out_channels}, groups={groups}, scale_extent={scale_extent}"
        )
    if in_channels % groups or out_channels % groups:
        raise InputError(
            f"groups={groups} must divide in_channels={in_channels} and out_channels={out_channels}"
        )


class FilterLayer(ScaleLayer, nn.Module):
    """Base of layers with a ``weight`` ``[C_out, C_in / groups, …]`` of another form than a convolution's."""

    bias: nn.Parameter | None

    def make_parameters(
        self,
        shape: tuple[int, ...],
        bias: bool,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
    ) -> None:
        """Makes ``weight`` of a shape and ``bias``, and draws them."""
        self.weight = nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
        if bias:
            self.bias = nn.Parameter(torch.empty(shape[0], device=device, dtype=dtype))
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """The initialisation of torch's convolutions with as many inputs a filter."""
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            bound = 1 / math.sqrt(self.weight[0].numel())
            nn.init.uniform_(self.bias, -bound, bound)
