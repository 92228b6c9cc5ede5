"""``nearfar export`` on the command line."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from typing import Literal

from nearfar.classifiers import Answers, InputOptions
from nearfar.cli.display import console, shown_progress
from nearfar.cli.parsing import parse_call
from nearfar.deploy import ExportResult, export_looks
from nearfar.deploy import export as export_model
from nearfar.progress import Progress, silent

EXAMPLES = """\
  nearfar export runs/digits_si/weights.safetensors --out digits.onnx
  nearfar export resnet18@pretrained --out resnet18.pt2
  nearfar export resnet20_cifar@weights.th --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225 \\
      --out resnet20.onnx
  nearfar export runs/wrap/weights.safetensors --looks onnx --out wrapped
"""


def export(
    model: str,
    *,
    out: Path,
    mean: tuple[float, ...] = (),
    std: tuple[float, ...] = (),
    size: int | None = None,
    num_classes: int | None = None,
    answers: Answers | None = None,
    output: str | None = None,
    crop_pct: float | None = None,
    tolerance: float = 1e-4,
    looks: Literal["onnx", "pt2"] | None = None,
    progress: Progress = silent,
) -> tuple[ExportResult, ...]:
    """Writes a classifier as a file that runs without nearfar: ONNX, or a program of torch.export.

    The file takes images [B, C, H, W] of values from 0 to 1, normalises them itself and gives logits.
    Number and size of the images are left open where the network allows it. Before the file replaces an
    earlier one, its logits for random images of several sizes are compared with the network's. Its input
    spec (how an image becomes its input, and the names of the classes) is stored inside it and beside it.

    Args:
        model: a checkpoint, a .pt2, NAME@WEIGHTS, hub:OWNER/NAME or package.module:network.
        out: the file, which ends in .onnx or .pt2; an earlier export of that name is replaced.
        mean: of the channels, of values from 0 to 1: what the network's input is normalised by.
        std: their standard deviations.
        size: side of the canvas in pixels, where the model does not say.
        num_classes: how many classes, where the model does not say.
        answers: logits or probabilities: what the model's numbers are, where a few images do not show it.
        output: name of the output with the classes' numbers, where the model has several.
        crop_pct: which share of an image's side the canvas shows; 1: all of it. Default: the model's own.
        tolerance: how far an answer may differ, as a share of the largest answer to the batch.
        looks: onnx or pt2: write a cascade as one such file for each look, and cascade.json, into the folder
            out; an engine that stops where it is sure then pays for the looks it needs.
        progress: called after each step.
    """
    described = InputOptions(mean, std, size, num_classes, answers, output, crop_pct)
    if looks is not None:
        described.check_unset(model)
        return export_looks(model, out, ending=f".{looks}", tolerance=tolerance, progress=progress)
    settings = dataclasses.asdict(described)
    return (export_model(model, out, **settings, tolerance=tolerance, progress=progress),)


def run(arguments: list[str]) -> None:
    """Parses, runs, shows."""
    options = parse_call(export, arguments, EXAMPLES, positional=True)
    with shown_progress() as progress:
        results = export(**options, progress=progress)
    for result in results:
        _show(result)


def _show(result: ExportResult) -> None:
    shapes = ", ".join("×".join(map(str, shape)) for shape in result.shapes)
    quoted = shlex.quote(str(result.path))
    lines = [
        f"{result.path} takes {result.openness}; its input spec is in it and in {result.input_spec_path}.",
        f"Its answers differ from the network's by {result.error:.1g} of the largest at most (on random "
        f"images of {shapes}).",
        *result.notes,
        f"\nNext:\n  nearfar predict {quoted} IMAGE\n  nearfar audit {quoted} --data DATA",
    ]
    console.print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)
