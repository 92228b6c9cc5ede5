"""``nearfar quickstart``: a plain net and its scale-aware twins on real digits, and who holds where."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from nearfar.atomic import make_folder, names_in, write_atomically
from nearfar.auditing import (
    AuditResult,
    AuditSpec,
    Cost,
    audit,
    cost_of,
    time_batches,
    winner_maps,
)
from nearfar.auditing.findings import findings
from nearfar.auditing.plots import plot_curves, plot_winners
from nearfar.auditing.report import Example, Report, figure_bytes, render_report
from nearfar.data import DataSpec, ScaleDataModule
from nearfar.errors import InputError
from nearfar.layers import SIConv2d
from nearfar.models import create_model
from nearfar.progress import Progress, Step, silent
from nearfar.provenance import machine, today
from nearfar.training import Checkpoint, FitSpec, ModelSpec, train
from nearfar.training.run_folder import WEIGHTS
from nearfar.training.seeding import check_seed
from nearfar.version import __version__, versions

__all__ = ["NETS", "QuickstartResult", "quickstart", "quickstart_specs"]

_LOG = logging.getLogger(__name__)

#: The nets compared, the baseline first.
NETS: dict[str, ModelSpec] = {
    "plain": ModelSpec("cnn_small"),
    "si": ModelSpec("si_cnn_small"),
    "pyramid": ModelSpec("pyramid_cnn_small"),
    "wsms": ModelSpec("wsms_cnn_small"),
    "hierarchical": ModelSpec("hierarchical_cnn_small"),
}
#: What each of them is, for the report.
_DESCRIPTIONS = {
    "plain": "two 5×5 convolutions with max pooling between, global max pooling, a linear classifier",
    "si": "the same net with SI-layers: each filter meets its input at five scales, the strongest "
    "answer stays; no parameter added",
    "pyramid": "the same net with pyramid layers: 1/4 and 1/2 of the filters, each at four or two "
    "scales, side by side",
    "wsms": "the same net in two stages, at full and at half size, convolution weights shared, "
    "features side by side",
    "hierarchical": "the same net whole at five scales, weights shared, the scales' probabilities "
    "summed; no parameter added",
}
_TIMED_BATCH = 64
_EXAMPLES = 4
_WINNER_SCALES = (0.5, 0.75, 1.0, 1.5, 2.0)


@dataclass(frozen=True)
class QuickstartResult:
    """What a quickstart run found and wrote.

    Attributes:
        out: the folder.
        audits: what each net's audit found.
        seconds: each net's time for a batch.
        findings: the report's sentences.
        moved: where an earlier run of other settings was moved to, if there was one.
    """

    out: Path
    audits: Mapping[str, AuditResult]
    seconds: Mapping[str, float]
    findings: list[str]
    moved: Path | None


def quickstart_specs(fast: bool = False) -> tuple[DataSpec, FitSpec]:
    """The data and the budget of a quickstart, full or as a smoke run."""
    if not fast:
        return DataSpec(train=900, validation=300), FitSpec()
    return DataSpec(train=128, validation=60, test=60), FitSpec(epochs=2)


def quickstart(
    out: Path | str = Path("runs/quickstart"),
    seed: int = 0,
    fast: bool = False,
    progress: Progress = silent,
) -> QuickstartResult:
    """Trains a plain net and its scale-aware twins at one size and tests them at nine.

    On scikit-learn's 1,797 handwritten digits, which come with the installation. Five nets train
    within one budget of epochs: plain, with SI-layers, with pyramid layers, as a WSMS-Net, and
    whole over a pyramid. The folder ``out`` gets ``report.html`` (the picture to look at),
    ``results.json`` (its figures), ``timings.json``, ``curves`` and ``winners`` as PNG and SVG,
    ``config.yaml``, and each net's weights below ``models/``.

    An interrupted run continues where it stopped when started again: finished nets are kept. A
    run of other settings in the same folder is moved aside, not written over.

    Args:
        out: folder to write.
        seed: of initial weights and the order of images; the split of the images is fixed.
        fast: a smoke run of under 30 seconds that shows that everything works, and nothing else.
        progress: called after each epoch and each audited scale.

    Raises:
        InputError: ``out`` holds something other than quickstart runs, or cannot be written.
    """
    out = Path(out)
    check_seed(seed)
    moved = _claim(out, seed, fast)
    data, fit = quickstart_specs(fast)
    plan = _Plan(progress, data, fit)
    trained: dict[str, Checkpoint] = {}
    audits: dict[str, AuditResult] = {}
    for name, spec in NETS.items():
        folder = out / "models" / name
        trained[name] = train(
            spec, data, fit, seed=seed, out=folder, progress=plan.part(name, "training")
        )
        outcome = audit(
            folder / WEIGHTS, spec=AuditSpec(flips=0), progress=plan.part(name, "auditing")
        )
        audits[name] = outcome.only
    data_module = ScaleDataModule(data)
    batch = data_module.images("test", 1.0)[:_TIMED_BATCH]
    models = {name: checkpoint.model for name, checkpoint in trained.items()}
    seconds = time_batches(models, batch)
    curves = {name: outcome.curve for name, outcome in audits.items()}
    sentences = findings(curves, "plain")
    _write_results(out, seed, fast, trained, audits, sentences)
    _write_timings(out, len(batch), seconds)
    _write_report(out, seed, fast, data_module, models, audits, seconds, sentences)
    plan.finished()
    return QuickstartResult(out, audits, seconds, sentences, moved)


class _Plan:
    """One measure of progress over all nets, weighed by what each costs."""

    def __init__(self, progress: Progress, data: DataSpec, fit: FitSpec) -> None:
        self._progress = progress
        self._parts: dict[tuple[str, str], tuple[float, float]] = {}
        side = max(data.protocol.canvas_size)
        assert data.train is not None, "quickstart_specs says how many"
        start = 0.0
        for name, spec in NETS.items():
            model = create_model(spec.name, num_classes=10, in_chans=1, **spec.options)
            # A net's own arithmetic, and what every step costs whatever the net.
            weight = cost_of(model, torch.zeros(1, side, side)).multiplications + 1.5e6
            images = len(data.protocol.test_scales) * 600
            for task, share in (("training", 3.0 * fit.epochs * data.train), ("auditing", images)):
                self._parts[name, task] = (start, weight * share)
                start += weight * share
        self._total = start

    def part(self, name: str, task: str) -> Progress:
        start, length = self._parts[name, task]

        def report(step: Step) -> None:
            done = start + length * step.done / step.total
            self._progress(Step(f"{task} {name}", done, self._total, step.note))

        return report

    def finished(self) -> None:
        self._progress(Step("writing the report", self._total, self._total))


def _claim(out: Path, seed: int, fast: bool) -> Path | None:
    """Makes ``out`` this run's folder; an earlier run of other settings is moved aside."""
    marker = out / "config.yaml"
    text = (
        f"# nearfar quickstart --config config.yaml   (nearfar {__version__}, torch "
        f"{torch.__version__})\nseed: {seed}\nfast: {str(fast).lower()}\n"
    )
    moved = None
    if out.is_dir() and names_in(out):
        text_before = marker.read_text() if marker.is_file() else ""
        if not text_before.startswith("# nearfar quickstart"):
            raise InputError(
                f"{out} is not empty and holds no quickstart run; choose another folder with --out"
            )
        if text_before != text:
            folder = out.resolve()  # "." has no name to add to
            moved = next(
                free
                for i in range(1, 10_000)
                if not (free := folder.with_name(f"{folder.name}.{i}")).exists()
            )
            folder.rename(moved)
            _LOG.info("moved the earlier run, made with other settings, to %s", moved)
    make_folder(out)
    write_atomically(marker, text)
    return moved


def _command(seed: int, fast: bool) -> str:
    return f"nearfar quickstart --seed {seed}{' --fast' if fast else ''}"


def _write_results(
    out: Path,
    seed: int,
    fast: bool,
    trained: Mapping[str, Checkpoint],
    audits: Mapping[str, AuditResult],
    sentences: list[str],
) -> None:
    """Figures that the seed decides; those of the clock are in timings.json."""
    results: dict[str, Any] = {
        "schema": "nearfar.quickstart/1",
        "command": _command(seed, fast),
        "seed": seed,
        "versions": versions(),
        "source": audits["plain"].source,
        "test_images": len(audits["plain"].curve.labels),
        "recipe": {
            key: value
            for key, value in trained["plain"].recipe.as_dict().items()
            if key in ("data", "fit")
        },
        "models": {
            name: {
                "name": audits[name].model,
                **dataclasses.asdict(_cost(audits[name])),
                **audits[name].curve.as_dict(),
                "best_epoch": checkpoint.record["best_epoch"],
                "validation_accuracy": checkpoint.record["validation_accuracy"],
                "validation_loss": checkpoint.record["validation_loss"],
            }
            for name, checkpoint in trained.items()
        },
        "findings": sentences,
    }
    write_atomically(out / "results.json", json.dumps(results, indent=2) + "\n")


def _write_timings(out: Path, batch: int, seconds: Mapping[str, float]) -> None:
    timings = {
        "schema": "nearfar.timings/1",
        "machine": machine(),
        "date": today(),
        "batch": batch,
        "seconds_per_batch": dict(seconds),
        "relative_to_plain": {name: s / seconds["plain"] for name, s in seconds.items()},
    }
    write_atomically(out / "timings.json", json.dumps(timings, indent=2) + "\n")


def _write_report(
    out: Path,
    seed: int,
    fast: bool,
    data_module: ScaleDataModule,
    models: Mapping[str, torch.nn.Module],
    audits: Mapping[str, AuditResult],
    seconds: Mapping[str, float],
    sentences: list[str],
) -> None:
    curves = {name: winners.curve for name, winners in audits.items()}
    scales = curves["plain"].scales
    labels = data_module.labels("test")
    # The first test image of each of the first few classes that come up: not chosen by hand.
    firsts = {int(label): i for i, label in reversed(list(enumerate(labels)))}
    chosen = sorted(firsts.values())[:_EXAMPLES]
    at_scale = {s: data_module.images("test", s) for s in sorted({*scales, *_WINNER_SCALES})}
    names = data_module.class_names
    examples = [
        Example(
            names[int(labels[i])],
            [at_scale[s][i] for s in scales],
            {
                name: [names[int(curve.predictions[k, i])] for k in range(len(scales))]
                for name, curve in curves.items()
            },
        )
        for i in chosen
    ]
    first_si = next(m for m in models["si"].modules() if isinstance(m, SIConv2d))
    columns = [(i, s) for i in chosen[:2] for s in _WINNER_SCALES]
    images = torch.stack([at_scale[s][i] for i, s in columns])
    maps = {
        f"layer {k}": list(winners)
        for k, winners in enumerate(winner_maps(models["si"], images).values(), start=1)
    }
    winner_figure = plot_winners(
        [image[0] for image in images], maps, [f"{s:g}×" for _, s in columns], first_si.scales
    )
    curve_figure = plot_curves(curves)
    for stem, figure in (("curves", curve_figure), ("winners", winner_figure)):
        for kind in ("png", "svg"):
            write_atomically(out / f"{stem}.{kind}", figure_bytes(figure, kind))
    report = Report(
        title="Who still knows the digit when it is far, or very near?"
        + (" (A smoke run: its figures mean nothing.)" if fast else ""),
        findings=sentences,
        nets=_DESCRIPTIONS,
        curves=curves,
        costs={name: _cost(winners) for name, winners in audits.items()},
        seconds=seconds,
        batch=_TIMED_BATCH,
        curve_figure=curve_figure,
        winner_figure=winner_figure,
        si_scales=first_si.scales,
        winner_means=_winner_means(models["si"], at_scale),
        examples=examples,
        machine=machine(),
        command=_command(seed, fast),
        provenance=(
            f"Data: scikit-learn's load_digits, real handwriting of 8×8 pixels (enlarging it adds no "
            f"detail), {data_module.spec.train} images to train, {data_module.spec.validation} to choose the "
            f"epoch, {len(labels)} to test. Seed {seed}, nearfar {__version__}, torch "
            f"{torch.__version__}, {today()}."
        ),
    )
    write_atomically(out / "report.html", render_report(report))


def _cost(result: AuditResult) -> Cost:
    assert result.cost is not None, "these nets can be looked into"
    return result.cost


def _winner_means(model: torch.nn.Module, at_scale: Mapping[float, torch.Tensor]) -> str:
    """How the mean winning scale of each layer moves from half to twice the size, in words."""
    small, large = (_on_strokes(model, at_scale[s][:100]) for s in (0.5, 2.0))
    moves = [
        f"from {a:.2f}× to {b:.2f}× in layer {k}"
        for k, (a, b) in enumerate(zip(small, large, strict=True), start=1)
    ]
    follows = all(b < 0.9 * a for a, b in zip(small, large, strict=True))
    verdict = (
        "in that direction, but far from fully" if follows else "which does not follow the size"
    )
    return (
        f"Here, on the strokes of 100 test images, while the digits grow fourfold (0.5× to 2×; full "
        f"compensation would divide by 4), the mean winning scale goes {' and '.join(moves)}: "
        f"{verdict}. Around the strokes the smallest scale wins, whose filters reach farthest."
    )


def _on_strokes(model: torch.nn.Module, images: torch.Tensor) -> list[float]:
    """The mean winning scale of each SI-layer where there is ink."""
    means = []
    for winners in winner_maps(model, images).values():
        ink = torch.nn.functional.adaptive_max_pool2d(images, winners.shape[-2:])[:, 0] > 0.5
        means.append(float(winners[ink].log2().nanmean().exp2()))
    return means
