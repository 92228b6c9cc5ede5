"""An audit as plain data: ``audit.json``."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

from torch import Tensor

from nearfar.auditing.accuracy import ScaleCurve

if TYPE_CHECKING:
    from nearfar.auditing.result import Audit, AuditResult

__all__ = ["SCHEMA", "audit_form"]

#: Name and version of the form.
SCHEMA = "nearfar.audit/2"


def audit_form(audit: Audit) -> dict[str, Any]:
    """An audit in the form of ``auditing/schema/audit.schema.json``; without the failures' pictures.

    Figures are fractions; lists by scale are in the order of ``scales``. What is not known is ``None``.
    """
    first = next(iter(audit.results.values()))
    form = {
        "schema": SCHEMA,
        "source": first.source,
        "test_images": len(first.curve.labels),
        "class_names": list(first.class_names),
        "scales": list(first.curve.scales),
        "baseline": audit.baseline,
        "max_loss": audit.max_loss,
        "findings": list(audit.findings),
        "verdicts": [dataclasses.asdict(verdict) for verdict in audit.verdicts],
        "models": {name: _result(found, audit.max_loss) for name, found in audit.results.items()},
        "made": dict(audit.made),
    }
    plain: dict[str, Any] = _plain(form)
    return plain


def _result(found: AuditResult, max_loss: float) -> dict[str, Any]:
    curve = found.curve
    low, high = curve.band(curve.reference, max_loss)
    low_interval, high_interval = curve.band_interval(curve.reference, max_loss)
    shown = found.protocol
    return {
        "protocol": {
            "canvas": shown.canvas,
            "content": shown.content,
            "side": shown.side,
            "interpolation": shown.interpolation,
            "background": shown.background,
        },
        "notes": list(found.notes),
        "figures": _figures(curve),
        "band": {
            "around": curve.reference,
            "low": low,
            "low_interval": low_interval,
            "high": high,
            "high_interval": high_interval,
        },
        "classes": _classes(curve, len(found.class_names)),
        "flips": None if found.flips is None else dataclasses.asdict(found.flips),
        "layers": None if found.layers is None else dataclasses.asdict(found.layers),
        "failures": [
            {
                key: getattr(failure, key)
                for key in ("index", "scale", "label", "answer", "confidence")
            }
            for failure in found.failures
        ],
        "cost": {
            "parameters": None if found.cost is None else found.cost.parameters,
            "multiplications": None if found.cost is None else found.cost.multiplications,
            "seconds": found.seconds,
            "memory": found.memory,
            "batch": found.batch,
        },
    }


def _figures(curve: ScaleCurve) -> dict[str, Any]:
    form: dict[str, Any] = {}
    for figure in curve.figures:
        intervals = [curve.interval(scale, figure) for scale in curve.scales]
        form[figure] = {
            "value": [curve.figure(figure, scale) for scale in curve.scales],
            "low": [low for low, _ in intervals],
            "high": [high for _, high in intervals],
        }
    return form


def _classes(curve: ScaleCurve, classes: int) -> dict[str, Any]:
    low, high = curve.class_interval(classes)
    return {
        "images": curve.labels.bincount(minlength=classes),
        "top1": curve.class_accuracy(classes),
        "low": low,
        "high": high,
    }


def _plain(value: Any) -> Any:
    """A value as JSON knows it: NaN and infinities, which it does not know, become ``None``."""
    if isinstance(value, Tensor):
        return _plain(value.tolist())
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float):
        # A millionth of a point is far below what chance leaves open.
        return round(value, 8) if math.isfinite(value) else None
    return value
