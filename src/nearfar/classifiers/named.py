"""Classifiers by name: ours, timm's and torchvision's networks, with somebody's weights."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from lightning.pytorch.utilities.seed import isolate_rng

from nearfar.classifiers.classifier import Classifier
from nearfar.classifiers.evaluation_transforms import of_torchvision, official_weights
from nearfar.classifiers.networks import from_network
from nearfar.data import Normalisation
from nearfar.errors import InputError
from nearfar.models.torchvision_nets import PREFIX as TORCHVISION
from nearfar.models.torchvision_nets import is_torchvision
from nearfar.training import ModelSpec, make_network

__all__ = ["from_name"]

#: Networks that, with published weights, change ImageNet's normalisation into their own inside.
_OWN_NORMALISATION = ("googlenet", "inception_v3")


def from_name(
    name: str,
    weights: str | None,
    figures: Normalisation | None,
    size: int | None,
    num_classes: int | None,
) -> Classifier:
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
    bare = name.removeprefix(TORCHVISION)
    entry, certain = official_weights(bare, weights) if is_torchvision(name) else (None, False)
    if certain and bare in _OWN_NORMALISATION:
        # torchvision's builder does so where it fetches the weights itself.
        spec = dataclasses.replace(spec, options={"transform_input": True})
    with isolate_rng():
        torch.manual_seed(0)
        network = make_network(spec, num_classes)
    protocol, assumed = None, ""
    if entry is not None:
        protocol, published = of_torchvision(entry, size)
        figures = figures or published
        if weights is not None and not certain:
            assumed = (
                f"{Path(weights).name} is none of the files that torchvision publishes for {bare}: it is "
                f"assumed that images are shown as to {entry}."
            )
    label = name if weights is None else f"{name}@{weights}"
    return from_network(network, label, figures, size, None, spec, protocol, assumed)
