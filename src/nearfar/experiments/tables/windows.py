"""A trained net measured through other windows than those it learned with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from nearfar.training import Checkpoint, with_options

__all__ = ["at_scales"]


@contextmanager
def at_scales(trained: Checkpoint, scales: Sequence[float] | None) -> Iterator[Path]:
    """The checkpoint's file; with ``scales``, a passing copy whose net looks at these.

    Args:
        trained: of a net that takes the option ``scales``.
        scales: more or others than in training; ``None`` for those of training.
    """
    if scales is None:
        yield trained.path
        return
    with TemporaryDirectory() as folder:
        wider = Path(folder) / "weights.safetensors"
        yield with_options(trained.path, {"scales": list(scales)}, wider).path
