"""The maximum over several maps, and which of them holds it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["maximum"]


def maximum(levels: list[Tensor]) -> tuple[Tensor, Tensor]:
    """The largest value at each place, and the level that holds it; of equal ones the first.

    Args:
        levels: of one shape; not a number counts as largest.

    Returns:
        The values, and uint8 ranks, which have no gradient.
    """
    if torch.compiler.is_dynamo_compiling():  # which cannot follow a function with its own jvp
        best, winner = levels[0], torch.zeros_like(levels[0], dtype=torch.uint8)
        for i, level in enumerate(levels[1:], start=1):
            better = (level > best) | level.isnan()
            best, winner = torch.where(better, level, best), winner.masked_fill(better, i)
        return best, winner
    found: tuple[Tensor, Tensor] = _Maximum.apply(*levels)
    return found


class _Maximum(torch.autograd.Function):
    """The running maximum over levels, and the level that holds it.

    For the backward pass it keeps one byte an element, the winner, where differentiating through a
    chain of ``torch.maximum`` would keep every level, and would split the gradient of a tie.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(*levels: Tensor) -> tuple[Tensor, Tensor]:
        best = levels[0]
        winner = torch.zeros_like(best, dtype=torch.uint8)
        for i, level in enumerate(levels[1:], start=1):
            winner.masked_fill_((level > best) | level.isnan(), i)
            best = torch.maximum(best, level)
        return best.clone() if best is levels[0] else best, winner

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.levels = len(inputs)
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(output[1])
        ctx.save_for_forward(output[1])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor, ...]:
        (winner,) = ctx.saved_tensors
        # A product, because masked_fill would leave the channels-last layout.
        return tuple(gradient * (winner == i) for i in range(ctx.levels))

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> tuple[Tensor, None]:
        (winner,) = ctx.saved_tensors
        moved = [t * (winner == i) for i, t in enumerate(tangents) if t is not None]
        return torch.stack(moved).sum(dim=0), None
