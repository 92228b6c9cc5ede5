"""Errors of a trained net on one of its own splits."""

from __future__ import annotations

import torch

from nearfar.data import ScaleDataModule
from nearfar.training import Checkpoint

__all__ = ["split_error"]


def split_error(trained: Checkpoint, data: ScaleDataModule, split: str) -> float:
    """Errors in per cent on a split's images at the scales of training, not augmented.

    Args:
        trained: the net.
        data: its data.
        split: ``train`` or ``validation``.
    """
    labels = data.labels(split)
    wrong, first = 0, 0
    with torch.inference_mode():
        for images in data.in_order(split):
            predictions = trained.model(
                images.contiguous(memory_format=torch.channels_last)
            ).argmax(1)
            wrong += int((predictions != labels[first : first + len(images)]).sum())
            first += len(images)
    return 100 * wrong / len(labels)
