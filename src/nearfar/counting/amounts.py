"""How much one operator is: connections, multiplications, and what it multiplies with."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nearfar.counting.calls import Call, numbers
from nearfar.counting.products import operands
from nearfar.counting.table import Kind

__all__ = ["Amount", "amount_of"]

aten: Any = torch.ops.aten


@dataclass(frozen=True)
class Amount:
    """What a layer's operator comes to.

    Attributes:
        kind: of the layer.
        connections: without those of the bias.
        multiplications: as defined; 0 for pools.
        weight: what it multiplies its input with.
        bias: what it adds.
    """

    kind: Kind
    connections: int
    multiplications: int
    weight: Tensor | None = None
    bias: Tensor | None = None


def amount_of(packet: Any, call: Call) -> Amount | None:
    """What an operator comes to; ``None`` if it is no layer's.

    Args:
        packet: the operator, as ``torch.ops.aten.convolution``.
        call: how it was called.
    """
    if packet is aten.convolution:
        return _convolution(call)
    if packet is aten.linear:
        weight = call["weight"]
        size = call.output.numel() * int(weight.shape[-1])
        return Amount("dense", size, size, weight, call["bias"])
    if packet in (aten.mm, aten.addmm, aten.bmm, aten.baddbmm):
        return _product(packet, call)
    if packet is aten.scaled_dot_product_attention:
        query, key, value = (call[name].shape for name in ("query", "key", "value"))
        pairs = math.prod(query[:-1]) * int(key[-2])
        return Amount("product", 0, pairs * (int(query[-1]) + int(value[-1])))
    windows = _windows(packet, call)
    return None if windows is None else Amount("pool", windows, 0)


def _convolution(call: Call) -> Amount:
    weight: Tensor = call["weight"]
    # A transposed convolution gives each input unit its connections, an ordinary one each output.
    units = call["input"] if call["transposed"] else call.output
    size = units.numel() * math.prod(int(n) for n in weight.shape[1:])
    return Amount("convolution", size, size, weight, call["bias"])


def _product(packet: Any, call: Call) -> Amount | None:
    a, b = operands(call)
    size = call.output.numel() * int(a.shape[-1])
    constant = [not call.learnt(t) and call.seen(t) is None for t in (a, b)]
    if any(constant):
        return None  # a reading matrix: resizing is not counted
    bias = call["self"] if packet in (aten.addmm, aten.baddbmm) else None
    if call.seen(a) is not None and call.seen(b) is not None:
        return Amount("product", 0, size)
    weight = b if call.seen(b) is None else a
    return Amount("dense", size, size, weight, bias)


def _windows(packet: Any, call: Call) -> int | None:
    """What the units of a pool read, all together."""
    if packet in (aten.max_pool2d_with_indices, aten.avg_pool2d):
        return call.output.numel() * math.prod(numbers(call["kernel_size"], 2))
    if packet in (aten._adaptive_avg_pool2d, aten.adaptive_max_pool2d):
        old, new = call["self"].shape[-2:], call.shape[-2:]
        if old == new:  # each unit is its own pool
            return None
        sides: list[int] = [
            sum(-(-(j + 1) * n // m) - j * n // m for j in range(m))
            for n, m in zip(old, new, strict=True)
        ]
        return math.prod(call.shape[:-2]) * math.prod(sides)
    if packet in (aten.mean, aten.amax):
        seen, dims = call.seen(call["self"]), call["dim"] or []
        if seen is None or len(dims) != 2:
            return None
        over = {d % len(seen.dims) for d in dims}
        places = call["self"].numel() // call.output.numel()
        if {seen.placed(0), seen.placed(1)} == over and places > 1:
            return int(call["self"].numel())
    return None
