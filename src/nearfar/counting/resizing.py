"""What resized maps see: torch's interpolation, and units that move between space and channels."""

from __future__ import annotations

import math
from fractions import Fraction
from functools import partial
from typing import Any

import torch

from nearfar.counting.calls import Answer, Call, Rule
from nearfar.counting.seen import Factor
from nearfar.counting.sight import Sight, read

__all__ = ["RESIZING"]

aten: Any = torch.ops.aten
_HALF = Fraction(1, 2)


def _interpolated(reach: int) -> Rule:
    """Linear (``reach`` 1) or cubic (2) interpolation, antialiased or not."""

    def rule(call: Call, smooth: bool = False) -> Answer:
        seen = call.first
        rank = len(seen.dims)
        for n in (0, 1):
            dim = rank - 2 + n
            old, new = int(_input(call).shape[dim]), call.shape[dim]
            if call.arguments.get("align_corners"):
                start, step = Fraction(0), Fraction(old - 1, max(1, new - 1))
            else:
                step = _ratio(call, n, old, new)
                start = step * _HALF - _HALF
            width = reach * (max(Fraction(1), step) if smooth else Fraction(1))
            where: dict[str, Any] = {"start": start, "step": step, "width": width, "size": new}
            seen = seen.resized(dim, new, partial(read, **where))
        return seen

    return rule


def _smoothly(reach: int) -> Rule:
    rule: Any = _interpolated(reach)
    return lambda call: rule(call, smooth=True)


def _nearest(exact: bool) -> Rule:
    def rule(call: Call) -> Answer:
        seen = call.first
        rank = len(seen.dims)
        for n in (0, 1):
            dim = rank - 2 + n
            new = call.shape[dim]
            step = _ratio(call, n, int(_input(call).shape[dim]), new)
            start = step * _HALF if exact else Fraction(0)
            seen = seen.resized(dim, new, partial(_picked, start=start, step=step, size=new))
        return seen

    return rule


def _input(call: Call) -> Any:
    return next(iter(call.arguments.values()))


def _ratio(call: Call, n: int, old: int, new: int) -> Fraction:
    """Old units a new one: from the factor where one was given, else from the sizes."""
    factors = call.arguments.get("scale_factors")
    given = factors[n] if factors else call.arguments.get(("scales_h", "scales_w")[n])
    return 1 / Fraction(given).limit_denominator(10_000) if given else Fraction(old, new)


def _picked(view: Sight, start: Fraction, step: Fraction, size: int) -> Sight:
    """New unit j is the unit at the floor of ``start + step · j``."""
    return view.gather(
        lambda j: [math.floor(start + step * j)], step.denominator, step.numerator, size
    )


def _shuffled(call: Call) -> Answer:
    """Channels become space: ``r · r`` new units for each old one."""
    seen, r = call.first, int(call["upscale_factor"])
    rank = len(seen.dims)
    for dim in (rank - 2, rank - 1):
        size = call.shape[dim]
        seen = seen.resized(dim, size, partial(_parted, r=r, size=size))
    return seen.with_dims([*seen.dims[: rank - 3], (Factor(call.shape[-3]),), *seen.dims[-2:]])


def _parted(view: Sight, r: int, size: int) -> Sight:
    return view.gather(lambda j: [j // r], r, 1, size)


def _unshuffled(call: Call) -> Answer:
    """Space becomes channels: of ``r · r`` units together, each goes to a channel of its own."""
    seen, r = call.first, int(call["downscale_factor"])
    rank = len(seen.dims)
    for dim in (rank - 2, rank - 1):
        size = call.shape[dim]
        window: dict[str, Any] = {
            "kernel": r,
            "stride": r,
            "before": 0,
            "dilation": 1,
            "size": size,
        }
        seen = seen.resized(dim, size, partial(Sight.slid, **window))
    return seen.with_dims([*seen.dims[: rank - 3], (Factor(call.shape[-3]),), *seen.dims[-2:]])


RESIZING: dict[Any, Rule] = {
    aten.upsample_bilinear2d: _interpolated(1),
    aten.upsample_bicubic2d: _interpolated(2),
    aten._upsample_bilinear2d_aa: _smoothly(1),
    aten._upsample_bicubic2d_aa: _smoothly(2),
    aten.upsample_nearest2d: _nearest(False),
    aten._upsample_nearest_exact2d: _nearest(True),
    aten.pixel_shuffle: _shuffled,
    aten.pixel_unshuffle: _unshuffled,
}
