"""First weights that a recipe asks for in place of the network's own."""

from __future__ import annotations

from torch import nn

from nearfar.layers import ScaleLayer
from nearfar.training.fit_spec import Init

__all__ = ["draw_weights"]

_WEIGHTED = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear, ScaleLayer)


def draw_weights(network: nn.Module, init: Init) -> None:
    """Draws the weights of convolutions and dense layers anew; norms and other layers stay.

    Args:
        network: changed in place, with torch's global generator.
        init: ``default`` leaves everything; ``he`` and ``normal`` as :class:`FitSpec` says.
    """
    if init == "default":
        return
    for module in network.modules():
        if not (isinstance(module, _WEIGHTED) and hasattr(module, "weight")):
            continue
        if init == "he":
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        else:
            nn.init.normal_(module.weight, std=0.01)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
