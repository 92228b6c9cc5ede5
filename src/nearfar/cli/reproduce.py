"""``nearfar reproduce`` on the command line."""

from __future__ import annotations

from rich.table import Table as Grid

from nearfar.cli.display import console, shown_progress
from nearfar.cli.parsing import parse_call
from nearfar.experiments.reproduce import ReproduceResult, reproduce
from nearfar.experiments.writing import ours

EXAMPLES = """\
  nearfar reproduce mnist-scale --fast
  nearfar reproduce mnist-scale --jobs 2
  nearfar reproduce weak-scales --now
  nearfar reproduce mnist-scale --rows hierarchical,SI
  nearfar reproduce mnist-scale --result_files other-machine/results/mnist-scale
"""


def run(arguments: list[str]) -> None:
    """Parses, runs, shows."""
    options = parse_call(reproduce, arguments, EXAMPLES, positional=True)
    with shown_progress() as progress:
        result = reproduce(**options, progress=progress)
    _show(result, options["fast"])


def _show(result: ReproduceResult, fast: bool) -> None:
    table = result.table
    grid = Grid(title=table.title)
    # Names may take two lines; figures that are cut off are wrong figures.
    grid.add_column("net", overflow="fold")
    for column in table.columns:
        grid.add_column(column.title, justify="right", no_wrap=True)
    for row in result.rows:
        grid.add_row(row.name, *(ours(row, column) for column in table.columns))
    console.print(grid)
    if fast:
        console.print("A smoke run: everything works, but these figures mean nothing.")
    if result.runs_left:
        console.print(
            f"{result.runs_left} runs are not trained yet: the same command without --now and --rows trains "
            f"them."
        )
    console.print(
        f"\nNext:\n  read {result.out / 'table.md'} (the paper's figures beside ours)\n"
        f"  look at {result.out / 'picture.png'}",
        highlight=False,
        soft_wrap=True,
    )
