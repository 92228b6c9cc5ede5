"""Where the samples of a feature map lie in the image. Pure arithmetic, no tensors;
sizes may be open (``torch.SymInt``) while a network is exported.

**Convention.** Positions are measured in pixels of the *base image* (the map that a pyramid was
expanded from). Base pixel ``i`` covers the interval ``[i, i + 1]``, so its centre is at ``i + ½``.
This is ``align_corners=False`` of ``torch.nn.functional.interpolate``: all levels of a pyramid cover
the same stretch of image, and a level of ``m`` samples over a base of ``n`` has its sample ``j`` at
``(j + ½) · n / m``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from nearfar.errors import InputError
from nearfar.scale_sets import as_ratio

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Axis", "Grid", "Padding", "Window", "base_grid", "level_grid", "level_size"]

#: What a convolution accepts as padding: a number, (vertical, horizontal), or a name.
Padding = int | Sequence[int] | Literal["same", "valid"]


class Axis(NamedTuple):
    """Evenly spaced samples along one image axis.

    Attributes:
        size: number of samples.
        start: position of sample 0, in base pixels.
        step: distance from a sample to the next, in base pixels.
        tiles: whether the samples' cells cover the base image exactly, edge to edge. Then going
            from one such axis to another is ordinary resizing.
    """

    size: int
    start: float
    step: float
    tiles: bool

    @classmethod
    def tiling(cls, size: int, extent: float) -> Axis:
        """``size`` samples whose cells share a stretch of ``extent`` base pixels evenly."""
        step = extent / size
        return cls(size, step / 2, step, True)

    def resized(self, size: int) -> Axis:
        """``size`` samples that share the stretch covered by this axis's own cells."""
        return self if size == self.size else self.divided(size)

    def divided(self, size: int) -> Axis:
        """:meth:`resized`, computed anew where ``size`` is the axis's own, too."""
        step = self.step * self.size / size
        return Axis(size, self.start - self.step / 2 + step / 2, step, self.tiles)

    def position(self, index: float) -> float:
        """Position of sample ``index``, in base pixels."""
        return self.start + self.step * index


Grid = tuple[Axis, Axis]
"""The vertical and the horizontal axis of a map."""


def base_grid(height: int, width: int) -> Grid:
    """The grid of a base image: its own pixels."""
    return Axis.tiling(height, height), Axis.tiling(width, width)


def level_size(size: int, scale: float) -> int:
    """Number of samples of ``size`` base pixels seen at ``scale``: rounded, halves upwards.

    Half upwards keeps a halving pyramid in step with stride-2 convolutions of padding 1, which
    also give ``(size + 1) // 2``.
    """
    ratio = as_ratio(scale)
    if ratio == 1:
        return size
    return (2 * size * ratio.numerator + ratio.denominator) // (2 * ratio.denominator)


def level_grid(height: int, width: int, scale: float) -> Grid:
    """The grid of a base image's level at ``scale``: :func:`level_size` samples over all of it."""
    return (
        Axis.tiling(level_size(height, scale), height),
        Axis.tiling(level_size(width, scale), width),
    )


@dataclass(frozen=True)
class Window:
    """How a sliding-window layer (convolution, pooling) moves samples: its geometry alone.

    Every field holds a vertical and a horizontal entry; ``padding`` holds (before, after) in each.
    """

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[tuple[int, int], tuple[int, int]]
    dilation: tuple[int, int]

    @classmethod
    def make(
        cls,
        kernel: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        padding: Padding = 0,
        dilation: int | Sequence[int] = 1,
    ) -> Window:
        """From the arguments of ``torch.nn.Conv2d``, ``'same'`` and ``'valid'`` included."""
        k, s, d = (
            _pair(kernel, "kernel_size", 1),
            _pair(stride, "stride", 1),
            _pair(dilation, "dilation", 1),
        )
        if padding == "same":
            if s != (1, 1):
                raise InputError(
                    f"padding='same' needs stride 1, got stride {s}; give the padding as a number"
                )
            reach = [d[a] * (k[a] - 1) for a in (0, 1)]
            # As torch does: of an odd total the larger half goes behind.
            pads = tuple((r // 2, r - r // 2) for r in reach)
        elif padding == "valid":
            pads = ((0, 0), (0, 0))
        elif isinstance(padding, str):
            raise InputError(f"padding must be a number, 'same' or 'valid', got {padding!r}")
        else:
            pads = tuple((p, p) for p in _pair(padding, "padding", 0))
        return cls(k, s, (pads[0], pads[1]), d)

    @classmethod
    def of(cls, layer: nn.Conv2d) -> Window:
        """The geometry of a convolution layer."""
        return cls.make(layer.kernel_size, layer.stride, layer.padding, layer.dilation)  # type: ignore[arg-type]

    def output_size(self, size: int, axis: int) -> int:
        """Samples that come out where ``size`` go in, along ``axis`` 0 or 1; 0 if it does not fit."""
        before, after = self.padding[axis]
        spare = size + before + after - self.dilation[axis] * (self.kernel[axis] - 1) - 1
        return spare // self.stride[axis] + 1 if spare >= 0 else 0

    def apply(self, grid: Grid) -> Grid:
        """The grid on which the layer's outputs lie: each at its receptive field's centre."""
        return self._along(grid[0], 0), self._along(grid[1], 1)

    def _along(self, axis: Axis, a: int) -> Axis:
        before, after = self.padding[a]
        centre = self.dilation[a] * (self.kernel[a] - 1) / 2 - before
        still_tiles = self.stride[a] == 1 and before == after and centre == 0
        return Axis(
            self.output_size(axis.size, a),
            axis.start + axis.step * centre,
            axis.step * self.stride[a],
            axis.tiles and still_tiles,
        )


def _pair(value: int | Sequence[int], name: str, least: int) -> tuple[int, int]:
    pair = (value, value) if isinstance(value, int) else tuple(value)
    if len(pair) == 1:
        pair = pair * 2
    if len(pair) != 2 or any(not isinstance(v, int) or v < least for v in pair):
        raise InputError(
            f"{name} must be a whole number >= {least} or a pair of them, got {value!r}"
        )
    return pair[0], pair[1]
