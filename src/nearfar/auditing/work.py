"""The predictions of an audit, of which there are so many that their number is its progress."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from nearfar.auditing.accuracy import ScaleCurve
from nearfar.auditing.audit_spec import AuditSpec
from nearfar.auditing.audited_images import AuditedImages
from nearfar.auditing.audited_models import AuditedModel
from nearfar.auditing.axes import AuditAxis, AuditPoints
from nearfar.auditing.cost import Cost, cost_of
from nearfar.auditing.flips import find_flips, most_predictions
from nearfar.auditing.layers import MOST_IMAGES, layer_scales, score_layers
from nearfar.auditing.predictions import predict_all
from nearfar.auditing.result import Flips, LayerScores
from nearfar.data.splits import stratified_order
from nearfar.peers import ALONE, Peers
from nearfar.progress import Progress, Step

__all__ = ["AuditWork"]

_FLIPS = 200


class AuditWork:
    """What is measured by predictions.

    Args:
        progress: called after each batch.
        models: the baseline first.
        images: of the audit.
        axis: what changes from point to point.
        points: of the axis.
        spec: what is measured.
        peers: the processes that share the predictions.
        folder: where they lie until the audit is written.
    """

    def __init__(
        self,
        progress: Progress,
        models: Sequence[AuditedModel],
        images: AuditedImages,
        axis: AuditAxis,
        points: AuditPoints,
        spec: AuditSpec,
        peers: Peers = ALONE,
        folder: Path | None = None,
    ) -> None:
        self._spec, self._peers, self._folder = spec, peers, folder
        self.models, self.images, self.axis, self.points = models, images, axis, points
        self.batch_size = spec.batch_size
        self._progress = progress
        self._ends = (min(points.values), max(points.values))
        order = stratified_order(images.labels)
        # With no other scale than 1 there is nowhere to search.
        flips = _FLIPS if spec.flips is None else spec.flips
        flips = flips if axis.zooms and len(points.values) > 1 else 0
        self._flipped, self._layered = order[:flips], order[:MOST_IMAGES]
        self._layers = spec.layers
        self._done = 0
        predictions = len(images) * len(points.asked_at)
        self._predictions = len(models) * predictions
        self._flip_steps = most_predictions(len(self._flipped), *self._ends) if flips else 0
        has_layers = spec.layers is not False and spec.layers != ()
        per_layer = len(self._layered) * (1 + 2 * len(layer_scales(points.values)))
        self._layer_steps = per_layer if has_layers else 0
        each = predictions + self._flip_steps + self._layer_steps
        self._total = len(models) * each

    def predict(self) -> dict[str, ScaleCurve]:
        """All predictions."""
        where = "at every scale" if self.axis.zooms else f"along {self.points.words.name}"

        def answered(count: int, note: str) -> None:
            # What the others have done is estimated by what is done here.
            self._report(f"predicting {where}", min(count, self._predictions - self._done), note)

        return predict_all(
            self.models,
            self.images,
            self.axis,
            self.points,
            self.batch_size,
            answered,
            self._peers,
            self._folder,
            self._spec,
        )

    def flips(self, model: AuditedModel) -> Flips | None:
        """The smallest flipping changes, if they are asked for."""
        if not len(self._flipped):
            return None
        task, end = f"searching flips of {model.name}", self._done + self._flip_steps
        flips = find_flips(
            model,
            self.images,
            self._flipped,
            *(*self._ends, self.batch_size),
            lambda count: self._report(task, count),
        )
        self._report(task, end - self._done)
        return flips

    def layers(self, model: AuditedModel) -> LayerScores | None:
        """Scores by layer, if they are asked for."""
        if not self._layer_steps:
            return None
        task, end = f"looking into {model.name}", self._done + self._layer_steps
        scores = score_layers(
            model,
            self.images,
            self._layered,
            self.points.values,
            self._layers,
            lambda count: self._report(task, count),
        )
        self._report(task, end - self._done)
        return scores

    def cost(self, model: AuditedModel) -> tuple[Cost | None, tuple[str, ...]]:
        """What a network costs at the reference; ``None`` and why where it cannot be counted."""
        return self._cost_at(model, self.points.reference)

    def point_costs(self, model: AuditedModel) -> tuple[int, ...] | None:
        """Its multiplications at each point, where they change from one to the next."""
        if not self.axis.changes_cost:
            return None
        costs = [self._cost_at(model, point)[0] for point in self.points.values]
        counted = tuple(cost.multiplications for cost in costs if cost is not None)
        return counted if len(counted) == len(costs) else None

    def _cost_at(self, model: AuditedModel, point: float) -> tuple[Cost | None, tuple[str, ...]]:
        module = self.axis.model_at(model, point).classifier.module
        if module is None:
            return None, ()
        first = self.axis.prepare(self.images.read(torch.tensor([0])), point)
        image = self.axis.show(model, first, point)[0]
        weight = next((p for p in module.parameters() if p.is_floating_point()), image)
        try:
            return cost_of(module, image.to(weight.device, weight.dtype)), ()
        except Exception as cause:  # anybody's network may hold what is not counted here
            return None, (f"What {model.name} costs could not be counted: {cause}.",)

    def finished(self) -> None:
        """The work is done."""
        self._report("audited", self._total - self._done)

    def _report(self, task: str, count: int, note: str = "") -> None:
        self._done += count
        self._progress(Step(task, self._done, self._total, note))
