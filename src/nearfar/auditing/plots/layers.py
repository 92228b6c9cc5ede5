"""Single layers when the image is rescaled, as plots: scores by layer, and which scale won where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from nearfar.auditing.plots.axes import (
    COLOURS,
    figure_of,
    legend_above,
    marker_of,
    new_axes,
    shortened,
)
from nearfar.auditing.result import LayerScores

__all__ = ["SHOWN_LAYERS", "plot_equivariance", "plot_invariance", "plot_winners"]

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
    indices = _spread(layers)
    ax = _rows(layers, indices, size, ax)
    values = [layers.invariance[i] for i in indices]
    ax.barh(range(len(indices)), values, color=colour, height=0.7)
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
    indices = _spread(layers)
    own_figure = ax is None
    ax = _rows(layers, indices, size, ax)
    lines = []
    for k, scale in enumerate(layers.scales):
        lines += ax.plot(
            [layers.equivariance[i][k] for i in indices],
            range(len(indices)),
            color=COLOURS[1:][k % (len(COLOURS) - 1)],
            marker=marker_of(k),
            markersize=5,
            linewidth=1.6,
            label=f"{scale:g}×",
        )
    ax.set_xlim(left=0)
    ax.set_xlabel("relative equivariance error (none: 0)", fontsize=size)
    if lines:
        rows = legend_above(ax, lines, [f"at {s:g}×" for s in layers.scales], size=size)
        if own_figure:
            figure_of(ax).set_figheight(figure_of(ax).get_figheight() + 0.2 * rows)
    return figure_of(ax)


def plot_winners(
    images: Sequence[Tensor],
    maps: Mapping[str, Sequence[Tensor]],
    titles: Sequence[str],
    scales: Sequence[float],
) -> Figure:
    """Images above the winner maps of a net's SI-layers.

    Args:
        images: ``[H, W]`` each, one a column.
        maps: for each layer, one ``[H', W']`` map of winning scales a column (NaN: none).
        titles: what stands above each column.
        scales: the layers' scales; they span the colours.
    """
    columns, rows = len(images), 1 + len(maps)
    figure = Figure(figsize=(0.82 * columns + 1.2, 0.95 * rows + 0.4), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    norm = mpl.colors.LogNorm(min(scales), max(scales))
    colours = mpl.colormaps["viridis"].with_extremes(bad="#eeeeee")
    picture = None
    for column, (image, title) in enumerate(zip(images, titles, strict=True)):
        axes[0, column].imshow(image.numpy(), cmap="gray", vmin=0, vmax=1)
        axes[0, column].set_title(title, fontsize=9)
        for row, winners in enumerate(maps.values(), start=1):
            picture = axes[row, column].imshow(winners[column].numpy(), cmap=colours, norm=norm)
    for row, label in enumerate(["image", *maps]):
        axes[row, 0].set_ylabel(label, fontsize=9)
    for ax in axes.flat:
        ax.set_xticks([])
        ax.set_yticks([])
    if picture is not None:
        bar = figure.colorbar(picture, ax=axes[1:, :], shrink=0.8, pad=0.01)
        bar.set_ticks(list(scales), labels=[f"{s:g}×" for s in scales])
        bar.ax.minorticks_off()
        bar.set_label("the filter answered\nto the input at scale", fontsize=9)
    return figure


def _spread(layers: LayerScores) -> list[int]:
    count = len(layers.names)
    if count <= SHOWN_LAYERS:
        return list(range(count))
    return [round(i * (count - 1) / (SHOWN_LAYERS - 1)) for i in range(SHOWN_LAYERS)]


def _rows(layers: LayerScores, indices: Sequence[int], size: float, ax: Axes | None) -> Axes:
    """A row a layer, downwards in the order in which they run."""
    if ax is None:
        ax = new_axes(4.4, 1.0 + 0.2 * len(indices))
    names = [shortened(layers.names[i], 28, keep="end") for i in indices]
    ax.set_yticks(range(len(indices)), names, fontsize=size, parse_math=False)
    ax.set_ylim(len(indices) - 0.4, -0.6)
    ax.tick_params(axis="x", labelsize=size)
    ax.grid(axis="x", alpha=0.25)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    return ax
