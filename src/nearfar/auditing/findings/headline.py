"""The one sentence at the top of an audit."""

from __future__ import annotations

from collections.abc import Mapping

from nearfar.auditing.accuracy import ScaleCurve, paired_difference
from nearfar.auditing.findings.words import at_size, percent, span

__all__ = ["headline"]


def headline(curves: Mapping[str, ScaleCurve], baseline: str, max_loss: float) -> str:
    """Who holds where, and what that means at a telling size.

    With rivals, the one that is right most often over all sizes is set beside the baseline.

    Args:
        curves: answers of each recogniser, all on the same images and scales.
        baseline: the one to compare with.
        max_loss: as a fraction: a recogniser holds where it loses at most this.
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
            f"{opening}: {at_size(worst)}, where it does worst, it is right on "
            f"{percent(curve.accuracy(worst))} of the images, and on {percent(curve.accuracy(one))} "
            f"at {one:g}×."
        )
    worst = min(_telling(outside, one), key=curve.accuracy)
    lost, half = paired_difference(curve.right(one), curve.right(worst))
    if lost - half <= 0:
        return f"{opening}; what it loses beyond is within chance on {len(curve.labels)} images."
    return (
        f"{opening}: {at_size(worst)} it is right on {percent(curve.accuracy(worst))} instead of "
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
        f"{opening}: {at_size(scale)} {best} is right on {percent(curve.accuracy(scale))} of the "
        f"images and {baseline} on {percent(plain.accuracy(scale))}."
    )


def _telling(scales: list[float], one: float) -> list[float]:
    """Half and twice the size are easier to imagine than the ends of the range."""
    return [s for s in scales if s in (one / 2, one * 2)] or scales


def _holds(curve: ScaleCurve, max_loss: float) -> str:
    low, high = curve.band(curve.reference, max_loss)
    if (low, high) == (min(curve.scales), max(curve.scales)) and low < high:
        return f"at every size tested ({span(low, high)})"
    return f"{'' if low == high else 'from '}{span(low, high)}"
