"""Accuracy by class and scale, as a heat map."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from nearfar.auditing.plots import colour_of
from nearfar.auditing.report.drawing import ink, shade
from nearfar.auditing.result import AuditResult

__all__ = ["SHOWN_CLASSES", "class_maps", "losing_most"]

#: Of more classes, those that lose most are shown.
SHOWN_CLASSES = 20


def losing_most(results: Mapping[str, AuditResult]) -> list[int]:
    """Classes, the one that loses most first; of equal ones the first in the data's order.

    What a class loses is its accuracy at the reference scale less its mean accuracy at the other scales,
    averaged over the recognisers. Classes without a test image are left out.
    """
    lost = torch.stack([_lost(result) for result in results.values()]).mean(dim=0)
    return [k for k in lost.argsort(descending=True, stable=True).tolist() if not lost[k].isnan()]


def _lost(result: AuditResult) -> torch.Tensor:
    curve = result.curve
    accuracy = curve.class_accuracy(len(result.class_names))
    one = curve.scales.index(curve.reference)
    others = [i for i in range(len(curve.scales)) if i != one]
    return accuracy[:, one] - accuracy[:, others].mean(dim=1)


def class_maps(
    results: Mapping[str, AuditResult], scales: Sequence[float]
) -> dict[str, Any] | None:
    """A heat map a recogniser, all of the same classes; ``None`` where there is one class or one scale."""
    first = next(iter(results.values()))
    names, labels = first.class_names, first.curve.labels
    if len(names) < 2 or len(scales) < 2:
        return None
    ordered = losing_most(results)
    shown = ordered[:SHOWN_CLASSES]
    counts = labels.bincount(minlength=len(names))[shown]
    fewest, most = int(counts.min()), int(counts.max())
    some = f"{fewest}" if fewest == most else f"{fewest} to {most}"
    lose = f"lose most from {first.curve.reference:g}× to the other sizes"
    if len(results) > 1:
        lose += ", on average over the recognisers"
    which = (
        f"These are the {len(shown)} of {len(names)} classes that {lose}"
        if len(shown) < len(names)
        else f"On top stand the classes that {lose}"
    )
    return {
        "note": f"Right answers in per cent, of {some} test images a class; darker is worse. {which}.",
        "maps": [
            {
                "name": name,
                "colour": colour_of(place),
                "classes": _rows(result, shown, scales),
            }
            for place, (name, result) in enumerate(results.items())
        ],
    }


def _rows(result: AuditResult, shown: Sequence[int], scales: Sequence[float]) -> list[Any]:
    curve = result.curve
    accuracy = curve.class_accuracy(len(result.class_names))
    columns = [curve.scales.index(s) for s in scales]
    return [
        {
            "name": result.class_names[k],
            "cells": [_cell(float(accuracy[k, column])) for column in columns],
        }
        for k in shown
    ]


def _cell(share: float) -> dict[str, str]:
    if math.isnan(share):
        return {"text": "–", "colour": "#ffffff", "ink": "#000000"}
    colour = shade(share)
    return {"text": f"{100 * share:.0f}", "colour": colour, "ink": ink(colour)}
