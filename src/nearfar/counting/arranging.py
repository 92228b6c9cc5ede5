"""What is seen after units are put elsewhere: views, permutations, slices, padding, concatenation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from nearfar.counting.calls import Answer, Call, Rule, numbers
from nearfar.counting.seen import Factor, Seen, joined, plain, pointwise, viewed
from nearfar.counting.sight import Sight

__all__ = ["ARRANGING"]

aten: Any = torch.ops.aten


def _padded(call: Call) -> Answer:
    seen = call.first
    pads = call.arguments.get("pad") or call["padding"]
    for n, (before, after) in enumerate(zip(pads[::2], pads[1::2], strict=True)):
        if before or after:
            dim = len(seen.dims) - 1 - n
            seen = _sliced(seen, dim, -before, 1, call.shape[dim])
    return seen


def _sliced(seen: Seen, dim: int, start: int, step: int, size: int) -> Seen:
    if any(seen.placed(axis) == dim for axis in seen.axes_in(dim)):
        return seen.resized(dim, size, lambda view: view.slid(1, step, -start, 1, size))
    return seen.cut(dim, size)


def _slice(call: Call) -> Answer:
    seen = call.first
    dim = call["dim"] % len(seen.dims)
    length = int(call["self"].shape[dim])
    start, _, step = slice(call["start"], call["end"], call["step"]).indices(length)
    if (start, step, call.shape[dim]) == (0, 1, length):
        return seen
    return _sliced(seen, dim, start, step, call.shape[dim])


def _pieces(sizes: Sequence[int], call: Call) -> Answer:
    dim = call["dim"] % len(call.first.dims)
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    return [_sliced(call.first, dim, a, 1, n) for a, n in zip(starts, sizes, strict=True)]


def _split(call: Call) -> Answer:
    length, part = int(call["self"].shape[call["dim"]]), call["split_size"]
    return _pieces([min(part, length - a) for a in range(0, max(length, 1), part)], call)


def _select(seen: Seen, dim: int, index: int) -> Seen:
    found = seen
    for axis in seen.axes_in(dim):
        view = seen.views[axis]
        if seen.placed(axis) == dim and isinstance(view, Sight):
            found = found.with_view(axis, view.fixed(index))
    return found.with_dims([d for i, d in enumerate(found.dims) if i != dim])


def _selected(call: Call) -> Answer:
    dim = call["dim"] % len(call.first.dims)
    return _select(call.first, dim, call["index"] % int(call["self"].shape[dim]))


def _unbound(call: Call) -> Answer:
    dim = call["dim"] % len(call.first.dims)
    return [_select(call.first, dim, i) for i in range(int(call["self"].shape[dim]))]


def _permuted(call: Call) -> Answer:
    dims = call.first.dims
    return call.first.with_dims([dims[d % len(dims)] for d in call["dims"]])


def _transposed(call: Call) -> Answer:
    dims = list(call.first.dims)
    if len(dims) > 1:
        a, b = call.arguments.get("dim0", 0), call.arguments.get("dim1", 1)
        dims[a], dims[b] = dims[b], dims[a]
    return call.first.with_dims(dims)


def _unsqueezed(call: Call) -> Answer:
    dims = list(call.first.dims)
    dims.insert(call["dim"] % (len(dims) + 1), (Factor(1),))
    return call.first.with_dims(dims)


def _squeezed(call: Call) -> Answer:
    shape = call["self"].shape
    given = call.arguments.get("dim")
    dims = range(len(shape)) if given is None else numbers(given, 1)
    gone = {d % len(shape) for d in dims if shape[d] == 1}
    return call.first.with_dims([d for i, d in enumerate(call.first.dims) if i not in gone])


def _joined(call: Call) -> Answer:
    found = [s for t in call["tensors"] if (s := call.seen(t)) is not None]
    dim = call["dim"] % len(call.shape)
    total = joined(found, dim, call.shape)
    apart = len(found) < len(call["tensors"]) and total.axes_in(dim)
    return total.shuffled(dim) if apart else total


def _stacked(call: Call) -> Answer:
    found = [s for t in call["tensors"] if (s := call.seen(t)) is not None]
    dim = call["dim"] % len(call.shape)
    total = pointwise(found, tuple(call["tensors"][0].shape))
    dims = list(total.dims)
    dims.insert(dim, (Factor(call.shape[dim]),))
    return total.with_dims(dims)


def _repeated(call: Call) -> Answer:
    lead = len(call.shape) - len(call.first.dims)
    seen = call.first.with_dims([*plain(call.shape[:lead]), *call.first.dims])
    for dim, times in enumerate(call["repeats"]):
        if times != 1:
            seen = seen.cut(dim, call.shape[dim])
    return seen


def _rolled(call: Call) -> Answer:
    seen = call.first
    for dim in numbers(call["dims"], 1):
        seen = seen.shuffled(dim % len(seen.dims))
    return seen


def _picked(call: Call) -> Answer:
    dim = call["dim"] % len(call.first.dims)
    return call.first.cut(dim, call.shape[dim])


def _viewed(call: Call) -> Answer:
    return viewed(call.first, call.shape)


ARRANGING: dict[Any, Rule] = {
    **dict.fromkeys((aten.view, aten._unsafe_view, aten._reshape_alias), _viewed),
    **dict.fromkeys((aten.constant_pad_nd, aten.reflection_pad2d, aten.replication_pad2d), _padded),
    aten.slice: _slice,
    aten.split: _split,
    aten.split_with_sizes: lambda call: _pieces(call["split_sizes"], call),
    aten.select: _selected,
    aten.unbind: _unbound,
    aten.permute: _permuted,
    **dict.fromkeys((aten.transpose, aten.t), _transposed),
    aten.unsqueeze: _unsqueezed,
    aten.squeeze: _squeezed,
    aten.cat: _joined,
    aten.stack: _stacked,
    aten.repeat: _repeated,
    **dict.fromkeys((aten.roll, aten.flip), _rolled),
    aten.index_select: _picked,
}
