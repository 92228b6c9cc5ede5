"""SiCNNConv2d: the columns of SiCNN, each with the same filters interpolated to its own size."""

from __future__ import annotations

import math
from typing import Any

from nearfar.errors import InputError
from nearfar.grid import Axis
from nearfar.layers.rescaled_filters.layer import Rescaled, RescaledFilterConv2d
from nearfar.resampling import reading_matrix
from nearfar.scale_sets import ScaleSet

__all__ = ["SiCNNConv2d"]


class SiCNNConv2d(RescaledFilterConv2d):
    """Multi-column convolution: one set of canonical filters, resized for every column.

    .. math:: y_\\sigma = \\sigma^{-2}\\, T_\\sigma(W) * x_\\sigma + b

    A column of layers with one σ is a network whose every filter is σ times as large; columns share all
    parameters and meet at the end (:class:`nearfar.layers.ScalePool`, ``concat`` as in the paper or
    ``max``). ``T_σ`` is bilinear resizing, antialiased where a filter becomes smaller.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode,
            device, dtype: as in :class:`nearfar.layers.RescaledFilterConv2d`.
        filter_scales: one a column, also below 1; each gives the odd side nearest to σ times the kernel's.

    Shape:
        ``[B, C_in, H, W]`` or a pyramid of S columns → pyramid of S columns ``[B, C_out, H', W']``;
        ``weight`` ``[C_out, C_in / groups, 1, k²]``, the taps row by row.

    Raises:
        InputError: a ``scale_extent`` above 1 (columns do not mix), and as in
            :class:`nearfar.layers.RescaledFilterConv2d`.

    Limits:
        A filter's side is a whole odd number, so a column's size is only near to σ; interpolation between
        few taps is rough. That is what steerable filters mend.

    Source: Y. Xu, T. Xiao, J. Zhang, K. Yang, Z. Zhang 2014, "Scale-Invariant Convolutional Neural
    Networks", §3; the factor σ⁻², which keeps a filter's sum, is ours.
    """

    smallest = 0.2

    def __init__(
        self, *args: Any, filter_scales: ScaleSet = (0.6, 1.0, 1.4), **kwargs: Any
    ) -> None:
        if kwargs.get("scale_extent", 1) != 1:
            raise InputError(
                f"SiCNN's columns do not mix, got scale_extent={kwargs['scale_extent']}; leave it at 1, or "
                f"take SteerableConv2d or DiscoConv2d"
            )
        super().__init__(*args, filter_scales=filter_scales, **kwargs)

    def rescaled(self, scale: float) -> Rescaled:
        side = self.kernel_size[0]
        new = max(1, 2 * math.floor(side * scale / 2) + 1)
        matrix = reading_matrix(Axis.tiling(side, side), Axis.tiling(new, side), True)
        line = (matrix * (side / new)).mT
        basis = line[:, None, :, None] * line[None, :, None, :]
        return basis.flatten(0, 1), 1
