"""The SI-layer's maximum as a stream: one scale after another, in portions that stay in the cache.

The plain composition keeps every scale's input, output and restored output for the backward pass. This
keeps the input, and one byte an output: which scale won. Backward sends each output's gradient down the
branch that won it; what a branch needs for that is computed again, except its convolution, whose
gradients do not need its result. How a branch is computed is the plan's choice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from nearfar.kernels.layout import is_channels_last
from nearfar.kernels.plan import Job, Level, Plan
from nearfar.kernels.room import Room
from nearfar.kernels.sharing import each_share
from nearfar.resampling import reading_matrix, through

__all__ = [
    "again_or_none",
    "answer_of",
    "answer_of_adjoint",
    "level_of",
    "level_of_adjoint",
    "portions",
    "si_max",
]

#: Output elements a portion, for scales computed by their levels: 2 MiB of floats, small against a batch
#: and large against the cost of a call.
_CHUNK = 1 << 19


def si_max(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    plan: Plan,
    engine: ModuleType,
    again: Callable[[Tensor, Tensor], Tensor],
    return_winner: bool,
) -> tuple[Tensor, Tensor | None]:
    """The maximum over scales and its winner; see :func:`nearfar.functional.si_conv2d`.

    Args:
        x: ``[B, C_in, H, W]``, any layout; the result has the same.
        weight: ``[C_out, C_in / groups, k_h, k_w]``.
        bias: ``[C_out]``.
        plan: geometry, for inputs of this size.
        engine: what combines maps: :mod:`nearfar.kernels.dense` or one like it.
        again: the same maximum without bias as a differentiable composition, for second derivatives.
        return_winner: whether anybody asks for the winner; otherwise it is None.
    """
    last = is_channels_last(x, weight)
    # The weight is not brought to channels-last: torch's fallback for small inputs refuses that.
    here, kernel = x.contiguous(memory_format=torch.channels_last), weight.contiguous()
    out: Tensor
    rank: Tensor | None
    if return_winner or (torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)):
        out, rank = _SIMax.apply(here, kernel, plan, engine, again)
    else:
        (out, _), rank = _maximum(here.detach(), kernel.detach(), plan, engine, False), None
    if bias is not None:
        # The same at every scale, and restoring keeps constants: added once, it changes no winner.
        out = out + bias[:, None, None]
    winner = rank if return_winner else None
    if winner is not None and plan.order != tuple(range(len(plan.order))):
        winner = torch.tensor(plan.order, dtype=torch.uint8, device=x.device)[winner.long()]
    if last:
        return out, winner
    return out.contiguous(), None if winner is None else winner.contiguous()


class _SIMax(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        plan: Plan,
        engine: ModuleType,
        again: Callable[[Tensor, Tensor], Tensor],
    ) -> tuple[Tensor, Tensor]:
        out, rank = _maximum(x, weight, plan, engine, True)
        assert rank is not None
        ctx.plan, ctx.engine, ctx.again = plan, engine, again
        ctx.mark_non_differentiable(rank)
        ctx.save_for_backward(x, weight, rank)
        return out, rank

    @staticmethod
    def backward(ctx: Any, g: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, rank = ctx.saved_tensors
        nothing = (None, None, None)
        if (found := again_or_none(ctx, x, weight, g)) is not None:
            return *found, *nothing
        plan, engine = ctx.plan, ctx.engine
        gx = torch.zeros_like(x) if ctx.needs_input_grad[0] else None
        g = g.contiguous(memory_format=torch.channels_last)

        def share(part: slice) -> Tensor | None:
            gw = torch.zeros_like(weight) if ctx.needs_input_grad[1] else None
            into = None if gx is None else gx[part]
            _backward(x[part], weight, plan, engine, g[part], rank[part], into, gw)
            return gw

        shares = [gw for gw in each_share(share, x.shape[0], x.device) if gw is not None]
        return gx, torch.stack(shares).sum(dim=0) if shares else None, *nothing


def again_or_none(ctx: Any, x: Tensor, weight: Tensor, g: Tensor) -> list[Tensor | None] | None:
    """The gradients through the composition, where somebody will differentiate them again."""
    if not torch.is_grad_enabled():  # it is with create_graph=True
        return None
    wanted = ctx.needs_input_grad[:2]
    some = [t for t, want in zip((x, weight), wanted, strict=True) if want]
    found = iter(torch.autograd.grad(ctx.again(x, weight), some, g, create_graph=True))
    return [next(found) if want else None for want in wanted]


def _maximum(
    x: Tensor, weight: Tensor, plan: Plan, engine: ModuleType, ranked: bool
) -> tuple[Tensor, Tensor | None]:
    """The maximum and, if wanted, its rank in the plan's order; without a graph."""
    out = torch.empty(
        (x.shape[0], weight.shape[0], plan.target[0].size, plan.target[1].size),
        dtype=x.dtype,
        device=x.device,
        memory_format=torch.channels_last,
    )
    rank = torch.zeros_like(out, dtype=torch.uint8) if ranked else None
    each_share(
        lambda part: _forward(
            x[part], weight, plan, engine, out[part], None if rank is None else rank[part]
        ),
        x.shape[0],
        x.device,
    )
    return out, rank


def _forward(
    x: Tensor, weight: Tensor, plan: Plan, engine: ModuleType, out: Tensor, rank: Tensor | None
) -> None:
    """The maximum and its rank for some images, into ``out`` and ``rank``; all in channels-last."""
    room = Room()
    here, best = x.permute(0, 2, 3, 1), out.permute(0, 2, 3, 1)
    won = None if rank is None else rank.permute(0, 2, 3, 1)
    for part in portions(out):
        for i, level in enumerate(plan.levels):
            answer = answer_of(level_of(here[part], level, plan), weight, plan)
            maps = answer.permute(2, 0, 3, 1)[None, :, :, :, None]
            mine = None if won is None else won[part]
            engine.combine(maps, level.rows, level.columns, best[part], mine, i, room)
    taps = _TapMaps(weight, plan, room)
    for job in plan.jobs(x.shape[0], weight.shape[1], weight.shape[0] // plan.groups):
        maps = taps.mix(here, job)
        some = (job.images, slice(job.band.first, job.band.last), slice(None), job.outputs)
        first = len(plan.levels)
        mine = None if won is None else won[some]
        engine.combine(maps, job.band.taps, plan.columns, best[some], mine, first, room)


def _backward(
    x: Tensor,
    weight: Tensor,
    plan: Plan,
    engine: ModuleType,
    g: Tensor,
    rank: Tensor,
    gx: Tensor | None,
    gw: Tensor | None,
) -> None:
    """The gradients of some images, added to ``gx`` and ``gw``."""
    room = Room()
    here, back, won = (t.permute(0, 2, 3, 1) for t in (x, g, rank))
    into = None if gx is None else gx.permute(0, 2, 3, 1)
    wanted = (gx is not None, gw is not None)
    for part in portions(g):
        for i, level in enumerate(plan.levels):
            seen = level_of(here[part], level, plan)
            shape = (seen.shape[0], level.seen[0].size, level.seen[1].size, weight.shape[0])
            answer = room.take("level", shape, x)
            maps = answer.transpose(0, 1)[None, :, :, :, None]
            engine.spread(back[part], won[part], level.rows, level.columns, i, maps, room)
            gl, gk = answer_of_adjoint(answer, seen, weight, plan, wanted)
            if into is not None:
                into[part] += level_of_adjoint(gl, level, plan)
            if gw is not None:
                gw += gk
    taps = _TapMaps(weight, plan, room)
    for job in plan.jobs(x.shape[0], weight.shape[1], weight.shape[0] // plan.groups):
        maps = taps.empty(here, job)
        some = (job.images, slice(job.band.first, job.band.last), slice(None), job.outputs)
        first = len(plan.levels)
        engine.spread(back[some], won[some], job.band.taps, plan.columns, first, maps, room)
        taps.unmix(maps, here, job, into, gw)
    if gw is not None:
        taps.finish(gw)


def portions(out: Tensor) -> Iterator[slice]:
    """The batch in parts that stay in the cache; on a GPU, whole."""
    batch, one = out.shape[0], max(1, out[:1].numel())
    images = max(1, _CHUNK // one) if out.device.type == "cpu" else max(1, batch)
    return (slice(first, first + images) for first in range(0, batch, images))


class _TapMaps:
    """``W_j x`` for every tap j of the kernel, and the way back."""

    def __init__(self, weight: Tensor, plan: Plan, room: Room) -> None:
        self.taps = weight.permute(2, 1, 3, 0)  # [k_h, C_in, k_w, C_out]
        self.kernel = plan.window.kernel
        self.room = room
        self._made: dict[tuple[int, int], Tensor] = {}
        self._turned: dict[tuple[int, int], Tensor] = {}
        self._gradients: dict[tuple[int, int], Tensor] = {}

    def _matrix(self, job: Job) -> Tensor:
        """``[k_h, C_in, k_w · C]``."""
        key = (job.outputs.start, job.outputs.stop)
        if key not in self._made:
            self._made[key] = self.taps[..., job.outputs].flatten(2)
        return self._made[key]

    def _seen(self, x: Tensor, job: Job) -> Tensor:
        """The rows that the job reads, images between rows and columns: ``[rows · B · W, C_in]``."""
        rows = x[job.images, job.band.low : job.band.high, :, job.inputs]
        return rows.transpose(0, 1).reshape(-1, rows.shape[-1])

    def empty(self, x: Tensor, job: Job) -> Tensor:
        """Room for the maps, ``[k_h, rows, B, W, k_w, C]``; the same room for every job."""
        shape = (
            self.kernel[0],
            job.band.high - job.band.low,
            job.images.stop - job.images.start,
            x.shape[2],
            self.kernel[1],
            job.outputs.stop - job.outputs.start,
        )
        return self.room.take("maps", shape, x)

    def mix(self, x: Tensor, job: Job) -> Tensor:
        maps, seen = self.empty(x, job), self._seen(x, job)
        flat = maps.view(self.kernel[0], seen.shape[0], -1)
        torch.bmm(seen.expand(self.kernel[0], -1, -1), self._matrix(job), out=flat)
        return maps

    def unmix(
        self, maps: Tensor, x: Tensor, job: Job, into: Tensor | None, gw: Tensor | None
    ) -> None:
        """From the maps' gradient to that of the input, added to ``into``, and of the weight."""
        flat = maps.view(self.kernel[0], -1, maps.shape[-2] * maps.shape[-1])
        key = (job.outputs.start, job.outputs.stop)
        if into is not None:
            if key not in self._turned:
                self._turned[key] = self._matrix(job).mT.contiguous()
            matrix = self._turned[key]
            found = self.room.take("found", (flat.shape[1], matrix.shape[2]), x)
            torch.mm(flat[0], matrix[0], out=found)
            for part, mixer in zip(flat[1:], matrix[1:], strict=True):
                found.addmm_(part, mixer)
            rows = into[job.images, job.band.low : job.band.high, :, job.inputs].transpose(0, 1)
            rows += found.view(rows.shape)
        if gw is not None:
            seen = self._seen(x, job).T.contiguous()
            if key not in self._gradients:
                self._gradients[key] = torch.zeros_like(self._matrix(job))
            self._gradients[key].baddbmm_(seen.expand(self.kernel[0], -1, -1), flat)

    def finish(self, gw: Tensor) -> None:
        """Adds the weight's gradient to ``gw``, from where the jobs have gathered it."""
        for (first, last), found in self._gradients.items():
            parts = found.view(*found.shape[:2], self.kernel[1], last - first)
            gw[first:last] += parts.permute(3, 1, 0, 2)


def _shrink(level: Level, plan: Plan, like: Tensor) -> list[Tensor]:
    kept = level.rows.kept
    key = ("level", like.dtype, like.device)
    if key not in kept:
        kept[key] = [
            reading_matrix(plan.base[a], level.grid[a], plan.antialias).to(like) for a in (0, 1)
        ]
    found: list[Tensor] = kept[key]
    return found


def level_of(x: Tensor, level: Level, plan: Plan) -> Tensor:
    """The input at the level's scale, ``[B, H, W, C]`` → ``[B, H', W', C]``."""
    if level.grid == plan.base:
        return x
    return through(x, *_shrink(level, plan, x))


def level_of_adjoint(g: Tensor, level: Level, plan: Plan) -> Tensor:
    """The gradient in the input, from that of the level."""
    if level.grid == plan.base:
        return g
    rows, columns = _shrink(level, plan, g)
    return through(g, rows.mT, columns.mT)


def answer_of(seen: Tensor, weight: Tensor, plan: Plan) -> Tensor:
    """The convolution on a level; ``[B, C_out, H'', W'']`` in channels-last."""
    window = plan.window
    padding = (window.padding[0][0], window.padding[1][0])
    x = seen.permute(0, 3, 1, 2)
    y = F.conv2d(x, weight, None, window.stride, padding, window.dilation, plan.groups)
    return y.contiguous(memory_format=torch.channels_last)


def answer_of_adjoint(
    g: Tensor, seen: Tensor, weight: Tensor, plan: Plan, wanted: tuple[bool, bool]
) -> tuple[Tensor, Tensor]:
    """Its gradients in the level (``[B, H', W', C_in]``) and in the weight; only those wanted."""
    window = plan.window
    found = torch.ops.aten.convolution_backward(
        g.permute(0, 3, 1, 2),
        seen.permute(0, 3, 1, 2),
        weight,
        None,
        list(window.stride),
        [window.padding[0][0], window.padding[1][0]],
        list(window.dilation),
        False,
        [0, 0],
        plan.groups,
        [*wanted, False],
    )
    return found[0].permute(0, 2, 3, 1) if wanted[0] else g, found[1]
