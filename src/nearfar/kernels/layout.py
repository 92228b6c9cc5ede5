"""In which layout an operator answers."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["is_channels_last"]


def is_channels_last(x: Tensor, weight: Tensor) -> bool:
    """Whether an answer is to be channels-last: where either argument is, as with torch's convolution.

    A network whose weights were brought to channels-last then stays in that layout from its first
    layer on, whatever the layout of the images.
    """
    layout = torch.channels_last
    # Plainly contiguous is told apart first, since maps of one channel are both.
    return any(not t.is_contiguous() and t.is_contiguous(memory_format=layout) for t in (x, weight))
