"""The evaluation transforms that timm and torchvision publish with their weights, as preprocessing."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

from nearfar.data import Normalisation, ScaleProtocol
from nearfar.errors import InputError
from nearfar.models.torchvision_nets import check_torchvision_name

__all__ = ["of_timm", "of_torchvision", "official_weights"]


def of_timm(cfg: dict[str, Any], size: int | None = None) -> ScaleProtocol:
    """What timm's ``create_transform`` does for a network, but for normalisation.

    Args:
        cfg: the network's ``pretrained_cfg``.
        size: side of the canvas in place of the published one, as timm's ``img_size``.

    Raises:
        InputError: a crop mode or interpolation that nearfar does not know.

    Source: timm ``transforms_imagenet_eval``: the content is the canvas over ``crop_pct``, rounded down.
    """
    height, width = (size, size) if size else tuple(cfg["input_size"][1:])
    crop_pct = cfg.get("crop_pct") or 0.875
    mode = cfg.get("crop_mode") or "center"
    sides = {"center": "shorter", "squash": "both", "border": "longer"}
    if mode not in sides:
        raise InputError(
            f"timm's crop_mode must be one of {', '.join(sides)}, got {mode!r}; set it in pretrained_cfg"
        )
    background: Any = "black"
    if mode == "border":
        background = tuple(round(255 * value) for value in cfg["mean"])
    return ScaleProtocol(
        canvas=(height, width),
        content=(math.floor(height / crop_pct), math.floor(width / crop_pct)),
        side=sides[mode],  # type: ignore[arg-type]
        interpolation=cfg.get("interpolation") or "bicubic",
        background=background,
    )


def of_torchvision(weights: Any, size: int | None = None) -> tuple[ScaleProtocol, Normalisation]:
    """What a network of torchvision's was evaluated with when its weights were published.

    Args:
        weights: an entry of a torchvision ``WeightsEnum``.
        size: side of the canvas in place of the published one; the content grows with it.
    """
    transforms = weights.transforms()
    crop, resize = transforms.crop_size[0], transforms.resize_size[0]
    if size and size != crop:
        crop, resize = size, round(size * resize / crop)
    protocol = ScaleProtocol(
        canvas=crop,
        content=resize,
        side="shorter",
        interpolation=transforms.interpolation.value,
    )
    return protocol, Normalisation(tuple(transforms.mean), tuple(transforms.std))


def official_weights(name: str, weights: str | None) -> tuple[Any, bool]:
    """Which of torchvision's published weights a network has.

    Args:
        name: torchvision's name of the network, without ``torchvision/``.
        weights: a file, ``pretrained``, or ``None``.

    Returns:
        The entry, and whether it is certain: a file is known by the digits of its SHA-256 that torchvision
        puts into the name of what it publishes. Where it is not certain, the entry is the newest one.
    """
    from torchvision.models import get_model_weights

    check_torchvision_name(name)
    entries = list(get_model_weights(name))
    default = get_model_weights(name).DEFAULT
    if weights == "pretrained":
        return default, True
    if weights is None or not Path(weights).is_file():
        return default, False
    with Path(weights).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    for entry in entries:
        published = Path(entry.url).stem.rpartition("-")[2]
        if len(published) >= 8 and digest.startswith(published):
            return entry, True
    return default, False
