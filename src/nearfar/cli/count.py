"""``nearfar count`` on the command line."""

from __future__ import annotations

import dataclasses
import re
import sys
from pathlib import Path
from typing import Any, Literal

import torch
from rich import box
from rich.console import Console
from rich.table import Table
from torch import nn

from nearfar.atomic import write_atomically
from nearfar.cli.display import console, make_console
from nearfar.cli.parsing import parse_call
from nearfar.counting import Count, Row
from nearfar.counting import count as count_network
from nearfar.errors import InputError
from nearfar.models import create_model

EXAMPLES = """\
  nearfar count lenet5 --input 1x28x28
  nearfar count resnet50 --all
  nearfar count si_cnn_small --options '{scales: [0.5, 1, 2]}' --format csv
  nearfar count vgg16 --biases --out vgg16.json
"""

Format = Literal["table", "json", "csv"]
#: Columns that a layer's name gets at least, where it has to be folded.
_NAME = 12
_SUMS = ("units", "connections", "weights", "parameters", "multiplications")


def count(
    name: str,
    *,
    input: str | None = None,  # noqa: A002 (options are named for users)
    num_classes: int | None = None,
    options: dict[str, Any] | None = None,
    biases: bool = False,
    format: Format = "table",  # noqa: A002
    all: bool = False,  # noqa: A002
    out: Path | None = None,
) -> Count:
    """Counts a network layer by layer for one image.

    Units are the numbers that a layer puts out, connections what they read, weights what a layer
    multiplies with, parameters all that it learns; the field is what one unit sees of the image. The
    network is not given weights, so that a large one takes seconds and no memory.

    Args:
        name: a name from nearfar.list_models() or timm.list_models().
        input: channels, height and width of the image, as 3x224x224; default: what the network was
            made for.
        num_classes: classes; default: those that the network was made for.
        options: the model's own options, such as {scales: [0.5, 1, 2]}.
        biases: count biases as weights, and each as a connection to a unit that is always 1.
        format: what is shown: a table, or JSON or CSV for other programs.
        all: show norms and whatever else only holds parameters, too.
        out: a file to write as well, JSON or CSV by its ending.
    """
    if out is not None and out.suffix not in (".json", ".csv"):
        raise InputError(f"out must end in .json or .csv, got {out}; add one of the two")
    size = None if input is None else _size(input)
    model = _without_weights(name, num_classes, size, options or {})
    if size is None:
        cfg = getattr(model, "pretrained_cfg", None) or {}
        size = tuple(cfg.get("input_size") or (3, 224, 224))
    counts = dataclasses.replace(count_network(model, size, biases=biases), model=name)
    if out is not None:
        write_atomically(out, counts.as_csv() if out.suffix == ".csv" else counts.as_json())
    return counts


def run(arguments: list[str]) -> None:
    """Parses, runs, shows."""
    options = parse_call(count, arguments, EXAMPLES, positional=True)
    counts = count(**options)
    if options["format"] != "table":
        sys.stdout.write(counts.as_csv() if options["format"] == "csv" else counts.as_json())
        return
    _show(counts, options["all"])


def _size(text: str) -> tuple[int, int, int]:
    match = re.fullmatch(r"(\d+)[x×,](\d+)[x×,](\d+)", text.strip())
    if match is None:
        raise InputError(
            f"--input must be channels, height and width, such as 3x224x224, got {text!r}; write three "
            f"whole numbers with x between them"
        )
    return int(match[1]), int(match[2]), int(match[3])


def _without_weights(
    name: str, num_classes: int | None, size: tuple[int, int, int] | None, options: dict[str, Any]
) -> nn.Module:
    """The network without weights if it can be made so, else with random ones."""
    settings: dict[str, Any] = {**options, "num_classes": num_classes}
    if size is not None:
        settings["in_chans"] = size[0]
    try:
        with torch.device("meta"):
            return create_model(name, **settings)
    except (
        Exception
    ):  # some initialise by values, of which there are none; other faults recur below
        return create_model(name, **settings)


def _show(counts: Count, everything: bool) -> None:
    rows = [row for row in counts.rows if everything or row.kind != "other"]
    endless = Console(width=10_000)
    # As many of the columns that only describe as there is room for.
    for describing in (("type", "output"), ("type",), ()):
        table = _table(counts, rows, describing)
        needed = endless.measure(table).maximum
        if needed <= console.width:
            break
    if needed > console.width:
        # Long names are folded, figures never cut: then the table is wider than the terminal.
        table = _table(counts, rows, (), fold=_NAME)
        needed = endless.measure(table).maximum
    output = console if needed <= console.width else make_console(width=needed)
    output.print(table)
    for sentence in _notes(counts, rows):
        console.print(sentence, highlight=False)


def _table(counts: Count, rows: list[Row], describing: tuple[str, ...], fold: int = 1000) -> Table:
    channels, height, width = counts.input_size
    table = Table(
        title=f"{counts.model}, for one image of {channels}×{height}×{width}",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        show_edge=False,
    )
    table.add_column("layer", no_wrap=True)
    for heading in describing:
        table.add_column(heading, no_wrap=True)
    for heading in (*_SUMS, "memory", "field"):
        title = "multipli-\ncations" if heading == "multiplications" else heading
        table.add_column(title, justify="right", no_wrap=True)
    for row in rows:
        described = {"type": row.type, "output": "×".join(map(str, row.output))}
        sums = [f"{getattr(row, name):,}" for name in _SUMS]
        table.add_row(
            _name(row, fold),
            *(described[d] for d in describing),
            *sums,
            _bytes(row.memory),
            _field(row),
        )
    table.add_section()
    sums = [f"{getattr(counts, name):,}" for name in _SUMS]
    table.add_row(
        "total", *("" for _ in describing), *sums, _bytes(counts.memory), "", style="bold"
    )
    return table


def _name(row: Row, fold: int) -> str:
    name = _folded(row.name, fold)
    if row.calls > 1:
        name += _beside(name, f"({row.calls} calls)", fold)
    if row.calls == 0:
        name += _beside(name, "(not used)", fold)
    if row.shared_with is not None:
        name += "\n  shares" + _beside("  shares", _folded(row.shared_with, fold - 2, "  "), fold)
    return name


def _folded(name: str, width: int, indent: str = "") -> str:
    """A module's name in lines of at most ``width``, broken after its dots where that is possible."""
    lines = [""]
    for part in re.findall(r"[^.]*\.?", name):
        if lines[-1] and len(lines[-1]) + len(part) > width:
            lines.append("")
        lines[-1] += part
    return f"\n{indent}".join(lines)


def _beside(text: str, more: str, width: int) -> str:
    """What to add to put ``more`` beside a text, or on the next line where it does not fit."""
    room = width - len(text.rsplit("\n", 1)[-1])
    return f" {more}" if len(more) < room and "\n" not in more else f"\n  {more}"


def _field(row: Row) -> str:
    if row.field is not None:
        return f"{row.field[0]}×{row.field[1]}" + ("*" if row.covers else "")
    return {"whole image": "whole", "not known": "unknown"}.get(row.reach, "–")


def _bytes(number: int) -> str:
    if number < 1000:
        return f"{number} B"
    return f"{number / 1e3:.1f} kB" if number < 1e6 else f"{number / 1e6:.1f} MB"


def _notes(counts: Count, rows: list[Row]) -> list[str]:
    hidden = [row for row in counts.rows if row not in rows]
    notes = []
    if hidden:
        parameters = sum(row.parameters for row in hidden)
        layers = "1 row" if len(hidden) == 1 else f"{len(hidden)} rows"
        notes.append(
            f"{layers} of norms and the like ({parameters:,} parameters) are in the total but not shown; "
            f"--all shows them."
        )
    if any(row.covers and row.field for row in rows):
        notes.append("* some unit sees the whole image.")
    convention = (
        "biases count as weights, each a connection to a unit that is always 1"
        if counts.biases
        else "biases are parameters, but neither weights nor connections (--biases counts them)"
    )
    notes.append(
        f"Units are numbers put out by layers, the image not included; shared weights count once; "
        f"{convention}. docs/counting.md says the rest."
    )
    notes.append(
        f"\nNext:\n  add --out {counts.model}.csv to keep these figures, or --input CxHxW to count "
        f"another size of image"
    )
    return notes
