"""Fully convolutional networks: a class for every pixel."""

from __future__ import annotations

from torch import Tensor, nn

from nearfar import pyramid
from nearfar.errors import InputError
from nearfar.grid import Axis, base_grid
from nearfar.models.hierarchical import HierarchicalNet, distinct_scales
from nearfar.models.staged import HeadedNet
from nearfar.models.timm_nets import channels_of, drop_classifier, features_of
from nearfar.pyramid import How, collapse, expand, resample
from nearfar.symbolic_sizes import map_size

__all__ = ["FCN"]


class FCN(nn.Module):
    """A classifier's features, classified at every place and enlarged to the image's size.

    .. math:: y = \\mathrm{up}(s_0), \\quad s_i = W_i f_{t-i} + \\mathrm{up}(s_{i-1})

    Dense layers of older networks (AlexNet, LeNet) stay and slide over the maps. A whole network on a
    pyramid (:class:`~nearfar.models.HierarchicalNet`) labels every level, and the levels' labels are
    combined as its answers are: scene parsing as C. Farabet et al. do it.

    Args:
        backbone: one of ours, or a convolutional one of timm's; its classifier is taken off.
        num_classes: classes, at least 1.
        skips: how many finer stages also reduction (0: FCN-32s over a backbone that reduces by 32, 1:
            FCN-16s, 2: FCN-8s).

    Shape:
        ``[B, C, H, W]`` → ``[B, num_classes, H, W]`` logits, any H and W that the backbone takes.

    Raises:
        InputError: no class, a backbone without maps, or more ``skips`` than it has finer stages.

    Limits:
        Maps are taken to cover the whole image evenly, which holds for 'same' padding; with unpadded
        convolutions (LeNet-5's C3) labels lie up to half the border's loss off.

    Source: J. Long et al. 2015, "Fully Convolutional Networks for Semantic Segmentation", as taught in
    the lecture "CNNs & Image Classification" (Beyond classification).
    """

    def __init__(self, backbone: nn.Module, num_classes: int, skips: int = 0) -> None:
        super().__init__()
        if num_classes < 1 or skips < 0:
            raise InputError(
                f"FCN needs num_classes >= 1 and skips >= 0, got {num_classes} and {skips}"
            )
        self.num_classes = num_classes
        self.scales: tuple[float, ...] | None = None
        self.reduction: How = "max"
        if isinstance(backbone, HierarchicalNet):
            if backbone.reduction == "learned":
                raise InputError(
                    "FCN combines the labels of a net over a pyramid by max, mean or logsumexp, got one "
                    "whose reduction is learned; build it with another"
                )
            self.scales, self.reduction, backbone = (
                backbone.scales,
                backbone.reduction,
                backbone.net,
            )
        self.each = _Labels(backbone, num_classes, skips)

    def forward(self, x: Tensor) -> Tensor:
        if self.scales is None:
            labels: Tensor = self.each(x)
            return labels
        levels = expand(x, distinct_scales(x, self.scales))
        return collapse(pyramid.map(lambda y: self.each(y).log_softmax(1), levels), self.reduction)


class _Labels(nn.Module):
    """The labels of one level."""

    def __init__(self, net: nn.Module, num_classes: int, skips: int) -> None:
        super().__init__()
        if not hasattr(net, "forward_features") or not hasattr(net, "forward_intermediates"):
            raise InputError(
                f"FCN needs a backbone that gives maps (forward_features and forward_intermediates, as "
                f"nearfar's and timm's convolutional networks have), got {type(net).__name__}"
            )
        info = features_of(net)
        # Of stages with the same resolution, the last one votes.
        ends = {f["reduction"]: i for i, f in enumerate(info)}
        finer = sorted(ends.items(), reverse=True)[1:]
        if skips > len(finer):
            raise InputError(
                f"skips must be at most the backbone's {len(finer)} finer stages, got {skips}"
            )
        self.net = net
        self.finer = [i for _, i in finer[:skips]]
        head = getattr(net, "head", None)
        self.dense = isinstance(net, HeadedNet) and hasattr(head, "maps")
        if self.dense:
            net.reset_classifier(0)  # type: ignore[operator]
            width = int(net.head_hidden_size)  # type: ignore[arg-type]
        elif isinstance(net, HeadedNet):
            net.head = nn.Identity()
            width = net.num_features
        else:
            drop_classifier(net, len(info) - 1)
            width = channels_of(net.forward_features, net, info[-1]["reduction"])  # type: ignore[arg-type]
        self.score = nn.Conv2d(width, num_classes, 1)
        self.skips = nn.ModuleList(
            nn.Conv2d(info[i]["num_chs"], num_classes, 1) for i in self.finer
        )
        for conv in (self.score, *self.skips):
            nn.init.normal_(conv.weight, std=0.01)
            nn.init.zeros_(conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        maps: list[Tensor] = []
        if self.finer:
            features, maps = self.net.forward_intermediates(x, indices=self.finer)  # type: ignore[operator]
        else:
            features = self.net.forward_features(x)  # type: ignore[operator]
        if self.dense:
            features = self.net.head.maps(features)  # type: ignore[union-attr,operator]
        size = map_size(x)
        scores: Tensor = self.score(features)
        for skip, index in zip(self.skips, self.finer, strict=True):
            finer = skip(maps[sorted(self.finer).index(index)])
            scores = finer + _onto(scores, map_size(finer), size)
        return _onto(scores, size, size)


def _onto(x: Tensor, shape: tuple[int, int], image: tuple[int, int]) -> Tensor:
    """Maps that cover an image, on a grid of another shape that covers it too."""
    height, width = image
    rows, columns = map_size(x)
    source = (Axis.tiling(rows, height), Axis.tiling(columns, width))
    target = (Axis.tiling(shape[0], height), Axis.tiling(shape[1], width))
    return resample(
        x, source, target if shape != image else base_grid(height, width), antialias=False
    )
