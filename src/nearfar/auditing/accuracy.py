"""Predictions at every scale, and the registered figures against scale with their intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from nearfar.auditing.intervals import percentiles, resample, wilson_interval
from nearfar.errors import InputError

__all__ = ["CurveRecorder", "Figure", "ScaleCurve", "Unit", "register_figure", "registered_figures"]

#: In place of a class where a model's logits are not finite: it equals no label.
NO_PREDICTION = -1

Unit = Literal["%", "points", ""]
"""How the report writes a figure: ``%``: 0.41 is ``41 %``; ``points``: 0.41 is ``41``; none: ``0.41``."""


@dataclass(frozen=True)
class Figure:
    """A figure of an audit against scale: a statistic of the mean, over the images, of per-image values.

    Being a function of means, it is resampled by the bootstrap without a word from its author. Registered
    by :func:`register_figure` it stands in ``audit.json``, in the report's table and can be required by
    the gate; nothing else has to be changed.

    Attributes:
        name: letters, digits and underscores; in ``audit.json`` and in ``NAME@SCALE>=x``.
        label: in the report's table; ``{reference}`` stands for the reference scale.
        column: curve → ``[S, N]`` or ``[S, N, K]`` per-image values at each scale, or ``None`` where the
            curve lacks what they need. Default: the values that ``measure`` recorded.
        measure: logits ``[B, K]`` and labels ``[B]`` → ``[B]`` per-image values to record while predicting.
        statistic: means of the column over the images, ``[..., S]`` or ``[..., S, K]`` → ``[..., S]``.
            Default: the means themselves.
        unit: how the report writes it.
        higher_is_better: shown beside the label; ``None`` where neither is better.
        min_classes: what the data and the model must have for it.
        against_reference: it compares each scale with the reference scale, where it has no interval.
        in_table: whether the report's table of figures has it; it is in ``audit.json`` either way.
        sentence: model's name and curve → a sentence for the findings, or ``None`` for none.

    A column of booleans is a proportion: where all or none are true its interval is Wilson's.

    Raises:
        InputError: a name or unit that cannot be used, or neither ``column`` nor ``measure``.
    """

    name: str
    label: str
    column: Callable[[ScaleCurve], Tensor | None] | None = None
    measure: Callable[[Tensor, Tensor], Tensor] | None = None
    statistic: Callable[[Tensor], Tensor] | None = None
    unit: Unit = "%"
    higher_is_better: bool | None = True
    min_classes: int = 2
    against_reference: bool = False
    in_table: bool = True
    sentence: Callable[[str, ScaleCurve], str | None] | None = None

    def __post_init__(self) -> None:
        """Refuses what could not be used later."""
        if not self.name.isidentifier():
            raise InputError(
                f"a figure's name must be letters, digits and underscores, got {self.name!r}"
            )
        if self.unit not in get_args(Unit):
            raise InputError(f"a figure's unit must be one of {get_args(Unit)}, got {self.unit!r}")
        if self.column is None and self.measure is None:
            raise InputError(
                f"the figure {self.name} needs per-image values: give column (from the predictions) or "
                f"measure (from the logits)"
            )

    def values(self, curve: ScaleCurve) -> Tensor | None:
        """The per-image values ``[S, N]`` or ``[S, N, K]`` of a curve, or ``None``."""
        return curve.recorded(self.name) if self.column is None else self.column(curve)

    def of_means(self, means: Tensor) -> Tensor:
        """The figure at each scale, from the means of its column."""
        return means if self.statistic is None else self.statistic(means)

    def text(self, value: float) -> str:
        """A value as the report writes it."""
        return f"{self._number(value)} %" if self.unit == "%" else self._number(value)

    def interval_text(self, ends: tuple[float, float]) -> str:
        """An interval as the report writes it."""
        return ("–" if ends[0] >= 0 else " to ").join(self._number(end, digits=2) for end in ends)

    def _number(self, value: float, digits: int = 3) -> str:
        return f"{100 * value:.0f}" if self.unit else f"{value:.{digits}g}"


_REGISTRY: dict[str, Figure] = {}
#: What requirements call otherwise: the difference from the baseline, and the band's ends.
_TAKEN = ("loss", "band_low", "band_high")


def register_figure(figure: Figure) -> Figure:
    """Adds a figure to every audit from now on: to its JSON, report, gate and findings.

    Returns:
        The figure.

    Raises:
        InputError: its name is taken.
    """
    if figure.name in _TAKEN or _REGISTRY.get(figure.name, figure) is not figure:
        raise InputError(
            f"the name {figure.name!r} is taken; figures are {', '.join(_REGISTRY)}, and requirements "
            f"know {', '.join(_TAKEN)} besides"
        )
    _REGISTRY[figure.name] = figure
    return figure


def registered_figures() -> Mapping[str, Figure]:
    """All figures by name, in the order in which they were registered."""
    return dict(_REGISTRY)


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
    """

    scales: tuple[float, ...]
    predictions: Tensor
    labels: Tensor
    confidence: Tensor | None = None
    top5: Tensor | None = None
    columns: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def reference(self) -> float:
        """The scale that others are compared with: 1, or the tested one nearest to it."""
        return min(self.scales, key=lambda s: (abs(math.log(s)), s))

    @property
    def figures(self) -> tuple[str, ...]:
        """The names of the registered figures that this curve has the values for."""
        return tuple(name for name, f in _REGISTRY.items() if self._at_scales(f) is not None)

    def recorded(self, name: str) -> Tensor | None:
        """Per-image values ``[S, N]`` recorded while predicting, or ``None``."""
        return {"confidence": self.confidence, "top5": self.top5, **self.columns}.get(name)

    def right(self, scale: float) -> Tensor:
        """``[N]`` booleans: is the predicted class at this scale the true one?"""
        return self.predictions[self.scales.index(scale)] == self.labels

    def accuracy(self, scale: float) -> float:
        """Share of right predictions at a scale: the figure ``top1``."""
        return int(self.right(scale).sum()) / len(self.labels)

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
        at, total = self.scales.index(scale), len(self.labels)
        if entry.against_reference and scale == self.reference:
            return values.values[at], values.values[at]
        if values.counts is not None and values.counts[at] in (0, total):
            return wilson_interval(values.counts[at], total)
        low, high = percentiles(self._drawn(figure)[:, at])
        return float(low), float(high)

    def class_accuracy(self, classes: int) -> Tensor:
        """Share of right predictions by class and scale, ``[K, S]`` float64; NaN for a class without images.

        Args:
            classes: K, how many there are.
        """
        right = torch.zeros(classes, len(self.scales), dtype=torch.float64)
        right.index_add_(0, self.labels, (self.predictions == self.labels).double().T)
        return right / self.labels.bincount(minlength=classes)[:, None]

    def class_interval(self, classes: int) -> tuple[Tensor, Tensor]:
        """The 95 % intervals of :meth:`class_accuracy`: lower and upper ends, ``[K, S]`` each."""
        sizes = self.labels.bincount(minlength=classes)
        ends = torch.full((2, classes, len(self.scales)), torch.nan, dtype=torch.float64)
        ends[:, sizes.nonzero().flatten()] = torch.stack(percentiles(self._drawn_by_class))
        accuracy = self.class_accuracy(classes)
        for k, at in ((accuracy == 0) | (accuracy == 1)).nonzero().tolist():
            count = int(sizes[k])
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
        figure = _REGISTRY.get(name)
        values = None if figure is None else self._at_scales(figure)
        if figure is None or values is None:
            few = figure is not None and figure.min_classes > 2
            why = f"; {name} needs at least {figure.min_classes} classes" if figure and few else ""
            raise InputError(f"figures here are {', '.join(self.figures)}, got {name!r}{why}")
        return figure, values

    def _at_scales(self, figure: Figure) -> _FigureValues | None:
        if figure not in self._computed:
            column = figure.values(self)
            values = None
            if column is not None:
                proportion = column.dtype == torch.bool and figure.statistic is None
                counts = column.sum(dim=1).tolist() if proportion else None
                means = figure.of_means(column.double().mean(dim=1))
                values = _FigureValues(means.tolist(), counts)
            self._computed[figure] = values
        return self._computed[figure]

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
        if _REGISTRY[name] not in self._resampled:
            figures = [_REGISTRY[n] for n in self.figures if _REGISTRY[n] not in self._resampled]
            values = [v for v in (f.values(self) for f in figures) if v is not None]
            # A row for each scale, or for each scale and entry of K.
            rows = [v if v.dim() == 2 else v.mT.flatten(0, 1) for v in values]
            table = torch.cat([r.float() for r in rows])[:, self._order].T.contiguous()
            sums, _ = resample(table, table[:, :0], [0])
            means = torch.split(sums / len(self.labels), [len(r) for r in rows], dim=1)
            for figure, column, mean in zip(figures, values, means, strict=True):
                shaped = mean.reshape(len(mean), len(self.scales), *column.shape[2:])
                self._resampled[figure] = figure.of_means(shaped)
        return self._resampled[_REGISTRY[name]]

    @cached_property
    def _drawn_by_class(self) -> Tensor:
        """Accuracy by class over resampled images, ``[DRAWS, classes with images, S]``."""
        right = (self.predictions == self.labels).float()[:, self._order].T
        counted = torch.cat([right, torch.ones(len(right), 1)], dim=1)
        sizes = torch.unique_consecutive(self.labels[self._order], return_counts=True)[1]
        _, groups = resample(counted[:, :0], counted, [0, *sizes.cumsum(0).tolist()])
        return groups[:, :, :-1] / groups[:, :, -1:]


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
            for figure in _REGISTRY.values()
            if figure.measure is not None and num_classes >= figure.min_classes
        ]
        shape = (len(self.scales), len(labels))
        self._predictions = torch.full(shape, NO_PREDICTION, dtype=torch.int64)
        self._columns: dict[str, Tensor] = {}

    def add(self, row: int, start: int, logits: Tensor) -> None:
        """Records the logits ``[B, K]`` of images ``start`` to ``start + B`` at ``scales[row]``."""
        images = slice(start, start + len(logits))
        predictions = logits.argmax(dim=1)
        predictions[~logits.isfinite().all(dim=1)] = NO_PREDICTION
        self._predictions[row, images] = predictions
        for figure in self._figures:
            assert figure.measure is not None, "chosen so"
            values = figure.measure(logits, self.labels[images])
            if figure.name not in self._columns:
                dtype = torch.bool if values.dtype == torch.bool else torch.float32
                self._columns[figure.name] = torch.zeros(self._predictions.shape, dtype=dtype)
            self._columns[figure.name][row, images] = values

    def accuracy(self, row: int, stop: int) -> float:
        """Share of right predictions among the first ``stop`` images at ``scales[row]``."""
        right = self._predictions[row, :stop] == self.labels[:stop]
        return int(right.sum()) / max(1, stop)

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
