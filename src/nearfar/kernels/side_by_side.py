"""A pyramid layer's answers, each scale restored straight into its own block of output channels.

The composition keeps every level for the backward pass, restores every answer into a map of its own and
then copies all of them together. This keeps the input alone.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from nearfar.kernels.layout import is_channels_last
from nearfar.kernels.plan import Level, Plan
from nearfar.kernels.room import Room
from nearfar.kernels.sharing import each_share
from nearfar.kernels.streaming import (
    again_or_none,
    answer_of,
    answer_of_adjoint,
    level_of,
    level_of_adjoint,
    portions,
)

__all__ = ["side_by_side"]


def side_by_side(
    x: Tensor,
    weight: Tensor,
    plan: Plan,
    engine: ModuleType,
    again: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    """The answers of all scales, level-major, without bias; see :func:`nearfar.functional.pyramid_conv2d`.

    Args:
        x: ``[B, C_in, H, W]``, any layout; the result is laid out as a convolution's is.
        weight: ``[C, C_in / groups, k_h, k_w]``.
        plan: geometry; every scale by its level.
        engine: what restores maps.
        again: the same as a differentiable composition, for second derivatives.
    """
    last = is_channels_last(x, weight)
    here = x.contiguous(memory_format=torch.channels_last)
    out: Tensor = _SideBySide.apply(here, weight.contiguous(), plan, engine, again)
    return out if last else out.contiguous()


class _SideBySide(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        plan: Plan,
        engine: ModuleType,
        again: Callable[[Tensor, Tensor], Tensor],
    ) -> Tensor:
        rows, columns = plan.target
        shape = (x.shape[0], len(plan.levels) * weight.shape[0], rows.size, columns.size)
        out = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)

        def share(images: slice) -> None:
            room = Room()
            here, best = x[images].permute(0, 2, 3, 1), out[images].permute(0, 2, 3, 1)
            for part in portions(out[images]):
                for level, block in _blocks(plan, weight):
                    answer = answer_of(level_of(here[part], level, plan), weight, plan)
                    mine = best[part][..., block]
                    if level.seen == plan.target:
                        mine.copy_(answer.permute(0, 2, 3, 1))
                        continue
                    maps = answer.permute(2, 0, 3, 1)[None, :, :, :, None]
                    engine.combine(maps, level.rows, level.columns, mine, None, 0, room)

        each_share(share, x.shape[0], x.device)
        ctx.plan, ctx.engine, ctx.again = plan, engine, again
        ctx.save_for_backward(x, weight)
        return out

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        nothing = (None, None, None)
        if (found := again_or_none(ctx, x, weight, g)) is not None:
            return *found, *nothing
        plan, engine = ctx.plan, ctx.engine
        gx = torch.zeros_like(x) if ctx.needs_input_grad[0] else None
        g = g.contiguous(memory_format=torch.channels_last)
        # Every output is of rank 0: the scales do not compete.
        everyone = torch.zeros_like(g, dtype=torch.uint8)

        def share(images: slice) -> Tensor | None:
            room = Room()
            gw = torch.zeros_like(weight) if ctx.needs_input_grad[1] else None
            into = None if gx is None else gx[images].permute(0, 2, 3, 1)
            here, back, won = (t[images].permute(0, 2, 3, 1) for t in (x, g, everyone))
            for part in portions(g[images]):
                for level, block in _blocks(plan, weight):
                    seen = level_of(here[part], level, plan)
                    shape = (seen.shape[0], level.seen[0].size, level.seen[1].size)
                    answer = room.take("level", (*shape, weight.shape[0]), x)
                    mine = back[part][..., block]
                    if level.seen == plan.target:
                        answer.copy_(mine)
                    else:
                        maps = answer.transpose(0, 1)[None, :, :, :, None]
                        of = won[part][..., block]
                        engine.spread(mine, of, level.rows, level.columns, 0, maps, room)
                    wanted = (into is not None, gw is not None)
                    gl, gk = answer_of_adjoint(answer, seen, weight, plan, wanted)
                    if into is not None:
                        into[part] += level_of_adjoint(gl, level, plan)
                    if gw is not None:
                        gw += gk
            return gw

        shares = [gw for gw in each_share(share, x.shape[0], x.device) if gw is not None]
        return gx, torch.stack(shares).sum(dim=0) if shares else None, *nothing


def _blocks(plan: Plan, weight: Tensor) -> list[tuple[Level, slice]]:
    """Each level and its block of output channels."""
    width = weight.shape[0]
    return [(level, slice(i * width, (i + 1) * width)) for i, level in enumerate(plan.levels)]
