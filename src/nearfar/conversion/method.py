"""What a conversion method is, the plan that it makes for one network, and the methods by name."""

from __future__ import annotations

import dataclasses
import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Any, ClassVar, TypeVar

from torch import nn

from nearfar.conversion.replacement import copy_network, replace_modules
from nearfar.errors import InputError

__all__ = [
    "ENTRY_POINTS",
    "Change",
    "ConversionMethod",
    "Left",
    "Plan",
    "as_method",
    "list_methods",
    "method_class",
    "register_method",
]

#: Where an installed package declares its own methods, for names in recipes and checkpoints.
ENTRY_POINTS = "nearfar.conversion_methods"
_METHODS: dict[str, type[ConversionMethod]] = {}


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

    @property
    def random_scale(self) -> tuple[float, float] | None:
        """By how much fine-tuning changes the size of each image unless the data say otherwise."""
        return 0.4, 2.0

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


_Method = TypeVar("_Method", bound=type[ConversionMethod])


def register_method(name: str) -> Callable[[_Method], _Method]:
    """Class decorator: enters a conversion method under a name.

    Args:
        name: in records, recipes and on the command line.

    Raises:
        InputError: a name that another method has, or a class that is no frozen dataclass derived from
            :class:`ConversionMethod`.
    """

    def enter(cls: _Method) -> _Method:
        is_method = isinstance(cls, type) and issubclass(cls, ConversionMethod)
        if not is_method or "__dataclass_fields__" not in vars(cls):
            raise InputError(
                f"a conversion method is a frozen dataclass derived from ConversionMethod, got {cls!r}; put "
                f"@dataclass(frozen=True) below @register_method({name!r})"
            )
        other = _METHODS.get(name)
        if other is not None and other.__qualname__ != cls.__qualname__:
            raise InputError(
                f"a conversion method {name!r} is registered already, by {other.__module__}."
                f"{other.__qualname__}; choose another name"
            )
        cls.name = name
        _METHODS[name] = cls
        return cls

    return enter


def list_methods() -> list[str]:
    """Names of all registered conversion methods, nearfar's own first."""
    return list(_METHODS)


def method_class(name: str, *, imports: bool = False) -> type[ConversionMethod]:
    """The class of a conversion method.

    Args:
        name: a registered name, or one that an installed package declares under the entry point
            ``nearfar.conversion_methods``.
        imports: also take ``package.module:Class`` and import it: for names that a person has typed, never
            for names out of a file.

    Raises:
        InputError: no such method.
    """
    if name not in _METHODS and imports and ":" in name:
        return _imported(name)
    if name not in _METHODS:
        for point in entry_points(group=ENTRY_POINTS, name=name):
            point.load()
    if name not in _METHODS:
        raise InputError(
            f"method must be one of {', '.join(_METHODS)}, got {name!r}; a method of your own is known once "
            f"its module is imported, or where its package declares it under the entry point {ENTRY_POINTS!r}"
        )
    return _METHODS[name]


def as_method(
    method: ConversionMethod | str | Mapping[str, Any], *, imports: bool = False
) -> ConversionMethod:
    """A conversion method from what names it.

    Args:
        method: a method itself, the name of one (with its default settings), or its record
            ``{"method": name, setting: value, …}``.
        imports: as in :func:`method_class`.

    Raises:
        InputError: no such method, or settings that it does not know or refuses.
    """
    if isinstance(method, ConversionMethod):
        return method
    if isinstance(method, str):
        return _with_settings(method_class(method, imports=imports), {})
    if not isinstance(method, Mapping) or not isinstance(method.get("method"), str):
        raise InputError(
            f"a conversion is a method's name or a record such as {{'method': 'si', 'scales': [0.75, 1]}}, "
            f"got {method!r}"
        )
    settings = {key: value for key, value in method.items() if key != "method"}
    return _with_settings(method_class(method["method"], imports=imports), settings)


def _with_settings(cls: type[ConversionMethod], settings: Mapping[str, Any]) -> ConversionMethod:
    names = {f.name for f in dataclasses.fields(cls) if f.init}
    # Older records name every method's settings, those of other methods with null.
    settings = {k: v for k, v in settings.items() if k in names or v is not None}
    for setting in settings.keys() - names:
        owners = [
            name
            for name, other in _METHODS.items()
            if setting in {f.name for f in dataclasses.fields(other)}
        ]
        hint = f"; it belongs to {', '.join(owners)}" if owners else ""
        raise InputError(
            f"method {cls.name!r} has no {setting}, got {setting}={settings[setting]!r}; it has "
            f"{', '.join(sorted(names)) or 'no settings'}{hint}"
        )
    lists = {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}
    try:
        return cls(**lists)
    except TypeError as cause:  # a setting without a default is missing, or has another type
        raise InputError(f"method {cls.name!r} cannot be set so: {cause}") from cause


def _imported(word: str) -> type[ConversionMethod]:
    module, _, attribute = word.partition(":")
    try:
        cls = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as cause:
        raise InputError(
            f"no conversion method can be imported as {word!r}: {cause}; name it package.module:Class"
        ) from cause
    if not isinstance(cls, type) or not issubclass(cls, ConversionMethod) or not cls.name:
        raise InputError(
            f"{word} is no registered conversion method; derive it from ConversionMethod and put "
            f"@register_method(name) above it"
        )
    return cls
