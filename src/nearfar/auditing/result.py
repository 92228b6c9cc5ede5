"""The results of an audit as data, and as JSON."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from nearfar.auditing.accuracy import ScaleCurve
from nearfar.auditing.cost import Cost
from nearfar.data import ScaleProtocol

__all__ = [
    "SCHEMA",
    "Advice",
    "Audit",
    "AuditResult",
    "Failure",
    "Flips",
    "LayerScores",
    "Verdict",
]

#: Name and version of the JSON's format.
SCHEMA = "nearfar.audit/3"


@dataclass(frozen=True)
class Flips:
    """For some images, the smallest change of scale that changes the predicted class; found by search.

    Attributes:
        images: ``[M]`` indices among the test images.
        smaller: ``[M]``, the largest scale below 1 at which the prediction differs from that at 1; NaN
            where it stays the same down to ``lowest``.
        larger: ``[M]``, the smallest scale above 1, likewise; NaN up to ``highest``.
        lowest, highest: the ends of the search.
        precision: width of the final bracket, as a factor: 1.02 is 2 per cent of scale.
    """

    images: Tensor
    smaller: Tensor
    larger: Tensor
    lowest: float
    highest: float
    precision: float


@dataclass(frozen=True)
class LayerScores:
    """How single layers behave when the image is rescaled.

    Attributes:
        names: layers, in the order in which they run.
        invariance: the invariance score of each (:func:`nearfar.auditing.invariance_scores`).
        scales: at which scales the equivariance error was measured.
        equivariance: for each layer, its relative error at each of ``scales``.
        left_out: layers that could not be measured, and why.
        images: how many images they were measured on.
    """

    names: tuple[str, ...]
    invariance: tuple[float, ...]
    scales: tuple[float, ...]
    equivariance: tuple[tuple[float, ...], ...]
    left_out: Mapping[str, str] = field(default_factory=dict)
    images: int = 0


@dataclass(frozen=True)
class Failure:
    """An image that is recognised at the reference scale and not at another.

    Attributes:
        index: among the test images.
        scale: where it fails.
        label: the right class.
        answer: the class predicted there.
        confidence: with which probability.
        recognised_image: the model's input at the reference scale, ``[C, S, S]``.
        failed_image: the model's input at ``scale``, ``[C, S, S]``.
    """

    index: int
    scale: float
    label: int
    answer: int
    confidence: float
    recognised_image: Tensor
    failed_image: Tensor


@dataclass(frozen=True)
class AuditResult:
    """The results of one model.

    Attributes:
        model: its name.
        source: the data set's name.
        class_names: of the data, in the order of the model's outputs.
        protocol: how images were laid on the model's canvas.
        curve: all predictions, and the figures against scale computed from them.
        cost: parameters and multiplications; ``None`` of a model without modules to count.
        seconds: time of a batch of ``batch`` images; ``None`` where it was not measured.
        memory: most bytes of tensors alive during a batch's forward pass; ``None`` likewise.
        batch: how many images that batch has.
        flips: smallest changes of scale that flip a prediction; ``None`` where they were not searched for.
        layers: scores by layer; ``None`` where they were not asked for, or there are no modules to watch.
        failures: the most confident wrong predictions for images that are recognised at scale 1.
        notes: how images were prepared, in sentences: the canvas, cropping, padding, and from which scale
            on images are enlarged beyond their own pixels.
        point_costs: multiplications for an image at each point of the axis, where they change along it.
    """

    model: str
    source: str
    class_names: tuple[str, ...]
    protocol: ScaleProtocol
    curve: ScaleCurve
    cost: Cost | None = None
    seconds: float | None = None
    memory: int | None = None
    batch: int = 0
    flips: Flips | None = None
    layers: LayerScores | None = None
    failures: tuple[Failure, ...] = ()
    notes: tuple[str, ...] = ()
    point_costs: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Advice:
    """One thing to do, or to know, about a model.

    Attributes:
        model: its name.
        kind: ``side``: feed it this side; ``enough``: this smaller side loses little; ``keep``: a file of
            this side loses; ``vote``: add up the confidences at these sides; ``larger``: things from the
            first of these sizes on are known better; ``guessing``: at these points it is.
        points: of the axis, that it is about.
        value: accuracy gained (``keep``: lost; ``guessing``: what it is), as a fraction.
        low, high: the ends of its interval.
        confidence: how sure that interval is, the choice among several points included.
        cost: how many times the reference's multiplications it takes; ``None`` where they are not known, or
            do not change.
        sentence: all that in words.
    """

    model: str
    kind: str
    points: tuple[float, ...]
    value: float
    low: float
    high: float
    confidence: float
    cost: float | None
    sentence: str


@dataclass(frozen=True)
class Verdict:
    """Whether a model meets a requirement.

    Attributes:
        requirement: as it was written: ``top1@0.5>=0.8``.
        model: the model's name.
        value: the figure measured; NaN where the model has none, which meets nothing.
        passed: whether the value is within the bound.
    """

    requirement: str
    model: str
    value: float
    passed: bool


@dataclass(frozen=True)
class Audit:
    """The results of one model or several, all on the same images.

    Attributes:
        results: by name, the baseline first.
        baseline: the name of the model that the others are compared with.
        findings: the main results, in sentences.
        max_loss: as a fraction: a model holds where its accuracy falls by at most this.
        provenance: the command (empty where a model has no name), versions, machine and date.
        verdicts: which requirements are met, if there were any.
        bounds: of points with images of their own, from which to which size each goes.
        advice: what to do, as far as chance does not cover it.
    """

    results: Mapping[str, AuditResult]
    baseline: str
    findings: tuple[str, ...]
    max_loss: float
    provenance: Mapping[str, str] = field(default_factory=dict)
    verdicts: tuple[Verdict, ...] = ()
    bounds: tuple[tuple[float, float], ...] = ()
    advice: tuple[Advice, ...] = ()

    @property
    def only(self) -> AuditResult:
        """The one result, where one model was audited."""
        (result,) = self.results.values()
        return result

    @property
    def passed(self) -> bool:
        """Whether all requirements are met."""
        return all(verdict.passed for verdict in self.verdicts)

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON, by ``auditing/schema/audit.schema.json``; failures come without their images.

        Shares are fractions; lists by scale are in the order of ``scales``; ``None`` is what is not known.
        """
        first = next(iter(self.results.values()))
        plain: dict[str, Any] = _plain(
            {
                "schema": SCHEMA,
                "source": first.source,
                "test_images": len(first.curve.labels),
                "class_names": first.class_names,
                "axis": _axis_form(first.curve, self.bounds),
                "scales": first.curve.scales,
                "baseline": self.baseline,
                "max_loss": self.max_loss,
                "findings": self.findings,
                "advice": [dataclasses.asdict(line) for line in self.advice],
                "verdicts": [dataclasses.asdict(verdict) for verdict in self.verdicts],
                "models": {
                    name: _result_form(result, self.max_loss)
                    for name, result in self.results.items()
                },
                "made": self.provenance,
            }
        )
        return plain


def _result_form(result: AuditResult, max_loss: float) -> dict[str, Any]:
    protocol, cost, curve = result.protocol, result.cost, result.curve
    return {
        "protocol": {
            "canvas": protocol.canvas,
            "content": protocol.content,
            "side": protocol.side,
            "interpolation": protocol.interpolation,
            "background": protocol.background,
        },
        "notes": result.notes,
        "figures": {name: _figure_form(curve, name) for name in curve.figures},
        "band": _band_form(curve, max_loss),
        "classes": _class_form(curve, len(result.class_names)),
        "flips": None if result.flips is None else dataclasses.asdict(result.flips),
        "layers": None if result.layers is None else dataclasses.asdict(result.layers),
        "failures": [
            {
                key: getattr(failure, key)
                for key in ("index", "scale", "label", "answer", "confidence")
            }
            for failure in result.failures
        ],
        "cost": {
            "parameters": None if cost is None else cost.parameters,
            "multiplications": None if cost is None else cost.multiplications,
            "seconds": result.seconds,
            "memory": result.memory,
            "batch": result.batch,
            "by_scale": result.point_costs,
        },
    }


def _axis_form(curve: ScaleCurve, bounds: tuple[tuple[float, float], ...]) -> dict[str, Any]:
    return {
        "name": curve.axis.name,
        "unit": curve.axis.sign.strip(),
        "label": curve.axis.label,
        "reference": curve.reference,
        "images": [curve.count(scale) for scale in curve.scales],
        "bounds": bounds or None,
    }


def _figure_form(curve: ScaleCurve, name: str) -> dict[str, Any]:
    intervals = [curve.interval(scale, name) for scale in curve.scales]
    return {
        "value": [curve.figure(name, scale) for scale in curve.scales],
        "low": [low for low, _ in intervals],
        "high": [high for _, high in intervals],
    }


def _band_form(curve: ScaleCurve, max_loss: float) -> dict[str, Any]:
    low, high = curve.band(curve.reference, max_loss)
    low_interval, high_interval = curve.band_interval(curve.reference, max_loss)
    return {
        "around": curve.reference,
        "low": low,
        "low_interval": low_interval,
        "high": high,
        "high_interval": high_interval,
    }


def _class_form(curve: ScaleCurve, classes: int) -> dict[str, Any]:
    low, high = curve.class_interval(classes)
    return {
        "images": curve.labels.bincount(minlength=classes),
        "top1": curve.class_accuracy(classes),
        "low": low,
        "high": high,
    }


def _plain(value: Any) -> Any:
    """A value as JSON knows it: NaN and infinities, which it does not know, become ``None``."""
    if isinstance(value, Tensor):
        return _plain(value.tolist())
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float):
        # A millionth of a point is far below what chance leaves open.
        return round(value, 8) if math.isfinite(value) else None
    return value
