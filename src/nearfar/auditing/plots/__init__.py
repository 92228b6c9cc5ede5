"""The plots of audits, as matplotlib figures; those of one axis take yours."""

from nearfar.auditing.plots.axes import COLOURS, colour_of, marker_of
from nearfar.auditing.plots.curves import plot_confidence, plot_curves, plot_flips
from nearfar.auditing.plots.layers import plot_equivariance, plot_invariance, plot_winners

__all__ = [
    "COLOURS",
    "colour_of",
    "marker_of",
    "plot_confidence",
    "plot_curves",
    "plot_equivariance",
    "plot_flips",
    "plot_invariance",
    "plot_winners",
]
