"""What the choice of test images leaves open: figures over resampled images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

__all__ = ["DRAWS", "percentiles", "resample"]

#: How often images are drawn anew.
DRAWS = 1000
_SEED = 0
# Of so many draws, the counts of all images are held at a time.
_AT_ONCE = 64


def resample(
    columns: Tensor, grouped: Tensor, bounds: Sequence[int], seed: int = _SEED
) -> tuple[Tensor, Tensor]:
    """Sums over images drawn with replacement, as many as there are, the same for all columns.

    The same number of images and the same seed give the same draws, so that curves over the same
    images are resampled alike.

    Args:
        columns: ``[N, F]`` float32, a value an image.
        grouped: ``[N, C]`` float32, values that are summed group by group.
        bounds: where groups of images begin, ascending from 0, and ``N``.
        seed: of the draws.

    Returns:
        ``[DRAWS, F]`` sums of ``columns`` over all drawn images, and ``[DRAWS, G, C]`` of ``grouped`` over
        those of each group.

    Source: B. Efron 1979.
    """
    groups = list(pairwise(bounds))
    totals, parts = [], []
    for drawn in _counts(len(columns), seed):
        totals.append(drawn @ columns)
        parts.append(torch.stack([drawn[:, a:b] @ grouped[a:b] for a, b in groups], dim=1))
    return torch.cat(totals), torch.cat(parts)


def percentiles(draws: Tensor) -> tuple[Tensor, Tensor]:
    """The 2.5th and the 97.5th percentile over the first axis, NaN left out: a 95 % interval."""
    ordered = draws.sort(dim=0).values  # NaN comes last
    last = (~draws.isnan()).sum(dim=0) - 1

    def at(share: float) -> Tensor:
        place = share * last.clamp(min=0).double()
        below, above = place.floor().long(), place.ceil().long()
        low, high = (ordered.gather(0, i.unsqueeze(0))[0].double() for i in (below, above))
        return low + (high - low) * (place - below)

    return at(0.025), at(0.975)


def _counts(images: int, seed: int) -> Iterator[Tensor]:
    """How often each image is drawn, ``[≤ _AT_ONCE, N]`` at a time."""
    rng = np.random.default_rng(seed)
    for first in range(0, DRAWS, _AT_ONCE):
        some = min(_AT_ONCE, DRAWS - first)
        counts = np.empty((some, images), dtype=np.float32)
        for row in counts:
            row[:] = np.bincount(rng.integers(0, images, images, dtype=np.int32), minlength=images)
        yield torch.from_numpy(counts)
