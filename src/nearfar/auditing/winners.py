"""Which scale won where in the SI-layers of a net, without changing the net."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from nearfar.functional import si_conv2d
from nearfar.layers import SIConv2d

__all__ = ["winner_maps"]


def winner_maps(model: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """For each SI-layer and place, the scale at which the layer's filters answered.

    Each channel has its winner; a place gets the mean (on the logarithmic axis) of its channels'
    winning scales. A channel counts by how far its winner stands above the mean of all scales, and
    only if it fires (is positive): on an empty background all scales tie, and none has won. Places
    where nothing stands out have no winner.

    Args:
        model: any net with ``SIConv2d`` layers that reduce by ``max``.
        images: ``[B, C, H, W]``.

    Returns:
        By layer name, ``[B, H', W']`` scales; NaN where nothing answers. Empty for a net without
        SI-layers.

    Source: A. Akbari, Fig. 4.
    """
    maps: dict[str, Tensor] = {}

    def watch(name: str) -> Any:
        def hook(layer: SIConv2d, inputs: tuple[Tensor], output: Tensor) -> None:
            answer, winner = layer.forward_with_winner(inputs[0])
            logs = torch.tensor(layer.scales, device=answer.device).log2()
            mean_answer = si_conv2d(
                inputs[0], layer.weight, layer.bias, **{**layer.settings(), "reduce": "mean"}
            )
            weight = torch.where(answer > 0, (answer - mean_answer).clamp(min=0), 0.0)
            total = weight.sum(dim=1)
            mean = (weight * logs[winner.long()]).sum(dim=1) / total
            # What is fifty times weaker than the strongest place is background.
            quiet = total <= 0.02 * total.amax(dim=(1, 2), keepdim=True)
            maps[name] = torch.where(quiet, torch.nan, mean.exp2())

        return hook

    hooks = [
        layer.register_forward_hook(watch(name))
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
