"""A trained network built anew with other options, such as more scales to look at."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nearfar.errors import InputError
from nearfar.training.checkpoint import (
    Checkpoint,
    load_checkpoint,
    read_record,
    save_checkpoint,
)
from nearfar.training.network import make_network
from nearfar.training.specs import Recipe

__all__ = ["with_options"]


def with_options(path: Path | str, options: Mapping[str, Any], out: Path | str) -> Checkpoint:
    """The same weights in a network that is built with other options, as a checkpoint of its own.

    Scales that a network shares its weights over can be other ones after training: more of them cost
    time and no parameter.

    Args:
        path: the checkpoint.
        options: of the model (``nearfar.list_models()``), beside or in place of those it has, such as
            ``{"scales": [0.7, 1.0, 1.4, 2.0, 2.8]}``.
        out: file to write; none that exists.

    Raises:
        InputError: not a nearfar checkpoint that a name builds, an option that the model does not know
            or refuses, options with which the weights do not fit, or a file in the way.
    """
    path, out = Path(path), Path(out)
    if out.exists():
        raise InputError(f"{out} exists; name a file that does not, nothing is written over")
    record = read_record(path)
    if not record.get("rebuilt", True):
        load_checkpoint(path)  # which says that only Python builds this network
    recipe = Recipe.from_dict(record["recipe"])
    model = dataclasses.replace(recipe.model, options={**recipe.model.options, **dict(options)})
    recipe = dataclasses.replace(recipe, model=model)
    network = make_network(
        model,
        len(record["class_names"]),
        record["in_chans"],
        side=recipe.data.protocol.canvas,
        weights=False,
    )
    load_checkpoint(path, network)
    save_checkpoint(out, network, {**record, "recipe": recipe.as_dict()})
    return load_checkpoint(out)
