"""What a conversion did."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from nearfar.auditing import Audit
from nearfar.classifiers import Classifier
from nearfar.conversion import Plan

__all__ = ["ConvertResult"]


@dataclass(frozen=True)
class ConvertResult:
    """What a conversion did.

    Attributes:
        classifier: the converted network, its normalisation included.
        plan: what was changed, what was left, and why.
        audit: the ``original`` and the ``converted`` one on the same images; ``None`` without images.
        max_loss: how much accuracy at scale 1 might be lost.
        labelled: whether right is what labels say; otherwise it is what the original answers at scale 1.
        path: the weights, where they were written.
        rebuilt: whether the written weights say what builds their network; where only the caller can, as of
            an ``nn.Module`` given, they are read by ``load_checkpoint(path, network)``.
    """

    classifier: Classifier
    plan: Plan
    audit: Audit | None
    max_loss: float
    labelled: bool
    path: Path | None = None
    rebuilt: bool = True

    @property
    def network(self) -> nn.Module:
        """The converted network: images of values from 0 to 1 → logits."""
        assert self.classifier.module is not None, "it was converted"
        return self.classifier.module

    def right(self, which: str) -> dict[float, float]:
        """Share of right answers by scale, of ``original`` or ``converted``; empty without images."""
        if self.audit is None:
            return {}
        curve = self.audit.results[which].curve
        return {s: curve.accuracy(s) for s in curve.scales}

    @property
    def loss(self) -> float | None:
        """How much less is right at scale 1 than before; ``None`` where nothing was compared."""
        if self.audit is None:
            return None
        return self.right("original")[1.0] - self.right("converted")[1.0]

    @property
    def remedy(self) -> str:
        """What can be done where too much is lost at scale 1, in a sentence."""
        return "Recalibrate, fine-tune (longer), convert fewer layers, or allow more with max_loss."

    @property
    def accepted(self) -> bool | None:
        """Whether no more than ``max_loss`` was lost at scale 1; ``None`` where nothing was compared."""
        return None if self.loss is None else self.loss <= self.max_loss + 1e-12

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON; figures are fractions, keyed by scale."""
        report: dict[str, Any] = {
            "schema": "nearfar.convert/1",
            "method": self.plan.conversion.name,
            "changed": [
                {"layer": c.name, "before": c.before, "after": c.after} for c in self.plan.changes
            ],
            "left": [{"layer": x.name, "what": x.what, "why": x.why} for x in self.plan.left],
            "notes": list(self.plan.notes),
            "idle": list(self.plan.idle),
        }
        if self.audit is None:
            return report
        results = self.audit.results
        return report | {
            "right_means": "labels" if self.labelled else "the original's answer at scale 1",
            "images": len(results["original"].curve.labels),
            "right": {
                name: {f"{s:g}": share for s, share in self.right(name).items()} for name in results
            },
            "interval": {
                name: {f"{s:g}": list(r.curve.interval(s)) for s in r.curve.scales}
                for name, r in results.items()
            },
            "parameters": {n: r.cost.parameters for n, r in results.items() if r.cost},
            "multiplications": {n: r.cost.multiplications for n, r in results.items() if r.cost},
            "loss_at_1": self.loss,
            "max_loss": self.max_loss,
            "accepted": self.accepted,
        }
