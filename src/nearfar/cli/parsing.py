"""A function's signature and docstring as a command's options and help."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, get_args, get_origin, get_type_hints

from docstring_parser import parse
from jsonargparse import (  # type: ignore[attr-defined]
    ActionConfigFile,
    ArgumentParser,
    DefaultHelpFormatter,
)

from nearfar.cli.config_faults import check_configs
from nearfar.cli.shorthands import written_out
from nearfar.errors import InputError

__all__ = ["parse_call"]

#: A list of numbers as it is written on a command line.
_NUMBERS = r"[-+.,\deE]+"
_LISTS_OF_TEXT = (tuple[str, ...], tuple[Path, ...])


class _Parser(ArgumentParser):
    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        # Errors inside a nested group come through here twice.
        message = _plainly(message)
        told = message if "--help'" in message else f"{message}; see '{self.prog} --help'"
        raise InputError(told) from ex


def parse_call(
    function: Callable[..., Any], arguments: list[str], examples: str, *, positional: bool = False
) -> dict[str, Any]:
    """Reads a command line (and the YAML files it names with ``--config``) for a function.

    Args:
        function: the public function behind the command; its docstring is the help.
        arguments: what follows the command's name.
        examples: closes the help text.
        positional: what the function cannot do without is given by its place, not by its name, unless
            it is keyword-only. The last may be a sequence, which takes all words that remain, at least
            one.

    Returns:
        Keyword arguments for ``function``, of the types in its signature.

    Raises:
        InputError: an unknown option, a wrong type, a missing file or value, or a value that a
            type refuses.
    """
    doc = parse(inspect.getdoc(function) or "")
    about = "\n\n".join(part for part in (doc.short_description, doc.long_description) if part)
    parser = _Parser(
        prog=f"nearfar {function.__name__}",
        description=about.replace("``", ""),
        epilog=f"examples:\n{examples}",
        formatter_class=_Formatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--config", action=ActionConfigFile, help="read options from a YAML file; later options win"
    )
    places = _by_place(function) if positional else {}
    parser.add_function_arguments(
        function, as_group=False, skip={"progress", *places}, sub_configs=True
    )
    told = {param.arg_name: param.description for param in doc.params}
    for name, hint in places.items():
        element = _element(hint)
        several: dict[str, Any] = {} if element is None else {"nargs": "+"}
        parser.add_argument(name, type=element or hint, help=told.get(name), **several)
    try:
        words = _words(function, written_out(function, arguments))
        check_configs(function, words)
        given = parser.instantiate(parser.parse_args(words))
    except UnicodeDecodeError as cause:
        raise InputError(f"a file given is not text: {cause}") from cause
    return {
        name: given[name]
        for name in inspect.signature(function).parameters
        if name != "progress" and name in given
    }


def _by_place(function: Callable[..., Any]) -> dict[str, Any]:
    """Names and types of what a function cannot do without and does not want by name."""
    hints = get_type_hints(function)
    return {
        name: hints[name]
        for name, p in inspect.signature(function).parameters.items()
        if p.default is p.empty and p.kind is not p.KEYWORD_ONLY
    }


def _element(hint: Any) -> Any:
    """The type of what a sequence holds; ``None`` for what takes one word."""
    return get_args(hint)[0] if get_origin(hint) in (Sequence, tuple, list) else None


def _plainly(message: str) -> str:
    """jsonargparse's message in a user's words."""
    message = re.sub(r'Parser key "([^"]+)":', r"--\1:", message)
    message = re.sub(r"Expected an? <class '(?:\w+\.)*(\w+)'>", r"expected \1", message)
    message = re.sub(r"Expected a typing\.Literal\[(.*?)\]", r"expected one of \1", message)
    return re.sub(r"\. Got value: ", ", got ", message)


def _words(function: Callable[..., Any], arguments: list[str]) -> list[str]:
    """Shorthands: ``--fast`` for ``--fast=true``, ``--scales 0.5,1`` for ``--scales '[0.5,1]'``.

    A list may be joined to its option: ``--scales=0.5,1``; of words too: ``--layers stem*,layer1.*``.
    """
    parameters = inspect.signature(function).parameters.items()
    flags = {f"--{name}" for name, p in parameters if isinstance(p.default, bool)}
    lists = {f"--{name}" for name, p in parameters if isinstance(p.default, tuple)}
    hints = get_type_hints(function)
    texts = {name for name in lists if hints.get(name.removeprefix("--")) in _LISTS_OF_TEXT}
    words = []
    for before, word, after in zip(["", *arguments], arguments, [*arguments, ""][1:], strict=False):
        if word in flags and after.lower() not in ("true", "false"):
            words.append(f"{word}=true")
        elif before in lists and re.fullmatch(_NUMBERS, word):
            words.append(f"[{word}]")
        elif before in texts and not word.startswith(("[", "-")):
            words[-1] = f"{before}={json.dumps(_parts(word))}"
        elif word.partition("=")[0] in texts and not word.partition("=")[2].startswith("["):
            option, equals, value = word.partition("=")
            words.append(f"{option}={json.dumps(_parts(value))}" if equals else word)
        elif word.partition("=")[0] in lists and re.fullmatch(_NUMBERS, word.partition("=")[2]):
            words.append("{}=[{}]".format(*word.split("=")))
        else:
            words.append(word)
    return words


def _parts(value: str) -> list[str]:
    return [part.strip() for part in value.split(",")]


class _Formatter(DefaultHelpFormatter):
    """Keeps the docstring's paragraphs and the examples' lines."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        paragraphs = text.split("\n\n")
        return "\n\n".join(
            paragraph
            if paragraph.startswith("examples:")
            else super(_Formatter, self)._fill_text(paragraph, width, indent)
            for paragraph in paragraphs
        )
