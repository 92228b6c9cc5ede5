"""export: a recogniser becomes a file that runs without nearfar."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from nearfar.atomic import atomic_path, write_atomically
from nearfar.errors import InputError
from nearfar.progress import Progress, Step, silent
from nearfar.recognisers import Card, Model, Recogniser, open_recogniser
from nearfar.recognisers.files import card_beside
from nearfar.shipping.capture import Openness, captured, ways
from nearfar.shipping.checking import Checked, DifferentError, checked
from nearfar.shipping.formats import Format, format_of, refuse_what_is_not_ours

__all__ = ["ExportResult", "export"]


@dataclass(frozen=True)
class ExportResult:
    """What was exported, and how well it was found to agree.

    Attributes:
        path: the file.
        card_path: its card, as JSON beside it.
        card: the same, as it stands in the file.
        openness: which sizes of the input are open.
        error: the largest difference between the file's answers and the network's, as a share of the
            network's largest answer to the same batch.
        shapes: of the batches of random images that this was measured on.
        notes: what could not be left open and why, in sentences.
    """

    path: Path
    card_path: Path
    card: Card
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
    tolerance: float = 1e-4,
    progress: Progress = silent,
) -> ExportResult:
    """Writes a recogniser as a file that runs without nearfar: ONNX, or a program of ``torch.export``.

    The file takes images ``[B, C, H, W]`` of values from 0 to 1, normalises them itself and gives logits
    ``[B, K]``, in float32. Number and size of the images are left open where the network bears it; where it
    does not, the size is the canvas's, and the result's notes say why.

    Before the file takes its place, its answers to random images of several sizes are compared with the
    network's (an ONNX file's by onnxruntime). Its card (how an image becomes its input, and the names of
    the classes) goes along inside it and as JSON beside it, so that :func:`nearfar.predict` and
    :func:`nearfar.audit` can use the file at once.

    Args:
        model: what :func:`nearfar.open_recogniser` takes, as far as its network is there: not an ONNX file,
            not a function. It is copied, and left as it is.
        out: the file, which ends in ``.onnx`` or ``.pt2``. An earlier export of that name is replaced.
        mean, std, size, num_classes: as in :func:`nearfar.open_recogniser`.
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
    opened = open_recogniser(model, mean, std, size, num_classes)
    network = _network(opened)
    kind.prepare(network, out)
    refuse_what_is_not_ours(out, kind)
    notes: list[str] = []
    failed: Exception | None = None
    tries = ways(opened.card)
    if not opened.card.any_size:
        notes.append(f"The image size is fixed: {opened.name} takes images of one size only.")
    for openness in tries:
        card = dataclasses.replace(opened.card, any_size=openness.image)
        progress(Step("following the network", 1, 3, f"({openness})"))
        try:
            found = _written(network, card, openness, kind, out, tolerance, progress)
        except Exception as cause:  # whatever the network makes the exporters trip over
            if isinstance(cause, (InputError, OSError, MemoryError)):
                raise
            failed = failed if _differs(failed) and not _differs(cause) else cause
            notes.append(_note(openness, cause))
            continue
        write_atomically(card_beside(out), card.as_json())
        progress(Step("written", 3, 3))
        return ExportResult(
            out, card_beside(out), card, openness, found.error, found.shapes, tuple(notes)
        )
    assert failed is not None, "at least one way is tried"
    raise _refusal(opened.name, failed, tolerance) from failed


def _network(opened: Recogniser) -> nn.Module:
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
    card: Card,
    openness: Openness,
    kind: Format,
    out: Path,
    tolerance: float,
    progress: Progress,
) -> Checked:
    program = captured(network, card, openness)
    with atomic_path(out) as temporary:
        kind.write(program, card.as_json(), temporary, openness)
        progress(Step("comparing", 2, 3))
        return checked(network, kind.run(temporary), card, openness, tolerance)


def _differs(failed: Exception | None) -> bool:
    return isinstance(failed, DifferentError) and failed.error is not None


def _note(openness: Openness, cause: Exception) -> str:
    what = "The image size is" if openness.image else "The number of images is"
    return f"{what} fixed, because with {openness}: {_first_line(cause)}."


def _refusal(name: str, failed: Exception, tolerance: float) -> InputError:
    if isinstance(failed, DifferentError) and failed.error is not None:
        return InputError(
            f"{name} is not exported: {failed}, where the tolerance is {tolerance:g}; raise tolerance if "
            f"that is good enough, or replace the layer that does not export faithfully (resizing with "
            f"antialias and scale_factor does not; with size it does)"
        )
    return InputError(
        f"{name} cannot be exported: {_first_line(failed)}; a network that leads its images through tensor "
        f"operations alone can be"
    )


def _first_line(cause: Exception) -> str:
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return (lines[0] if lines else type(cause).__name__).rstrip(".")
