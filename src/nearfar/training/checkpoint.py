"""Checkpoints: weights in a safetensors file, with the network, data and recipe in its metadata."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from nearfar.atomic import write_atomically
from nearfar.data import DataSpec, Normalisation, Normalised
from nearfar.errors import InputError, first_line
from nearfar.records import as_typed, parse_json, short_repr
from nearfar.training.construction import construction_limit
from nearfar.training.network import make_network
from nearfar.training.specs import ModelSpec, Recipe

__all__ = [
    "TRAINED_OPTIONS",
    "Checkpoint",
    "data_change",
    "load_checkpoint",
    "read_record",
    "save_checkpoint",
    "save_weights",
    "unique_state",
    "with_options",
]

#: In a record: the options of training, where the network was built with others afterwards.
TRAINED_OPTIONS = "trained_options"
_KEY = "nearfar"
_FORMAT = 1
#: Options of timm's and torchvision's builders that name files or addresses.
_SOURCES = {
    *(
        "cache_dir",
        "checkpoint_path",
        "pretrained_cfg",
        "pretrained_cfg_overlay",
        "pretrained_file",
    ),
    *("weights", "weights_backbone"),
}
#: Types of what is read of a record. What else it holds is passed on as it is.
_FIELDS: dict[str, Any] = {
    "recipe": dict[str, Any],
    "in_chans": int,
    "class_names": list[str],
    "normalisation": Normalisation | None,
    "rebuilt": bool,
    "without_data": bool,
    "classes_named": bool,
    "data": dict[str, Any] | None,
    "edition": str | None,
    "best_epoch": int | None,
    "validation_accuracy": float | None,
    "validation_loss": float | None,
    TRAINED_OPTIONS: dict[str, Any] | None,
}
_VALIDATION = ("validation_accuracy", "validation_loss")


@dataclass(frozen=True)
class Checkpoint:
    """A trained network and its record.

    Attributes:
        path: the file.
        model: the network, in eval mode, on the CPU; it takes images of values from 0 to 1 and
            normalises them itself as in training.
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
        """The classes, in the order of the logits."""
        return tuple(self.record["class_names"])


def save_checkpoint(path: Path, model: nn.Module, record: dict[str, Any]) -> None:
    """Writes a network whole or not at all.

    Args:
        path: file to write.
        model: the network, without its normalisation, which belongs in the record.
        record: the recipe's ``as_dict()`` under ``recipe``, ``in_chans``, ``class_names`` and more.
    """
    save_weights(path, unique_state(model), record)


def save_weights(path: Path, weights: Mapping[str, Tensor], record: dict[str, Any]) -> None:
    """:func:`save_checkpoint` for the network's :func:`unique_state` in place of the network."""
    tensors = {name: tensor.detach().contiguous() for name, tensor in weights.items()}
    text = json.dumps({"format": _FORMAT, **record}, sort_keys=True)
    write_atomically(path, save(tensors, metadata={_KEY: text}))


def read_record(path: Path | str) -> dict[str, Any]:
    """The record in a checkpoint, without building the network.

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
    name, mend = f"nearfar's record in {path}", "take a whole copy of the file, or train again"
    record = as_typed(dict[str, Any], parse_json(metadata[_KEY], name, mend, finite=False), name)
    if record.get("format") != _FORMAT:
        raise InputError(
            f"{path} has checkpoint format {short_repr(record.get('format'))}, this nearfar reads {_FORMAT}; "
            f"train again or install the nearfar that wrote it ({str(record.get('nearfar'))[:20]})"
        )
    missing = [key for key in ("recipe", "in_chans", "class_names") if key not in record]
    if missing:
        raise InputError(f"{name} lacks {', '.join(missing)}; {mend}")
    for key in _FIELDS.keys() & record.keys():
        as_typed(_FIELDS[key], record[key], f"{name}: {key}")
    if record["in_chans"] < 1 or not record["class_names"]:
        raise InputError(f"{name} must have a channel and a class at least; {mend}")
    return dict(record)


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
    stored = _tensors(path)
    model = network or _build(recipe, record, stored)
    state = unique_state(model)
    misfits = sorted(
        name
        for name in stored.keys() | state.keys()
        if name not in stored or name not in state or stored[name].shape != state[name].shape
    )
    if misfits:
        raise InputError(
            f"{path} does not fit the model {recipe.model.name!r}: {', '.join(misfits[:5])}"
            f"{' …' if len(misfits) > 5 else ''} missing, unknown or of another shape"
        )
    with torch.no_grad():
        for name, tensor in stored.items():
            state[name].copy_(tensor)
    if record.get("normalisation") is not None:
        model = Normalised(model, Normalisation(**record["normalisation"]))
    return Checkpoint(path, model.eval(), recipe, record)


def with_options(path: Path | str, options: Mapping[str, Any], out: Path | str) -> Checkpoint:
    """The same weights in a network that is built with other options, as a checkpoint of its own.

    Scales that a network shares its weights over can be other ones after training: more of them cost
    time and no parameter.

    Args:
        path: the checkpoint.
        options: of the model, beside or in place of those it has, such as
            ``{"scales": [0.7, 1.0, 1.4, 2.0, 2.8]}``.
        out: file to write; none that exists.

    Returns:
        The new checkpoint. Its recipe names the new options; its record keeps those of training under
        ``trained_options``, and no validation figures, which were the old network's.

    Raises:
        InputError: not a nearfar checkpoint that a name builds, an option that the model does not know
            or refuses, options with which the weights do not fit, or a file in the way.

    Limits:
        Weights fit where names and shapes do. Those that belong to a scale by its position
        (``reduction: learned``) are right for the scales of training alone. The scales of a converted
        network are its conversion's: convert its original again with other ones.
    """
    path, out = Path(path), Path(out)
    if not isinstance(options, Mapping):
        raise InputError(
            f"options must be given by name, such as {{'scales': [0.5, 1.0]}}, got {options!r}"
        )
    if out.exists():
        raise InputError(f"{out} exists; name a file that does not, nothing is written over")
    record = read_record(path)
    if not record.get("rebuilt", True):
        load_checkpoint(path)  # raises: only Python builds this network
    recipe = Recipe.from_dict(record["recipe"])
    old_options = recipe.model.options
    model = dataclasses.replace(recipe.model, options={**old_options, **dict(options)})
    recipe = dataclasses.replace(recipe, model=model)
    try:
        network = _build(recipe, record, _tensors(path))
        load_checkpoint(path, network)
    except InputError as cause:
        hint = (
            "; a converted network's scales are its conversion's: convert its original again with other ones"
            if recipe.model.convert is not None
            else ""
        )
        raise InputError(f"{path} with options {dict(options)}: {cause}{hint}") from cause
    new_record = {key: value for key, value in record.items() if key not in _VALIDATION}
    new_record["recipe"] = recipe.as_dict()
    new_record.setdefault(TRAINED_OPTIONS, old_options)
    save_checkpoint(out, network, new_record)
    return load_checkpoint(out)


def data_change(old: dict[str, Any] | None, new: dict[str, Any]) -> str:
    """How the images differ from those of training, in words; empty where they do not.

    Args:
        old: the fingerprint (:meth:`nearfar.data.ScaleDataModule.fingerprint`) in the record; a record
            without one is compared with nothing.
        new: that of the data as they are.
    """
    if old is None or old == new:
        return ""
    if old.get("images") != new["images"]:
        return f"{short_repr(old.get('images'))} images then, {new['images']} now"
    return f"{new['images']} images then and now, with other labels, in another order or parted otherwise"


def unique_state(model: nn.Module) -> dict[str, Tensor]:
    """The state dict, with each tensor that several modules share once, under its first name."""
    ids: set[int] = set()
    unique: dict[str, Tensor] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in ids:
            ids.add(id(tensor))
            unique[name] = tensor
    return unique


def _without_sources(spec: ModelSpec) -> ModelSpec:
    """A recorded spec as far as it says how a network is built; its weights are in the checkpoint itself.

    Raises:
        InputError: options that would make building it fetch or read something else.
    """
    options = {key: value for key, value in spec.options.items() if key != "pretrained"}
    sources = sorted(options.keys() & _SOURCES)
    if sources:
        raise InputError(
            f"the record of {spec.name} has the options {', '.join(sources)}, with which opening it would "
            f"fetch or read other files; train or save it again without {', '.join(sorted(_SOURCES))}"
        )
    return dataclasses.replace(spec, options=options)


def _tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file that :func:`read_record` has read."""
    with safe_open(str(path), framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def _build(recipe: Recipe, record: dict[str, Any], weights: Mapping[str, Tensor]) -> nn.Module:
    """The recipe's network for a record's classes and channels, without the trained weights.

    Args:
        recipe, record: from the file.
        weights: the trained ones: a network much larger than they are is not begun to be built.
    """
    spec = _without_sources(recipe.model)
    numbers = sum(tensor.numel() for tensor in weights.values())
    try:
        with construction_limit(numbers, len(weights)):
            return make_network(
                spec,
                len(record["class_names"]),
                record["in_chans"],
                side=max(recipe.data.protocol.canvas_size),
                weights=False,
            )
    except InputError:
        raise
    except Exception as cause:  # whatever anybody's builder makes of wrong options
        raise InputError(
            f"the network {spec.name!r} cannot be built as its record says: {first_line(cause)}; take a "
            f"whole copy of the file, or train again"
        ) from cause
