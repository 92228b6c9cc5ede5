"""Accuracy against scale, with what chance leaves open."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from nearfar.errors import InputError

__all__ = ["ScaleCurve", "paired_difference", "wilson_interval"]

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


@dataclass(frozen=True)
class ScaleCurve:
    """Every answer of one net to every test image at every scale.

    Attributes:
        scales: the scales, in the order of the rows of ``answers``.
        answers: ``[S, N]`` predicted classes.
        labels: ``[N]`` true classes.
    """

    scales: tuple[float, ...]
    answers: Tensor
    labels: Tensor

    def right(self, scale: float) -> Tensor:
        """``[N]`` booleans: was the answer right at this scale?"""
        return self.answers[self.scales.index(scale)] == self.labels

    def accuracy(self, scale: float) -> float:
        """Share of right answers at a scale."""
        return int(self.right(scale).sum()) / len(self.labels)

    def interval(self, scale: float) -> tuple[float, float]:
        """95 % interval of :meth:`accuracy` over the choice of test images."""
        return wilson_interval(int(self.right(scale).sum()), len(self.labels))

    def band(self, around: float, loss: float) -> tuple[float, float]:
        """The widest run of tested scales around one at which accuracy falls by at most ``loss``.

        Args:
            around: the scale to start from, one of ``scales``.
            loss: as a fraction, 0.05 for five points.

        Returns:
            The smallest and the largest scale of the run; both ``around`` if it holds nowhere else.
        """
        ordered = sorted(self.scales)
        floor = self.accuracy(around) - loss
        low = high = ordered.index(around)
        while low > 0 and self.accuracy(ordered[low - 1]) >= floor:
            low -= 1
        while high < len(ordered) - 1 and self.accuracy(ordered[high + 1]) >= floor:
            high += 1
        return ordered[low], ordered[high]

    def as_dict(self) -> dict[str, Any]:
        """Accuracy and interval by scale, as fractions, ready for JSON."""
        return {
            "accuracy": {str(s): self.accuracy(s) for s in self.scales},
            "interval": {str(s): list(self.interval(s)) for s in self.scales},
        }
