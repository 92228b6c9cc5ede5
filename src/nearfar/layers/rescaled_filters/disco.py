"""DiscoConv2d: taps moved apart where filter scales are whole numbers, fitted bases between."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from nearfar.layers.rescaled_filters.layer import Rescaled, RescaledFilterConv2d

__all__ = ["DiscoConv2d"]

#: How alike neighbouring pixels are taken to be: covariance 0.9 to the power of their distance.
_CORRELATION = 0.9
#: At how many places between two samples a basis is fitted.
_PHASES = 16


class DiscoConv2d(RescaledFilterConv2d):
    """Discrete scale convolution: bases that commute with rescaling as far as a grid allows.

    At a whole filter scale σ the taps move σ pixels apart, and rescaling by σ or 1/σ, antialiased or not,
    commutes with the layer exactly, away from borders: ``(x * ψ_σ)[σ i] = (x[σ ·] * ψ_1)[i]``, without
    interpolation. Between, no filter does that, and the basis is the one that comes nearest:

    .. math:: \\psi_\\sigma = \\arg\\min_\\kappa\\, E\\,\\bigl| L_\\sigma[x] * \\psi_1 -
        L_\\sigma[x * \\kappa] \\bigr|^2

    with ``L_σ`` the reading of every σ-th place, linear between samples. The expectation is over images
    whose pixels correlate by 0.9 to the power of their distance, along both axes, and over all places
    between samples; so it is solved once, an axis at a time, when the layer is made. The basis at filter
    scale 1 is the single taps.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode,
            device, dtype, filter_scales, scale_extent, scale_padding: as in
            :class:`nearfar.layers.RescaledFilterConv2d`.

    Shape:
        ``[B, C_in, H, W]`` or a pyramid of S levels → pyramid of S levels ``[B, C_out, H', W']``;
        ``weight`` ``[C_out, C_in / groups, K, k²]``, the taps row by row.

    Raises:
        InputError: as in :class:`nearfar.layers.RescaledFilterConv2d`.

    Limits:
        Exact between filter scales whose ratio is whole and which are both whole; taps far apart miss the
        detail between them, which a layer over whole scales alone does not see at its larger ones.

    Source: I. Sosnovik, A. Moskalev, A. Smeulders 2021, "DISCO: accurate Discrete Scale Convolutions",
    §3 (exact for whole ratios) and eq. 8 (the fit). The paper fits on images; the covariance is ours.
    """

    def rescaled(self, scale: float) -> Rescaled:
        side = self.kernel_size[0]
        if scale == int(scale):
            return None, int(scale)
        lines = fitted_lines(side, scale)
        basis = lines[:, None, :, None] * lines[None, :, None, :]
        return basis.flatten(0, 1), 1


@lru_cache(maxsize=64)
def fitted_lines(side: int, scale: float) -> Tensor:
    """For each of ``side`` taps the line of taps that stands for it at a filter scale.

    Args:
        side: odd.
        scale: above 1.

    Returns:
        ``[side, m]``, float64, m odd: two more samples than the outermost tap reaches.
    """
    half, reach = side // 2, int(side // 2 * scale) + 2
    places = torch.arange(-half, half + 1, dtype=torch.float64) * scale
    taps = torch.arange(-reach, reach + 1, dtype=torch.float64)
    quadratic = torch.zeros(len(taps), len(taps), dtype=torch.float64)
    linear = torch.zeros(len(taps), side, dtype=torch.float64)
    samples = torch.arange(-reach - 2, reach + 4, dtype=torch.float64)
    covariance = _CORRELATION ** (samples[:, None] - samples).abs()
    for phase in range(_PHASES):
        at = (phase + 0.5) / _PHASES
        # What reading a line at a place means: [places, samples], linear between two of them.
        fitted, exact = (
            (1 - (at + p[:, None] - samples).abs()).clamp(min=0) for p in (taps, places)
        )
        quadratic += fitted @ covariance @ fitted.mT
        linear += fitted @ covariance @ exact.mT
    lines: Tensor = torch.linalg.solve(quadratic, linear).mT
    return lines
