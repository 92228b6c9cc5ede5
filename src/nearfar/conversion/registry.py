"""Conversion methods by name."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from typing import Any, TypeVar

from nearfar.conversion.method import ConversionMethod
from nearfar.errors import InputError

__all__ = ["ENTRY_POINTS", "as_method", "list_methods", "method_class", "register_method"]

#: Where an installed package declares its own methods, for names in recipes and checkpoints.
ENTRY_POINTS = "nearfar.conversion_methods"

_METHODS: dict[str, type[ConversionMethod]] = {}
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
