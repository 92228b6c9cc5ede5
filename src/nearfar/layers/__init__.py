"""The scale-aware layers, one idea a file; those that rescale the map are thin modules
over :mod:`nearfar.functional`, those that rescale the filter have a base of their own."""

from nearfar.layers.antialiased import AntialiasedConv2d, AntialiasedMaxPool2d
from nearfar.layers.equivariance import EquivarianceError, relative_errors
from nearfar.layers.pyramid_conv import PyramidConv2d
from nearfar.layers.receptive_field import AxisField, ScaleLayer
from nearfar.layers.rescaled_filters import (
    DilatedScaleConv2d,
    DiscoConv2d,
    GaussianDerivativeConv2d,
    GaussianScaleSpace,
    RescaledFilterConv2d,
    SiCNNConv2d,
    SteerableConv2d,
)
from nearfar.layers.riesz import RieszConv2d
from nearfar.layers.scale_conv import ScaleConv2d, ScalePool
from nearfar.layers.si_conv import SIConv2d

__all__ = [
    "AntialiasedConv2d",
    "AntialiasedMaxPool2d",
    "AxisField",
    "DilatedScaleConv2d",
    "DiscoConv2d",
    "EquivarianceError",
    "GaussianDerivativeConv2d",
    "GaussianScaleSpace",
    "PyramidConv2d",
    "RescaledFilterConv2d",
    "RieszConv2d",
    "SIConv2d",
    "ScaleConv2d",
    "ScaleLayer",
    "ScalePool",
    "SiCNNConv2d",
    "SteerableConv2d",
    "relative_errors",
]
