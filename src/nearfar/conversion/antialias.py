"""``antialias``: what halves a map blurs it first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from nearfar.conversion.layerwise import PATCHES, LayerMethod
from nearfar.conversion.method import register_method
from nearfar.conversion.replacement import take_over
from nearfar.layers import AntialiasedConv2d, AntialiasedMaxPool2d
from nearfar.layers.antialiased import refused

__all__ = ["Antialiasing"]


@register_method("antialias")
@dataclass(frozen=True)
class Antialiasing(LayerMethod):
    """Convolutions and maximum pools with a stride blur before they leave samples out.

    Args:
        layers: which layers with a stride, by patterns of their names (``layer3.*``); one that begins with
            ``!`` leaves out. Default: all but patches.
    """

    kinds: ClassVar[tuple[type[nn.Module], ...]] = (nn.Conv2d, nn.MaxPool2d)

    def is_meant(self, layer: nn.Module) -> bool:
        """Whether it leaves samples out."""
        return set(_strides(layer)) != {1}

    def refusal(self, layer: nn.Module) -> str:
        """Why a layer with a stride stays what it is."""
        if isinstance(layer, (AntialiasedConv2d, AntialiasedMaxPool2d)):
            return "it is antialiased already"
        if type(layer) not in self.kinds:
            return ""
        if isinstance(layer, nn.MaxPool2d):
            indices = "it returns indices, which blurred maxima do not have"
            return indices if layer.return_indices else ""
        assert isinstance(layer, nn.Conv2d)
        patches = layer.kernel_size == layer.stride and layer.kernel_size != (1, 1)
        return PATCHES if patches and not self.names_layers else refused(layer)

    def describe(self, layer: nn.Module) -> str:
        """Its class and stride."""
        return f"{type(layer).__name__}, stride {_strides(layer)[0]}"

    def becomes(self, layer: nn.Module) -> str:
        """The same, with the blur."""
        kind = type(layer).__name__
        return f"the same, blurred by (¼, ½, ¼) before samples are left out ({kind})"

    def replacement(self, layer: nn.Module) -> nn.Module:
        """The antialiased convolution or pool."""
        if isinstance(layer, nn.MaxPool2d):
            pool = AntialiasedMaxPool2d(
                layer.kernel_size,
                layer.stride,
                layer.padding,
                layer.dilation,
                ceil_mode=layer.ceil_mode,
            )
            return take_over(layer, pool)
        assert isinstance(layer, nn.Conv2d)
        conv = AntialiasedConv2d(
            layer.in_channels,
            layer.out_channels,
            layer.kernel_size,
            layer.stride,
            layer.padding,
            groups=layer.groups,
            bias=layer.bias is not None,
            device="meta",
            dtype=layer.weight.dtype,
        )
        return take_over(layer, conv)


def _strides(layer: nn.Module) -> tuple[int, int]:
    stride = layer.stride
    assert isinstance(stride, (int, tuple)), "as convolutions and pools have it"
    return stride if isinstance(stride, tuple) else (stride, stride)
