"""Weights and their story in one safetensors file: what net, what data, how trained."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from nearfar.atomic import write_atomically
from nearfar.data import DataSpec, Normalisation, Normalised
from nearfar.errors import InputError
from nearfar.training.network import make_network
from nearfar.training.specs import Recipe

__all__ = [
    "TRAINED_OPTIONS",
    "Checkpoint",
    "load_checkpoint",
    "read_record",
    "save_checkpoint",
    "unfilled",
]

#: In a record: the options of training, where the network was built with others afterwards.
TRAINED_OPTIONS = "trained_options"
_KEY = "nearfar"
_FORMAT = 1


@dataclass(frozen=True)
class Checkpoint:
    """A trained network and its record.

    Attributes:
        path: the file.
        model: the network, in eval mode, on the CPU; it takes images of values from 0 to 1 and does
            what normalisation it was trained with itself.
        recipe: what it was trained with; where the record has ``trained_options``, with those in place
            of the model's (:func:`~nearfar.training.with_options`).
        record: everything the file says of itself: recipe, classes, best epoch, versions, and
            under ``normalisation`` mean and standard deviation of the channels, or ``None``.
    """

    path: Path
    model: nn.Module
    recipe: Recipe
    record: dict[str, Any]

    @property
    def data(self) -> DataSpec | None:
        """The images that it was trained on; ``None`` where there were none with labels."""
        return None if self.record.get("without_data") else self.recipe.data

    @property
    def class_names(self) -> tuple[str, ...]:
        """What the net's answers stand for, in order."""
        return tuple(self.record["class_names"])


def save_checkpoint(path: Path, model: nn.Module, record: dict[str, Any]) -> None:
    """Writes a network whole or not at all.

    Tensors that the network shares between places are stored once, under their first name.

    Args:
        path: file to write.
        model: the network, without its normalisation: that stands in the record.
        record: the recipe's ``as_dict()`` under ``recipe``, ``in_chans``, ``class_names`` and more.
    """
    kept = {name: tensor.detach().contiguous() for name, tensor in _unique(model).items()}
    text = json.dumps({"format": _FORMAT, **record}, sort_keys=True)
    write_atomically(path, save(kept, metadata={_KEY: text}))


def read_record(path: Path | str) -> dict[str, Any]:
    """What a checkpoint says of itself, without building the network.

    Raises:
        InputError: no such file, or not a nearfar checkpoint.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(
            f"no checkpoint at {path}; name the weights.safetensors that 'nearfar train' wrote"
        )
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
    except SafetensorError as cause:
        raise InputError(f"{path} is not a safetensors file, or is cut off: {cause}") from cause
    if _KEY not in metadata:
        raise InputError(
            f"{path} holds weights without nearfar's record of the network they belong to; name a "
            f"weights.safetensors that 'nearfar train' wrote"
        )
    try:
        record: dict[str, Any] = dict(json.loads(metadata[_KEY]))
    except ValueError as cause:
        raise InputError(f"{path}: nearfar's record in it cannot be read: {cause}") from cause
    if record.get("format") != _FORMAT:
        raise InputError(
            f"{path} has checkpoint format {record.get('format')}, this nearfar reads {_FORMAT}; "
            f"train again or install the nearfar that wrote it ({record.get('nearfar')})"
        )
    missing = [key for key in ("recipe", "in_chans", "class_names") if key not in record]
    if missing:
        raise InputError(f"{path}: nearfar's record in it lacks {', '.join(missing)}")
    return record


def load_checkpoint(path: Path | str, network: nn.Module | None = None) -> Checkpoint:
    """Reads a network that :func:`save_checkpoint` wrote.

    Args:
        path: the file.
        network: one to fill, without its normalisation, where no name builds it.

    Raises:
        InputError: no such file, not a nearfar checkpoint, or tensors that do not fit the network.
    """
    path = Path(path)
    record = read_record(path)
    recipe = Recipe.from_dict(record["recipe"])
    if network is None and not record.get("rebuilt", True):
        raise InputError(
            f"{path} was converted from a module that only Python builds ({recipe.model.name}); read it with "
            f"nearfar.load_checkpoint(path, network), where network is converted alike"
        )
    model = network or unfilled(recipe, record)
    with safe_open(str(path), framework="pt") as file:
        stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    places = _unique(model)
    wrong = sorted(
        name
        for name in stored.keys() | places.keys()
        if name not in stored or name not in places or stored[name].shape != places[name].shape
    )
    if wrong:
        raise InputError(
            f"{path} does not fit the model {recipe.model.name!r}: {', '.join(wrong[:5])}"
            f"{' …' if len(wrong) > 5 else ''} missing, unknown or of another shape"
        )
    with torch.no_grad():
        for name, tensor in stored.items():
            places[name].copy_(tensor)
    if record.get("normalisation") is not None:  # older records lack the key
        model = Normalised(model, Normalisation(**record["normalisation"]))
    return Checkpoint(path, model.eval(), recipe, record)


def unfilled(recipe: Recipe, record: dict[str, Any]) -> nn.Module:
    """The recipe's network for a record's classes and channels, before it has the trained weights."""
    return make_network(
        recipe.model,
        len(record["class_names"]),
        record["in_chans"],
        side=max(recipe.data.protocol.canvas_size),
        weights=False,
    )


def _unique(model: nn.Module) -> dict[str, Tensor]:
    """The state dict with each shared tensor once."""
    seen: set[int] = set()
    unique: dict[str, Tensor] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            unique[name] = tensor
    return unique
