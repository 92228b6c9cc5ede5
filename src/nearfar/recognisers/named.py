"""Recognisers by name: ours, timm's and torchvision's networks, with somebody's weights."""

from __future__ import annotations

import torch
from lightning.pytorch.utilities.seed import isolate_rng

from nearfar.data import Normalisation, ScaleProtocol
from nearfar.errors import InputError
from nearfar.models import input_size
from nearfar.recognisers.networks import from_network
from nearfar.recognisers.recogniser import Recogniser
from nearfar.training import ModelSpec, make_network

__all__ = ["from_name"]


def from_name(
    name: str,
    weights: str | None,
    figures: Normalisation | None,
    size: int | None,
    num_classes: int | None,
) -> Recogniser:
    """Builds a network by its name.

    Args:
        name: one of ours or timm's, or ``torchvision/NAME``.
        weights: a file, ``pretrained``, or ``None`` for random ones (seed 0).
        figures: what its input is normalised by.
        size: of the canvas.
        num_classes: default: what the weights' classifier has, or what the network was made for.

    Raises:
        InputError: an unknown name, a file that does not fit, or weights that cannot be fetched.
    """
    mean, std = (figures.mean, figures.std) if figures else ((), ())
    spec = ModelSpec(name, weights=weights, mean=mean, std=std)
    if weights == "pretrained" and num_classes is not None:
        raise InputError(
            f"{name} answers with the classes that it was published with, and another number of them would "
            f"be a new classifier with random weights, got num_classes={num_classes}; leave it out"
        )
    with isolate_rng():
        torch.manual_seed(0)
        network = make_network(spec, num_classes)
    protocol = None
    if name.startswith("torchvision/"):
        # How torchvision's reference training tests: the middle 224 of 256 pixels.
        side = size or input_size(name)[1]
        protocol = ScaleProtocol(canvas=side, content=round(side * 256 / 224), side="shorter")
        figures = figures or Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    label = name if weights is None else f"{name}@{weights}"
    return from_network(network, label, figures, size, None, spec, protocol)
