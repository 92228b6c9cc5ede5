"""Intervals that hold at any number of images: of a share, and of the difference of two."""

from __future__ import annotations

from functools import lru_cache

from torch import Tensor

__all__ = ["paired_interval", "share_interval", "unpaired_interval"]

#: Of the error allowed to a paired difference, so much goes into how often the two disagree.
_DISAGREEMENT = 0.1


@lru_cache(maxsize=65536)
def share_interval(count: int, total: int, error: float) -> tuple[float, float]:
    """The exact interval of a proportion.

    Args:
        count: of successes.
        total: of trials; 0 leaves everything open.
        error: with at most this probability the interval misses, half of it on each side.

    Source: C. Clopper & E. Pearson 1934.
    """
    from scipy.stats import beta  # a second to import

    low = float(beta.ppf(error / 2, count, total - count + 1)) if count else 0.0
    high = float(beta.ppf(1 - error / 2, count + 1, total - count)) if count < total else 1.0
    return low, high


def paired_interval(first: Tensor, second: Tensor, error: float) -> tuple[float, float, float]:
    """How much more often ``first`` is right than ``second`` on the same images.

    The two disagree on a share θ of images, and the first is right on a share p of these; the difference
    is (2 p - 1) θ. The intervals of both are exact and share the error, so the difference's misses no
    oftener; it excludes 0 where the exact sign test on the images that they disagree on (McNemar's) does,
    at nine tenths of the error.

    Args:
        first, second: ``[N]`` booleans.
        error: with at most this probability the interval misses.

    Returns:
        The difference, and both ends of its interval.
    """
    total = len(first)
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    disagree = only_first + only_second
    ahead = [2 * p - 1 for p in share_interval(only_first, disagree, (1 - _DISAGREEMENT) * error)]
    apart = share_interval(disagree, total, _DISAGREEMENT * error)
    low = ahead[0] * apart[ahead[0] < 0]
    high = ahead[1] * apart[ahead[1] > 0]
    return (only_first - only_second) / total, low, high


def unpaired_interval(first: Tensor, second: Tensor, error: float) -> tuple[float, float, float]:
    """:func:`paired_interval` of two samples of different images, ``[N]`` and ``[M]`` booleans."""
    counts = [int(sample.sum()) for sample in (first, second)]
    ends = [
        share_interval(count, len(sample), error / 2)
        for count, sample in zip(counts, (first, second), strict=True)
    ]
    difference = counts[0] / len(first) - counts[1] / len(second)
    return difference, ends[0][0] - ends[1][1], ends[0][1] - ends[1][0]
