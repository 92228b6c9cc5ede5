"""``nearfar audit`` on the command line."""

from __future__ import annotations

from rich.table import Table

from nearfar.auditing import audit
from nearfar.cli.display import console, shown_progress
from nearfar.cli.parsing import parse_call

EXAMPLES = """\
  nearfar audit --checkpoint runs/quickstart/models/si/weights.safetensors
  nearfar audit --checkpoint runs/digits_si/weights.safetensors --scales 0.5,1,2 --out runs/audit
  nearfar audit --checkpoint runs/digits_si/weights.safetensors --data mnist --root DIR --images 2000
"""


def run(arguments: list[str]) -> None:
    """Parses, runs, shows."""
    options = parse_call(audit, arguments, EXAMPLES)
    with shown_progress() as progress:
        result = audit(**options, progress=progress)
    table = Table(
        title=f"{result.model} on {len(result.curve.labels)} test images of {result.source}"
    )
    table.add_column("size", justify="right")
    table.add_column("right", justify="right")
    table.add_column("95 % interval", justify="right")
    for scale in result.curve.scales:
        low, high = result.curve.interval(scale)
        table.add_row(
            f"{scale:g}×",
            f"{100 * result.curve.accuracy(scale):.1f} %",
            f"{100 * low:.1f} to {100 * high:.1f}",
        )
    console.print(table)
    console.print(
        f"{result.cost.parameters:,} parameters, {result.cost.multiplications:,} multiplications an "
        f"image",
        highlight=False,
    )
    written = options.get("out")
    console.print(
        f"\nNext:\n  see {written}/audit.json"
        if written
        else "\nNext:\n  add --out DIR to keep these figures as audit.json",
        highlight=False,
    )
