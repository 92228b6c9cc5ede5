"""GaussianDerivativeConv2d: filters made of a Gaussian's first derivatives, at any scale."""

from __future__ import annotations

import math
from typing import Any

from nearfar.errors import InputError
from nearfar.layers.rescaled_filters.layer import Rescaled, RescaledFilterConv2d
from nearfar.layers.rescaled_filters.steerable import hermite_gaussians

__all__ = ["GaussianDerivativeConv2d"]


class GaussianDerivativeConv2d(RescaledFilterConv2d):
    """Linear combinations of scale-normalised Gaussian derivatives, over a continuous range of scales.

    .. math:: y_\\sigma = \\sum_{1 \\le n+m \\le N} W_{nm}\\, A_{nm}\\, (\\sigma s)^{n+m}\\,
        \\partial_x^n \\partial_y^m G_{\\sigma s} * x + b

    Few numbers a filter: 5 to second order, whatever its size. They do not depend on the filter scales, so
    a net that learnt at some scales can look at others, between or beyond
    (``nearfar.training.with_options``).

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode,
            device, dtype, filter_scales, scale_extent, scale_padding: as in
            :class:`nearfar.layers.RescaledFilterConv2d`. Filters end at half the kernel's side, times σ.
        order: N, the highest order of the derivatives, 1 to 4.
        sigma: s, in pixels, at filter scale 1; default a sixth of ``kernel_size``: the filter ends at three
            standard deviations.

    Shape:
        ``[B, C_in, H, W]`` or a pyramid of S levels → pyramid of S levels ``[B, C_out, H', W']``;
        ``weight`` ``[C_out, C_in / groups, K, N (N + 3) / 2]``.

    Raises:
        InputError: ``order`` or ``sigma`` out of bounds, and as in
            :class:`nearfar.layers.RescaledFilterConv2d`.

    Limits:
        Below a ``sigma`` of about 0.7 pixels derivatives are not well sampled. A filter sees edges, bars and
        blobs; more takes more layers.

    Source: T. Lindeberg 2022, "Scale-covariant and scale-invariant Gaussian derivative networks", eq. 8
    to 11. With :class:`nearfar.layers.ScalePool` on the last maps' logits it is his network; the scale
    channels of Y. Jansson and T. Lindeberg 2022 (FovMax, FovAvg), one net over rescaled images, are
    :class:`nearfar.models.HierarchicalNet` with ``reduction='max'`` or ``'mean'``.
    """

    def __init__(
        self, *args: Any, order: int = 2, sigma: float | None = None, **kwargs: Any
    ) -> None:
        if order not in (1, 2, 3, 4):
            raise InputError(f"order must be 1, 2, 3 or 4, got {order!r}")
        if sigma is not None and not 0 < sigma < math.inf:
            raise InputError(f"sigma must be a number of pixels above 0, got {sigma!r}")
        # Known to the basis, which the base's constructor asks for; a module takes plain numbers before.
        self.order = order
        self._sigma = sigma
        super().__init__(*args, **kwargs)

    @property
    def sigma(self) -> float:
        """The Gaussian's standard deviation at filter scale 1, in pixels."""
        return self.kernel_size[0] / 6 if self._sigma is None else self._sigma

    def _orders(self) -> list[tuple[int, int]]:
        return [(total - m, m) for total in range(1, self.order + 1) for m in range(total + 1)]

    def _functions(self) -> int:
        return len(self._orders())

    def rescaled(self, scale: float) -> Rescaled:
        return hermite_gaussians(self._orders(), self.sigma, self.kernel_size[0] / 2, scale), 1

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, order={self.order}, sigma={self.sigma:.3g}"
