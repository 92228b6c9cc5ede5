"""Classifiers from what nearfar wrote."""

from __future__ import annotations

from pathlib import Path

from nearfar.classifiers.classifier import Classifier
from nearfar.classifiers.input_spec import InputSpec
from nearfar.training import load_checkpoint

__all__ = ["from_checkpoint"]


def from_checkpoint(path: Path) -> Classifier:
    """Opens a checkpoint.

    Raises:
        InputError: as :func:`nearfar.load_checkpoint` does.
    """
    found = load_checkpoint(path)
    spec = found.recipe.model
    # A conversion of weights alone knows how many classes there are, and not what they are called.
    names = found.class_names if found.record.get("classes_named", True) else None
    count = len(found.class_names)
    input_spec = InputSpec(
        spec.name, found.record["in_chans"], found.recipe.data.protocol, count, names
    )
    return Classifier(input_spec, found.model, found.model, spec, found)
