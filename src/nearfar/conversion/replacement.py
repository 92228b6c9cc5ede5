"""Modules copied and replaced, with their tensors, hooks and modes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from types import FunctionType
from typing import TypeVar

from torch import Tensor, nn

from nearfar.errors import InputError, first_line

__all__ = ["copy_network", "replace_modules", "take_over"]

_Layer = TypeVar("_Layer", bound=nn.Module)
#: What weight norm, spectral norm and pruning call the tensors from which they compute a weight.
_SOURCES = ("_orig", "_g")


def copy_network(network: nn.Module) -> nn.Module:
    """A deep copy that shares nothing with the original.

    Weights that a hook computes anew in each pass (the older weight norm, spectral norm, pruning) are copied
    as values, which torch's own deep copy refuses.

    Args:
        network: not changed.

    Raises:
        InputError: tensors that hang on a graph in any other way, a ``forward`` that was replaced by a plain
            function (the copy's would still call the original's layers), or anything else that cannot be
            copied.
    """
    memo: dict[int, object] = {}
    for path, module in network.named_modules():
        label = path or type(network).__name__
        for name, value in vars(module).items():
            if not isinstance(value, Tensor) or value.is_leaf:
                continue
            if any(hasattr(module, name + ending) for ending in _SOURCES):
                memo[id(value)] = value.detach().clone()
                continue
            raise InputError(
                f"the network cannot be copied: {label}.{name} is a tensor that was computed from others and "
                f"hangs on their graph; detach it, or register it as a buffer"
            )
        if isinstance(vars(module).get("forward"), FunctionType):
            raise InputError(
                f"the network cannot be copied: the forward of {label} was replaced by a function, which "
                f"would go on calling the original's layers; make it a method of the class, or bind it with "
                f"types.MethodType"
            )
    try:
        return copy.deepcopy(network, memo)
    except Exception as cause:  # whatever a module of any make raises while it is copied
        reason = first_line(cause)
        raise InputError(
            f"the network cannot be copied: {reason}; detach tensors that were computed from others, and "
            f"leave out what belongs to this process alone"
        ) from cause


def replace_modules(
    network: nn.Module, makers: Mapping[str, Callable[[nn.Module], nn.Module]]
) -> nn.Module:
    """Replaces modules wherever they are registered; a shared module stays shared.

    Args:
        network: changed in place.
        makers: by the module's first name (empty for the network itself), what makes the new module from it.

    Returns:
        The network, or what it has become itself.
    """
    new = {}
    for name, make in makers.items():
        old = network.get_submodule(name)
        new[old] = make(old)
    if network in new:
        return new[network]
    for path, module in list(network.named_modules(remove_duplicate=False)):
        if module in new:
            parent, _, child = path.rpartition(".")
            setattr(network.get_submodule(parent), child, new[module])
    return network


def take_over(old: nn.Module, new: _Layer) -> _Layer:
    """Makes ``new`` hold all that ``old`` has: the tensors themselves (not copies), hooks, mode, attributes.

    What only ``new`` has, such as its scales, stays.

    Args:
        old: the layer replaced.
        new: of a class derived from ``old``'s, built with the same arguments, best on the ``meta`` device.

    Raises:
        InputError: a new layer with tensors or modules of its own, which would be lost.
    """
    lost = {name for name in _contents(new) if name not in _contents(old)}
    if lost or not isinstance(new, type(old)):
        raise InputError(
            f"{type(new).__name__} cannot take over from {type(old).__name__}: it must be derived from it "
            f"and hold no other tensors, got {', '.join(sorted(lost)) or 'another class'}"
        )
    vars(new).update(vars(old))
    return new


def _contents(module: nn.Module) -> set[str]:
    tensors = (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))
    return {name for name, _ in (*tensors, *module.named_children())}
