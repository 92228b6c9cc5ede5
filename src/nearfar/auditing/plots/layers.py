"""How single layers behave when the image is rescaled, as pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nearfar.auditing.plots.axes import (
    COLOURS,
    figure_of,
    legend_above,
    marker_of,
    new_axes,
    shortened,
)
from nearfar.auditing.result import LayerScores

__all__ = ["SHOWN_LAYERS", "plot_equivariance", "plot_invariance"]

#: Of more layers, so many are drawn, evenly spread from the first to the last.
SHOWN_LAYERS = 24


def plot_invariance(
    layers: LayerScores, *, colour: str = COLOURS[1], size: float = 9, ax: Axes | None = None
) -> Figure:
    """The invariance score of each layer as a bar, the first layer on top.

    Args:
        layers: what was measured.
        colour: of the bars.
        size: of the text, in points.
        ax: where to draw; default: a new figure.
    """
    shown = _shown(layers)
    ax = _rows(layers, shown, size, ax)
    values = [layers.invariance[i] for i in shown]
    ax.barh(range(len(shown)), values, color=colour, height=0.7)
    longest = max([v for v in values if v == v], default=1.0)
    for row, value in enumerate(values):
        text = f"{value:.1f}" if value == value else "none"
        ax.annotate(
            text,
            (value if value == value else 0, row),
            xytext=(3, 0),
            textcoords="offset points",
            va="center",
            fontsize=size,
        )
    # Room for the figure at the end of the longest bar.
    ax.set_xlim(0, 1.2 * max(longest, 1e-9))
    ax.set_xlabel("invariance score (by chance: 1)", fontsize=size)
    return figure_of(ax)


def plot_equivariance(layers: LayerScores, *, size: float = 9, ax: Axes | None = None) -> Figure:
    """The relative equivariance error of each layer, a line a scale, the first layer on top.

    Args:
        layers: what was measured.
        size: of the text, in points.
        ax: where to draw; default: a new figure.
    """
    shown = _shown(layers)
    ax = _rows(layers, shown, size, ax, above=0.2 * math.ceil(len(layers.scales) / 3))
    lines = []
    for k, scale in enumerate(layers.scales):
        lines += ax.plot(
            [layers.equivariance[i][k] for i in shown],
            range(len(shown)),
            color=COLOURS[1:][k % (len(COLOURS) - 1)],
            marker=marker_of(k),
            markersize=5,
            linewidth=1.6,
            label=f"{scale:g}×",
        )
    ax.set_xlim(left=0)
    ax.set_xlabel("relative equivariance error (none: 0)", fontsize=size)
    if lines:
        legend_above(ax, lines, [f"at {s:g}×" for s in layers.scales], size=size)
    return figure_of(ax)


def _shown(layers: LayerScores) -> list[int]:
    count = len(layers.names)
    if count <= SHOWN_LAYERS:
        return list(range(count))
    return [round(i * (count - 1) / (SHOWN_LAYERS - 1)) for i in range(SHOWN_LAYERS)]


def _rows(
    layers: LayerScores, shown: Sequence[int], size: float, ax: Axes | None, above: float = 0.0
) -> Axes:
    """A row a layer, downwards in the order in which they run."""
    if ax is None:
        ax = new_axes(4.4, 1.0 + 0.2 * len(shown) + above)
    names = [shortened(layers.names[i], 28, keep="end") for i in shown]
    ax.set_yticks(range(len(shown)), names, fontsize=size, parse_math=False)
    ax.set_ylim(len(shown) - 0.4, -0.6)
    ax.tick_params(axis="x", labelsize=size)
    ax.grid(axis="x", alpha=0.25)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    return ax
