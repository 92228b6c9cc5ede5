"""What nearfar's own layers see: the filter, and the interpolation before and after it.

An SI-layer with smallest scale s sees about the filter's width divided by s. Here exactly: each level
is resized, convolved, and read at the places of the base grid, in fractions, as
:mod:`nearfar.pyramid` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from functools import partial
from typing import Any

from torch import Tensor, nn

from nearfar.counting.seen import Factor, Seen, pointwise
from nearfar.counting.sight import Sight, View, read, union
from nearfar.grid import Axis, Window, level_size
from nearfar.layers import PyramidConv2d, ScaleConv2d, ScalePool, SIConv2d
from nearfar.pyramid import Pyramid

__all__ = ["SCALE_LAYERS", "over_maps", "over_pyramids"]

#: The layers whose inside is one layer to the outside.
SCALE_LAYERS: tuple[type[nn.Module], ...] = (SIConv2d, PyramidConv2d, ScaleConv2d, ScalePool)


def over_maps(layer: SIConv2d | PyramidConv2d, seen: Seen, x: Tensor, out: Tensor) -> Seen:
    """What the output of a layer from maps to maps sees.

    Args:
        layer: the layer.
        seen: what its input sees.
        x: its input, ``[B, C, H, W]`` or ``[C, H, W]``.
        out: its output.
    """
    window = Window.of(layer)
    rank = x.dim()
    sizes = [int(n) for n in x.shape[-2:]]
    fitting = [
        s
        for s in layer.scales
        if all(window.output_size(level_size(n, s), a) > 0 for a, n in enumerate(sizes))
    ]
    seen = seen.mixed(rank - 3)
    found = seen
    for a in (0, 1):
        dim = rank - 2 + a
        size = int(out.shape[dim])
        along = partial(
            _over_scales, base=sizes[a], scales=fitting, window=window, a=a, layer=layer, size=size
        )
        found = found.resized(dim, size, along)
    return _with_shape(found, out)


def _over_scales(
    view: Sight,
    base: int,
    scales: Sequence[float],
    window: Window,
    a: int,
    layer: SIConv2d | PyramidConv2d,
    size: int,
) -> Sight:
    """Along one axis: the union of what is seen at every scale."""
    total: View = _at_scale(view, base, scales[0], window, a, layer.antialias, size)
    for scale in scales[1:]:
        total = union(total, _at_scale(view, base, scale, window, a, layer.antialias, size), size)
    assert isinstance(total, Sight)
    return total


def _at_scale(
    view: Sight, base: int, scale: float, window: Window, a: int, antialias: bool, size: int
) -> Sight:
    """Along one axis: seen at a scale, convolved, read on the base grid."""
    level = level_size(base, scale)
    step = Fraction(base, level)
    if level != base:
        width = max(Fraction(1), step) if antialias else Fraction(1)
        view = read(view, step / 2 - Fraction(1, 2), step, width, level)
    kernel, stride, dilation = window.kernel[a], window.stride[a], window.dilation[a]
    before = window.padding[a][0]
    answers = view.slid(kernel, stride, before, dilation, window.output_size(level, a))
    if level == base:
        return answers
    centre = Fraction(dilation * (kernel - 1), 2) - before
    place = Fraction(1, 2) + centre  # of the base grid's first output, in base pixels
    start = step / 2 + step * centre  # of the level's
    spacing = step * stride
    return read(answers, (place - start) / spacing, Fraction(stride) / spacing, Fraction(1), size)


def over_pyramids(
    layer: ScaleConv2d | ScalePool, x: Pyramid, seen: Sequence[Seen], outs: Sequence[Tensor]
) -> list[Seen]:
    """What the outputs of a layer that takes a pyramid see.

    Args:
        layer: the layer.
        x: its input.
        seen: what each of its levels sees.
        outs: its output's levels, or its one map.
    """
    if isinstance(layer, ScalePool):
        if x.base is None:
            return [pointwise(seen, tuple(out.shape)) for out in outs]
        parts = [_read(x, i, x.base, seen[i], layer.antialias) for i in range(len(x))]
        return [_union(parts, outs[0])]
    window = Window.make(layer.kernel_size, layer.stride, layer.padding, layer.dilation)
    found = []
    for s, out in enumerate(outs):
        target = x.grids[s]
        assert target is not None
        reach = min(layer.scale_extent, len(x) - s)
        parts = [seen[s]]
        parts += [_read(x, s + k, target, seen[s + k], layer.antialias) for k in range(1, reach)]
        parts = [part.mixed(len(out.shape) - 3) for part in parts]
        found.append(_union([_convolved(part, window, out) for part in parts], out))
    return found


def _read(x: Pyramid, i: int, target: tuple[Axis, Axis], seen: Seen, antialias: bool) -> Seen:
    """A level read on another grid."""
    source = x.grids[i]
    assert source is not None
    for a in (0, 1):
        dim = len(seen.dims) - 2 + a
        if source[a] == target[a]:
            continue
        start = _exactly((target[a].start - source[a].start) / source[a].step)
        step = _exactly(target[a].step / source[a].step)
        width = max(Fraction(1), step) if antialias else Fraction(1)
        where: dict[str, Any] = {
            "start": start,
            "step": step,
            "width": width,
            "size": target[a].size,
        }
        seen = seen.resized(dim, target[a].size, partial(read, **where))
    return seen


def _convolved(seen: Seen, window: Window, out: Tensor) -> Seen:
    for a in (0, 1):
        dim = len(seen.dims) - 2 + a
        size = int(out.shape[dim])
        slide: dict[str, Any] = {
            "kernel": window.kernel[a],
            "stride": window.stride[a],
            "before": window.padding[a][0],
            "dilation": window.dilation[a],
        }
        seen = seen.resized(dim, size, partial(Sight.slid, size=size, **slide))
    return seen


def _union(parts: Sequence[Seen], out: Tensor) -> Seen:
    return pointwise([_with_shape(part, out) for part in parts], tuple(out.shape))


def _with_shape(seen: Seen, out: Tensor) -> Seen:
    """With the output's sizes wherever no axis lies."""
    return seen.with_dims(
        [
            dim if seen.axes_in(d) else (Factor(int(out.shape[d])),)
            for d, dim in enumerate(seen.dims)
        ]
    )


def _exactly(value: float) -> Fraction:
    """The ratio of small whole numbers that a computed position stands for."""
    return Fraction(value).limit_denominator(1_000_000)
