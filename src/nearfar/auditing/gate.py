"""The gate: requirements on an audit's figures, as ``top1@0.5>=0.80``."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nearfar.auditing.accuracy import ScaleCurve
from nearfar.auditing.result import Verdict
from nearfar.errors import InputError

__all__ = ["Requirement", "judge", "read_requirements"]

_AT_SCALE = ("top1", "top5", "confidence", "ece", "flips", "loss")
_OF_ALL = ("band_low", "band_high")
_OPERATORS = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt}
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_FORM = re.compile(
    rf"(?:(?P<name>.+):)?(?P<figure>\w+)(?:@(?P<scale>{_NUMBER}))?\s*(?P<sign>>=|<=|>|<)\s*(?P<bound>{_NUMBER})"
)
_HOW = (
    f"a requirement is FIGURE@SCALE and a bound, as in top1@0.5>=0.80, or band_low<=0.6; figures are "
    f"{', '.join(_AT_SCALE)} at a scale, {' and '.join(_OF_ALL)} without; >=, <=, > or <; NAME: before "
    f"it asks it of one model only"
)


@dataclass(frozen=True)
class Requirement:
    """A bound on a figure.

    Attributes:
        text: as it was given, without the model's name.
        model: of whom it is asked; ``None``: of everybody but the baseline.
        figure: which.
        scale: at which scale; ``None`` for the band's ends.
        sign: ``>=``, ``<=``, ``>`` or ``<``.
        bound: the figure's.
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
    given: Sequence[str], models: Mapping[str, int], baseline: str, scales: Sequence[float]
) -> tuple[Requirement, ...]:
    """Reads requirements before anything is measured.

    Args:
        given: one or several each, separated by commas.
        models: how many classes each model has, by its name.
        baseline: the name of the one that ``loss`` is against.
        scales: those of the audit.

    Raises:
        InputError: one that cannot be read, or asks for what the audit will not know.
    """
    if isinstance(given, str):
        given = (given,)
    words = [word.strip() for text in given for word in text.split(",")]
    if not all(words):
        raise InputError(
            f"a requirement is empty, got {list(given)}; give one such as top1@0.5>=0.80 (a variable that is "
            f"not set gives none), or leave require out"
        )
    return tuple(_read(word, models, baseline, scales) for word in words)


def judge(
    requirements: Sequence[Requirement],
    curves: Mapping[str, ScaleCurve],
    baseline: str,
    max_loss: float,
) -> tuple[Verdict, ...]:
    """Which requirements are met; those without a name are asked of every model but the baseline.

    Args:
        requirements: as read.
        curves: by name.
        baseline: the name of the one that ``loss`` is against; asked too where it is alone.
        max_loss: that makes the bands.
    """
    rivals = [name for name in curves if name != baseline] or [baseline]
    found = []
    for asked in requirements:
        for name in rivals if asked.model is None else [asked.model]:
            value = _value(asked, curves[name], curves[baseline], max_loss)
            found.append(Verdict(asked.text, name, value, asked.met(value)))
    return tuple(found)


def _read(
    word: str, models: Mapping[str, int], baseline: str, scales: Sequence[float]
) -> Requirement:
    form = _FORM.fullmatch(word)
    if form is None or form["figure"] not in (*_AT_SCALE, *_OF_ALL):
        raise InputError(f"the requirement {word!r} cannot be read: {_HOW}")
    name, figure = form["name"], form["figure"]
    if name is not None and name not in models:
        raise InputError(
            f"the requirement {word!r} is about {name!r}, the models are {', '.join(models)}; take one of "
            f"them, or leave the name out"
        )
    scale = None if form["scale"] is None else float(form["scale"])
    if figure in _OF_ALL and scale is not None:
        raise InputError(
            f"the requirement {word!r} names a scale, but a band has but one end: leave @{scale:g} out"
        )
    if figure in _AT_SCALE:
        near = [s for s in scales if scale is not None and math.isclose(s, scale, rel_tol=1e-9)]
        if not near:
            audited = ", ".join(f"{s:g}" for s in scales)
            raise InputError(
                f"the requirement {word!r} needs one of the scales audited ({audited}) after @; take one, or "
                f"add it to scales"
            )
        scale = near[0]
    asked = [name] if name else [m for m in models if m != baseline] or [baseline]
    few = [m for m in asked if models[m] <= 5]
    if figure == "top5" and few:
        raise InputError(
            f"the requirement {word!r} needs more than five classes, {few[0]} has {models[few[0]]}; take top1"
        )
    if figure == "loss" and (len(models) < 2 or name == baseline):
        raise InputError(
            f"the requirement {word!r} compares a model with the baseline ({baseline}), and there is no "
            f"other; audit several, the baseline first"
        )
    text = word[len(name) + 1 :] if name else word
    return Requirement(text, name, figure, scale, form["sign"], float(form["bound"]))


def _value(asked: Requirement, curve: ScaleCurve, baseline: ScaleCurve, max_loss: float) -> float:
    if asked.scale is None:
        low, high = curve.band(curve.reference, max_loss)
        return low if asked.figure == "band_low" else high
    if asked.figure == "loss":
        return baseline.accuracy(asked.scale) - curve.accuracy(asked.scale)
    for figure in curve.figures:
        if figure == asked.figure:
            return curve.figure(figure, asked.scale)
    raise AssertionError(f"{asked.figure} was checked when it was read")
