"""The tables of an audit's report: accuracy, cost, calibration."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nearfar.auditing.accuracy import Figure
from nearfar.auditing.findings.words import span
from nearfar.auditing.plots import colour_of, plot_confidence
from nearfar.auditing.report.drawing import inline
from nearfar.auditing.result import AuditResult

__all__ = ["accuracy_table", "calibration", "cost_table"]


def accuracy_table(
    results: Mapping[str, AuditResult], scales: Sequence[float], max_loss: float
) -> list[dict[str, Any]]:
    """Groups of rows: right answers; those among the five likeliest; answers other than at scale 1."""
    first = next(iter(results.values())).curve
    kinds: list[tuple[Figure, str]] = [
        ("top1", "right answers"),
        ("top5", "right class among the five likeliest"),
        ("flips", f"answers other than at {first.reference:g}×"),
    ]
    groups = []
    for figure, what in kinds:
        rows = []
        for place, (name, result) in enumerate(results.items()):
            curve = result.curve
            if figure not in curve.figures or (figure == "flips" and len(scales) < 2):
                continue
            low, high = curve.band(curve.reference, max_loss)
            cells = [
                {
                    "value": curve.figure(figure, scale),
                    "interval": None
                    if figure == "flips" and scale == curve.reference
                    else curve.interval(scale, figure),
                    "holds": figure == "top1" and low <= scale <= high,
                }
                for scale in scales
            ]
            rows.append(_row(place, name, cells, span(low, high) if figure == "top1" else ""))
        if rows:
            groups.append({"what": what, "rows": rows})
    return groups


def _row(place: int, name: str, cells: Sequence[dict[str, Any]], holds: str = "") -> dict[str, Any]:
    return {"name": name, "colour": colour_of(place), "cells": cells, "holds": holds}


def cost_table(results: Mapping[str, AuditResult], baseline: str) -> dict[str, Any] | None:
    """What each costs, and how many times what the baseline costs; ``None`` where nothing is known."""
    batches = {result.batch for result in results.values() if result.batch}
    of = f" of {next(iter(batches))}" if len(batches) == 1 else ""
    kinds: list[tuple[str, Callable[[AuditResult], float | None], Callable[[float], str]]] = [
        ("parameters", lambda r: r.cost.parameters if r.cost else None, lambda v: f"{v:,.0f}"),
        (
            "multiplications an image",
            lambda r: r.cost.multiplications if r.cost else None,
            _millions,
        ),
        (f"time a batch{of}", lambda r: r.seconds, lambda v: f"{1000 * v:,.1f} ms"),
        ("memory at most", lambda r: r.memory, lambda v: f"{v / 2**20:,.1f} MiB"),
    ]
    kinds = [k for k in kinds if any(k[1](result) is not None for result in results.values())]
    if not kinds:
        return None
    rows = []
    for place, (name, result) in enumerate(results.items()):
        cells = []
        for _, value_of, written in kinds:
            value, base = value_of(result), value_of(results[baseline])
            ratio = f"{value / base:.2f}×" if name != baseline and value and base else ""
            cells.append(
                {"value": "not known" if value is None else written(value), "ratio": ratio}
            )
        rows.append(_row(place, name, cells))
    notes = [f"Small: how many times {baseline}'s."] if len(results) > 1 else []
    if any(result.cost for result in results.values()):
        notes.append(
            "Multiplications of convolutions and dense layers; resizing and pooling are not counted."
        )
    if any(result.seconds for result in results.values()):
        notes.append("Compare the ratios of times, not the milliseconds.")
    if any(result.memory for result in results.values()):
        notes.append("Memory: tensors alive at the same time while that batch is answered.")
    return {"columns": [title for title, _, _ in kinds], "rows": rows, "note": " ".join(notes)}


def _millions(number: float) -> str:
    return f"{number / 1e6:,.1f} M" if number >= 1e5 else f"{number:,.0f}"


def calibration(
    results: Mapping[str, AuditResult], scales: Sequence[float]
) -> dict[str, Any] | None:
    """A picture and a row of errors for each that tells its confidence; ``None`` where none does."""
    rows = [
        {
            "name": name,
            "colour": colour_of(place),
            "svg": inline(
                plot_confidence(result.curve),
                f"confidence-{place}",
                f"Mean confidence and accuracy of {name} against scale; the table below has the figures.",
            ),
            "cells": [
                {
                    "value": result.curve.figure("ece", s),
                    "interval": result.curve.interval(s, "ece"),
                    "holds": False,
                }
                for s in scales
            ],
        }
        for place, (name, result) in enumerate(results.items())
        if result.curve.confidence is not None
    ]
    return {"rows": rows} if rows else None
