"""A pyramid layer's outputs, each scale restored straight into its own block of output channels.

The composition stores every level for the backward pass, restores every output into a map of its own and
then copies all of them together. This stores the input alone.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from nearfar.kernels.levels import (
    convolve,
    convolve_adjoint,
    differentiable_gradients,
    is_channels_last,
    is_finite,
    output_as_defined,
    portions,
    rescale,
    rescale_adjoint,
)
from nearfar.kernels.plan import Level, SIPlan
from nearfar.kernels.workspace import Workspace, map_batch

__all__ = ["pyramid_concat"]


def pyramid_concat(
    x: Tensor, weight: Tensor, bias: Tensor | None, plan: SIPlan, engine: ModuleType
) -> Tensor:
    """The outputs of all scales, level-major; see :func:`nearfar.functional.pyramid_conv2d`.

    What is not finite is computed as the composition defines it, as in
    :func:`nearfar.kernels.si_max.si_max`.

    Args:
        x: ``[B, C_in, H, W]``, any layout; the result is laid out as a convolution's is.
        weight: ``[C, C_in / groups, k_h, k_w]``.
        bias: ``[C]``.
        plan: how it is computed; every scale by its level.
        engine: what restores maps.
    """
    x_last = x.contiguous(memory_format=torch.channels_last)
    out: Tensor = _PyramidConcat.apply(x_last, weight.contiguous(), plan, engine)
    if not is_finite(out):
        defined: Tensor = output_as_defined(x, weight, bias, plan)
        return defined
    out = out if is_channels_last(x, weight) else out.contiguous()
    return out if bias is None else out + bias.repeat(len(plan.levels))[:, None, None]


class _PyramidConcat(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, plan: SIPlan, engine: ModuleType) -> Tensor:
        rows, columns = plan.target
        shape = (x.shape[0], len(plan.levels) * weight.shape[0], rows.size, columns.size)
        out = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)

        def some_images(images: slice) -> None:
            workspace = Workspace()
            x_part, out_part = x[images].permute(0, 2, 3, 1), out[images].permute(0, 2, 3, 1)
            for part in portions(out[images]):
                for level, block in _blocks(plan, weight):
                    y = convolve(rescale(x_part[part], level, plan), weight, plan)
                    target = out_part[part][..., block]
                    if level.outputs == plan.target:
                        target.copy_(y.permute(0, 2, 3, 1))
                        continue
                    maps = y.permute(2, 0, 3, 1)[None, :, :, :, None]
                    engine.combine(maps, level.rows, level.columns, target, None, 0, workspace)

        map_batch(some_images, x.shape[0], x.device)
        ctx.plan, ctx.engine = plan, engine
        ctx.save_for_backward(x, weight)
        return out

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        plan, engine = ctx.plan, ctx.engine
        if torch.is_grad_enabled():  # with create_graph=True
            return *differentiable_gradients(ctx, plan, x, weight, g), None, None
        gx = torch.zeros_like(x) if ctx.needs_input_grad[0] else None
        g = g.contiguous(memory_format=torch.channels_last)
        # Every output is of rank 0: the scales do not compete.
        rank = torch.zeros_like(g, dtype=torch.uint8)
        needed = (gx is not None, bool(ctx.needs_input_grad[1]))

        def some_images(images: slice) -> Tensor | None:
            workspace = Workspace()
            gw = torch.zeros_like(weight) if needed[1] else None
            gx_part = None if gx is None else gx[images].permute(0, 2, 3, 1)
            x_part, g_part, won = (t[images].permute(0, 2, 3, 1) for t in (x, g, rank))
            for part in portions(g[images]):
                for level, block in _blocks(plan, weight):
                    x_level = rescale(x_part[part], level, plan)
                    height, width = (axis.size for axis in level.outputs)
                    shape = (x_level.shape[0], height, width, weight.shape[0])
                    g_level = workspace.take("level", shape, x)
                    g_block, won_block = g_part[part][..., block], won[part][..., block]
                    if level.outputs == plan.target:
                        g_level.copy_(g_block)
                    else:
                        maps = g_level.transpose(0, 1)[None, :, :, :, None]
                        engine.spread(
                            g_block, won_block, level.rows, level.columns, 0, maps, workspace
                        )
                    gx_level, gw_level = convolve_adjoint(g_level, x_level, weight, plan, needed)
                    if gx_part is not None:
                        gx_part[part] += rescale_adjoint(gx_level, level, plan)
                    if gw is not None:
                        gw += gw_level
            return gw

        parts = [gw for gw in map_batch(some_images, x.shape[0], x.device) if gw is not None]
        return gx, torch.stack(parts).sum(dim=0) if parts else None, None, None


def _blocks(plan: SIPlan, weight: Tensor) -> list[tuple[Level, slice]]:
    """Each level and its block of output channels."""
    width = weight.shape[0]
    return [(level, slice(i * width, (i + 1) * width)) for i, level in enumerate(plan.levels)]
