"""The operators as functions; the layers of :mod:`nearfar.layers` hold their weights."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Literal, get_args, overload

from torch import Tensor

from nearfar.errors import InputError
from nearfar.grid import Grid, Padding, Window, level_size
from nearfar.kernels import custom_ops
from nearfar.kernels.composition import PADDING_MODES, Composition, convolve
from nearfar.kernels.dispatch import cast, compute
from nearfar.pyramid import Pyramid, check_map, resample
from nearfar.scale_sets import ScaleSet, as_scales
from nearfar.symbolic_sizes import map_size

__all__ = [
    "PADDING_MODES",
    "Reduce",
    "check_scale_padding",
    "pyramid_conv2d",
    "scale_conv2d",
    "si_conv2d",
]

Reduce = Literal["max", "mean", "logsumexp"]


def check_scale_padding(word: str) -> None:
    """Refuses what is no way to pad over scale.

    Raises:
        InputError: it is none.
    """
    if word not in ("end", "valid"):
        raise InputError(f"scale_padding must be 'end' or 'valid', got {word!r}")


@overload
def si_conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = ...,
    stride: int | Sequence[int] = ...,
    padding: Padding = ...,
    dilation: int | Sequence[int] = ...,
    groups: int = ...,
    *,
    scales: ScaleSet = ...,
    antialias: bool = ...,
    reduce: Reduce = ...,
    padding_mode: str = ...,
    return_winner: Literal[False] = ...,
) -> Tensor: ...
@overload
def si_conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = ...,
    stride: int | Sequence[int] = ...,
    padding: Padding = ...,
    dilation: int | Sequence[int] = ...,
    groups: int = ...,
    *,
    scales: ScaleSet = ...,
    antialias: bool = ...,
    reduce: Reduce = ...,
    padding_mode: str = ...,
    return_winner: Literal[True],
) -> tuple[Tensor, Tensor]: ...
def si_conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: Padding = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    *,
    scales: ScaleSet = "octave",
    antialias: bool = True,
    reduce: Reduce = "max",
    padding_mode: str = "zeros",
    return_winner: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Scale-invariant convolution: one filter meets the input at several scales, the best stays.

    .. math:: h = \\max_i T_i^{-1}\\bigl(W * T_i(x) + b\\bigr)

    The output has the shape of the plain convolution's, and its sample (i, j) stands for the same
    image point at every scale, whatever stride, padding, dilation and kernel.

    Args:
        x: ``[B, C_in, H, W]``.
        weight: ``[C_out, C_in / groups, k_h, k_w]``, shared by all scales.
        bias: ``[C_out]``.
        stride, padding, dilation, groups: as in ``torch.nn.functional.conv2d``; they act alike at
            every scale.
        scales: at which scales the filter meets the input. At scale 2 the input is enlarged, so
            the filter responds to patterns half as large.
        antialias: average where a level is made smaller.
        reduce: over the scales: ``max`` as in the paper, ``mean`` or ``logsumexp``.
        padding_mode: ``zeros``, ``reflect``, ``replicate`` or ``circular``, at every scale.
        return_winner: also return the index into ``scales`` that won at each output (``uint8``).
            Of equal outputs one wins: the first, if the scales ascend.

    Returns:
        ``[B, C_out, H', W']``, and with ``return_winner`` the winners, of the same shape.

    Raises:
        InputError: an argument does not fit, or the kernel is larger than the padded input at scale
            1 or at every scale. Where it is larger at some scales only, these are left out with a
            warning.

    Source: A. Akbari, "ImageNet Object Recognition with Scale-Invariant Deep Convolutional Neural
    Network", eq. 3–5.
    """
    if reduce not in get_args(Reduce):
        raise InputError(f"reduce must be one of {', '.join(get_args(Reduce))}, got {reduce!r}")
    window = Window.make(map_size(weight), stride, padding, dilation)
    numbers, fitting = _fitting(x, as_scales(scales), window)
    composition = Composition(window, groups, fitting, numbers, antialias, reduce, padding_mode)
    out, winner = _computed(composition, x, weight, bias, return_winner)
    return out if winner is None else (out, winner)


def pyramid_conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: Padding = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    *,
    scales: ScaleSet = (1.0, 0.5, 0.25, 0.125),
    antialias: bool = True,
    padding_mode: str = "zeros",
) -> Tensor:
    """Multi-scale features: the outputs of one small set of filters at every scale, concatenated.

    .. math:: y = \\mathrm{concat}_i\\, T_i^{-1}\\bigl(W * T_i(x) + b\\bigr)

    Args:
        x: ``[B, C_in, H, W]``.
        weight: ``[C, C_in / groups, k_h, k_w]``, shared by all S scales.
        bias: ``[C]``.
        stride, padding, dilation, groups, padding_mode, antialias: as in :func:`si_conv2d`.
        scales: in the order of the output's channel blocks.

    Returns:
        ``[B, S · C, H', W']``, level-major.

    Raises:
        InputError: an argument does not fit, or the kernel is larger than the input at some scale
            (a missing level would change the number of channels).

    Source: "Convolution over a scale pyramid", §3 step 1: the scale axis sits in the channels.
    """
    window = Window.make(map_size(weight), stride, padding, dilation)
    values = as_scales(scales)
    check_map(x, "pyramid_conv2d")
    for scale in values:
        height, width = (level_size(n, scale) for n in map_size(x))
        if not _fits(window, height, width):
            raise InputError(
                f"at scale {scale:g} the {window.kernel[0]}×{window.kernel[1]} kernel is larger than the "
                f"padded input ({tuple(x.shape[-2:])} at scale 1); use fewer levels, more padding or "
                f"a larger input"
            )

    numbers = tuple(range(len(values)))
    composition = Composition(window, groups, values, numbers, antialias, "concat", padding_mode)
    return _computed(composition, x, weight, bias)[0]


def scale_conv2d(
    x: Pyramid,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: Padding = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    *,
    scale_padding: Literal["end", "valid"] = "end",
    antialias: bool = True,
    padding_mode: str = "zeros",
) -> Pyramid:
    """Filters that extend over K neighbouring levels and slide over scale as they do over position.

    .. math:: y_s = \\sum_{k=0}^{K-1} W_k * \\mathrm{resample}(x_{s+k} \\to s) + b

    Args:
        x: pyramid of L levels, in the order in which the filter is to meet them (finest first is
            the paper's picture).
        weight: ``[C_out, C_in / groups, K, k_h, k_w]``.
        bias: ``[C_out]``.
        stride, padding, dilation, groups, padding_mode: as in :func:`si_conv2d`.
        scale_padding: ``end`` keeps all L levels (levels beyond the last count as zero); ``valid``
            keeps the L − K + 1 levels that see the whole filter.
        antialias: average where a level is brought onto a coarser one.

    Returns:
        Pyramid of L or L − K + 1 levels.

    Raises:
        InputError: ``x`` is no pyramid of maps, it has fewer than K levels under ``valid``, or
            the kernel is larger than some level.

    Source: "Convolution over a scale pyramid", §3 step 2, Fig. 5–7.
    """
    if not isinstance(x, Pyramid) or x.base is None:
        raise InputError(
            f"scale_conv2d takes a Pyramid of maps, got {type(x).__name__}; make one with "
            f"nearfar.pyramid.expand(x, scales)"
        )
    check_scale_padding(scale_padding)
    extent = int(weight.shape[2])
    count = len(x) if scale_padding == "end" else len(x) - extent + 1
    if count < 1:
        raise InputError(
            f"a filter over {extent} levels does not fit a pyramid of {len(x)}; give more scales, a "
            f"smaller scale_extent, or scale_padding='end'"
        )
    window = Window.make(map_size(weight), stride, padding, dilation)
    levels: list[Tensor] = []
    grids: list[Grid] = []
    for s in range(count):
        grid = _grid(x, s)
        if not _fits(window, grid[0].size, grid[1].size):
            raise InputError(
                f"the {window.kernel[0]}×{window.kernel[1]} kernel is larger than level {s} "
                f"{tuple(x.levels[s].shape[-2:])} with its padding; leave that scale out or pad more"
            )
        # Convolving each neighbour and adding the outputs saves stacking them, which costs more.
        total = convolve(x.levels[s], weight[:, :, 0], bias, window, groups, padding_mode)
        for k in range(1, min(extent, len(x) - s)):
            level = resample(x.levels[s + k], _grid(x, s + k), grid, antialias=antialias)
            total = total + convolve(level, weight[:, :, k], None, window, groups, padding_mode)
        levels.append(total)
        grids.append(window.apply(grid))
    return Pyramid(tuple(levels), x.scales[:count], tuple(grids), window.apply(x.base))


def _computed(
    composition: Composition,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    return_winner: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """The output, and the winner where it is asked for: by one operator where a network is compiled."""
    if not custom_ops.is_applicable(composition, x):
        return compute(composition, x, weight, bias, return_winner)
    out, winner = custom_ops.apply(composition, *cast(x, weight, bias), return_winner)
    return out, winner if return_winner else None


def _grid(x: Pyramid, i: int) -> Grid:
    grid = x.grids[i]
    assert grid is not None
    return grid


def _fitting(
    x: Tensor, scales: tuple[float, ...], window: Window
) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """The numbers and the scales that leave room for the kernel; a warning names the others."""
    check_map(x, "si_conv2d")
    height, width = map_size(x)
    sizes = [(level_size(height, s), level_size(width, s)) for s in scales]
    numbers = tuple(i for i, size in enumerate(sizes) if _fits(window, *size))
    if len(numbers) == len(scales) and _fits(window, height, width):
        return numbers, scales
    left_out = ", ".join(f"{s:g}" for i, s in enumerate(scales) if i not in numbers)
    problem = (
        f"the {window.kernel[0]}×{window.kernel[1]} kernel is larger than the padded input "
        f"({height}×{width} at scale 1) at scale {left_out or 1}"
    )
    if not numbers or not _fits(window, height, width):
        raise InputError(f"{problem}: give a larger input, more padding, or other scales")
    warnings.warn(f"{problem}; left out", stacklevel=3)
    return numbers, tuple(scales[i] for i in numbers)


def _fits(window: Window, height: int, width: int) -> bool:
    """Whether an input of this size is not empty and the kernel fits into it."""
    # Each side is asked for itself: the smaller of two open sizes would relate them.
    return all(n > 0 and window.output_size(n, a) > 0 for a, n in enumerate((height, width)))
