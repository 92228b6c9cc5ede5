"""DilatedScaleConv2d: deep scale-spaces, whose filters' taps move apart as the image is blurred."""

from __future__ import annotations

from typing import Any

from nearfar.errors import InputError
from nearfar.layers.rescaled_filters.layer import Rescaled, RescaledFilterConv2d
from nearfar.layers.rescaled_filters.scale_space import OCTAVES
from nearfar.scale_sets import ScaleSet

__all__ = ["DilatedScaleConv2d"]


class DilatedScaleConv2d(RescaledFilterConv2d):
    """Dilated scale-group convolution of deep scale-spaces: at σ the taps lie σ samples apart.

    .. math:: y_\\sigma(x) = \\sum_{k=0}^{K-1} \\sum_j W_{k,j}\\, f_{\\sigma_{+k}}(x + \\sigma j) + b

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode,
            device, dtype, scale_extent, scale_padding: as in
            :class:`nearfar.layers.RescaledFilterConv2d`.
        filter_scales: whole numbers; octaves, as in the paper, where the levels' filters are to be the
            same however far the image is away.

    Shape:
        A pyramid of S levels, as :class:`nearfar.layers.GaussianScaleSpace` makes it (or a map, which then
        is not blurred) → pyramid of S levels ``[B, C_out, H', W']``; ``weight``
        is ``[C_out, C_in / groups, K, k²]``.

    Raises:
        InputError: filter scales that are no whole numbers, and as in
            :class:`nearfar.layers.RescaledFilterConv2d`.

    Limits:
        On maps that are not blurred it is :class:`nearfar.layers.DiscoConv2d` at whole filter scales.

    Source: D. Worrall and M. Welling 2019, §3.3, "the scale-equivariant cross-correlation".
    """

    def __init__(self, *args: Any, filter_scales: ScaleSet = OCTAVES, **kwargs: Any) -> None:
        super().__init__(*args, filter_scales=filter_scales, **kwargs)

    def rescaled(self, scale: float) -> Rescaled:
        if scale != int(scale):
            raise InputError(
                f"DilatedScaleConv2d moves taps by whole samples, got the filter scale {scale:g} in "
                f"{self.filter_scales}; take whole numbers, or DiscoConv2d, which fits filters between"
            )
        return None, int(scale)
