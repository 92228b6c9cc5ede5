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
    checkpoint = load_checkpoint(path)
    spec = checkpoint.recipe.model
    # A conversion of weights alone knows how many classes there are, and not what they are called.
    names = checkpoint.class_names if checkpoint.record.get("classes_named", True) else None
    count = len(checkpoint.class_names)
    input_spec = InputSpec(
        spec.name, checkpoint.record["in_chans"], checkpoint.recipe.data.protocol, count, names
    )
    return Classifier(input_spec, checkpoint.model, checkpoint.model, spec, checkpoint)
