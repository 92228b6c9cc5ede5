"""Pictures that several tables share."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nearfar.auditing.plots import COLOURS
from nearfar.experiments.tables.table import Column, TableRow

__all__ = ["plot_runs"]

_OURS, _PAPER = COLOURS[1], COLOURS[6]


def plot_runs(
    rows: Sequence[TableRow],
    column: Column,
    label: str,
    title: str,
    marks: Sequence[tuple[float, str]] = (),
) -> Figure:
    """Every run as a dot, a line a net; mean and standard deviation beside it, the paper's below.

    Args:
        rows: drawn from the top.
        column: which figure.
        label: of the axis, with the unit.
        title: what is to be seen.
        marks: vertical lines, each with its words.
    """
    figure = Figure(figsize=(9, 1.6 + 0.62 * len(rows)), layout="constrained")
    ax = figure.add_subplot()
    for i, row in enumerate(rows):
        _draw_row(ax, i, row, column)
    _name_marks(ax, with_paper=any(column.key in row.paper for row in rows))
    for value, words in marks:
        _draw_line(ax, value, words)
    ax.set_yticks(range(len(rows)), [row.name for row in rows])
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.set_xlabel(label)
    ax.set_title(title, loc="left", fontsize=12, fontweight="bold")
    ax.grid(axis="x", alpha=0.3)
    ax.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return figure


def _draw_row(ax: Axes, height: int, row: TableRow, column: Column) -> None:
    """A row's runs at a height; mean and deviation a little above it, the paper's a little below."""
    mean = row.mean(column)
    if mean is None:
        return
    values = row.values(column.key)
    ax.plot(values, [height] * len(values), "o", color=_OURS, alpha=0.45, markersize=6)
    ax.errorbar(
        mean,
        height - 0.22,
        xerr=row.std(column),
        fmt="|",
        color=_OURS,
        markersize=13,
        markeredgewidth=2.5,
        elinewidth=2,
        capsize=3,
    )
    printed = row.paper.get(column.key)
    if printed is not None:
        ax.errorbar(
            printed.mean,
            height + 0.24,
            xerr=printed.std,
            fmt="D",
            color=_PAPER,
            markersize=6,
            markerfacecolor="white",
            elinewidth=1.4,
            capsize=3,
        )


def _name_marks(ax: Axes, with_paper: bool) -> None:
    """The legend's entries, without a figure behind them."""
    ax.plot([], [], "o", color=_OURS, alpha=0.45, label="ours, a run each")
    ax.plot([], [], "|", color=_OURS, markersize=13, markeredgewidth=2.5, label="ours, mean ± std")
    if with_paper:
        ax.plot([], [], "D", color=_PAPER, markerfacecolor="white", label="paper, mean ± std")


def _draw_line(ax: Axes, value: float, words: str) -> None:
    """A figure that all rows are to be seen against."""
    ax.axvline(value, color=COLOURS[0], linewidth=1, linestyle=":")
    ax.annotate(
        words,
        (value, 1),
        xytext=(3, -4),
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        va="top",
        rotation=90,
        fontsize=8.5,
        color=COLOURS[0],
    )
