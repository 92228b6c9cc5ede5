"""SteerableConv2d: filters in a basis of Hermite–Gaussian functions, which is known at every size."""

from __future__ import annotations

import math

import torch
from numpy.polynomial.hermite_e import hermeval
from torch import Tensor

from nearfar.layers.rescaled_filters.layer import Rescaled, RescaledFilterConv2d

__all__ = ["SteerableConv2d", "hermite_gaussians"]


class SteerableConv2d(RescaledFilterConv2d):
    """Scale-equivariant steerable convolution (SESN): lifting, and convolution over position and scale.

    .. math:: \\psi_\\sigma(x, y) = \\sum_{n,m<k} W_{nm}\\, A_{nm}\\, \\sigma^{-2}\\,
        H_n(x/\\sigma s)\\, H_m(y/\\sigma s)\\, e^{-(x^2+y^2)/2\\sigma^2 s^2}

    with Hermite polynomials ``H`` and one constant ``A`` a function, so that it has unit norm at filter
    scale 1. A ``k × k`` filter has ``k²`` functions: at filter scale 1 it is any ``k × k`` filter, and it
    is known at every other size without interpolation. A map is lifted: every filter size reads it. A pyramid
    of such levels is convolved over position and, with ``scale_extent`` K, over K neighbouring sizes.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode,
            device, dtype, filter_scales, scale_extent, scale_padding: as in
            :class:`nearfar.layers.RescaledFilterConv2d`.

    Shape:
        ``[B, C_in, H, W]`` or a pyramid of S levels → pyramid of S levels ``[B, C_out, H', W']``;
        ``weight`` ``[C_out, C_in / groups, K, k²]``.

    Raises:
        InputError: as in :class:`nearfar.layers.RescaledFilterConv2d`.

    Limits:
        Equivariant for scales that lead from one filter size to another; filters end at k/2 · σ pixels,
        and functions of high order have not faded there. Multiplications grow with the squares of the
        filter sizes: by 10 for four sizes over an octave.

    Source: I. Sosnovik, M. Szmaja, A. Smeulders 2020, "Scale-Equivariant Steerable Networks", eq. 8
    (lifting), 9 (scale convolution) and 14 (basis); the width s and the cut are ours.
    """

    def rescaled(self, scale: float) -> Rescaled:
        side = self.kernel_size[0]
        sigma = side / 2 / math.sqrt(2 * side - 1)
        orders = [(n, m) for n in range(side) for m in range(side)]
        return hermite_gaussians(orders, sigma, side / 2, scale), 1


def hermite_gaussians(
    orders: list[tuple[int, int]], sigma: float, reach: float, scale: float
) -> Tensor:
    """Hermite polynomials times a Gaussian at a filter scale, ``[N, side, side]``, float64.

    They are, up to a constant, the derivatives of a Gaussian.

    Args:
        orders: of each function, along rows and columns.
        sigma: of the Gaussian at filter scale 1, in pixels.
        reach: where filters end at filter scale 1, in pixels from the middle.
        scale: the filter scale. Functions of unit norm at 1 are widened by it and divided by its square.
    """

    def lines(at: float) -> Tensor:
        half = math.floor(reach * at + 1e-9)
        x = torch.arange(-half, half + 1, dtype=torch.float64) / (at * sigma)
        largest = max(max(pair) for pair in orders)
        units = torch.eye(largest + 1, dtype=torch.float64).numpy()
        polynomials = torch.from_numpy(hermeval(x.numpy(), units))
        at_samples: Tensor = polynomials * torch.exp(-x.square() / 2)
        return at_samples

    norms = lines(1.0).norm(dim=1)
    at_scale = lines(scale) / norms[:, None] / scale
    rows = at_scale[[n for n, _ in orders]]
    columns = at_scale[[m for _, m in orders]]
    functions: Tensor = rows[:, :, None] * columns[:, None, :]
    return functions
