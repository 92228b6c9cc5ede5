"""The parts of an audit's report about flips, failures and layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup
from matplotlib.figure import Figure

from nearfar.auditing.plots import colour_of, plot_equivariance, plot_flips, plot_invariance
from nearfar.auditing.plots.axes import new_axes
from nearfar.auditing.plots.layers import SHOWN_LAYERS
from nearfar.auditing.report.drawing import inline, png
from nearfar.auditing.result import AuditResult, Failure

__all__ = ["SHOWN_FAILURES", "failure_cards", "flip_curves", "layer_charts", "two_widths"]

#: Of more failures of a recogniser, so many are shown.
SHOWN_FAILURES = 12
_NAMED_LAYERS = 12
_COARSE = 64  # pixels a side; smaller images are shown as the squares that they are


def two_widths(large: Figure, small: Figure, key: str, says: str) -> dict[str, Markup]:
    """One picture drawn for a page and drawn for a phone; the page shows whichever fits."""
    return {
        "large": inline(large, f"{key}-large", says),
        "small": inline(small, f"{key}-small", says),
    }


def flip_curves(results: Mapping[str, AuditResult]) -> dict[str, Any] | None:
    """How many answers are kept, against scale; ``None`` where flips were not searched for."""
    flips = {name: r.flips for name, r in results.items() if r.flips is not None}
    if not flips:
        return None
    places = {name: place for place, name in enumerate(results)}
    more = 0.15 * len(flips)  # a line of the legend
    drawn = [
        plot_flips(flips, places=places, size=size, ax=new_axes(*inches))
        for inches, size in (((9, 3.8 + more), 10.0), ((4.4, 3.2 + more), 9.0))
    ]
    counts = sorted({len(found.images) for found in flips.values()})
    precision = max(found.precision for found in flips.values())
    return {
        "svg": two_widths(
            drawn[0], drawn[1], "flips", "The share of answers still those of 1×, against scale."
        ),
        "note": (
            f"For {' or '.join(f'{count:,}' for count in counts)} images, the size is changed from 1× until "
            f"the answer is another, found by search to {100 * (precision - 1):.0f} % of scale. The curve "
            f"falls from 1× to both sides by each image whose answer has changed; where it crosses 50 %, "
            f"half have."
        ),
    }


def failure_cards(results: Mapping[str, AuditResult]) -> list[dict[str, Any]]:
    """Images beside what they were taken for, by recogniser."""
    return [
        {
            "name": name,
            "colour": colour_of(place),
            "failures": [
                _card(failure, result.class_names) for failure in result.failures[:SHOWN_FAILURES]
            ],
            "more": max(0, len(result.failures) - SHOWN_FAILURES),
        }
        for place, (name, result) in enumerate(results.items())
        if result.failures
    ]


def _card(failure: Failure, names: tuple[str, ...]) -> dict[str, Any]:
    confidence = failure.confidence
    return {
        "index": failure.index,
        "scale": failure.scale,
        "label": names[failure.label],
        "answer": names[failure.answer],
        # NaN: the recogniser tells classes only.
        "confidence": confidence if confidence == confidence else None,
        "before": png(failure.before),
        "shown": png(failure.shown),
        "look": "pixelated" if max(failure.shown.shape[-2:]) <= _COARSE else "smooth",
    }


def layer_charts(results: Mapping[str, AuditResult]) -> list[dict[str, Any]]:
    """Both scores layer by layer, by recogniser, and what was left out."""
    charts = []
    for place, (name, result) in enumerate(results.items()):
        layers = result.layers
        if layers is None or not (layers.names or layers.left_out):
            continue
        reasons: dict[str, list[str]] = {}
        for layer, why in layers.left_out.items():
            reasons.setdefault(why, []).append(layer)
        some = len(layers.names) > SHOWN_LAYERS
        charts.append(
            {
                "name": name,
                "colour": colour_of(place),
                "invariance": inline(
                    plot_invariance(layers),
                    f"invariance-{place}",
                    f"Invariance score of {name} by layer: "
                    + ", ".join(
                        f"{layer} {score:.1f}"
                        for layer, score in zip(layers.names, layers.invariance, strict=True)
                    ),
                )
                if layers.names
                else None,
                "equivariance": inline(
                    plot_equivariance(layers),
                    f"equivariance-{place}",
                    f"Relative equivariance error of {name} by layer and scale.",
                )
                if layers.names and layers.scales
                else None,
                "note": f"{'Measured on ' if layers.names else 'There were '}{layers.images:,} images."
                + (
                    f" {SHOWN_LAYERS} of {len(layers.names)} layers, evenly spread." if some else ""
                ),
                "left_out": [
                    {"names": _some(members), "why": why} for why, members in reasons.items()
                ],
            }
        )
    return charts


def _some(names: list[str]) -> str:
    more = len(names) - _NAMED_LAYERS
    return ", ".join(names[:_NAMED_LAYERS]) + (f" and {more} more" if more > 0 else "")
