"""What products of matrices see: dense layers, attention, and resizing by matrices."""

from __future__ import annotations

from typing import Any

import torch

from nearfar.counting.calls import Answer, Call, Rule, unknown
from nearfar.counting.seen import Factor, Seen, pointwise
from nearfar.counting.sight import Lost

__all__ = ["PRODUCTS", "operands"]

aten: Any = torch.ops.aten


def operands(call: Call) -> tuple[Any, Any]:
    """The two factors of a product of matrices."""
    names = list(call.arguments)
    first, second = ("mat1", "mat2") if "mat1" in names else ("batch1", "batch2")
    if first not in names:
        first, second = "self", "mat2"
    return call[first], call[second]


def _dense(call: Call) -> Answer:
    if call.seen(call["weight"]) is not None:  # weights made from the image
        return Seen.nowhere(call.shape, Lost.WHOLE)
    seen = call.first.mixed(len(call.first.dims) - 1)
    return seen.with_dims([*seen.dims[:-1], (Factor(call.shape[-1]),)])


def _product(call: Call) -> Answer:
    """``[…, m, k] · […, k, n]``: every output reads all of k."""
    a, b = operands(call)
    one, other = call.seen(a), call.seen(b)
    extra = [s for s in [call.seen(call.arguments.get("self"))] if s is not None]
    added = extra if a is not call.arguments.get("self") else []
    if one is not None and other is not None:
        return pointwise([_attention(one, other, call), *added], call.shape)
    if one is None and other is None:
        return pointwise(added, call.shape) if added else unknown(call)
    seen, dim, partner = (one, -1, b) if one is not None else (other, -2, a)
    assert seen is not None
    dim %= len(seen.dims)
    # A dense layer reads all along k. A constant matrix may read but little: it resizes, say.
    if call.learnt(partner):
        seen = seen.mixed(dim)
        dims = list(seen.dims)
        dims[dim] = (Factor(call.shape[dim]),)
        seen = seen.with_dims(dims)
    else:
        seen = seen.blurred(dim, call.shape[dim])
    return pointwise([seen, *added], call.shape)


def _attention(one: Seen, other: Seen, call: Call) -> Seen:
    """Of two maps. What both carry into the product is soon seen by every unit.

    Unless the axis runs through the batch too: windows, whose units see their own window alone.
    """
    last = len(call.shape) - 1
    one, other = one.mixed(last), other.mixed(last - 1)
    both = one.axes_in(last - 1) & other.axes_in(last)
    windows = {axis for dim in range(last - 1) for axis in one.axes_in(dim)} & both
    one, other = one.lost(windows, Lost.UNKNOWN), other.lost(windows, Lost.UNKNOWN)
    other = other.with_dims([*other.dims[:last], _without_axes(other.dims[last], windows)])
    one, other = one.lost(both - windows, Lost.WHOLE), other.lost(both - windows, Lost.WHOLE)
    one = one.with_dims([*one.dims[:-1], (Factor(call.shape[-1]),)])
    other = other.with_dims([*other.dims[:-2], (Factor(call.shape[-2]),), other.dims[-1]])
    return pointwise([one, other], call.shape)


def _without_axes(dim: tuple[Factor, ...], axes: set[int]) -> tuple[Factor, ...]:
    return tuple(factor._replace(axes=factor.axes - axes) for factor in dim)


def _attended(call: Call) -> Answer:
    """``scaled_dot_product_attention``: each query reads every key and value."""
    parts = []
    for name in ("query", "key", "value"):
        seen = call.seen(call[name])
        if seen is None:
            continue
        rank = len(seen.dims)
        places = [rank - 1] if name == "query" else [rank - 2, rank - 1]
        for dim in places:
            seen = seen.mixed(dim)
        dims = [*seen.dims[:-1], (Factor(call.shape[-1]),)]
        if name != "query":
            dims[-2] = (Factor(call.shape[-2]),)
        parts.append(seen.with_dims(dims))
    return pointwise(parts, call.shape)


PRODUCTS: dict[Any, Rule] = {
    aten.linear: _dense,
    **dict.fromkeys((aten.mm, aten.bmm, aten.addmm, aten.baddbmm), _product),
    aten.scaled_dot_product_attention: _attended,
}
