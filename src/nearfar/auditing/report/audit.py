"""The report of an audit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from markupsafe import Markup
from matplotlib.figure import Figure

from nearfar.auditing.accuracy import ScaleCurve
from nearfar.auditing.findings import audit_findings
from nearfar.auditing.plots import (
    colour_of,
    plot_curves,
    plot_equivariance,
    plot_flips,
    plot_invariance,
)
from nearfar.auditing.plots.axes import new_axes
from nearfar.auditing.plots.layers import SHOWN_LAYERS
from nearfar.auditing.report.page import inline, page, png
from nearfar.auditing.report.tables import calibration, class_maps, cost_table, figure_table
from nearfar.auditing.result import Audit, AuditResult, Failure, LayerScores
from nearfar.auditing.wording import listed
from nearfar.errors import InputError

__all__ = ["SHOWN_FAILURES", "render_audit"]

#: Of more failures of a model, so many are shown.
SHOWN_FAILURES = 12
_NAMED_MODELS = 3
_NAMED_LAYERS = 12
_COARSE = 64  # pixels a side; smaller images are shown as the squares that they are


def render_audit(audit: Audit) -> str:
    """An audit as one HTML page: its pictures are inside, nothing is fetched, no script runs.

    Args:
        audit: the results. What was not measured has no section.

    Returns:
        The page; the same audit gives the same page.

    Raises:
        InputError: no result, a baseline that is not among them, or results on other images or scales
            than the baseline's.

    Limits:
        Of many classes, failures or layers the page shows some and says how many there are.
    """
    curves = _checked(audit)
    first = curves[audit.baseline]
    scales = tuple(sorted(first.scales))
    one = first.reference
    findings = audit.findings or audit_findings(audit.results, audit.baseline, audit.max_loss)
    # Each model has a line of the legend and a bar.
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
        advice=[line.sentence for line in audit.advice],
        several=len(curves) > 1,
        source=source,
        images=len(first.labels),
        scales=scales,
        reference=one,
        words=first.axis,
        exposure=first.axis.exposure.format(count=len(scales), s="s" * (len(scales) > 1)),
        max_loss=audit.max_loss,
        curves_svg=_two_widths(
            drawn[0], drawn[1], "curves", f"Accuracy against scale. {findings[0]}"
        ),
        figures=figure_table(audit.results, scales, audit.max_loss),
        costs=cost_table(audit.results, audit.baseline),
        calibration=calibration(audit.results, scales),
        classes=class_maps(audit.results, scales),
        flips=_flip_curves(audit.results),
        failures=_failure_cards(audit.results),
        layers=_layer_charts(audit.results),
        notes=_notes(audit),
        provenance=audit.provenance,
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
    return listed(names) if len(names) <= _NAMED_MODELS else f"{len(names)} models"


def _notes(audit: Audit) -> list[dict[str, Any]]:
    """How images were prepared: notes shared by all models, then those of one only."""
    every = [result.notes for result in audit.results.values()]
    shared = [note for note in every[0] if all(note in notes for notes in every)]
    groups = [{"names": "", "notes": shared}]
    for name, result in audit.results.items():
        own = [note for note in result.notes if note not in shared]
        groups.append({"names": name, "notes": own})
    return [group for group in groups if group["notes"]]


def _two_widths(large: Figure, small: Figure, key: str, description: str) -> dict[str, Markup]:
    """One picture drawn for a page and drawn for a phone; the page shows whichever fits."""
    return {
        "large": inline(large, f"{key}-large", description),
        "small": inline(small, f"{key}-small", description),
    }


def _flip_curves(results: Mapping[str, AuditResult]) -> dict[str, Any] | None:
    """Unflipped predictions against scale; ``None`` where flips were not searched for."""
    flips = {name: r.flips for name, r in results.items() if r.flips is not None}
    if not flips:
        return None
    indices = {name: index for index, name in enumerate(results)}
    more = 0.15 * len(flips)  # a line of the legend
    drawn = [
        plot_flips(flips, indices=indices, size=size, ax=new_axes(*inches))
        for inches, size in (((9, 3.8 + more), 10.0), ((4.4, 3.2 + more), 9.0))
    ]
    counts = sorted({len(flip.images) for flip in flips.values()})
    precision = max(flip.precision for flip in flips.values())
    return {
        "svg": _two_widths(
            drawn[0], drawn[1], "flips", "The share of answers still those of 1×, against scale."
        ),
        "note": (
            f"For {' or '.join(f'{count:,}' for count in counts)} images, the size is changed from 1× until "
            f"the answer is another, found by search to {100 * (precision - 1):.0f} % of scale. The curve "
            f"falls from 1× to both sides by each image whose answer has changed; where it crosses 50 %, "
            f"half have."
        ),
    }


def _failure_cards(results: Mapping[str, AuditResult]) -> list[dict[str, Any]]:
    """Images beside the wrong predictions, by model."""
    return [
        {
            "name": name,
            "colour": colour_of(index),
            "failures": [
                _card(failure, result.class_names) for failure in result.failures[:SHOWN_FAILURES]
            ],
            "more": max(0, len(result.failures) - SHOWN_FAILURES),
        }
        for index, (name, result) in enumerate(results.items())
        if result.failures
    ]


def _card(failure: Failure, names: tuple[str, ...]) -> dict[str, Any]:
    confidence = failure.confidence
    return {
        "index": failure.index,
        "scale": failure.scale,
        "label": names[failure.label],
        "answer": names[failure.answer],
        # NaN: the model gives classes only.
        "confidence": confidence if confidence == confidence else None,
        "recognised": png(failure.recognised_image),
        "failed": png(failure.failed_image),
        "look": "pixelated" if max(failure.failed_image.shape[-2:]) <= _COARSE else "smooth",
    }


def _layer_charts(results: Mapping[str, AuditResult]) -> list[dict[str, Any]]:
    """Both scores layer by layer, by model, and what was left out."""
    return [
        _layer_chart(index, name, result.layers)
        for index, (name, result) in enumerate(results.items())
        if result.layers is not None and (result.layers.names or result.layers.left_out)
    ]


def _layer_chart(index: int, name: str, layers: LayerScores) -> dict[str, Any]:
    reasons: dict[str, list[str]] = {}
    for layer, why in layers.left_out.items():
        reasons.setdefault(why, []).append(layer)
    invariance = equivariance = None
    if layers.names:
        scores = zip(layers.names, layers.invariance, strict=True)
        listing = ", ".join(f"{layer} {score:.1f}" for layer, score in scores)
        invariance = inline(
            plot_invariance(layers, colour=colour_of(index)),
            f"invariance-{index}",
            f"Invariance score of {name} by layer: {listing}",
        )
    if layers.names and layers.scales:
        equivariance = inline(
            plot_equivariance(layers),
            f"equivariance-{index}",
            f"Relative equivariance error of {name} by layer and scale.",
        )
    note = f"{'Measured on' if layers.names else 'There were'} {layers.images:,} images."
    if len(layers.names) > SHOWN_LAYERS:
        note += f" {SHOWN_LAYERS} of {len(layers.names)} layers, evenly spread."
    return {
        "name": name,
        "colour": colour_of(index),
        "invariance": invariance,
        "equivariance": equivariance,
        "note": note,
        "left_out": [{"names": _some(members), "why": why} for why, members in reasons.items()],
    }


def _some(names: list[str]) -> str:
    more = len(names) - _NAMED_LAYERS
    return ", ".join(names[:_NAMED_LAYERS]) + (f" and {more} more" if more > 0 else "")
