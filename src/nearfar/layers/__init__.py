"""The scale-aware layers, one idea a file; each is a thin module over :mod:`nearfar.functional`."""

from nearfar.layers.antialiased import AntialiasedConv2d, AntialiasedMaxPool2d
from nearfar.layers.pyramid_conv import PyramidConv2d
from nearfar.layers.receptive_field import AxisField, ScaleLayer
from nearfar.layers.scale_conv import ScaleConv2d, ScalePool
from nearfar.layers.si_conv import SIConv2d

__all__ = [
    "AntialiasedConv2d",
    "AntialiasedMaxPool2d",
    "AxisField",
    "PyramidConv2d",
    "SIConv2d",
    "ScaleConv2d",
    "ScaleLayer",
    "ScalePool",
]
