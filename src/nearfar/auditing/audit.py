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
from nearfar.auditing.advice import advise
from nearfar.auditing.audit_spec import AuditSpec, ImageSelection
from nearfar.auditing.audited_images import AuditedImages, Data
from nearfar.auditing.audited_models import AuditedModel, Models, open_models
from nearfar.auditing.axes import axis_of
from nearfar.auditing.cost import peak_memory, time_batches
from nearfar.auditing.failures import find_failures
from nearfar.auditing.findings import audit_findings
from nearfar.auditing.finished_batches import remove_batches
from nearfar.auditing.gate import judge, read_requirements
from nearfar.auditing.layers import check_layers
from nearfar.auditing.notes import common_notes
from nearfar.auditing.output import SKIPPED, claim, command_of
from nearfar.auditing.report import render_audit
from nearfar.auditing.result import Audit, AuditResult
from nearfar.auditing.work import AuditWork
from nearfar.classifiers import InputOptions
from nearfar.data.unreadable import listing_skipped
from nearfar.errors import InputError
from nearfar.peers import ALONE, Peers
from nearfar.progress import Progress, silent
from nearfar.provenance import machine, today
from nearfar.version import versions

__all__ = ["audit"]

_ROUNDS = 5


def audit(
    models: Models,
    data: Data = "",
    spec: AuditSpec = AuditSpec(),
    *,
    selection: ImageSelection = ImageSelection(),
    inputs: InputOptions = InputOptions(),
    baseline: str | None = None,
    require: tuple[str, ...] = (),
    out: Path | str | None = None,
    peers: Peers = ALONE,
    progress: Progress = silent,
) -> Audit:
    """Measures how classifiers' predictions change with size, and says what to do about it.

    Any classifiers: what nearfar trained or converted, networks by name with anybody's weights, ONNX files,
    exported programs, functions. All are shown the same images along one axis (:class:`AuditSpec`).

    Of data that a checkpoint was trained on, test images are those that its training put aside; of other
    data the official test part, or all images where there is none.

    Args:
        models: what :func:`nearfar.load_classifier` takes; one, several, or several by name.
        data: name of a dataset, a folder with a sub-folder a class, a ``DataSpec`` or the images themselves;
            of the axis ``box`` also COCO's JSON or a CSV file. Default: what the first checkpoint was trained
            on.
        spec: what is measured: the axis and its points, layers, flips.
        selection: which of its images.
        inputs: what models do not say about their input: mean, std, size, number of classes.
        baseline: name of the model that the others are compared with; default: the first.
        require: what figures must be, as top1@0.5>=0.80, band_low<=0.6, loss@1<=0.02 (against the baseline)
            or NAME:flips@2<0.1; without a name it is required of every model but the baseline.
        out: folder for audit.json, report.html and, where images are left out, audit-skipped.csv.
        peers: the processes that share the images (:func:`nearfar.joined_peers`); each calls this alike, the
            first writes, and all get the same result.
        progress: called after each batch.

    Raises:
        InputError: a model or dataset that cannot be opened, data of other classes or channels than a
            model's or changed since its training, or a requirement that cannot be read.

    Limits:
        Logits are taken as such: of a model that answers with probabilities, confidence means nothing.
    """
    command = command_of(
        models, data, spec, selection, inputs, baseline=baseline, require=require, out=out
    )
    files = None if out is None else claim(Path(out))
    axis = axis_of(spec)
    audited_models = _baseline_first(open_models(models, inputs, spec.background), baseline)
    base = audited_models[0].name
    points = None if axis.data_has_sizes else axis.points(audited_models, None)
    check_layers(audited_models, spec.layers)
    classes = {model.name: model.classifier.input_spec.num_classes for model in audited_models}
    requirements = read_requirements(require, classes, base, points)
    choose = partial(axis.choose, data, audited_models, selection)
    images = choose() if out is None else listing_skipped(choose, Path(out) / SKIPPED)
    if points is None:
        points = axis.points(audited_models, images)
        requirements = read_requirements(require, classes, base, points)
    folder = None if out is None else Path(out)
    work = AuditWork(progress, audited_models, images, axis, points, spec, peers, folder)
    curves = work.predict()

    def rest() -> Audit:
        results = _measure(work, curves)
        outcome = Audit(
            results,
            base,
            audit_findings(results, base, spec.max_loss),
            spec.max_loss,
            {"command": command, **versions(), "machine": machine(), "date": today()},
            judge(requirements, curves, base, spec.max_loss),
            points.bounds,
            advise(results, spec.max_loss, points.bounds),
        )
        if files is not None:
            _write(outcome, *files)
        return outcome

    return peers.of_first(rest)


def _write(outcome: Audit, figures: Path, page: Path) -> None:
    write_atomically(figures, json.dumps(outcome.as_dict(), indent=2, ensure_ascii=False) + "\n")
    write_atomically(page, render_audit(outcome))
    remove_batches(figures.parent)


def _measure(work: AuditWork, curves: Mapping[str, ScaleCurve]) -> dict[str, AuditResult]:
    """All figures of every model, whose predictions are there."""
    images, points, axis = work.images, work.points, work.axis
    seconds, memory, batch = _timed(work.models, images, work.batch_size)
    results = {}
    for model in work.models:
        name, curve = model.name, curves[model.name]
        cost, uncounted = work.cost(model)
        before, after = common_notes(model, images)
        rendering = (*before, *filter(None, axis.notes(model, images, points)), *after)
        results[name] = AuditResult(
            model=name,
            source=images.source,
            class_names=images.class_names,
            protocol=model.protocol,
            curve=curve,
            cost=cost,
            seconds=seconds[name],
            memory=memory[name],
            batch=batch,
            flips=work.flips(model),
            layers=work.layers(model),
            failures=find_failures(model, images, curve, axis),
            notes=(*model.notes, *images.notes, *rendering, *points.notes, *uncounted),
            point_costs=work.point_costs(model),
        )
    work.finished()
    return results


def _baseline_first(
    audited_models: Sequence[AuditedModel], baseline: str | None
) -> list[AuditedModel]:
    names = [model.name for model in audited_models]
    if baseline is not None and baseline not in names:
        raise InputError(
            f"baseline must be the name of one of the models, which are {', '.join(names)}, got {baseline!r}"
        )
    return sorted(audited_models, key=lambda model: model.name != (baseline or names[0]))


def _timed(
    audited_models: Sequence[AuditedModel], images: AuditedImages, batch_size: int
) -> tuple[dict[str, float], Mapping[str, int | None], int]:
    """Seconds and bytes that each takes for a batch, and how many images that has."""
    at = next(images.batches(torch.arange(len(images)), batch_size))
    first = images.read(at)
    batches: dict[str, Tensor] = {e.name: e.show(first, 1.0).contiguous() for e in audited_models}
    seconds = time_batches({e.name: e.classifier.predict for e in audited_models}, batches, _ROUNDS)
    memory: dict[str, int | None] = {}
    for model in audited_models:
        module, batch = model.classifier.module, batches[model.name]
        memory[model.name] = (
            None if module is None else peak_memory(module, lambda: model.classifier.predict(batch))  # noqa: B023
        )
    return seconds, memory, len(at)
