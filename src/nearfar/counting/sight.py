"""What the units of a map see of the image along one axis, in whole pixels."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from fractions import Fraction

__all__ = ["Lost", "Sight", "View", "read", "union"]

#: A period longer than the map itself is cut to this many units at least.
_LONGEST = 64


class Lost(Enum):
    """Sight that is no stretch of pixels any more."""

    WHOLE = "whole image"
    UNKNOWN = "not known"


@dataclass(frozen=True)
class Sight:
    """The stretch of pixels that every unit of a line sees, borders disregarded.

    A convolution moves a unit's stretch evenly; interpolation by p / q repeats its pattern every q
    units. So the stretches of one period say all: unit ``i + len(first)`` sees what unit ``i``
    sees, ``advance`` pixels further. Units and pixels beyond the borders are taken to exist.

    Attributes:
        first: the first pixel that each unit of a period sees; ``inf`` for a unit that sees none.
        last: the last pixel that it sees.
        advance: pixels from a period to the next; 0 for a single unit that stands for all.
    """

    first: tuple[float, ...]
    last: tuple[float, ...]
    advance: int

    @classmethod
    def pixels(cls) -> Sight:
        """The image's own: pixel i sees itself."""
        return cls((0,), (0,), 1)

    @property
    def size(self) -> int:
        """How many pixels the unit that sees most of them sees."""
        widest = max(b - a for a, b in zip(self.first, self.last, strict=True))
        return max(0, int(widest) + 1) if widest > -math.inf else 0

    def at(self, unit: int) -> tuple[float, float]:
        """First and last pixel that a unit sees."""
        turns, k = divmod(unit, len(self.first))
        moved = turns * self.advance
        return self.first[k] + moved, self.last[k] + moved

    def fixed(self, unit: int) -> Sight:
        """One unit alone, standing for all."""
        first, last = self.at(unit)
        return Sight((first,), (last,), 0)

    def gather(
        self, reads: Callable[[int], Iterable[int]], turn: int, shift: int, size: int
    ) -> Sight:
        """The sight of units that each read some of these.

        Args:
            reads: the units that new unit j reads.
            turn: new unit ``j + turn`` reads …
            shift: … what new unit j reads, ``shift`` units further.
            size: how many new units there are; a period is not kept much longer than that.
        """
        old = len(self.first)
        period = turn * old // math.gcd(shift, old)
        advance = self.advance * (shift * period // turn) // old
        if period > max(size, _LONGEST):
            # Only what lies beyond the borders is then rounded, to the pixel.
            kept = max(size, _LONGEST)
            period, advance = kept, round(Fraction(advance * kept, period))
        seen = [[self.at(i) for i in reads(j)] for j in range(period)]
        return Sight(
            tuple(min((a for a, _ in pairs), default=math.inf) for pairs in seen),
            tuple(max((b for _, b in pairs), default=-math.inf) for pairs in seen),
            advance,
        )

    def slid(self, kernel: int, stride: int, before: int, dilation: int, size: int) -> Sight:
        """Under a sliding window: unit j reads ``j · stride - before + dilation · t``."""
        reach = range(0, dilation * (kernel - 1) + 1, dilation)
        return self.gather(lambda j: (j * stride - before + t for t in reach), 1, stride, size)

    def spread(self, kernel: int, stride: int, before: int, dilation: int, size: int) -> Sight:
        """Under a transposed convolution: unit j reads those i whose windows cover it."""
        reach = range(0, dilation * (kernel - 1) + 1, dilation)
        return self.gather(
            lambda j: ((j + before - t) // stride for t in reach if (j + before - t) % stride == 0),
            stride,
            1,
            size,
        )

    def shared_out(self, old: int, size: int) -> Sight:
        """Under adaptive pooling of ``old`` units into ``size``."""
        ratio = Fraction(old, size)
        return self.gather(
            lambda j: range(j * old // size, -(-(j + 1) * old // size)),
            ratio.denominator,
            ratio.numerator,
            size,
        )


View = Sight | Lost
"""What is known about one axis."""


def read(sight: Sight, start: Fraction, step: Fraction, width: Fraction, size: int) -> Sight:
    """Under interpolation: new unit j reads the units nearer than ``width`` to ``start + step · j``.

    Args:
        sight: of the units read.
        start, step: positions, in units.
        width: half the width of the interpolation's kernel; 1 is linear interpolation.
        size: how many new units there are.
    """

    def reads(j: int) -> Iterable[int]:
        at = start + step * j
        return range(math.floor(at - width) + 1, math.ceil(at + width))

    return sight.gather(reads, step.denominator, step.numerator, size)


def union(one: View, other: View, size: int) -> View:
    """What a unit sees that reads the unit of its own number in both of two maps of ``size``."""
    for lost in (Lost.WHOLE, Lost.UNKNOWN):
        if lost in (one, other):
            return lost
    assert isinstance(one, Sight)
    assert isinstance(other, Sight)
    periods = len(one.first), len(other.first)
    period = math.lcm(*periods)
    advance = one.advance * period // periods[0]
    even = advance == other.advance * period // periods[1]
    if not even or period > max(size, _LONGEST):
        # They move apart (a fixed unit, sizes that rounded differently): right within the map.
        main, length = (one, periods[0]) if one.advance else (other, periods[1])
        period = max(size, 1)
        advance = round(Fraction(main.advance * period, length))
    pairs = [(one.at(i), other.at(i)) for i in range(period)]
    return Sight(
        tuple(min(a[0], b[0]) for a, b in pairs), tuple(max(a[1], b[1]) for a, b in pairs), advance
    )
