"""The small nets of the MNIST-Scale comparison: plain, scale-invariant, hierarchical."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor, nn

from nearfar import pyramid
from nearfar.layers import SIConv2d
from nearfar.models.heads import DenseHead
from nearfar.models.initialisation import reset_he
from nearfar.models.registry import register
from nearfar.models.staged import StagedNet
from nearfar.pyramid import collapse, expand
from nearfar.scale_sets import ScaleSet, as_scales

__all__ = [
    "MNISTScaleNet",
    "cnn_mnist_scale",
    "hierarchical_mnist_scale",
    "si_mnist_scale",
]


class MNISTScaleNet(StagedNet):
    """36 filters of 7×7, 64 of 5×5, 2×2 max pooling after each, a dense layer of 150, a classifier.

    Args:
        num_classes: classes; 0 leaves the classifier out.
        in_chans: channels of the image.
        conv: makes the two convolutions.
        scales: with scales, the convolutional part meets the image at each of them, with the same
            weights, and the dense layer reads all of them side by side; so it has as many times
            more weights.

    Shape:
        ``[B, in_chans, H, W]`` → ``[B, num_classes]``, H and W from 28.

    Limits:
        The paper prints neither padding nor pooling: here 'same', so that maps at every scale keep
        their place, and 2×2.

    Source: A. Akbari, §IV-A and Table III; the hierarchical net after C. Farabet et al. 2013, with
    "many more parameters than natural CNNs" (ibid.).
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_chans: int = 1,
        conv: Callable[..., nn.Module] = nn.Conv2d,
        scales: ScaleSet | None = None,
    ) -> None:
        first = nn.Sequential(conv(in_chans, 36, 7, padding=3), nn.ReLU(), nn.MaxPool2d(2))
        second = nn.Sequential(conv(36, 64, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2))
        stages: list[nn.Module] = [first, second]
        widths, reductions = [36, 64], [2, 4]
        if scales is not None:
            at_scales = _AtScales(nn.Sequential(first, second), scales)
            stages, reductions = [at_scales], [4]
            widths = [64 * len(at_scales.scales)]
        head = DenseHead(widths[-1], (7, 7), (150,), num_classes)
        super().__init__(nn.Identity(), stages, head, num_classes, widths, reductions)
        reset_he(self)


class _AtScales(nn.Module):
    """``collapse(concat) ∘ map(net) ∘ expand``."""

    def __init__(self, net: nn.Module, scales: ScaleSet) -> None:
        super().__init__()
        self.net = net
        self.scales = as_scales(scales)

    def forward(self, x: Tensor) -> Tensor:
        return collapse(pyramid.map(self.net, expand(x, self.scales)), "concat")

    def extra_repr(self) -> str:
        return f"scales={self.scales}"


@register((1, 28, 28), first_conv="stages.0.0")
def cnn_mnist_scale(**kwargs: Any) -> MNISTScaleNet:
    """The plain net."""
    return MNISTScaleNet(**kwargs)


@register((1, 28, 28), first_conv="stages.0.0")
def si_mnist_scale(
    scales: ScaleSet = "six", antialias: bool = True, **kwargs: Any
) -> MNISTScaleNet:
    """Both convolutions SI-layers over six scales from 0.6 to 2; the plain net's parameters exactly."""
    return MNISTScaleNet(conv=partial(SIConv2d, scales=scales, antialias=antialias), **kwargs)


@register((1, 28, 28), first_conv="stages.0.net.0.0")
def hierarchical_mnist_scale(scales: ScaleSet = "six", **kwargs: Any) -> MNISTScaleNet:
    """The convolutional part on a pyramid of six scales, the dense layer over all of them."""
    return MNISTScaleNet(scales=scales, **kwargs)
