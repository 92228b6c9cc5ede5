"""AuditAxis: what an audit changes about images or models from point to point; and their registry."""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeVar

from torch import Tensor

from nearfar.auditing.accuracy import ScaleCurve
from nearfar.auditing.audit_spec import AuditSpec, ImageSelection
from nearfar.auditing.audited_images import AuditedImages, Data, choose_images
from nearfar.auditing.audited_models import AuditedModel
from nearfar.auditing.wording import AxisWords
from nearfar.data.preprocess import Images
from nearfar.errors import InputError

__all__ = ["AuditAxis", "AuditPoints", "axis_of", "list_axes", "register_axis"]


@dataclass(frozen=True)
class AuditPoints:
    """The points of an axis at which figures are measured.

    Attributes:
        values: the points: factors, or pixels.
        reference: which of them the others are compared with.
        words: how they are spoken of.
        notes: what a reader has to know of them, in sentences.
        members: ``[S, N]`` booleans, where each image has a size of its own: which point it counts for. Such
            images are shown once. ``None``: every image is shown at every point.
        bounds: of each point with images of its own, the smallest and the largest size that it stands for.
    """

    values: tuple[float, ...]
    reference: float
    words: AxisWords
    notes: tuple[str, ...] = ()
    members: Tensor | None = None
    bounds: tuple[tuple[float, float], ...] = ()

    @property
    def asked_at(self) -> tuple[float, ...]:
        """At which points images are shown."""
        return self.values if self.members is None else (self.reference,)

    def curve(self, recorded: ScaleCurve) -> ScaleCurve:
        """A curve recorded at the points :attr:`asked_at`, at all points."""
        rows = [self.asked_at.index(p) if p in self.asked_at else 0 for p in self.values]

        def at_points(values: Tensor | None) -> Tensor | None:
            if values is None or self.members is None:
                return values
            return values[:1].expand(len(rows), -1)

        predictions = at_points(recorded.predictions)
        assert predictions is not None
        return dataclasses.replace(
            recorded,
            scales=self.values,
            predictions=predictions,
            confidence=at_points(recorded.confidence),
            top5=at_points(recorded.top5),
            columns={
                name: column
                for name, values in recorded.columns.items()
                if (column := at_points(values)) is not None
            },
            axis=self.words,
            reference_point=self.reference,
            members=self.members,
        )

    def find(self, value: float) -> float | None:
        """The point that a number names: itself, or the one whose bounds it lies between."""
        for point in self.values:
            if math.isclose(point, value, rel_tol=1e-9):
                return point
        inside = (
            point
            for point, (low, high) in zip(self.values, self.bounds, strict=False)
            if low <= value <= high
        )
        return next(inside, None)


class AuditAxis(ABC):
    """One axis of an audit.

    A new one is a file with a subclass, registered by :func:`register_axis`; everything else of an audit
    (figures, intervals, report, gate, advice) takes what it gives.
    """

    #: The settings of :class:`AuditSpec` that belong to it; others of that kind are refused.
    settings: ClassVar[tuple[str, ...]] = ()
    #: Whether content is zoomed about the canvas's middle, so that flips and layers can be looked at.
    zooms: ClassVar[bool] = False
    #: Whether a model multiplies more at one point than at another.
    changes_cost: ClassVar[bool] = False

    @classmethod
    @abstractmethod
    def of(cls, spec: AuditSpec) -> AuditAxis:
        """The axis with a specification's settings.

        Raises:
            InputError: settings that it cannot take.
        """

    @property
    def data_has_sizes(self) -> bool:
        """Whether points depend on the images, so that they are not known before these are chosen."""
        return False

    def choose(
        self, data: Data, audited_models: Sequence[AuditedModel], selection: ImageSelection
    ) -> AuditedImages:
        """The images of an audit on this axis; as :func:`nearfar.auditing.audited_images.choose_images`."""
        return choose_images(data, audited_models, selection)

    @abstractmethod
    def points(
        self, audited_models: Sequence[AuditedModel], images: AuditedImages | None
    ) -> AuditPoints:
        """At which points the models are asked.

        Args:
            audited_models: the baseline first.
            images: of the audit; ``None`` where points do not depend on them.

        Raises:
            InputError: a point at which a model cannot be asked, and why.
        """

    def prepare(self, images: Images, point: float) -> Images:
        """Decoded images as they are at a point, before a model's own preprocessing."""
        return images

    def model_at(self, model: AuditedModel, point: float) -> AuditedModel:
        """The model as it is asked at a point."""
        return model

    def show(self, model: AuditedModel, prepared: Images, point: float) -> Tensor:
        """Prepared images as a model's input at a point, ``[B, C, H, W]``, values from 0 to 1."""
        return self.model_at(model, point).show(prepared, 1.0)

    @abstractmethod
    def notes(
        self, model: AuditedModel, images: AuditedImages, points: AuditPoints
    ) -> tuple[str, ...]:
        """What a reader has to know of how images were shown to a model, in sentences."""


_AXES: dict[str, type[AuditAxis]] = {}
_Registered = TypeVar("_Registered", bound=type[AuditAxis])


def register_axis(name: str) -> Callable[[_Registered], _Registered]:
    """Registers an axis under the name that :attr:`AuditSpec.axis` and ``--axis`` take.

    Raises:
        InputError: the name is taken.
    """

    def register(axis: _Registered) -> _Registered:
        if _AXES.setdefault(name, axis) is not axis:
            raise InputError(f"an axis named {name!r} is registered already; take another name")
        return axis

    return register


def list_axes() -> list[str]:
    """The names of all axes."""
    return list(_AXES)


def axis_of(spec: AuditSpec) -> AuditAxis:
    """The axis that a specification names, with its settings.

    Raises:
        InputError: an unknown axis, or settings of another one.
    """
    axis = _AXES.get(spec.axis)
    if axis is None:
        raise InputError(f"axis must be one of {', '.join(_AXES)}, got {spec.axis!r}")
    owners = {name: [n for n, a in _AXES.items() if name in a.settings] for name in _settings()}
    defaults = {field.name: field.default for field in dataclasses.fields(AuditSpec)}
    for name, names in owners.items():
        value = getattr(spec, name)
        if value != defaults[name] and name not in axis.settings:
            raise InputError(
                f"{name} is a setting of the axis {' and '.join(names)}, got {name}={value!r} with "
                f"axis={spec.axis!r}; leave it out"
            )
    if not axis.zooms and (spec.layers or spec.flips):
        raise InputError(
            f"flips and layers are looked at where content is zoomed, got flips={spec.flips} and "
            f"layers={spec.layers} with axis={spec.axis!r}; leave them out, or audit axis='content'"
        )
    return axis.of(spec)


def _settings() -> list[str]:
    """The settings that belong to single axes."""
    return list(dict.fromkeys(name for axis in _AXES.values() for name in axis.settings))
