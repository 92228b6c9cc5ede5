"""A function as a command line meets it: with types that words can have, and a help free of markup."""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["in_words"]

_Result = TypeVar("_Result")


def in_words(
    function: Callable[..., _Result], said: dict[str, str] | None = None, **hints: Any
) -> Callable[..., _Result]:
    """The same function with other types and a plainer docstring, for a parser to read.

    Args:
        function: behind the command, defined with ``def``.
        said: passages of its docstring, and what a command's help says in their place.
        hints: parameters whose type on a command line is another than in Python.
    """
    assert isinstance(function, types.FunctionType), "a parser reads its source"
    words = types.FunctionType(
        function.__code__,
        function.__globals__,
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    words.__kwdefaults__ = function.__kwdefaults__
    doc = inspect.getdoc(function) or ""
    for passage, plainer in (said or {}).items():
        doc = doc.replace(passage, plainer)
    words.__doc__ = re.sub(r":\w+:`~?(?:nearfar\.)?([^`]*)`", r"\1", doc)
    words.__annotations__ = {**function.__annotations__, **hints}
    return words
