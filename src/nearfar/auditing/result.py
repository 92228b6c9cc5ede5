"""What an audit finds, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from nearfar.auditing.accuracy import ScaleCurve
from nearfar.auditing.cost import Cost
from nearfar.auditing.json_form import audit_form
from nearfar.data import ScaleProtocol

__all__ = ["Audit", "AuditResult", "Failure", "Flips", "LayerScores", "Verdict"]


@dataclass(frozen=True)
class Flips:
    """For some images, the smallest change of scale that changes the answer; found by search.

    Attributes:
        images: ``[M]`` indices among the test images.
        smaller: ``[M]``, the largest scale below 1 at which the answer is another than at 1; NaN where
            it stays the same down to ``lowest``.
        larger: ``[M]``, the smallest scale above 1, likewise; NaN up to ``highest``.
        lowest, highest: how far was searched.
        precision: bracket's width, as a factor: 1.02 is 2 per cent of scale.
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
    """An image that is known at scale 1 and not at another.

    Attributes:
        index: among the test images.
        scale: where it fails.
        label: the right class.
        answer: the class answered there.
        confidence: with which probability.
        before: as shown at scale 1, ``[C, S, S]``.
        shown: as shown at ``scale``, ``[C, S, S]``.
    """

    index: int
    scale: float
    label: int
    answer: int
    confidence: float
    before: Tensor
    shown: Tensor


@dataclass(frozen=True)
class AuditResult:
    """What an audit found of one recogniser.

    Attributes:
        model: its name.
        source: the data set's name.
        class_names: of the data, in the order of the answers.
        protocol: how images were shown.
        curve: all answers, and the figures against scale computed from them.
        cost: parameters and multiplications; ``None`` where nobody can look inside.
        seconds: time of a batch of ``batch`` images; ``None`` where it was not measured.
        memory: bytes of tensors alive at most while a batch is answered; ``None`` likewise.
        batch: how many images that batch has.
        flips: smallest changes of scale that flip an answer; ``None`` where they were not searched for.
        layers: by layer; ``None`` where they were not asked for, or nobody can look inside.
        failures: the surest wrong answers to images that are known at scale 1.
        notes: what a reader has to know of how images were shown, in sentences: the canvas, cropping,
            padding, and from which scale on images are enlarged beyond what they hold.
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


@dataclass(frozen=True)
class Verdict:
    """Whether a recogniser meets a requirement.

    Attributes:
        requirement: as it was given: ``top1@0.5>=0.8``.
        model: the recogniser's name.
        value: the figure measured.
        passed: whether it meets it.
    """

    requirement: str
    model: str
    value: float
    passed: bool


@dataclass(frozen=True)
class Audit:
    """What an audit found of one recogniser or several, all on the same images.

    Attributes:
        results: by name, the baseline first.
        baseline: the name of the one that the others are compared with.
        findings: what the figures say, in sentences.
        max_loss: as a fraction: a recogniser holds where its accuracy falls by at most this.
        made: the command (empty where a model has no name), versions, machine and date.
        verdicts: which requirements are met, if there were any.
    """

    results: Mapping[str, AuditResult]
    baseline: str
    findings: tuple[str, ...]
    max_loss: float
    made: Mapping[str, str] = field(default_factory=dict)
    verdicts: tuple[Verdict, ...] = ()

    @property
    def only(self) -> AuditResult:
        """The one result, where one recogniser was audited."""
        (result,) = self.results.values()
        return result

    @property
    def passed(self) -> bool:
        """Whether all requirements are met."""
        return all(verdict.passed for verdict in self.verdicts)

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON, in the form of ``auditing/schema/audit.schema.json``."""
        return audit_form(self)
