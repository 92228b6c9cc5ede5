"""A mean over the images of an epoch, over all processes."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric

__all__ = ["ImageMean"]


class ImageMean(Metric):
    """Sum of a figure over number of images; both are summed over processes before dividing.

    torchmetrics' own ``MeanMetric`` either drops losses that are not numbers or ignores the weights.
    """

    total: Tensor
    images: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("images", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, mean: Tensor, images: int) -> None:
        """Adds a batch: its mean over so many images."""
        self.total = self.total + mean.detach().to(self.total) * images
        self.images = self.images + images

    def compute(self) -> Tensor:
        """The mean over all images."""
        return self.total / self.images
