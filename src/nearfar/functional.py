"""The operators as functions; the layers of :mod:`nearfar.layers` hold their weights."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Literal, get_args, overload

import torch
from torch import Tensor
from torch.nn import functional as F

from nearfar import pyramid
from nearfar.errors import InputError
from nearfar.grid import Grid, Padding, Window, level_size
from nearfar.kernels import engine_for, streams
from nearfar.kernels.plan import make_level_plan, make_plan
from nearfar.kernels.side_by_side import side_by_side
from nearfar.kernels.streaming import si_max
from nearfar.pyramid import How, Pyramid, check_map, collapse, expand, resample
from nearfar.scale_sets import ScaleSet, as_scales

__all__ = ["PADDING_MODES", "Reduce", "pyramid_conv2d", "scale_conv2d", "si_conv2d"]

Reduce = Literal["max", "mean", "logsumexp"]
#: What lies outside of a map, as ``torch.nn.Conv2d`` names it.
PADDING_MODES = ("zeros", "reflect", "replicate", "circular")


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
            the filter answers to patterns half as large.
        antialias: average where a level is made smaller.
        reduce: over the scales: ``max`` as in the paper, ``mean`` or ``logsumexp``.
        padding_mode: ``zeros``, ``reflect``, ``replicate`` or ``circular``, at every scale.
        return_winner: also return the index into ``scales`` that won at each output (``uint8``).
            Of equal answers one wins: the first, if the scales ascend.

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
    window = Window.make((weight.shape[2], weight.shape[3]), stride, padding, dilation)
    values = as_scales(scales)
    kept = _fitting(x, values, window)
    shown = tuple(values[i] for i in kept)
    symmetric = all(before == after for before, after in window.padding)
    fast = reduce == "max" and len(kept) > 1 and padding_mode == "zeros" and symmetric
    if fast and streams(x, weight):
        x, weight, bias = _cast(x, weight, bias)
        engine, rates = engine_for(x)
        channels = (int(x.shape[1]), int(weight.shape[0]), groups)
        size = (int(x.shape[2]), int(x.shape[3]))
        plan = make_plan(size, shown, window, channels, antialias, rates)
        fast = plan.pays(int(x.shape[0]), int(weight.shape[0]))
    else:
        fast = False
    out: Tensor
    winner: Tensor | None
    if fast:

        def again(x: Tensor, weight: Tensor) -> Tensor:
            return _composed(x, weight, None, window, groups, shown, antialias, "max", "zeros")[0]

        out, winner = si_max(x, weight, bias, plan, engine, again, return_winner)
    else:
        out, winner = _composed(
            x, weight, bias, window, groups, shown, antialias, reduce, padding_mode, return_winner
        )
    if not return_winner:
        return out
    assert winner is not None
    if len(kept) < len(values):
        winner = torch.tensor(kept, dtype=torch.uint8, device=winner.device)[winner.long()]
    return out, winner


def _composed(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    window: Window,
    groups: int,
    scales: tuple[float, ...],
    antialias: bool,
    how: How,
    padding_mode: str,
    return_winner: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """A layer as the algebra says it: collapse ∘ map ∘ expand. The fast paths' reference."""
    seen = expand(x, scales, antialias=antialias)
    slide = _slide(weight, bias, window, groups, padding_mode)
    answers = pyramid.map(slide, seen, window=window)
    if return_winner:
        return collapse(answers, how, return_winner=True)
    return collapse(answers, how), None


def _cast(x: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """Under autocast, what a convolution's arguments would be cast to."""
    if not torch.is_autocast_enabled(x.device.type):
        return x, weight, bias
    dtype = torch.get_autocast_dtype(x.device.type)
    return x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)


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
    """Multi-scale features: the answers of one small set of filters at every scale, side by side.

    .. math:: y = \\mathrm{concat}_i\\, T_i^{-1}\\bigl(W * T_i(x) + b\\bigr)

    Args:
        x: ``[B, C_in, H, W]``.
        weight: ``[C, C_in / groups, k_h, k_w]``, shared by all S scales.
        bias: ``[C]``.
        stride, padding, dilation, groups, padding_mode, antialias: as in :func:`si_conv2d`.
        scales: the scales seen, in the order of the output's channel blocks.

    Returns:
        ``[B, S · C, H', W']``, level-major.

    Raises:
        InputError: an argument does not fit, or the kernel is larger than the input at some scale
            (a missing level would change the number of channels).

    Source: "Convolution over a scale pyramid", §3 step 1: the scale axis sits in the channels.
    """
    window = Window.make((weight.shape[2], weight.shape[3]), stride, padding, dilation)
    values = as_scales(scales)
    check_map(x, "pyramid_conv2d")
    for scale in values:
        height, width = (level_size(n, scale) for n in x.shape[-2:])
        if not _fits(window, height, width):
            raise InputError(
                f"at scale {scale:g} the {window.kernel[0]}×{window.kernel[1]} kernel is larger than the "
                f"padded input ({tuple(x.shape[-2:])} at scale 1); use fewer levels, more padding or "
                f"a larger input"
            )

    symmetric = all(before == after for before, after in window.padding)
    if len(values) > 1 and padding_mode == "zeros" and symmetric and streams(x, weight):
        x, weight, bias = _cast(x, weight, bias)

        def again(x: Tensor, weight: Tensor) -> Tensor:
            return _composed(x, weight, None, window, groups, values, antialias, "concat", "zeros")[
                0
            ]

        engine, rates = engine_for(x)
        size = (int(x.shape[2]), int(x.shape[3]))
        plan = make_level_plan(size, values, window, groups, antialias, rates)
        if plan.pays(int(x.shape[0]), int(weight.shape[0]) * len(values)):
            out = side_by_side(x, weight, plan, engine, again)
            return out if bias is None else out + bias.repeat(len(values))[:, None, None]
    return _composed(x, weight, bias, window, groups, values, antialias, "concat", padding_mode)[0]


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
    """Filters that extend over K neighbouring levels and slide over scale as they do over place.

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
        InputError: ``x`` is no pyramid with places, it has fewer than K levels under ``valid``, or
            the kernel is larger than some level.

    Source: "Convolution over a scale pyramid", §3 step 2, Fig. 5–7.
    """
    if not isinstance(x, Pyramid) or x.base is None:
        raise InputError(
            f"scale_conv2d takes a Pyramid of maps, got {type(x).__name__}; make one with "
            f"nearfar.pyramid.expand(x, scales)"
        )
    if scale_padding not in ("end", "valid"):
        raise InputError(f"scale_padding must be 'end' or 'valid', got {scale_padding!r}")
    extent = int(weight.shape[2])
    kept = len(x) if scale_padding == "end" else len(x) - extent + 1
    if kept < 1:
        raise InputError(
            f"a filter over {extent} levels does not fit a pyramid of {len(x)}; give more scales, a "
            f"smaller scale_extent, or scale_padding='end'"
        )
    window = Window.make((weight.shape[3], weight.shape[4]), stride, padding, dilation)
    levels: list[Tensor] = []
    grids: list[Grid] = []
    for s in range(kept):
        grid = x.grids[s]
        assert grid is not None
        if not _fits(window, grid[0].size, grid[1].size):
            raise InputError(
                f"the {window.kernel[0]}×{window.kernel[1]} kernel is larger than level {s} "
                f"{tuple(x.levels[s].shape[-2:])} with its padding; leave that scale out or pad more"
            )
        reach = min(extent, len(x) - s)
        # Convolving each neighbour and adding the answers saves stacking them, which costs more.
        total = _slide(weight[:, :, 0], bias, window, groups, padding_mode)(x.levels[s])
        for k in range(1, reach):
            seen = resample(x.levels[s + k], _grid(x, s + k), grid, antialias=antialias)
            total = total + _slide(weight[:, :, k], None, window, groups, padding_mode)(seen)
        levels.append(total)
        grids.append(window.apply(grid))
    return Pyramid(tuple(levels), x.scales[:kept], tuple(grids), window.apply(x.base))


def _slide(
    weight: Tensor, bias: Tensor | None, window: Window, groups: int, padding_mode: str
) -> Callable[[Tensor], Tensor]:
    """The plain convolution as a function of one level."""

    def convolve(level: Tensor) -> Tensor:
        padded, rest = _pad(level, window, padding_mode)
        return F.conv2d(padded, weight, bias, window.stride, rest, window.dilation, groups)

    return convolve


def _grid(x: Pyramid, i: int) -> Grid:
    grid = x.grids[i]
    assert grid is not None
    return grid


def _fitting(x: Tensor, scales: tuple[float, ...], window: Window) -> list[int]:
    """Which scales leave room for the kernel; a warning names the others."""
    check_map(x, "si_conv2d")
    height, width = x.shape[-2:]
    sizes = [(level_size(height, s), level_size(width, s)) for s in scales]
    fits = [_fits(window, h, w) for h, w in sizes]
    kept = [i for i, ok in enumerate(fits) if ok]
    if len(kept) == len(scales) and _fits(window, height, width):
        return kept
    left_out = ", ".join(f"{s:g}" for s, ok in zip(scales, fits, strict=True) if not ok)
    what = (
        f"the {window.kernel[0]}×{window.kernel[1]} kernel is larger than the padded input "
        f"({height}×{width} at scale 1) at scale {left_out or 1}"
    )
    if not kept or not _fits(window, height, width):
        raise InputError(f"{what}: give a larger input, more padding, or other scales")
    warnings.warn(f"{what}; left out", stacklevel=3)
    return kept


def _fits(window: Window, height: int, width: int) -> bool:
    """Whether an input of this size is not empty and the kernel fits into it."""
    # Each side is asked for itself: the smaller of two open sizes would relate them.
    return all(n > 0 and window.output_size(n, a) > 0 for a, n in enumerate((height, width)))


def _pad(x: Tensor, window: Window, mode: str) -> tuple[Tensor, tuple[int, int]]:
    """Pads ``x`` as far as the convolution itself cannot; returns what is left for it to pad."""
    if mode not in PADDING_MODES:
        raise InputError(f"padding_mode must be one of {', '.join(PADDING_MODES)}, got {mode!r}")
    (top, bottom), (left, right) = window.padding
    if mode == "zeros" and top == bottom and left == right:
        return x, (top, left)
    if mode == "zeros":
        return F.pad(x, (left, right, top, bottom)), (0, 0)
    limits = {"reflect": -1, "circular": 0}
    if mode in limits and (
        max(top, bottom) > x.shape[-2] + limits[mode]
        or max(left, right) > x.shape[-1] + limits[mode]
    ):
        raise InputError(
            f"padding_mode={mode!r} cannot pad a level of {tuple(x.shape[-2:])} by "
            f"{window.padding}; leave small scales out, or use 'zeros' or 'replicate'"
        )
    return F.pad(x, (left, right, top, bottom), mode=mode), (0, 0)
