"""What the commands show: a progress bar with the time left, and tables."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderHook
from rich.control import Control
from rich.progress import Progress as Bars
from rich.progress import TextColumn, TimeElapsedColumn
from rich.segment import Segment

from nearfar.cli.terminal_text import visible
from nearfar.progress import Progress, Step, quiet_lightning

__all__ = ["console", "make_console", "shown_progress"]


class _Visible:
    """Something to print, its control characters written out; colours and cursor movements stay."""

    def __init__(self, renderable: Any) -> None:
        self._renderable = renderable

    def __rich_console__(self, on: Console, options: ConsoleOptions) -> Iterator[Segment]:
        for segment in on.render(self._renderable, options):
            yield (segment if segment.control else Segment(visible(segment.text), segment.style))


class _ShowsVisible(RenderHook):
    """What a console prints passes through here."""

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        return [part if isinstance(part, Control) else _Visible(part) for part in renderables]


class _Screen(Console):
    """A console whose reader may stop: the command line then ends with its own status for that."""

    def on_broken_pipe(self) -> None:
        """Leaves it to the command line."""
        raise BrokenPipeError


def make_console(**options: Any) -> Console:
    """A console on which names from files cannot move the cursor, change colours or set a title.

    Args:
        options: of ``rich.console.Console``.
    """
    screen = _Screen(**options)
    screen.push_render_hook(_ShowsVisible())
    return screen


console = make_console()


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
