"""``nearfar benchmark`` on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from nearfar.auditing import ImageSelection
from nearfar.classifiers import Answers, InputOptions
from nearfar.cli.display import console, shown_progress
from nearfar.cli.parsing import parse_call
from nearfar.deploy import Benchmark, RuntimeFigures
from nearfar.deploy import benchmark as benchmark_model
from nearfar.deploy.runtimes import RUNTIMES

EXAMPLES = """\
  nearfar benchmark zoom_digit@pretrained --data sample_digits
  nearfar benchmark runs/digits_si/weights.safetensors --runtimes eager,onnx --out benchmark.json
  nearfar benchmark resnet18@pretrained --batch_size 8 --data photos
"""

_MEBIBYTE = 2**20


def benchmark(
    model: str,
    *,
    data: str = "",
    runtimes: tuple[str, ...] = tuple(RUNTIMES),
    batch_size: int = 32,
    rounds: int = 15,
    memory: bool = True,
    root: Path | None = None,
    images: int = 0,
    max_skipped: float | None = None,
    mean: tuple[float, ...] = (),
    std: tuple[float, ...] = (),
    size: int | None = None,
    num_classes: int | None = None,
    answers: Answers | None = None,
    output: str | None = None,
    crop_pct: float | None = None,
    out: Path | None = None,
) -> dict[str, Any]:
    """Runs a classifier in PyTorch, compiled and exported, and holds speed, memory and answers side by side.

    All are timed in turn on the same images, so compare within one table only. What cannot be run is listed
    with the reason. With data, right answers and agreement are measured too.

    Args:
        model: a checkpoint, a .pt2 or .onnx, a name with weights (``resnet18@FILE``,
            ``resnet18@pretrained``), or a ``package.module:network``.
        data: a dataset's name, or a folder with a sub-folder a class.
        runtimes: some of eager, compiled, program, onnx and openvino.
        batch_size: images a batch, for throughput and memory.
        rounds: how often each is timed, at least 3.
        memory: measure memory too, in a process for each runtime.
        root: folder that holds the dataset, where its name does not say.
        images: how many of the dataset's test images are used; 0 takes all.
        max_skipped: which share of images may be left out because they cannot be read; default: 0.01.
        mean, std: of each channel, of values from 0 to 1: what the network's input is normalised by.
        size: side of the network's images, in pixels.
        num_classes: how many classes the network tells apart.
        answers: logits or probabilities: what the network's numbers are, where a few images do not show it.
        output: name of the output with the classes' numbers, where the network has several.
        crop_pct: which share of an image's side the canvas shows; 1: all of it. Default: the model's own.
        out: a JSON file to write.

    Returns:
        Keyword arguments of :func:`nearfar.benchmark`.
    """
    return {
        "model": model,
        "data": data,
        "runtimes": runtimes,
        "batch_size": batch_size,
        "rounds": rounds,
        "memory": memory,
        "selection": ImageSelection(root, images, max_skipped),
        "inputs": InputOptions(mean, std, size, num_classes, answers, output, crop_pct),
        "out": out,
    }


def run(arguments: list[str]) -> None:
    """Parses, runs, shows."""
    call = benchmark(**parse_call(benchmark, arguments, EXAMPLES, positional=True))
    with shown_progress() as progress:
        result = benchmark_model(**call, progress=progress)
    console.print(_table(result))
    console.print(_words(result, call), highlight=False, markup=False, soft_wrap=True)


def _table(result: Benchmark) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, collapse_padding=True)
    titles = [
        "runtime",
        "1 image\nms",
        "95 %\nms",
        "images\n/s",
        "memory\nMiB",
        "file\nMiB",
        "ready\ns",
    ]
    titles += ["differ-\nence", *(("right\n%", "same\n%") if result.images else ())]
    for title in titles:
        table.add_column(title, justify="left" if title == "runtime" else "right", no_wrap=True)
    for row in result.figures:
        if not row.refused:
            table.add_row(row.runtime, *_cells(row, bool(result.images)))
    return table


def _cells(row: RuntimeFigures, with_images: bool) -> list[str]:
    """A runtime's figures as text, a dash where one is not known."""
    figures: list[tuple[float | None, str]] = [
        (row.latency and 1e3 * row.latency, ".2f"),
        (row.latency95 and 1e3 * row.latency95, ".2f"),
        (row.throughput, ".0f"),
        (None if row.memory is None else row.memory / _MEBIBYTE, ".0f"),
        (None if row.file_size is None else row.file_size / _MEBIBYTE, ".1f"),
        (row.preparation, ".1f"),
        (row.difference, ".0e"),
    ]
    if with_images:
        accuracy = row.accuracy and 100 * row.accuracy[0]
        figures += [(accuracy, ".1f"), (row.agreement and 100 * row.agreement, ".1f")]
    return ["–" if value is None else f"{value:{form}}" for value, form in figures]


def _words(result: Benchmark, call: dict[str, Any]) -> str:
    """What the table leaves out, and what to do next."""
    able = [row for row in result.figures if not row.refused]
    lines = [f"{row.runtime} was left out: {row.refused}" for row in result.figures if row.refused]
    shape = "×".join(map(str, result.shape))
    lines += [
        f"{result.model}, images of {shape}, {result.rounds} rounds in turn, {result.provenance['machine']}. "
        f"1 image: the median time, and what 95 % of the rounds took at most; images/s: in batches of "
        f"{result.batch_size}; memory: beside Python's own; ready: seconds to the first answer; difference: "
        f"of an answer from {able[0].runtime}'s, as a share of the largest; same: images answered with "
        f"{able[0].runtime}'s class.",
    ]
    if result.images:
        (right, low, high) = able[0].accuracy or (0.0, 0.0, 0.0)
        lines.append(
            f"Right on {result.images} images: {100 * right:.1f} % ({100 * low:.1f} to {100 * high:.1f}) by "
            f"{able[0].runtime}."
        )
    fastest = max(able, key=lambda row: row.throughput or 0)
    lines.append(f"Most images a second: {fastest.runtime}.")
    if fastest.runtime in ("onnx", "openvino", "program"):
        ending = "pt2" if fastest.runtime == "program" else "onnx"
        lines.append(f"\nNext:\n  nearfar export {call['model']} --out model.{ending}")
    elif not result.images:
        lines.append(f"\nNext:\n  nearfar benchmark {call['model']} --data DATA")
    return "\n".join(lines)
