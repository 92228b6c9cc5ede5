"""What to do, computed from an audit's figures; nothing where chance covers it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from nearfar.auditing.accuracy import ScaleCurve
from nearfar.auditing.exact_intervals import paired_interval, share_interval, unpaired_interval
from nearfar.auditing.result import Advice, AuditResult
from nearfar.auditing.wording import listed, percent

__all__ = ["CONFIDENCE", "advise"]

#: How sure each line is: with more than the usual 95 %, because it is acted on.
CONFIDENCE = 0.999
_ERROR = 1 - CONFIDENCE
#: What is at most so much above guessing, of all that there is above it, is called guessing.
_SKILL = 0.1
#: Where so many images are of one class, guessing is nearly always right.
_TRIVIAL = 0.9
#: How many sides vote at most, and for how many times the multiplications.
_VOTERS, _MOST_COST = 3, 3.0


def advise(
    results: Mapping[str, AuditResult],
    max_loss: float,
    bounds: Sequence[tuple[float, float]] = (),
) -> tuple[Advice, ...]:
    """Advice on each model, each line with its exact interval.

    Comparisons are on the same images where points have the same. Intervals hold for all points of an axis at
    once (Bonferroni), so that the best of several may be named; a vote of several sides is chosen on half of
    the images and measured on the other half.

    Args:
        results: by name.
        max_loss: as a fraction: what an audit lets a model lose.
        bounds: of points with images of their own, from which to which size each goes.

    Returns:
        Of the axis ``input``: at which side to feed a model, which smaller side is enough, which sides to let
        vote; of ``stored``: at which side files are enough, and where not; of ``box``: from which size on
        things are known better; of all: where a model is guessing.

    Limits:
        What is advised holds for images such as those audited.
    """
    advice: list[Advice | None] = []
    for name, result in results.items():
        curve = result.curve
        guessing = _guessing(name, curve, bounds)
        at_reference = any(curve.reference in line.points for line in guessing)
        if curve.axis.name == "input":
            side = _best_side(name, result)
            advice += [side, _vote(name, result)]
            if side is None and not at_reference:
                advice.append(_enough(name, result, max_loss))
        if curve.axis.name == "stored" and not at_reference:
            advice += [_enough(name, result, max_loss), _keep(name, curve, max_loss)]
        if curve.members is not None:
            advice.append(_larger(name, curve, bounds, max_loss))
        advice += guessing
    return tuple(line for line in advice if line is not None)


def _best_side(name: str, result: AuditResult) -> Advice | None:
    """The side that is better than the reference by most, if any is beyond chance."""
    curve, intervals = result.curve, _against_reference(result.curve)
    better = {point: interval for point, interval in intervals.items() if interval[1] > 0}
    if not better:
        return None
    best = max(better, key=lambda point: better[point][0])
    cost = _cost(result, (best,))
    text = curve.axis.text
    return Advice(
        *(name, "side", (best,), *better[best], CONFIDENCE, cost),
        f"Feed {name} {text(best)}: {_gain(*better[best])} against {text(curve.reference)}{_times(cost)}.",
    )


def _enough(name: str, result: AuditResult, max_loss: float) -> Advice | None:
    """The smallest side from which on surely no more than ``max_loss`` is lost."""
    curve, intervals = result.curve, _against_reference(result.curve)
    smaller = sorted((p for p in intervals if p < curve.reference), reverse=True)
    fine = list(itertools.takewhile(lambda point: intervals[point][1] >= -max_loss, smaller))
    text = curve.axis.text
    if not fine:
        return None
    least = fine[-1]
    difference, low, high = intervals[least]
    cost = _cost(result, (least,))
    what = "Files of" if curve.axis.name == "stored" else "An input of"
    loss = f"at most {_points(max(0.0, -low))} points are lost ({_sure()})"
    return Advice(
        *(name, "enough", (least,), difference, low, high, CONFIDENCE, cost),
        f"{what} {text(least)} {'are' if curve.axis.name == 'stored' else 'is'} enough for {name}: {loss} "
        f"against {text(curve.reference)}{_times(cost)}.",
    )


def _keep(name: str, curve: ScaleCurve, max_loss: float) -> Advice | None:
    """The largest side of files at which surely more than ``max_loss`` is lost."""
    losses = {p: i for p, i in _against_reference(curve).items() if i[2] < -max_loss}
    if not losses:
        return None
    most = max(losses)
    difference, low, high = losses[most]
    text = curve.axis.text
    return Advice(
        *(name, "keep", (most,), -difference, -high, -low, CONFIDENCE, None),
        f"Keep files larger than {text(most)} for {name}: there it loses {_points(-difference)} points "
        f"({_sure()}: {_points(-high)} to {_points(-low)}) against {text(curve.reference)}.",
    )


def _vote(name: str, result: AuditResult) -> Advice | None:
    """Sides whose confidences, added, are right oftener than the best single side."""
    curve = result.curve
    costs, confidence = result.point_costs, curve.confidence
    if confidence is None or costs is None or len(curve.labels) < 4:
        return None
    own = curve.scales.index(curve.reference)
    others = [k for k in range(len(curve.scales)) if k != own]
    groups = [
        (own, *rest)
        for count in range(1, _VOTERS)
        for rest in itertools.combinations(others, count)
        if sum(costs[k] for k in (own, *rest)) <= _MOST_COST * costs[own]
    ]
    if not groups:
        return None
    right = {group: _voted(curve, confidence, group) == curve.labels for group in groups}
    singles = curve.predictions == curve.labels
    chosen_on, measured_on = slice(0, None, 2), slice(1, None, 2)
    best = max(groups, key=lambda group: int(right[group][chosen_on].sum()))
    single = int(singles[:, chosen_on].sum(1).argmax())
    votes = right[best][measured_on]
    # Both have to hold: the vote against the best single side, and its gain over the reference.
    _, beyond, _ = paired_interval(votes, singles[single, measured_on], _ERROR / 2)
    gain = paired_interval(votes, singles[own, measured_on], _ERROR / 2)
    if beyond <= 0 or gain[1] <= 0:
        return None
    points = tuple(sorted(curve.scales[k] for k in best))
    cost = sum(costs[k] for k in best) / costs[own]
    sides = listed([curve.axis.text(point) for point in points])
    return Advice(
        *(name, "vote", points, *gain, CONFIDENCE, cost),
        f"Ask {name} at {sides} and add the confidences up: {_gain(*gain)} against "
        f"{curve.axis.text(curve.reference)} alone{_times(cost)}; measured on the half of the images on "
        f"which the sides were not chosen.",
    )


def _voted(curve: ScaleCurve, confidence: Tensor, group: Sequence[int]) -> Tensor:
    """``[N]``: the class with the most confidence over some points; of equals, the first point's."""
    predictions, sure = curve.predictions[list(group)], confidence[list(group)].double()
    agree = predictions[:, None] == predictions[None]  # [voter, voter, N]
    totals = (agree * sure[None]).sum(1)
    winner = totals.max(0).values
    first = (totals >= winner - 1e-12).long().argmax(0)
    return predictions.gather(0, first[None])[0]


def _larger(
    name: str, curve: ScaleCurve, bounds: Sequence[tuple[float, float]], max_loss: float
) -> Advice | None:
    """From which size on things are known better than smaller ones, by more than ``max_loss``."""
    cuts: dict[int, tuple[float, float, float]] = {}
    for cut in range(1, len(curve.scales)):
        error = _ERROR / (len(curve.scales) - 1)
        cuts[cut] = unpaired_interval(
            _pooled(curve, curve.scales[cut:]), _pooled(curve, curve.scales[:cut]), error
        )
    better = {cut: interval for cut, interval in cuts.items() if interval[1] > max_loss}
    if not better:
        return None
    best = max(better, key=lambda cut: better[cut][0])
    edge = float(f"{bounds[best][0]:.3g}")
    above, below = _pooled(curve, curve.scales[best:]), _pooled(curve, curve.scales[:best])
    difference, low, high = better[best]
    shares = [percent(float(right.double().mean())) for right in (above, below)]
    return Advice(
        *(name, "larger", curve.scales[best:], difference, low, high, CONFIDENCE, None),
        f"Show {name} things of {curve.axis.text(edge)} or more: of those it is right on {shares[0]}, of "
        f"smaller ones on {shares[1]}, {_points(difference)} points less ({_sure()}: {_points(low)} to "
        f"{_points(high)}).",
    )


def _guessing(name: str, curve: ScaleCurve, bounds: Sequence[tuple[float, float]]) -> list[Advice]:
    """At which end of the axis, or all over it, a model does no better than by guessing."""
    ordered = sorted(curve.scales)
    low, high = _guessing_run(curve, ordered), _guessing_run(curve, ordered[::-1])
    if len(low) == len(ordered):
        return [_guessing_at(name, curve, ordered, "at every size audited")]
    text = curve.axis.text
    lines = []
    for run, beside, end in ((low, "below", 1), (high, "above", 0)):
        if not run:
            continue
        if bounds:
            edge = float(f"{bounds[curve.scales.index(run[-1])][end]:.3g}")
            where = f"{beside} {text(edge)}"
        else:
            where = f"at {text(run[-1])}" + (f" and {beside}" if len(run) > 1 else "")
        lines.append(_guessing_at(name, curve, run, where))
    return lines


def _guessing_run(curve: ScaleCurve, ordered: Sequence[float]) -> list[float]:
    """The first points in an order at which shares may be those of guessing, and surely are not much above.

    Shares of the same images have to be so one by one, of different images together.
    """
    run = list(itertools.takewhile(lambda p: _share(curve, [p])[0] <= _guess(curve, [p]), ordered))
    if curve.members is None:
        return list(itertools.takewhile(lambda p: _is_low(curve, [p]), run))
    while run and not _is_low(curve, run):
        run.pop()
    return run


def _is_low(curve: ScaleCurve, points: Sequence[float]) -> bool:
    """Whether a share surely is not much above guessing."""
    guess = _guess(curve, points)
    return guess < _TRIVIAL and _share(curve, points)[1] <= guess + _SKILL * (1 - guess)


def _guessing_at(name: str, curve: ScaleCurve, points: Sequence[float], where: str) -> Advice:
    """The line. Of the same images at several points its interval spans those of all of them."""
    right, guess = _pooled(curve, points), _guess(curve, points)
    share = float(right.double().mean())
    each = [[point] for point in points] if curve.members is None else [points]
    ends = [_share(curve, group) for group in each]
    low, high = min(end[0] for end in ends), max(end[1] for end in ends)
    images = "things" if curve.members is not None else "images"
    opening = where[0].upper() + where[1:]
    return Advice(
        *(name, "guessing", tuple(points), share, low, high, CONFIDENCE, None),
        f"{opening} {name} is guessing: it is right on {percent(share)} of the {images} ({_sure()}: at most "
        f"{percent(high)}), and always naming the commonest class on {percent(guess)}.",
    )


def _share(curve: ScaleCurve, points: Sequence[float]) -> tuple[float, float]:
    """The interval of the accuracy at one point, or over points with images of their own.

    As many such intervals as there are points hold together.
    """
    right = _pooled(curve, points)
    return share_interval(int(right.sum()), len(right), _ERROR / (2 * len(curve.scales)))


def _guess(curve: ScaleCurve, points: Sequence[float]) -> float:
    """How often the class that is commonest over all images is right at some points."""
    commonest = int(curve.labels.bincount().argmax())
    hits = curve.labels == commonest
    if curve.members is not None:
        rows = [curve.scales.index(point) for point in points]
        hits = hits[curve.members[rows].any(0)]
    return float(hits.double().mean())


def _pooled(curve: ScaleCurve, points: Sequence[float]) -> Tensor:
    """Whether answers at some points are right, one after the other."""
    return torch.cat([curve.right(point) for point in points])


def _against_reference(curve: ScaleCurve) -> dict[float, tuple[float, float, float]]:
    """By how much each other point is better than the reference: intervals that all hold together."""
    others = [point for point in curve.scales if point != curve.reference]
    return {
        point: paired_interval(
            curve.right(point), curve.right(curve.reference), _ERROR / len(others)
        )
        for point in others
    }


def _cost(result: AuditResult, points: Sequence[float]) -> float | None:
    """How many times the reference's multiplications some points take together."""
    costs, curve = result.point_costs, result.curve
    if costs is None:
        return None
    own = costs[curve.scales.index(curve.reference)]
    return sum(costs[curve.scales.index(point)] for point in points) / own if own else None


def _times(cost: float | None) -> str:
    return "" if cost is None else f", for {cost:.2g} times the multiplications"


def _gain(difference: float, low: float, high: float) -> str:
    return f"{_signed(difference)} points ({_sure()}: {_signed(low)} to {_signed(high)})"


def _signed(share: float) -> str:
    return f"{'+' if share > 0 else ''}{_points(share)}"


def _points(share: float) -> str:
    """Points with one digit; the ends of intervals are not rounded to 0."""
    points = 100 * share
    digits = 1 if abs(points) >= 0.1 or points == 0 else -math.floor(math.log10(abs(points)))
    return f"{points:.{digits}f}"


def _sure() -> str:
    return f"{100 * CONFIDENCE:g} % sure"
