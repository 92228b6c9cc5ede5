"""What is converted: a network, what normalises its input, and how it is built again."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass

from torch import nn

from nearfar.classifiers import Classifier
from nearfar.classifiers.answers import AsLogits
from nearfar.data import DataSpec, Normalisation, Normalised
from nearfar.errors import InputError
from nearfar.training import ModelSpec

__all__ = ["Origin", "digest", "origin_of"]


@dataclass(frozen=True)
class Origin:
    """A network before its conversion.

    Attributes:
        network: without its normalisation.
        figures: what its input is normalised by; ``None`` for nothing.
        spec: what builds it; where only the caller can, its class and a checksum of its weights.
        rebuilt: whether ``spec`` builds it.
        data: what it was trained on, where that is known.
    """

    network: nn.Module
    figures: Normalisation | None
    spec: ModelSpec
    rebuilt: bool
    data: DataSpec | None


def origin_of(opened: Classifier) -> Origin:
    """Takes a classifier apart.

    Raises:
        InputError: one that can only be asked, a program, or one that was converted before.
    """
    module = opened.module
    inside = module
    while isinstance(inside, Normalised | AsLogits):
        inside = inside.network
    if inside is None or inside.__class__.__module__.startswith("torch.fx"):
        raise InputError(
            f"{opened.name} can be asked but not rebuilt: its layers are not there to be changed; convert "
            f"the network that it was exported from"
        )
    assert module is not None, "its inside was checked"
    network, figures = module, None
    if isinstance(module, Normalised):
        network = module.network
        figures = Normalisation(
            tuple(module.mean.flatten().tolist()), tuple(module.std.flatten().tolist())
        )
    mean, std = (figures.mean, figures.std) if figures else ((), ())
    checkpoint = opened.checkpoint
    data = None
    if checkpoint is not None:
        spec = checkpoint.recipe.model
        if checkpoint.data is not None:
            data = dataclasses.replace(checkpoint.data, normalize="none")
        spec = dataclasses.replace(spec, weights=str(checkpoint.path), mean=mean, std=std)
    elif opened.spec is not None:
        spec = dataclasses.replace(opened.spec, mean=mean, std=std)
    else:
        options = {"state": digest(network)}
        spec = ModelSpec(type(inside).__name__, options, mean=mean, std=std)
    if opened.spec is not None and isinstance(network, AsLogits):
        raise InputError(
            f"{opened.name} does not answer with one logit a class, and a network by name is built again "
            f"without what turns its answers into logits; convert the nn.Module itself"
        )
    if spec.conversion is not None:
        raise InputError(
            f"{opened.name} was converted before, by {spec.conversion.name}; convert the network that it "
            f"came from ({spec.weights})"
        )
    return Origin(network, figures, spec, opened.spec is not None, data)


def digest(network: nn.Module) -> str:
    """Tells one network's weights from another's."""
    checksum = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        checksum.update(name.encode())
        checksum.update(tensor.detach().cpu().contiguous().view(-1).float().numpy().tobytes())
    return checksum.hexdigest()
