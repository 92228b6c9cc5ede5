"""A cascade as one file for each look, for an engine that stops where it is sure."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from torch import nn

from nearfar.atomic import make_folder, write_atomically
from nearfar.classifiers import Classifier, Model, load_classifier
from nearfar.data import Normalised
from nearfar.deploy.export import ExportResult, export
from nearfar.deploy.formats import FORMATS
from nearfar.errors import InputError
from nearfar.models import CascadeNet, HierarchicalNet
from nearfar.models.modes import evaluating
from nearfar.progress import Progress, silent

__all__ = ["CASCADE_FILE", "export_looks"]

#: What says how the looks' answers are put together.
CASCADE_FILE = "cascade.json"


def export_looks(
    model: Model,
    out: str | Path,
    *,
    ending: str = ".onnx",
    tolerance: float = 1e-4,
    progress: Progress = silent,
) -> tuple[ExportResult, ...]:
    """Writes a cascade as its parts: a file for each look, and how their answers are put together.

    A single file (:func:`nearfar.export`) has a cascade's answers at the cost of all looks, since an exported
    network does the same for every image. Here ``look1.onnx`` takes images and gives the log-probabilities of
    the first level, ``look2.onnx`` those of the second, and so on; ``cascade.json`` says what is sure:
    ``{"looks": [file, …], "scales": […], "reduction": …, "threshold": …}``. Whoever runs them asks the first
    look about all images and every further one about those that are not sure yet. ``docs/wrap.md`` has that
    loop in NumPy.

    Args:
        model: a cascade: a checkpoint that ``nearfar wrap`` wrote, or anything else that
            :func:`nearfar.load_classifier` takes.
        out: the folder. Earlier exports in it are replaced.
        ending: ``.onnx`` or ``.pt2``.
        tolerance: as in :func:`nearfar.export`.
        progress: called after each step.

    Returns:
        What was written and checked, in the order of the looks.

    Raises:
        InputError: another ending, a model that is no cascade, or as :func:`nearfar.export`.
    """
    out = Path(out)
    if ending not in FORMATS:
        raise InputError(f"ending must be one of {', '.join(FORMATS)}, got {ending!r}")
    opened = load_classifier(model)
    module = opened.module
    cascade = module.network if isinstance(module, Normalised) else module
    if not isinstance(cascade, CascadeNet):
        raise InputError(
            f"{opened.name} is no cascade and has no looks; export it as one file, or wrap it with a cascade"
        )
    make_folder(out)
    results = []
    for number, scale in enumerate(cascade.scales, start=1):
        look = _alone(module, cascade, scale)
        spec = dataclasses.replace(
            opened.input_spec, name=f"{opened.name}, look {number} at scale {scale:g}"
        )
        path = out / f"look{number}{ending}"
        with evaluating(look):
            classifier = Classifier(spec, look, look)
            results.append(export(classifier, path, tolerance=tolerance, progress=progress))
    record: dict[str, Any] = {
        "schema": "nearfar.cascade/1",
        "looks": [result.path.name for result in results],
        "scales": list(cascade.scales),
        "reduction": cascade.reduction,
        "threshold": cascade.threshold,
    }
    write_atomically(out / CASCADE_FILE, json.dumps(record, indent=2) + "\n")
    return tuple(results)


def _alone(module: nn.Module | None, cascade: CascadeNet, scale: float) -> nn.Module:
    """One look, with the cascade's normalisation."""
    window, temperature = cascade.window, cascade.temperature
    look = HierarchicalNet(cascade.net, (scale,), "mean", window, temperature)
    look.training = cascade.training
    if not isinstance(module, Normalised):
        return look
    return module.around(look)
