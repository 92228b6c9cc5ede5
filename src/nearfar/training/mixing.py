"""Losses of mixed images and softened labels."""

from __future__ import annotations

import torch
from timm.data.mixup import Mixup
from torch import Tensor
from torch.nn import functional as F

from nearfar.training.fit_spec import FitSpec

__all__ = ["Mixing"]


class Mixing:
    """What mixup, cutmix and label smoothing make of a training batch.

    The shares and rectangles come from numpy's global generator, as timm draws them.

    Args:
        fit: ``mixup``, ``cutmix`` and ``label_smoothing``.
        num_classes: K.
    """

    def __init__(self, fit: FitSpec, num_classes: int) -> None:
        self.smoothing = fit.label_smoothing
        self.classes = num_classes
        self.mixup = (
            Mixup(  # type: ignore[no-untyped-call]
                fit.mixup, fit.cutmix, label_smoothing=self.smoothing, num_classes=num_classes
            )
            if fit.mixup or fit.cutmix
            else None
        )

    def mix(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Images and labels as they are trained on: labels ``[B]``, or shares ``[B, K]`` if mixed."""
        if self.mixup is None:
            return images, labels
        if len(labels) % 2 == 0:
            mixed: tuple[Tensor, Tensor] = self.mixup(images, labels)
            return mixed
        # timm's takes even batches only. The one in the middle would meet itself: it stays as it is.
        middle = len(labels) // 2
        alone = F.one_hot(labels[middle], self.classes) * (1 - self.smoothing)
        shares = (alone + self.smoothing / self.classes)[None]
        if len(labels) == 1:
            return images, shares
        rest = [i for i in range(len(labels)) if i != middle]
        others, answers = self.mixup(images[rest], labels[rest])
        order = [*range(middle), len(rest), *range(middle, len(rest))]
        return torch.cat([others, images[middle][None]])[order], torch.cat([answers, shares])[order]

    def loss(self, logits: Tensor, answers: Tensor) -> Tensor:
        """Mean cross-entropy against what :meth:`mix` gave."""
        # Shares are softened already.
        smoothing = self.smoothing if self.mixup is None else 0.0
        return F.cross_entropy(logits, answers, label_smoothing=smoothing)
