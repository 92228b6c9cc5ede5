"""How far a layer's answer follows when the image is rescaled: its contract, measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nearfar.errors import InputError
from nearfar.grid import Axis, Grid, Window, base_grid
from nearfar.pyramid import Pyramid, expand
from nearfar.resampling import resample
from nearfar.scale_sets import ScaleSet, as_scales
from nearfar.symbolic_sizes import map_size

if TYPE_CHECKING:
    from nearfar.layers.receptive_field import ScaleLayer

__all__ = ["EquivarianceError", "measure_equivariance", "natural_noise", "relative_errors"]

#: Share of a map's side that is left out at every edge, where borders look different at each scale.
_EDGE = 1 / 8
_IMAGES, _SIDE = 4, 96
#: By how much two levels' scales may differ, as a share, to count as the same.
_SAME = 0.01


@dataclass(frozen=True)
class EquivarianceError:
    """What a layer promises when the image is rescaled, and how far it is from it.

    Attributes:
        contract: what would be so on a plane without samples, in words.
        scales: by which the images were rescaled.
        errors: at each, the relative difference ``|Φ(T_s x) − T_s Φ(x)| / |T_s Φ(x)|``, the median over
            images; ``None`` where no level of the layer leads to another at that scale, so that nothing is
            promised.
        levels: how many pairs of levels were compared at each scale.
    """

    contract: str
    scales: tuple[float, ...]
    errors: tuple[float | None, ...]
    levels: tuple[int, ...]

    @property
    def worst(self) -> float | None:
        """The largest error; ``None`` where nothing could be compared."""
        return max((e for e in self.errors if e is not None), default=None)


def measure_equivariance(
    layer: ScaleLayer, scales: ScaleSet, images: Tensor | None = None
) -> EquivarianceError:
    """:meth:`nearfar.layers.ScaleLayer.check_equivariance`."""
    values = as_scales(scales)
    x = natural_noise(layer) if images is None else images
    if x.dim() != 4 or not x.is_floating_point():
        raise InputError(
            f"check_equivariance needs floating-point images [B, C, H, W], got {tuple(x.shape)} of "
            f"{x.dtype}; add the batch axis with unsqueeze(0), or convert with .float()"
        )
    errors: list[float | None] = []
    counts = []
    with torch.no_grad():
        still = _levels(layer, x)
        for s in values:
            zoomed = expand(x, (s,)).levels[0]
            pairs = [
                (moved, grid, other, other_grid)
                for scale, moved, grid in _levels(layer, zoomed)
                for other_scale, other, other_grid in still
                if scale is None or abs(math.log(other_scale / (scale * s))) < _SAME  # type: ignore[operator]
            ]
            per_pair = [
                relative_errors(
                    moved, resample(other, at, _seen_from(grid, x, zoomed), antialias=True)
                )
                for moved, grid, other, at in pairs
            ]
            counts.append(len(pairs))
            errors.append(float(torch.stack(per_pair).mean(dim=0).median()) if per_pair else None)
    return EquivarianceError(layer.contract, values, tuple(errors), tuple(counts))


def _levels(layer: ScaleLayer, x: Tensor) -> Sequence[tuple[float | None, Tensor, Grid]]:
    """The layer's answers to an image: scale of the level (none if it has none), map, where it lies."""
    source = layer.input_for(x)
    y = layer(source)  # type: ignore[operator]
    if isinstance(y, Pyramid):
        whole = layer.whole_levels(len(y))
        return [
            (s, level, grid)
            for s, level, grid in zip(y.scales, y.levels, y.grids, strict=True)
            if grid is not None
        ][:whole]
    grid = base_grid(*map_size(x))
    if hasattr(layer, "kernel_size"):
        grid = Window.of(layer).apply(grid)  # type: ignore[arg-type]
    return [(scale, part, grid) for scale, part in layer.parts(y)]


def _seen_from(grid: Grid, x: Tensor, zoomed: Tensor) -> Grid:
    """Where samples of the rescaled image's map lie in the image, in its pixels."""
    axes = []
    for axis, n, m in zip(grid, map_size(x), map_size(zoomed), strict=True):
        axes.append(Axis(axis.size, axis.start * n / m, axis.step * n / m, axis.tiles))
    return axes[0], axes[1]


def relative_errors(moved: Tensor, expected: Tensor) -> Tensor:
    r"""The relative difference of two batches of maps, an eighth of each side left out at every edge.

    .. math:: |\Phi(T_s x) - T_s \Phi(x)| / |T_s \Phi(x)|

    Args:
        moved: ``[B, C, H, W]``, the maps of the rescaled image.
        expected: ``[B, C, H, W]``, the rescaled maps of the image.

    Returns:
        ``[B]``; NaN where only zeros were expected.
    """
    rows, columns = (slice(round(n * _EDGE), n - round(n * _EDGE)) for n in moved.shape[-2:])
    difference = (moved - expected)[..., rows, columns].flatten(1)
    size = torch.linalg.vector_norm(expected[..., rows, columns].flatten(1), dim=1)
    errors: Tensor = torch.linalg.vector_norm(difference, dim=1) / size
    return errors


def natural_noise(layer: ScaleLayer) -> Tensor:
    """Noise with the spectrum of photographs, ``[4, C, 96, 96]``, of a layer's dtype and on its device.

    Its amplitude falls as one over the frequency, so that it looks alike at every scale. Always the same.
    """
    channels = int(getattr(layer, "in_channels", 1))
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(_IMAGES, channels, _SIDE, _SIDE, generator=generator, dtype=torch.float64)
    rows, columns = torch.fft.fftfreq(_SIDE).double(), torch.fft.rfftfreq(_SIDE).double()
    frequency = (rows[:, None].square() + columns.square()).sqrt()
    frequency[0, 0] = math.inf
    x = torch.fft.irfft2(torch.fft.rfft2(noise) / frequency, s=(_SIDE, _SIDE))
    x = x / x.std()
    weight = getattr(layer, "weight", None)
    like: Tensor = x.float() if weight is None else x.to(weight.device, weight.dtype)
    return like
