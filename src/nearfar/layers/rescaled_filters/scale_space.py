"""GaussianScaleSpace: an image blurred more and more, as many levels on one grid."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nearfar.errors import InputError
from nearfar.grid import Window, base_grid
from nearfar.kernels.composition import check_padding_mode, convolve
from nearfar.layers.receptive_field import AxisField, ScaleLayer
from nearfar.pyramid import Pyramid, check_map
from nearfar.scale_sets import ScaleSet, as_scales
from nearfar.symbolic_sizes import map_size

__all__ = ["OCTAVES", "GaussianScaleSpace"]

#: Where blurs end, in standard deviations.
_CUT = 3.0
OCTAVES = (1.0, 2.0, 4.0)


class GaussianScaleSpace(ScaleLayer, nn.Module):
    """Lifts a map to a scale-space: blurred as much as reading every σ-th sample of it needs.

    .. math:: y_\\sigma = G_{t(\\sigma)} * x, \\qquad t(\\sigma) = s_0^2\\, (\\sigma^2 - 1)

    An image is taken to be blurred by ``s_0`` already; at σ it is then blurred by ``s_0 σ`` in all, and
    subsampled by σ it would be blurred by ``s_0`` again. It has no parameters.

    Args:
        filter_scales: σ, ascending from 1.
        blur: s₀, in pixels.
        padding_mode: what lies beyond the border: the nearest sample (``replicate``), ``zeros``,
            ``reflect`` or ``circular``.

    Shape:
        ``[B, C, H, W]`` → pyramid of ``[B, C, H, W]`` on one grid, with scales 1/σ.

    Raises:
        InputError: filter scales below 1 or not ascending, or ``blur`` not above 0.

    Source: D. Worrall and M. Welling 2019, "Deep Scale-spaces: Equivariance Over Scale", §3.2.
    """

    contract = (
        "the image rescaled by the ratio of two of its blurs, each level is the other, rescaled"
    )

    def __init__(
        self,
        filter_scales: ScaleSet = OCTAVES,
        *,
        blur: float = 0.5,
        padding_mode: str = "replicate",
    ) -> None:
        super().__init__()
        self.filter_scales = as_scales(filter_scales)
        ascends = list(self.filter_scales) == sorted(set(self.filter_scales))
        if not ascends or self.filter_scales[0] < 1:
            raise InputError(f"filter_scales must ascend from at least 1, got {self.filter_scales}")
        if not 0 < blur < math.inf:
            raise InputError(f"blur must be a number of pixels above 0, got {blur!r}")
        check_padding_mode(padding_mode)
        self.blur = blur
        self.padding_mode = padding_mode

    def _sigma(self, scale: float) -> float:
        return self.blur * math.sqrt(scale**2 - 1)

    def _half(self, scale: float) -> int:
        return math.ceil(_CUT * self._sigma(scale))

    def forward(self, x: Tensor) -> Pyramid:
        check_map(x, "GaussianScaleSpace")
        levels = tuple(self._blurred(x, s) for s in self.filter_scales)
        grid = base_grid(*map_size(x))
        scales = tuple(1 / s for s in self.filter_scales)
        return Pyramid(levels, scales, (grid,) * len(scales), grid)

    def _blurred(self, x: Tensor, scale: float) -> Tensor:
        half = self._half(scale)
        if half == 0:
            return x
        steps = torch.arange(-half, half + 1, dtype=x.dtype, device=x.device)
        line = torch.exp(-steps.square() / (2 * self._sigma(scale) ** 2))
        line = line / line.sum()
        channels = x.shape[-3]
        for shape, pads in (
            ((2 * half + 1, 1), ((half, half), (0, 0))),
            ((1, 2 * half + 1), ((0, 0), (half, half))),
        ):
            window = Window(shape, (1, 1), pads, (1, 1))
            kernel = line.reshape(1, 1, *shape).expand(channels, 1, *shape)
            x = convolve(x, kernel, None, window, channels, self.padding_mode)
        return x

    def receptive_field(
        self, x: Tensor | Pyramid, fields: Sequence[AxisField], axis: int
    ) -> list[AxisField]:
        assert isinstance(x, Tensor)
        size = int(map_size(x)[axis])
        return [
            fields[0].slide(size, 2 * half + 1, 1, half, 1)
            for half in map(self._half, self.filter_scales)
        ]

    def extra_repr(self) -> str:
        return (
            f"filter_scales={self.filter_scales}, blur={self.blur:g}, "
            f"padding_mode={self.padding_mode!r}"
        )
