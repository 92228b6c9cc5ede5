"""A net for digits of many sizes: small, normalised, and run through a zooming window."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from nearfar.errors import InputError
from nearfar.models.ensemble import Ensemble
from nearfar.models.heads import DenseHead
from nearfar.models.hierarchical import HierarchicalNet, Reduction
from nearfar.models.initialisation import reset_he
from nearfar.models.registry import register
from nearfar.models.staged import StagedNet
from nearfar.scale_sets import ScaleSet

__all__ = ["DigitCNN", "cnn_digit", "ensemble_zoom_digit", "zoom_digit"]


class DigitCNN(StagedNet):
    """Three stages of normalised convolutions, 2×2 max pooling between, places weighed, a classifier.

    A 5×5 convolution, two 3×3 and two 3×3 convolutions, each with batch normalisation and a ReLU; then
    :class:`PlaceHead`.

    Args:
        num_classes: classes; 0 leaves the classifier out.
        in_chans: channels of the image.
        channels: of the five convolutions.
        drop_rate: dropout before the classifier.
        img_size: side of the images that the head is built for; a multiple of 4.

    Shape:
        ``[B, in_chans, H, W]`` → ``[B, num_classes]``, H and W from ``img_size``.

    Raises:
        InputError: not five widths, or an ``img_size`` that is no multiple of 4.
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_chans: int = 1,
        channels: Sequence[int] = (16, 48, 48, 96, 96),
        drop_rate: float = 0.0,
        img_size: int = 28,
    ) -> None:
        if len(channels) != 5:
            raise InputError(f"channels must be five widths, got {list(channels)}")
        if img_size < 4 or img_size % 4:
            raise InputError(f"img_size must be a multiple of 4, got {img_size}")
        one, two, three, four, five = channels
        stages = [
            nn.Sequential(*_conv(in_chans, one, 5)),
            nn.Sequential(nn.MaxPool2d(2), *_conv(one, two, 3), *_conv(two, three, 3)),
            nn.Sequential(nn.MaxPool2d(2), *_conv(three, four, 3), *_conv(four, five, 3)),
        ]
        side = img_size // 4
        head = PlaceHead(five, (side, side), num_classes, drop_rate)
        super().__init__(nn.Identity(), stages, head, num_classes, (one, three, five))
        reset_he(self)


class PlaceHead(DenseHead):
    """A weight for every place of every channel, summed over places; then a classifier.

    A dense layer that keeps channels apart: as many times fewer weights as there are channels. It
    slides over larger maps as :class:`DenseHead` does.

    Args:
        in_chs: channels of the maps.
        grid: height and width of the maps at the size that the network was designed for.
        num_classes: classes; 0 leaves the classifier out.
        drop_rate: dropout before the classifier.

    Shape:
        ``[B, in_chs, h, w]`` or larger → ``[B, num_classes]``; ``pre_logits``: ``[B, in_chs]``.
    """

    def __init__(
        self, in_chs: int, grid: tuple[int, int], num_classes: int, drop_rate: float = 0.0
    ) -> None:
        super().__init__(in_chs, (1, 1), (in_chs,), num_classes)
        self.grid = grid
        weigh = nn.Conv2d(in_chs, in_chs, grid, groups=in_chs, bias=False)
        self.hidden = nn.Sequential(weigh, nn.BatchNorm2d(in_chs), nn.ReLU(), nn.Dropout(drop_rate))

    def maps(self, x: Tensor) -> Tensor:
        """The last hidden layer at every position, ``[B, hidden[-1], h', w']``."""
        weigh = self.hidden[0]
        # A filter that fits once is a weighted sum, to rounding, with a quicker gradient. Conversions put
        # another layer in its place; exports and counts, which are not training, know convolutions.
        fits_once = tuple(x.shape[-2:]) == tuple(self.grid)
        if not (self.training and fits_once and type(weigh) is nn.Conv2d):
            return super().maps(x)
        hidden: Tensor = self.hidden[1:]((x * weigh.weight[:, 0]).sum((2, 3), keepdim=True))
        return hidden


def _conv(before: int, width: int, kernel: int) -> list[nn.Module]:
    conv = nn.Conv2d(before, width, kernel, padding=kernel // 2, bias=False)
    return [conv, nn.BatchNorm2d(width), nn.ReLU()]


@register((1, 28, 28), first_conv="stages.0.0")
def cnn_digit(**kwargs: Any) -> DigitCNN:
    """The plain net."""
    return DigitCNN(**kwargs)


@register((1, 28, 28), first_conv="net.stages.0.0", classifier="net.head.fc")
def zoom_digit(
    scales: ScaleSet = (1.0, 1.4, 2.0, 2.8),
    reduction: Reduction = "logsumexp",
    window: int = 24,
    **kwargs: Any,
) -> HierarchicalNet:
    """The plain net, built for a window of 24 pixels, that looks at the image's middle at four scales."""
    return HierarchicalNet(DigitCNN(img_size=window, **kwargs), scales, reduction, window)


@register(
    (1, 28, 28),
    first_conv=tuple(f"members.{m}.net.stages.0.0" for m in range(3)),
    classifier=tuple(f"members.{m}.net.head.fc" for m in range(3)),
)
def ensemble_zoom_digit(members: int = 3, **kwargs: Any) -> Ensemble:
    """Three of the zooming nets, that answer together."""
    if members < 1:
        raise InputError(f"members must be at least 1, got {members}")
    return Ensemble(zoom_digit(**kwargs) for _ in range(members))
