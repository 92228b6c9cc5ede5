"""The most confident wrong predictions for images that are recognised at the reference."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nearfar.auditing.accuracy import ScaleCurve
from nearfar.auditing.audited_images import AuditedImages
from nearfar.auditing.audited_models import AuditedModel
from nearfar.auditing.axes import AuditAxis
from nearfar.auditing.result import Failure
from nearfar.data.preprocess import Images

__all__ = ["find_failures"]

_MOST = 12
_CONFIDENT = 0.5


def find_failures(
    model: AuditedModel,
    images: AuditedImages,
    curve: ScaleCurve,
    axis: AuditAxis,
    most: int = _MOST,
) -> tuple[Failure, ...]:
    """Images classified correctly at the reference and most confidently wrongly elsewhere, one entry each.

    Each entry is of the point nearest to the reference where the wrong class has at least half of the
    probability (or, where none has, as much as the most confident).

    Args:
        model: under audit.
        images: of the audit; these few are read again.
        curve: its predictions, with their confidence.
        axis: of the audit.
        most: how many at most.

    Returns:
        The most confident first; none where each image has but one size.
    """
    if curve.members is not None:
        return ()
    assert curve.confidence is not None, "an audit records it"
    reference = curve.scales.index(curve.reference)
    right = curve.predictions == curve.labels
    confidence = torch.where(~right & right[reference], curve.confidence, -1.0)
    highest = confidence.max(dim=0).values
    chosen = highest.argsort(descending=True, stable=True)[:most]
    chosen = chosen[highest[chosen] >= 0]
    if not len(chosen):
        return ()
    by_distance = sorted(
        range(len(curve.scales)),
        key=lambda k: (abs(math.log(curve.scales[k] / curve.scales[reference])), curve.scales[k]),
    )
    originals = images.read(chosen)
    recognised = _show(axis, model, originals, curve.reference)
    failures = []
    for j, i in enumerate(chosen.tolist()):
        enough = min(_CONFIDENT, float(highest[i]))
        k = next(k for k in by_distance if confidence[k, i] >= enough)
        failures.append(
            Failure(
                index=i,
                scale=curve.scales[k],
                label=int(curve.labels[i]),
                answer=int(curve.predictions[k, i]),
                confidence=float(confidence[k, i]),
                recognised_image=recognised[j].clone(),
                failed_image=_show(axis, model, originals[j : j + 1], curve.scales[k])[0].clone(),
            )
        )
    return tuple(failures)


def _show(axis: AuditAxis, model: AuditedModel, images: Images, point: float) -> Tensor:
    return axis.show(model, axis.prepare(images, point), point)
