"""A table's runs, trained and measured: one after another or several at a time, each kept when done."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import queue
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from functools import partial
from pathlib import Path
from typing import Any

import torch

from nearfar.atomic import write_atomically
from nearfar.errors import InputError
from nearfar.experiments.tables.table import Measured, Run, Table
from nearfar.progress import Progress, Step
from nearfar.training import train
from nearfar.training.fit import WEIGHTS

__all__ = ["finished", "run_all"]

#: Share of a run's progress that training takes; measuring takes the rest.
_TRAINING = 0.9


def finished(table: Table, run: Run, work: Path) -> Measured | None:
    """What was measured of a run earlier, or nothing."""
    file = _file(table, run, work)
    if not file.is_file() or not (work / run.folder / WEIGHTS).is_file():
        return None
    try:
        return Measured(**json.loads(file.read_text(encoding="utf-8")))
    except (ValueError, TypeError):  # of another version, or cut off by hand: measure again
        return None


def run_all(
    table: Table,
    find: Callable[[str, bool], tuple[Table, list[Run]]],
    fast: bool,
    work: Path,
    jobs: int,
    progress: Progress,
) -> list[Measured]:
    """Trains and measures all runs of a table that are not finished.

    Args:
        table: which.
        find: a table's name and whether it is a smoke run → the table and its runs; processes of
            their own call it, so it must be a module's function.
        fast: a smoke run.
        work: folder of all tables' runs.
        jobs: processes at a time; each gets its share of the threads.
        progress: called with the number of finished runs and parts of runs.

    Returns:
        What was measured, in the runs' order.
    """
    runs = find(table.name, fast)[1]
    found = {i: done for i, run in enumerate(runs) if (done := finished(table, run, work))}
    left = [i for i in range(len(runs)) if i not in found]
    shown = _Shown(table.name, len(runs), len(found), progress)
    if jobs == 1 or len(left) < 2:
        for i in left:
            found[i] = _one(table, runs[i], work, partial(shown, i))
            shown.done(i)
    else:
        found |= _together(table, find, fast, work, left, jobs, shown)
    return [found[i] for i in range(len(runs))]


class _Shown:
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
        left = self._total - self._done
        task = (
            f"{self._name}: {left} of {self._total} runs left"
            if left
            else f"{self._name}: all runs done"
        )
        self._progress(Step(task, self._done + sum(self._under_way.values()), self._total, note))


def _one(table: Table, run: Run, work: Path, tell: Callable[[float, str], None]) -> Measured:
    """Trains and measures one run, and keeps what was measured beside its weights."""
    recipe, folder = run.recipe, work / run.folder
    label = folder.name

    def training(step: Step) -> None:
        tell(_TRAINING * step.done / step.total, f"{label}: epoch {step.done:g}, {step.note}")

    def measuring(step: Step) -> None:
        tell(
            _TRAINING + (1 - _TRAINING) * step.done / step.total,
            f"{label}: {step.task} {step.note}",
        )

    trained = train(
        recipe.model,
        recipe.data,
        recipe.fit,
        recipe.trainer,
        recipe.seed,
        out=folder,
        progress=training,
    )
    measured = Measured(
        run.row,
        recipe.seed,
        table.measure(run, trained, measuring),
        sum(p.numel() for p in trained.model.parameters()),
        trained.record["best_epoch"],
    )
    write_atomically(_file(table, run, work), json.dumps(dataclasses.asdict(measured), indent=1))
    return measured


def _together(
    table: Table,
    find: Callable[[str, bool], tuple[Table, list[Run]]],
    fast: bool,
    work: Path,
    left: Sequence[int],
    jobs: int,
    shown: _Shown,
) -> dict[int, Measured]:
    """Several runs at a time, each in a process of its own."""
    # Forked copies of a process that has used threads may hang; fresh ones do not.
    context = multiprocessing.get_context("spawn")
    threads = max(1, torch.get_num_threads() // jobs)
    found: dict[int, Measured] = {}
    with context.Manager() as manager:
        news: Any = manager.Queue()
        pool = ProcessPoolExecutor(jobs, context, _limit_threads, (threads,))
        try:
            waiting = {pool.submit(_job, find, table.name, fast, work, i, news): i for i in left}
            while waiting:
                ended, _ = wait(waiting, timeout=0.5, return_when=FIRST_COMPLETED)
                _pass_on(news, shown)
                for future in ended:
                    i = waiting.pop(future)
                    found[i] = future.result()
                    shown.done(i)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    return found


def _pass_on(news: Any, shown: _Shown) -> None:
    while True:
        try:
            shown(*news.get_nowait())
        except queue.Empty:
            return


def _limit_threads(count: int) -> None:
    torch.set_num_threads(count)


def _job(
    find: Callable[[str, bool], tuple[Table, list[Run]]],
    name: str,
    fast: bool,
    work: Path,
    i: int,
    news: Any,
) -> Measured:
    table, runs = find(name, fast)
    return _one(table, runs[i], work, lambda share, note: news.put((i, share, note)))


def _file(table: Table, run: Run, work: Path) -> Path:
    return work / run.folder / f"measured-{table.name}.json"


def check_jobs(jobs: int) -> None:
    """Refuses a number of processes that makes no sense.

    Raises:
        InputError: ``jobs`` below 1.
    """
    if jobs < 1:
        raise InputError(f"jobs must be at least 1, got {jobs}")
