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
    is_channels_last,
    portions,
    rescale,
    rescale_adjoint,
)
from nearfar.kernels.plan import Level, SIPlan
from nearfar.kernels.workspace import Workspace, map_batch
from nearfar.reference import is_finite, reference_only

__all__ = ["pyramid_concat", "pyramid_concat_gradients"]


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
    out: Tensor = _PyramidConcat.apply(x_last, weight.contiguous(), bias, plan, engine)
    if is_finite(out):
        return out if is_channels_last(x, weight) else out.contiguous()
    with reference_only():
        return plan.composition(x, weight, bias)


class _PyramidConcat(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        plan: SIPlan,
        engine: ModuleType,
    ) -> Tensor:
        rows, columns = plan.target
        shape = (x.shape[0], len(plan.levels) * weight.shape[0], rows.size, columns.size)
        out = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
        map_batch(
            lambda part: _forward_images(x[part], weight, plan, engine, out[part]),
            x.shape[0],
            x.device,
        )
        if bias is not None:
            out += bias.repeat(len(plan.levels))[:, None, None]
        ctx.plan, ctx.engine = plan, engine
        ctx.save_for_backward(x, weight, bias)
        return out

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias = ctx.saved_tensors
        needed = ctx.needs_input_grad[:3]
        if not torch.is_grad_enabled():  # it is enabled with create_graph=True
            gradients = pyramid_concat_gradients(x, weight, ctx.plan, ctx.engine, g, needed)
            # What is not finite in ``g`` shows in the weight's gradient too, which has fewer elements.
            if is_finite(gradients[1] if needed[1] else gradients[0]):
                return *gradients, None, None
        return *ctx.plan.composition.gradients(x, weight, bias, g, needed), None, None


def _forward_images(
    x: Tensor, weight: Tensor, plan: SIPlan, engine: ModuleType, out: Tensor
) -> None:
    """The outputs of some images, into ``out``; all in channels-last."""
    workspace = Workspace()
    all_portions = portions(out)
    x, out = x.permute(0, 2, 3, 1), out.permute(0, 2, 3, 1)
    for part in all_portions:
        for level, block in _blocks(plan, weight):
            y = convolve(rescale(x[part], level, plan), weight, plan)
            target = out[part][..., block]
            if level.outputs == plan.target:
                target.copy_(y.permute(0, 2, 3, 1))
                continue
            maps = y.permute(2, 0, 3, 1)[None, :, :, :, None]
            engine.combine(maps, level.rows, level.columns, target, None, 0, workspace)


def pyramid_concat_gradients(
    x: Tensor,
    weight: Tensor,
    plan: SIPlan,
    engine: ModuleType,
    g: Tensor,
    needed: tuple[bool, ...],
) -> tuple[Tensor | None, ...]:
    """The gradients in the input, the weight and the bias, where needed."""
    gx = torch.zeros_like(x) if needed[0] else None
    g = g.contiguous(memory_format=torch.channels_last)

    def some_images(part: slice) -> Tensor | None:
        gw = torch.zeros_like(weight) if needed[1] else None
        gx_part = None if gx is None else gx[part]
        _backward_images(x[part], weight, plan, engine, g[part], gx_part, gw)
        return gw

    if needed[0] or needed[1]:
        parts = map_batch(some_images, x.shape[0], x.device)
    gw = torch.stack([part for part in parts if part is not None]).sum(dim=0) if needed[1] else None
    gb = g.sum(dim=(0, 2, 3)).view(len(plan.levels), -1).sum(dim=0) if needed[2] else None
    return gx, gw, gb


def _backward_images(
    x: Tensor,
    weight: Tensor,
    plan: SIPlan,
    engine: ModuleType,
    g: Tensor,
    gx: Tensor | None,
    gw: Tensor | None,
) -> None:
    """The gradients of some images, added to ``gx`` and ``gw``."""
    workspace = Workspace()
    needed = (gx is not None, gw is not None)
    all_portions = portions(g)
    x, g = x.permute(0, 2, 3, 1), g.permute(0, 2, 3, 1)
    # Every output is of rank 0: the scales do not compete.
    rank = torch.zeros_like(g, dtype=torch.uint8)
    gx = None if gx is None else gx.permute(0, 2, 3, 1)
    for part in all_portions:
        for level, block in _blocks(plan, weight):
            x_level = rescale(x[part], level, plan)
            rows, columns = level.outputs
            shape = (x_level.shape[0], rows.size, columns.size, weight.shape[0])
            g_level = workspace.take("level", shape, x)
            g_block, won = g[part][..., block], rank[part][..., block]
            if level.outputs == plan.target:
                g_level.copy_(g_block)
            else:
                maps = g_level.transpose(0, 1)[None, :, :, :, None]
                engine.spread(g_block, won, level.rows, level.columns, 0, maps, workspace)
            gx_level, gw_level = convolve_adjoint(g_level, x_level, weight, plan, needed)
            if gx is not None:
                gx[part] += rescale_adjoint(gx_level, level, plan)
            if gw is not None:
                gw += gw_level


def _blocks(plan: SIPlan, weight: Tensor) -> list[tuple[Level, slice]]:
    """Each level and its block of output channels."""
    width = weight.shape[0]
    return [(level, slice(i * width, (i + 1) * width)) for i, level in enumerate(plan.levels)]
