"""A function's signature and docstring as a command's options and help, over jsonargparse."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_args, get_type_hints

from docstring_parser import parse
from jsonargparse import ArgumentParser, DefaultHelpFormatter

from nearfar.cli.settings import Settings, element_of, read_mapping
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
        positional: parameters without a default are given by position, unless they are keyword-only.
        types: of parameters that have another type on a command line than in Python.

    Raises:
        InputError: all that cannot be used, each with its file and key, in one message.
    """
    parameters = dict(inspect.signature(function).parameters)
    parameters.pop("progress", None)
    hints = {**get_type_hints(function), **(types or {})}
    required = {name: p for name, p in parameters.items() if p.default is p.empty}
    positions = [n for n, p in required.items() if positional and p.kind is not p.KEYWORD_ONLY]
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
    by_hand = {n: p for n, p in parameters.items() if n in required or n in (types or {})}
    mandatory = []
    for name, parameter in by_hand.items():
        options: dict[str, Any] = {"type": hints[name], "help": about.get(name)}
        if name in positions and (element := element_of(hints[name])):
            options |= {"type": element, "nargs": "+"}
        elif name not in positions:
            options |= {"required": True} if name in required else {"default": parameter.default}
        action = parser.add_argument(name if name in positions else f"--{name}", **options)
        mandatory += [action] * (name in required)
    skip: set[str | int] = {"progress", *by_hand}
    parser.add_function_arguments(function, as_group=False, skip=skip, sub_configs=True)
    for word in arguments:
        if word in ("-h", "--help") or re.fullmatch(r"--[\w.]+\.help", word):
            parser.parse_args([word])  # ends the process
    for action in mandatory:
        action.required = False  # settings are checked one at a time

    settings = Settings(parser, {name: hints[name] for name in parameters})
    named, words = _split(arguments, settings)
    for file in [value for key, value in named if key == "config"]:
        for key, value in read_mapping(Path(file).read_bytes(), file).items():
            settings.add(str(key), value, file)
    for key, value in named:
        if key != "config":
            settings.add(key, value)
    for name in positions:
        if words:
            settings.add(name, words if element_of(hints[name]) else words[0])
            words = [] if element_of(hints[name]) else words[1:]
    if words:
        settings.refuse(f"unrecognized arguments: {' '.join(words)}")
    return settings.arguments(list(required))


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
        if text.startswith("examples:"):
            return text
        fill = super()._fill_text
        return "\n\n".join(fill(part, width, indent) for part in _plain(text).split("\n\n"))

    def _split_lines(self, text: str, width: int) -> list[str]:
        return super()._split_lines(_plain(text), width)


def _plain(text: str) -> str:
    return re.sub(r":\w+:`~?(?:nearfar\.)?([^`]*)`", r"\1", text).replace("``", "")
