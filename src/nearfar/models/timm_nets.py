"""What timm's networks say of themselves, and what has to be found out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from nearfar.errors import InputError
from nearfar.models.modes import evaluating

__all__ = ["channels_of", "drop_classifier", "features_of"]


def features_of(net: nn.Module) -> list[dict[str, Any]]:
    """Channels and reduction of each of a network's features, in order."""
    info: Any = net.feature_info
    features: list[dict[str, Any]] = info if isinstance(info, list) else info.get_dicts()
    return features


def drop_classifier(net: nn.Module, last: int, prune_norm: bool = False) -> None:
    """Takes off what comes after one of a network's features.

    Args:
        net: the network; changed.
        last: the feature that is still needed.
        prune_norm: also what the last feature itself would go through, such as a norm.
    """
    net.prune_intermediate_layers([last], prune_norm=prune_norm, prune_head=True)  # type: ignore[operator]
    # Some keep a norm beside the classifier when that is reset.
    cfg: Any = getattr(net, "pretrained_cfg", {})
    named = cfg.get("classifier") or ()
    for name in (named,) if isinstance(named, str) else named:
        setattr(net, name.split(".")[0], nn.Identity())


def channels_of(run: Callable[[Tensor], Tensor], net: nn.Module, reduction: int) -> int:
    """Channels of maps, found by a small image: timm's attributes differ by family.

    Args:
        run: from an image to the maps.
        net: the network behind it.
        reduction: the network's largest.

    Raises:
        InputError: what comes is no maps, or the network refuses the image.
    """
    first = next(p for p in net.parameters() if p.dim() == 4)
    in_chans = int(getattr(net, "in_chans", None) or first.shape[1])
    image = first.new_zeros(1, in_chans, 2 * reduction, 2 * reduction)
    try:
        with evaluating(net), torch.no_grad():
            maps = run(image)
    except Exception as cause:
        side = image.shape[-1]
        raise InputError(
            f"{type(net).__name__} cannot be tried with an image of {side}×{side}: {cause}; a convolutional "
            f"backbone that takes any size is needed"
        ) from cause
    if not isinstance(maps, Tensor) or maps.dim() != 4 or maps.shape[-1] > image.shape[-1]:
        got = str(tuple(maps.shape)) if isinstance(maps, Tensor) else f"a {type(maps).__name__}"
        raise InputError(
            f"the features of {type(net).__name__} are not maps [B, C, H, W] but {got}; a convolutional "
            f"backbone is needed"
        )
    return int(maps.shape[1])
