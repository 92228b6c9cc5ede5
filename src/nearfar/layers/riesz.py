"""RieszConv2d: combinations of Riesz transforms, which commute with every rescaling."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from nearfar.errors import InputError
from nearfar.grid import Padding, Window
from nearfar.kernels.composition import check_padding_mode
from nearfar.layers.filter_layer import FilterLayer
from nearfar.layers.receptive_field import AxisField
from nearfar.pyramid import Pyramid, check_map
from nearfar.symbolic_sizes import map_size

__all__ = ["RieszConv2d"]

#: First order: along rows, along columns; second: twice along rows, both, twice along columns.
_TRANSFORMS = {1: 2, 2: 5}


class RieszConv2d(FilterLayer):
    """A layer without a size: mixes the first and second Riesz transforms of its input.

    .. math:: y = \\sum_j W_j\\, R_j x + \\sum_{j \\le k} W_{jk}\\, R_j R_k x + b, \\qquad
        \\widehat{R_j x}(\\xi) = -i\\, \\frac{\\xi_j}{|\\xi|}\\, \\hat x(\\xi)

    The multipliers do not change when ξ is multiplied by a number, so the layer commutes with every
    rescaling; no scale is sampled, and one pass sees all. What a Riesz transform answers to is the phase of
    an edge, a bar or a corner, of any width.

    Args:
        in_channels, out_channels, stride, groups, bias, device, dtype: as in ``torch.nn.Conv2d``.
        kernel_size, padding, dilation: 1, 0 and 1: its filters reach over all of the map, which keeps its
            size.
        padding_mode: what lies beyond the border, half a map far on every side: ``zeros``, ``reflect``,
            ``replicate``, or ``circular`` (the Fourier transform's own; a quarter of the work).
        order: 2, or 1 for the first transforms alone.

    Shape:
        ``[B, C_in, H, W]`` → ``[B, C_out, ⌈H / stride⌉, ⌈W / stride⌉]``. ``weight`` is ``[C_out,
        C_in / groups, 2 or 5]``.

    Raises:
        InputError: a kernel size, padding or dilation, or an ``order`` that is not there; channels that
            ``groups`` does not divide.

    Limits:
        Exact on the plane; on a map, what lies beyond the border and detail finer than the smaller grid
        differ. The constant part of an image has no transform. By fast Fourier transforms, in float32 at
        least. ``torch.export`` takes it for one size, with an open batch; ONNX not at all, since torch's
        exporter has no complex tensors of this kind.

    Source: T. Barisin, K. Schladitz, C. Redenbach 2024, "Riesz networks: scale invariant neural networks in
    a single forward pass", §3.1 (base functions of first and second order).
    """

    contract = "the image rescaled by any factor, the answer is rescaled"

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int] = 1,
        stride: int | Sequence[int] = 1,
        padding: Padding = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        order: int = 2,
    ) -> None:
        super().__init__()
        window = Window.make(kernel_size, stride, padding, dilation)
        if (window.kernel, window.padding, window.dilation) != ((1, 1), ((0, 0), (0, 0)), (1, 1)):
            raise InputError(
                f"RieszConv2d's filters have no size, so kernel_size, padding and dilation must be 1, 0 and "
                f"1, got {kernel_size!r}, {padding!r} and {dilation!r}; leave them out"
            )
        if (
            min(in_channels, out_channels, groups) < 1
            or in_channels % groups
            or out_channels % groups
        ):
            raise InputError(
                f"groups={groups} must be at least 1 and divide in_channels={in_channels} and "
                f"out_channels={out_channels}, which must be at least 1"
            )
        check_padding_mode(padding_mode)
        if order not in _TRANSFORMS:
            raise InputError(f"order must be 1 or 2, got {order!r}")
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = window.kernel
        self.stride = window.stride
        self.padding = 0
        self.dilation = window.dilation
        self.groups = groups
        self.padding_mode = padding_mode
        self.order = order
        shape = (out_channels, in_channels // groups, _TRANSFORMS[order])
        self.make_parameters(shape, bias, device, dtype)

    def forward(self, x: Tensor) -> Tensor:
        check_map(x, "RieszConv2d")
        single = x.dim() == 3
        maps = self.transforms(x.unsqueeze(0) if single else x)
        rows, columns = self.stride
        maps = maps[..., ::rows, ::columns]
        y = F.conv2d(
            maps.flatten(1, 2),
            self.weight.flatten(1)[..., None, None],
            self.bias,
            groups=self.groups,
        )
        return y.squeeze(0) if single else y

    def transforms(self, x: Tensor) -> Tensor:
        """The Riesz transforms of every channel, ``[B, C, H, W]`` → ``[B, C, 2 or 5, H, W]``."""
        height, width = map_size(x)
        exact = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        top, left = (height // 2, width // 2) if self.padding_mode != "circular" else (0, 0)
        mode = "constant" if self.padding_mode in ("zeros", "circular") else self.padding_mode
        wide = F.pad(exact, (left, left, top, top), mode=mode)
        size = map_size(wide)
        spectrum = torch.fft.rfft2(wide).unsqueeze(2) * self._multipliers(size, wide)
        maps = torch.fft.irfft2(spectrum, s=size)
        inside: Tensor = maps[..., top : top + height, left : left + width]
        return inside.to(x.dtype)

    def _multipliers(self, size: tuple[int, int], like: Tensor) -> Tensor:
        """What the transforms multiply each frequency by, ``[2 or 5, H, W // 2 + 1]``, complex."""
        rows = torch.fft.fftfreq(size[0], dtype=like.dtype, device=like.device)[:, None]
        columns = torch.fft.rfftfreq(size[1], dtype=like.dtype, device=like.device)[None]
        square = rows.square() + columns.square()
        none = square == 0
        length = square.masked_fill(none, 1.0).sqrt()
        # The highest frequency of an even number of samples has no sign.
        one = torch.where(rows.abs() == 0.5, 0.0, rows) / length
        other = torch.where(columns.abs() == 0.5, 0.0, columns) / length
        zero = torch.zeros_like(length)
        first = [torch.complex(zero, -one), torch.complex(zero, -other)]
        if self.order == 1:
            return torch.stack(first)
        share = (rows / length).square(), one * other, (columns / length).square()
        return torch.stack([*first, *(torch.complex(-part, zero) for part in share)])

    def receptive_field(
        self, x: Tensor | Pyramid, fields: Sequence[AxisField], axis: int
    ) -> list[AxisField]:
        assert isinstance(x, Tensor)
        pairs = [fields[0].at(i) for i in range(int(map_size(x)[axis]))]
        return [AxisField((min(a for a, _ in pairs),), (max(b for _, b in pairs),), 0)]

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, stride={self.stride}, groups={self.groups}, "
            f"bias={self.bias is not None}, padding_mode={self.padding_mode!r}, order={self.order}"
        )
