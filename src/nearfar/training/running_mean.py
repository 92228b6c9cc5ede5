"""A running mean of a network's weights."""

from __future__ import annotations

import torch
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor, nn

__all__ = ["RunningMean"]


class RunningMean(ModelEmaV3):
    """timm's, for networks that use some weights in several places: it would move those several times.

    Args:
        model: whose weights; ``module`` becomes a copy of it that is not trained.
        decay: d of ``mean ← d · mean + (1 − d) · weights``; buffers of whole numbers are copied.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model, decay=decay)
        self.module.requires_grad_(False)

    def apply_update_(self, model: nn.Module, decay: float) -> None:
        """Moves every tensor once."""
        moved: set[int] = set()
        means: list[Tensor] = []
        values: list[Tensor] = []
        now = model.state_dict()
        for name, mean in self.module.state_dict(keep_vars=True).items():
            if id(mean) in moved:
                continue
            moved.add(id(mean))
            if mean.is_floating_point():
                means.append(mean.detach())
                values.append(now[name])
            else:
                mean.copy_(now[name])
        torch._foreach_lerp_(means, values, weight=1 - decay)
