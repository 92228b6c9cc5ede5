"""The switch between what is fast and what is defined."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["is_reference_only", "reference_only"]

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
