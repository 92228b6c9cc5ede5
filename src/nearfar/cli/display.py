"""What the commands show: a progress bar with the time left, and tables."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars

from nearfar.progress import Progress, Step, quiet_lightning

__all__ = ["console", "shown_progress"]

console = Console()


@contextmanager
def shown_progress(on: Console = console) -> Iterator[Progress]:
    """A progress callback that draws one bar; in a log file it writes a line a tenth.

    Args:
        on: where. What goes to standard output meanwhile stays there, if this is another.
    """
    quiet_lightning()
    if not on.is_terminal:
        yield _Lines(on)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(elapsed_when_finished=False),
        TextColumn("{task.fields[note]}"),
    )
    bars = Bars(
        *columns,
        console=on,
        speed_estimate_period=600,
        redirect_stdout=not on.stderr,
        transient=on.stderr,
    )
    with bars:
        task = bars.add_task("starting", total=None, note="")

        def show(step: Step) -> None:
            bars.update(
                task,
                description=step.task,
                completed=step.done,
                total=step.total,
                note=step.note,
                refresh=True,
            )

        yield show


class _Lines:
    """For output that is not a terminal: a line whenever the task or the tenth changes."""

    def __init__(self, on: Console) -> None:
        self._on = on
        self._last: tuple[str, int] = ("", -1)

    def __call__(self, step: Step) -> None:
        share = step.done / step.total
        now = (step.task, int(10 * share))
        if now != self._last:
            self._last = now
            self._on.print(f"{share:4.0%}  {step.task}  {step.note}", highlight=False)
