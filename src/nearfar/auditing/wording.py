"""How sentences write numbers, sizes and lists."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = [
    "INPUT_SIDES",
    "STORED_SIDES",
    "ZOOM",
    "AxisWords",
    "at_size",
    "listed",
    "percent",
    "points",
    "sizes",
    "span",
]


@dataclass(frozen=True)
class AxisWords:
    """How sentences, tables and plots speak of an axis.

    Attributes:
        name: of the axis: ``content``.
        sign: what follows a number: ``×``, or `` px``.
        label: of the axis in plots.
        exposure: what an audit does with each image, after "each".
    """

    name: str
    sign: str
    label: str
    exposure: str

    def text(self, value: float) -> str:
        """``0.5×``, ``224 px``."""
        return f"{value:g}{self.sign}"

    def tick(self, value: float) -> str:
        """At a tick of an axis whose label names the unit: ``0.5×``, ``224``."""
        return self.text(value) if self.relative else f"{value:g}"

    @property
    def relative(self) -> bool:
        """Whether points are factors."""
        return self.sign == "×"


#: Of sides of a network's input, and of files.
INPUT_SIDES = AxisWords(
    "input", " px", "side of the network's input, pixels", "shown at {count} input side{s}"
)
STORED_SIDES = AxisWords(
    "stored", " px", "longer side of the stored image, pixels", "stored at {count} size{s}"
)
#: Of things' boxes, on a network's input and in the file.
BOX_SIZES = AxisWords(
    "box",
    " px",
    "size of the thing on the network's input, pixels",
    "counted for one of {count} sizes",
)
CROPPED_SIZES = AxisWords(
    "box", " px", "size of the thing in the file, pixels", "counted for one of {count} sizes"
)
#: Of factors by which content is larger.
ZOOM = AxisWords("content", "×", "size of the thing", "shown at {count} size{s}")


def percent(share: float) -> str:
    """``41 %`` for 0.41."""
    return f"{100 * share:.0f} %"


def points(difference: float) -> str:
    """``-39 points`` for a difference of two shares of -0.39."""
    number = round(100 * difference)
    return f"{number:+d} point{'s' if abs(number) != 1 else ''}"


def listed(items: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return f"{', '.join(items[:-1])} and {items[-1]}" if len(items) > 1 else items[0]


def span(low: float, high: float, words: AxisWords = ZOOM) -> str:
    """``0.75× to 1.25×``, or ``only at 1×``."""
    return (
        f"only at {words.text(low)}" if low == high else f"{words.text(low)} to {words.text(high)}"
    )


def at_size(scale: float, words: AxisWords = ZOOM) -> str:
    """``at half the size`` for 0.5, ``at 224 px`` for pixels."""
    if not words.relative:
        return f"at {words.text(scale)}"
    named = {0.25: "a quarter of", 0.5: "half", 2.0: "twice", 4.0: "four times"}
    return f"at {named.get(scale, words.text(scale))} the size"


def sizes(scales: Sequence[float], tested: Sequence[float], words: AxisWords = ZOOM) -> str:
    """``0.3×, 0.5× and 1.25× to 2×``: three or more neighbours among those tested become a range."""
    ordered = sorted(tested)
    runs: list[list[float]] = []
    for scale in sorted(scales):
        if runs and ordered.index(scale) == ordered.index(runs[-1][-1]) + 1:
            runs[-1].append(scale)
        else:
            runs.append([scale])
    parts: list[str] = []
    for run in runs:
        if len(run) > 2:
            parts.append(span(run[0], run[-1], words))
        else:
            parts += [words.text(scale) for scale in run]
    return listed(parts)
