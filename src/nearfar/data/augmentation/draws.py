"""Random numbers that belong to an image and an epoch."""

from __future__ import annotations

import numpy as np
import torch

__all__ = ["generator_of"]


def generator_of(seed: int, epoch: int, *kind: int) -> torch.Generator:
    """A generator for one epoch's numbers, all images' at once.

    What is drawn from it belongs to image and epoch, not to the batch: the same image gets the same
    numbers whatever the batch size, the order and the number of workers, also in a run that is taken
    up again.

    Args:
        seed: the run's.
        epoch: from 0.
        kind: tells apart what is drawn for different ends; none for crops and flips.
    """
    # Mixed, not added: epoch 1 of seed 0 has nothing to do with epoch 0 of seed 1.
    state = np.random.SeedSequence((seed, epoch, *kind)).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0]))
