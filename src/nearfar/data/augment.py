"""Random crops and flips of a whole batch at once."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["crop_flip", "draw_crop_flip"]


def draw_crop_flip(count: int, pad: int, seed: int, epoch: int) -> tuple[Tensor, Tensor]:
    """One epoch's random numbers for :func:`crop_flip`.

    They belong to image and epoch, not to the batch: the same image gets the same shift whatever
    the batch size, the order and the number of workers, also in a run that is taken up again.

    Args:
        count: N, how many images there are.
        pad: the largest shift, in pixels.
        seed: the run's.
        epoch: from 0.

    Returns:
        Where the crop begins in the padded image, ``[N, 2]`` (row, column) from 0 to ``2 · pad``; and
        whether it is mirrored, ``[N]`` booleans.
    """
    # Mixed, not added: epoch 1 of seed 0 has nothing to do with epoch 0 of seed 1.
    state = np.random.SeedSequence((seed, epoch)).generate_state(1, np.uint64)
    draw = torch.Generator().manual_seed(int(state[0]))
    starts = torch.randint(2 * pad + 1, (count, 2), generator=draw)
    return starts, torch.rand(count, generator=draw) < 0.5


def crop_flip(images: Tensor, starts: Tensor, flips: Tensor, pad: int) -> Tensor:
    """Pads with zeros, cuts out a crop of the original size, and mirrors some left to right.

    Args:
        images: ``[B, C, H, W]``.
        starts: ``[B, 2]``, where each crop begins in the padded image.
        flips: ``[B]`` booleans.
        pad: in pixels, on all four sides.

    Returns:
        ``[B, C, H, W]``.
    """
    height, width = images.shape[-2:]
    padded = F.pad(images, (pad, pad, pad, pad))
    # All crops of all images, as a view; what is taken from it is copied in whole rows.
    crops = padded.unfold(2, height, 1).unfold(3, width, 1)
    taken = crops[torch.arange(len(images)), :, starts[:, 0], starts[:, 1]]
    return torch.where(flips[:, None, None, None], taken.flip(-1), taken)
