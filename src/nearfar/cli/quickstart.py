"""``nearfar quickstart`` on the command line."""

from __future__ import annotations

import shlex

from rich.table import Table

from nearfar.cli.display import console, shown_progress
from nearfar.cli.parsing import parse_call
from nearfar.experiments.quickstart import QuickstartResult, quickstart

EXAMPLES = """\
  nearfar quickstart
  nearfar quickstart --fast --out runs/smoke
  nearfar quickstart --seed 1 --out runs/seed1
  nearfar quickstart --config runs/quickstart/config.yaml --out runs/again
"""


def run(arguments: list[str]) -> None:
    """Parses, runs, shows."""
    options = parse_call(quickstart, arguments, EXAMPLES)
    with shown_progress() as progress:
        result = quickstart(**options, progress=progress)
    _show(result, options["fast"])


def _show(result: QuickstartResult, fast: bool) -> None:
    if result.moved is not None:
        console.print(f"An earlier run of other settings was moved to {result.moved}.")
    scales = next(iter(result.audits.values())).curve.scales
    accuracy = Table(title="Right answers (%) at each size, in times the training size")
    accuracy.add_column("net", no_wrap=True)
    for scale in scales:
        accuracy.add_column(f"{scale:g}", justify="right", no_wrap=True)
    cost = Table(title="Cost")
    cost.add_column("net", no_wrap=True)
    for heading in ("parameters", "multiplications", "time a batch"):
        cost.add_column(heading, justify="right", no_wrap=True)
    for name, audit in result.audits.items():
        accuracy.add_row(name, *(f"{100 * audit.curve.accuracy(s):.0f}" for s in scales))
        relative = result.seconds[name] / result.seconds["plain"]
        assert audit.cost is not None, "these nets can be looked into"
        cost.add_row(
            name,
            f"{audit.cost.parameters:,}",
            f"{audit.cost.multiplications / 1e6:.1f} million",
            f"{1000 * result.seconds[name]:.1f} ms ({relative:.1f}×)",
        )
    console.print(accuracy, cost)
    for sentence in result.findings:
        console.print(f"• {sentence}", highlight=False)
    if fast:
        console.print("A smoke run: everything works, but these figures mean nothing.")
    weights = result.out / "models" / "hierarchical" / "weights.safetensors"
    console.print(
        f"\nNext:\n"
        f"  open {result.out / 'report.html'} in a browser\n"
        f"  nearfar audit {shlex.quote(str(weights))} --scales 0.25,0.35,0.7,1.4,2.3\n"
        f"  nearfar train --config {shlex.quote(str(result.out / 'models' / 'si' / 'config.yaml'))} "
        f"--model.options '{{scales: [0.7, 1, 1.4]}}' --out runs/my_si",
        highlight=False,
        soft_wrap=True,
    )
