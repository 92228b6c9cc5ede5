"""Shares of right answers, and what chance leaves open of them."""

from __future__ import annotations

import math

from torch import Tensor

from nearfar.errors import InputError

__all__ = ["paired_difference", "wilson_interval"]

_Z = 1.959964  # 97.5 % quantile of the normal distribution: 95 % two-sided


def wilson_interval(correct: int, total: int) -> tuple[float, float]:
    """The 95 % Wilson score interval of a proportion.

    It stays within [0, 1] and remains honest at 0 and 100 %, where the textbook interval has width
    zero.

    Raises:
        InputError: ``total`` below 1, or ``correct`` not from 0 to ``total``.
    """
    if total < 1 or not 0 <= correct <= total:
        raise InputError(f"needs 0 <= correct <= total and total >= 1, got {correct} of {total}")
    share = correct / total
    spread = _Z * math.sqrt(share * (1 - share) / total + _Z**2 / (4 * total**2))
    centre = share + _Z**2 / (2 * total)
    scale = 1 + _Z**2 / total
    low = 0.0 if correct == 0 else (centre - spread) / scale
    high = 1.0 if correct == total else (centre + spread) / scale
    return low, high


def paired_difference(first: Tensor, second: Tensor) -> tuple[float, float]:
    """How much more often ``first`` is right than ``second`` on the same images.

    Args:
        first, second: ``[N]`` booleans: was the answer to image n right?

    Returns:
        The difference of the two accuracies, and the half width of its 95 % interval. Pairing takes
        out the images that both get right or both get wrong.
    """
    only_first = int((first & ~second).sum())
    only_second = int((second & ~first).sum())
    total = len(first)
    difference = (only_first - only_second) / total
    variance = (only_first + only_second) / total - difference**2
    return difference, _Z * math.sqrt(max(variance, 0.0) / total)
