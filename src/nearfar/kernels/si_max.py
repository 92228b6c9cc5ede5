"""The SI-layer's maximum as a stream: one scale after another, in portions that stay in the cache.

The plain composition stores every scale's input, output and restored output for the backward pass. This
stores the input, and one byte an output: which scale won. Backward sends each output's gradient down the
branch that won it; what a branch needs for that is computed again, except its convolution, whose
gradients do not need its result. The plan decides how each branch is computed.
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
from nearfar.kernels.plan import Job, SIPlan
from nearfar.kernels.workspace import Workspace, map_batch
from nearfar.reference import is_finite, reference_only

__all__ = ["si_max", "si_max_gradients"]


def si_max(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    plan: SIPlan,
    engine: ModuleType,
    return_winner: bool,
) -> tuple[Tensor, Tensor | None]:
    """The maximum over scales and its winner; see :func:`nearfar.functional.si_conv2d`.

    Where the input, an output or a gradient is not finite, all are computed as the composition defines
    them, since NaN and infinities would spread further here (not on a GPU, where it is not checked: see
    :func:`nearfar.reference.is_finite`).

    Args:
        x: ``[B, C_in, H, W]``, any layout; the result has the same.
        weight: ``[C_out, C_in / groups, k_h, k_w]``.
        bias: ``[C_out]``.
        plan: how it is computed, for inputs of this size.
        engine: what combines maps: :mod:`nearfar.kernels.dense` or one like it.
        return_winner: whether the winner is needed; otherwise it is None.

    Returns:
        The outputs, and the numbers of the winning scales.
    """
    if is_finite(x, weight):
        out, rank = _without_check(x, weight, bias, plan, engine, return_winner)
        if is_finite(out):
            winner = plan.composition.numbered(rank, plan.order) if return_winner else None
            if is_channels_last(x, weight):
                return out, winner
            return out.contiguous(), None if winner is None else winner.contiguous()
    with reference_only():
        if return_winner:
            return plan.composition.with_winner(x, weight, bias)
        return plan.composition(x, weight, bias), None


def _without_check(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    plan: SIPlan,
    engine: ModuleType,
    return_winner: bool,
) -> tuple[Tensor, Tensor]:
    """The outputs, and with ``return_winner`` their ranks; both in channels-last."""
    # The weight is not brought to channels-last: torch's fallback for small inputs refuses that.
    x, weight = x.contiguous(memory_format=torch.channels_last), weight.contiguous()
    tensors = [t for t in (x, weight, bias) if t is not None]
    if return_winner or (torch.is_grad_enabled() and any(t.requires_grad for t in tensors)):
        out, rank = _SIMax.apply(x, weight, bias, plan, engine)
        return out, rank
    x, weight = x.detach(), weight.detach()
    return _forward(x, weight, None if bias is None else bias.detach(), plan, engine, ranked=False)


class _SIMax(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        plan: SIPlan,
        engine: ModuleType,
    ) -> tuple[Tensor, Tensor]:
        out, rank = _forward(x, weight, bias, plan, engine, ranked=True)
        ctx.plan, ctx.engine = plan, engine
        ctx.mark_non_differentiable(rank)
        ctx.save_for_backward(x, weight, bias, rank)
        return out, rank

    @staticmethod
    def backward(ctx: Any, g: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, rank = ctx.saved_tensors
        needed = ctx.needs_input_grad[:3]
        if not torch.is_grad_enabled():  # it is enabled with create_graph=True
            gradients = _backward(x, weight, rank, ctx.plan, ctx.engine, g, needed)
            # What is not finite in ``g`` shows in the weight's gradient too, which has fewer elements.
            if is_finite(gradients[1] if needed[1] else gradients[0]):
                return *gradients, None, None
        return *ctx.plan.composition.gradients(x, weight, bias, g, needed), None, None


def si_max_gradients(
    x: Tensor,
    weight: Tensor,
    winner: Tensor,
    plan: SIPlan,
    engine: ModuleType,
    g: Tensor,
    needed: tuple[bool, ...],
) -> tuple[Tensor | None, ...]:
    """The gradients in the input, the weight and the bias, where needed, from that in the output.

    Args:
        x: ``[B, C_in, H, W]`` in channels-last.
        weight: contiguous.
        winner: the numbers of the winning scales.
        plan, engine: as in :func:`si_max`.
        g: the gradient in the output.
        needed: of the three.
    """
    numbers = [plan.composition.numbers[i] for i in plan.order]
    ranks = torch.zeros(max(numbers) + 1, dtype=torch.uint8, device=x.device)
    ranks[numbers] = torch.arange(len(numbers), dtype=torch.uint8, device=x.device)
    rank = ranks[winner.long()].contiguous(memory_format=torch.channels_last)
    return _backward(x, weight, rank, plan, engine, g, needed)


def _backward(
    x: Tensor,
    weight: Tensor,
    rank: Tensor,
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
        _backward_images(x[part], weight, plan, engine, g[part], rank[part], gx_part, gw)
        return gw

    if needed[0] or needed[1]:
        parts = map_batch(some_images, x.shape[0], x.device)
    gw = torch.stack([part for part in parts if part is not None]).sum(dim=0) if needed[1] else None
    return gx, gw, g.sum(dim=(0, 2, 3)) if needed[2] else None


def _forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    plan: SIPlan,
    engine: ModuleType,
    ranked: bool,
) -> tuple[Tensor, Tensor]:
    """The maximum and, if ``ranked``, its rank in the plan's order; without a graph."""
    shape = (x.shape[0], weight.shape[0], plan.target[0].size, plan.target[1].size)
    layout = torch.channels_last
    out = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=layout)
    rank = torch.zeros_like(out, dtype=torch.uint8) if ranked else out.new_empty(0)
    map_batch(
        lambda part: _forward_images(
            x[part], weight, plan, engine, out[part], rank[part] if ranked else None
        ),
        x.shape[0],
        x.device,
    )
    if bias is not None:
        # The same at every scale, and restoring preserves constants: added once, it changes no winner.
        out += bias[:, None, None]
    return out, rank


def _forward_images(
    x: Tensor, weight: Tensor, plan: SIPlan, engine: ModuleType, out: Tensor, rank: Tensor | None
) -> None:
    """The maximum and its rank for some images, into ``out`` and ``rank``; all in channels-last."""
    workspace = Workspace()
    x, best = x.permute(0, 2, 3, 1), out.permute(0, 2, 3, 1)
    won = None if rank is None else rank.permute(0, 2, 3, 1)
    for part in portions(out):
        for i, level in enumerate(plan.levels):
            y = convolve(rescale(x[part], level, plan), weight, plan)
            maps = y.permute(2, 0, 3, 1)[None, :, :, :, None]
            won_part = None if won is None else won[part]
            engine.combine(maps, level.rows, level.columns, best[part], won_part, i, workspace)
    tap_maps = _TapMaps(weight, plan, workspace)
    first = len(plan.levels)
    for job in plan.jobs(x.shape[0], weight.shape[1], weight.shape[0] // plan.composition.groups):
        maps = tap_maps.mix(x, job)
        block = (job.images, slice(job.band.first, job.band.last), slice(None), job.outputs)
        won_block = None if won is None else won[block]
        engine.combine(maps, job.band.taps, plan.columns, best[block], won_block, first, workspace)


def _backward_images(
    x: Tensor,
    weight: Tensor,
    plan: SIPlan,
    engine: ModuleType,
    g: Tensor,
    rank: Tensor,
    gx: Tensor | None,
    gw: Tensor | None,
) -> None:
    """The gradients of some images, added to ``gx`` and ``gw``."""
    workspace = Workspace()
    needed = (gx is not None, gw is not None)
    all_portions = portions(g)
    x, g, won = (t.permute(0, 2, 3, 1) for t in (x, g, rank))
    gx = None if gx is None else gx.permute(0, 2, 3, 1)
    for part in all_portions:
        for i, level in enumerate(plan.levels):
            x_level = rescale(x[part], level, plan)
            rows, columns = level.outputs
            shape = (x_level.shape[0], rows.size, columns.size, weight.shape[0])
            g_level = workspace.take("level", shape, x)
            maps = g_level.transpose(0, 1)[None, :, :, :, None]
            engine.spread(g[part], won[part], level.rows, level.columns, i, maps, workspace)
            gx_level, gw_level = convolve_adjoint(g_level, x_level, weight, plan, needed)
            if gx is not None:
                gx[part] += rescale_adjoint(gx_level, level, plan)
            if gw is not None:
                gw += gw_level
    tap_maps = _TapMaps(weight, plan, workspace)
    first = len(plan.levels)
    for job in plan.jobs(x.shape[0], weight.shape[1], weight.shape[0] // plan.composition.groups):
        maps = tap_maps.empty(x, job)
        block = (job.images, slice(job.band.first, job.band.last), slice(None), job.outputs)
        engine.spread(g[block], won[block], job.band.taps, plan.columns, first, maps, workspace)
        tap_maps.unmix(maps, x, job, gx, gw is not None)
    if gw is not None:
        tap_maps.add_weight_gradient(gw)


class _TapMaps:
    """``W_j x`` for every tap j of the kernel, and the adjoint."""

    def __init__(self, weight: Tensor, plan: SIPlan, workspace: Workspace) -> None:
        self.weight = weight.permute(2, 1, 3, 0)  # [k_h, C_in, k_w, C_out]
        self.kernel = plan.composition.window.kernel
        self.workspace = workspace
        # Of each block of output channels (first, last):
        self._matrices: dict[tuple[int, int], Tensor] = {}
        self._transposed: dict[tuple[int, int], Tensor] = {}
        self._gradients: dict[tuple[int, int], Tensor] = {}

    def _matrix(self, job: Job) -> Tensor:
        """``[k_h, C_in, k_w · C]``."""
        key = (job.outputs.start, job.outputs.stop)
        if key not in self._matrices:
            self._matrices[key] = self.weight[..., job.outputs].flatten(2)
        return self._matrices[key]

    def _rows(self, x: Tensor, job: Job) -> Tensor:
        """The rows that the job reads, images between rows and columns: ``[rows · B · W, C_in]``."""
        rows = x[job.images, job.band.low : job.band.high, :, job.inputs]
        return rows.transpose(0, 1).reshape(-1, rows.shape[-1])

    def empty(self, x: Tensor, job: Job) -> Tensor:
        """Memory for the maps, ``[k_h, rows, B, W, k_w, C]``; the same for every job."""
        shape = (
            self.kernel[0],
            job.band.high - job.band.low,
            job.images.stop - job.images.start,
            x.shape[2],
            self.kernel[1],
            job.outputs.stop - job.outputs.start,
        )
        return self.workspace.take("maps", shape, x)

    def mix(self, x: Tensor, job: Job) -> Tensor:
        """The maps of one job."""
        maps, rows = self.empty(x, job), self._rows(x, job)
        flat = maps.view(self.kernel[0], rows.shape[0], -1)
        torch.bmm(rows.expand(self.kernel[0], -1, -1), self._matrix(job), out=flat)
        return maps

    def unmix(self, maps: Tensor, x: Tensor, job: Job, gx: Tensor | None, need_gw: bool) -> None:
        """From the maps' gradient to that of the input, added to ``gx``, and of the weight."""
        flat = maps.view(self.kernel[0], -1, maps.shape[-2] * maps.shape[-1])
        key = (job.outputs.start, job.outputs.stop)
        if gx is not None:
            if key not in self._transposed:
                self._transposed[key] = self._matrix(job).mT.contiguous()
            matrices = self._transposed[key]
            g_rows = self.workspace.take("rows", (flat.shape[1], matrices.shape[2]), x)
            torch.mm(flat[0], matrices[0], out=g_rows)
            for g_maps, matrix in zip(flat[1:], matrices[1:], strict=True):
                g_rows.addmm_(g_maps, matrix)
            target = gx[job.images, job.band.low : job.band.high, :, job.inputs].transpose(0, 1)
            target += g_rows.view(target.shape)
        if need_gw:
            rows = self._rows(x, job).T.contiguous()
            if key not in self._gradients:
                self._gradients[key] = torch.zeros_like(self._matrix(job))
            self._gradients[key].baddbmm_(rows.expand(self.kernel[0], -1, -1), flat)

    def add_weight_gradient(self, gw: Tensor) -> None:
        """Adds to ``gw`` what the jobs have gathered."""
        for (first, last), gradient in self._gradients.items():
            parts = gradient.view(*gradient.shape[:2], self.kernel[1], last - first)
            gw[first:last] += parts.permute(3, 1, 0, 2)
