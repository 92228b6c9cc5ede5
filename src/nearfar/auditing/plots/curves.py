"""Accuracy, confidence and unflipped predictions against scale, as plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from nearfar.auditing.accuracy import ScaleCurve
from nearfar.auditing.plots.axes import (
    COLOURS,
    colour_of,
    dash_of,
    figure_of,
    legend_above,
    marker_of,
    new_axes,
    percent_axis,
    scale_axis,
)
from nearfar.auditing.result import Flips
from nearfar.errors import InputError

__all__ = ["plot_confidence", "plot_curves", "plot_flips"]

_STRIP = 5  # per cent of the axis for a model's band
_CONFIDENCE, _ACCURACY = COLOURS[6], COLOURS[1]
_FLIP_DASHES = ("-", "--", "-.", ":")
_FLIP_TICKS = (
    *(0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.75, 1),
    *(1.25, 1.5, 2, 2.5, 3, 4, 6, 8, 12, 16),
)


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
        curves: of each net, drawn in this order, the baseline first.
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
    first = next(iter(curves.values()))
    ticks = {s for curve in curves.values() for s in curve.scales}
    scale_axis(ax, ticks, size=size, words=first.axis, reference=first.reference)
    percent_axis(ax, size=size)
    if max_loss is not None:
        _bands(ax, list(curves.values()), trained_at, max_loss, size)
    relative = ", relative to training" if mark else ""
    ax.set_xlabel(f"{first.axis.label}{relative}", fontsize=size)
    ax.set_ylabel("right answers on test images", fontsize=size)
    legend_above(ax, lines, list(curves), size=size)
    return figure_of(ax)


def plot_confidence(curve: ScaleCurve, *, size: float = 9, ax: Axes | None = None) -> Figure:
    """Mean confidence beside accuracy, against scale; the gap between them is shaded.

    Args:
        curve: with its confidence.
        size: of the text, in points.
        ax: where to draw; default: a new figure.

    Raises:
        InputError: the curve holds no confidence.
    """
    if curve.confidence is None:
        raise InputError("the curve holds no confidence; audit a model that returns logits")
    if ax is None:
        ax = new_axes(4.4, 3.1)
    scales = sorted(curve.scales)
    confidence = [100 * curve.figure("confidence", s) for s in scales]
    accuracy = [100 * curve.accuracy(s) for s in scales]
    ax.fill_between(scales, accuracy, confidence, color=_CONFIDENCE, alpha=0.12, linewidth=0)
    lines = [
        *ax.plot(
            scales,
            confidence,
            color=_CONFIDENCE,
            marker="^",
            markersize=5,
            linestyle="--",
            linewidth=2,
        ),
        *ax.plot(scales, accuracy, color=_ACCURACY, marker="o", markersize=5, linewidth=2),
    ]
    scale_axis(ax, scales, size=size, words=curve.axis, reference=curve.reference)
    percent_axis(ax, size=size)
    ax.set_xlabel(curve.axis.label, fontsize=size)
    legend_above(ax, lines, ["how sure, on average", "how often right"], size=size)
    return figure_of(ax)


def plot_flips(
    flips: Mapping[str, Flips],
    *,
    indices: Mapping[str, int] | None = None,
    size: float = 9,
    ax: Axes | None = None,
) -> Figure:
    """The share of images whose prediction has not changed yet, against scale, from 1× to both sides.

    Args:
        flips: of each model.
        indices: of each model among all, for its colour; default: in the order of ``flips``.
        size: of the text, in points.
        ax: where to draw; default: a new figure.

    Raises:
        InputError: nothing to draw.
    """
    if not flips:
        raise InputError("plot_flips needs the flips of at least one model, got none")
    if ax is None:
        ax = new_axes(6, 3.6)
    lines = []
    for i, (name, flip) in enumerate(flips.items()):
        index = i if indices is None else indices[name]
        left = _unflipped(1 / flip.smaller, 1 / flip.lowest)
        right = _unflipped(flip.larger, flip.highest)
        lines += ax.plot(
            [1 / s for s, _ in reversed(left)] + [s for s, _ in right],
            [100 * share for _, share in reversed(left)] + [100 * share for _, share in right],
            color=colour_of(index),
            linestyle=_FLIP_DASHES[index % len(_FLIP_DASHES)],
            linewidth=2.2,
        )
    lowest = min(flip.lowest for flip in flips.values())
    highest = max(flip.highest for flip in flips.values())
    ax.axvline(1, color="black", linewidth=1, linestyle=":")
    ax.axhline(50, color="#888888", linewidth=0.8)
    inner = [s for s in _FLIP_TICKS if 1.1 * lowest < s < highest / 1.1]
    scale_axis(ax, [lowest, *inner, highest], size=size)
    percent_axis(ax, size=size)
    ax.set_xlabel("size of the thing", fontsize=size)
    ax.set_ylabel("answers still those of 1×", fontsize=size)
    legend_above(ax, lines, list(flips), size=size)
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


def _unflipped(flipped_at: Tensor, end: float) -> list[tuple[float, float]]:
    """Steps ``(factor, share of unflipped predictions)`` from factor 1 to ``end``."""
    factors = flipped_at[~torch.isnan(flipped_at)].double().sort().values.tolist()
    steps, share = [(1.0, 1.0)], 1.0
    for done, factor in enumerate(factors, start=1):
        steps.append((factor, share))
        share = 1 - done / len(flipped_at)
        steps.append((factor, share))
    return [*steps, (end, share)]
