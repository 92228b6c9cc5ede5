"""What the commands show: a progress bar with the time left, and tables."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress as Bars
from rich.progress import TextColumn, TimeElapsedColumn

from nearfar.progress import Progress, Step, quiet_lightning

__all__ = ["console", "shown_progress"]

console = Console()


@contextmanager
def shown_progress(on: Console = console) -> Iterator[Progress]:
    """A progress callback that draws one bar; where no terminal is, it prints a line every tenth.

    Args:
        on: where. What goes to standard output meanwhile stays there, if this is another.
    """
    quiet_lightning()
    columns = (*Bars.get_default_columns(), TimeElapsedColumn(), TextColumn("{task.fields[note]}"))
    bars = Bars(
        *columns,
        console=on,
        speed_estimate_period=600,
        redirect_stdout=not on.stderr,
        transient=on.stderr,
        disable=not on.is_terminal,
    )
    task = bars.add_task("starting", total=None, note="")
    last = ("", -1)

    def show(step: Step) -> None:
        nonlocal last
        bars.update(
            task, description=step.task, completed=step.done, total=step.total, note=step.note
        )
        bars.refresh()
        tenth = (step.task, int(10 * step.done / step.total))
        if bars.disable and tenth != last:
            last = tenth
            on.print(f"{step.done / step.total:4.0%}  {step.task}  {step.note}", highlight=False)

    with bars:
        yield show
