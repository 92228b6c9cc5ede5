"""``nearfar audit``: how well any classifier knows things that are nearer or farther."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from nearfar.atomic import write_atomically
from nearfar.auditing.accuracy import ScaleCurve
from nearfar.auditing.audited_images import AuditedImages, Data, choose_images
from nearfar.auditing.audited_models import AuditedModel, Models, open_models
from nearfar.auditing.cost import Cost, cost_of, peak_memory, time_batches
from nearfar.auditing.failures import find_failures
from nearfar.auditing.findings import audit_findings
from nearfar.auditing.flips import find_flips, most_answers
from nearfar.auditing.gate import judge, read_requirements
from nearfar.auditing.layers import MOST_IMAGES, check_layers, layer_scales, score_layers
from nearfar.auditing.notes import shown_notes
from nearfar.auditing.output import SKIPPED, claim, command_of
from nearfar.auditing.predictions import predict_all
from nearfar.auditing.report import render_audit
from nearfar.auditing.result import Audit, AuditResult, Flips, LayerScores
from nearfar.data.preprocess import Background
from nearfar.data.splits import stratified_order
from nearfar.data.unreadable import listing_skipped
from nearfar.errors import InputError
from nearfar.progress import Progress, Step, silent
from nearfar.provenance import machine, today
from nearfar.scale_sets import as_scales
from nearfar.version import versions

__all__ = ["audit"]

_ROUNDS = 5


def audit(
    models: Models,
    data: Data = "",
    root: Path | str | None = None,
    scales: tuple[float, ...] = (),
    images: int = 0,
    baseline: str | None = None,
    require: tuple[str, ...] = (),
    layers: bool | tuple[str, ...] = False,
    flips: int = 200,
    max_loss: float = 0.05,
    mean: tuple[float, ...] = (),
    std: tuple[float, ...] = (),
    size: int | None = None,
    num_classes: int | None = None,
    background: Background | None = None,
    max_skipped: float | None = None,
    out: Path | str | None = None,
    batch_size: int = 128,
    progress: Progress = silent,
) -> Audit:
    """Measures how classifiers' answers change while the things on test images shrink and grow.

    Any classifier of images: what nearfar trained or converted, networks by name with anybody's weights, ONNX
    files, exported programs, functions. Each is shown the same images on its own canvas, at every
    scale. Measured are, with 95 % bootstrap intervals, the share of right answers (in all, class by class,
    and among the five likeliest), confidence and its calibration error, and how many answers change;
    then the smallest changes of scale that flip an answer, the surest mistakes, the band of scales
    where a classifier holds, and its cost.

    Of data that a checkpoint was trained on, test images are those that its training put aside; of other
    data the official test part, or all images where there is none.

    Args:
        models: a checkpoint (weights.safetensors), NAME@FILE, NAME@pretrained, NAME, x.onnx, x.pt2 or
            package.module:attribute; in Python also a network, a function, several, or several by name.
        data: name of a data set, or a folder with a sub-folder a class; default: what the first
            checkpoint was trained on.
        root: folder that holds the data set, where its name does not say.
        scales: at which scales, as factors; default: those of the baseline's protocol. 1 is added.
        images: how many test images, all classes in proportion; 0 takes all.
        baseline: name of the model that the others are compared with; default: the first.
        require: what figures must be, as top1@0.5>=0.80, band_low<=0.6, loss@1<=0.02 (against the baseline)
            or NAME:flips@2<0.1; without a name it is asked of every model but the baseline. The command ends
            with status 1 where one is not met.
        layers: measure single layers too: invariance score and equivariance error of the convolutions, or of
            the layers whose names match patterns.
        flips: for how many images the smallest flipping change of scale is searched for; 0 for none.
        max_loss: a classifier holds where its accuracy falls by at most this, as a fraction.
        mean: of the channels, by which a model's input is normalised where the model does not say.
        std: of the channels, likewise.
        size: side of a model's canvas in pixels, where the model does not say.
        num_classes: how many answers a model has, where it does not say.
        background: black, grey or edge: what content does not cover; default: as the model was trained, or
            black.
        max_skipped: which share of a folder's or stream's images may be left out because they cannot be
            read, from 0 to below 1; default: as ``data`` say, or 0.01.
        out: folder for audit.json and report.html, and audit-skipped.csv where images are left out; default:
            write nothing.
        batch_size: images at a time; it does not change the answers.
        progress: called after each batch.

    Raises:
        InputError: a model or data set that cannot be opened, data of other classes or channels than a
            model's, a checkpoint's own data with other images than in training, a requirement that cannot be
            read, or a number out of range.

    Limits:
        Logits are taken as such: of a model that answers with probabilities, confidence means nothing.
    """
    command = command_of(audit, locals())
    wanted = _checked(scales, images, flips, max_loss, batch_size)
    files = None if out is None else claim(Path(out))
    audited_models = _baseline_first(
        open_models(models, mean, std, size, num_classes, background), baseline
    )
    base = audited_models[0].name
    wanted, added = _with_one(wanted or audited_models[0].protocol.test_scales)
    for model in audited_models:
        model.protocol.check_scale(min(wanted), max(wanted))
    check_layers(audited_models, layers)
    classes = {model.name: model.classifier.input_spec.num_classes for model in audited_models}
    asked = read_requirements(require, classes, base, wanted)
    choose = partial(choose_images, data, root, audited_models, images, max_skipped)
    chosen = choose() if out is None else listing_skipped(choose, Path(out) / SKIPPED)
    work = _Work(progress, audited_models, chosen, wanted, flips, layers)
    curves = work.predict(batch_size)
    seconds, memory, batch = _timed(audited_models, chosen, batch_size)
    results = {}
    for model in audited_models:
        name, curve = model.name, curves[model.name]
        cost, uncounted = _cost(model, chosen)
        results[name] = AuditResult(
            model=name,
            source=chosen.source,
            class_names=chosen.class_names,
            protocol=model.protocol,
            curve=curve,
            cost=cost,
            seconds=seconds[name],
            memory=memory[name],
            batch=batch,
            flips=work.flips(model, batch_size),
            layers=work.layers(model),
            failures=find_failures(model, chosen, curve),
            notes=(
                *(*model.notes, *chosen.notes, *shown_notes(model, chosen, wanted)),
                *(*added, *uncounted),
            ),
        )
    work.finished()
    found = Audit(
        results,
        base,
        audit_findings(results, base, max_loss),
        max_loss,
        {"command": command, **versions(), "machine": machine(), "date": today()},
        judge(asked, curves, base, max_loss),
    )
    if files is not None:
        write_atomically(files[0], json.dumps(found.as_dict(), indent=2, ensure_ascii=False) + "\n")
        write_atomically(files[1], render_audit(found))
    return found


def _checked(
    scales: tuple[float, ...], images: int, flips: int, max_loss: float, batch_size: int
) -> tuple[float, ...]:
    if images < 0 or batch_size < 1 or flips < 0:
        raise InputError(
            f"images and flips must be at least 0 and batch_size at least 1, got {images}, {flips} and "
            f"{batch_size}"
        )
    if not 0 <= max_loss < 1:
        raise InputError(f"max_loss is a fraction, 0.05 for five points, got {max_loss}")
    wanted = as_scales(scales) if scales else ()
    if len(set(wanted)) < len(wanted):
        raise InputError(f"scales names a scale twice: {wanted}")
    return wanted


def _baseline_first(
    audited_models: Sequence[AuditedModel], baseline: str | None
) -> list[AuditedModel]:
    names = [model.name for model in audited_models]
    if baseline is not None and baseline not in names:
        raise InputError(
            f"baseline must be the name of one of the models, which are {', '.join(names)}, got {baseline!r}"
        )
    return sorted(audited_models, key=lambda model: model.name != (baseline or names[0]))


def _with_one(scales: tuple[float, ...]) -> tuple[tuple[float, ...], tuple[str, ...]]:
    if 1.0 in scales:
        return scales, ()
    note = "1× was added to the scales: it is what the others are compared with."
    return tuple(sorted((*scales, 1.0))), (note,)


class _Work:
    """What is measured by asking, with one measure of progress: answers."""

    def __init__(
        self,
        progress: Progress,
        audited_models: Sequence[AuditedModel],
        images: AuditedImages,
        scales: tuple[float, ...],
        flips: int,
        layers: bool | tuple[str, ...],
    ) -> None:
        self._progress = progress
        self._entrants, self._images, self._scales = audited_models, images, scales
        order = stratified_order(images.labels)
        # With no other scale than 1 there is nowhere to search.
        flips = flips if len(scales) > 1 else 0
        self._flipped, self._layered = order[:flips], order[:MOST_IMAGES]
        self._layers = layers
        self._done = 0
        self._answers = len(images) * len(scales)
        self._searched = most_answers(len(self._flipped), min(scales), max(scales))
        inside = layers is not False and layers != ()
        per_layer = len(self._layered) * (1 + 2 * len(layer_scales(scales)))
        self._seen_inside = per_layer if inside else 0
        each = self._answers + self._searched + self._seen_inside
        self._total = len(audited_models) * each

    def predict(self, batch_size: int) -> dict[str, ScaleCurve]:
        """All answers."""
        return predict_all(
            self._entrants,
            self._images,
            self._scales,
            batch_size,
            lambda count, note: self._report("asking at every scale", count, note),
        )

    def flips(self, model: AuditedModel, batch_size: int) -> Flips | None:
        """The smallest flipping changes, if they are asked for."""
        if not len(self._flipped):
            return None
        task, end = f"searching flips of {model.name}", self._done + self._searched
        found = find_flips(
            model,
            self._images,
            self._flipped,
            *(min(self._scales), max(self._scales), batch_size),
            lambda count: self._report(task, count),
        )
        self._report(task, end - self._done)
        return found

    def layers(self, model: AuditedModel) -> LayerScores | None:
        """Scores by layer, if they are asked for."""
        if not self._seen_inside:
            return None
        task, end = f"looking into {model.name}", self._done + self._seen_inside
        found = score_layers(
            model,
            self._images,
            self._layered,
            self._scales,
            self._layers,
            lambda count: self._report(task, count),
        )
        self._report(task, end - self._done)
        return found

    def finished(self) -> None:
        """The work is done."""
        self._report("audited", self._total - self._done)

    def _report(self, task: str, count: int, note: str = "") -> None:
        self._done += count
        self._progress(Step(task, self._done, self._total, note))


def _timed(
    audited_models: Sequence[AuditedModel], images: AuditedImages, batch_size: int
) -> tuple[dict[str, float], Mapping[str, int | None], int]:
    """Seconds and bytes that each takes for a batch, and how many images that has."""
    at = next(images.batches(torch.arange(len(images)), batch_size))
    first = images.read(at)
    shown: dict[str, Tensor] = {e.name: e.show(first, 1.0).contiguous() for e in audited_models}
    seconds = time_batches({e.name: e.classifier.predict for e in audited_models}, shown, _ROUNDS)
    memory: dict[str, int | None] = {}
    for model in audited_models:
        module, batch = model.classifier.module, shown[model.name]
        memory[model.name] = (
            None if module is None else peak_memory(module, lambda: model.classifier.predict(batch))  # noqa: B023
        )
    return seconds, memory, len(at)


def _cost(model: AuditedModel, images: AuditedImages) -> tuple[Cost | None, tuple[str, ...]]:
    """What a network costs; ``None`` and why where it cannot be counted."""
    module = model.classifier.module
    if module is None:
        return None, ()
    image = model.show(images.read(torch.tensor([0])), 1.0)[0]
    place = next((p for p in module.parameters() if p.is_floating_point()), image)
    try:
        return cost_of(module, image.to(place.device, place.dtype)), ()
    except Exception as cause:  # anybody's network may hold what is not counted here
        return None, (f"What {model.name} costs could not be counted: {cause}.",)
