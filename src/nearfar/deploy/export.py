"""export: a classifier becomes a file that runs without nearfar."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from nearfar.atomic import atomic_path, write_atomically
from nearfar.classifiers import Answers, Classifier, InputSpec, Model, load_classifier
from nearfar.classifiers.exported_files import input_spec_path
from nearfar.deploy.capture import Openness, captured, ways
from nearfar.deploy.checking import Checked, DifferentError, checked
from nearfar.deploy.formats import Format, format_of, refuse_what_is_not_ours
from nearfar.errors import InputError, first_line
from nearfar.progress import Progress, Step, silent

__all__ = ["ExportResult", "export"]


@dataclass(frozen=True)
class ExportResult:
    """What was exported, and how well it was found to agree.

    Attributes:
        path: the file.
        input_spec_path: its input spec, as JSON beside it.
        input_spec: the same, as it stands in the file.
        openness: which sizes of the input are open.
        error: the largest difference between the file's answers and the network's, as a share of the
            network's largest answer to the same batch.
        shapes: of the batches of random images that this was measured on.
        notes: what could not be left open and why, in sentences.
    """

    path: Path
    input_spec_path: Path
    input_spec: InputSpec
    openness: Openness
    error: float
    shapes: tuple[tuple[int, ...], ...]
    notes: tuple[str, ...] = ()


def export(
    model: Model,
    out: str | Path,
    *,
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
    size: int | None = None,
    num_classes: int | None = None,
    answers: Answers | None = None,
    output: str | None = None,
    crop_pct: float | None = None,
    tolerance: float = 1e-4,
    progress: Progress = silent,
) -> ExportResult:
    """Writes a classifier as a file that runs without nearfar: ONNX, or a program of ``torch.export``.

    The file takes images ``[B, C, H, W]`` of values from 0 to 1, normalises them itself and gives logits
    ``[B, K]``, in float32. Number and size of the images are left open where the network bears it; where it
    does not, the size is the canvas's, and the result's notes say why.

    Before the file replaces an earlier one, its logits for random images of several sizes are compared with
    the network's (an ONNX file's by onnxruntime). Its input spec (how an image becomes its input, and the
    names of the classes) is stored inside it and as JSON beside it, so that :func:`nearfar.predict` and
    :func:`nearfar.audit` can use the file at once.

    Args:
        model: what :func:`nearfar.load_classifier` takes, as far as its network is there: not an ONNX file,
            not a function. It is copied, and left as it is.
        out: the file, which ends in ``.onnx`` or ``.pt2``. An earlier export of that name is replaced.
        mean, std, size, num_classes, answers, output, crop_pct: as in :func:`nearfar.load_classifier`.
        tolerance: how far an answer may differ, as a share of the network's largest answer to the same
            batch of images.
        progress: called after each step.

    Returns:
        What was written and checked.

    Raises:
        InputError: nothing that can be exported, a file that is not an export of nearfar's in the way, or
            answers that differ by more than ``tolerance``: then nothing is written.

    Limits:
        ONNX files hold less than 2 GiB. The comparison is with the network in float32 on the CPU.
    """
    out = Path(out)
    kind = format_of(out)
    if not tolerance > 0:
        raise InputError(f"tolerance must be above 0, got {tolerance}")
    progress(Step("opening", 0, 3))
    opened = load_classifier(model, mean, std, size, num_classes, answers, output, crop_pct)
    network = _network(opened)
    kind.prepare(network, out)
    refuse_what_is_not_ours(out, kind)
    return _first_that_works(opened, network, kind, out, tolerance, progress)


def _first_that_works(
    opened: Classifier,
    network: nn.Module,
    kind: Format,
    out: Path,
    tolerance: float,
    progress: Progress,
) -> ExportResult:
    """Exports with as many sizes left open as the network allows."""
    notes: list[str] = []
    failed: Exception | None = None
    tries = ways(opened.input_spec)
    if not opened.input_spec.any_size:
        notes.append(f"The image size is fixed: {opened.name} takes images of one size only.")
    for openness in tries:
        input_spec = dataclasses.replace(opened.input_spec, any_size=openness.image)
        progress(Step("following the network", 1, 3, f"({openness})"))
        try:
            outcome = _written(network, input_spec, openness, kind, out, tolerance, progress)
        except Exception as cause:  # whatever the network makes the exporters trip over
            if isinstance(cause, (InputError, OSError, MemoryError)):
                raise
            failed = failed if _differs(failed) and not _differs(cause) else cause
            notes.append(_note(openness, cause))
            continue
        write_atomically(input_spec_path(out), input_spec.as_json())
        progress(Step("written", 3, 3))
        return ExportResult(
            out,
            input_spec_path(out),
            input_spec,
            openness,
            outcome.error,
            outcome.shapes,
            tuple(notes),
        )
    assert failed is not None, "at least one way is tried"
    raise _refusal(opened.name, failed, tolerance) from failed


def _network(opened: Classifier) -> nn.Module:
    """A copy of the network: eval mode, float32, on the CPU."""
    if opened.module is None:
        raise InputError(
            f"{opened.name} can only be asked, not exported: export the network it was made from (a "
            f"checkpoint, a name with weights, an nn.Module, or a .pt2)"
        )
    network = copy.deepcopy(opened.module)
    for part in network.modules():  # a .pt2 refuses eval()
        part.training = False
    return network.to("cpu", torch.float32).requires_grad_(False)


def _written(
    network: nn.Module,
    input_spec: InputSpec,
    openness: Openness,
    kind: Format,
    out: Path,
    tolerance: float,
    progress: Progress,
) -> Checked:
    program = captured(network, input_spec, openness)
    with atomic_path(out) as temporary:
        kind.write(program, input_spec.as_json(), temporary, openness)
        progress(Step("comparing", 2, 3))
        return checked(network, kind.run(temporary), input_spec, openness, tolerance)


def _differs(failed: Exception | None) -> bool:
    return isinstance(failed, DifferentError) and failed.error is not None


def _note(openness: Openness, cause: Exception) -> str:
    what = "The image size is" if openness.image else "The number of images is"
    return f"{what} fixed, because with {openness}: {first_line(cause)}."


def _refusal(name: str, failed: Exception, tolerance: float) -> InputError:
    if isinstance(failed, DifferentError) and failed.error is not None:
        return InputError(
            f"{name} is not exported: {failed}, where the tolerance is {tolerance:g}; raise tolerance if "
            f"that is good enough, or replace the layer that does not export faithfully (resizing with "
            f"antialias and scale_factor does not; with size it does)"
        )
    return InputError(
        f"{name} cannot be exported: {first_line(failed)}; a network that leads its images through tensor "
        f"operations alone can be"
    )
