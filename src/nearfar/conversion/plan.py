"""Plan: what a conversion changes in a network, what it leaves, and why."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable
from dataclasses import dataclass, field

from torch import nn

from nearfar.conversion.spec import Conversion
from nearfar.errors import InputError

__all__ = ["PATCHES", "Change", "Left", "Plan", "chosen", "replaced"]

#: Why convolutions that do not overlap stay, whatever the method.
PATCHES = "it cuts the image into patches that do not overlap; name it in layers if it is meant"


@dataclass(frozen=True)
class Change:
    """A layer, or the whole network, that becomes another.

    Attributes:
        name: of the module; empty for the whole network.
        before, after: what it is and what it becomes, in short.
        make: makes the new module of the old one, whose tensors it takes over.
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
        conversion: the settings.
        changes: what becomes something else.
        left: what might have been meant and stays.
        notes: what else there is to say, in sentences.
    """

    conversion: Conversion
    changes: tuple[Change, ...]
    left: tuple[Left, ...] = ()
    notes: tuple[str, ...] = ()


def chosen(network: nn.Module, patterns: tuple[str, ...], kinds: tuple[type, ...]) -> list[str]:
    """Names of the modules of some kinds that patterns choose; shared modules under their first name.

    Args:
        network: whose modules.
        patterns: of names, ``*`` standing for anything; with ``!`` in front, what is not meant.
        kinds: of modules.

    Raises:
        InputError: a pattern that fits no such module.
    """
    names = [name for name, module in network.named_modules() if isinstance(module, kinds)]
    wanted = [p for p in patterns if not p.startswith("!")] or ["*"]
    unwanted = [p[1:] for p in patterns if p.startswith("!")]
    for pattern in (*wanted, *unwanted):
        if pattern != "*" and not fnmatch.filter(names, pattern):
            some = ", ".join(names[:6]) + (" …" if len(names) > 6 else "")
            raise InputError(
                f"no layer of that kind is named like {pattern!r}; there are {some or 'none'}"
            )
    return [
        name
        for name in names
        if any(fnmatch.fnmatchcase(name, p) for p in wanted)
        and not any(fnmatch.fnmatchcase(name, p) for p in unwanted)
    ]


def replaced(network: nn.Module, changes: tuple[Change, ...]) -> nn.Module:
    """The network with each changed module in the old one's place, wherever it is used.

    Args:
        network: changed in place.
        changes: by the modules' first names.

    Returns:
        The network, or what it has become itself.
    """
    made = {}
    for change in changes:
        old = network.get_submodule(change.name)
        made[id(old)] = change.make(old)
    if id(network) in made:
        return made[id(network)]
    for module in list(network.modules()):
        for key, child in list(module._modules.items()):
            if id(child) in made:
                module._modules[key] = made[id(child)]
    return network
