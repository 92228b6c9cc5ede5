"""How the papers draw a network's first weights."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

from torch import nn

from nearfar.layers import ScaleLayer

__all__ = ["draw_weights", "reset_gaussian", "reset_he"]

_WEIGHTED = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear, ScaleLayer)


def reset_he(net: nn.Module) -> None:
    """MSR initialisation of every convolution for ReLUs, N(0, 2 / fan-in); zero biases.

    Source: K. He et al. 2015, "Delving Deep into Rectifiers", eq. 10; "Convolution over a scale
    pyramid" §5.4 could not train without it.
    """
    for module in net.modules():
        if isinstance(module, (nn.Conv2d, ScaleLayer)) and hasattr(module, "weight"):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def reset_gaussian(net: nn.Module, ones: Collection[nn.Module] = (), std: float = 0.01) -> None:
    """N(0, std²) for the weights of every convolution and dense layer; biases 0, or 1 in ``ones``.

    Source: A. Akbari, Table II (std 0.01; biases 1 in convolutions 2, 4 and 5).
    """
    for module in net.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.normal_(module.weight, std=std)
            if module.bias is not None:
                nn.init.constant_(module.bias, float(any(module is one for one in ones)))


def draw_weights(net: nn.Module, init: Literal["default", "he", "normal"]) -> None:
    """Draws the weights of convolutions and dense layers anew, as a recipe asks; other layers stay.

    Args:
        net: changed in place, with torch's global generator.
        init: ``default`` leaves everything; ``he`` is N(0, 2 / fan-in), ``normal`` N(0, 0.01²). Biases
            become 0.
    """
    if init == "default":
        return
    for module in net.modules():
        if not (isinstance(module, _WEIGHTED) and hasattr(module, "weight")):
            continue
        if init == "he":
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        else:
            nn.init.normal_(module.weight, std=0.01)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
