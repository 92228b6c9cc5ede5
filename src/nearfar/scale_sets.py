"""Sets of scales: how they are written, checked, and turned into exact ratios."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from typing import Literal

from nearfar.errors import InputError

__all__ = ["SCALE_SETS", "ScaleSet", "as_ratio", "as_scales", "scales"]

ScaleSet = str | Sequence[float | Fraction]

#: Named sets. ``six`` is the set of the scale-invariant layer's authors ("six scales from 0.6 to 2").
SCALE_SETS: dict[str, tuple[float, ...]] = {
    "octave": (0.5, 0.75, 1.0, 1.5, 2.0),
    "six": (0.6, 0.88, 1.16, 1.44, 1.72, 2.0),
    "down": (0.25, 0.5, 1.0),
}


def scales(
    lo: float, hi: float, n: int, spacing: Literal["linear", "geometric"] = "linear"
) -> tuple[float, ...]:
    """``n`` scales from ``lo`` to ``hi``, both included, smallest first.

    Args:
        lo: smallest scale, above 0.
        hi: largest scale, at least ``lo``.
        n: how many, at least 1 (``n = 1`` needs ``lo == hi``).
        spacing: equal differences (``linear``) or equal ratios (``geometric``).

    Raises:
        InputError: a bound is not a positive finite number, ``lo > hi``, or ``n`` does not fit.

    >>> scales(0.6, 2.0, 6)
    (0.6, 0.88, 1.16, 1.44, 1.72, 2.0)
    >>> scales(0.5, 2.0, 3, spacing="geometric")
    (0.5, 1.0, 2.0)
    """
    as_scales((lo, hi))
    if n < 1 or lo > hi or (n == 1 and lo != hi):
        raise InputError(
            f"scales(lo, hi, n) needs lo <= hi and n >= 1 (n = 1 only where lo == hi), "
            f"got lo={lo}, hi={hi}, n={n}; swap the bounds or raise n"
        )
    if spacing not in ("linear", "geometric"):
        raise InputError(f"spacing must be 'linear' or 'geometric', got {spacing!r}")
    if n == 1:
        return (float(lo),)
    parts = [i / (n - 1) for i in range(n)]
    if spacing == "linear":
        values = [lo + (hi - lo) * t for t in parts]
    else:
        values = [lo * (hi / lo) ** t for t in parts]
    # Twelve decimals take away the last bits' noise (1.1599999999999999), so that a printed set
    # reads back as the same set.
    return tuple(round(float(v), 12) for v in values)


def as_scales(scale_set: ScaleSet) -> tuple[float, ...]:
    """Checks a set of scales, or looks a named one up in :data:`SCALE_SETS`.

    Args:
        scale_set: a name, or positive finite numbers (``float`` or ``Fraction``), in any order.

    Returns:
        The scales as floats, in the order given.

    Raises:
        InputError: unknown name, empty set, or a scale that is not positive and finite.
    """
    if isinstance(scale_set, str):
        if scale_set not in SCALE_SETS:
            raise InputError(
                f"no scale set is named {scale_set!r}; the named sets are "
                f"{', '.join(SCALE_SETS)}; or give the scales themselves, such as (0.5, 1, 2)"
            )
        return SCALE_SETS[scale_set]
    try:
        values = tuple(float(s) for s in scale_set)
    except (TypeError, ValueError) as cause:
        raise InputError(
            f"scales must be a sequence of positive numbers such as (0.5, 1, 2), got {scale_set!r}"
        ) from cause
    if not values:
        raise InputError("scales is empty; give at least one positive number, such as (1,)")
    for value in values:
        if not (math.isfinite(value) and value > 0):
            raise InputError(f"every scale must be positive and finite, got {value} in {values}")
    return values


@lru_cache(maxsize=1024)
def as_ratio(scale: float) -> Fraction:
    """A scale as the exact ratio that its decimal digits name: ``0.6`` is 3/5.

    Sizes computed from ratios are free of rounding noise (``15 * 0.7`` is 10.5, not 10.4999…), and
    stay whole-number arithmetic. Endless decimals such as ``1 / 3`` become the nearest ratio with
    a denominator up to 10,000, which is 1/3.
    """
    return Fraction(repr(float(scale))).limit_denominator(10_000)
