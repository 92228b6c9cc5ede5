"""When a fast path may stand in for the definition that the algebra gives."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

__all__ = ["is_finite", "is_ordinary", "is_reference_only", "reference_only"]

_reference_only: ContextVar[bool] = ContextVar("reference_only", default=False)


@contextmanager
def reference_only() -> Iterator[None]:
    """Within this context the operators are computed as the algebra defines them.

    For comparison and for finding faults; results agree to rounding.
    """
    token = _reference_only.set(True)
    try:
        yield
    finally:
        _reference_only.reset(token)


def is_reference_only() -> bool:
    """Whether we are within :func:`reference_only`."""
    return _reference_only.get()


def is_ordinary(*tensors: Tensor | None) -> bool:
    """Whether all are ordinary tensors, which fast paths are written for.

    Not so while a network is traced (``torch.compile``, ``torch.export``, ``torch.jit.trace``), within
    function transforms (``torch.func``) and forward mode, and for meta, fake and distributed tensors.
    """
    if torch.compiler.is_compiling() or torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
        return False
    inside_dual_level: bool = forward_ad._current_level >= 0
    return not inside_dual_level and all(
        type(t) in (Tensor, nn.Parameter)
        and t.device.type != "meta"
        and not torch._C._functorch.is_functorch_wrapped_tensor(t)
        for t in tensors
        if t is not None
    )


def is_finite(*tensors: Tensor | None) -> bool:
    """Whether the sum over each tensor's elements is finite. True on other devices than CPUs, unchecked.

    Fast paths multiply by matrices that are mostly zeros, and ``0 · NaN`` is NaN: one NaN or infinity
    would spread over whole rows and columns. It always shows in the sum. On a GPU, reading the sum would
    stop the queue at every layer.
    """
    return all(
        math.isfinite(t.sum(dtype=torch.float32 if t.dtype.itemsize < 4 else t.dtype).item())
        for t in tensors
        if t is not None and t.device.type == "cpu"
    )
