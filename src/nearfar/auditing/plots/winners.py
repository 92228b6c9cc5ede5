"""Which scale won where in a net's SI-layers, as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib as mpl
from matplotlib.figure import Figure
from torch import Tensor

__all__ = ["plot_winners"]


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
