"""A layer in another's place: the same tensors, hooks and mode."""

from __future__ import annotations

from typing import TypeVar

from torch import nn

__all__ = ["like"]

_Layer = TypeVar("_Layer", bound=nn.Module)

_OWN = {
    "_parameters",
    "_buffers",
    "_non_persistent_buffers_set",
    "training",
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_is_full_backward_hook",
    "_state_dict_hooks",
    "_state_dict_pre_hooks",
    "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
}


def like(old: nn.Module, new: _Layer) -> _Layer:
    """Makes ``new`` hold ``old``'s tensors themselves (not copies), its hooks and its mode.

    Args:
        old: the layer replaced.
        new: built on the ``meta`` device with tensors of the same names and shapes.
    """
    for name in _OWN & vars(old).keys():
        object.__setattr__(new, name, vars(old)[name])
    return new
