"""Pictures that several tables share."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from nearfar.auditing.plots import COLOURS
from nearfar.experiments.tables.table import Column, Row

__all__ = ["plot_runs"]


def plot_runs(
    rows: Sequence[Row],
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
        values, mean = row.values(column.key), row.mean(column)
        if mean is None:
            continue
        ax.plot(values, [i] * len(values), "o", color=COLOURS[1], alpha=0.45, markersize=6)
        ax.errorbar(
            mean,
            i - 0.22,
            xerr=row.std(column),
            fmt="|",
            color=COLOURS[1],
            markersize=13,
            markeredgewidth=2.5,
            elinewidth=2,
            capsize=3,
        )
        printed = row.paper.get(column.key)
        if printed is not None:
            ax.errorbar(
                printed.mean,
                i + 0.24,
                xerr=printed.std,
                fmt="D",
                color=COLOURS[6],
                markersize=6,
                markerfacecolor="white",
                elinewidth=1.4,
                capsize=3,
            )
    ax.plot([], [], "o", color=COLOURS[1], alpha=0.45, label="ours, a run each")
    ax.plot(
        [], [], "|", color=COLOURS[1], markersize=13, markeredgewidth=2.5, label="ours, mean ± std"
    )
    if any(column.key in row.paper for row in rows):
        ax.plot([], [], "D", color=COLOURS[6], markerfacecolor="white", label="paper, mean ± std")
    for value, words in marks:
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
    ax.set_yticks(range(len(rows)), [row.name for row in rows])
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.set_xlabel(label)
    ax.set_title(title, loc="left", fontsize=12, fontweight="bold")
    ax.grid(axis="x", alpha=0.3)
    ax.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return figure
