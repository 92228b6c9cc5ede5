"""Receptive fields along one image axis, in whole pixels, and what a scale layer says of its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

from torch import Tensor

from nearfar.errors import InputError
from nearfar.grid import Axis, Window, level_size
from nearfar.layers.equivariance import EquivarianceError, measure_equivariance
from nearfar.pyramid import Pyramid
from nearfar.scale_sets import ScaleSet

__all__ = ["AxisField", "ScaleLayer"]

#: A period longer than the map itself is cut to this many units at least.
_LONGEST = 64
_HALF = Fraction(1, 2)


@dataclass(frozen=True)
class AxisField:
    """The receptive fields of a line of units along one image axis, borders disregarded.

    A convolution moves a unit's field evenly; interpolation by p / q repeats its pattern every q
    units. So the fields of one period describe them all: unit ``i + len(first)`` has the field of
    unit ``i``, ``advance`` pixels further. Units and pixels beyond the borders are taken to exist.

    Attributes:
        first: the first pixel that each unit of a period depends on; ``inf`` if on none.
        last: the last pixel.
        advance: pixels from a period to the next; 0 for a single unit that stands for all.
    """

    first: tuple[float, ...] = (0,)
    last: tuple[float, ...] = (0,)
    advance: int = 1

    @property
    def size(self) -> int:
        """Pixels in the largest field."""
        widest = max(b - a for a, b in zip(self.first, self.last, strict=True))
        return max(0, int(widest) + 1) if widest > -math.inf else 0

    def at(self, unit: int) -> tuple[float, float]:
        """First and last pixel of a unit's field."""
        turns, k = divmod(unit, len(self.first))
        return self.first[k] + turns * self.advance, self.last[k] + turns * self.advance

    def fixed(self, unit: int) -> AxisField:
        """One unit alone, standing for all."""
        first, last = self.at(unit)
        return AxisField((first,), (last,), 0)

    def gather(
        self, reads: Callable[[int], Iterable[int]], turn: int, shift: int, size: int
    ) -> AxisField:
        """The fields of units that each read some of these.

        Args:
            reads: the units that new unit j reads.
            turn: new unit ``j + turn`` reads …
            shift: … what new unit j reads, ``shift`` units further.
            size: the number of new units; a period is not much longer than that.
        """
        old = len(self.first)
        period = turn * old // math.gcd(shift, old)
        advance = self.advance * (shift * period // turn) // old
        longest = max(size, _LONGEST)
        if period > longest:
            # Only what lies beyond the borders is then rounded, to the pixel.
            period, advance = longest, round(Fraction(advance * longest, period))
        fields = [[self.at(i) for i in reads(j)] for j in range(period)]
        return AxisField(
            tuple(min((a for a, _ in pairs), default=math.inf) for pairs in fields),
            tuple(max((b for _, b in pairs), default=-math.inf) for pairs in fields),
            advance,
        )

    def slide(self, size: int, kernel: int, stride: int, before: int, dilation: int) -> AxisField:
        """Under a sliding window: unit j reads ``j · stride - before + dilation · t``."""
        if (kernel, stride, before) == (1, 1, 0):
            return self
        reach = range(0, dilation * (kernel - 1) + 1, dilation)
        return self.gather(lambda j: (j * stride - before + t for t in reach), 1, stride, size)

    def spread(self, size: int, kernel: int, stride: int, before: int, dilation: int) -> AxisField:
        """Under a transposed convolution: unit j reads those i whose windows cover it."""
        reach = range(0, dilation * (kernel - 1) + 1, dilation)
        return self.gather(
            lambda j: ((j + before - t) // stride for t in reach if (j + before - t) % stride == 0),
            *(stride, 1, size),
        )

    def interpolated(
        self, size: int, start: Fraction, step: Fraction, width: Fraction
    ) -> AxisField:
        """Under interpolation: unit j reads the units nearer than ``width`` to ``start + step · j``.

        Args:
            size: the number of new units.
            start, step: positions, in old units.
            width: half the width of the interpolation's kernel; 1 is linear interpolation.
        """

        def reads(j: int) -> Iterable[int]:
            at = start + step * j
            return range(math.floor(at - width) + 1, math.ceil(at + width))

        return self.gather(reads, step.denominator, step.numerator, size)

    def resample(self, source: Axis, target: Axis, antialias: bool) -> AxisField:
        """Samples that lie as ``source``, linearly interpolated where ``target`` has its own."""
        if source == target:
            return self
        start, step = (
            Fraction(value).limit_denominator(1_000_000)
            for value in ((target.start - source.start) / source.step, target.step / source.step)
        )
        width = max(Fraction(1), step) if antialias else Fraction(1)
        return self.interpolated(target.size, start, step, width)

    def union(self, other: AxisField, size: int) -> AxisField:
        """Of units that read the unit of their own number in both of two maps of ``size`` units."""
        period = math.lcm(len(self.first), len(other.first))
        advance, advance_other = (f.advance * period // len(f.first) for f in (self, other))
        if advance != advance_other or period > max(size, _LONGEST):
            # They move apart (a fixed unit, sizes that rounded differently): right within the map.
            main = self if self.advance else other
            period = max(size, 1)
            advance = round(Fraction(main.advance * period, len(main.first)))
        pairs = [(*self.at(i), *other.at(i)) for i in range(period)]
        first, last = (min(a, c) for a, _, c, _ in pairs), (max(b, d) for _, b, _, d in pairs)
        return AxisField(tuple(first), tuple(last), advance)


class ScaleLayer:
    """Base of layers over scales: what counting, initialisation and checks ask of one.

    To both, the layer is one layer, whatever operators it calls. Their multiplications and the parameters
    that they use are counted as they are called under :func:`nearfar.reference.reference_only`; what
    operators cannot tell, the layer states itself. A layer with ``weight`` (and ``bias``) gets first
    weights as a convolution does.
    """

    def receptive_field(
        self, x: Tensor | Pyramid, fields: Sequence[AxisField], axis: int
    ) -> list[AxisField]:
        """The receptive fields of the outputs along one image axis.

        Args:
            x: the input: a map ``[…, C, H, W]``, or a pyramid of maps with their grids.
            fields: those of the input's units along the axis, one for each of its maps.
            axis: 0 for rows, 1 for columns.

        Returns:
            One for each map that the layer puts out.
        """
        raise NotImplementedError

    #: What holds when the image is rescaled, in words; :meth:`check_equivariance` measures how nearly.
    contract: ClassVar[str] = ""

    def check_equivariance(
        self, scales: ScaleSet = (0.5, 0.7071, 1.4142, 2.0), images: Tensor | None = None
    ) -> EquivarianceError:
        r"""How nearly the layer, with its present weights, keeps its contract when images are rescaled.

        .. math:: |\Phi(T_s x) - T_s \Phi(x)| / |T_s \Phi(x)|

        What is compared are the levels that show the same thing: that of scale p for the rescaled image, and
        that of scale p · s for the image. An eighth of each side is left out at the borders.

        Args:
            scales: by which the images are rescaled, antialiased.
            images: ``[B, C, H, W]``; default four of 96×96 with the spectrum of photographs, always the
                same. A layer over pyramids gets them lifted.

        Raises:
            InputError: bad scales, images that are no batch of maps, or a layer that states no contract.
        """
        if not self.contract:
            raise InputError(
                f"{type(self).__name__} states no contract over scales, so there is nothing to measure; set "
                f"its class attribute 'contract'"
            )
        return measure_equivariance(self, scales, images)

    def input_for(self, x: Tensor) -> Tensor | Pyramid:
        """What the layer is given where images are ``x``: the images, or a pyramid of them."""
        return x

    def parts(self, y: Tensor) -> list[tuple[float | None, Tensor]]:
        """An output map by the scales that its channels belong to; ``None``: they belong to none."""
        return [(None, y)]

    def whole_levels(self, count: int) -> int:
        """How many of ``count`` output levels see all scales that their filters extend over."""
        return count

    def pooled(self, x: Tensor | Pyramid) -> int:
        """How many units of its input an output unit reads besides those of convolutions."""
        return 0


def over_scales(
    field: AxisField,
    x: Tensor,
    scales: Sequence[float],
    window: Window,
    axis: int,
    antialias: bool,
) -> AxisField:
    """Along one axis: the union of the fields of a convolution at every scale.

    An input at the smallest scale s makes the filter's field about ``1 / s`` as wide. Here exactly: each
    level is resized, convolved, and read at the positions of the base grid, in fractions, as
    :mod:`nearfar.pyramid` does.
    """
    sizes = [int(n) for n in x.shape[-2:]]
    size = window.output_size(sizes[axis], axis)
    total: AxisField | None = None
    for scale in scales:
        levels = [level_size(n, scale) for n in sizes]
        if all(window.output_size(n, a) > 0 for a, n in enumerate(levels)):
            part = _at_scale(field, sizes[axis], levels[axis], window, axis, antialias)
            total = part if total is None else total.union(part, size)
    assert total is not None, "the layer has refused an input that no scale fits"
    return total


def _at_scale(
    field: AxisField, base: int, level: int, window: Window, axis: int, antialias: bool
) -> AxisField:
    """Of ``base`` samples: seen as ``level`` samples, convolved, read on the base grid."""
    if level == base:
        return convolved(field, base, window, axis)
    step = Fraction(base, level)
    width = max(Fraction(1), step) if antialias else Fraction(1)
    field = convolved(field.interpolated(level, step / 2 - _HALF, step, width), level, window, axis)
    stride, before = window.stride[axis], window.padding[axis][0]
    centre = Fraction(window.dilation[axis] * (window.kernel[axis] - 1), 2) - before
    # The first output lies at ½ + centre on the base grid and at step · (½ + centre) on the level's.
    start = (_HALF + centre) * (1 - step) / (step * stride)
    return field.interpolated(window.output_size(base, axis), start, 1 / step, Fraction(1))


def convolved(field: AxisField, size: int, window: Window, axis: int) -> AxisField:
    """Under a convolution's window over ``size`` units."""
    kernel, stride, dilation = window.kernel[axis], window.stride[axis], window.dilation[axis]
    return field.slide(
        window.output_size(size, axis), kernel, stride, window.padding[axis][0], dilation
    )
