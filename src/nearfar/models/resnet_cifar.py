"""CIFAR's residual networks, plain and with scale-aware convolutions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from timm.layers import ClassifierHead  # type: ignore[attr-defined]
from torch import Tensor, nn
from torch.nn import functional as F

from nearfar.errors import InputError
from nearfar.layers import PyramidConv2d, SIConv2d
from nearfar.models.hierarchical import HierarchicalNet, Reduction, Window
from nearfar.models.initialisation import reset_he
from nearfar.models.registry import register_all
from nearfar.models.staged import StagedNet
from nearfar.scale_sets import ScaleSet

__all__ = ["DEPTHS", "CifarResNet"]

#: The depths of the papers' tables.
DEPTHS = (20, 32, 44, 56, 110, 116, 122)

Conv = Callable[..., nn.Module]


class CifarResNet(StagedNet):
    """ResNet for 32×32 images: three stages of 16, 32 and 64 channels, shortcuts without parameters.

    Args:
        depth: number of weighted layers, 6n + 2: a stem, 6n convolutions of 3×3, a classifier.
        num_classes: classes; 0 leaves the classifier out.
        in_chans: channels of the image.
        conv: makes the stages' 3×3 convolutions from ``(in, out, 3, stride=…, padding=1,
            bias=False)``; a sequence gives each stage its own. The stem stays a plain convolution.
        stem_conv: makes the stem's.

    Shape:
        ``[B, in_chans, H, W]`` → ``[B, num_classes]``, any H and W; features are at 1/4 of both.

    Raises:
        InputError: a depth that is not 6n + 2, or as many ``conv`` as there are not stages.

    Weights of other definitions of the same network load by :func:`nearfar.load_weights`: names as in
    torchvision (``layer1.0.conv1``, ``fc`` or ``linear``) become ours.

    Source: K. He et al. 2016, "Deep Residual Learning for Image Recognition", §4.2, shortcuts of
    option A (a strided slice, new channels zero); R. Takahashi et al., §4.2.
    """

    def __init__(
        self,
        depth: int = 20,
        num_classes: int = 10,
        in_chans: int = 3,
        conv: Conv | Sequence[Conv] = nn.Conv2d,
        stem_conv: Conv = nn.Conv2d,
    ) -> None:
        if depth < 8 or (depth - 2) % 6:
            raise InputError(f"depth must be 6n + 2 with n >= 1 (8, 14, 20, …), got {depth}")
        channels = (16, 32, 64)
        makers = [conv] * 3 if callable(conv) else list(conv)
        if len(makers) != 3:
            raise InputError(
                f"give one conv for all stages or one for each of 3, got {len(makers)}"
            )
        stem = nn.Sequential()
        stem.add_module("conv", stem_conv(in_chans, 16, 3, padding=1, bias=False))
        stem.add_module("norm", nn.BatchNorm2d(16))
        stem.add_module("act", nn.ReLU(inplace=True))
        stages = []
        before = 16
        for i, (maker, width) in enumerate(zip(makers, channels, strict=True)):
            stage = nn.Sequential()
            for block in range((depth - 2) // 6):
                stride = 2 if i > 0 and block == 0 else 1
                stage.append(_Block(before, width, stride, maker))
                before = width
            stages.append(stage)
        head = ClassifierHead(64, num_classes)
        super().__init__(stem, stages, head, num_classes, channels)
        reset_he(self)

    @staticmethod
    def adapt_state_dict(state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Tensors named as in torchvision's definition, under our names."""
        renamed = {}
        for name, tensor in state.items():
            first, _, rest = name.partition(".")
            if first in ("conv1", "bn1"):
                name = f"stem.{'conv' if first == 'conv1' else 'norm'}.{rest}"
            elif first in ("layer1", "layer2", "layer3"):
                name = f"stages.{int(first[-1]) - 1}.{rest}"
            elif first in ("fc", "linear"):
                name = f"head.fc.{rest}"
            renamed[name] = tensor
        return renamed


class _Block(nn.Module):
    """``relu(norm(conv(relu(norm(conv(x))))) + shortcut(x))``."""

    def __init__(self, before: int, width: int, stride: int, conv: Conv) -> None:
        super().__init__()
        self.conv1 = conv(before, width, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.stride = stride
        self.new = width - before

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.bn2(self.conv2(y))
        if self.stride > 1:
            x = x[:, :, :: self.stride, :: self.stride]
        if self.new:
            x = F.pad(x, (0, 0, 0, 0, self.new // 2, self.new - self.new // 2))
        return F.relu(y.add_(x), inplace=True)


_CIFAR: dict[str, Any] = {"input_size": (3, 32, 32), "first_conv": "stem.conv"}


@register_all("resnet{}_cifar", DEPTHS, **_CIFAR)
def _plain(depth: int, **kwargs: Any) -> CifarResNet:
    """CIFAR's ResNet-{}."""
    return CifarResNet(depth, **kwargs)


@register_all("si_resnet{}_cifar", (20, 32, 44, 56, 110), **_CIFAR)
def _si(
    depth: int, scales: ScaleSet = "octave", antialias: bool = True, **kwargs: Any
) -> CifarResNet:
    """ResNet-{} with an SI-layer in every convolution's place; the plain net's parameters exactly."""
    conv = partial(SIConv2d, scales=scales, antialias=antialias)
    return CifarResNet(depth, conv=conv, stem_conv=conv, **kwargs)


@register_all("pyramid_resnet{}_cifar", (20, 32, 44, 56, 110), **_CIFAR)
def _pyramid(depth: int, levels: Sequence[int] = (4, 4, 2), **kwargs: Any) -> CifarResNet:
    """ResNet-{} with pyramid layers in the stages: 1/4, 1/4 and 1/2 of their weights.

    What the paper asks in its conclusion: "What happens when these convolutional layers are imbedded
    in ResNets?" The number of levels halves where the maps are too small for more.

    Source: "Convolution over a scale pyramid", §6.
    """
    return CifarResNet(depth, conv=[partial(PyramidConv2d, levels=n) for n in levels], **kwargs)


@register_all(
    "hierarchical_resnet{}_cifar",
    (20, 32, 44, 56, 110),
    input_size=(3, 32, 32),
    first_conv="net.stem.conv",
    classifier="net.head.fc",
)
def _hierarchical(
    depth: int,
    scales: ScaleSet = "octave",
    reduction: Reduction = "logsumexp",
    window: Window = None,
    temperature: float = 1.0,
    **kwargs: Any,
) -> HierarchicalNet:
    """ResNet-{} over a whole pyramid; the plain net's parameters exactly."""
    return HierarchicalNet(CifarResNet(depth, **kwargs), scales, reduction, window, temperature)
