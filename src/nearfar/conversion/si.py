"""``si``: convolutions become SI-layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from torch import nn

from nearfar.conversion.layerwise import PATCHES, LayerMethod
from nearfar.conversion.method import register_method
from nearfar.conversion.replacement import take_over
from nearfar.grid import Padding
from nearfar.layers import SIConv2d
from nearfar.scale_sets import as_scales

__all__ = ["SILayers"]


@register_method("si")
@dataclass(frozen=True)
class SILayers(LayerMethod):
    """Convolutions become SI-layers with the same weights.

    Args:
        layers: which convolutions, by patterns of their names (``layer3.*``); one that begins with ``!``
            leaves out. Default: all but single points and patches.
        scales: at which scales each filter meets the map.

    Raises:
        InputError: scales that are not positive and finite.
    """

    scales: tuple[float, ...] = (0.75, 1.0, 1.33)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "scales", as_scales(self.scales))

    @property
    def moves_logits(self) -> bool:
        """Yes, but over scale 1 alone an SI-layer is the convolution."""
        return set(self.scales) != {1.0}

    def refusal(self, layer: nn.Module) -> str:
        """Why a convolution stays one."""
        conv = cast(nn.Conv2d, layer)
        if isinstance(conv, SIConv2d):
            return "it is an SI-layer already"
        if self.names_layers or type(conv) is not nn.Conv2d:
            return ""
        if conv.kernel_size == (1, 1):
            return "its filters are single points, which look the same at every scale"
        return PATCHES if conv.kernel_size == conv.stride else ""

    def describe(self, layer: nn.Module) -> str:
        """Its class, kernel and stride."""
        conv = cast(nn.Conv2d, layer)
        rows, columns = conv.kernel_size
        step = f", stride {conv.stride[0]}" if conv.stride != (1, 1) else ""
        return f"{type(conv).__name__} {rows}×{columns}{step}"

    def becomes(self, layer: nn.Module) -> str:
        """An SI-layer over the scales."""
        return f"SI-layer over {', '.join(f'{s:g}' for s in self.scales)}"

    def replacement(self, layer: nn.Module) -> nn.Module:
        """The SI-layer."""
        conv = cast(nn.Conv2d, layer)
        new = SIConv2d(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,
            conv.stride,
            cast(Padding, conv.padding),
            conv.dilation,
            conv.groups,
            conv.bias is not None,
            conv.padding_mode,
            device="meta",
            dtype=conv.weight.dtype,
            scales=self.scales,
        )
        return take_over(conv, new)
