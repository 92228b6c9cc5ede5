"""What a conversion method is, and the plan that it makes for one network."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import nn

from nearfar.conversion.replacement import copy_network, replace_modules
from nearfar.errors import InputError

__all__ = ["Change", "ConversionMethod", "Left", "Plan"]


@dataclass(frozen=True)
class ConversionMethod(ABC):
    """One way to convert a trained network, with its settings.

    A method is a frozen dataclass whose fields are its settings, entered under a name with
    :func:`nearfar.conversion.register_method`. Settings are plain data (numbers, words, tuples of them), so
    that a checkpoint can record them. A method that changes layers one by one is best derived from
    :class:`nearfar.conversion.LayerMethod`, which needs no ``plan`` of its own.

    Attributes:
        name: under which it is registered.
    """

    name: ClassVar[str] = ""

    @abstractmethod
    def plan(self, network: nn.Module, side: int | None = None) -> Plan:
        """What would be changed; nothing is changed.

        Args:
            network: the original.
            side: of the images, in pixels, where it is known.

        Raises:
            InputError: a network that cannot be converted this way.
        """

    def apply(self, network: nn.Module, plan: Plan) -> nn.Module:
        """A copy of a network with the changes of a plan.

        Args:
            network: the original, which is not changed.
            plan: made by :meth:`plan` for this network.

        Raises:
            InputError: a network that cannot be copied.
        """
        return replace_modules(copy_network(network), {c.name: c.make for c in plan.changes})

    @property
    def moves_logits(self) -> bool:
        """Whether the converted network must answer otherwise than the original, before any training."""
        return False

    @property
    def trains_original(self) -> bool:
        """Whether the original is fine-tuned and converted afterwards, rather than the converted network."""
        return False

    @classmethod
    def usable_as(cls, network: nn.Module, side: int | None) -> str:
        """How this method can be used on a network, in words for an error's text; empty if it cannot."""
        try:
            return cls.name if cls().plan(network, side).changes else ""
        except (InputError, TypeError):  # TypeError: a setting without a default
            return ""

    def as_dict(self) -> dict[str, Any]:
        """As plain data: ``{"method": name, setting: value, …}``."""
        return {"method": self.name, **dataclasses.asdict(self)}


@dataclass(frozen=True)
class Change:
    """A layer, or the whole network, that becomes another.

    Attributes:
        name: of the module; empty for the whole network.
        before, after: what it is and what it becomes, in short.
        make: makes the new module from the old one, whose tensors it takes over.
    """

    name: str
    before: str
    after: str
    make: Callable[[nn.Module], nn.Module] = field(repr=False, compare=False)


@dataclass(frozen=True)
class Left:
    """A layer that stays what it is.

    Attributes:
        name: of the module.
        what: its kind.
        why: in words.
    """

    name: str
    what: str
    why: str


@dataclass(frozen=True)
class Plan:
    """What a conversion does to one network.

    Attributes:
        conversion: the method and its settings.
        changes: what becomes something else.
        left: what might have been meant and stays.
        notes: what else there is to say, in sentences.
        idle: names of changed layers that did not run when the converted network was tried.
    """

    conversion: ConversionMethod
    changes: tuple[Change, ...]
    left: tuple[Left, ...] = ()
    notes: tuple[str, ...] = ()
    idle: tuple[str, ...] = ()
