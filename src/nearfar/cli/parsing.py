"""A function's signature and docstring as a command's options and help."""

from __future__ import annotations

import inspect
import re
from argparse import Action
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_args, get_type_hints

from docstring_parser import parse
from jsonargparse import ArgumentParser, DefaultHelpFormatter

from nearfar.cli.settings import Settings, element_of
from nearfar.errors import InputError

__all__ = ["parse_call"]

_OPTION = re.compile(r"--?[A-Za-z]")


def parse_call(
    function: Callable[..., Any],
    arguments: list[str],
    examples: str,
    *,
    positional: bool = False,
    types: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Reads a command line, and the YAML files that it names with ``--config``, for a function.

    Args:
        function: the public function behind the command; its docstring is the help.
        arguments: what follows the command's name.
        examples: closes the help text.
        positional: parameters without a default are given by position, unless they are keyword-only; the
            last may be a sequence, which takes all words that remain.
        types: of parameters that have another type on a command line than in Python.

    Returns:
        Keyword arguments for ``function``, of the types in its signature.

    Raises:
        InputError: all that cannot be used, each with its file and key, in one message.
    """
    signature = inspect.signature(function).parameters
    types = {**get_type_hints(function), **(types or {})}
    hints = {name: types[name] for name in signature if name != "progress"}
    positions = [
        name
        for name, parameter in signature.items()
        if positional and parameter.default is parameter.empty
        if parameter.kind is not parameter.KEYWORD_ONLY
    ]
    parser, required = _parser(function, examples, hints, positions)
    for word in arguments:
        if word in ("-h", "--help") or re.fullmatch(r"--[\w.]+\.help", word):
            parser.parse_args([word])  # ends the process
    for action in required:
        action.required = False  # settings are checked one at a time
    settings = Settings(parser, hints)
    options, words = _split(arguments, settings)
    for key, value in sorted(options, key=lambda option: option[0] != "config"):
        settings.add_file(Path(value)) if key == "config" else settings.add(key, value)
    for name in positions:
        several = element_of(hints[name]) is not None
        if words:
            settings.add(name, words if several else words[0])
            words = [] if several else words[1:]
    if words:
        settings.refuse(f"unrecognized arguments: {' '.join(words)}")
    return settings.arguments([action.dest for action in required])


def _parser(
    function: Callable[..., Any], examples: str, hints: Mapping[str, Any], positions: list[str]
) -> tuple[ArgumentParser, list[Action]]:
    """The parser, and those of its options that must be given."""
    doc = parse(inspect.getdoc(function) or "")
    about = {parameter.arg_name: parameter.description for parameter in doc.params}
    parser = ArgumentParser(
        prog=f"nearfar {function.__name__}",
        description="\n\n".join(filter(None, (doc.short_description, doc.long_description))),
        epilog=f"examples:\n{examples}",
        formatter_class=_Formatter,
        exit_on_error=False,
    )
    parser.add_argument("--config", help="a YAML file of options; the command line wins over it")
    python = get_type_hints(function)
    required: list[Action] = []
    skip: set[str | int] = {"progress"}
    for name, hint in hints.items():
        default = inspect.signature(function).parameters[name].default
        options: dict[str, Any] = {"type": hint, "help": about.get(name)}
        if name in positions:
            element = element_of(hint)
            options |= {} if element is None else {"type": element, "nargs": "+"}
            required.append(parser.add_argument(name, **options))
        elif default is inspect.Parameter.empty:
            required.append(parser.add_argument(f"--{name}", required=True, **options))
        elif hint != python[name]:
            parser.add_argument(f"--{name}", default=default, **options)
        else:
            continue
        skip.add(name)
    parser.add_function_arguments(function, as_group=False, skip=skip, sub_configs=True)
    return parser, required


def _split(arguments: list[str], settings: Settings) -> tuple[list[tuple[str, str]], list[str]]:
    """The options with their values as typed, and the words that belong to none."""
    options: list[tuple[str, str]] = []
    words: list[str] = []
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if word == "--":
            return options, words + rest
        if not _OPTION.match(word):
            words.append(word)
            continue
        key, equals, value = word.removeprefix("--").partition("=")
        hint = str if key == "config" else settings.hint(key)
        if hint is None:
            raise InputError(f"no option is named {word.partition('=')[0]}{settings.alike(key)}")
        if not equals and bool in (hint, *get_args(hint)):
            value = rest.pop(0) if rest and rest[0].lower() in ("true", "false") else "true"
        elif not equals:
            if not rest or _OPTION.match(rest[0]):
                raise InputError(f"--{key} needs a value after it")
            value = rest.pop(0)
        options.append((key, value))
    return options, words


class _Formatter(DefaultHelpFormatter):
    """Keeps the docstring's paragraphs and the examples' lines, and leaves out the docstring's markup."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        fill = super()._fill_text
        paragraphs = _plain(text).split("\n\n")
        return "\n\n".join(
            p if p.startswith("examples:") else fill(p, width, indent) for p in paragraphs
        )

    def _split_lines(self, text: str, width: int) -> list[str]:
        lines: list[str] = super()._split_lines(_plain(text), width)
        return lines


def _plain(text: str) -> str:
    return re.sub(r":\w+:`~?(?:nearfar\.)?([^`]*)`", r"\1", text).replace("``", "")
