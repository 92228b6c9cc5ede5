"""What comes out of windows, sums over places and whatever acts on each place alone.

A rule answers for a :class:`nearfar.counting.calls.Call` with what the output's units see. Operators that
torch itself marks as pointwise need none; what has none is decomposed, and what cannot be decomposed is
not followed any further.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from nearfar.counting.calls import Answer, Call, Rule, everywhere, numbers, unknown
from nearfar.counting.seen import Factor, Seen
from nearfar.counting.sight import Sight

__all__ = ["CONSTANTS", "OPERATORS"]

aten: Any = torch.ops.aten

#: What takes its size from a map and nothing else.
CONSTANTS = {
    *(aten.zeros_like, aten.ones_like, aten.empty_like, aten.full_like, aten.rand_like),
    *(aten.new_zeros, aten.new_ones, aten.new_empty, aten.new_full, aten.bernoulli),
}


def normalised(call: Call) -> Seen:
    """Statistics are not taken for sight."""
    return call.first


def _window(call: Call, kernel: Sequence[int], move: Callable[..., Sight], still: bool) -> Seen:
    """A window of ``len(kernel)`` dimensions that slides over the last ones."""
    seen = call.first
    rank = len(seen.dims)
    for n in range(len(kernel)):
        dim = rank - len(kernel) + n
        size = call.shape[dim]
        if not (still and kernel[n] == 1):
            seen = seen.resized(dim, size, partial(move, n=n, size=size))
    return seen


def _convolution(call: Call) -> Answer:
    rank = call["weight"].dim() - 2
    kernel = list(call["weight"].shape[2:])
    stride, padding, dilation = (
        numbers(call[name], rank) for name in ("stride", "padding", "dilation")
    )

    def move(view: Sight, n: int, size: int) -> Sight:
        slide = view.spread if call["transposed"] else view.slid
        return slide(kernel[n], stride[n], padding[n], dilation[n], size)

    if call.seen(call["input"]) is None:  # a map as the filter of something else
        return unknown(call)
    seen = _window(call, kernel, move, _still(stride, padding))
    channels = len(seen.dims) - rank - 1
    seen = seen.mixed(channels)
    dims = list(seen.dims)
    dims[channels] = (Factor(call.shape[channels]),)
    return seen.with_dims(dims)


def _pool(call: Call, rank: int = 2) -> Answer:
    kernel = numbers(call["kernel_size"], rank)
    stride = numbers(call["stride"], rank, kernel)
    padding = numbers(call["padding"], rank)
    dilation = numbers(call.arguments.get("dilation", 1), rank)

    def move(view: Sight, n: int, size: int) -> Sight:
        return view.slid(kernel[n], stride[n], padding[n], dilation[n], size)

    return _window(call, kernel, move, _still(stride, padding))


def _still(stride: Sequence[int], padding: Sequence[int]) -> bool:
    """Whether a window of one unit leaves every unit where it is."""
    return all(s == 1 for s in stride) and not any(padding)


def _adaptive(call: Call) -> Answer:
    seen = call.first
    old = tuple(call["self"].shape[-2:])
    for n in (0, 1):
        if call.shape[n - 2] == 1:
            seen = seen.mixed(len(seen.dims) + n - 2)
    return _window(
        Call({"self": call["self"]}, call.output, lambda _: seen, call.learnt),
        (2, 2),
        lambda view, n, size: view.shared_out(int(old[n]), size),
        False,
    )


def _reduced(call: Call) -> Answer:
    rank = len(call.first.dims)
    given = call.arguments.get("dim")
    dims = range(rank) if given is None or given == [] else numbers(given, 1)
    gone = {d % rank for d in dims} if rank else set()
    seen = call.first
    for d in gone:
        seen = seen.mixed(d)
    keep = call.arguments.get("keepdim", False)
    return seen.with_dims(
        [
            (Factor(1),) if d in gone else dim
            for d, dim in enumerate(seen.dims)
            if keep or d not in gone
        ]
    )


def _along(call: Call) -> Answer:
    """Every unit reads all along one dimension, which stays: softmax, sums, sorting."""
    seen = call.first
    dim = call["dim"] % len(seen.dims)
    return seen.mixed(dim)


OPERATORS: dict[Any, Rule] = {
    aten.convolution: _convolution,
    **dict.fromkeys((aten.max_pool2d_with_indices, aten.avg_pool2d), _pool),
    # Of three dimensions the first may be the channels: local response normalisation is made so.
    aten.avg_pool3d: partial(_pool, rank=3),
    **dict.fromkeys((aten._adaptive_avg_pool2d, aten.adaptive_max_pool2d), _adaptive),
    **dict.fromkeys(
        (
            *(aten.mean, aten.sum, aten.amax, aten.amin, aten.max, aten.min, aten.logsumexp),
            *(aten.var, aten.std, aten.var_mean, aten.std_mean, aten.prod, aten.any, aten.all),
            *(aten.linalg_vector_norm, aten.norm, aten.argmax, aten.argmin),
        ),
        _reduced,
    ),
    **dict.fromkeys(
        (aten._softmax, aten._log_softmax, aten._safe_softmax, aten.cumsum, aten.sort, aten.topk),
        _along,
    ),
    **dict.fromkeys(
        (
            *(aten.native_batch_norm, aten._native_batch_norm_legit_no_training),
            *(aten._native_batch_norm_legit, aten.native_layer_norm, aten.native_group_norm),
            *(aten.instance_norm, aten._fused_rms_norm, aten.rms_norm),
        ),
        normalised,
    ),
    **dict.fromkeys(
        (
            *(aten.clone, aten._to_copy, aten.detach, aten.alias, aten.copy_, aten.expand),
            *(aten.lift_fresh, aten.dropout, aten.native_dropout, aten.positive),
            # Pointwise, though torch does not mark them so.
            *(aten.hardswish, aten.hardswish_, aten._prelu_kernel, aten.rrelu_with_noise),
        ),
        everywhere,
    ),
}
