"""The tables of an audit's report: figures, cost, calibration, accuracy by class."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from nearfar.auditing.accuracy import ScaleCurve
from nearfar.auditing.figure_registry import Figure, registered_figures
from nearfar.auditing.plots import colour_of, plot_confidence
from nearfar.auditing.report.page import inline, shade, text_colour
from nearfar.auditing.result import AuditResult
from nearfar.auditing.wording import span

__all__ = [
    "SHOWN_CLASSES",
    "calibration",
    "class_maps",
    "cost_table",
    "figure_table",
    "losing_most",
]

#: Of more classes, those that lose most are shown.
SHOWN_CLASSES = 20
_BETTER = {True: "↑", False: "↓", None: ""}


def figure_table(
    results: Mapping[str, AuditResult], scales: Sequence[float], max_loss: float
) -> list[dict[str, Any]]:
    """A group of rows for each registered figure, a row a model."""
    first = next(iter(results.values())).curve
    reference, words = first.reference, first.axis
    groups = []
    for name, figure in registered_figures().items():
        if not figure.in_table or (figure.against_reference and len(scales) < 2):
            continue
        rows = [
            _row(index, model, _cells(figure, result.curve, scales, max_loss))
            for index, (model, result) in enumerate(results.items())
            if name in result.curve.figures
        ]
        if name == "top1":
            for row, result in zip(rows, results.values(), strict=True):
                row["holds"] = span(*result.curve.band(reference, max_loss), words)
        if rows:
            label = figure.label.replace("{reference}", words.text(reference))
            arrow = _BETTER[figure.higher_is_better]
            groups.append({"label": f"{label} {arrow}".rstrip(), "rows": rows})
    return groups


def _cells(
    figure: Figure, curve: ScaleCurve, scales: Sequence[float], max_loss: float
) -> list[dict[str, Any]]:
    low, high = curve.band(curve.reference, max_loss)
    cells = []
    for scale in scales:
        exact = figure.against_reference and scale == curve.reference
        interval = curve.interval(scale, figure.name)
        cells.append(
            {
                "value": figure.text(curve.figure(figure.name, scale)),
                "interval": "" if exact else figure.interval_text(interval),
                "holds": figure.name == "top1" and low <= scale <= high,
            }
        )
    return cells


def _row(index: int, name: str, cells: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {"name": name, "colour": colour_of(index), "cells": cells, "holds": ""}


def cost_table(results: Mapping[str, AuditResult], baseline: str) -> dict[str, Any] | None:
    """What each model costs, also as a multiple of the baseline's cost; ``None`` where nothing is known."""
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
    for index, (name, result) in enumerate(results.items()):
        cells = []
        for _, value_of, written in kinds:
            value, base = value_of(result), value_of(results[baseline])
            ratio = f"{value / base:.2f}×" if name != baseline and value and base else ""
            cells.append(
                {"value": "not known" if value is None else written(value), "ratio": ratio}
            )
        rows.append(_row(index, name, cells))
    notes = [f"Small: how many times {baseline}'s."] if len(results) > 1 else []
    if any(result.cost for result in results.values()):
        notes.append(
            "Multiplications of convolutions and dense layers; resizing and pooling are not counted."
        )
    if any(result.seconds for result in results.values()):
        notes.append("Compare the ratios of times, not the milliseconds.")
    if any(result.memory for result in results.values()):
        notes.append("Memory: tensors alive at the same time during that batch's forward pass.")
    return {"columns": [title for title, _, _ in kinds], "rows": rows, "note": " ".join(notes)}


def _millions(number: float) -> str:
    return f"{number / 1e6:,.1f} M" if number >= 1e5 else f"{number:,.0f}"


def calibration(
    results: Mapping[str, AuditResult], scales: Sequence[float]
) -> dict[str, Any] | None:
    """A drawing and a row of calibration errors for each model; ``None`` where none has a confidence."""
    figure = registered_figures()["ece"]
    rows = []
    for index, (name, result) in enumerate(results.items()):
        if result.curve.confidence is None:
            continue
        row = _row(index, name, _cells(figure, result.curve, scales, 0.0))
        row["svg"] = inline(
            plot_confidence(result.curve),
            f"confidence-{index}",
            f"Mean confidence and accuracy of {name} against scale; the table below has the figures.",
        )
        rows.append(row)
    return {"label": figure.label, "rows": rows} if rows else None


def losing_most(results: Mapping[str, AuditResult]) -> list[int]:
    """Classes, the one that loses most first; of equal ones the first in the data's order.

    What a class loses is its accuracy at the reference scale less its mean accuracy at the other scales,
    averaged over the models. Classes without a test image are left out.
    """
    lost = torch.stack([_lost(result) for result in results.values()]).mean(dim=0)
    return [k for k in lost.argsort(descending=True, stable=True).tolist() if not lost[k].isnan()]


def _lost(result: AuditResult) -> torch.Tensor:
    curve = result.curve
    accuracy = curve.class_accuracy(len(result.class_names))
    one = curve.scales.index(curve.reference)
    others = [i for i in range(len(curve.scales)) if i != one]
    elsewhere = accuracy[:, others]
    # Of images with sizes of their own a class may lack some.
    mean = elsewhere.mean(dim=1) if curve.members is None else elsewhere.nanmean(dim=1)
    return accuracy[:, one] - mean


def class_maps(
    results: Mapping[str, AuditResult], scales: Sequence[float]
) -> dict[str, Any] | None:
    """A heat map a model, all of the same classes; ``None`` where there is one class or one scale."""
    first = next(iter(results.values()))
    names, labels = first.class_names, first.curve.labels
    if len(names) < 2 or len(scales) < 2:
        return None
    ordered = losing_most(results)
    chosen = ordered[:SHOWN_CLASSES]
    counts = labels.bincount(minlength=len(names))[chosen]
    fewest, most = int(counts.min()), int(counts.max())
    some = f"{fewest}" if fewest == most else f"{fewest} to {most}"
    lose = f"lose most from {first.curve.axis.text(first.curve.reference)} to the other sizes"
    if len(results) > 1:
        lose += ", on average over the models"
    which = (
        f"These are the {len(chosen)} of {len(names)} classes that {lose}"
        if len(chosen) < len(names)
        else f"On top stand the classes that {lose}"
    )
    return {
        "note": f"Right answers in per cent, of {some} test images a class; darker is worse. {which}.",
        "maps": [
            {
                "name": name,
                "colour": colour_of(index),
                "classes": _class_rows(result, chosen, scales),
            }
            for index, (name, result) in enumerate(results.items())
        ],
    }


def _class_rows(result: AuditResult, chosen: Sequence[int], scales: Sequence[float]) -> list[Any]:
    curve = result.curve
    accuracy = curve.class_accuracy(len(result.class_names))
    columns = [curve.scales.index(s) for s in scales]
    return [
        {
            "name": result.class_names[k],
            "cells": [_class_cell(float(accuracy[k, column])) for column in columns],
        }
        for k in chosen
    ]


def _class_cell(share: float) -> dict[str, str]:
    if math.isnan(share):
        return {"text": "–", "colour": "#ffffff", "ink": "#000000"}
    colour = shade(share)
    return {"text": f"{100 * share:.0f}", "colour": colour, "ink": text_colour(colour)}
