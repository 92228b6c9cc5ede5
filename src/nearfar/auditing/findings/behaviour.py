"""Sentences about one recogniser: its confidence, its classes, its flips, its layers."""

from __future__ import annotations

import itertools
import math
from statistics import NormalDist

import torch
from torch import Tensor

from nearfar.auditing.accuracy import ScaleCurve
from nearfar.auditing.findings.words import listed, percent, sizes
from nearfar.auditing.result import Flips, LayerScores

__all__ = ["class_sentence", "confidence_sentence", "flip_sentence", "layer_sentence"]

_Z = NormalDist().inv_cdf(0.975)
_WORTH_SAYING = 0.05
_NAMED_CLASSES = 3


def confidence_sentence(name: str, curve: ScaleCurve) -> str | None:
    """At which sizes a recogniser is surer than right, by at least five points and beyond chance."""
    if curve.confidence is None:
        return None
    over: list[tuple[float, float]] = []
    for scale in sorted(curve.scales):
        sure = curve.confidence[curve.scales.index(scale)].double()
        gap = sure - curve.right(scale).double()
        mean, half = float(gap.mean()), _Z * _error(gap)
        if mean >= _WORTH_SAYING and mean - half > 0:
            over.append((scale, mean))
    if not over:
        return None
    worst = max(over, key=lambda item: item[1])[0]
    where = sizes([s for s, _ in over], curve.scales)
    most = "" if len(over) == 1 else f", most at {worst:g}×"
    return (
        f"{name} is surer than it should be at {where}{most}: there it is "
        f"{percent(curve.figure('confidence', worst))} sure on average and right on "
        f"{percent(curve.accuracy(worst))} of the images."
    )


def class_sentence(name: str, curve: ScaleCurve, class_names: tuple[str, ...]) -> str | None:
    """Which classes lose more than the rest beyond chance, as often as classes were compared."""
    one = curve.reference
    others = [s for s in curve.scales if s != one]
    if not others or len(class_names) < 3:
        return None
    kept = torch.stack([curve.right(s).double() for s in others]).mean(dim=0)
    lost = curve.right(one).double() - kept
    # Bonferroni: of many classes one stands out by chance.
    z = NormalDist().inv_cdf(1 - 0.025 / len(class_names))
    found: list[tuple[float, str]] = []
    for place, label in enumerate(class_names):
        mine = curve.labels == place
        if int(mine.sum()) < 2 or int((~mine).sum()) < 2:
            continue
        more = float(lost[mine].mean() - lost[~mine].mean())
        if more > z * math.hypot(_error(lost[mine]), _error(lost[~mine])):
            found.append((float(lost[mine].mean()), label))
    if not found:
        return None
    found = sorted(found, key=lambda item: (-item[0], item[1]))[:_NAMED_CLASSES]
    labels, losses = [label for _, label in found], [f"{100 * loss:.0f}" for loss, _ in found]
    what = "the class that loses" if len(found) == 1 else "the classes that lose"
    verb = "is" if len(found) == 1 else "are"
    return (
        f"For {name}, {what} most {verb} {listed(labels)}: {listed(losses)} points on average over the "
        f"other sizes, where all images together lose {100 * float(lost.mean()):.0f}."
    )


def flip_sentence(name: str, flips: Flips | None) -> str | None:
    """By which size half of the answers are others, with the 95 % interval of that size."""
    if flips is None or len(flips.images) < 10:
        return None
    smaller = _half(1 / flips.smaller)
    larger = _half(flips.larger)
    parts, stays = [], []
    if smaller is None and flips.lowest < 1:
        stays.append(f"down to {flips.lowest:g}×")
    elif smaller is not None:
        middle, low, high = (1 / factor for factor in smaller)
        parts.append(f"shrinks to {_interval(middle, high, low, flips.lowest)}")
    if larger is None and flips.highest > 1:
        stays.append(f"up to {flips.highest:g}×")
    elif larger is not None:
        parts.append(f"grows to {_interval(*larger, flips.highest)}")
    count = len(flips.images)
    if not parts and not stays:
        return None
    if not parts:
        return (
            f"More than half of {name}'s answers stay the same {listed(stays)}, on {count} images."
        )
    said = f"Half of {name}'s answers have changed when the thing {' or '.join(parts)}, on {count} images"
    rest = f"; more than half stay the same {listed(stays)}" if stays else ""
    return f"{said}{rest}."


def layer_sentence(name: str, layers: LayerScores | None) -> str | None:
    """Where the invariance score falls most from one layer to the next."""
    if layers is None:
        return None
    known = [
        (layer, score)
        for layer, score in zip(layers.names, layers.invariance, strict=True)
        if math.isfinite(score)
    ]
    if len(known) < 2:
        return None
    steps = [(b - a, i) for i, ((_, a), (_, b)) in enumerate(itertools.pairwise(known))]
    fall, at = min(steps)
    if fall >= 0:
        (first, low), (last, high) = known[0], known[-1]
        return (
            f"The invariance score of {name} falls at no layer: it is {low:.1f} in {first} and "
            f"{high:.1f} in {last}, on {layers.images} images."
        )
    return (
        f"The invariance score of {name} falls most in {known[at + 1][0]}: from {known[at][1]:.1f} in "
        f"{known[at][0]} to {known[at + 1][1]:.1f}, on {layers.images} images."
    )


def _error(values: Tensor) -> float:
    """The standard error of the mean."""
    return float(values.std() / math.sqrt(len(values))) if len(values) > 1 else math.inf


def _half(flipped_at: Tensor) -> tuple[float, float, float] | None:
    """The factor by which half have flipped and its 95 % interval, by ranks; ``inf`` beyond the search."""
    factors = flipped_at.double().nan_to_num(nan=math.inf).sort().values.tolist()
    count = len(factors)
    middle = factors[(count - 1) // 2]
    if math.isinf(middle):
        return None
    # As many lie below the median as heads among so many coins.
    rank = max(0, math.floor((count - _Z * math.sqrt(count) - 1) / 2))
    return middle, factors[rank], factors[count - 1 - rank]


def _interval(middle: float, low: float, high: float, end: float) -> str:
    """``0.82× (95 % interval 0.79× to 0.85×)``; an end beyond the search is named by its limit."""
    ends = [
        f"{value:.2f}×" if math.isfinite(value) and value > 0 else f"beyond {end:g}×"
        for value in (low, high)
    ]
    return f"{middle:.2f}× (95 % interval {ends[0]} to {ends[1]})"
