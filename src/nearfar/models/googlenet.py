"""GoogLeNet: torchvision's, as a network of stages."""

from __future__ import annotations

from typing import Any

from timm.layers import ClassifierHead  # type: ignore[attr-defined]
from torch import Tensor, nn
from torchvision.models.googlenet import BasicConv2d
from torchvision.models.googlenet import GoogLeNet as TorchvisionGoogLeNet

from nearfar.models.initialisation import reset_he
from nearfar.models.registry import register
from nearfar.models.staged import StagedNet

__all__ = ["GoogLeNet", "googlenet"]

#: torchvision's modules by the stage they belong to.
_STAGES = (
    ("conv1",),
    ("maxpool1", "conv2", "conv3"),
    ("maxpool2", "inception3a", "inception3b"),
    ("maxpool3", *(f"inception4{c}" for c in "abcde")),
    ("maxpool4", "inception5a", "inception5b"),
)


class GoogLeNet(StagedNet):
    """torchvision's GoogLeNet (batch norms, no auxiliary classifiers) with timm's interface.

    Args:
        num_classes: classes; 0 leaves the classifier out.
        in_chans: channels of the image.

    Shape:
        ``[B, in_chans, H, W]`` → ``[B, num_classes]``, H and W from 15; features are at 1/32.

    torchvision's weights load by :func:`nearfar.load_weights` (those of auxiliary classifiers are left
    out); images must then be normalised as torchvision's ``transform_input=False`` expects.

    Source: C. Szegedy et al. 2015, "Going Deeper with Convolutions"; lecture notes "Convolutional
    Neural Networks", §2.4.
    """

    def __init__(self, num_classes: int = 1000, in_chans: int = 3) -> None:
        # Their own initialisation draws a truncated normal number by number; ours comes after.
        net = TorchvisionGoogLeNet(aux_logits=False, init_weights=False)
        if in_chans != 3:
            net.conv1 = BasicConv2d(in_chans, 64, kernel_size=7, stride=2, padding=3)
        stages = []
        for names in _STAGES:
            stage = nn.Sequential()
            for name in names:
                stage.add_module(name, getattr(net, name))
            stages.append(stage)
        head = ClassifierHead(1024, num_classes, drop_rate=0.2)
        widths = (64, 192, 480, 832, 1024)
        super().__init__(nn.Identity(), stages, head, num_classes, widths, (2, 4, 8, 16, 32))
        reset_he(self)

    @staticmethod
    def adapt_state_dict(state: dict[str, Tensor]) -> dict[str, Tensor]:
        """torchvision's names as ours."""
        places = {name: i for i, names in enumerate(_STAGES) for name in names}
        renamed = {}
        for name, tensor in state.items():
            first = name.partition(".")[0]
            if first in places:
                name = f"stages.{places[first]}.{name}"
            elif first == "fc":
                name = f"head.{name}"
            if first not in ("aux1", "aux2"):
                renamed[name] = tensor
        return renamed


@register((3, 224, 224), 1000, first_conv="stages.0.conv1.conv")
def googlenet(**kwargs: Any) -> GoogLeNet:
    """GoogLeNet of 22 weighted layers."""
    return GoogLeNet(**kwargs)
