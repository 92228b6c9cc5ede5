"""A network that is asked about ten crops of an image."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from nearfar.data.augmentation.crops import ten_crop

__all__ = ["TenCropped"]


class TenCropped(nn.Module):
    """The mean of a network's answers to :func:`ten_crop` of every image.

    Images come larger than the network's own by a margin, such as
    ``ScaleDataModule.images("test", 1.0, margin=16)`` gives them.

    Args:
        network: ``[B, C, size, size]`` → ``[B, K]`` logits.
        size: side of the crops, in pixels.

    Source: A. Krizhevsky et al. 2012, section 4.1, who averaged the softmax's values.
    """

    def __init__(self, network: nn.Module, size: int) -> None:
        super().__init__()
        self.network = network
        self.size = size

    def forward(self, images: Tensor) -> Tensor:
        """``[B, C, H, W]`` → ``[B, K]``: logarithms of the mean probabilities.

        Raises:
            InputError: images smaller than the crops.
        """
        crops = ten_crop(images, self.size)
        logits: Tensor = self.network(crops.flatten(0, 1))
        answers = logits.log_softmax(dim=1).view(*crops.shape[:2], logits.shape[1])
        return torch.logsumexp(answers, dim=1) - math.log(10)

    def extra_repr(self) -> str:
        """The size."""
        return f"size={self.size}"
