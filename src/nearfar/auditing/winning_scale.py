"""Which scale won where in the SI-layers of a net, by hooks: the net is not changed."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from nearfar.functional import si_conv2d
from nearfar.layers import SIConv2d

__all__ = ["winner_maps"]

#: A position this many times weaker than the strongest is background.
_BACKGROUND = 0.02


def winner_maps(model: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """For each SI-layer and position, the scale at which the layer's filters responded most strongly.

    Each channel has its winning scale; a position gets the mean (on the logarithmic axis) over the
    channels. A channel's weight is how far its maximum exceeds its mean over the scales, and zero unless
    it fires (is positive): on an empty background all scales tie, and none has won. Positions where
    nothing stands out have no winner.

    Args:
        model: any net with ``SIConv2d`` layers that reduce by ``max``.
        images: ``[B, C, H, W]``.

    Returns:
        By layer name, ``[B, H', W']`` scales; NaN where there is no winner. Empty for a net without
        SI-layers.

    Source: A. Akbari, Fig. 4.
    """
    maps: dict[str, Tensor] = {}

    def hook_for(name: str) -> Callable[[SIConv2d, tuple[Tensor], Tensor], None]:
        def hook(layer: SIConv2d, inputs: tuple[Tensor], output: Tensor) -> None:
            maximum, winner = layer.forward_with_winner(inputs[0])
            logs = torch.tensor(layer.scales, device=maximum.device).log2()
            mean = si_conv2d(
                inputs[0], layer.weight, layer.bias, **{**layer.settings(), "reduce": "mean"}
            )
            weight = torch.where(maximum > 0, (maximum - mean).clamp(min=0), 0.0)
            total = weight.sum(dim=1)
            log_scale = (weight * logs[winner.long()]).sum(dim=1) / total
            background = total <= _BACKGROUND * total.amax(dim=(1, 2), keepdim=True)
            maps[name] = torch.where(background, torch.nan, log_scale.exp2())

        return hook

    hooks = [
        layer.register_forward_hook(hook_for(name))
        for name, layer in model.named_modules()
        if isinstance(layer, SIConv2d) and layer.reduce == "max"
    ]
    try:
        with torch.inference_mode():
            model(images)
    finally:
        for hook in hooks:
            hook.remove()
    return maps
