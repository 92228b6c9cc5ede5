"""A four-layer convolutional net for CIFAR-10 whose neurons are ReLUs or tanh."""

from __future__ import annotations

import math
from typing import Any, Literal

from torch import nn

from nearfar.errors import InputError
from nearfar.models.heads import DenseHead
from nearfar.models.registry import register
from nearfar.models.staged import StagedNet

__all__ = ["FourLayerNet", "cnn4_cifar"]

_WIDTHS = (32, 32)


class FourLayerNet(StagedNet):
    """Two 5×5 convolutions of 32 filters, 2×2 max pooling after each, a dense layer of 128, a classifier.

    Weights are drawn so that what enters a layer keeps its variance: N(0, 2 / fan-in) for ReLUs,
    N(0, 1 / fan-in) for tanh; biases are zero. Nothing regularises it.

    Args:
        num_classes: classes; 0 leaves the classifier out.
        in_chans: channels of the image.
        act: ``relu`` or ``tanh``.

    Shape:
        ``[B, in_chans, H, W]`` → ``[B, num_classes]``, H and W from 32.

    Raises:
        InputError: another ``act``.

    Limits:
        The source does not print widths; these are ours.

    Source: A. Krizhevsky et al. 2012, Fig. 1, as A. Akbari shows it in Fig. 2.
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_chans: int = 3,
        act: Literal["relu", "tanh"] = "relu",
    ) -> None:
        kinds: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh}
        if act not in kinds:
            raise InputError(f"act must be 'relu' or 'tanh', got {act!r}")
        stages, before = [], in_chans
        for width in _WIDTHS:
            conv = nn.Conv2d(before, width, 5, padding=2)
            stages.append(nn.Sequential(conv, kinds[act](), nn.MaxPool2d(2)))
            before = width
        head = DenseHead(before, (8, 8), (128,), num_classes, kinds[act])
        super().__init__(nn.Identity(), stages, head, num_classes, _WIDTHS, (2, 4))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_in = module.weight[0].numel()
                nn.init.normal_(module.weight, std=math.sqrt((2 if act == "relu" else 1) / fan_in))
                assert module.bias is not None
                nn.init.zeros_(module.bias)


@register((3, 32, 32), first_conv="stages.0.0")
def cnn4_cifar(**kwargs: Any) -> FourLayerNet:
    """ReLUs, or with ``act="tanh"`` tanh."""
    return FourLayerNet(**kwargs)
