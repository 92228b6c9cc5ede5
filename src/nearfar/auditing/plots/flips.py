"""How far the size may change before answers change, as a picture."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from nearfar.auditing.plots.axes import (
    colour_of,
    figure_of,
    legend_above,
    new_axes,
    percent_axis,
    scale_axis,
)
from nearfar.auditing.result import Flips
from nearfar.errors import InputError

__all__ = ["plot_flips"]

_DASHES = ("-", "--", "-.", ":")
_TICKS = (0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.75, 1, 1.25, 1.5, 2, 2.5, 3, 4, 6, 8, 12, 16)


def plot_flips(
    flips: Mapping[str, Flips],
    *,
    places: Mapping[str, int] | None = None,
    size: float = 9,
    ax: Axes | None = None,
) -> Figure:
    """The share of images whose answer has not changed yet, against scale, from 1× to both sides.

    Args:
        flips: of each recogniser.
        places: of each recogniser among all, for its colour; default: in the order of ``flips``.
        size: of the text, in points.
        ax: where to draw; default: a new figure.

    Raises:
        InputError: nothing to draw.
    """
    if not flips:
        raise InputError("plot_flips needs the flips of at least one recogniser, got none")
    if ax is None:
        ax = new_axes(6, 3.6)
    lines = []
    for i, (name, found) in enumerate(flips.items()):
        place = i if places is None else places[name]
        left = _kept(1 / found.smaller, 1 / found.lowest)
        right = _kept(found.larger, found.highest)
        lines += ax.plot(
            [1 / s for s, _ in reversed(left)] + [s for s, _ in right],
            [100 * kept for _, kept in reversed(left)] + [100 * kept for _, kept in right],
            color=colour_of(place),
            linestyle=_DASHES[place % len(_DASHES)],
            linewidth=2.2,
        )
    lowest = min(found.lowest for found in flips.values())
    highest = max(found.highest for found in flips.values())
    ax.axvline(1, color="black", linewidth=1, linestyle=":")
    ax.axhline(50, color="#888888", linewidth=0.8)
    inner = [s for s in _TICKS if 1.1 * lowest < s < highest / 1.1]
    scale_axis(ax, [lowest, *inner, highest], size=size)
    percent_axis(ax, size=size)
    ax.set_xlabel("size of the thing", fontsize=size)
    ax.set_ylabel("answers still those of 1×", fontsize=size)
    legend_above(ax, lines, list(flips), size=size)
    return figure_of(ax)


def _kept(flipped_at: Tensor, end: float) -> list[tuple[float, float]]:
    """Steps ``(factor, share that kept its answer)`` from factor 1 to ``end``."""
    at = flipped_at[~torch.isnan(flipped_at)].double().sort().values.tolist()
    steps, share = [(1.0, 1.0)], 1.0
    for done, factor in enumerate(at, start=1):
        steps.append((factor, share))
        share = 1 - done / len(flipped_at)
        steps.append((factor, share))
    return [*steps, (end, share)]
