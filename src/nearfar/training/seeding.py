"""Random numbers without a history, so that an interrupted run can resume anywhere."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from lightning.pytorch.utilities.seed import isolate_rng

from nearfar.errors import InputError

__all__ = ["check_seed", "reproducible", "seed_step"]


def check_seed(seed: int) -> None:
    """Refuses what the random generators refuse.

    Raises:
        InputError: ``seed`` is not from 0 to 2³² − 1.
    """
    if not 0 <= seed < 2**32:
        raise InputError(f"seed must be from 0 to {2**32 - 1}, got {seed}")


@contextmanager
def reproducible(seed: int, warn_only: bool) -> Iterator[None]:
    """Seeds every generator and asks for deterministic algorithms; restores both afterwards.

    Args:
        seed: of the whole run.
        warn_only: warn about operations without a deterministic form (some exist on GPUs) instead of
            raising an error.
    """
    was_deterministic = torch.are_deterministic_algorithms_enabled()
    with isolate_rng():
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002 (for what uses the global generator)
        random.seed(seed)
        torch.use_deterministic_algorithms(True, warn_only=warn_only)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(was_deterministic)


def seed_step(seed: int, epoch: int, batch: int, process: int) -> None:
    """Seeds every generator for one training step.

    What is drawn for a whole batch, with numpy's and Python's generators, is the same in all processes;
    what is drawn for each image and unit, with torch's, is not.

    Args:
        seed: of the run.
        epoch: from 0.
        batch: within the epoch, from 0.
        process: from 0.
    """
    numpy_seed, python_seed = _mix(seed, epoch, batch, 0)
    np.random.seed(numpy_seed % 2**32)  # noqa: NPY002 (for what uses the global generator)
    random.seed(python_seed)
    torch.manual_seed(_mix(seed, epoch, batch, process + 1)[0])


def _mix(seed: int, *key: int) -> tuple[int, int]:
    """Two integers that are unrelated for neighbouring steps, epochs and seeds."""
    # The leading 1 sets these apart from what augmentation draws of the same seed and epoch.
    first, second = np.random.SeedSequence(seed, spawn_key=(1, *key)).generate_state(2, np.uint64)
    return int(first), int(second)
