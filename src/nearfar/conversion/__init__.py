"""Conversion: a trained network becomes its scale-aware twin. Plan, apply, and new statistics.

A method is a file beside this one: a registered dataclass, and its line here.
"""

from nearfar.conversion.antialias import Antialiasing
from nearfar.conversion.convert import convert_network, plan_conversion
from nearfar.conversion.ensemble import PyramidEnsemble
from nearfar.conversion.fixres import FixRes
from nearfar.conversion.layerwise import LayerMethod
from nearfar.conversion.method import (
    Change,
    ConversionMethod,
    Left,
    Plan,
    as_method,
    list_methods,
    method_class,
    register_method,
)
from nearfar.conversion.recalibration import recalibrate
from nearfar.conversion.replacement import take_over
from nearfar.conversion.si import SILayers
from nearfar.conversion.weight_shared import WeightSharedStages

__all__ = [
    "Antialiasing",
    "Change",
    "ConversionMethod",
    "FixRes",
    "LayerMethod",
    "Left",
    "Plan",
    "PyramidEnsemble",
    "SILayers",
    "WeightSharedStages",
    "as_method",
    "convert_network",
    "list_methods",
    "method_class",
    "plan_conversion",
    "recalibrate",
    "register_method",
    "take_over",
]
