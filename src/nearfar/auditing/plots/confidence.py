"""How sure a recogniser is and how often it is right, as a picture."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nearfar.auditing.accuracy import ScaleCurve
from nearfar.auditing.plots.axes import (
    COLOURS,
    figure_of,
    legend_above,
    new_axes,
    percent_axis,
    scale_axis,
)
from nearfar.errors import InputError

__all__ = ["plot_confidence"]

_SURE, _RIGHT = COLOURS[6], COLOURS[1]


def plot_confidence(curve: ScaleCurve, *, size: float = 9, ax: Axes | None = None) -> Figure:
    """Mean confidence beside accuracy, against scale; between them what is promised and not kept.

    Args:
        curve: answers with their confidence.
        size: of the text, in points.
        ax: where to draw; default: a new figure.

    Raises:
        InputError: the curve holds no confidence.
    """
    if curve.confidence is None:
        raise InputError("the curve holds no confidence; audit a recogniser that tells it")
    if ax is None:
        ax = new_axes(4.4, 3.1)
    scales = sorted(curve.scales)
    sure = [100 * curve.figure("confidence", s) for s in scales]
    right = [100 * curve.accuracy(s) for s in scales]
    ax.fill_between(scales, right, sure, color=_SURE, alpha=0.12, linewidth=0)
    lines = [
        *ax.plot(scales, sure, color=_SURE, marker="^", markersize=5, linestyle="--", linewidth=2),
        *ax.plot(scales, right, color=_RIGHT, marker="o", markersize=5, linewidth=2),
    ]
    scale_axis(ax, scales, size=size)
    percent_axis(ax, size=size)
    ax.set_xlabel("size of the thing", fontsize=size)
    legend_above(ax, lines, ["how sure, on average", "how often right"], size=size)
    return figure_of(ax)
