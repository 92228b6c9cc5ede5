"""A backbone's first t, t - 1, … blocks, each as a network of its own."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from nearfar.errors import InputError
from nearfar.models.staged import StagedBackbone, StagedNet, is_staged
from nearfar.models.timm_nets import channels_of, drop_classifier, features_of

__all__ = ["Towers", "towers_of"]


@dataclass(frozen=True)
class Towers:
    """Networks that end on maps of one size when each meets the image at half the one before's.

    Attributes:
        modules: the first is made of the backbone's own modules, the others of copies. Modules with
            the same name in two of them are the same module of the backbone. Each has
            ``intermediates(x)``: its features, and the maps of all blocks.
        channels: channels that leave each.
        feature_info: channels and reduction of the maps of the first one's blocks.
    """

    modules: list[nn.Module]
    channels: list[int]
    feature_info: list[dict[str, Any]]


def towers_of(backbone: nn.Module, stages: int) -> Towers:
    """Splits a backbone.

    Args:
        backbone: one of ours (:class:`~nearfar.models.staged.StagedNet`); one of timm's that has
            ``forward_intermediates``, whose classifier is taken off; or any module with ``stem``,
            ``stages``, ``stage_channels`` and ``pool``
            (:class:`~nearfar.models.staged.StagedBackbone`).
        stages: how many towers.

    Raises:
        InputError: another kind of backbone, or fewer blocks than ``stages``.
    """
    if is_staged(backbone):
        return _staged(backbone, stages)
    if hasattr(backbone, "forward_intermediates") and hasattr(backbone, "feature_info"):
        return _timm(backbone, stages)
    raise InputError(
        f"WSMSNet needs a staged backbone, got {type(backbone).__name__}: a network of nearfar or timm "
        f"that has forward_intermediates, or a module with stem, stages, stage_channels and pool"
    )


def _staged(backbone: StagedBackbone, stages: int) -> Towers:
    blocks = len(backbone.stages)
    if not 1 <= stages <= blocks:
        raise InputError(f"stages must be from 1 to the backbone's {blocks} blocks, got {stages}")
    towers: list[nn.Module] = []
    for s in range(stages):
        if isinstance(backbone, StagedNet):
            tower = _Blocks(*backbone.part(blocks - s))
        else:
            tower = _Blocks(backbone.stem, *backbone.stages[: blocks - s], nn.Identity())
        towers.append(copy.deepcopy(tower) if s else tower)
    channels = backbone.stage_channels
    info = getattr(backbone, "feature_info", None) or [
        {"num_chs": width, "reduction": 2**i} for i, width in enumerate(channels)
    ]
    return Towers(towers, [channels[blocks - s - 1] for s in range(stages)], info)


def _timm(net: nn.Module, stages: int) -> Towers:
    info = features_of(net)
    # The last maps of each resolution: where a block ends, right before the map is halved.
    ends = {f["reduction"]: i for i, f in enumerate(info)}
    last = info[-1]["reduction"]
    reductions = [last // 2**s for s in range(len(ends))]
    blocks = next((i for i, r in enumerate(reductions) if r not in ends), len(reductions))
    if not 1 <= stages <= blocks:
        raise InputError(
            f"stages must be from 1 to the backbone's {blocks} blocks between which maps are halved, got "
            f"{stages}; the maps of {type(net).__name__} are at 1/{', 1/'.join(map(str, ends))} of the image"
        )
    towers: list[nn.Module] = [_Part(copy.deepcopy(net), ends[r]) for r in reductions[1:stages]]
    drop_classifier(net, len(info) - 1)
    towers.insert(0, _Whole(net))
    channels = [channels_of(tower, net, last) for tower in towers]
    return Towers(towers, channels, info)


class _Blocks(nn.Sequential):
    """A stem, blocks, and what finishes the last one's maps."""

    def intermediates(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The features, and the maps of all blocks."""
        stem, *blocks, final = self
        maps = [stem(x)]
        for block in blocks:
            maps.append(block(maps[-1]))
        return final(maps[-1]), maps[1:]


class _Whole(nn.Module):
    """All of a timm network but its classifier."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.net.forward_features(x)  # type: ignore[operator]
        return features

    def intermediates(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The features, and the maps of all blocks."""
        features, maps = self.net.forward_intermediates(x)  # type: ignore[operator]
        return features, maps


class _Part(nn.Module):
    """A timm network up to one of its features; what comes after is dropped."""

    def __init__(self, net: nn.Module, index: int) -> None:
        super().__init__()
        drop_classifier(net, index, prune_norm=True)
        self.net = net
        self.index = index

    def forward(self, x: Tensor) -> Tensor:
        (features,) = self.net.forward_intermediates(  # type: ignore[operator]
            x, indices=[self.index], stop_early=True, intermediates_only=True
        )
        maps: Tensor = features
        return maps
