"""CIFAR's densely connected networks, without bottleneck or compression."""

from __future__ import annotations

from typing import Any

import torch
from timm.layers import ClassifierHead  # type: ignore[attr-defined]
from torch import Tensor, nn
from torch.nn import functional as F

from nearfar.errors import InputError
from nearfar.models.initialisation import reset_he
from nearfar.models.registry import register_all
from nearfar.models.staged import StagedNet

__all__ = ["GROWTHS", "CifarDenseNet"]

#: The growth rates of the papers' tables.
GROWTHS = (24, 26)


class CifarDenseNet(StagedNet):
    """DenseNet for 32×32 images: three blocks in which each layer reads all layers before it.

    Args:
        depth: number of weighted layers, 3n + 4: a stem, three blocks of n, two transitions, a
            classifier.
        growth: k, the channels that each layer adds.
        num_classes: classes; 0 leaves the classifier out.
        in_chans: channels of the image.
        drop_rate: dropout after each convolution (0.2 in the original where images are not
            augmented).

    Shape:
        ``[B, in_chans, H, W]`` → ``[B, num_classes]``, H and W from 4; features are at 1/4 of both.

    Raises:
        InputError: a depth that is not 3n + 4.

    Source: G. Huang et al. 2016, "Densely Connected Convolutional Networks"; R. Takahashi et al.,
    §4.1: 16 channels, then k more with each of 32 layers in each of three blocks.
    """

    def __init__(
        self,
        depth: int = 100,
        growth: int = 24,
        num_classes: int = 10,
        in_chans: int = 3,
        drop_rate: float = 0.0,
    ) -> None:
        if depth < 7 or (depth - 4) % 3:
            raise InputError(f"depth must be 3n + 4 with n >= 1 (7, 10, …, 100), got {depth}")
        layers = (depth - 4) // 3
        stages, channels = [], []
        width = 16
        for i in range(3):
            stage = nn.Sequential()
            if i > 0:
                stage.append(_Transition(width))
            for _ in range(layers):
                stage.append(_DenseLayer(width, growth, drop_rate))
                width += growth
            stages.append(stage)
            channels.append(width)
        stem = nn.Conv2d(in_chans, 16, 3, padding=1, bias=False)
        head = ClassifierHead(width, num_classes)
        super().__init__(stem, stages, head, num_classes, channels, final=self.finish(width))
        reset_he(self)

    def finish(self, channels: int) -> nn.Module:
        """Layers here begin with a norm; what leaves the last one still needs its own."""
        return nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(inplace=True))


class _DenseLayer(nn.Module):
    """``[x, conv(relu(norm(x)))]``."""

    def __init__(self, before: int, growth: int, drop_rate: float) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(before)
        self.conv = nn.Conv2d(before, growth, 3, padding=1, bias=False)
        self.drop = nn.Dropout(drop_rate) if drop_rate else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        new = self.drop(self.conv(F.relu(self.norm(x), inplace=True)))
        return torch.cat([x, new], dim=1)


class _Transition(nn.Module):
    """Mixes the channels and halves the map."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.conv = nn.Conv2d(channels, channels, 1, bias=False)
        self.pool = nn.AvgPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.pool(self.conv(F.relu(self.norm(x), inplace=True)))
        return y


@register_all("densenet100_k{}_cifar", GROWTHS, input_size=(3, 32, 32), first_conv="stem")
def _densenet100(growth: int, **kwargs: Any) -> CifarDenseNet:
    """CIFAR's DenseNet-100 with growth rate {}."""
    return CifarDenseNet(100, growth, **kwargs)
