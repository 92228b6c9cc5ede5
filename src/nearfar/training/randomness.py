"""Random numbers without a history, so that a run can be taken up anywhere."""

from __future__ import annotations

import random

import numpy as np
import torch

__all__ = ["seed_step"]


def seed_step(seed: int, epoch: int, batch: int, process: int) -> None:
    """Seeds every generator for one training step.

    What is drawn for a whole batch, with numpy's and Python's generators, is the same in all processes;
    what is drawn for each image and unit, with torch's, is not.

    Args:
        seed: the run's.
        epoch: from 0.
        batch: within the epoch, from 0.
        process: from 0.
    """
    # Mixed, not added: neighbouring steps, epochs and seeds have nothing to do with each other.
    of_batch, of_python = _mixed(seed, epoch, batch, 0)
    np.random.seed(of_batch % 2**32)  # noqa: NPY002 (for what uses the global generator)
    random.seed(of_python)
    torch.manual_seed(_mixed(seed, epoch, batch, process + 1)[0])


def _mixed(seed: int, *key: int) -> tuple[int, int]:
    # A key of its own sets these apart from what augmentation draws of the same seed and epoch.
    one, two = np.random.SeedSequence(seed, spawn_key=(1, *key)).generate_state(2, np.uint64)
    return int(one), int(two)
