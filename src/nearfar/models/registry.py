"""Models by name. The registry is timm's: ``nearfar.create_model("x")`` is ``timm.create_model("nearfar_x")``."""

from __future__ import annotations

import difflib
from typing import Any

import timm
from torch import nn

from nearfar.errors import InputError

__all__ = ["PREFIX", "create_model", "list_models"]

#: What every name of ours begins with in timm's registry.
PREFIX = "nearfar_"


def list_models(pattern: str = "*") -> list[str]:
    """Names of nearfar's own models that match a wildcard pattern, such as ``"si_*"``."""
    return [name.removeprefix(PREFIX) for name in timm.list_models(PREFIX + pattern)]


def create_model(
    name: str, *, num_classes: int = 10, in_chans: int = 3, **options: Any
) -> nn.Module:
    """A model by name: one of ours, or any of timm's.

    Args:
        name: a name from :func:`list_models`, or one from ``timm.list_models()``.
        num_classes: number of classes, at least 1.
        in_chans: channels of the input image.
        options: the model's own options, such as ``scales`` of a scale-invariant one.

    Raises:
        InputError: unknown name, unknown option, or an option the model refuses.
    """
    if num_classes < 1 or in_chans < 1:
        raise InputError(
            f"num_classes and in_chans must be at least 1, got {num_classes} and {in_chans}"
        )
    ours = PREFIX + name.removeprefix(PREFIX)
    known = ours if timm.is_model(ours) else name
    if not timm.is_model(known):
        close = difflib.get_close_matches(name, list_models(), n=3, cutoff=0.4)
        hint = f"; did you mean {' or '.join(close)}?" if close else ""
        raise InputError(
            f"no model is named {name!r}{hint}; nearfar.list_models() and timm.list_models() list "
            f"all names"
        )
    try:
        model: nn.Module = timm.create_model(
            known, num_classes=num_classes, in_chans=in_chans, **options
        )
    except TypeError as cause:
        if "unexpected keyword argument" not in str(cause):
            raise
        raise InputError(f"model {name!r} does not take an option given: {cause}") from cause
    return model
