"""ZFNet: AlexNet with a finer first layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from nearfar.models.heads import DenseHead
from nearfar.models.initialisation import reset_gaussian
from nearfar.models.registry import register
from nearfar.models.staged import StagedNet

__all__ = ["ZFNet", "zfnet", "zfnet_wide"]


class ZFNet(StagedNet):
    """AlexNet on one device, its first convolution 7×7 of stride 2 in place of 11×11 of stride 4.

    Args:
        num_classes: classes; 0 leaves the classifier out.
        in_chans: channels of the image.
        channels: channels of convolutions 3, 4 and 5.

    Shape:
        ``[B, in_chans, H, W]`` → ``[B, num_classes]``, H and W from 224.

    Limits:
        The original normalises contrast across maps in a way that is not printed; here as AlexNet does.

    Source: M. D. Zeiler, R. Fergus 2014, "Visualizing and Understanding Convolutional Networks", Fig. 3
    and Table 1 (as cited in the lecture "CNNs & Image Classification").
    """

    def __init__(
        self,
        num_classes: int = 1000,
        in_chans: int = 3,
        channels: Sequence[int] = (384, 384, 256),
    ) -> None:
        three, four, five = channels
        stages = [
            nn.Sequential(nn.Conv2d(in_chans, 96, 7, stride=2, padding=1), nn.ReLU()),
            nn.Sequential(_pool(1), _norm(), nn.Conv2d(96, 256, 5, stride=2), nn.ReLU()),
            nn.Sequential(
                _pool(1),
                _norm(),
                nn.Conv2d(256, three, 3, padding=1),
                nn.ReLU(),
                nn.Conv2d(three, four, 3, padding=1),
                nn.ReLU(),
                nn.Conv2d(four, five, 3, padding=1),
                nn.ReLU(),
            ),
            _pool(0),
        ]
        head = DenseHead(five, (6, 6), (4096, 4096), num_classes, drop_rate=0.5)
        widths = (96, 256, five, five)
        super().__init__(nn.Identity(), stages, head, num_classes, widths, (2, 8, 16, 32))
        reset_gaussian(self)


def _pool(padding: int) -> nn.Module:
    return nn.MaxPool2d(3, stride=2, padding=padding)


def _norm() -> nn.Module:
    return nn.LocalResponseNorm(5, alpha=5 * 1e-4, beta=0.75, k=2.0)


_IMAGENET: dict[str, Any] = {
    "input_size": (3, 224, 224),
    "num_classes": 1000,
    "first_conv": "stages.0.0",
}


@register(**_IMAGENET)
def zfnet(**kwargs: Any) -> ZFNet:
    """The 7×7, stride 2 variant: 16.5 % top-5 validation errors in the paper, AlexNet 18.1 %."""
    return ZFNet(**kwargs)


@register(**_IMAGENET)
def zfnet_wide(**kwargs: Any) -> ZFNet:
    """Layers 3, 4, 5 of 512, 1024, 512 maps: 16.0 % top-5 validation errors in the paper."""
    return ZFNet(channels=(512, 1024, 512), **kwargs)
