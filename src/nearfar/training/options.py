"""A trained network built anew with other options, such as more scales to look at."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nearfar.errors import InputError
from nearfar.training.checkpoint import (
    TRAINED_OPTIONS,
    Checkpoint,
    load_checkpoint,
    read_record,
    save_checkpoint,
    unfilled,
)
from nearfar.training.specs import Recipe

__all__ = ["with_options"]

_OF_THE_OLD = ("validation_accuracy", "validation_loss")


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
        (``vote: learned``) are right for the scales of training alone. The scales of a converted
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
        load_checkpoint(path)  # which says that only Python builds this network
    recipe = Recipe.from_dict(record["recipe"])
    before = recipe.model.options
    model = dataclasses.replace(recipe.model, options={**before, **dict(options)})
    recipe = dataclasses.replace(recipe, model=model)
    try:
        network = unfilled(recipe, record)
        load_checkpoint(path, network)
    except InputError as cause:
        hint = (
            "; a converted network's scales are its conversion's: convert its original again with other ones"
            if recipe.model.convert is not None
            else ""
        )
        raise InputError(f"{path} with options {dict(options)}: {cause}{hint}") from cause
    kept = {key: value for key, value in record.items() if key not in _OF_THE_OLD}
    kept |= {
        "recipe": recipe.as_dict(),
        TRAINED_OPTIONS: record.get(TRAINED_OPTIONS, before),
    }
    save_checkpoint(out, network, kept)
    return load_checkpoint(out)
