"""What a wrapper gained and costs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from nearfar.auditing.intervals import Z
from nearfar.deploy.conversion_result import ConvertResult
from nearfar.wrapping import CandidateLevels, Choice

__all__ = ["WrapResult"]


@dataclass(frozen=True, kw_only=True)
class WrapResult(ConvertResult):
    """A network over several sizes, held against what it was; all of a conversion's result, and more.

    Attributes:
        choice: which levels vote, how, and how they were judged where they were chosen.
        levels: that were chosen from.
        budget: how many times the network's own multiplications an image might cost in the mean.
        cost: what it costs in the mean over the held-out images at all sizes, as a share of the
            network's own multiplications.
        sizes: at which things were to be known.
        images: on how many images the levels were chosen.
    """

    choice: Choice
    levels: CandidateLevels
    budget: float
    cost: float
    sizes: tuple[float, ...]
    images: int

    @property
    def gain(self) -> tuple[float, float]:
        """How much more is right than before, a mean over the sizes on held-out images, as a fraction.

        Returns:
            The gain, and the half width of its 95 % interval (images are paired).
        """
        assert self.audit is not None, "a wrapper is compared"
        own, before = (
            torch.stack([self.audit.results[name].curve.right(s) for s in self.sizes])
            .double()
            .mean(0)
            for name in ("converted", "original")
        )
        ahead = own - before
        spread = float(ahead.std()) if len(ahead) > 1 else math.inf
        return float(ahead.mean()), Z * spread / math.sqrt(len(ahead))

    @property
    def remedy(self) -> str:
        """As the base class says."""
        return "Choose on more images, give a larger budget, or allow more with max_loss."

    def as_dict(self) -> dict[str, Any]:
        """As of a conversion, with the choice, the gain and the cost."""
        gain, half = self.gain
        scales = [self.levels.levels[i].scale for i in self.choice.structure.order]
        return super().as_dict() | {
            "schema": "nearfar.wrap/1",
            "gain": [gain, gain - half, gain + half],
            "sizes": list(self.sizes),
            "cost": self.cost,
            "budget": self.budget,
            "chosen_on": self.images,
            "tried": self.choice.tried,
            "levels": [
                {"scale": x.scale, "size": list(x.size), "cost": x.cost} for x in self.levels.levels
            ],
            "choice": {
                "scales": scales,
                "reduction": self.choice.structure.reduction,
                "temperature": self.choice.temperature,
                "threshold": self.choice.threshold,
                "cost": self.choice.cost,
                "accuracy": self.choice.accuracy,
                "base_accuracy": self.choice.base_accuracy,
            },
        }
