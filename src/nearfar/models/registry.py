"""Models by name, in timm's registry: our ``"x"`` is timm's ``"nearfar_x"``."""

from __future__ import annotations

import difflib
import inspect
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import timm
from timm.models import register_model
from torch import nn

from nearfar.errors import InputError

__all__ = ["PREFIX", "create_model", "list_models", "register"]

#: What every name of ours begins with in timm's registry.
PREFIX = "nearfar_"

_Net = TypeVar("_Net", bound=nn.Module)


def register(build: Callable[..., _Net]) -> Callable[..., _Net]:
    """Enters a function that builds a network into timm's registry, under its prefixed name.

    timm hands every builder its own arguments for pretrained weights; they end here.
    """

    def entry(
        pretrained: bool = False,
        pretrained_cfg: Any = None,
        pretrained_cfg_overlay: Any = None,
        cache_dir: Any = None,
        **options: Any,
    ) -> _Net:
        if pretrained:
            raise InputError(
                f"{build.__name__} has no pretrained weights; leave pretrained out and train it, or "
                f"load your own with nearfar.load_checkpoint"
            )
        return build(**options)

    entry.__name__ = entry.__qualname__ = PREFIX + build.__name__
    entry.__module__ = build.__module__
    entry.__doc__ = inspect.getdoc(build)
    # timm appends the name to the module's __all__, so it has to be there.
    setattr(sys.modules[build.__module__], entry.__name__, entry)
    register_model(entry)
    return build


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
    except InputError:
        raise
    except Exception as cause:
        if not options:
            raise
        raise InputError(
            f"model {name!r} does not take these options: {cause}; got {options}"
        ) from cause
    return model
