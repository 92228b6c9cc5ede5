"""How sentences write numbers, sizes and lists."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["at_size", "listed", "percent", "points", "sizes", "span"]


def percent(share: float) -> str:
    """``41 %`` for 0.41."""
    return f"{100 * share:.0f} %"


def points(difference: float) -> str:
    """``-39 points`` for a difference of two shares of -0.39."""
    number = round(100 * difference)
    return f"{number:+d} point{'s' if abs(number) != 1 else ''}"


def listed(items: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return f"{', '.join(items[:-1])} and {items[-1]}" if len(items) > 1 else items[0]


def span(low: float, high: float) -> str:
    """``0.75× to 1.25×``, or ``only at 1×``."""
    return f"only at {low:g}×" if low == high else f"{low:g}× to {high:g}×"


def at_size(scale: float) -> str:
    """``at half the size`` for 0.5."""
    words = {0.25: "a quarter of", 0.5: "half", 2.0: "twice", 4.0: "four times"}
    return f"at {words.get(scale, f'{scale:g}×')} the size"


def sizes(scales: Sequence[float], tested: Sequence[float]) -> str:
    """``0.3×, 0.5× and 1.25× to 2×``: three or more neighbours among those tested become a range."""
    ordered = sorted(tested)
    runs: list[list[float]] = []
    for scale in sorted(scales):
        if runs and ordered.index(scale) == ordered.index(runs[-1][-1]) + 1:
            runs[-1].append(scale)
        else:
            runs.append([scale])
    parts: list[str] = []
    for run in runs:
        parts += [span(run[0], run[-1])] if len(run) > 2 else [f"{scale:g}×" for scale in run]
    return listed(parts)
