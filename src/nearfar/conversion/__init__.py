"""Conversion: a trained network becomes its scale-aware twin. Plan, apply, and new statistics."""

from nearfar.conversion.converting import convert_network, plan_conversion
from nearfar.conversion.plan import Change, Left, Plan
from nearfar.conversion.recalibration import recalibrate
from nearfar.conversion.spec import Conversion, Method

__all__ = [
    "Change",
    "Conversion",
    "Left",
    "Method",
    "Plan",
    "convert_network",
    "plan_conversion",
    "recalibrate",
]
