"""The gate: requirements on an audit's figures, as ``top1@0.5>=0.80``."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nearfar.auditing.accuracy import ScaleCurve
from nearfar.auditing.axes import AuditPoints
from nearfar.auditing.figure_registry import registered_figures
from nearfar.auditing.result import Verdict
from nearfar.errors import InputError

__all__ = ["Requirement", "judge", "read_requirements"]

#: Besides the registered figures: the accuracy lost against the baseline, and the ends of the band.
_LOSS, _BAND_ENDS = "loss", ("band_low", "band_high")
_OPERATORS = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt}
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_FORM = re.compile(
    rf"(?:(?P<name>.+):)?(?P<figure>\w+)(?:@(?P<scale>{_NUMBER}))?\s*(?P<sign>>=|<=|>|<)\s*(?P<bound>{_NUMBER})"
)


@dataclass(frozen=True)
class Requirement:
    """A bound on a figure.

    Attributes:
        text: as it was written, without the model's name.
        model: whom it binds; ``None``: every model but the baseline.
        figure: a registered figure, ``loss``, ``band_low`` or ``band_high``.
        scale: at which scale; ``None`` for the band's ends.
        sign: ``>=``, ``<=``, ``>`` or ``<``.
        bound: of the figure.
    """

    text: str
    model: str | None
    figure: str
    scale: float | None
    sign: str
    bound: float

    def met(self, value: float) -> bool:
        """Whether a value is within the bound; NaN never is."""
        return bool(_OPERATORS[self.sign](value, self.bound))


def read_requirements(
    texts: Sequence[str],
    models: Mapping[str, int],
    baseline: str,
    points: AuditPoints | None,
) -> tuple[Requirement, ...]:
    """Reads requirements before anything is measured.

    Args:
        texts: one or several requirements each, separated by commas.
        models: how many classes each model has, by its name.
        baseline: the name of the model that ``loss`` is against.
        points: those of the audit; ``None`` where they are not known yet: then they are not looked at.

    Raises:
        InputError: one that cannot be read, or that the audit could not judge.
    """
    texts = (texts,) if isinstance(texts, str) else texts
    words = [word.strip() for text in texts for word in text.split(",")]
    if not all(words):
        raise InputError(
            f"a requirement is empty, got {list(texts)}; give one such as top1@0.5>=0.80 (a variable that is "
            f"not set gives none), or leave require out"
        )
    return tuple(_read(word, models, baseline, points) for word in words)


def judge(
    requirements: Sequence[Requirement],
    curves: Mapping[str, ScaleCurve],
    baseline: str,
    max_loss: float,
) -> tuple[Verdict, ...]:
    """Which requirements are met; those without a name bind every model but the baseline.

    Args:
        requirements: as read.
        curves: by name.
        baseline: the name of the model that ``loss`` is against; where it is alone it is judged too.
        max_loss: of the bands, as a fraction.
    """
    rivals = [name for name in curves if name != baseline] or [baseline]
    verdicts = []
    for requirement in requirements:
        for name in rivals if requirement.model is None else [requirement.model]:
            value = _value(requirement, curves[name], curves[baseline], max_loss)
            verdicts.append(Verdict(requirement.text, name, value, requirement.met(value)))
    return tuple(verdicts)


def _read(
    word: str, models: Mapping[str, int], baseline: str, points: AuditPoints | None
) -> Requirement:
    at_scale = (*registered_figures(), _LOSS)
    form = _FORM.fullmatch(word)
    if form is None or form["figure"] not in (*at_scale, *_BAND_ENDS):
        raise InputError(
            f"the requirement {word!r} cannot be read: a requirement is FIGURE@SCALE and a bound, as in "
            f"top1@0.5>=0.80, or band_low<=0.6; figures are {', '.join(at_scale)} at a scale, "
            f"{' and '.join(_BAND_ENDS)} without; >=, <=, > or <; NAME: before it binds one model only"
        )
    name, figure = form["name"], form["figure"]
    if name is not None and name not in models:
        raise InputError(
            f"the requirement {word!r} is about {name!r}, the models are {', '.join(models)}; take one of "
            f"them, or leave the name out"
        )
    number = None if form["scale"] is None else float(form["scale"])
    scale = _scale_of(word, figure, number, points)
    judged = [name] if name else [m for m in models if m != baseline] or [baseline]
    registered = registered_figures().get(figure)
    if (
        points is not None
        and points.members is not None
        and registered
        and registered.against_reference
    ):
        raise InputError(
            f"the requirement {word!r} compares answers to the same image at two sizes, and here each image "
            f"has but one; take another figure, or another axis"
        )
    least = 2 if registered is None else registered.min_classes
    few = next((m for m in judged if models[m] < least), None)
    if few is not None:
        raise InputError(
            f"the requirement {word!r} needs at least {least} classes, {few} has {models[few]}; take top1"
        )
    if figure == _LOSS and (len(models) < 2 or name == baseline):
        raise InputError(
            f"the requirement {word!r} compares a model with the baseline ({baseline}), and there is no "
            f"other; audit several, the baseline first"
        )
    text = word[len(name) + 1 :] if name else word
    return Requirement(text, name, figure, scale, form["sign"], float(form["bound"]))


def _scale_of(
    word: str, figure: str, scale: float | None, points: AuditPoints | None
) -> float | None:
    """The audited point that a requirement names; ``None`` for an end of the band."""
    if figure in _BAND_ENDS:
        if scale is not None:
            raise InputError(
                f"the requirement {word!r} names a scale, but a band has but one end: leave @{scale:g} out"
            )
        return None
    if points is None:
        return scale
    point = None if scale is None else points.find(scale)
    if point is not None:
        return point
    if points.bounds:
        raise InputError(
            f"the requirement {word!r} needs after @ a size from {points.bounds[0][0]:g} to "
            f"{points.bounds[-1][1]:g} pixels, those of the things audited; take one"
        )
    name = "scales" if points.words.relative else "sides"
    raise InputError(
        f"the requirement {word!r} needs one of the {name} audited "
        f"({', '.join(f'{s:g}' for s in points.values)}) after @; take one, or add it to {name}"
    )


def _value(
    requirement: Requirement, curve: ScaleCurve, baseline: ScaleCurve, max_loss: float
) -> float:
    if requirement.scale is None:
        low, high = curve.band(curve.reference, max_loss)
        return low if requirement.figure == "band_low" else high
    if requirement.figure == _LOSS:
        return baseline.accuracy(requirement.scale) - curve.accuracy(requirement.scale)
    if requirement.figure not in curve.figures:
        return math.nan  # nothing was recorded for it: not met
    return curve.figure(requirement.figure, requirement.scale)
