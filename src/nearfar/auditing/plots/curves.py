"""Accuracy against scale, as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nearfar.auditing.accuracy import ScaleCurve
from nearfar.auditing.plots.axes import (
    colour_of,
    dash_of,
    figure_of,
    legend_above,
    marker_of,
    new_axes,
    percent_axis,
    scale_axis,
)
from nearfar.errors import InputError

__all__ = ["plot_curves"]

_STRIP = 5  # points of the axis for a recogniser's band


def plot_curves(
    curves: Mapping[str, ScaleCurve],
    *,
    trained_at: float = 1.0,
    mark: str = "trained here",
    max_loss: float | None = None,
    size: float = 10,
    ax: Axes | None = None,
) -> Figure:
    """Accuracy against scale, a line a net with its 95 % band.

    Args:
        curves: answers of each net; drawn in this order, the baseline first.
        trained_at: marked by a vertical line.
        mark: what is written beside that line; may be empty.
        max_loss: as a fraction; a bar a net below the curves spans the scales at which it loses at most
            this of its accuracy at ``trained_at`` (:meth:`ScaleCurve.band`). Default: no bars.
        size: of the text, in points.
        ax: where to draw; default: a new figure.

    Raises:
        InputError: no curve.
    """
    if not curves:
        raise InputError("plot_curves needs at least one curve, got none")
    if ax is None:
        ax = new_axes(9, 5.2)
    lines = []
    for i, curve in enumerate(curves.values()):
        scales = sorted(curve.scales)
        bounds = [curve.interval(s) for s in scales]
        ax.fill_between(
            scales,
            [100 * low for low, _ in bounds],
            [100 * high for _, high in bounds],
            color=colour_of(i),
            alpha=0.15,
            linewidth=0,
        )
        lines += ax.plot(
            scales,
            [100 * curve.accuracy(s) for s in scales],
            color=colour_of(i),
            linestyle=dash_of(i),
            marker=marker_of(i),
            markersize=5,
            linewidth=2.2,
        )
    ax.axvline(trained_at, color="black", linewidth=1, linestyle=":")
    if mark:
        ax.annotate(
            mark,
            (trained_at, 0),
            xytext=(4, 4),
            xycoords="data",
            textcoords="offset points",
            fontsize=0.9 * size,
        )
    scale_axis(ax, {s for curve in curves.values() for s in curve.scales}, size=size)
    percent_axis(ax, size=size)
    if max_loss is not None:
        _bands(ax, list(curves.values()), trained_at, max_loss, size)
    relative = ", relative to training" if mark else ""
    ax.set_xlabel(f"size of the thing{relative}", fontsize=size)
    ax.set_ylabel("right answers on test images", fontsize=size)
    legend_above(ax, lines, list(curves), size=size)
    return figure_of(ax)


def _bands(
    ax: Axes, curves: Sequence[ScaleCurve], trained_at: float, max_loss: float, size: float
) -> None:
    """Below zero per cent, where no curve can be: a bar a net, as wide as it holds."""
    ax.axhline(0, color="#888888", linewidth=0.8)
    head = -4 - 0.4 * size
    ax.annotate(
        f"holds: at most {100 * max_loss:g} points lost",
        (0, head),
        xytext=(4, 0),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        va="center",
        fontsize=0.9 * size,
    )
    for i, curve in enumerate(curves):
        low, high = curve.band(trained_at, max_loss)
        height = head - _STRIP * (i + 1)
        ax.plot(
            [low, high],
            [height, height],
            color=colour_of(i),
            marker=marker_of(i),
            markersize=5,
            linewidth=4,
            solid_capstyle="butt",
        )
    ax.set_ylim(head - _STRIP * (len(curves) + 0.8), 101)
