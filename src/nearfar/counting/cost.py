"""What one operator costs: connections, multiplications, and the weight that it multiplies with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nearfar.counting.receptive_field import Call
from nearfar.counting.table import Kind

__all__ = ["CallCost", "cost_of"]

aten: Any = torch.ops.aten


class CallCost(NamedTuple):
    """Of a layer's operator. ``connections`` are without those of the bias."""

    kind: Kind
    connections: int
    multiplications: int = 0
    weight: Tensor | None = None
    bias: Tensor | None = None


def cost_of(calls: Sequence[Call]) -> CallCost | None:
    """What a call costs, seen along rows and along columns; ``None`` if it is no layer's."""
    call, output = calls[0], calls[0].outputs[0]
    match call.func.overloadpacket.__name__:
        case "convolution":
            # A transposed convolution gives each input unit its connections, an ordinary one each output.
            units = (call["input"] if call["transposed"] else output).numel()
            size = units * math.prod(call["weight"].shape[1:])
            return CallCost("convolution", size, size, call["weight"], call["bias"])
        case "linear":
            size = output.numel() * call["weight"].shape[-1]
            return CallCost("dense", size, size, call["weight"], call["bias"])
        case "scaled_dot_product_attention":
            query, key, value = (call[name].shape for name in ("query", "key", "value"))
            pairs = math.prod(query[:-1]) * key[-2]
            return CallCost("product", 0, pairs * (query[-1] + value[-1]))
        case "mm" | "addmm" | "bmm" | "baddbmm":
            a, b = call.factors()
            size = output.numel() * a.shape[-1]
            constants = [t for t in (a, b) if call.tracked(t) is None]
            if not constants:
                return CallCost("product", 0, size)
            bias = None if a is call.input else call.input
            # By a constant matrix something is resized, say, which is not counted.
            is_parameter = all(call.is_parameter(t) for t in constants)
            return CallCost("dense", size, size, constants[-1], bias) if is_parameter else None
    reads = _pooled(calls)
    return CallCost("pool", reads) if reads else None


def _pooled(calls: Sequence[Call]) -> int:
    """What the units of a pool read, all together; 0 if it is none."""
    call, output = calls[0], calls[0].outputs[0]
    match call.func.overloadpacket.__name__:
        case "max_pool2d_with_indices" | "avg_pool2d":
            kernel = call["kernel_size"]
            return math.prod([output.numel(), *(kernel if len(kernel) == 2 else [*kernel] * 2)])
        case "_adaptive_avg_pool2d" | "adaptive_max_pool2d":
            sides = list(zip(call.input.shape[-2:], output.shape[-2:], strict=True))
            reads = [sum(-(-(j + 1) * n // m) - j * n // m for j in range(m)) for n, m in sides]
            # Where nothing changes, each unit is its own pool.
            changes = any(n != m for n, m in sides)
            return math.prod([*output.shape[:-2], *reads]) if changes else 0
        case "mean" | "amax" if call.tracked(call.input) is not None and call["dim"]:
            dims = {d % call.input.dim() for d in call["dim"] if call.input.shape[d] > 1}
            orders = [c.first.in_order() for c in calls]
            spatial = {order[0] for order in orders if order} - {None}
            pools = all(orders) and len(call["dim"]) == 2 and dims == spatial
            return call.input.numel() if pools and dims else 0
    return 0
