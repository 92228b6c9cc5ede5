"""Conversion methods that change layers one by one."""

from __future__ import annotations

import fnmatch
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from nearfar.conversion.method import Change, ConversionMethod, Left, Plan
from nearfar.errors import InputError

__all__ = ["PATCHES", "LayerMethod", "select_layers"]

#: Why convolutions that do not overlap stay, whatever the method.
PATCHES = "it cuts the image into patches that do not overlap; name it in layers if it is meant"


@dataclass(frozen=True)
class LayerMethod(ConversionMethod):
    """A conversion method that replaces some layers, each by itself.

    A derived class says which kinds of layer it is for (``kinds``) and makes the new layer
    (:meth:`replacement`, best with :func:`nearfar.conversion.take_over`); the rest may be left as it is.

    Args:
        layers: which layers, by patterns of their names (``layer3.*``); one that begins with ``!`` leaves
            out. Default: all that it makes sense for.
    """

    kinds: ClassVar[tuple[type[nn.Module], ...]] = (nn.Conv2d,)
    layers: tuple[str, ...] = ("*",)

    def __post_init__(self) -> None:
        if isinstance(self.layers, str):
            raise InputError(
                f"layers is a sequence of patterns, got {self.layers!r}; put it in a tuple"
            )
        object.__setattr__(self, "layers", tuple(self.layers))

    @abstractmethod
    def replacement(self, layer: nn.Module) -> nn.Module:
        """The new layer, which takes over the old one's tensors."""

    @abstractmethod
    def becomes(self, layer: nn.Module) -> str:
        """What a layer becomes, in short."""

    def is_meant(self, layer: nn.Module) -> bool:
        """Whether the method has anything to do with a layer; others are not mentioned in the plan."""
        return True

    def refusal(self, layer: nn.Module) -> str:
        """Why a layer that is meant stays what it is; empty where it is replaced."""
        return ""

    def describe(self, layer: nn.Module) -> str:
        """What a layer is, in short."""
        return type(layer).__name__

    @property
    def names_layers(self) -> bool:
        """Whether layers were named, rather than all meant that it makes sense for."""
        return any(p != "*" and not p.startswith("!") for p in self.layers)

    @property
    def moves_logits(self) -> bool:
        """Yes: a new layer computes otherwise."""
        return True

    def plan(self, network: nn.Module, side: int | None = None) -> Plan:
        """Every selected layer that the method can replace.

        Raises:
            InputError: a pattern that fits no layer of these kinds.
        """
        changes, left = [], []
        for name in select_layers(network, self.layers, self.kinds):
            layer = network.get_submodule(name)
            if not self.is_meant(layer):
                continue
            why = self.refusal(layer) or self._loses(layer)
            if why:
                left.append(Left(name, self.describe(layer), why))
            else:
                after = self.becomes(layer)
                changes.append(Change(name, self.describe(layer), after, self.replacement))
        return Plan(self, tuple(changes), tuple(left))

    def _loses(self, layer: nn.Module) -> str:
        """What a layer has that a new one would lose; empty for nothing."""
        if type(layer) not in self.kinds:
            return f"{type(layer).__name__} computes in its own way, which would be lost"
        if "forward" in vars(layer):
            return "its forward was replaced on this one layer, which would be lost"
        if isinstance(layer, nn.Conv2d) and "weight" not in dict(layer.named_parameters()):
            return "its weight is computed from other tensors; remove the weight norm or the pruning first"
        return ""


def select_layers(
    network: nn.Module, patterns: tuple[str, ...], kinds: tuple[type, ...]
) -> list[str]:
    """Names of the modules of some kinds that patterns select; shared modules under their first name.

    Args:
        network: whose modules.
        patterns: of names, ``*`` standing for anything; with ``!`` in front, what is not meant.
        kinds: of modules.

    Raises:
        InputError: a pattern that fits no such module.
    """
    names = [name for name, module in network.named_modules() if isinstance(module, kinds)]
    included = [p for p in patterns if not p.startswith("!")] or ["*"]
    excluded = [p[1:] for p in patterns if p.startswith("!")]
    for pattern in (*included, *excluded):
        if pattern != "*" and not fnmatch.filter(names, pattern):
            some = ", ".join(names[:6]) + (" …" if len(names) > 6 else "")
            raise InputError(
                f"no layer of that kind is named like {pattern!r}; there are {some or 'none'}"
            )
    return [
        name
        for name in names
        if any(fnmatch.fnmatchcase(name, p) for p in included)
        and not any(fnmatch.fnmatchcase(name, p) for p in excluded)
    ]
