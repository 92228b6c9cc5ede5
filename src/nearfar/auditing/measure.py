"""``nearfar audit``: how well a trained net knows things that are nearer or farther."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nearfar.atomic import make_folder, write_atomically
from nearfar.auditing.accuracy import ScaleCurve
from nearfar.auditing.cost import Cost, cost_of
from nearfar.data import DataSpec, ScaleData
from nearfar.data.sources import is_own
from nearfar.errors import InputError
from nearfar.progress import Progress, Step, silent
from nearfar.scale_sets import as_scales
from nearfar.training import Checkpoint, load_checkpoint
from nearfar.training.same_data import what_changed

__all__ = ["AuditResult", "audit"]


@dataclass(frozen=True)
class AuditResult:
    """What an audit found.

    Attributes:
        model: the net's name.
        source: the data set's name.
        curve: all answers, and accuracy against scale computed from them.
        cost: parameters and multiplications.
    """

    model: str
    source: str
    curve: ScaleCurve
    cost: Cost

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON; accuracies are fractions, keyed by scale."""
        return {
            "schema": "nearfar.audit/1",
            "model": self.model,
            "source": self.source,
            "test_images": len(self.curve.labels),
            **self.curve.as_dict(),
            **dataclasses.asdict(self.cost),
        }


def audit(
    checkpoint: Path | str,
    data: str = "",
    root: Path | str | None = None,
    scales: tuple[float, ...] = (),
    images: int = 0,
    out: Path | str | None = None,
    batch_size: int = 128,
    progress: Progress = silent,
) -> AuditResult:
    """Measures a trained net's accuracy on test images shown at several scales.

    Test images are those that the net's own training put aside; of another data set than it was
    trained on, those that the same split puts aside there. They are shown on the net's own canvas.

    Args:
        checkpoint: a ``weights.safetensors`` written by ``nearfar train`` or ``nearfar quickstart``.
        data: name of the data set; default: the one it was trained on.
        root: folder that holds the data set; not needed for ``digits``.
        scales: at which scales; default: those of the net's protocol.
        images: how many test images, all classes in proportion; 0 takes all.
        out: folder for ``audit.json``; default: write nothing.
        batch_size: images at a time; it does not change the result.
        progress: called after each scale.

    Raises:
        InputError: no such checkpoint or data set, a data set of other classes or channels, the net's own
            data set with other images than in training, or a number out of range.
    """
    if images < 0 or batch_size < 1:
        raise InputError(
            f"images must be at least 0 and batch_size at least 1, got {images} and {batch_size}"
        )
    wanted = as_scales(scales) if scales else ()
    if len(set(wanted)) < len(wanted):
        raise InputError(f"scales names a scale twice: {wanted}")
    file = None if out is None else _claim(Path(out))
    trained = load_checkpoint(checkpoint)
    spec = trained.recipe.data
    spec = dataclasses.replace(
        spec,
        source=data or spec.source,
        root=Path(root) if root else spec.root,
        test=images or spec.test,
    )
    shown = ScaleData(spec)
    _check_fit(trained, shown)
    wanted = wanted or spec.protocol.test_scales
    answers = []
    for done, scale in enumerate(wanted):
        answers.append(_answers(trained.model, shown.images("test", scale), batch_size))
        progress(
            Step(f"auditing {trained.recipe.model.name}", done + 1, len(wanted), f"{scale:g}×")
        )
    result = AuditResult(
        trained.recipe.model.name,
        spec.source,
        ScaleCurve(wanted, torch.stack(answers), shown.labels("test")),
        cost_of(trained.model, shown.images("test", 1.0)[0]),
    )
    if file is not None:
        write_atomically(file, json.dumps(result.as_dict(), indent=2) + "\n")
    return result


def _claim(out: Path) -> Path:
    """Where the result will go, found writable before the work is done."""
    make_folder(out)
    file = out / "audit.json"
    if file.exists() and "nearfar.audit/" not in file.read_text(errors="replace"):
        raise InputError(f"{file} is not an audit of nearfar's; choose another folder with --out")
    return file


def _answers(model: nn.Module, images: Tensor, batch_size: int) -> Tensor:
    images = images.contiguous(memory_format=torch.channels_last)
    batch_size = min(batch_size, len(images))
    with torch.inference_mode():
        return torch.cat([model(part).argmax(dim=1) for part in torch.split(images, batch_size)])


def _check_fit(trained: Checkpoint, shown: ScaleData) -> None:
    here, there = shown.class_names, trained.class_names
    if here != there or shown.in_chans != trained.record["in_chans"]:
        raise InputError(
            f"{trained.path} knows the {len(there)} classes {_some(there)} in images of "
            f"{trained.record['in_chans']} channels, {shown.spec.source} has the {len(here)} classes "
            f"{_some(here)} in {shown.in_chans}; audit it on data of its own classes"
        )
    # Older records lack the key.
    changed = what_changed(trained.record.get("data"), shown.fingerprint())
    if changed and _is_its_own(trained.recipe.data, shown.spec):
        raise InputError(
            f"the images of {shown.spec.source} are not those that {trained.path} was trained with: "
            f"{changed}, so that it may have learnt images of this test; audit it on the data as "
            f"they were, or train it again"
        )


def _is_its_own(learnt: DataSpec, shown: DataSpec) -> bool:
    """Whether a data set is the one that was trained on: anybody's images are another in another place."""
    if shown.source != learnt.source or not is_own(shown.source):
        return shown.source == learnt.source
    return _place(shown.root) == _place(learnt.root)


def _place(root: Path | None) -> Path | None:
    return None if root is None else root.resolve()


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:3]) + (" …" if len(names) > 3 else "")
