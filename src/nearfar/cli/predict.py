"""``nearfar predict`` on the command line."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

from rich import box
from rich.console import Console
from rich.table import Table

from nearfar.atomic import atomic_path
from nearfar.classifiers import Answers
from nearfar.cli.display import console, make_console, shown_progress
from nearfar.cli.parsing import parse_call
from nearfar.deploy import Prediction
from nearfar.deploy import predict as predict_images
from nearfar.errors import InputError
from nearfar.progress import Progress, silent
from nearfar.records import parse_json

EXAMPLES = """\
  nearfar predict resnet18@pretrained photo.jpg
  nearfar predict runs/digits_si/weights.safetensors scans/ --format jsonl --out answers.jsonl
  find photos -name '*.jpg' -newer last | nearfar predict model.onnx - --top 1
  curl -s https://example.org/cat.jpg | nearfar predict model.pt2 -
exit status:
  0 every image was answered, 1 some could not be read (each has a line that says why),
  2 none could, or something else given cannot be used
"""

#: Characters of a file's first line that tell whether it holds answers.
_LONGEST_LINE = 1_000_000

Format = Literal["jsonl", "table"]


def predict(
    model: str,
    images: Sequence[str],
    *,
    top: int = 5,
    format: Format | None = None,  # noqa: A002 (options are named for users)
    out: Path | None = None,
    batch_size: int = 32,
    mean: tuple[float, ...] = (),
    std: tuple[float, ...] = (),
    size: int | None = None,
    num_classes: int | None = None,
    answers: Answers | None = None,
    output: str | None = None,
    crop_pct: float | None = None,
    progress: Progress = silent,
) -> Iterator[Prediction]:
    """Asks a classifier about images.

    Every image is turned as its EXIF data ask and laid on the classifier's canvas, whatever its size. An
    image that cannot be read is answered with an error, also on standard error, and the rest goes on.

    Args:
        model: a checkpoint, a .pt2 or .onnx, NAME@WEIGHTS, hub:OWNER/NAME or package.module:function.
        images: files, folders (all images below them, hidden ones left out), or - for standard input:
            one encoded image, or paths, one a line.
        top: how many of the likeliest classes to name.
        format: jsonl (one JSON object a line; default where the output is not a terminal) or table.
        out: a file for the answers, in place of standard output; it appears when all are there.
        batch_size: how many images are answered at once.
        mean: of the channels, of values from 0 to 1: what the network's input is normalised by.
        std: their standard deviations.
        size: side of the canvas in pixels, where the model does not say.
        num_classes: how many classes, where the model does not say.
        answers: logits or probabilities: what the model's numbers are, where a few images do not show it.
        output: name of the output with the classes' numbers, where the model has several.
        crop_pct: which share of an image's side the canvas shows; 1: all of it. Default: the model's own.
        progress: called after each batch.
    """
    return predict_images(
        model,
        images,
        mean=mean,
        std=std,
        size=size,
        num_classes=num_classes,
        answers=answers,
        output=output,
        crop_pct=crop_pct,
        top=top,
        batch_size=batch_size,
        progress=progress,
    )


def run(arguments: list[str]) -> int:
    """Parses, runs, shows; 1 where some images could not be read, 2 where none could."""
    options = parse_call(predict, arguments, EXAMPLES, positional=True)
    out: Path | None = options["out"]
    if out is not None and out.is_dir():
        raise InputError(f"out must be a file, got the folder {out}; name a file in it")
    layout = options["format"] or ("table" if out is None and console.is_terminal else "jsonl")
    if out is not None:
        _check_free(out)
    faults = make_console(stderr=True)
    # A bar between lines of answers would be in their way.
    beside = layout == "table" or out is not None or not console.is_terminal
    with contextlib.ExitStack() as stack:
        progress: Progress = silent
        if faults.is_terminal and beside:
            progress = stack.enter_context(shown_progress(faults))
        predictions = _Counted(predict(**options, progress=progress), faults)
        if layout == "jsonl" and out is None:
            _write_lines(predictions, sys.stdout.write, sys.stdout.flush)
        elif layout == "jsonl":
            assert out is not None, "the case above"
            with atomic_path(out) as temporary, temporary.open("w", encoding="utf-8") as file:
                _write_lines(predictions, file.write, lambda: None)
        else:
            table = _table(predictions)
            stack.close()  # the bar goes first
            _show(table, out)
    if predictions.failed == predictions.count:
        return 2
    return 1 if predictions.failed else 0


def _check_free(out: Path) -> None:
    """Refuses to write over anything but earlier answers."""
    if not out.exists():
        return
    try:
        with out.open(encoding="utf-8") as file:
            first = file.readline(_LONGEST_LINE)
        ours = not first or "path" in parse_json(first, str(out), "")
    except (OSError, UnicodeDecodeError, InputError, TypeError):
        ours = False
    if not ours:
        raise InputError(f"{out} exists and holds no answers; choose another file with --out")


class _Counted:
    """Answers on their way; those that are none are told on standard error, and counted."""

    def __init__(self, predictions: Iterable[Prediction], faults: Console) -> None:
        self._predictions = predictions
        self._faults = faults
        self.count = self.failed = 0

    def __iter__(self) -> Iterator[Prediction]:
        for prediction in self._predictions:
            self.count += 1
            if prediction.error:
                self.failed += 1
                self._faults.print(
                    f"nearfar predict: {prediction.path}: {prediction.error}",
                    highlight=False,
                    markup=False,
                    soft_wrap=True,
                )
            yield prediction


def _write_lines(
    predictions: Iterable[Prediction], write: Callable[[str], int], flush: Callable[[], None]
) -> None:
    for prediction in predictions:
        # ASCII: every path survives every terminal and pipe.
        write(json.dumps(prediction.as_dict()) + "\n")
        flush()


def _table(predictions: Iterable[Prediction]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("image", overflow="fold")
    table.add_column("answer", overflow="fold")
    table.add_column("sure", justify="right", no_wrap=True)
    table.add_column("next", overflow="fold")
    for prediction in predictions:
        if prediction.error:
            table.add_row(_plain(prediction.path), f"[red]{_plain(prediction.error)}[/red]")
            continue
        others = ", ".join(f"{label} {share:.1%}" for label, share in prediction.top[1:])
        row = (prediction.path, prediction.label, f"{prediction.confidence:.1%}", others)
        table.add_row(*map(_plain, row))
    return table


def _plain(text: str) -> str:
    """Text in which brackets are no markup."""
    return text.replace("[", r"\[")


def _show(table: Table, out: Path | None) -> None:
    if out is None:
        console.print(table)
        return
    with atomic_path(out) as temporary, temporary.open("w", encoding="utf-8") as file:
        make_console(file=file, width=200).print(table)
