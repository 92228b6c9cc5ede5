"""Plain sentences computed from the curves."""

from __future__ import annotations

from collections.abc import Mapping

from nearfar.auditing.accuracy import ScaleCurve, paired_difference

__all__ = ["findings"]

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
    bands = [f"{name} {_span(curve, trained_at)}" for name, curve in curves.items()]
    sentences.append(
        f"Where each net stays within {100 * _BAND_LOSS:.0f} points of its own accuracy at "
        f"{trained_at:g}×: {', '.join(bands)}."
    )
    return sentences + [_against(name, curves[name], baseline, curves[baseline]) for name in rivals]


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
            f"at {scale:g} times the training size {baseline} is right on {100 * theirs:.0f} % of the "
            f"test images and {best} on {100 * ours:.0f} % ({_points(gain)})"
        )
    text = "; ".join(parts) + "."
    return text[0].upper() + text[1:]


def _span(curve: ScaleCurve, trained_at: float) -> str:
    low, high = curve.band(trained_at, _BAND_LOSS)
    return f"only at {low:g}×" if low == high else f"{low:g}× to {high:g}×"


def _against(name: str, curve: ScaleCurve, baseline: str, plain: ScaleCurve) -> str:
    ahead: list[tuple[float, float]] = []
    behind: list[tuple[float, float]] = []
    for scale in sorted(curve.scales):
        difference, half = paired_difference(curve.right(scale), plain.right(scale))
        if difference - half > 0:
            ahead.append((scale, difference))
        elif difference + half < 0:
            behind.append((scale, difference))
    even = len(curve.scales) - len(ahead) - len(behind)
    if even == len(curve.scales):
        return (
            f"{name} does not help here: its difference from {baseline} is within chance at every "
            f"size."
        )
    parts = []
    if ahead:
        parts.append(f"is ahead of {baseline} {_where(ahead)}")
    if behind:
        parts.append(f"is behind {baseline} {_where(behind)}")
    opening = name if ahead else f"{name} does not help here: it"
    rest = {0: "", 1: "; at the other size the difference is within chance"}.get(
        even, f"; at the other {even} sizes the difference is within chance"
    )
    return f"{opening} {', but '.join(parts)}{rest}."


def _where(found: list[tuple[float, float]]) -> str:
    sizes = [f"{scale:g}×" for scale, _ in found]
    if len(found) == 1:
        return f"at {sizes[0]} ({_points(found[0][1])})"
    scale, most = max(found, key=lambda item: abs(item[1]))
    listed = f"{', '.join(sizes[:-1])} and {sizes[-1]}"
    return f"at {listed}, most at {scale:g}× ({_points(most)})"


def _points(difference: float) -> str:
    return f"{difference * 100:+.0f} points"
