"""Predictions at every scale, and the registered figures against scale with their intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from nearfar.auditing.figure_registry import Figure, registered_figures
from nearfar.auditing.intervals import (
    paired_difference,
    percentiles,
    resample,
    unpaired_difference,
    wilson_interval,
)
from nearfar.auditing.wording import ZOOM, AxisWords
from nearfar.errors import InputError

__all__ = ["CurveRecorder", "ScaleCurve"]

#: In place of a class where a model's logits are not finite: it equals no label.
NO_PREDICTION = -1


@dataclass(frozen=True)
class _FigureValues:
    """A figure at each scale; of a proportion the counts too."""

    values: list[float]
    counts: list[int] | None


@dataclass(frozen=True)
class ScaleCurve:
    """The predictions of one model for every test image at every scale.

    All intervals are 95 % percentile intervals of the bootstrap over the test images: 1,000 draws, the
    same for every figure and for every curve over as many images. Where a proportion is 0 or 1 that
    interval has width zero: there it is Wilson's (:func:`nearfar.auditing.wilson_interval`).

    Attributes:
        scales: the scales, in the order of the rows of ``predictions``.
        predictions: ``[S, N]`` predicted classes.
        labels: ``[N]`` true classes.
        confidence: ``[S, N]``, the probability of each predicted class; ``None`` where it is not known.
        top5: ``[S, N]`` booleans: is the true class among the five likeliest? ``None`` where it is not
            known, or there are no more than five classes.
        columns: per-image values ``[S, N]`` that other figures measured, by the figure's name.
        axis: what ``scales`` are: factors of size, or pixels of something.
        reference_point: which of ``scales`` the others are compared with.
        members: ``[S, N]`` booleans: which images each point has, where every image has a size of its own;
            ``None``: every point has all of them.
    """

    scales: tuple[float, ...]
    predictions: Tensor
    labels: Tensor
    confidence: Tensor | None = None
    top5: Tensor | None = None
    columns: Mapping[str, Tensor] = field(default_factory=dict)
    axis: AxisWords = ZOOM
    reference_point: float | None = None
    members: Tensor | None = None

    def __getstate__(self) -> dict[str, Any]:
        """What was recorded; what was computed from it is not sent to other processes."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @property
    def reference(self) -> float:
        """The point that others are compared with; by default 1, or the tested one nearest to it."""
        if self.reference_point is not None:
            return self.reference_point
        return min(self.scales, key=lambda s: (abs(math.log(s)), s))

    @property
    def figures(self) -> tuple[str, ...]:
        """The names of the registered figures that this curve has the values for."""
        figures = registered_figures().items()
        return tuple(name for name, f in figures if self._at_scales(f) is not None)

    def recorded(self, name: str) -> Tensor | None:
        """Per-image values ``[S, N]`` recorded while predicting, or ``None``."""
        return {"confidence": self.confidence, "top5": self.top5, **self.columns}.get(name)

    def right(self, scale: float) -> Tensor:
        """``[N]`` booleans: is the predicted class at this scale the true one? Of a point's own images only,
        where it has some of its own.
        """
        at = self.scales.index(scale)
        right = self.predictions[at] == self.labels
        return right if self.members is None else right[self.members[at]]

    def count(self, scale: float) -> int:
        """How many images there are at a scale."""
        return len(self.right(scale))

    def accuracy(self, scale: float) -> float:
        """Share of right predictions at a scale: the figure ``top1``."""
        right = self.right(scale)
        return int(right.sum()) / len(right)

    def difference(self, first: float, second: float) -> tuple[float, float]:
        """How much more often it is right at one scale than at another; the half width of the 95 % interval.

        On the same images where all points have the same; else as of two samples.
        """
        between = paired_difference if self.members is None else unpaired_difference
        return between(self.right(first), self.right(second))

    def figure(self, name: str, scale: float) -> float:
        """A registered figure at a scale; shares are fractions.

        Raises:
            InputError: this curve has no such figure.
        """
        return self._lookup(name)[1].values[self.scales.index(scale)]

    def interval(self, scale: float, figure: str = "top1") -> tuple[float, float]:
        """The 95 % interval of :meth:`figure` over the choice of test images.

        Raises:
            InputError: this curve has no such figure.
        """
        entry, values = self._lookup(figure)
        at, total = self.scales.index(scale), self.count(scale)
        if entry.against_reference and scale == self.reference:
            return values.values[at], values.values[at]
        if values.counts is not None and values.counts[at] in (0, total):
            return wilson_interval(values.counts[at], total)
        low, high = percentiles(self._drawn(figure)[:, at])
        return float(low), float(high)

    def class_counts(self, classes: int) -> Tensor:
        """How many images of each class there are at each scale, ``[K, S]``."""
        counts = torch.zeros(classes, len(self.scales), dtype=torch.int64)
        return counts.index_add_(0, self.labels, self._present.long().T)

    def class_accuracy(self, classes: int) -> Tensor:
        """Share of right predictions by class and scale, ``[K, S]`` float64; NaN for a class without images.

        Args:
            classes: K, how many there are.
        """
        right = torch.zeros(classes, len(self.scales), dtype=torch.float64)
        right.index_add_(0, self.labels, (self._all_right & self._present).double().T)
        return right / self.class_counts(classes)

    def class_interval(self, classes: int) -> tuple[Tensor, Tensor]:
        """The 95 % intervals of :meth:`class_accuracy`: lower and upper ends, ``[K, S]`` each."""
        counts = self.class_counts(classes)
        ends = torch.full((2, classes, len(self.scales)), torch.nan, dtype=torch.float64)
        with_images = self.labels.bincount(minlength=classes).nonzero().flatten()
        ends[:, with_images] = torch.stack(percentiles(self._drawn_by_class))
        accuracy = self.class_accuracy(classes)
        for k, at in ((accuracy == 0) | (accuracy == 1)).nonzero().tolist():
            count = int(counts[k, at])
            interval = wilson_interval(round(float(accuracy[k, at]) * count), count)
            ends[:, k, at] = torch.tensor(interval, dtype=torch.float64)
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
        columns = [self.scales.index(s) for s in ordered]
        ends = _run(self._drawn("top1")[:, columns].double(), ordered.index(around), loss)
        intervals = []
        for end in ends:
            low, high = percentiles(end)
            intervals.append((ordered[math.floor(low)], ordered[math.ceil(high)]))
        return intervals[0], intervals[1]

    def as_dict(self) -> dict[str, Any]:
        """Accuracy and interval by scale, as fractions, ready for JSON."""
        return {
            "accuracy": {str(s): self.accuracy(s) for s in self.scales},
            "interval": {str(s): list(self.interval(s)) for s in self.scales},
        }

    def _lookup(self, name: str) -> tuple[Figure, _FigureValues]:
        figure = registered_figures().get(name)
        values = None if figure is None else self._at_scales(figure)
        if figure is None or values is None:
            few = figure is not None and figure.min_classes > 2
            why = f"; {name} needs at least {figure.min_classes} classes" if figure and few else ""
            raise InputError(f"figures here are {', '.join(self.figures)}, got {name!r}{why}")
        return figure, values

    def _at_scales(self, figure: Figure) -> _FigureValues | None:
        if figure not in self._computed:
            column = self._column(figure)
            values = None
            if column is not None:
                proportion = column.dtype == torch.bool and figure.statistic is None
                counts = column.sum(dim=1).tolist() if proportion else None
                means = column.double().mean(dim=1)
                if self.members is not None:
                    share = self.members.double().mean(dim=1)
                    means = means / share.view(-1, *[1] * (means.dim() - 1))
                values = _FigureValues(figure.of_means(means).tolist(), counts)
            self._computed[figure] = values
        return self._computed[figure]

    def _column(self, figure: Figure) -> Tensor | None:
        """A figure's per-image values, 0 where an image is not at a point; ``None`` where there are none."""
        # With images of its own at each point there is no other answer to the same image.
        if self.members is not None and figure.against_reference:
            return None
        column = figure.values(self)
        if column is None or self.members is None:
            return column
        return column * self.members.view(*self.members.shape, *[1] * (column.dim() - 2))

    @property
    def _all_right(self) -> Tensor:
        return self.predictions == self.labels

    @property
    def _present(self) -> Tensor:
        """``[S, N]``: which images there are at each point."""
        if self.members is not None:
            return self.members
        return torch.ones(1, 1, dtype=torch.bool).expand(len(self.scales), len(self.labels))

    @cached_property
    def _computed(self) -> dict[Figure, _FigureValues | None]:
        return {}

    @cached_property
    def _resampled(self) -> dict[Figure, Tensor]:
        return {}

    @cached_property
    def _order(self) -> Tensor:
        """Images class by class."""
        return self.labels.argsort(stable=True)

    def _drawn(self, name: str) -> Tensor:
        """A figure over resampled images, ``[DRAWS, S]``; all figures are resampled together."""
        registry = registered_figures()
        if registry[name] not in self._resampled:
            figures = [registry[n] for n in self.figures if registry[n] not in self._resampled]
            values = [v for v in map(self._column, figures) if v is not None]
            # A row for each scale, or for each scale and entry of K.
            rows = [v if v.dim() == 2 else v.mT.flatten(0, 1) for v in values]
            present = [] if self.members is None else [self.members]
            table = torch.cat([r.float() for r in (*rows, *present)])[:, self._order].T.contiguous()
            sums, _ = resample(table, table[:, :0], [0])
            columns = torch.split(sums, [len(r) for r in (*rows, *present)], dim=1)
            counts = columns[-1] if present else torch.tensor(len(self.labels))
            for figure, column, total in zip(figures, values, columns, strict=False):
                shaped = total.reshape(len(total), len(self.scales), *column.shape[2:])
                many = counts.view(*counts.shape, *[1] * (shaped.dim() - 2)) if present else counts
                self._resampled[figure] = figure.of_means(shaped / many)
        return self._resampled[registry[name]]

    @cached_property
    def _drawn_by_class(self) -> Tensor:
        """Accuracy by class over resampled images, ``[DRAWS, classes with images, S]``."""
        right = (self._all_right & self._present).float()
        present = torch.ones(1, len(self.labels)) if self.members is None else self.members.float()
        counted = torch.cat([right, present])[:, self._order].T.contiguous()
        sizes = torch.unique_consecutive(self.labels[self._order], return_counts=True)[1]
        _, groups = resample(counted[:, :0], counted, [0, *sizes.cumsum(0).tolist()])
        return groups[:, :, : len(right)] / groups[:, :, len(right) :]


class CurveRecorder:
    """Collects a model's logits, batch by batch and scale by scale, into a :class:`ScaleCurve`.

    Kept are the predicted classes and what the registered figures measure: numbers per image, no logits.

    Args:
        scales: at which the model predicts.
        labels: ``[N]`` true classes.
        num_classes: of the model; figures that need more classes are not measured.
    """

    def __init__(self, scales: Sequence[float], labels: Tensor, num_classes: int) -> None:
        self.scales, self.labels = tuple(scales), labels
        self._figures = [
            figure
            for figure in registered_figures().values()
            if figure.measure is not None and num_classes >= figure.min_classes
        ]
        shape = (len(self.scales), len(labels))
        self._predictions = torch.full(shape, NO_PREDICTION, dtype=torch.int64)
        self._columns: dict[str, Tensor] = {}
        logits = torch.zeros(1, num_classes)
        for figure in self._figures:
            assert figure.measure is not None, "chosen so"
            is_share = figure.measure(logits, labels[:1]).dtype == torch.bool
            self._columns[figure.name] = torch.zeros(
                shape, dtype=torch.bool if is_share else torch.float32
            )

    def add(self, row: int, start: int, logits: Tensor) -> None:
        """Records the logits ``[B, K]`` of images ``start`` to ``start + B`` at ``scales[row]``."""
        images = slice(start, start + len(logits))
        predictions = logits.argmax(dim=1)
        predictions[~logits.isfinite().all(dim=1)] = NO_PREDICTION
        self._predictions[row, images] = predictions
        for figure in self._figures:
            assert figure.measure is not None, "chosen so"
            self._columns[figure.name][row, images] = figure.measure(logits, self.labels[images])

    @property
    def records(self) -> dict[str, Tensor]:
        """What was recorded, ``[S, N]`` each, by name; writing into them changes it."""
        return {"predictions": self._predictions, **self._columns}

    def accuracy(self, row: int, answered: Tensor) -> float:
        """Share of right predictions at ``scales[row]`` among the images ``[N]`` that were answered."""
        right = (self._predictions[row] == self.labels) & answered
        return int(right.sum()) / max(1, int(answered.sum()))

    def curve(self) -> ScaleCurve:
        """The curve of all that was recorded."""
        columns = dict(self._columns)
        confidence, top5 = columns.pop("confidence", None), columns.pop("top5", None)
        return ScaleCurve(self.scales, self._predictions, self.labels, confidence, top5, columns)


def _run(accuracy: Tensor, around: int, loss: float) -> tuple[Tensor, Tensor]:
    """First and last index of the run about ``around`` with at most ``loss``, for each row ``[R, S]``."""
    # The small number keeps floating point from refusing a loss of exactly ``loss``.
    holds = accuracy >= accuracy[:, around : around + 1] - loss - 1e-6

    def length(flags: Tensor) -> Tensor:
        return flags.long().cumprod(dim=1).sum(dim=1)

    return around - length(holds[:, :around].flip(1)), around + length(holds[:, around + 1 :])
