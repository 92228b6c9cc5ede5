"""What a table of a paper is made of: runs to train, what is measured of each, rows to print."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch

from nearfar.data import ScaleDataModule
from nearfar.errors import InputError
from nearfar.progress import Progress
from nearfar.training import Checkpoint, Recipe, with_options

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "Column",
    "PaperFigure",
    "Run",
    "RunResult",
    "Table",
    "TableRow",
    "at_scales",
    "run_folder",
    "split_error",
]


@dataclass(frozen=True)
class Run:
    """One training run of a table.

    Attributes:
        row: name of the row it belongs to.
        recipe: model, data, budget and seed.
        folder: where it is kept, below the folder of all tables' runs; tables that name the same
            folder share the run.
        part: which of a row's settings it is of, where a row has several.
    """

    row: str
    recipe: Recipe
    folder: str
    part: str = ""


def run_folder(table: str, *words: object) -> str:
    """A folder's name that says what is in it, of letters, digits, points and hyphens."""
    text = " ".join(str(word) for word in words).replace("×", "x").replace("'", "").lower()
    ascii_words = "".join(c if c.isascii() and (c.isalnum() or c == ".") else " " for c in text)
    return f"{table}/{'-'.join(ascii_words.split())}"


@dataclass(frozen=True)
class RunResult:
    """What was measured of one run.

    Attributes:
        row, seed: which run.
        values: figures by column; ``None`` where there is none to give.
        parameters: of the net.
        best_epoch: whose weights were kept.
        provenance: the recipe, and machine, date and versions of the measurement.
    """

    row: str
    seed: int
    values: Mapping[str, Any]
    parameters: int
    best_epoch: int
    provenance: Mapping[str, Any]


@dataclass(frozen=True)
class PaperFigure:
    """A paper's figure: mean, standard deviation where it prints one, and what it stands for."""

    mean: float
    std: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Column:
    """One figure of every run.

    Attributes:
        key: its name in ``RunResult.values``.
        title: with its unit.
        digits: after the point.
        spread: whether runs differ by their seed alone, so that their standard deviation means
            something.
    """

    key: str
    title: str
    digits: int = 2
    spread: bool = True


@dataclass(frozen=True)
class TableRow:
    """A line of the table: all runs of one net.

    Attributes:
        name: what it is called.
        runs: in the seeds' order.
        paper: the paper's figures by column.
    """

    name: str
    runs: tuple[RunResult, ...]
    paper: Mapping[str, PaperFigure]

    def values(self, key: str) -> list[float]:
        """A column's figures, of the runs that have one."""
        return [float(run.values[key]) for run in self.runs if run.values.get(key) is not None]

    def mean(self, column: Column) -> float | None:
        """Over the runs; none where no run has the figure."""
        values = self.values(column.key)
        return statistics.fmean(values) if values else None

    def std(self, column: Column) -> float | None:
        """Sample standard deviation over the runs; none with a single run."""
        values = self.values(column.key)
        return statistics.stdev(values) if column.spread and len(values) > 1 else None

    @property
    def parameters(self) -> int:
        """Of the net."""
        return self.runs[0].parameters


@dataclass(frozen=True)
class Table:
    """A comparison that ``nearfar reproduce`` runs.

    Attributes:
        name: on the command line.
        title: what is compared, for a reader.
        source: the paper and its table or figure.
        columns: what is measured; the first is the row's ``mean`` and ``std``.
        runs: all training runs; with true, those of a smoke run.
        measure: a run and its trained net → values by column; slow parts report progress.
        picture: rows → the picture.
        paper: figures printed, by row and column.
        remarks: how ours differs from the paper's setting, a sentence each.
        version: of ``measure``; what was measured by another is measured again.
    """

    name: str
    title: str
    source: str
    columns: Sequence[Column]
    runs: Callable[[bool], list[Run]]
    measure: Callable[[Run, Checkpoint, Progress], dict[str, Any]]
    picture: Callable[[Sequence[TableRow]], Figure]
    paper: Mapping[str, Mapping[str, PaperFigure]]
    remarks: Sequence[str] = ()
    version: int = 1

    def __post_init__(self) -> None:
        runs = self.runs(True)
        unknown = set(self.paper) - {run.row for run in runs}
        if unknown:
            raise InputError(f"{self.name}: the paper's rows {sorted(unknown)} have no run")

    def rows(self, measured: Sequence[RunResult]) -> list[TableRow]:
        """RunResult runs by row, in the table's order; rows without a run are left out."""
        order = list(dict.fromkeys(run.row for run in self.runs(False)))
        return [
            TableRow(name, tuple(own), self.paper.get(name, {}))
            for name in order
            if (own := sorted((m for m in measured if m.row == name), key=lambda m: m.seed))
        ]


def split_error(trained: Checkpoint, data: ScaleDataModule, split: str) -> float:
    """Errors in per cent on a split's images at the scales of training, not augmented.

    Args:
        trained: the net.
        data: its data.
        split: ``train`` or ``validation``.
    """
    labels = data.labels(split)
    wrong, first = 0, 0
    with torch.inference_mode():
        for images in data.in_order(split):
            predictions = trained.model(
                images.contiguous(memory_format=torch.channels_last)
            ).argmax(1)
            wrong += int((predictions != labels[first : first + len(images)]).sum())
            first += len(images)
    return 100 * wrong / len(labels)


@contextmanager
def at_scales(trained: Checkpoint, scales: Sequence[float] | None) -> Iterator[Path]:
    """The checkpoint's file; with ``scales``, a passing copy whose net looks at these.

    Args:
        trained: of a net that takes the option ``scales``.
        scales: more or others than in training; ``None`` for those of training.
    """
    if scales is None:
        yield trained.path
        return
    with TemporaryDirectory() as folder:
        wider = Path(folder) / "weights.safetensors"
        yield with_options(trained.path, {"scales": list(scales)}, wider).path
