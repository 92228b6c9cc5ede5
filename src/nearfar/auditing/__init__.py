"""Measuring: accuracy against scale, cost, and the report."""

from nearfar.auditing.accuracy import ScaleCurve, wilson_interval
from nearfar.auditing.cost import Cost, cost_of, time_batches
from nearfar.auditing.invariance import invariance_scores
from nearfar.auditing.measure import audit
from nearfar.auditing.result import Audit, AuditResult, Failure, Flips, LayerScores, Verdict
from nearfar.auditing.winners import winner_maps

__all__ = [
    "Audit",
    "AuditResult",
    "Cost",
    "Failure",
    "Flips",
    "LayerScores",
    "ScaleCurve",
    "Verdict",
    "audit",
    "cost_of",
    "invariance_scores",
    "time_batches",
    "wilson_interval",
    "winner_maps",
]
