"""The surest wrong answers to images that are known at scale 1."""

from __future__ import annotations

import math

import torch

from nearfar.auditing.accuracy import ScaleCurve
from nearfar.auditing.entrants import Entrant
from nearfar.auditing.images import AuditedImages
from nearfar.auditing.result import Failure

__all__ = ["find_failures"]

_MOST = 12
_SURE = 0.5


def find_failures(
    entrant: Entrant, images: AuditedImages, curve: ScaleCurve, most: int = _MOST
) -> tuple[Failure, ...]:
    """Images answered rightly at scale 1 and most surely wrongly at another, one entry each.

    Each is shown at the scale nearest to 1 where the wrong answer has at least half of the probability
    (or, where none has, as much as the surest).

    Args:
        entrant: who answered.
        images: of the audit; these few are read again.
        curve: its answers, with their confidence.
        most: how many at most.

    Returns:
        The surest first.
    """
    assert curve.confidence is not None, "the audit keeps it"
    one = curve.scales.index(curve.reference)
    wrong = (curve.answers != curve.labels) & (curve.answers[one] == curve.labels)
    sure = torch.where(wrong, curve.confidence, -1.0)
    best = sure.max(dim=0).values
    chosen = best.argsort(descending=True, stable=True)[:most]
    chosen = chosen[best[chosen] >= 0]
    if not len(chosen):
        return ()
    by_distance = sorted(
        range(len(curve.scales)),
        key=lambda k: (abs(math.log(curve.scales[k] / curve.scales[one])), curve.scales[k]),
    )
    read = images.read(chosen)
    before = entrant.show(read, curve.scales[one])
    found = []
    for j, i in enumerate(chosen.tolist()):
        enough = min(_SURE, float(best[i]))
        k = next(k for k in by_distance if sure[k, i] >= enough)
        found.append(
            Failure(
                index=i,
                scale=curve.scales[k],
                label=int(curve.labels[i]),
                answer=int(curve.answers[k, i]),
                confidence=float(sure[k, i]),
                before=before[j].clone(),
                shown=entrant.show(read[j : j + 1], curve.scales[k])[0].clone(),
            )
        )
    return tuple(found)
