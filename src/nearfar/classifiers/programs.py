"""Classifiers from programs of ``torch.export``: ``.pt2``."""

from __future__ import annotations

from pathlib import Path

import torch
from torch.export import ExportedProgram

from nearfar.classifiers.classifier import Classifier
from nearfar.classifiers.files import classifier_of
from nearfar.data import Normalisation
from nearfar.errors import InputError

__all__ = ["CARD", "from_program"]

#: Under which name a program carries its input spec.
CARD = "nearfar.json"


def from_program(
    path: Path,
    figures: Normalisation | None = None,
    size: int | None = None,
    num_classes: int | None = None,
) -> Classifier:
    """Opens a program; it computes on the device it was exported for.

    Args:
        path: the file.
        figures, size, num_classes: what a program that was not exported by nearfar does not say of
            itself.

    Raises:
        InputError: no such file, not a program for images, or settings that its input spec has settled.
    """
    if not path.is_file():
        raise InputError(f"no program at {path}; name a .pt2 that torch.export.save wrote")
    carried = {CARD: ""}
    try:
        program = torch.export.load(str(path), extra_files=carried)
    except Exception as cause:  # whatever the damage makes the reader trip over
        reason = str(cause).strip().partition("\n")[0]
        raise InputError(
            f"{path} cannot be read as a program of torch.export: {reason}; export it again"
        ) from cause
    module = program.module()
    shape = _input_shape(program, path)
    return classifier_of(path, module, module, shape, carried[CARD], figures, size, num_classes)


def _input_shape(program: ExportedProgram, path: Path) -> list[int | None]:
    """Sizes of the one input, ``None`` for those left open."""
    inputs = program.graph_signature.user_inputs
    shapes = [
        n.meta["val"].shape for n in program.graph.nodes if n.name in inputs and "val" in n.meta
    ]
    if len(shapes) != 1 or len(shapes[0]) != 4:
        raise InputError(
            f"{path} takes {len(inputs)} inputs where one tensor of images [B, C, H, W] is expected; export "
            f"a classifier of images"
        )
    return [n if isinstance(n, int) else None for n in shapes[0]]
