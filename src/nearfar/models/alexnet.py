"""AlexNet as printed: two towers, on one device or two; and its scale-invariant twin."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from timm.models._features import feature_take_indices
from torch import Tensor, nn

from nearfar.errors import InputError
from nearfar.layers import SIConv2d
from nearfar.models.heads import check_grid, classifier, only_mean
from nearfar.models.initialisation import reset_gaussian
from nearfar.models.registry import register
from nearfar.models.staged import HeadedNet
from nearfar.scale_sets import ScaleSet

__all__ = ["TwoTowerAlexNet", "alexnet_two_tower", "si_alexnet_two_tower"]

Conv = Callable[..., nn.Module]
Pair = tuple[Tensor, Tensor]
Device = torch.device | str


class TwoTowerAlexNet(HeadedNet):
    """Five convolutions and three dense layers, each half on a tower of its own.

    Convolutions 2, 4 and 5 read their own tower; convolution 3 and the dense layers read both. Local
    response normalisation and 3×3 max pooling of stride 2 follow convolutions 1 and 2, pooling alone
    convolution 5; dropout follows the first two dense layers.

    Args:
        num_classes: classes; 0 leaves the classifier out.
        in_chans: channels of the image.
        conv: makes the convolutions from ``nn.Conv2d``'s arguments.
        devices: where to put the two towers; see :meth:`place`.

    Shape:
        ``[B, in_chans, H, W]`` → ``[B, num_classes]``, H and W from 224 (dense layers slide over
        larger maps); features are ``[B, 256, 6, 6]`` there, tower after tower.

    Limits:
        The normalisation sums over neighbouring maps of its own tower. A. Akbari's text names max
        pooling after the first two layers only; its 60 million parameters need the third, as in
        Krizhevsky et al. 2012 (without it the first dense layer alone would have 177 million).

    Source: A. Akbari, §II, Fig. 1, eq. 1, Tables I–II; A. Krizhevsky et al. 2012.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        in_chans: int = 3,
        conv: Conv = nn.Conv2d,
        devices: tuple[Device, Device] | None = None,
    ) -> None:
        super().__init__()
        layers: dict[int, list[Callable[[], nn.Module]]] = {
            1: [partial(conv, in_chans, 48, 11, stride=4, padding=2), _lrn, _pool],
            2: [partial(conv, 48, 128, 5, padding=2), _lrn, _pool],
            3: [partial(conv, 256, 192, 3, padding=1)],
            4: [partial(conv, 192, 192, 3, padding=1)],
            5: [partial(conv, 192, 128, 3, padding=1), _pool],
        }
        self.stages = nn.ModuleList(
            _Towers([first, nn.ReLU, *rest], crossing=i == 3)
            for i, (first, *rest) in layers.items()
        )
        self.head: _TwoTowerHead = _TwoTowerHead(num_classes)
        self.num_classes = num_classes
        self.num_features = 256
        self.feature_info = [
            {"num_chs": width, "reduction": reduction, "module": f"stages.{i}"}
            for i, (width, reduction) in enumerate(
                [(96, 8), (256, 16), (384, 16), (384, 16), (256, 32)]
            )
        ]
        self.reset_parameters()
        if devices is not None:
            self.set_devices(*devices)

    def reset_parameters(self) -> None:
        """Weights from N(0, 0.01²); biases 1 in convolutions 2, 4 and 5, else 0 (Table II)."""
        ones = [tower.get_submodule("0") for i in (1, 3, 4) for tower in _halves(self.stages[i])]
        reset_gaussian(self, ones)

    def set_devices(self, first: Device, second: Device) -> None:
        """Puts the towers on two devices; the classifier goes with the first.

        Moving the whole network with ``.to`` afterwards brings both onto one again.
        """
        for layer in (*self.stages, *self.head.hidden.children()):
            for tower, device in zip(_halves(layer), (first, second), strict=True):
                tower.to(device)
        self.head.fc.to(first)

    def forward_features(self, x: Tensor) -> Tensor:
        pair = (x, x)
        for stage in self.stages:
            pair = stage(pair)
        return _joined(pair, x.device)

    def prune_intermediate_layers(
        self,
        indices: int | list[int] = 1,
        prune_norm: bool = False,
        prune_head: bool = True,
    ) -> list[int]:
        """Drops what the maps of some layers do not need: the head and later layers."""
        chosen = super().prune_intermediate_layers(indices, prune_norm, prune_head)
        self.stages = self.stages[: max(chosen) + 1]
        return chosen

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """The maps of some layers, both towers side by side; timm's interface.

        The arguments are those of :meth:`nearfar.models.staged.StagedNet.forward_intermediates`;
        there is no ``norm`` to apply.
        """
        if output_fmt != "NCHW":
            raise InputError(f"maps come as 'NCHW' here, got output_fmt={output_fmt!r}")
        chosen, last = feature_take_indices(len(self.stages), indices)
        maps = []
        pair = (x, x)
        for i, stage in enumerate(self.stages[: last + 1] if stop_early else self.stages):
            pair = stage(pair)
            if i in chosen:
                maps.append(_joined(pair, x.device))
        return maps if intermediates_only else (_joined(pair, x.device), maps)


class _Towers(nn.Module):
    """The same layers twice, each on its own half, or each on both halves (``crossing``)."""

    towers: nn.ModuleList

    def __init__(self, makers: Sequence[Callable[[], nn.Module]], crossing: bool) -> None:
        super().__init__()
        self.towers = nn.ModuleList(nn.Sequential(*(make() for make in makers)) for _ in range(2))
        self.crossing = crossing

    def forward(self, pair: Pair) -> Pair:
        one, two = (
            tower(_joined(pair, _device(tower)) if self.crossing else half.to(_device(tower)))
            for tower, half in zip(self.towers, pair, strict=True)
        )
        return one, two

    def extra_repr(self) -> str:
        return f"crossing={self.crossing}"


class _TwoTowerHead(nn.Module):
    """Two dense layers of 2 × 2048 units over 6×6 maps, written as convolutions, and a classifier."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.hidden_size = 4096
        self.grid = (6, 6)
        sizes = [(256, 6), (4096, 1)]
        self.hidden = nn.ModuleList(
            _Towers([partial(nn.Conv2d, w, 2048, k), nn.ReLU, nn.Dropout], crossing=True)
            for w, k in sizes
        )
        self.fc = classifier(self.hidden_size, num_classes)

    def reset(self, num_classes: int, pool_type: str | None = None) -> None:
        only_mean(pool_type)
        like = next(self.hidden[0].parameters())
        self.fc = classifier(self.hidden_size, num_classes, like)

    def maps(self, x: Tensor) -> Tensor:
        check_grid(x, self.grid)
        pair: Pair = (x[:, :128], x[:, 128:])
        for layer in self.hidden:
            pair = layer(pair)
        return _joined(pair, pair[0].device)

    def forward(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        pooled = self.maps(x).mean((2, 3))
        answer: Tensor = pooled if pre_logits else self.fc(pooled)
        return answer


def _halves(layer: nn.Module) -> Iterator[nn.Module]:
    return layer.get_submodule("towers").children()


def _lrn() -> nn.Module:
    # torch divides alpha by the window's size; the paper's sum does not.
    return nn.LocalResponseNorm(5, alpha=5 * 1e-4, beta=0.75, k=2.0)


def _pool() -> nn.Module:
    return nn.MaxPool2d(3, stride=2)


def _device(module: nn.Module) -> torch.device:
    return next(module.parameters()).device


def _joined(pair: Pair, device: torch.device) -> Tensor:
    return torch.cat([half.to(device) for half in pair], dim=1)


_IMAGENET: dict[str, Any] = {
    "input_size": (3, 224, 224),
    "num_classes": 1000,
    "first_conv": ("stages.0.towers.0.0", "stages.0.towers.1.0"),
}


@register(**_IMAGENET)
def alexnet_two_tower(**kwargs: Any) -> TwoTowerAlexNet:
    """AlexNet in two towers."""
    return TwoTowerAlexNet(**kwargs)


@register(**_IMAGENET)
def si_alexnet_two_tower(
    scales: ScaleSet = "octave", antialias: bool = True, **kwargs: Any
) -> TwoTowerAlexNet:
    """AlexNet in two towers, every convolution an SI-layer; the parameters of the plain one exactly."""
    return TwoTowerAlexNet(conv=partial(SIConv2d, scales=scales, antialias=antialias), **kwargs)
