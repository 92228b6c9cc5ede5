"""The figures of every audit; another is one more :func:`register_figure`."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nearfar.auditing.accuracy import ScaleCurve
from nearfar.auditing.figure_registry import Figure, register_figure
from nearfar.auditing.intervals import Z
from nearfar.auditing.wording import percent, sizes

__all__ = ["BINS", "calibration_error"]

#: Bins of confidence of the calibration error, of equal width from 0 to 1.
BINS = 15
_LEAST_GAP = 0.05


def calibration_error(confidence: Tensor, right: Tensor) -> float:
    r"""The expected calibration error: how far confidence is from the share of right predictions.

    .. math:: \mathrm{ECE} = \sum_b \frac{|B_b|}{N} \left| \mathrm{acc}(B_b) - \mathrm{conf}(B_b) \right|

    over 15 bins of confidence of equal width; a bin includes its upper edge. torchmetrics'
    ``binary_calibration_error`` is the same but for confidences of exactly 1, for which it opens a 16th
    bin, and gives no per-image values to resample.

    Args:
        confidence: ``[N]``, from 0 to 1.
        right: ``[N]`` booleans.

    Limits:
        It is above 0 by chance alone, the more so the fewer the images; so are its resampled values.

    Source: M. P. Naeini et al. 2015; 15 bins as in C. Guo et al. 2017.
    """
    return float(_sum_of_gaps(_gaps(confidence, right).mean(dim=0)))


def _gaps(confidence: Tensor, right: Tensor) -> Tensor:
    """``[..., N]`` → ``[..., N, BINS]`` float64: right minus confidence in the image's bin, else 0."""
    gap = right.double() - confidence.double()
    bins = (confidence.double() * BINS).ceil().long().clamp(1, BINS) - 1
    empty = torch.zeros(*gap.shape, BINS, dtype=torch.float64)
    return empty.scatter_(-1, bins[..., None], gap[..., None])


def _sum_of_gaps(means: Tensor) -> Tensor:
    return means.abs().sum(dim=-1)


def _gap_column(curve: ScaleCurve) -> Tensor | None:
    confidence = curve.recorded("confidence")
    return None if confidence is None else _gaps(confidence, curve.predictions == curve.labels)


def _changed(curve: ScaleCurve) -> Tensor:
    return curve.predictions != curve.predictions[curve.scales.index(curve.reference)]


def _largest_probability(logits: Tensor, labels: Tensor) -> Tensor:
    return (logits.amax(dim=1) - logits.logsumexp(dim=1)).exp()


def _in_top5(logits: Tensor, labels: Tensor) -> Tensor:
    among = (logits.topk(5, dim=1).indices == labels[:, None]).any(dim=1)
    return among & logits.isfinite().all(dim=1)


def _overconfidence(name: str, curve: ScaleCurve) -> str | None:
    """At which sizes a model is surer than right, by at least five points and beyond chance."""
    confidence = curve.recorded("confidence")
    if confidence is None:
        return None
    gaps: dict[float, float] = {}
    for scale in sorted(curve.scales):
        at = curve.scales.index(scale)
        own = slice(None) if curve.members is None else curve.members[at]
        gap = confidence[at][own].double() - curve.right(scale).double()
        mean = float(gap.mean())
        error = float(gap.std() / math.sqrt(len(gap))) if len(gap) > 1 else math.inf
        if mean >= _LEAST_GAP and mean - Z * error > 0:
            gaps[scale] = mean
    if not gaps:
        return None
    worst = max(gaps, key=gaps.__getitem__)
    most = "" if len(gaps) == 1 else f", most at {curve.axis.text(worst)}"
    where = sizes(list(gaps), curve.scales, curve.axis)
    return (
        f"{name} is surer than it should be at {where}{most}: there it is "
        f"{percent(curve.figure('confidence', worst))} sure on average and right on "
        f"{percent(curve.accuracy(worst))} of the images."
    )


register_figure(
    Figure("top1", "right answers", column=lambda curve: curve.predictions == curve.labels)
)
register_figure(
    Figure("top5", "right class among the five likeliest", measure=_in_top5, min_classes=6)
)
register_figure(
    Figure(
        "confidence",
        "mean probability of the answer",
        measure=_largest_probability,
        higher_is_better=None,
        in_table=False,  # the report draws it beside the accuracy
        sentence=_overconfidence,
    )
)
register_figure(
    Figure(
        "ece",
        "expected calibration error",
        column=_gap_column,
        statistic=_sum_of_gaps,
        unit="points",
        higher_is_better=False,
        in_table=False,  # it has a table of its own, below that drawing
    )
)
register_figure(
    Figure(
        "flips",
        "answers other than at {reference}",
        column=_changed,
        higher_is_better=False,
        against_reference=True,
    )
)
