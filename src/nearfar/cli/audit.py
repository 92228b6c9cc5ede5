"""``nearfar audit`` on the command line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

import nearfar.auditing
from nearfar.auditing import Audit, AuditResult, AuditSpec, ImageSelection
from nearfar.classifiers import Answers, InputOptions
from nearfar.cli.display import console, shown_progress
from nearfar.cli.parsing import parse_call
from nearfar.data.preprocess import Background
from nearfar.peers import joined_peers

EXAMPLES = """\
  nearfar audit runs/digits_si/weights.safetensors
  nearfar audit runs/digits_si/weights.safetensors --scales 0.5,1,2 --out runs/audit
  nearfar audit runs/plain/weights.safetensors runs/si/weights.safetensors --require loss@1<=0.02
  nearfar audit resnet18@pretrained --data photos --images 2000 --layers
  nearfar audit resnet18@pretrained --data photos --axis input --sides 160,224,288
  nearfar audit resnet18@pretrained --data photos --axis stored --quality 75
  nearfar audit resnet18@pretrained --data annotations.json --root photos --axis box --crop
  nearfar audit model.onnx --size 224 --data photos --require top1@0.5>=0.8,band_low<=0.5
  nearfar audit resnet20_cifar@resnet20.th --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225 --data cifar10
"""


def audit(
    models: Sequence[str],
    *,
    data: str = "",
    root: Path | None = None,
    images: int = 0,
    max_skipped: float | None = None,
    scales: tuple[float, ...] = (),
    layers: bool | tuple[str, ...] = False,
    flips: int | None = None,
    axis: str = AuditSpec.axis,
    sides: tuple[int, ...] = (),
    quality: int | None = None,
    bins: int | None = None,
    crop: bool = False,
    max_loss: float = AuditSpec.max_loss,
    background: Background | None = None,
    batch_size: int = AuditSpec.batch_size,
    baseline: str | None = None,
    require: tuple[str, ...] = (),
    mean: tuple[float, ...] = (),
    std: tuple[float, ...] = (),
    size: int | None = None,
    num_classes: int | None = None,
    answers: Answers | None = None,
    output: str | None = None,
    crop_pct: float | None = None,
    out: Path | None = None,
) -> dict[str, Any]:
    """Measures how classifiers' predictions change with size, and says what to do about it.

    Any classifier of images: what nearfar trained or converted, networks by name with anybody's weights, ONNX
    files, exported programs, functions. All are shown the same images along one axis: things zoomed on the
    network's canvas, sides of its input, resolutions of the files, or the sizes that things have.

    Measured are, with 95 % intervals, accuracy, confidence, calibration and how many predictions change; then
    the changes of scale that flip a prediction, the surest mistakes, the band that holds, and the cost; at
    the end stands what to do, where chance does not cover it.

    Of data that a checkpoint was trained on, test images are those that its training put aside; of other
    data the official test part, or all images where there is none.

    Args:
        models: a checkpoint (weights.safetensors), NAME@FILE, NAME@pretrained, NAME, x.onnx, x.pt2 or
            package.module:attribute; one or several.
        data: a dataset's name, or a folder with a sub-folder a class; of the axis box also COCO's JSON or a
            CSV file of path, label, x, y, w, h; default: the first checkpoint's.
        root: folder that holds the dataset, where its name does not say.
        images: how many test images, all classes in proportion; 0 takes all.
        max_skipped: which share of images may be left out because they cannot be read; default: 0.01.
        scales: of the axis content: at which scales, as factors; default: those of the baseline's protocol. 1
            is added.
        layers: measure single layers too: invariance score and equivariance error of the convolutions, or of
            the layers whose names match patterns.
        flips: for how many images the smallest flipping change of scale is searched for; 0 for none;
            default: 200.
        axis: along what size changes: content zooms what an image shows on a canvas that stays, input changes
            the side of the network's input, stored the resolution of the image files, box groups things by
            the sizes that they have.
        sides: of the axes input and stored (longer sides of files): at which, in pixels; default: around the
            model's own, and in octaves up to the largest image's own, which are added.
        quality: of the axis stored: of the JPEG file as which a reduced image is written, from 1 to 95;
            default: it is not written anew.
        bins: of the axis box: in how many groups of equal counts; default: 8.
        crop: of the axis box: show what each box holds, and not the whole image.
        max_loss: a classifier holds where its accuracy falls by at most this, as a fraction.
        background: black, grey or edge: what content does not cover; default: as the model was trained, or
            black.
        batch_size: images at a time; it does not change the predictions.
        baseline: name of the model that the others are compared with; default: the first.
        require: what figures must be, as top1@0.5>=0.80, band_low<=0.6, loss@1<=0.02 (against the baseline)
            or NAME:flips@2<0.1; without a name of every model but the baseline. Else the status is 1.
        mean, std: of each channel, of values from 0 to 1: what a model's input is normalised by.
        size: side of a model's canvas in pixels, where the model does not say.
        num_classes: how many classes a model tells apart, where it does not say.
        answers: logits or probabilities: what a model's numbers are, where a few images do not show it.
        output: name of the output with the classes' numbers, where a model has several.
        crop_pct: which share of an image's side the canvas shows; 1: all of it. Default: the model's own.
        out: folder for audit.json, report.html, and audit-skipped.csv where images are left out.
    """
    measured = (scales, layers, flips, max_loss, background, batch_size)
    along = (axis, sides, quality, bins, crop)
    return {
        "models": models,
        "data": data,
        "spec": AuditSpec(*measured, *along),
        "selection": ImageSelection(root, images, max_skipped),
        "inputs": InputOptions(mean, std, size, num_classes, answers, output, crop_pct),
        "baseline": baseline,
        "require": require,
        "out": out,
    }


def run(arguments: list[str]) -> int:
    """Parses, runs, shows; returns 1 where a requirement is not met. Of several processes the first shows."""
    options = audit(**parse_call(audit, arguments, EXAMPLES, positional=True))
    with joined_peers() as peers:
        if peers.rank:
            nearfar.auditing.audit(**options, peers=peers)
            return 0
        with shown_progress() as progress:
            outcome = nearfar.auditing.audit(**options, peers=peers, progress=progress)
    _show(outcome)
    _next(options["out"], outcome)
    return 0 if outcome.passed else 1


def _show(outcome: Audit) -> None:
    first = outcome.results[outcome.baseline]
    curve = first.curve
    table = Table(
        title=f"{len(curve.labels)} test images of {escape(first.source)}: right answers, %"
    )
    table.add_column("size", justify="right", no_wrap=True)
    for name in outcome.results:
        table.add_column(escape(name), justify="right")
    for scale in sorted(curve.scales):
        table.add_row(curve.axis.text(scale), *(_cell(r, scale) for r in outcome.results.values()))
    cost = Table(title="Cost")
    cost.add_column("model")
    for heading in ("parameters", "multiplications", f"time of {first.batch}", "memory"):
        cost.add_column(heading, justify="right", no_wrap=True)
    for name, result in outcome.results.items():
        cost.add_row(escape(name), *_cost(result))
    console.print(table, cost)
    for name, result in outcome.results.items():
        console.print(f"• {_band(name, result, outcome.max_loss)}", highlight=False, markup=False)
    notes = dict.fromkeys(note for result in outcome.results.values() for note in result.notes)
    for sentence in (*outcome.findings, *notes):
        console.print(f"• {sentence}", highlight=False, markup=False)
    console.print("\nAdvice:", highlight=False)
    nothing = f"none: chance covers it on {len(curve.labels):,} images"
    for sentence in [line.sentence for line in outcome.advice] or [nothing]:
        console.print(f"  {sentence}", highlight=False, markup=False)
    for verdict in outcome.verdicts:
        word = "passed" if verdict.passed else "FAILED"
        console.print(
            f"{word}: {verdict.model}: {verdict.requirement} (it is {verdict.value:.4g})",
            highlight=False,
            markup=False,
        )


def _cell(result: AuditResult, scale: float) -> str:
    low, high = result.curve.interval(scale)
    return f"{100 * result.curve.accuracy(scale):.1f} ({100 * low:.1f} to {100 * high:.1f})"


def _cost(result: AuditResult) -> tuple[str, str, str, str]:
    cost, seconds, memory = result.cost, result.seconds, result.memory
    return (
        "–" if cost is None else f"{cost.parameters:,}",
        "–" if cost is None else f"{cost.multiplications:,}",
        "–" if seconds is None else f"{1000 * seconds:.1f} ms",
        "–" if memory is None else f"{memory / 2**20:.1f} MiB",
    )


def _band(name: str, result: AuditResult, loss: float) -> str:
    curve = result.curve
    text = curve.axis.text
    low, high = curve.band(curve.reference, loss)
    ends = curve.band_interval(curve.reference, loss)
    edges = [
        f"{text(end)} (95 % interval {text(a)} to {text(b)})" if a < b else text(end)
        for end, (a, b) in zip((low, high), ends, strict=True)
    ]
    return f"{name} stays within {100 * loss:g} points from {edges[0]} to {edges[1]}."


def _next(out: Path | None, outcome: Audit) -> None:
    if out is None:
        steps = ["add --out DIR to keep these figures as audit.json, with a report to look at"]
    else:
        steps = [f"open {out / 'report.html'} in a browser", f"see {out / 'audit.json'}"]
    if not outcome.verdicts:
        reference = outcome.results[outcome.baseline].curve.reference
        steps.append(
            f"add --require 'top1@{reference:g}>=0.9' to end with status 1 where that is not met"
        )
    console.print(
        "\nNext:", *(f"  {step}" for step in steps), sep="\n", highlight=False, soft_wrap=True
    )
