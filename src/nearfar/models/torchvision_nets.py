"""torchvision's classifiers by name."""

from __future__ import annotations

import difflib
import math
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import nn

from nearfar.errors import InputError
from nearfar.models.weights import read_weights

__all__ = [
    "PREFIX",
    "check_torchvision_name",
    "create_torchvision",
    "has_fixed_side",
    "is_torchvision",
    "trained_side",
]

#: What names of torchvision's networks begin with.
PREFIX = "torchvision/"


def is_torchvision(name: str) -> bool:
    """Whether a name asks for a network of torchvision's: ``torchvision/NAME``."""
    return name.startswith(PREFIX)


def check_torchvision_name(bare: str) -> None:
    """Refuses what is no classifier of torchvision's.

    Args:
        bare: the name without ``torchvision/``.

    Raises:
        InputError: no classifier has this name.
    """
    names = torchvision.models.list_models(module=torchvision.models)
    if bare not in names:
        close = difflib.get_close_matches(bare, names, n=3, cutoff=0.4)
        hint = f"; did you mean {' or '.join(close)}?" if close else ""
        raise InputError(f"torchvision has no classifier named {bare!r}{hint}")


def create_torchvision(
    name: str,
    num_classes: int | None = None,
    in_chans: int | None = None,
    pretrained: bool = False,
    **options: Any,
) -> nn.Module:
    """One of torchvision's classifiers.

    Args:
        name: ``torchvision/NAME``.
        num_classes: default: 1000.
        in_chans: 3, which is all that they take.
        pretrained: with the newest weights that torchvision publishes; then ``num_classes`` is theirs.
        options: the network's own.

    Raises:
        InputError: an unknown name, other channels, an option that it refuses, or weights that cannot be
            fetched.
    """
    bare = name.removeprefix(PREFIX)
    check_torchvision_name(bare)
    if in_chans not in (None, 3):
        raise InputError(
            f"{name} takes images of 3 channels, got in_chans={in_chans}; take a network of timm's"
        )
    if num_classes is not None:
        options["num_classes"] = num_classes
    try:
        network: nn.Module = torchvision.models.get_model(
            bare, weights="DEFAULT" if pretrained else None, **options
        )
    except (TypeError, ValueError, OSError, RuntimeError) as cause:
        raise InputError(f"{name} cannot be built with {options}: {cause}") from cause
    return network


def has_fixed_side(bare: str) -> bool:
    """Whether a network is built for images of one side (``image_size``), as vision transformers are.

    Args:
        bare: the name without ``torchvision/``.
    """
    return bare.startswith("vit_")


def trained_side(bare: str, file: Path) -> int | None:
    """The side of the images for which a network with a fixed one was trained.

    Args:
        bare: the name without ``torchvision/``.
        file: with its weights.

    Returns:
        ``None`` where the file does not hold an embedding of positions.
    """
    with torch.device("meta"):
        network = torchvision.models.get_model(bare, weights=None)
    positions = read_weights(network, file).get("encoder.pos_embedding")
    if positions is None or positions.dim() != 3:
        return None
    # One position is the class token's, the others are the patches' of a square image.
    side: int = math.isqrt(positions.shape[1] - 1) * network.patch_size
    return side or None
