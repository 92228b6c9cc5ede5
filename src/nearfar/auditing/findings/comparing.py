"""Sentences that compare recognisers: who holds where, and who is ahead beyond chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nearfar.auditing.accuracy import ScaleCurve, paired_difference
from nearfar.auditing.findings.words import percent, points, sizes, span

__all__ = ["against", "bands", "findings"]

_BAND_LOSS = 0.05


def findings(curves: Mapping[str, ScaleCurve], baseline: str, trained_at: float = 1.0) -> list[str]:
    """What the curves say, in a few sentences.

    A net counts as ahead or behind only where the 95 % interval of the paired difference on the
    same images leaves zero out.

    Args:
        curves: answers of each net, all on the same images and scales.
        baseline: the net to compare with.
        trained_at: the scale at which all were trained, one of the scales tested.

    Returns:
        First the headline, then the bands, then a sentence for each net but the baseline.
    """
    rivals = [name for name in curves if name != baseline]
    sentences = [_headline(curves, baseline, rivals, trained_at)] if rivals else []
    sentences.append(bands(curves, trained_at, _BAND_LOSS, each="each net"))
    return sentences + [
        against(name, curves[name], baseline, curves[baseline], helper=True) for name in rivals
    ]


def bands(curves: Mapping[str, ScaleCurve], around: float, loss: float, each: str) -> str:
    """Where each of several recognisers loses at most ``loss`` of its accuracy at scale ``around``.

    Args:
        curves: answers of each.
        around: the scale to compare with.
        loss: as a fraction.
        each: what they are called: ``each net``.
    """
    found = [f"{name} {span(*curve.band(around, loss))}" for name, curve in curves.items()]
    return (
        f"Where {each} stays within {100 * loss:g} points of its own accuracy at {around:g}×: "
        f"{', '.join(found)}."
    )


def _headline(
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


def against(
    name: str, curve: ScaleCurve, baseline: str, plain: ScaleCurve, *, helper: bool = False
) -> str:
    """Where one recogniser is ahead of another or behind it, beyond chance, on the same images.

    Args:
        name, curve: the one.
        baseline, plain: the other.
        helper: it was made to be ahead, so say where it is not.
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
        parts.append(f"is ahead of {baseline} {_where(ahead, curve.scales)}")
    if behind:
        parts.append(f"is behind {baseline} {_where(behind, curve.scales)}")
    opening = name if ahead or not helper else f"{name} does not help here: it"
    rest = {0: "", 1: "; at the other size the difference is within chance"}.get(
        even, f"; at the other {even} sizes the difference is within chance"
    )
    return f"{opening} {', but '.join(parts)}{rest}."


def _where(found: list[tuple[float, float]], tested: Sequence[float]) -> str:
    listed = sizes([scale for scale, _ in found], tested)
    if len(found) == 1:
        return f"at {listed} ({points(found[0][1])})"
    scale, most = max(found, key=lambda item: abs(item[1]))
    return f"at {listed}, most at {scale:g}× ({points(most)})"
