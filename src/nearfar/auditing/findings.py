"""The findings of an audit: plain sentences computed from the figures."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from statistics import NormalDist

import torch
from torch import Tensor

from nearfar.auditing.accuracy import ScaleCurve
from nearfar.auditing.figure_registry import registered_figures
from nearfar.auditing.intervals import Z, paired_difference
from nearfar.auditing.result import AuditResult, Flips, LayerScores
from nearfar.auditing.wording import at_size, listed, percent, points, sizes, span
from nearfar.errors import InputError

__all__ = ["audit_findings", "findings"]

_BAND_LOSS = 0.05
_NAMED_CLASSES = 3


def audit_findings(
    results: Mapping[str, AuditResult], baseline: str, max_loss: float
) -> tuple[str, ...]:
    """The findings, in sentences; only what the 95 % intervals bear counts as a difference.

    Args:
        results: by name, all on the same images and scales.
        baseline: the name of the model that the others are compared with.
        max_loss: as a fraction: a model holds where its accuracy falls by at most this.

    Returns:
        First the headline; then, of several models, which holds where and which is ahead; then, for each,
        the sentences of the registered figures (where it is surer than right), which classes lose most,
        how small a change of size flips half of its predictions and which layer loses invariance, as far
        as these were measured.

    Raises:
        InputError: no result, or a baseline that is none of them.
    """
    if baseline not in results:
        raise InputError(f"the baseline must be one of {list(results)}, got {baseline!r}")
    curves = {name: result.curve for name, result in results.items()}
    sentences: list[str | None] = [_headline(curves, baseline, max_loss)]
    rivals = [name for name in curves if name != baseline]
    if rivals:
        one = curves[baseline].reference
        sentences.append(_bands(curves, one, max_loss, each="each"))
        sentences += [_against(name, curves[name], baseline, curves[baseline]) for name in rivals]
    for name, result in results.items():
        sentences += [
            *_figure_sentences(name, result.curve),
            _class_sentence(name, result.curve, result.class_names),
            _flip_sentence(name, result.flips),
            _layer_sentence(name, result.layers),
        ]
    return tuple(sentence for sentence in sentences if sentence)


def findings(curves: Mapping[str, ScaleCurve], baseline: str, trained_at: float = 1.0) -> list[str]:
    """The quickstart's findings, in a few sentences.

    A net counts as ahead or behind only where the 95 % interval of the paired difference on the
    same images excludes zero.

    Args:
        curves: of each net, all on the same images and scales.
        baseline: the net to compare with.
        trained_at: the scale at which all were trained, one of the scales tested.

    Returns:
        First the headline, then the bands, then a sentence for each net but the baseline.
    """
    rivals = [name for name in curves if name != baseline]
    sentences = [_quickstart_headline(curves, baseline, rivals, trained_at)] if rivals else []
    sentences.append(_bands(curves, trained_at, _BAND_LOSS, each="each net"))
    return sentences + [
        _against(name, curves[name], baseline, curves[baseline], helper=True) for name in rivals
    ]


def _headline(curves: Mapping[str, ScaleCurve], baseline: str, max_loss: float) -> str:
    """Which model holds where, and what that means at a telling size.

    With rivals, the one that is right most often over all sizes is set beside the baseline.
    """
    rivals = [name for name in curves if name != baseline]
    if not rivals:
        return _alone(baseline, curves[baseline], max_loss)
    best = max(rivals, key=lambda name: sum(map(curves[name].accuracy, curves[name].scales)))
    return _beside(best, curves[best], baseline, curves[baseline], max_loss)


def _alone(name: str, curve: ScaleCurve, max_loss: float) -> str:
    one = curve.reference
    low, high = curve.band(one, max_loss)
    outside = [s for s in curve.scales if not low <= s <= high]
    opening = f"{name} holds {_holds(curve, max_loss)}"
    if not outside:
        worst = min(curve.scales, key=curve.accuracy)
        if worst == one:
            return (
                f"{opening}: it is right on at least {percent(curve.accuracy(one))} of the images."
            )
        return (
            f"{opening}: {at_size(worst, curve.axis)}, where it does worst, it is right on "
            f"{percent(curve.accuracy(worst))} of the images, and on {percent(curve.accuracy(one))} "
            f"at {curve.axis.text(one)}."
        )
    worst = min(_telling(outside, one), key=curve.accuracy)
    lost, half = curve.difference(one, worst)
    if lost - half <= 0:
        return f"{opening}; what it loses beyond is within chance on {len(curve.labels)} images."
    return (
        f"{opening}: {at_size(worst, curve.axis)} it is right on {percent(curve.accuracy(worst))} instead of "
        f"{percent(curve.accuracy(one))} of the images."
    )


def _beside(best: str, curve: ScaleCurve, baseline: str, plain: ScaleCurve, max_loss: float) -> str:
    one = curve.reference
    differences = {s: paired_difference(curve.right(s), plain.right(s)) for s in curve.scales}
    sure = [s for s, (mean, half) in differences.items() if abs(mean) > half]
    ours, theirs = _holds(curve, max_loss), _holds(plain, max_loss)
    opening = (
        f"{best} and {baseline} hold {ours}"
        if ours == theirs
        else f"{best} holds {ours}, {baseline} {theirs}"
    )
    if not sure:
        return f"{opening}; the two differ within chance at every size."
    scale = max(_telling(sure, one), key=lambda s: abs(differences[s][0]))
    return (
        f"{opening}: {at_size(scale, curve.axis)} {best} is right on {percent(curve.accuracy(scale))} of the "
        f"images and {baseline} on {percent(plain.accuracy(scale))}."
    )


def _telling(scales: list[float], one: float) -> list[float]:
    """Half and twice the size are easier to imagine than the ends of the range."""
    return [s for s in scales if s in (one / 2, one * 2)] or scales


def _holds(curve: ScaleCurve, max_loss: float) -> str:
    low, high = curve.band(curve.reference, max_loss)
    if (low, high) == (min(curve.scales), max(curve.scales)) and low < high:
        return f"at every size tested ({span(low, high, curve.axis)})"
    return f"{'' if low == high else 'from '}{span(low, high, curve.axis)}"


def _bands(curves: Mapping[str, ScaleCurve], around: float, loss: float, each: str) -> str:
    """Where each model loses at most ``loss`` of its accuracy at ``around``; ``each`` names one of them."""
    words = next(iter(curves.values())).axis
    ranges = [f"{name} {span(*curve.band(around, loss), words)}" for name, curve in curves.items()]
    return (
        f"Where {each} stays within {100 * loss:g} points of its own accuracy at {words.text(around)}: "
        f"{', '.join(ranges)}."
    )


def _quickstart_headline(
    curves: Mapping[str, ScaleCurve], baseline: str, rivals: list[str], trained_at: float
) -> str:
    scales = curves[baseline].scales
    ends = [s for s in (trained_at / 2, trained_at * 2) if s in scales] or [
        min(scales),
        max(scales),
    ]
    best = max(rivals, key=lambda name: sum(curves[name].accuracy(s) for s in ends))
    parts = []
    for scale in ends:
        ours, theirs = curves[best].accuracy(scale), curves[baseline].accuracy(scale)
        # The difference of the rounded figures, so that it is the one a reader computes.
        gain = round(ours, 2) - round(theirs, 2)
        parts.append(
            f"at {scale:g} times the training size {baseline} is right on {percent(theirs)} of the "
            f"test images and {best} on {percent(ours)} ({points(gain)})"
        )
    text = "; ".join(parts) + "."
    return text[0].upper() + text[1:]


def _against(
    name: str, curve: ScaleCurve, baseline: str, plain: ScaleCurve, *, helper: bool = False
) -> str:
    """Where a model is ahead of the baseline or behind it, beyond chance, on the same images.

    A ``helper`` was made to be ahead: its sentence says where it is not.
    """
    ahead: list[tuple[float, float]] = []
    behind: list[tuple[float, float]] = []
    for scale in sorted(curve.scales):
        difference, half = paired_difference(curve.right(scale), plain.right(scale))
        if difference - half > 0:
            ahead.append((scale, difference))
        elif difference + half < 0:
            behind.append((scale, difference))
    even = len(curve.scales) - len(ahead) - len(behind)
    if even == len(curve.scales) and not helper:
        return (
            f"{name} and {baseline} cannot be told apart: they differ within chance at every size."
        )
    if even == len(curve.scales):
        return (
            f"{name} does not help here: its difference from {baseline} is within chance at every "
            f"size."
        )
    parts = []
    if ahead:
        parts.append(f"is ahead of {baseline} {_where(ahead, curve)}")
    if behind:
        parts.append(f"is behind {baseline} {_where(behind, curve)}")
    opening = name if ahead or not helper else f"{name} does not help here: it"
    rest = {0: "", 1: "; at the other size the difference is within chance"}.get(
        even, f"; at the other {even} sizes the difference is within chance"
    )
    return f"{opening} {', but '.join(parts)}{rest}."


def _where(differences: list[tuple[float, float]], curve: ScaleCurve) -> str:
    where = sizes([scale for scale, _ in differences], curve.scales, curve.axis)
    if len(differences) == 1:
        return f"at {where} ({points(differences[0][1])})"
    scale, most = max(differences, key=lambda item: abs(item[1]))
    return f"at {where}, most at {curve.axis.text(scale)} ({points(most)})"


def _figure_sentences(name: str, curve: ScaleCurve) -> list[str | None]:
    figures = registered_figures()
    sentences = [figures[figure].sentence for figure in curve.figures]
    return [sentence(name, curve) for sentence in sentences if sentence is not None]


def _class_sentence(name: str, curve: ScaleCurve, class_names: tuple[str, ...]) -> str | None:
    """Which classes lose more than the rest beyond chance, as often as classes were compared."""
    one = curve.reference
    others = [s for s in curve.scales if s != one]
    if not others or len(class_names) < 3 or curve.members is not None:
        return None  # only the same images can be set beside themselves
    elsewhere = torch.stack([curve.right(s).double() for s in others]).mean(dim=0)
    lost = curve.right(one).double() - elsewhere
    # Bonferroni: of many classes one stands out by chance.
    z = NormalDist().inv_cdf(1 - 0.025 / len(class_names))
    losing: list[tuple[float, str]] = []
    for k, class_name in enumerate(class_names):
        members = curve.labels == k
        if int(members.sum()) < 2 or int((~members).sum()) < 2:
            continue
        more = float(lost[members].mean() - lost[~members].mean())
        if more > z * math.hypot(_error(lost[members]), _error(lost[~members])):
            losing.append((float(lost[members].mean()), class_name))
    if not losing:
        return None
    losing = sorted(losing, key=lambda item: (-item[0], item[1]))[:_NAMED_CLASSES]
    names = [class_name for _, class_name in losing]
    losses = [f"{100 * loss:.0f}" for loss, _ in losing]
    what = "the class that loses" if len(losing) == 1 else "the classes that lose"
    verb = "is" if len(losing) == 1 else "are"
    return (
        f"For {name}, {what} most {verb} {listed(names)}: {listed(losses)} points on average over the "
        f"other sizes, where all images together lose {100 * float(lost.mean()):.0f}."
    )


def _flip_sentence(name: str, flips: Flips | None) -> str | None:
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
    half = f"Half of {name}'s answers have changed when the thing {' or '.join(parts)}, on {count} images"
    rest = f"; more than half stay the same {listed(stays)}" if stays else ""
    return f"{half}{rest}."


def _layer_sentence(name: str, layers: LayerScores | None) -> str | None:
    """Where the invariance score falls most from one layer to the next."""
    if layers is None:
        return None
    scores = [
        (layer, score)
        for layer, score in zip(layers.names, layers.invariance, strict=True)
        if math.isfinite(score)
    ]
    if len(scores) < 2:
        return None
    steps = [(b - a, i) for i, ((_, a), (_, b)) in enumerate(itertools.pairwise(scores))]
    fall, at = min(steps)
    if fall >= 0:
        (first, low), (last, high) = scores[0], scores[-1]
        return (
            f"The invariance score of {name} falls at no layer: it is {low:.1f} in {first} and "
            f"{high:.1f} in {last}, on {layers.images} images."
        )
    return (
        f"The invariance score of {name} falls most in {scores[at + 1][0]}: from {scores[at][1]:.1f} in "
        f"{scores[at][0]} to {scores[at + 1][1]:.1f}, on {layers.images} images."
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
    rank = max(0, math.floor((count - Z * math.sqrt(count) - 1) / 2))
    return middle, factors[rank], factors[count - 1 - rank]


def _interval(middle: float, low: float, high: float, end: float) -> str:
    """``0.82× (95 % interval 0.79× to 0.85×)``; an end beyond the search is named by its limit."""
    ends = [
        f"{value:.2f}×" if math.isfinite(value) and value > 0 else f"beyond {end:g}×"
        for value in (low, high)
    ]
    return f"{middle:.2f}× (95 % interval {ends[0]} to {ends[1]})"
