"""What the plots share: colours, the axis of scales, the axis of shares, legends."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, TypeVar

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nearfar.auditing.wording import ZOOM, AxisWords

__all__ = [
    "COLOURS",
    "colour_of",
    "dash_of",
    "figure_of",
    "legend_above",
    "marker_of",
    "new_axes",
    "percent_axis",
    "quiet_fonts",
    "scale_axis",
    "shortened",
]

#: Okabe and Ito's palette, told apart by colour-blind readers too; the baseline is grey.
COLOURS = ("#555555", "#0072B2", "#E69F00", "#CC79A7", "#009E73", "#56B4E9", "#D55E00")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_DASHES = ("-", "--", ":", "-.")
_POINT = 1 / 72  # inch
#: Width of a character of ordinary text, in parts of the font's size.
_CHARACTER = 0.62
_LONGEST_NAME, _SHORTEST_NAME = 48, 8
_Item = TypeVar("_Item")


def colour_of(index: int) -> str:
    """The colour of a model by its index; the baseline's is 0."""
    return COLOURS[index % len(COLOURS)]


def marker_of(index: int) -> str:
    """The marker that goes with :func:`colour_of`."""
    return _MARKERS[index % len(_MARKERS)]


def dash_of(index: int) -> str:
    """The line's style, another one where the colours repeat."""
    return _DASHES[index // len(COLOURS) % len(_DASHES)]


def new_axes(width: float, height: float) -> Axes:
    """The one axis of a new figure, in inches."""
    return Figure(figsize=(width, height), layout="constrained").add_subplot()


def figure_of(ax: Axes) -> Figure:
    """The figure that an axis stands in."""
    figure = ax.get_figure(root=True)
    assert isinstance(figure, Figure)
    return figure


def shortened(name: str, length: int, *, keep: Literal["ends", "end"] = "ends") -> str:
    """A name on one line of at most ``length`` characters.

    Args:
        name: anybody's; line breaks and characters that do not print become spaces.
        length: longer names are cut, and ``…`` says where.
        keep: both ``ends``, or the ``end`` alone.
    """
    name = " ".join("".join(c if c.isprintable() else " " for c in name).split())
    if len(name) <= length:
        return name
    first = (length - 1) // 2 if keep == "ends" else 0
    return f"{name[:first]}…{name[len(name) - (length - 1 - first) :]}"


def scale_axis(
    ax: Axes,
    scales: Iterable[float],
    *,
    size: float = 10,
    words: AxisWords = ZOOM,
    reference: float = 1,
) -> None:
    """Scales from left to right, equal ratios equally far apart; every tick, labels where they fit.

    Args:
        ax: which axis.
        scales: where the ticks stand.
        words: what they are.
        reference: which of them is labelled first.
        size: of the labels, in points.
    """
    ticks = sorted(set(scales))
    ax.set_xscale("log", base=2)
    margin = (max(ticks) / min(ticks)) ** 0.04 if len(ticks) > 1 else 1.5
    ax.set_xlim(min(ticks) / margin, max(ticks) * margin)
    inches = figure_of(ax).get_figwidth() * ax.get_position().width
    octave = inches / math.log2(max(ticks) / min(ticks) * margin**2)
    labelled: list[float] = []
    # The scale that all are compared with first, then the ends, then what lies at whole octaves.
    for tick in sorted(ticks, key=lambda s: _rank(s, ticks, reference)):
        needed = [
            (_width(words.tick(tick), size) + _width(words.tick(other), size)) / 2
            + size / 2 * _POINT
            for other in labelled
        ]
        apart = [abs(math.log2(tick / other)) * octave for other in labelled]
        if all(a >= n for a, n in zip(apart, needed, strict=True)):
            labelled.append(tick)
    ax.set_xticks(ticks, [words.tick(s) if s in labelled else "" for s in ticks], fontsize=size)
    ax.minorticks_off()


def _rank(scale: float, ticks: Sequence[float], reference: float) -> tuple[int, float]:
    if scale == reference:
        return 0, scale
    if scale in (ticks[0], ticks[-1]):
        return 1, scale
    return (2 if math.log2(scale).is_integer() else 3), scale


def _width(label: str, size: float) -> float:
    return len(label) * _CHARACTER * size * _POINT


def percent_axis(ax: Axes, *, size: float = 10, step: int = 20) -> None:
    """Shares from bottom to top, 0 to 100 per cent."""
    ticks = range(0, 101, step)
    ax.set_ylim(0, 101)
    ax.set_yticks(ticks, [f"{p} %" for p in ticks], fontsize=size)
    ax.grid(alpha=0.25)
    ax.spines[["top", "right"]].set_visible(False)


def legend_above(
    ax: Axes, handles: Sequence[Artist], names: Sequence[str], *, size: float = 10
) -> int:
    """Names above the axis, row by row, in as many columns as fit beside each other.

    Widths are measured: the legend ends before the figure does, or before the next axis.

    Args:
        ax: which axis; its tick labels are set.
        handles: one a name.
        names: drawn as they are written; cut where one alone is too long.
        size: of the names, in points.

    Returns:
        How many rows there are.
    """
    figure, position = figure_of(ax), ax.get_subplotspec()
    with quiet_fonts():
        figure.draw_without_rendering()  # where the layout puts the axis beside its tick labels
    last = position is None or position.is_last_col()
    room = (figure.bbox.x1 if last else ax.bbox.x1) - ax.bbox.x0

    def draw(names: Sequence[str], columns: int) -> float:
        legend = ax.legend(
            *(_by_rows(handles, columns), _by_rows(names, columns)),
            loc="lower left",
            bbox_to_anchor=(0, 1.01),
            borderaxespad=0,
            ncols=columns,
            frameon=False,
            fontsize=size,
        )
        for text in legend.get_texts():
            text.set_parse_math(False)
        with quiet_fonts():
            return float(legend.get_window_extent().width)

    names = [shortened(name, _LONGEST_NAME) for name in names]
    if draw(names, len(names)) <= room:
        return 1
    longest = max(map(len, names))
    while (width := draw(names, 1)) > room and longest > _SHORTEST_NAME:
        longest = max(_SHORTEST_NAME, min(longest - 1, int(longest * room / width)))
        names = [shortened(name, longest) for name in names]
    gap = 2 * size / 72 * figure.dpi  # matplotlib's default between columns
    columns = max(1, min(len(names) - 1, int((room + gap) / (width + gap))))
    rows = math.ceil(len(names) / columns)
    draw(names, math.ceil(len(names) / rows))
    return rows


@contextmanager
def quiet_fonts() -> Iterator[None]:
    """No warnings of names in scripts that matplotlib's font lacks: an SVG's reader has other fonts."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        warnings.filterwarnings("ignore", "Matplotlib currently does not support", UserWarning)
        yield


def _by_rows(items: Sequence[_Item], columns: int) -> list[_Item]:
    """Items so ordered that a legend, which fills column by column, shows them row by row."""
    return [item for column in range(columns) for item in items[column::columns]]
