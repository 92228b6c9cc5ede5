"""``nearfar audit`` on the command line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from nearfar.auditing import Audit, AuditResult, audit
from nearfar.cli.display import console, shown_progress
from nearfar.cli.parsing import parse_call

EXAMPLES = """\
  nearfar audit runs/digits_si/weights.safetensors
  nearfar audit runs/digits_si/weights.safetensors --scales 0.5,1,2 --out runs/audit
  nearfar audit runs/plain/weights.safetensors runs/si/weights.safetensors --require loss@1<=0.02
  nearfar audit resnet18@pretrained --data photos --images 2000 --layers
  nearfar audit model.onnx --size 224 --data photos --require top1@0.5>=0.8,band_low<=0.5
  nearfar audit resnet20_cifar@resnet20.th --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225 --data cifar10
"""

_TYPES = {"models": Sequence[str], "data": str, "root": Path | None, "out": Path | None}


def run(arguments: list[str]) -> int:
    """Parses, runs, shows; returns 1 where a requirement is not met."""
    options = parse_call(audit, arguments, EXAMPLES, positional=True, types=_TYPES)
    with shown_progress() as progress:
        outcome = audit(**options, progress=progress)
    _show(outcome)
    _next(options, outcome)
    return 0 if outcome.passed else 1


def _show(outcome: Audit) -> None:
    first = outcome.results[outcome.baseline]
    curve = first.curve
    table = Table(
        title=f"{len(curve.labels)} test images of {escape(first.source)}: right answers, %"
    )
    table.add_column("size", justify="right", no_wrap=True)
    for name in outcome.results:
        table.add_column(escape(name), justify="right")
    for scale in sorted(curve.scales):
        table.add_row(f"{scale:g}×", *(_cell(r, scale) for r in outcome.results.values()))
    cost = Table(title="Cost")
    cost.add_column("model")
    for heading in ("parameters", "multiplications", f"time of {first.batch}", "memory"):
        cost.add_column(heading, justify="right", no_wrap=True)
    for name, result in outcome.results.items():
        cost.add_row(escape(name), *_cost(result))
    console.print(table, cost)
    for name, result in outcome.results.items():
        console.print(f"• {_band(name, result, outcome.max_loss)}", highlight=False, markup=False)
    notes = dict.fromkeys(note for result in outcome.results.values() for note in result.notes)
    for sentence in (*outcome.findings, *notes):
        console.print(f"• {sentence}", highlight=False, markup=False)
    for verdict in outcome.verdicts:
        word = "passed" if verdict.passed else "FAILED"
        console.print(
            f"{word}: {verdict.model}: {verdict.requirement} (it is {verdict.value:.4g})",
            highlight=False,
            markup=False,
        )


def _cell(result: AuditResult, scale: float) -> str:
    low, high = result.curve.interval(scale)
    return f"{100 * result.curve.accuracy(scale):.1f} ({100 * low:.1f} to {100 * high:.1f})"


def _cost(result: AuditResult) -> tuple[str, str, str, str]:
    cost, seconds, memory = result.cost, result.seconds, result.memory
    return (
        "–" if cost is None else f"{cost.parameters:,}",
        "–" if cost is None else f"{cost.multiplications:,}",
        "–" if seconds is None else f"{1000 * seconds:.1f} ms",
        "–" if memory is None else f"{memory / 2**20:.1f} MiB",
    )


def _band(name: str, result: AuditResult, loss: float) -> str:
    curve = result.curve
    low, high = curve.band(curve.reference, loss)
    ends = curve.band_interval(curve.reference, loss)
    edges = [
        f"{end:g}× (95 % interval {a:g}× to {b:g}×)" if a < b else f"{end:g}×"
        for end, (a, b) in zip((low, high), ends, strict=True)
    ]
    return f"{name} stays within {100 * loss:g} points from {edges[0]} to {edges[1]}."


def _next(options: dict[str, Any], outcome: Audit) -> None:
    out = options.get("out")
    if out is None:
        steps = ["add --out DIR to keep these figures as audit.json, with a report to look at"]
    else:
        steps = [f"open {out / 'report.html'} in a browser", f"see {out / 'audit.json'}"]
    if not outcome.verdicts:
        reference = outcome.results[outcome.baseline].curve.reference
        steps.append(
            f"add --require 'top1@{reference:g}>=0.9' to end with status 1 where that is not met"
        )
    console.print(
        "\nNext:", *(f"  {step}" for step in steps), sep="\n", highlight=False, soft_wrap=True
    )
