"""The SI-layer's maximum as a stream: one scale after another, in batches that stay in the cache.

The plain composition keeps every scale's input, output and restored output for the backward pass. This
keeps the input, and one byte an output: which scale won. Backward sends each output's gradient down the
branch that won it; what a branch needs for that is computed again, except its convolution, whose
gradients do not need its result.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from nearfar.grid import Grid, Window
from nearfar.kernels.adjoint import convolve_adjoint, resample_adjoint
from nearfar.kernels.folding import can_fold, folded_branch
from nearfar.pyramid import resample
from nearfar.scale_sets import as_ratio

__all__ = ["Plan", "si_max"]

#: Output elements a batch chunk: two such maps of floats fit the second-level cache of most CPUs.
_CHUNK = 1 << 18

_Pull = Callable[[Tensor, tuple[bool, bool]], tuple[Tensor | None, Tensor | None]]


@dataclass(frozen=True)
class Plan:
    """What an SI-layer does at one input size.

    Attributes:
        base: the input's grid.
        levels: the grid of each scale's level.
        scales: the scales.
        window: the convolution's geometry, with symmetric zero padding.
        groups: of the convolution.
        antialias: average where a level is made smaller.
        fold: use folding where it is exact and gains.
    """

    base: Grid
    levels: tuple[Grid, ...]
    scales: tuple[float, ...]
    window: Window
    groups: int
    antialias: bool
    fold: bool = True

    def folds(self, i: int) -> Fraction | None:
        """The ratio of level ``i``, if its branch is folded."""
        window, size = self.window, (self.base[0].size, self.base[1].size)
        ratio = as_ratio(self.scales[i])
        same = window.apply(self.base) == self.base
        fits = (
            self.fold
            and same
            and window.dilation == (1, 1)
            and can_fold(ratio, size, window.kernel)
        )
        return ratio if fits else None


def si_max(x: Tensor, weight: Tensor, bias: Tensor | None, plan: Plan) -> tuple[Tensor, Tensor]:
    """The maximum over scales and its winner; see :func:`nearfar.functional.si_conv2d`."""
    out, winner = _SIMax.apply(x, weight, plan)
    if bias is not None:
        # The same at every scale, and restoring keeps constants: added once, it changes no winner.
        out = out + bias[:, None, None]
    return out, winner


class _SIMax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, plan: Plan) -> tuple[Tensor, Tensor]:
        wanted = ctx.needs_input_grad[0] or ctx.needs_input_grad[1]
        out, winner, pulls = _forward(x, weight, plan, keep=wanted)
        ctx.plan, ctx.pulls = plan, pulls
        ctx.mark_non_differentiable(winner)
        ctx.save_for_backward(x, weight, winner)
        return out, winner

    @staticmethod
    def backward(ctx: Any, g: Tensor, _: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight, winner = ctx.saved_tensors
        wanted = (ctx.needs_input_grad[0], ctx.needs_input_grad[1])
        gx = torch.zeros_like(x) if wanted[0] else None
        gw = torch.zeros_like(weight) if wanted[1] else None
        for start, pulls in ctx.pulls:
            stop = min(start + _rows(x, g.shape), x.shape[0])
            gradient, won = g[start:stop], winner[start:stop]
            for i, pull in enumerate(pulls):
                part_x, part_w = pull(gradient * (won == i), wanted)
                if gx is not None and part_x is not None:
                    gx[start:stop] += part_x
                if gw is not None and part_w is not None:
                    gw += part_w
        return gx, gw, None


def _rows(x: Tensor, out_shape: torch.Size) -> int:
    """Images a chunk."""
    one = max(1, out_shape[1] * out_shape[2] * out_shape[3])
    return max(1, _CHUNK // one) if x.device.type == "cpu" else max(1, x.shape[0])


def _forward(
    x: Tensor, weight: Tensor, plan: Plan, keep: bool
) -> tuple[Tensor, Tensor, list[tuple[int, list[_Pull]]]]:
    target = plan.window.apply(plan.base)
    shape = torch.Size((x.shape[0], weight.shape[0], target[0].size, target[1].size))
    layout = torch.channels_last
    x = x.contiguous(memory_format=layout)
    weight = weight.contiguous(memory_format=layout)
    out = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=layout)
    winner = torch.empty(shape, dtype=torch.uint8, device=x.device, memory_format=layout)
    pulls: list[tuple[int, list[_Pull]]] = []
    rows = _rows(x, shape)
    for start in range(0, x.shape[0], rows):
        chunk = x[start : start + rows]
        best, won = out[start : start + rows], winner[start : start + rows]
        kept: list[_Pull] = []
        for i in range(len(plan.scales)):
            ratio = plan.folds(i)
            if ratio is None:
                answer, pull = _streamed(chunk, weight, plan, i)
            else:
                answer, pull = _folded(chunk, weight, plan, ratio, keep)
            if i == 0:
                best.copy_(answer)
                won.zero_()
            else:
                won.masked_fill_((answer > best) | answer.isnan(), i)
                torch.maximum(best, answer, out=best)
            kept.append(pull)
        if keep:
            pulls.append((start, kept))
    return out, winner, pulls


def _streamed(x: Tensor, weight: Tensor, plan: Plan, i: int) -> tuple[Tensor, _Pull]:
    window, level_grid = plan.window, plan.levels[i]
    seen, target = window.apply(level_grid), window.apply(plan.base)
    padding = (window.padding[0][0], window.padding[1][0])
    level = resample(x, plan.base, level_grid, antialias=plan.antialias)
    z = F.conv2d(level, weight, None, window.stride, padding, window.dilation, plan.groups)
    answer = resample(z, seen, target)

    def pull(g: Tensor, wanted: tuple[bool, bool]) -> tuple[Tensor | None, Tensor | None]:
        back = resample_adjoint(g, seen, target, False)
        again = resample(x, plan.base, level_grid, antialias=plan.antialias)
        gl, gw = convolve_adjoint(back, again, weight, window, plan.groups, wanted)
        if gl is not None:
            gl = resample_adjoint(gl, plan.base, level_grid, plan.antialias)
        return gl, gw

    return answer, pull


def _folded(
    x: Tensor, weight: Tensor, plan: Plan, ratio: Fraction, keep: bool
) -> tuple[Tensor, _Pull]:
    if not keep:
        return folded_branch(x, weight, plan.groups, ratio), _no_pull
    with torch.enable_grad():
        leaves = (x.detach().requires_grad_(), weight.detach().requires_grad_())
        answer = folded_branch(*leaves, plan.groups, ratio)

    def pull(g: Tensor, wanted: tuple[bool, bool]) -> tuple[Tensor | None, Tensor | None]:
        some = [leaf for leaf, want in zip(leaves, wanted, strict=True) if want]
        found = iter(torch.autograd.grad(answer, some, g, retain_graph=True))
        return next(found) if wanted[0] else None, next(found) if wanted[1] else None

    return answer.detach(), pull


def _no_pull(g: Tensor, wanted: tuple[bool, bool]) -> tuple[None, None]:
    return None, None
