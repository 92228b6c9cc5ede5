"""The report of an audit."""

from __future__ import annotations

from typing import Any

import torch

from nearfar.auditing.accuracy import ScaleCurve
from nearfar.auditing.findings import audit_findings
from nearfar.auditing.findings.words import listed
from nearfar.auditing.plots import plot_curves
from nearfar.auditing.plots.axes import new_axes
from nearfar.auditing.report.behaviour import (
    failure_cards,
    flip_curves,
    layer_charts,
    two_widths,
)
from nearfar.auditing.report.classes import class_maps
from nearfar.auditing.report.pages import page
from nearfar.auditing.report.tables import accuracy_table, calibration, cost_table
from nearfar.auditing.result import Audit
from nearfar.errors import InputError

__all__ = ["render_audit"]

_NAMED = 3


def render_audit(audit: Audit) -> str:
    """An audit as one HTML page: its pictures are inside, nothing is fetched, no script runs.

    Args:
        audit: what was found. What was not measured has no section.

    Returns:
        The page; the same audit gives the same page.

    Raises:
        InputError: no result, a baseline that is none of them, or results on other images or scales than
            the first.

    Limits:
        Of many classes, failures or layers the page shows some and says how many there are.
    """
    curves = _checked(audit)
    first = curves[audit.baseline]
    scales = tuple(sorted(first.scales))
    one = first.reference
    findings = audit.findings or audit_findings(audit.results, audit.baseline, audit.max_loss)
    # Each has a line of the legend and a bar.
    more = 0.22 * len(curves)
    drawn = [
        plot_curves(
            curves,
            trained_at=one,
            mark="",
            max_loss=audit.max_loss,
            size=size,
            ax=new_axes(*inches),
        )
        for inches, size in (((9, 5 + more), 10.0), ((4.4, 4.6 + more), 9.0))
    ]
    source = audit.results[audit.baseline].source
    return page(
        "audit.html.j2",
        title=f"Near and far: {_names(list(curves))} on {source}",
        lead=findings[0],
        sentences=findings[1:],
        verdicts=audit.verdicts,
        several=len(curves) > 1,
        source=source,
        images=len(first.labels),
        scales=scales,
        reference=one,
        max_loss=audit.max_loss,
        curves_svg=two_widths(
            drawn[0], drawn[1], "curves", f"Accuracy against scale. {findings[0]}"
        ),
        accuracy=accuracy_table(audit.results, scales, audit.max_loss),
        costs=cost_table(audit.results, audit.baseline),
        calibration=calibration(audit.results, scales),
        classes=class_maps(audit.results, scales),
        flips=flip_curves(audit.results),
        failures=failure_cards(audit.results),
        layers=layer_charts(audit.results),
        shown=_notes(audit),
        made=audit.made,
    )


def _checked(audit: Audit) -> dict[str, ScaleCurve]:
    curves = {name: result.curve for name, result in audit.results.items()}
    if audit.baseline not in curves:
        raise InputError(
            f"the baseline must be one of the results {list(curves)}, got {audit.baseline!r}"
        )
    first = curves[audit.baseline]
    for name, curve in curves.items():
        if set(curve.scales) != set(first.scales) or not torch.equal(curve.labels, first.labels):
            raise InputError(
                f"all results must be on the same images and scales; {name} has {len(curve.labels)} images "
                f"at scales {curve.scales}, {audit.baseline} {len(first.labels)} at {first.scales}"
            )
    return curves


def _names(names: list[str]) -> str:
    return listed(names) if len(names) <= _NAMED else f"{len(names)} recognisers"


def _notes(audit: Audit) -> list[dict[str, Any]]:
    """What is to be known of how images were shown: what is true of all, then what of one only."""
    every = [result.notes for result in audit.results.values()]
    shared = [note for note in every[0] if all(note in notes for notes in every)]
    groups = [{"names": "", "notes": shared}]
    for name, result in audit.results.items():
        own = [note for note in result.notes if note not in shared]
        groups.append({"names": name, "notes": own})
    return [group for group in groups if group["notes"]]
