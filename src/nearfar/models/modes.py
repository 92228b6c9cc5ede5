"""A network in eval mode for a while, every module's own mode restored afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

__all__ = ["evaluating"]


@contextmanager
def evaluating(module: nn.Module | None) -> Iterator[None]:
    """Eval mode for the time of the block; modules that were in training mode, and only they, return to it.

    The modes are set one by one: exported programs refuse ``eval()``, and a network may have some parts in
    training mode and others not.

    Args:
        module: the network; ``None`` is left alone.
    """
    training = [] if module is None else [part for part in module.modules() if part.training]
    for part in training:
        part.training = False
    try:
        yield
    finally:
        for part in training:
            part.training = True
