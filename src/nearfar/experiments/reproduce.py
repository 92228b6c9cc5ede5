"""``nearfar reproduce TABLE``: a paper's comparison, run here, ours beside the paper's."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nearfar.atomic import make_folder, write_atomically
from nearfar.auditing.report import figure_bytes
from nearfar.errors import InputError
from nearfar.experiments.external_results import finished_elsewhere
from nearfar.experiments.running import all_finished, run_all, still_to_train
from nearfar.experiments.tables import TABLES
from nearfar.experiments.tables.table import Measured, Row, Run, Table
from nearfar.experiments.writing import Making, as_json, as_markdown
from nearfar.progress import Progress, silent

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
    rows: Sequence[Row]
    left: int


def reproduce(
    table: str,
    out: Path | str | None = None,
    work: Path | str = Path("runs/reproduce"),
    jobs: int = 1,
    fast: bool = False,
    now: bool = False,
    rows: tuple[str, ...] = (),
    given: tuple[Path, ...] = (),
    progress: Progress = silent,
) -> ReproduceResult:
    """Runs one of the papers' comparisons and sets our figures beside the paper's.

    The folder ``out`` gets ``results.json`` (every run's figures, recipes, machine and date),
    ``table.md`` (means and standard deviations beside the paper's) and ``picture.png``, when all
    runs are done. Each run is kept below ``work`` with its weights; an interrupted comparison goes on
    where it stopped when started again, inside a run too.

    Several machines can share a table: each trains some of its ``rows``, and the last takes the others'
    results with ``given``. With ``rows`` or ``now`` the table is written with the runs that there are.

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
        given: results.json files, or the folders they lie in, of which runs of the same recipe and
            measurement are taken and not trained again.
        progress: called after each epoch and each part of a measurement.

    Raises:
        InputError: no such table or row, missing data, ``now`` with ``rows``, a smoke run with
            ``given``, runs given of another edition of the images, folders and files that hold
            something else, or more runs than would be written.
    """
    chosen, runs = find_table(table, fast)
    _check_options(fast, now, rows, given)
    named = _rows_named(chosen, runs, (rows,) if isinstance(rows, str) else rows)
    files = [given] if isinstance(given, str | Path) else given
    elsewhere = finished_elsewhere(chosen, runs, [Path(file) for file in files])
    work = Path(work) / "smoke" if fast else Path(work)
    place = Path("runs/smoke" if fast else "results") / table if out is None else Path(out)
    _check_place(place, table, fast)
    found = all_finished(chosen, runs, work, elsewhere)
    if given:
        _check_editions(found.values())
    if now and not found:
        raise InputError(f"no run of {table} is finished in {work}; leave out --now to train them")
    coming = [] if now else still_to_train(runs, found, named)
    _keep_more(place, len(found) + len(coming))
    if now:
        measured = [found[i] for i in sorted(found)]
    else:
        measured = run_all(
            chosen, find_table, fast, work, jobs, progress, rows=named, given=elsewhere
        )
    if given:
        _check_editions(measured)
    lines = chosen.rows(measured)
    left = len(runs) - len(measured)
    command = f"nearfar reproduce {table}"
    command += (f" --jobs {jobs}" if jobs > 1 else "") + (" --fast" if fast else "")
    made = Making(command, fast, left)
    make_folder(place)
    figures = json.dumps(as_json(chosen, lines, made), indent=1, allow_nan=False) + "\n"
    write_atomically(place / _FIGURES, figures)
    write_atomically(place / "table.md", as_markdown(chosen, lines, made))
    write_atomically(place / "picture.png", figure_bytes(chosen.picture(lines), "png"))
    return ReproduceResult(chosen, place, lines, left)


def find_table(name: str, fast: bool) -> tuple[Table, list[Run]]:
    """A table and its runs.

    Raises:
        InputError: no such table.
    """
    if name not in TABLES:
        raise InputError(f"no table is named {name!r}; there are {', '.join(TABLES)}")
    return TABLES[name], TABLES[name].runs(fast)


def _check_options(fast: bool, now: bool, rows: Sequence[str], given: Sequence[Path]) -> None:
    """Refuses options that contradict each other."""
    if now and rows:
        raise InputError("now trains nothing, so rows would choose nothing; leave out one of them")
    if fast and given:
        raise InputError("a smoke run's figures are its own; leave out given, or fast")


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


def _check_place(place: Path, table: str, fast: bool) -> None:
    """Refuses a folder whose files are not this table's, before anything is trained."""
    if place.exists() and not place.is_dir():
        raise InputError(f"{place} is a file; choose a folder with --out")
    if not place.is_dir() or not any(place.iterdir()):
        return
    holds = _results(place)
    if holds.get("table") != table:
        raise InputError(
            f"{place} is not empty and holds no results of {table}; choose another folder with --out"
        )
    if fast and not holds.get("smoke_run"):
        raise InputError(
            f"{place} holds the figures of a whole run of {table}, which a smoke run must not replace; "
            f"choose another folder with --out"
        )


def _keep_more(place: Path, runs: int) -> None:
    """Refuses to write fewer runs over more, before anything is trained."""
    held = sum(len(row["runs"]) for row in _results(place).get("rows", []))
    if held > runs:
        raise InputError(
            f"{place} holds {held} runs, which {runs} must not replace; choose another folder with --out, or "
            f"take them over with --given {place}"
        )


def _check_editions(measured: Iterable[Measured]) -> None:
    """Refuses figures on different images in one table: recipes do not say which edition of a set."""
    editions = sorted({str(m.made.get("images", "")) for m in measured})
    if len(editions) > 1:
        raise InputError(
            f"the runs given and those here are of different images ({' and '.join(map(repr, editions))}), "
            f"whose figures do not belong in one table; leave them out of --given"
        )


def _results(place: Path) -> dict[str, Any]:
    try:
        found = json.loads((place / _FIGURES).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
