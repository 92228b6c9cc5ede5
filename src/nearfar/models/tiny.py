"""Nets for Tiny ImageNet: a plain baseline, its pyramid twin, and one that slides over scale."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from timm.layers import ClassifierHead  # type: ignore[attr-defined]
from torch import Tensor, nn

from nearfar import pyramid
from nearfar.errors import InputError
from nearfar.layers import PyramidConv2d, ScaleConv2d, ScalePool
from nearfar.models.initialisation import reset_he
from nearfar.models.registry import register
from nearfar.models.staged import StagedNet
from nearfar.pyramid import Pyramid, expand

__all__ = ["ScaleTinyNet", "TinyNet", "cnn_tiny", "pyramid_tiny", "scale_tiny"]

_WIDTHS = (64, 96, 128, 256)


class TinyNet(StagedNet):
    """Four 3×3 convolutions with ReLUs, 2×2 max pooling between, global average pooling.

    The first three, at 64, 32 and 16 pixels, are those that the pyramid twin replaces, with as many
    levels as lead down to 8 pixels: 4, 3 and 2.

    Args:
        num_classes: classes; 0 leaves the classifier out.
        in_chans: channels of the image.
        conv: makes each of the first three convolutions, or one for all.

    Shape:
        ``[B, in_chans, H, W]`` → ``[B, num_classes]``, H and W from 8 (pyramid twin: from 32).

    Limits:
        The paper shows its nets in figures that are not in the text; widths and depth are ours.

    Source: "Convolution over a scale pyramid", §5.4–5.5, Fig. 9–10, Table 1.
    """

    def __init__(
        self,
        num_classes: int = 200,
        in_chans: int = 3,
        conv: Callable[..., nn.Module] | Sequence[Callable[..., nn.Module]] = nn.Conv2d,
    ) -> None:
        makers = [conv] * 3 if callable(conv) else list(conv)
        if len(makers) != 3:
            raise InputError(f"give one conv for all or one for each of three, got {len(makers)}")
        stages = []
        before = in_chans
        for i, (maker, width) in enumerate(zip([*makers, nn.Conv2d], _WIDTHS, strict=True)):
            stage = nn.Sequential()
            if i > 0:
                stage.append(nn.MaxPool2d(2))
            stage.append(maker(before, width, 3, padding=1))
            stage.append(nn.ReLU())
            stages.append(stage)
            before = width
        head = ClassifierHead(before, num_classes)
        super().__init__(nn.Identity(), stages, head, num_classes, _WIDTHS)
        reset_he(self)


class ScaleTinyNet(StagedNet):
    """The baseline with filters that slide over scale: a pyramid all the way, pooled at the end.

    Args:
        num_classes: classes; 0 leaves the classifier out.
        in_chans: channels of the image.
        levels: of the pyramid: scales 1, 1/2, 1/4, …
        scale_extent: neighbouring levels that a filter of the first three convolutions sees.

    Shape:
        ``[B, in_chans, H, W]`` → ``[B, num_classes]``, H and W from ``8 · 2^(levels - 1)``.

    Source: "Convolution over a scale pyramid", §3 step 2, Fig. 6.
    """

    def __init__(
        self,
        num_classes: int = 200,
        in_chans: int = 3,
        levels: int = 4,
        scale_extent: int = 2,
    ) -> None:
        if levels < 1:
            raise InputError(f"levels must be at least 1, got {levels}")
        stages = []
        before = in_chans
        for i, width in enumerate(_WIDTHS):
            stage = nn.Sequential()
            if i > 0:
                stage.append(_OnLevels(nn.MaxPool2d(2)))
            extent = scale_extent if i < 3 else 1
            stage.append(ScaleConv2d(before, width, 3, padding=1, scale_extent=extent))
            stage.append(_OnLevels(nn.ReLU()))
            stages.append(stage)
            before = width
        head = ClassifierHead(before, num_classes)
        stem = _Expand(tuple(0.5**i for i in range(levels)))
        super().__init__(stem, stages, head, num_classes, _WIDTHS, final=ScalePool("max"))
        reset_he(self)

    def as_map(self, x: Pyramid) -> Tensor:
        """The level at the image's scale."""
        return x.levels[0]


class _Expand(nn.Module):
    """One map → a pyramid."""

    def __init__(self, scales: tuple[float, ...]) -> None:
        super().__init__()
        self.scales = scales

    def forward(self, x: Tensor) -> Pyramid:
        return expand(x, self.scales)

    def extra_repr(self) -> str:
        return f"scales={self.scales}"


class _OnLevels(nn.Module):
    """A module on every level."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Pyramid) -> Pyramid:
        return pyramid.map(self.module, x)


_TINY: dict[str, Any] = {"input_size": (3, 64, 64), "num_classes": 200, "first_conv": "stages.0.0"}


@register(**_TINY)
def cnn_tiny(**kwargs: Any) -> TinyNet:
    """The baseline."""
    return TinyNet(**kwargs)


@register(**_TINY)
def pyramid_tiny(levels: Sequence[int] = (4, 3, 2), **kwargs: Any) -> TinyNet:
    """Three convolutions replaced by pyramid layers of exactly 1/4, 1/3 and 1/2 of their parameters."""
    return TinyNet(conv=[partial(PyramidConv2d, levels=n) for n in levels], **kwargs)


@register(**_TINY)
def scale_tiny(**kwargs: Any) -> ScaleTinyNet:
    """Filters that slide over scale, and a scale pool at the end."""
    return ScaleTinyNet(**kwargs)
