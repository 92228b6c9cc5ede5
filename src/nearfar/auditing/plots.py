"""The pictures: accuracy against scale, and which scale won where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from nearfar.auditing.accuracy import ScaleCurve

__all__ = ["COLOURS", "plot_curves", "plot_winners"]

#: Okabe and Ito's palette, told apart by colour-blind readers too; the baseline is grey.
COLOURS = ("#555555", "#0072B2", "#E69F00", "#CC79A7", "#009E73", "#56B4E9", "#D55E00")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def plot_curves(
    curves: Mapping[str, ScaleCurve], *, trained_at: float = 1.0, ax: Axes | None = None
) -> Figure:
    """Accuracy against scale, a line a net with its 95 % band.

    Args:
        curves: answers of each net; drawn in this order, the baseline first.
        trained_at: marked by a vertical line.
        ax: where to draw; default: a new figure.
    """
    if ax is None:
        ax = Figure(figsize=(9, 5.2), layout="constrained").add_subplot()
    for i, (name, curve) in enumerate(curves.items()):
        scales = sorted(curve.scales)
        bounds = [curve.interval(s) for s in scales]
        colour = COLOURS[i % len(COLOURS)]
        ax.fill_between(
            scales,
            [100 * low for low, _ in bounds],
            [100 * high for _, high in bounds],
            color=colour,
            alpha=0.15,
            linewidth=0,
        )
        ax.plot(
            scales,
            [100 * curve.accuracy(s) for s in scales],
            color=colour,
            marker=_MARKERS[i % len(_MARKERS)],
            markersize=5,
            linewidth=2.2,
            label=name,
        )
    ticks = sorted({s for curve in curves.values() for s in curve.scales})
    ax.axvline(trained_at, color="black", linewidth=1, linestyle=":")
    ax.annotate(
        "trained here",
        (trained_at, 0),
        xytext=(4, 6),
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        fontsize=9,
    )
    ax.set_xscale("log", base=2)
    ax.set_xticks(ticks, [f"{s:g}×" for s in ticks])
    ax.minorticks_off()
    ax.set_ylim(0, 101)
    ax.set_yticks(range(0, 101, 20), [f"{p} %" for p in range(0, 101, 20)])
    ax.set_xlabel("size of the thing, relative to training")
    ax.set_ylabel("right answers on test images")
    ax.grid(alpha=0.25)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, 1.1), ncols=len(curves), frameon=False)
    figure = ax.figure
    assert isinstance(figure, Figure)
    return figure


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
    shown = None
    for column, (image, title) in enumerate(zip(images, titles, strict=True)):
        axes[0, column].imshow(image.numpy(), cmap="gray", vmin=0, vmax=1)
        axes[0, column].set_title(title, fontsize=9)
        for row, winners in enumerate(maps.values(), start=1):
            shown = axes[row, column].imshow(winners[column].numpy(), cmap=colours, norm=norm)
    for row, label in enumerate(["image", *maps]):
        axes[row, 0].set_ylabel(label, fontsize=9)
    for ax in axes.flat:
        ax.set_xticks([])
        ax.set_yticks([])
    if shown is not None:
        bar = figure.colorbar(shown, ax=axes[1:, :], shrink=0.8, pad=0.01)
        bar.set_ticks(list(scales), labels=[f"{s:g}×" for s in scales])
        bar.ax.minorticks_off()
        bar.set_label("the filter answered\nto the input at scale", fontsize=9)
    return figure
