"""Measuring models against scale: figures, flips, layers, cost, the gate, findings and the report."""

# The built-in figures register themselves; a new file of figures is imported here.
from nearfar.auditing import figures as figures
from nearfar.auditing.accuracy import ScaleCurve
from nearfar.auditing.audit import audit
from nearfar.auditing.audit_spec import AuditSpec, ImageSelection
from nearfar.auditing.cost import Cost, cost_of, time_batches
from nearfar.auditing.figure_registry import Figure, register_figure
from nearfar.auditing.intervals import wilson_interval
from nearfar.auditing.invariance import invariance_scores
from nearfar.auditing.layers import winner_maps
from nearfar.auditing.result import Advice, Audit, AuditResult, Failure, Flips, LayerScores, Verdict

__all__ = [
    "Advice",
    "Audit",
    "AuditResult",
    "AuditSpec",
    "Cost",
    "Failure",
    "Figure",
    "Flips",
    "ImageSelection",
    "LayerScores",
    "ScaleCurve",
    "Verdict",
    "audit",
    "cost_of",
    "invariance_scores",
    "register_figure",
    "time_batches",
    "wilson_interval",
    "winner_maps",
]
