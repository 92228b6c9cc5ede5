"""RescaledFilterConv2d: the map stays as it is, the filter is rescaled; what its kinds have in common."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor

from nearfar.errors import InputError
from nearfar.functional import check_scale_padding
from nearfar.grid import Padding, Window, base_grid
from nearfar.kernels.composition import check_padding_mode, convolve
from nearfar.layers.filter_layer import FilterLayer, check_channels
from nearfar.layers.receptive_field import AxisField, convolved
from nearfar.layers.rescaled_filters.scale_space import GaussianScaleSpace
from nearfar.pyramid import Pyramid, check_map
from nearfar.scale_sets import ScaleSet, as_scales
from nearfar.symbolic_sizes import map_size

__all__ = ["FILTER_SCALES", "RescaledFilterConv2d", "Rescaled"]

#: Four filter sizes over an octave: 1, 1.26, 1.59, 2.
FILTER_SCALES = tuple(round(2 ** (i / 3), 4) for i in range(4))

Rescaled = tuple[Tensor | None, int]
"""A basis at a filter scale, ``[N, side, side]`` (``None``: the taps themselves), and its dilation."""


class RescaledFilterConv2d(FilterLayer):
    """One filter at several sizes over one map: what SESN, DISCO, dilated and Gaussian filters share.

    .. math:: y_\\sigma = \\sum_{k=0}^{K-1} \\psi_\\sigma[W_k] * x_{\\sigma_{+k}} + b, \\qquad
        \\psi_\\sigma[W] = \\sum_n W_n\\, \\sigma^{-2}\\, \\psi_n(\\cdot / \\sigma)

    Where :class:`nearfar.layers.SIConv2d` rescales the map and keeps the filter, here the filter grows and
    the map stays. The outputs are a :class:`nearfar.pyramid.Pyramid` whose levels all lie on the base grid:
    a filter σ times as large sees what the filter itself would see in the image at scale 1/σ, so a level
    has the scale 1/σ. ``pyramid.map`` and :class:`nearfar.layers.ScalePool` go on from there.

    A kind says in :meth:`rescaled` how its basis looks at a filter scale.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, groups, bias, padding_mode, device,
            dtype: as in ``torch.nn.Conv2d``, of the filter at filter scale 1; the kernel is square and its
            side odd. Larger filters are padded by so much more that all outputs have one size.
        dilation: 1, since the filter's scales say how far its taps lie apart.
        filter_scales: how many times as large the filter is at each level, ascending.
        scale_extent: K, how many neighbouring levels (the next larger filters) a filter sees; a map that is
            no pyramid has one.
        scale_padding: ``end`` keeps all levels (those beyond the last count as zero); ``valid`` the
            S − K + 1 that see the whole filter.

    Shape:
        ``[B, C_in, H, W]`` (lifted: every scale reads it), or a pyramid of S such levels as the layer puts
        out → pyramid of S levels ``[B, C_out, H', W']``. ``weight`` is ``[C_out, C_in / groups, K, N]``,
        N functions in the basis.

    Raises:
        InputError: an argument does not fit; on a pyramid, other scales than the layer's.
    """

    contract = (
        "the image rescaled by the ratio of two filter scales, a level's answer is that of the level whose "
        "filter has so much another size, rescaled; levels whose filter reaches beyond the last are left out"
    )
    #: The smallest filter scale that the kind can do.
    smallest: ClassVar[float] = 1.0

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        padding: Padding = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        filter_scales: ScaleSet = FILTER_SCALES,
        scale_extent: int = 1,
        scale_padding: Literal["end", "valid"] = "end",
    ) -> None:
        super().__init__()
        window = Window.make(kernel_size, stride, padding, dilation)
        self.filter_scales = as_scales(filter_scales)
        self._check(window, padding_mode, scale_padding)
        check_channels(in_channels, out_channels, groups, scale_extent)
        if scale_extent > len(self.filter_scales):
            raise InputError(
                f"scale_extent={scale_extent} is more than there are filter_scales, "
                f"{self.filter_scales}; give more of them or a smaller extent"
            )
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = window.kernel
        self.stride = window.stride
        self.padding = padding
        self.dilation = window.dilation
        self.groups = groups
        self.padding_mode = padding_mode
        self.scale_extent = scale_extent
        self.scale_padding: Literal["end", "valid"] = scale_padding
        self._dilations: list[int] = []
        for i, scale in enumerate(self.filter_scales):
            with torch.device(
                "cpu"
            ):  # where it is computed, even if the layer is made without memory
                basis, apart = self.rescaled(scale)
            if basis is not None:
                basis = basis.to(
                    device or torch.get_default_device(), dtype or torch.get_default_dtype()
                )
            self.register_buffer(f"basis_{i}", basis, persistent=False)
            self._dilations.append(apart)
        shape = (out_channels, in_channels // groups, scale_extent, self._functions())
        self.make_parameters(shape, bias, device, dtype)

    def rescaled(self, scale: float) -> Rescaled:
        """The basis at a filter scale; its functions keep their integral, whatever the scale."""
        raise NotImplementedError

    def _functions(self) -> int:
        return self.kernel_size[0] ** 2

    def _check(self, window: Window, padding_mode: str, scale_padding: str) -> None:
        name, scales = type(self).__name__, self.filter_scales
        if window.kernel[0] != window.kernel[1] or window.kernel[0] % 2 == 0:
            raise InputError(
                f"{name} rescales filters about their middle tap, so kernel_size must be one odd number, "
                f"got {window.kernel}"
            )
        if window.dilation != (1, 1):
            raise InputError(
                f"{name} gives its filters their sizes itself, got dilation={window.dilation}; leave it at "
                f"1 and name the sizes as filter_scales"
            )
        if list(scales) != sorted(set(scales)) or scales[0] < self.smallest:
            raise InputError(
                f"filter_scales of {name} must ascend from at least {self.smallest:g}, got {scales}"
            )
        check_scale_padding(scale_padding)
        check_padding_mode(padding_mode)

    def kernel(self, level: int) -> Tensor:
        """The filter of a level as it is convolved, ``[C_out, C_in / groups, K, side, side]``."""
        basis = self.get_buffer(f"basis_{level}") if self._has_basis(level) else None
        if basis is None:
            return self.weight.reshape(*self.weight.shape[:3], *self.kernel_size)
        taps = torch.matmul(self.weight, basis.flatten(1).to(self.weight.dtype))
        return taps.reshape(*taps.shape[:3], *basis.shape[-2:])

    def _has_basis(self, level: int) -> bool:
        return self._buffers.get(f"basis_{level}") is not None

    def window(self, level: int | None = None) -> Window:
        """The geometry of a level's convolution; of the filter at scale 1 without a number."""
        base = Window.make(self.kernel_size, self.stride, self.padding)
        if level is None:
            return base
        side = (
            int(self.get_buffer(f"basis_{level}").shape[-1])
            if self._has_basis(level)
            else base.kernel[0]
        )
        apart = self._dilations[level]
        more = (apart * (side - 1) + 1 - base.kernel[0]) // 2
        pads = tuple((before + more, after + more) for before, after in base.padding)
        return Window((side, side), base.stride, (pads[0], pads[1]), (apart, apart))

    def forward(self, x: Tensor | Pyramid) -> Pyramid:
        maps = self._maps(x)
        levels = []
        last = len(maps) - (self.scale_extent - 1 if self.scale_padding == "valid" else 0)
        for s in range(last):
            window, kernel = self.window(s), self.kernel(s)
            total: Tensor | None = None
            for k in range(min(self.scale_extent, len(maps) - s)):
                bias = self.bias if k == 0 else None
                part = self._convolved(maps[s + k], kernel[:, :, k], bias, window)
                total = part if total is None else total + part
            assert total is not None
            levels.append(total)
        source = x.base if isinstance(x, Pyramid) and x.base else base_grid(*map_size(maps[0]))
        grid = self.window().apply(source)
        scales = tuple(1 / s for s in self.filter_scales[:last])
        return Pyramid(tuple(levels), scales, (grid,) * last, grid)

    def _convolved(self, x: Tensor, kernel: Tensor, bias: Tensor | None, window: Window) -> Tensor:
        (top, bottom), (left, right) = window.padding
        if min(top, left) < 0:  # a filter smaller than at scale 1 does not reach as far
            rows, columns = (max(0, -n) for n in (top, left))
            height, width = map_size(x)
            x = x[..., rows : height - rows, columns : width - columns]
            pads = ((max(0, top), max(0, bottom)), (max(0, left), max(0, right)))
            window = Window(window.kernel, window.stride, pads, window.dilation)
        return convolve(x, kernel, bias, window, self.groups, self.padding_mode)

    def _maps(self, x: Tensor | Pyramid) -> tuple[Tensor, ...]:
        """The map that each level reads."""
        name = type(self).__name__
        if isinstance(x, Tensor):
            check_map(x, name)
            if self.scale_extent > 1:
                raise InputError(
                    f"{name} with scale_extent={self.scale_extent} slides over the scales of a pyramid, "
                    f"got one map; lift it first by a layer with scale_extent=1"
                )
            maps: tuple[Tensor, ...] = (x,) * len(self.filter_scales)
        else:
            wanted_scales = tuple(1 / s for s in self.filter_scales)
            fits = len(x) == len(wanted_scales) and all(
                math.isclose(one, other, rel_tol=1e-3)
                for one, other in zip(x.scales, wanted_scales, strict=True)
            )
            if not fits or any(level.shape != x.levels[0].shape for level in x.levels):
                raise InputError(
                    f"{name} takes a map, or a pyramid on one grid with a level for each of its "
                    f"filter_scales {self.filter_scales} (scales 1/σ), got {x}; lift the map by a layer with "
                    f"the same filter_scales"
                )
            maps = x.levels
        size, window = map_size(maps[0]), self.window()
        if not all(window.output_size(n, a) > 0 for a, n in enumerate(size)):
            raise InputError(
                f"the {window.kernel[0]}×{window.kernel[1]} kernel is larger than the padded input "
                f"({size[0]}×{size[1]}); give a larger input or more padding"
            )
        return maps

    def input_for(self, x: Tensor) -> Tensor | Pyramid:
        if self.scale_extent == 1:
            return x
        relative = tuple(s / self.filter_scales[0] for s in self.filter_scales)
        pyramid = GaussianScaleSpace(relative).forward(x)
        scales = tuple(1 / s for s in self.filter_scales)
        return Pyramid(pyramid.levels, scales, pyramid.grids, pyramid.base)

    def whole_levels(self, count: int) -> int:
        return count - (self.scale_extent - 1 if self.scale_padding == "end" else 0)

    def receptive_field(
        self, x: Tensor | Pyramid, fields: Sequence[AxisField], axis: int
    ) -> list[AxisField]:
        maps = self._maps(x)
        fields = list(fields) * len(maps) if isinstance(x, Tensor) else fields
        size = int(map_size(maps[0])[axis])
        last = len(maps) - (self.scale_extent - 1 if self.scale_padding == "valid" else 0)
        outputs = []
        for s in range(last):
            window = self.window(s)
            parts = [
                convolved(fields[s + k], size, window, axis)
                for k in range(min(self.scale_extent, len(maps) - s))
            ]
            total = parts[0]
            for part in parts[1:]:
                total = total.union(part, self.window().output_size(size, axis))
            outputs.append(total)
        return outputs

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, "
            f"stride={self.stride}, padding={self.padding}, groups={self.groups}, "
            f"bias={self.bias is not None}, padding_mode={self.padding_mode!r}, "
            f"filter_scales={self.filter_scales}, scale_extent={self.scale_extent}, "
            f"scale_padding={self.scale_padding!r}"
        )
