"""What a figure of an audit is, and the registry of all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from torch import Tensor

from nearfar.errors import InputError

if TYPE_CHECKING:
    from nearfar.auditing.accuracy import ScaleCurve

__all__ = ["Figure", "Unit", "register_figure", "registered_figures"]

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
