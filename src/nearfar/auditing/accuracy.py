"""Every answer at every scale, and the figures against scale with what chance leaves open."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from nearfar.auditing.bootstrap import percentiles, resample
from nearfar.auditing.calibration import BINS, calibration_columns, calibration_error
from nearfar.auditing.proportions import paired_difference, wilson_interval
from nearfar.errors import InputError

__all__ = ["Figure", "ScaleCurve", "paired_difference", "wilson_interval"]

Figure = Literal["top1", "top5", "confidence", "ece", "flips"]
"""``top1``, ``top5``: share of images whose class is the answer, or among the five likeliest. ``confidence``:
mean probability of the answer. ``ece``: expected calibration error (:mod:`nearfar.auditing.calibration`).
``flips``: share of images with another answer than at the reference scale."""


@dataclass(frozen=True)
class ScaleCurve:
    """Every answer of one net to every test image at every scale.

    All intervals are 95 % percentile intervals of the bootstrap over the test images: 1,000 draws, the
    same for every figure and for every curve over as many images. Where all or none of the
    images are right that interval has width zero: there it is Wilson's
    (:func:`nearfar.auditing.wilson_interval`).

    Attributes:
        scales: the scales, in the order of the rows of ``answers``.
        answers: ``[S, N]`` predicted classes.
        labels: ``[N]`` true classes.
        confidence: ``[S, N]``, the probability of each answer; ``None`` where it was not kept.
        top5: ``[S, N]`` booleans: is the true class among the five likeliest? ``None`` where it was
            not kept, or there are no more than five classes.
    """

    scales: tuple[float, ...]
    answers: Tensor
    labels: Tensor
    confidence: Tensor | None = None
    top5: Tensor | None = None

    @property
    def reference(self) -> float:
        """The scale that others are compared with: 1, or the tested one nearest to it."""
        return min(self.scales, key=lambda s: (abs(math.log(s)), s))

    @property
    def figures(self) -> tuple[Figure, ...]:
        """Which figures there are."""
        missing = {"top5"} if self.top5 is None else set()
        missing |= {"confidence", "ece"} if self.confidence is None else set()
        return tuple(name for name in get_args(Figure) if name not in missing)

    def right(self, scale: float) -> Tensor:
        """``[N]`` booleans: was the answer right at this scale?"""
        return self.answers[self.scales.index(scale)] == self.labels

    def accuracy(self, scale: float) -> float:
        """Share of right answers at a scale: the figure ``top1``."""
        return int(self.right(scale).sum()) / len(self.labels)

    def figure(self, name: Figure, scale: float) -> float:
        """A figure at a scale, as a fraction.

        Raises:
            InputError: no such figure here.
        """
        self._check(name)
        at = self.scales.index(scale)
        if name == "top1":
            return self.accuracy(scale)
        if name == "flips":
            return int(self._flipped[at].sum()) / len(self.labels)
        if name == "top5":
            assert self.top5 is not None, "checked"
            return int(self.top5[at].sum()) / len(self.labels)
        assert self.confidence is not None, "checked"
        if name == "confidence":
            return float(self.confidence[at].double().mean())
        return calibration_error(self.confidence[at], self.right(scale))

    def interval(self, scale: float, figure: Figure = "top1") -> tuple[float, float]:
        """The 95 % interval of :meth:`figure` over the choice of test images.

        Raises:
            InputError: no such figure here.
        """
        self._check(figure)
        if figure == "flips" and scale == self.reference:
            return 0.0, 0.0
        if figure in ("top1", "top5", "flips"):
            count = round(self.figure(figure, scale) * len(self.labels))
            if count in (0, len(self.labels)):
                return wilson_interval(count, len(self.labels))
        low, high = percentiles(self._resampled[figure][:, self.scales.index(scale)])
        return float(low), float(high)

    def class_accuracy(self, classes: int) -> Tensor:
        """Share of right answers by class and scale, ``[K, S]`` float64; NaN for a class without images.

        Args:
            classes: K, how many there are.
        """
        right = torch.zeros(classes, len(self.scales), dtype=torch.float64)
        right.index_add_(0, self.labels, (self.answers == self.labels).double().T)
        return right / self.labels.bincount(minlength=classes)[:, None]

    def class_interval(self, classes: int) -> tuple[Tensor, Tensor]:
        """The 95 % intervals of :meth:`class_accuracy`: lower and upper ends, ``[K, S]`` each."""
        low, high = self._class_ends
        ends = torch.full((2, classes, len(self.scales)), torch.nan, dtype=torch.float64)
        present = self.labels.bincount(minlength=classes).nonzero().flatten()
        ends[:, present] = torch.stack([low, high])
        accuracy = self.class_accuracy(classes)
        sizes = self.labels.bincount(minlength=classes).tolist()
        for k, at in ((accuracy == 0) | (accuracy == 1)).nonzero().tolist():
            found = wilson_interval(round(float(accuracy[k, at]) * sizes[k]), sizes[k])
            ends[:, k, at] = torch.tensor(found, dtype=torch.float64)
        return ends[0], ends[1]

    def band(self, around: float, loss: float) -> tuple[float, float]:
        """The widest run of tested scales around one at which accuracy falls by at most ``loss``.

        Args:
            around: the scale to start from, one of ``scales``.
            loss: as a fraction, 0.05 for five points.

        Returns:
            The smallest and the largest scale of the run; both ``around`` if it holds nowhere else.
        """
        ordered = sorted(self.scales)
        accuracy = torch.tensor([[self.accuracy(s) for s in ordered]], dtype=torch.float64)
        low, high = _run(accuracy, ordered.index(around), loss)
        return ordered[int(low)], ordered[int(high)]

    def band_interval(
        self, around: float, loss: float
    ) -> tuple[tuple[float, float], tuple[float, float]]:
        """The 95 % intervals of both ends of :meth:`band` over the choice of test images.

        Ends are tested scales, so these intervals are too.
        """
        ordered = sorted(self.scales)
        at = [self.scales.index(s) for s in ordered]
        ends = _run(self._resampled["top1"][:, at].double(), ordered.index(around), loss)
        intervals = []
        for end in ends:
            low, high = percentiles(end.double())
            intervals.append((ordered[math.floor(low)], ordered[math.ceil(high)]))
        return intervals[0], intervals[1]

    def as_dict(self) -> dict[str, Any]:
        """Accuracy and interval by scale, as fractions, ready for JSON."""
        return {
            "accuracy": {str(s): self.accuracy(s) for s in self.scales},
            "interval": {str(s): list(self.interval(s)) for s in self.scales},
        }

    def _check(self, name: Figure) -> None:
        if name not in self.figures:
            raise InputError(
                f"figures here are {', '.join(self.figures)}, got {name!r}; top5 needs more than five classes"
            )

    @property
    def _flipped(self) -> Tensor:
        return self.answers != self.answers[self.scales.index(self.reference)]

    @cached_property
    def _order(self) -> Tensor:
        """Images class by class."""
        return self.labels.argsort(stable=True)

    @cached_property
    def _draws(self) -> tuple[Tensor, Tensor]:
        columns = [self.answers == self.labels, self._flipped]
        if self.top5 is not None:
            columns.append(self.top5)
        if self.confidence is not None:
            columns.append(self.confidence)
            rights = self.answers == self.labels
            columns += [
                calibration_columns(c, r) for c, r in zip(self.confidence, rights, strict=True)
            ]
        table = torch.cat([c.float() for c in columns])[:, self._order].T.contiguous()
        counted = torch.cat([table[:, : len(self.scales)], torch.ones(len(table), 1)], dim=1)
        sizes = torch.unique_consecutive(self.labels[self._order], return_counts=True)[1]
        return resample(table, counted, [0, *sizes.cumsum(0).tolist()])

    @cached_property
    def _resampled(self) -> dict[str, Tensor]:
        """Each figure over resampled images, ``[DRAWS, S]``."""
        scales, sums = len(self.scales), self._draws[0] / len(self.labels)
        found = {"top1": sums[:, :scales], "flips": sums[:, scales : 2 * scales]}
        begin = 2 * scales
        if self.top5 is not None:
            found["top5"], begin = sums[:, begin : begin + scales], begin + scales
        if self.confidence is not None:
            found["confidence"] = sums[:, begin : begin + scales]
            gaps = sums[:, begin + scales :].view(len(sums), scales, BINS)
            found["ece"] = gaps.abs().sum(dim=2)
        return found

    @cached_property
    def _class_ends(self) -> tuple[Tensor, Tensor]:
        parts = self._draws[1]
        return percentiles(parts[:, :, :-1] / parts[:, :, -1:])


def _run(accuracy: Tensor, around: int, loss: float) -> tuple[Tensor, Tensor]:
    """First and last index of the run about ``around`` with at most ``loss``, for each row ``[R, S]``."""
    # A loss of just as much holds, whatever floating point makes of the difference.
    holds = accuracy >= accuracy[:, around : around + 1] - loss - 1e-6
    count: Callable[[Tensor], Tensor] = lambda flags: flags.long().cumprod(dim=1).sum(dim=1)  # noqa: E731
    low = around - count(holds[:, :around].flip(1))
    return low, around + count(holds[:, around + 1 :])
