"""Layers that rescale the filter instead of the map: one base, a kind a file."""

from nearfar.layers.rescaled_filters.columns import SiCNNConv2d
from nearfar.layers.rescaled_filters.dilated import DilatedScaleConv2d
from nearfar.layers.rescaled_filters.disco import DiscoConv2d
from nearfar.layers.rescaled_filters.gaussian_derivative import GaussianDerivativeConv2d
from nearfar.layers.rescaled_filters.layer import FILTER_SCALES, RescaledFilterConv2d
from nearfar.layers.rescaled_filters.scale_space import GaussianScaleSpace
from nearfar.layers.rescaled_filters.steerable import SteerableConv2d

__all__ = [
    "FILTER_SCALES",
    "DilatedScaleConv2d",
    "DiscoConv2d",
    "GaussianDerivativeConv2d",
    "GaussianScaleSpace",
    "RescaledFilterConv2d",
    "SiCNNConv2d",
    "SteerableConv2d",
]
