"""WSMS- and MS-Nets over the papers' backbones."""

from __future__ import annotations

from typing import Any

import timm
from torch import nn

from nearfar.models.cnn_small import SmallCNN
from nearfar.models.densenet_cifar import GROWTHS, CifarDenseNet
from nearfar.models.registry import register, register_all
from nearfar.models.resnet_cifar import CifarResNet
from nearfar.models.wsms import Integration, WSMSNet

__all__: list[str] = []

_CIFAR: dict[str, Any] = {"input_size": (3, 32, 32), "first_conv": "towers.0.0.conv"}
_DENSE: dict[str, Any] = {"input_size": (3, 32, 32), "first_conv": "towers.0.0"}
_IMAGENET: dict[str, Any] = {
    "input_size": (3, 224, 224),
    "num_classes": 1000,
    "first_conv": "towers.0.net.conv1",
}


@register((3, 28, 28), first_conv="towers.0.1.0")
def wsms_cnn_small(
    stages: int = 2,
    integration: Integration = "none",
    num_classes: int = 10,
    **kwargs: Any,
) -> WSMSNet:
    """The small CNN at scales 1 and 1/2 in parallel."""
    return WSMSNet(SmallCNN(num_classes=0, **kwargs), stages, num_classes, integration)


@register_all("wsms_resnet{}_cifar", (20, 32, 44, 56, 110), **_CIFAR)
def _resnet(depth: int, num_classes: int = 10, in_chans: int = 3, **kwargs: Any) -> WSMSNet:
    """WSMS-ResNet over CIFAR's ResNet-{}: three stages, ``integration=`` none, conv3x3, conv1x1.

    Source: R. Takahashi et al., §4.2, Fig. 6, Table 2.
    """
    backbone = CifarResNet(depth, num_classes=0, in_chans=in_chans)
    return WSMSNet(backbone, num_classes=num_classes, **kwargs)


@register_all("ms_resnet{}_cifar", (20, 32, 44, 56, 110), **_CIFAR)
def _ms_resnet(depth: int, **kwargs: Any) -> WSMSNet:
    """MS-ResNet over CIFAR's ResNet-{}: as the WSMS-ResNet, weights of its own in each stage.

    Source: R. Takahashi et al., §3.2, Table 2.
    """
    return _resnet(depth, share_weights=False, **kwargs)


@register_all("wsms_densenet100_k{}_cifar", GROWTHS, **_DENSE)
def _densenet(growth: int, num_classes: int = 10, in_chans: int = 3, **kwargs: Any) -> WSMSNet:
    """WSMS-DenseNet over CIFAR's DenseNet-100, growth rate {}.

    Source: R. Takahashi et al., §4.1, Fig. 4, Table 1.
    """
    backbone = CifarDenseNet(100, growth, num_classes=0, in_chans=in_chans)
    return WSMSNet(backbone, num_classes=num_classes, **kwargs)


@register_all("ms_densenet100_k{}_cifar", GROWTHS, **_DENSE)
def _ms_densenet(growth: int, **kwargs: Any) -> WSMSNet:
    """MS-DenseNet over CIFAR's DenseNet-100, growth rate {}: weights of its own in each stage.

    Source: R. Takahashi et al., §3.2, Table 1.
    """
    return _densenet(growth, share_weights=False, **kwargs)


@register_all("wsms_resnet{}", (50, 101, 152), **_IMAGENET)
def _imagenet(
    depth: int, num_classes: int = 1000, in_chans: int = 3, channels: int = 2048, **kwargs: Any
) -> WSMSNet:
    """WSMS-ResNet over ResNet-{}, three stages, for ImageNet.

    timm's ResNet; where the original's 3×3 convolution has stride 2, it has stride 1 and 2×2 average
    pooling follows (after norm and activation, which the paper does not place), and the shortcut
    averages before its 1×1 convolution, which commutes. The stem's max pooling is the original's.

    Source: R. Takahashi et al., §4.3, Fig. 7–8, Table 3.
    """
    backbone = timm.create_model(
        f"resnet{depth}",
        in_chans=in_chans,
        aa_layer=nn.AvgPool2d,
        avg_down=True,
        zero_init_last=False,
    )
    # At odd sizes timm's shortcuts keep the last row and its pooling drops it.
    for module in backbone.modules():
        if isinstance(module, nn.AvgPool2d):
            module.ceil_mode, module.count_include_pad = True, False
    # timm pools the stem's maps with the same layer; the paper changes the residual blocks alone.
    backbone.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
    return WSMSNet(backbone, num_classes=num_classes, channels=channels, **kwargs)


@register((3, 224, 224), 1000, first_conv="")
def wsms_over(
    backbone: str = "resnet18", num_classes: int = 1000, in_chans: int = 3, **kwargs: Any
) -> WSMSNet:
    """WSMS-Net over any staged network of timm's, by name: ``backbone="convnext_atto"``, …"""
    net = timm.create_model(backbone, in_chans=in_chans)
    return WSMSNet(net, num_classes=num_classes, **kwargs)
