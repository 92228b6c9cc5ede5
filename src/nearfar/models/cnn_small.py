"""A small two-stage CNN and its scale-aware twins, which differ from it in their layers alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from timm.layers import ClassifierHead  # type: ignore[attr-defined]
from torch import nn

from nearfar.errors import InputError
from nearfar.layers import PyramidConv2d, SIConv2d
from nearfar.models.initialisation import reset_he
from nearfar.models.registry import register
from nearfar.models.staged import StagedNet
from nearfar.scale_sets import ScaleSet

__all__ = ["SmallCNN", "cnn_small", "pyramid_cnn_small", "si_cnn_small"]


class SmallCNN(StagedNet):
    """Stages of one 5×5 convolution and a ReLU, 2×2 max pooling between, global max pooling.

    No normalisation unless asked for: statistics gathered over one mixture of scales do not fit
    another, and a shared net on a pyramid meets many. The global maximum makes the answer depend on what is
    seen, not on how much empty canvas surrounds it.

    Args:
        num_classes: classes; 0 leaves the classifier out.
        in_chans: channels of the image.
        channels: channels of the stages.
        norm: batch normalisation after each convolution, which then has no bias.
        conv: makes each stage's convolution from ``(in, out, 5, padding=2, bias=…)``; a sequence
            gives each stage its own.

    Shape:
        ``[B, in_chans, H, W]`` → ``[B, num_classes]``, any H and W that the layers take (with plain
        convolutions, from 1; with pyramid layers, from 4).
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_chans: int = 3,
        channels: Sequence[int] = (16, 32),
        norm: bool = False,
        conv: Callable[..., nn.Module] | Sequence[Callable[..., nn.Module]] = nn.Conv2d,
    ) -> None:
        makers = [conv] * len(channels) if callable(conv) else list(conv)
        if len(makers) != len(channels):
            raise InputError(
                f"give one conv for all stages or one a stage, got {len(makers)} for {len(channels)}"
            )
        stages = []
        before = in_chans
        for i, (maker, width) in enumerate(zip(makers, channels, strict=True)):
            stage = nn.Sequential()
            if i > 0:
                stage.append(nn.MaxPool2d(2, ceil_mode=True))
            stage.append(maker(before, width, 5, padding=2, bias=not norm))
            if norm:
                stage.append(nn.BatchNorm2d(width))
            stage.append(nn.ReLU())
            stages.append(stage)
            before = width
        head = ClassifierHead(before, num_classes, pool_type="max")
        super().__init__(nn.Identity(), stages, head, num_classes, channels)
        reset_he(self)


@register((3, 28, 28), first_conv="stages.0.0")
def cnn_small(**kwargs: Any) -> SmallCNN:
    """The plain net."""
    return SmallCNN(**kwargs)


@register((3, 28, 28), first_conv="stages.0.0")
def si_cnn_small(scales: ScaleSet = "octave", antialias: bool = True, **kwargs: Any) -> SmallCNN:
    """Every convolution an SI-layer; the parameters of the plain net exactly."""
    return SmallCNN(conv=partial(SIConv2d, scales=scales, antialias=antialias), **kwargs)


@register((3, 28, 28), first_conv="stages.0.0")
def pyramid_cnn_small(levels: Sequence[int] = (4, 2), **kwargs: Any) -> SmallCNN:
    """Every convolution a pyramid layer, with 1/4 and 1/2 of the convolution's parameters."""
    return SmallCNN(conv=[partial(PyramidConv2d, levels=n) for n in levels], **kwargs)
