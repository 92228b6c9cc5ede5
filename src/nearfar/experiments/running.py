"""A table's runs, trained and measured: one after another or several at a time, each kept when done."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import queue
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from nearfar.atomic import write_atomically
from nearfar.errors import InputError
from nearfar.experiments.tables.table import Run, RunResult, Table
from nearfar.progress import Progress, Step, quiet_lightning
from nearfar.provenance import machine, today
from nearfar.records import as_dataclass, parse_json
from nearfar.training import Recipe, train
from nearfar.training.run_folder import WEIGHTS
from nearfar.version import versions

__all__ = ["Find", "all_finished", "finished", "run_all", "still_to_train"]

Find = Callable[[str, bool], tuple[Table, list[Run]]]
"""A table's name, and whether it is a smoke run → the table and its runs."""

#: Share of a run's progress that training takes; measuring takes the rest.
_TRAINING = 0.9
_NEWS_EVERY = 0.3
_NOTHING: Mapping[int, RunResult] = MappingProxyType({})


def finished(table: Table, run: Run, work: Path) -> RunResult | None:
    """What was measured of a run earlier, of the same recipe and in the same way; or nothing."""
    file = _file(table, run, work)
    if not file.is_file() or not (work / run.folder / WEIGHTS).is_file():
        return None
    try:
        record = parse_json(file.read_bytes(), str(file), "measure again")
        result = as_dataclass(RunResult, record, "measurement")
        same = Recipe.from_dict(result.provenance["recipe"]) == run.recipe
        return result if same and result.provenance["measure"] == table.version else None
    except (OSError, KeyError, InputError):  # damaged, or of another version: measure again
        return None


def all_finished(
    table: Table, runs: Sequence[Run], work: Path, external: Mapping[int, RunResult] = _NOTHING
) -> dict[int, RunResult]:
    """The finished runs, those below ``work`` before external ones, by their place among the table's."""
    own = {i: done for i, run in enumerate(runs) if (done := finished(table, run, work))}
    return {**external, **own}


def still_to_train(
    runs: Sequence[Run], results: Mapping[int, RunResult], rows: Sequence[str] = ()
) -> list[int]:
    """Which runs are not finished, by their place; with ``rows``, of these rows only."""
    return [i for i, run in enumerate(runs) if i not in results and (not rows or run.row in rows)]


def run_all(
    table: Table,
    find: Find,
    fast: bool,
    work: Path,
    jobs: int,
    progress: Progress,
    rows: Sequence[str] = (),
    external: Mapping[int, RunResult] = _NOTHING,
) -> list[RunResult]:
    """Trains and measures the runs of a table that are not finished.

    Args:
        table: which.
        find: gives the table and its runs; processes of their own call it, so it must be a module's
            function.
        fast: a smoke run.
        work: folder of all tables' runs.
        jobs: processes at a time; each gets its share of the threads.
        progress: called with the number of finished runs and parts of runs.
        rows: train these rows' runs only; default: all.
        external: runs that were finished elsewhere, by their place among the table's.

    Returns:
        What was measured of all finished runs, in the runs' order.

    Raises:
        InputError: ``jobs`` below 1, or what a run cannot use.
    """
    if jobs < 1:
        raise InputError(f"jobs must be at least 1, got {jobs}")
    runs = find(table.name, fast)[1]
    results = all_finished(table, runs, work, external)
    to_train = still_to_train(runs, results, rows)
    run_progress = _RunProgress(table.name, len(results) + len(to_train), len(results), progress)
    if jobs == 1:
        for i in to_train:
            results[i] = _one(table, runs[i], work, partial(run_progress, i))
            run_progress.done(i)
    else:
        start = partial(_job, find, table.name, fast, work, torch.get_num_threads() // jobs)
        _several(to_train, start, jobs, run_progress)
        for i in to_train:
            done = finished(table, runs[i], work)
            assert done is not None, "its process has kept it"
            results[i] = done
    return [results[i] for i in sorted(results)]


class _RunProgress:
    """One measure of progress over all runs, also of those under way."""

    def __init__(self, name: str, total: int, already: int, progress: Progress) -> None:
        self._name, self._total, self._done, self._progress = name, total, already, progress
        self._under_way: dict[int, float] = {}
        self._tell("")

    def __call__(self, run: int, share: float, note: str) -> None:
        self._under_way[run] = share
        self._tell(note)

    def done(self, run: int) -> None:
        self._under_way.pop(run, None)
        self._done += 1
        self._tell("")

    def _tell(self, note: str) -> None:
        remaining = self._total - self._done
        task = f"{remaining} of {self._total} runs left" if remaining else "all runs done"
        done = self._done + sum(self._under_way.values())
        self._progress(Step(f"{self._name}: {task}", done, self._total, note))


def _one(table: Table, run: Run, work: Path, tell: Callable[[float, str], None]) -> RunResult:
    """Trains and measures one run, and keeps what was measured beside its weights."""
    recipe, folder = run.recipe, work / run.folder
    label = folder.name

    def training(step: Step) -> None:
        tell(_TRAINING * step.done / step.total, f"{label}: epoch {step.done:g}, {step.note}")

    def measuring(step: Step) -> None:
        share = _TRAINING + (1 - _TRAINING) * step.done / step.total
        tell(share, f"{label}: {step.task} {step.note}")

    specs = (recipe.model, recipe.data, recipe.fit, recipe.trainer, recipe.seed)
    try:
        trained = train(*specs, out=folder, progress=training)
    except InputError as cause:
        raise InputError(
            f"run {label} of {table.name}: {cause} (nearfar reproduce keeps its runs below --work)"
        ) from cause
    values = table.measure(run, trained, measuring)
    provenance = {
        "recipe": trained.recipe.as_dict(),
        "measure": table.version,
        "images": trained.record.get("edition", ""),
        "machine": machine(),
        "date": today(),
        "versions": versions(),
    }
    size = sum(p.numel() for p in trained.model.parameters())
    measured = RunResult(
        run.row, recipe.seed, values, size, trained.record["best_epoch"], provenance
    )
    write_atomically(_file(table, run, work), json.dumps(dataclasses.asdict(measured), indent=1))
    return measured


def _several(
    to_train: list[int], start: Callable[[int, Any], None], jobs: int, run_progress: _RunProgress
) -> None:
    """Each run in a process of its own, so many at a time; ends all of them if one fails."""
    # Forked copies of a process that has used threads may hang; fresh ones do not.
    context = multiprocessing.get_context("spawn")
    news: Any = context.Queue()
    waiting, going = list(to_train), dict[int, BaseProcess]()
    try:
        while waiting or going:
            while waiting and len(going) < jobs:
                i = waiting.pop(0)
                going[i] = context.Process(target=start, args=(i, news))
                going[i].start()
            ended = [i for i, process in going.items() if process.exitcode is not None]
            # After it was seen to have ended, nothing more comes of a process.
            _pass_on(news, run_progress)
            for i in ended:
                if status := going.pop(i).exitcode:
                    raise RuntimeError(f"a training process ended with status {status}")
                run_progress.done(i)
    finally:  # what is unfinished goes on another time, from where it was
        for process in going.values():
            process.kill()
        for process in going.values():
            process.join()


def _pass_on(news: Any, run_progress: _RunProgress) -> None:
    """Shows what the processes tell, until they are silent for a moment; raises the fault one names."""
    while True:
        try:
            i, share, note = news.get(timeout=_NEWS_EVERY)
        except queue.Empty:
            return
        if share is None:
            raise InputError(note)
        run_progress(i, share, note)


def _job(find: Find, name: str, fast: bool, work: Path, threads: int, i: int, news: Any) -> None:
    """One run, in a process of its own."""
    quiet_lightning()
    threading.Thread(target=_end_with_the_first, daemon=True).start()
    torch.set_num_threads(max(1, threads))
    table, runs = find(name, fast)
    try:
        _one(table, runs[i], work, lambda share, note: news.put((i, share, note)))
    except InputError as cause:
        news.put((i, None, str(cause)))
        sys.exit(2)
    except KeyboardInterrupt:  # the first process speaks for all
        sys.exit(130)


def _end_with_the_first() -> None:
    first = multiprocessing.parent_process()
    assert first is not None
    first.join()
    os._exit(1)


def _file(table: Table, run: Run, work: Path) -> Path:
    return work / run.folder / f"measured-{table.name}.json"
