"""``nearfar reproduce TABLE``: a paper's comparison, run here, ours beside the paper's."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nearfar.atomic import make_folder, names_in, write_atomically
from nearfar.auditing.report import figure_bytes
from nearfar.errors import InputError
from nearfar.experiments.external_results import external_results
from nearfar.experiments.running import all_finished, run_all, still_to_train
from nearfar.experiments.tables import TABLES
from nearfar.experiments.tables.table import Run, RunResult, Table, TableRow
from nearfar.experiments.writing import TableStatus, as_json, as_markdown
from nearfar.progress import Progress, silent
from nearfar.records import parse_json

__all__ = ["ReproduceResult", "reproduce"]

_FIGURES = "results.json"


@dataclass(frozen=True)
class ReproduceResult:
    """What a comparison found and wrote.

    Attributes:
        table: which.
        out: folder with ``results.json``, ``table.md`` and ``picture.png``.
        rows: a net each.
        left: runs that are still to come; above 0 only with ``now`` or ``rows``.
    """

    table: Table
    out: Path
    rows: Sequence[TableRow]
    runs_left: int


def reproduce(
    table: str,
    out: Path | str | None = None,
    work: Path | str = Path("runs/reproduce"),
    jobs: int = 1,
    fast: bool = False,
    now: bool = False,
    rows: tuple[str, ...] = (),
    result_files: tuple[Path, ...] = (),
    progress: Progress = silent,
) -> ReproduceResult:
    """Runs one of the papers' comparisons and sets our figures beside the paper's.

    The folder ``out`` gets ``results.json`` (every run's figures, recipes, machine and date),
    ``table.md`` (means and standard deviations beside the paper's) and ``picture.png``, when all
    runs are done. Each run is kept below ``work`` with its weights; an interrupted comparison goes on
    where it stopped when started again, inside a run too.

    Several machines can share a table: each trains some of its ``rows``, and the last takes the others'
    results with ``result_files``. With ``rows`` or ``now`` the table is written with the runs that there are.

    Args:
        table: which comparison: mnist-scale, invariance, relu-vs-tanh, tiny-imagenet, cifar or
            weak-scales.
        out: folder to write; default ``results/TABLE``, of a smoke run ``runs/smoke/TABLE``.
        work: folder of the training runs; comparisons that share runs share them there.
        jobs: training processes at a time, each with its share of the CPU threads.
        fast: a smoke run of a minute or so with few images and one seed, which shows that
            everything works, and nothing else.
        now: train nothing; write the table from the runs that are finished.
        rows: names or patterns such as ``zooming*``: train the runs of these rows only, and write the
            table from all that are finished.
        result_files: results.json files, or the folders they lie in, of which runs of the same recipe and
            measurement are taken and not trained again.
        progress: called after each epoch and each part of a measurement.

    Raises:
        InputError: no such table or row, missing data, ``now`` with ``rows``, a smoke run with
            ``result_files``, runs given of another edition of the images, folders and files that hold
            something else, or more runs than would be written.
    """
    chosen, runs = find_table(table, fast)
    _check_options(fast, now, rows, result_files)
    named = _rows_named(chosen, runs, (rows,) if isinstance(rows, str) else rows)
    files = [result_files] if isinstance(result_files, str | Path) else result_files
    elsewhere = external_results(chosen, runs, [Path(file) for file in files])
    work = Path(work) / "smoke" if fast else Path(work)
    folder = Path("runs/smoke" if fast else "results") / table if out is None else Path(out)
    _check_folder(folder, table, fast)
    results = all_finished(chosen, runs, work, elsewhere)
    if result_files:
        _check_editions(results.values())
    if now and not results:
        raise InputError(f"no run of {table} is finished in {work}; leave out --now to train them")
    to_train = [] if now else still_to_train(runs, results, named)
    _keep_more(folder, len(results) + len(to_train))
    if now:
        measured = [results[i] for i in sorted(results)]
    else:
        measured = run_all(
            chosen, find_table, fast, work, jobs, progress, rows=named, external=elsewhere
        )
    if result_files:
        _check_editions(measured)
    command = f"nearfar reproduce {table}"
    command += (f" --jobs {jobs}" if jobs > 1 else "") + (" --fast" if fast else "")
    return _write(chosen, measured, TableStatus(command, fast, len(runs) - len(measured)), folder)


def _write(
    table: Table, measured: Sequence[RunResult], status: TableStatus, folder: Path
) -> ReproduceResult:
    lines = table.rows(measured)
    make_folder(folder)
    figures = json.dumps(as_json(table, lines, status), indent=1, allow_nan=False) + "\n"
    write_atomically(folder / _FIGURES, figures)
    write_atomically(folder / "table.md", as_markdown(table, lines, status))
    write_atomically(folder / "picture.png", figure_bytes(table.picture(lines), "png"))
    return ReproduceResult(table, folder, lines, status.runs_left)


def find_table(name: str, fast: bool) -> tuple[Table, list[Run]]:
    """A table and its runs.

    Raises:
        InputError: no such table.
    """
    if name not in TABLES:
        raise InputError(f"no table is named {name!r}; there are {', '.join(TABLES)}")
    return TABLES[name], TABLES[name].runs(fast)


def _check_options(
    fast: bool, now: bool, rows: Sequence[str], result_files: Sequence[Path]
) -> None:
    """Refuses options that contradict each other."""
    if now and rows:
        raise InputError("now trains nothing, so rows would choose nothing; leave out one of them")
    if fast and result_files:
        raise InputError("a smoke run's figures are its own; leave out result_files, or fast")


def _rows_named(table: Table, runs: Sequence[Run], patterns: Sequence[str]) -> list[str]:
    """The table's rows that patterns name; none for no pattern."""
    names = list(dict.fromkeys(run.row for run in runs))
    for pattern in patterns:
        if not any(fnmatch.fnmatchcase(name, pattern) for name in names):
            raise InputError(
                f"{table.name} has no row {pattern!r}; its rows are {', '.join(map(repr, names))}; a name "
                f"that holds a comma is written as a pattern, ? in the comma's place, or as '[\"NAME\"]'"
            )
    return [name for name in names if any(fnmatch.fnmatchcase(name, p) for p in patterns)]


def _check_folder(folder: Path, table: str, fast: bool) -> None:
    """Refuses a folder whose files are not this table's, before anything is trained."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; choose a folder with --out")
    if not folder.is_dir() or not names_in(folder):
        return
    holds = _results(folder)
    if holds.get("table") != table:
        raise InputError(
            f"{folder} is not empty and holds no results of {table}; choose another folder with --out"
        )
    if fast and not holds.get("smoke_run"):
        raise InputError(
            f"{folder} holds the figures of a whole run of {table}, which a smoke run must not replace; "
            f"choose another folder with --out"
        )


def _keep_more(folder: Path, runs: int) -> None:
    """Refuses to write fewer runs over more, before anything is trained."""
    held_runs = sum(len(row["runs"]) for row in _results(folder).get("rows", []))
    if held_runs > runs:
        raise InputError(
            f"{folder} holds {held_runs} runs, which {runs} must not replace; choose another folder with "
            f"--out, or take them over with --result_files {folder}"
        )


def _check_editions(measured: Iterable[RunResult]) -> None:
    """Refuses figures on different images in one table: recipes do not say which edition of a set."""
    editions = sorted({str(m.provenance.get("images", "")) for m in measured})
    if len(editions) > 1:
        raise InputError(
            f"the runs given and those here are of different images ({' and '.join(map(repr, editions))}), "
            f"whose figures do not belong in one table; leave them out of --result_files"
        )


def _results(folder: Path) -> dict[str, Any]:
    try:
        path = folder / _FIGURES
        content = parse_json(path.read_bytes(), str(path), "write it again with --now")
    except (OSError, InputError):
        return {}
    return content if isinstance(content, dict) else {}
