"""The axis ``input``: the side of the network's input, the share of it that content covers kept."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from nearfar.auditing.audit_spec import AuditSpec
from nearfar.auditing.audited_images import AuditedImages
from nearfar.auditing.audited_models import AuditedModel
from nearfar.auditing.axes.axis import AuditAxis, AuditPoints, register_axis
from nearfar.auditing.notes import background_note, covers, enlarged_from_note
from nearfar.auditing.wording import INPUT_SIDES, listed
from nearfar.classifiers.resizing import at_side, patch_of
from nearfar.errors import InputError

__all__ = ["InputSideAxis"]

#: Default sides, in sevenths of the model's own: 128 to 448 for 224.
_SEVENTHS = (4, 5, 6, 7, 8, 9, 11, 14)


@register_axis("input")
class InputSideAxis(AuditAxis):
    """Asks each model at several sides of its input, as FixRes does (H. Touvron et al. 2019).

    Args:
        sides: in pixels; none: from 4/7 to twice the baseline's own. That one is added.
    """

    settings = ("sides",)
    changes_cost = True

    def __init__(self, sides: tuple[int, ...] = ()) -> None:
        self.sides = sides
        self._at: dict[tuple[str, float], AuditedModel] = {}

    @classmethod
    def of(cls, spec: AuditSpec) -> InputSideAxis:
        """The axis at a specification's sides."""
        return cls(spec.sides)

    def points(
        self, audited_models: Sequence[AuditedModel], images: AuditedImages | None
    ) -> AuditPoints:
        """The sides, the baseline's own among them; every model is tried at each.

        Raises:
            InputError: a side that a model does not take, with the reason; no default side but its own that
                all take; or a baseline whose input is no square.
        """
        baseline = audited_models[0]
        height, width = baseline.protocol.canvas_size
        if height != width:
            raise InputError(
                f"{baseline.name} takes images of {height}×{width}, and has no one side to change; audit "
                f"another axis"
            )
        sides = self.sides or _default_sides(height, audited_models)
        notes = []
        if height not in sides:
            sides = tuple(sorted((*sides, height)))
            notes.append(f"{height} px was added to the sides: it is {baseline.name}'s own.")
        refusals: dict[int, str] = {}
        for side in sides:
            try:
                for model in audited_models:
                    self._at[model.name, side] = _resized(model, side)
            except InputError as refusal:
                if self.sides:
                    raise
                refusals[side] = str(refusal)
        sides = tuple(side for side in sides if side not in refusals)
        if height in refusals or len(sides) < 2:
            raise InputError(f"there is no side to compare: {next(iter(refusals.values()))}")
        if refusals:
            left_out = listed([f"{side} px" for side in refusals])
            notes.append(f"Left out: {left_out}. {next(iter(refusals.values()))}.")
        return AuditPoints(tuple(map(float, sides)), float(height), INPUT_SIDES, tuple(notes))

    def model_at(self, model: AuditedModel, point: float) -> AuditedModel:
        """The model with its input at a side."""
        return self._at[model.name, point]

    def notes(
        self, model: AuditedModel, images: AuditedImages, points: AuditPoints
    ) -> tuple[str, ...]:
        """What covers the input at its own side, and from which side on images are enlarged."""
        own = model.protocol
        protocols = {point: self.model_at(model, point).protocol for point in points.values}
        canvas = "×".join(map(str, own.canvas_size))
        return (
            f"{model.name}'s own input is {canvas}: there {covers(own, str(own.content))} about its middle. "
            f"At other sides content covers the same share; what is left empty is {background_note(own)}.",
            enlarged_from_note(protocols, images, points.words),
        )


def _resized(model: AuditedModel, side: int) -> AuditedModel:
    classifier = at_side(model.classifier, side)
    protocol = dataclasses.replace(
        classifier.input_spec.protocol, background=model.protocol.background
    )
    return dataclasses.replace(model, classifier=classifier, protocol=protocol)


def _default_sides(own: int, audited_models: Sequence[AuditedModel]) -> tuple[int, ...]:
    """From 4/7 of a side to twice it, in steps that the networks' patches divide."""
    step = math.lcm(*(patch_of(model.classifier) for model in audited_models))
    # Strides halve a map evenly where the side has powers of two.
    while step * 2 * 7 <= own and own % (step * 2) == 0:
        step *= 2
    sides = {max(step, round(own * n / 7 / step) * step) for n in _SEVENTHS}
    return tuple(sorted(sides))
