"""Which names mean a data set's training, validation and test part: one rule for all layouts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations

from nearfar.errors import InputError

__all__ = ["FolderContent", "Parts", "folder_shaped", "named_parts", "part_named", "shard_part"]

_NAMES = {
    "train": ("train", "training"),
    "validation": ("val", "valid", "validation", "eval"),
    "test": ("test", "testing"),
}
_KINDS = {name: kind for kind, names in _NAMES.items() for name in names}
_HOW = "train (or training), val (valid, validation, eval) and test (testing)"
_SHOWN = 5


@dataclass(frozen=True)
class FolderContent:
    """What a folder at the top holds.

    Attributes:
        direct: there are images in it, not only below it.
        folders: names of its sub-folders.
        images: there are images in it or below it.
    """

    direct: bool
    folders: frozenset[str]
    images: bool = True


@dataclass(frozen=True)
class Parts:
    """A data set's parts by their names.

    Attributes:
        training: whose images are for training and validation, the training part first.
        test: the official test part: the one for testing, else the one for validation.
    """

    training: tuple[str, ...]
    test: str | None


def part_named(name: str) -> str | None:
    """``train``, ``validation`` or ``test``, where a name means that part; upper case is like lower."""
    return _KINDS.get(name.lower())


def shard_part(stem: str) -> str | None:
    """The same for a shard: the first of its name's words that is a part's, or how the name begins."""
    words = re.findall("[a-z]+", stem.lower())
    named = next((kind for word in words if (kind := part_named(word))), None)
    begun = (kind for name, kind in _KINDS.items() if words and words[0].startswith(name))
    return named or next(begun, None)


def named_parts(names: Iterable[str], where: object) -> Parts:
    """Names that are parts, in their roles.

    Args:
        names: a training part among them.
        where: what holds them, for the error text.

    Raises:
        InputError: two names of one part.
    """
    by_kind: dict[str, str] = {}
    for name in sorted(names):
        kind = part_named(name)
        assert kind is not None, "the caller has looked"
        if kind in by_kind:
            raise InputError(
                f"{where} has one {kind} part at most, got {by_kind[kind]} and {name}, which both mean it; "
                f"put them together, or rename one (parts are {_HOW})"
            )
        by_kind[kind] = name
    test = by_kind.get("test") or by_kind.get("validation")
    training = [
        by_kind[kind] for kind in ("train", "validation") if by_kind.get(kind, test) != test
    ]
    return Parts(tuple(training), test)


def folder_shaped(inside: Mapping[str, FolderContent], where: object) -> Parts | None:
    """Whether folders beside each other are parts, or classes.

    They are parts where one that is named ``train`` (or ``training``) has sub-folders, and either no
    images of its own or another part beside it: a class may be named "train".

    Args:
        inside: what each holds.
        where: what holds them, for the error text.

    Returns:
        The parts; ``None`` where the folders are classes.

    Raises:
        InputError: two names of one part; images beside the training part that belong to no part; or
            "classes" that look like parts of other names, since they hold the same folders.
    """
    parts = {name for name, content in inside.items() if part_named(name) and content.folders}
    train = [name for name in parts if part_named(name) == "train"]
    if any(len(parts) > 1 or not inside[name].direct for name in train):
        odd = sorted(
            name for name, content in inside.items() if name not in parts and content.images
        )
        if odd:
            raise InputError(
                f"{where} has a training part ({train[0]}), and beside it only parts with a sub-folder a "
                f"class may hold images, named {_HOW}; got {_named(odd)}: rename them, sort them into "
                f"classes or move them elsewhere, or, if {train[0]} is a class, rename that"
            )
        return named_parts(parts, where)
    bare = sorted(
        name for name, content in inside.items() if content.folders and not content.direct
    )
    for one, other in combinations(bare, 2):
        shared = sorted(inside[one].folders & inside[other].folders)
        if len(shared) > 1:
            raise InputError(
                f"{where} needs a folder a class with images in it, got {one} and {other}, which hold no "
                f"images but the same folders ({_named(shared)}); if they are parts, name them {_HOW}, "
                f"if they are classes, put their images into them directly"
            )
    return None


def _named(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (" …" if len(names) > _SHOWN else "")
