"""What the choice of test images leaves open: bootstrap, Wilson and paired intervals, all of 95 %."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import pairwise
from statistics import NormalDist

import numpy as np
import torch
from torch import Tensor

from nearfar.errors import InputError

__all__ = [
    "DRAWS",
    "Z",
    "paired_difference",
    "percentiles",
    "resample",
    "unpaired_difference",
    "wilson_interval",
]

#: How often the bootstrap draws the images anew.
DRAWS = 1000
#: The normal distribution's 97.5 % quantile.
Z = NormalDist().inv_cdf(0.975)
_SEED = 0
# The image counts of so many draws are in memory at a time.
_DRAWS_AT_ONCE = 64


@lru_cache(maxsize=4096)
def wilson_interval(correct: int, total: int) -> tuple[float, float]:
    """The 95 % Wilson score interval of a proportion, by ``scipy.stats.binomtest``.

    It stays within [0, 1] and has a positive width at 0 and 100 % too, where the bootstrap's is zero.

    Raises:
        InputError: ``total`` below 1, or ``correct`` not from 0 to ``total``.
    """
    from scipy.stats import binomtest  # a second to import, and most audits never need it

    if total < 1 or not 0 <= correct <= total:
        raise InputError(f"needs 0 <= correct <= total and total >= 1, got {correct} of {total}")
    interval = binomtest(correct, total).proportion_ci(confidence_level=0.95, method="wilson")
    return float(interval.low), float(interval.high)


def paired_difference(first: Tensor, second: Tensor) -> tuple[float, float]:
    """How much more often ``first`` is right than ``second`` on the same images.

    Args:
        first, second: ``[N]`` booleans: was image n classified correctly?

    Returns:
        The difference of the two accuracies, and the half width of its 95 % interval. Pairing removes
        the images that both get right or both get wrong.
    """
    only_first = int((first & ~second).sum())
    only_second = int((second & ~first).sum())
    total = len(first)
    difference = (only_first - only_second) / total
    variance = (only_first + only_second) / total - difference**2
    return difference, Z * math.sqrt(max(variance, 0.0) / total)


def unpaired_difference(first: Tensor, second: Tensor) -> tuple[float, float]:
    """:func:`paired_difference` of two samples of different images, ``[N]`` and ``[M]`` booleans."""
    shares = [float(sample.double().mean()) for sample in (first, second)]
    variance = sum(
        p * (1 - p) / len(sample) for p, sample in zip(shares, (first, second), strict=True)
    )
    return shares[0] - shares[1], Z * math.sqrt(variance)


def resample(
    columns: Tensor, grouped: Tensor, bounds: Sequence[int], seed: int = _SEED
) -> tuple[Tensor, Tensor]:
    """Sums over images drawn with replacement, as many as there are, the same draws for all columns.

    The same number of images and the same seed give the same draws, so that curves over the same
    images are resampled alike.

    Args:
        columns: ``[N, F]`` float32, F values for each image.
        grouped: ``[N, C]`` float32, values that are summed group by group.
        bounds: where groups of images begin, ascending from 0, and ``N``.
        seed: of the draws.

    Returns:
        ``[DRAWS, F]`` sums of ``columns`` over all drawn images, and ``[DRAWS, G, C]`` of ``grouped`` over
        those of each group.

    Source: B. Efron 1979.
    """
    groups = list(pairwise(bounds))
    totals, group_totals = [], []
    for counts in _image_counts(len(columns), seed):
        totals.append(counts @ columns)
        group_totals.append(
            torch.stack([counts[:, a:b] @ grouped[a:b] for a, b in groups], dim=1)
            if groups
            else counts.new_empty(len(counts), 0, grouped.shape[1])
        )
    return torch.cat(totals), torch.cat(group_totals)


def percentiles(draws: Tensor) -> tuple[Tensor, Tensor]:
    """The 2.5th and the 97.5th percentile over the first axis, NaN left out: a 95 % interval."""
    low, high = np.nanpercentile(draws.double().numpy(), [2.5, 97.5], axis=0)
    return torch.as_tensor(low), torch.as_tensor(high)


def _image_counts(images: int, seed: int) -> Iterator[Tensor]:
    """How often each image is drawn, ``[at most _DRAWS_AT_ONCE, N]`` at a time."""
    rng = np.random.default_rng(seed)
    for first in range(0, DRAWS, _DRAWS_AT_ONCE):
        draws = min(_DRAWS_AT_ONCE, DRAWS - first)
        counts = np.empty((draws, images), dtype=np.float32)
        for row in counts:
            row[:] = np.bincount(rng.integers(0, images, images, dtype=np.int32), minlength=images)
        yield torch.from_numpy(counts)
