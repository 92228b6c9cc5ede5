"""An operator that has run, and what a rule about it looks like."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from nearfar.counting.seen import Seen, plain, pointwise
from nearfar.counting.sight import Lost
from nearfar.pyramid import Pyramid

__all__ = ["Answer", "Call", "Rule", "bound", "everywhere", "numbers", "tensors", "unknown"]


@dataclass(frozen=True)
class Call:
    """An operator that has run.

    Attributes:
        arguments: by the names of the operator's schema.
        output: its first output.
        seen: what a tensor's units see; ``None`` where that is nothing of the image.
        learnt: whether a tensor comes from parameters.
    """

    arguments: dict[str, Any]
    output: Tensor
    seen: Callable[[Any], Seen | None]
    learnt: Callable[[Any], bool]

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the output."""
        return tuple(self.output.shape)

    @property
    def first(self) -> Seen:
        """What the first argument sees."""
        found = self.seen(next(iter(self.arguments.values())))
        return found if found is not None else unknown(self)

    def inputs(self) -> list[Seen]:
        """What every input sees that sees anything."""
        flat = [
            t
            for value in self.arguments.values()
            for t in (value if isinstance(value, (list, tuple)) else [value])
        ]
        return [found for t in flat if (found := self.seen(t)) is not None]


#: One for every output, or the same for all.
Answer = Seen | list[Seen]
#: Says what the outputs of a call see.
Rule = Callable[[Call], Answer]


def unknown(call: Call) -> Seen:
    """What cannot be followed; but where all inputs see the whole image, so does the output."""
    inputs = call.inputs()
    views = [
        Lost.WHOLE if inputs and all(s.views[a] is Lost.WHOLE for s in inputs) else Lost.UNKNOWN
        for a in (0, 1)
    ]
    return Seen(plain(call.shape), (views[0], views[1]))


def everywhere(call: Call) -> Seen:
    """Of all operators that act on each place alone, or are taken so: each unit sees its inputs."""
    return pointwise(call.inputs(), call.shape)


def numbers(value: Any, rank: int, empty: Sequence[int] = ()) -> list[int]:
    """An operator's argument that is a number an axis, one for all, or left out."""
    given = [value] if isinstance(value, int) else list(value)
    given = given or list(empty)
    return given * rank if len(given) == 1 else given


def bound(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """An operator's arguments by name, defaults filled in."""
    given: dict[str, Any] = {}
    for i, argument in enumerate(func._schema.arguments):
        if i < len(args):
            given[argument.name] = args[i]
        else:
            given[argument.name] = kwargs.get(argument.name, argument.default_value)
    return given


def tensors(values: Any) -> Iterator[Tensor]:
    """All tensors among values, within lists, dictionaries and pyramids too."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, Pyramid):
            yield from value.levels
        elif isinstance(value, dict):
            yield from tensors(value.values())
        elif isinstance(value, (list, tuple)):
            yield from tensors(value)
