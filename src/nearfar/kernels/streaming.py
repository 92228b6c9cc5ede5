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

from nearfar.grid import Grid, Window, base_grid, level_grid
from nearfar.kernels.adjoint import convolve_adjoint, resample_adjoint
from nearfar.kernels.folding import Folding, can_fold
from nearfar.pyramid import resample
from nearfar.scale_sets import as_ratio

__all__ = ["Plan", "si_max"]

#: Output elements a batch chunk: 4 MiB of floats, small against a batch and large against the cost of a call.
_CHUNK = 1 << 20


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
    """

    base: Grid
    levels: tuple[Grid, ...]
    scales: tuple[float, ...]
    window: Window
    groups: int
    antialias: bool

    @classmethod
    def make(
        cls, x: Tensor, scales: tuple[float, ...], window: Window, groups: int, antialias: bool
    ) -> Plan:
        """For inputs of the size of ``x``."""
        height, width = x.shape[-2:]
        levels = tuple(level_grid(height, width, s) for s in scales)
        return cls(base_grid(height, width), levels, scales, window, groups, antialias)

    def folds(self, i: int) -> Fraction | None:
        """The ratio of level ``i``, if its branch is folded."""
        window, size = self.window, (self.base[0].size, self.base[1].size)
        ratio = as_ratio(self.scales[i])
        same = window.apply(self.base) == self.base
        fits = same and window.dilation == (1, 1) and can_fold(ratio, size, window.kernel)
        return ratio if fits else None


def si_max(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    plan: Plan,
    again: Callable[[Tensor, Tensor], Tensor],
) -> tuple[Tensor, Tensor]:
    """The maximum over scales and its winner; see :func:`nearfar.functional.si_conv2d`.

    Args:
        x: ``[B, C_in, H, W]``, any layout; the result has the same.
        weight: ``[C_out, C_in / groups, k_h, k_w]``.
        bias: ``[C_out]``.
        plan: geometry, for inputs of this size.
        again: the same maximum without bias as a differentiable composition, for second derivatives.
    """
    layout = torch.channels_last
    # As a convolution does: either argument decides. Plainly contiguous is told apart first, since
    # maps of one channel are both.
    last = any(not t.is_contiguous() and t.is_contiguous(memory_format=layout) for t in (x, weight))
    # The weight is not brought to channels-last: torch's fallback for small inputs refuses that.
    out, winner = _SIMax.apply(x.contiguous(memory_format=layout), weight.contiguous(), plan, again)
    if bias is not None:
        # The same at every scale, and restoring keeps constants: added once, it changes no winner.
        out = out + bias[:, None, None]
    return (out, winner) if last else (out.contiguous(), winner.contiguous())


class _SIMax(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, plan: Plan, again: Callable[[Tensor, Tensor], Tensor]
    ) -> tuple[Tensor, Tensor]:
        target = plan.window.apply(plan.base)
        out = torch.empty(
            (x.shape[0], weight.shape[0], target[0].size, target[1].size),
            dtype=x.dtype,
            device=x.device,
            memory_format=torch.channels_last,
        )
        winner = torch.empty_like(out, dtype=torch.uint8)
        branches = _branches(plan, x, weight)
        for part in _chunks(out):
            best, won = out[part], winner[part]
            for i, branch in enumerate(branches):
                answer = branch.forward(x[part], part)
                if i == 0:
                    best.copy_(answer)
                    won.zero_()
                else:
                    # Later winners have larger indices, so a maximum of bytes keeps the last.
                    torch.maximum(won, (answer > best).view(torch.uint8) * i, out=won)
                    torch.maximum(best, answer, out=best)
        ctx.plan, ctx.again = plan, again
        ctx.mark_non_differentiable(winner)
        ctx.save_for_backward(x, weight, winner)
        return out, winner

    @staticmethod
    def backward(ctx: Any, g: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, winner = ctx.saved_tensors
        if torch.is_grad_enabled():  # create_graph=True: somebody will differentiate this again
            some = [t for t, want in zip((x, weight), ctx.needs_input_grad, strict=False) if want]
            y = ctx.again(x, weight)
            found = iter(torch.autograd.grad(y, some, g, create_graph=True))
            return (
                *(next(found) if want else None for want in ctx.needs_input_grad[:2]),
                None,
                None,
            )
        g = g.contiguous(memory_format=torch.channels_last)
        wanted = (ctx.needs_input_grad[0], ctx.needs_input_grad[1])
        gx = torch.zeros_like(x) if wanted[0] else None
        gw = torch.zeros_like(weight) if wanted[1] else None
        branches = _branches(ctx.plan, x, weight)
        for part in _chunks(g):
            for i, branch in enumerate(branches):
                mine = g[part] * (winner[part] == i)
                into = None if gx is None else gx[part]
                branch.backward(x[part], mine, into, gw)
        for i, branch in enumerate(branches):
            branch.finish(g, winner, i, gx, gw)
        return gx, gw, None, None


def _chunks(out: Tensor) -> list[slice]:
    """The batch in parts that stay in the cache; on a GPU, whole."""
    batch, one = out.shape[0], max(1, out[:1].numel())
    rows = max(1, _CHUNK // one) if out.device.type == "cpu" else max(1, batch)
    return [slice(start, start + rows) for start in range(0, batch, rows)]


def _branches(plan: Plan, x: Tensor, weight: Tensor) -> list[_Streamed | _Folded]:
    return [
        _Streamed(plan, i, weight)
        if (ratio := plan.folds(i)) is None
        else _Folded(plan, ratio, x, weight)
        for i in range(len(plan.scales))
    ]


class _Streamed:
    """A branch as it is defined: rescale, convolve, bring back."""

    def __init__(self, plan: Plan, i: int, weight: Tensor) -> None:
        self.plan, self.weight, self.level = plan, weight, plan.levels[i]
        self.seen, self.target = plan.window.apply(self.level), plan.window.apply(plan.base)
        self.padding = (plan.window.padding[0][0], plan.window.padding[1][0])

    def _rescaled(self, x: Tensor) -> Tensor:
        return resample(x, self.plan.base, self.level, antialias=self.plan.antialias)

    def forward(self, x: Tensor, part: slice) -> Tensor:
        window = self.plan.window
        z = F.conv2d(
            self._rescaled(x),
            self.weight,
            None,
            window.stride,
            self.padding,
            window.dilation,
            self.plan.groups,
        )
        return resample(z, self.seen, self.target)

    def backward(self, x: Tensor, g: Tensor, gx: Tensor | None, gw: Tensor | None) -> None:
        plan = self.plan
        back = resample_adjoint(g, self.seen, self.target, False)
        wanted = (gx is not None, gw is not None)
        level = self._rescaled(x)
        gl, part = convolve_adjoint(back, level, self.weight, plan.window, plan.groups, wanted)
        if gx is not None and gl is not None:
            gx += resample_adjoint(gl, plan.base, self.level, plan.antialias)
        if gw is not None and part is not None:
            gw += part

    def finish(
        self, g: Tensor, winner: Tensor, i: int, gx: Tensor | None, gw: Tensor | None
    ) -> None:
        """Nothing is left to do at the end."""


class _Folded:
    """A branch folded onto the base grid."""

    def __init__(self, plan: Plan, ratio: Fraction, x: Tensor, weight: Tensor) -> None:
        size = (plan.base[0].size, plan.base[1].size)
        self.fold = Folding(ratio, size, plan.window.kernel, plan.groups)
        self.x, self.weight = x, weight
        self.kernels = self.fold.kernels(weight)
        self._borders: list[Tensor] | None = None
        self._gradients = [torch.zeros_like(kernel) for kernel in self.kernels]
        q = self.fold.tall.phases
        self._window = Window.make(1, q)

    def forward(self, x: Tensor, part: slice) -> Tensor:
        if self._borders is None:
            self._borders = self.fold.borders(self.fold.lines(self.x), self.weight)
        y = self.fold.interior(x, self.kernels)
        for band, border in zip(self.fold.bands(y), self._borders, strict=True):
            band -= border[part]
        return y

    def backward(self, x: Tensor, g: Tensor, gx: Tensor | None, gw: Tensor | None) -> None:
        fold, q = self.fold, self.fold.tall.phases
        padded = fold.padded(x)
        wanted = (gx is not None, gw is not None)
        into = torch.zeros_like(padded) if gx is not None and q > 1 else None
        for i, (a, b) in enumerate(fold.phases):
            mine = g[:, :, a::q, b::q].contiguous(memory_format=torch.channels_last)
            seen = fold.window(padded, i)
            found, gk = convolve_adjoint(
                mine, seen, self.kernels[i], self._window, fold.groups, wanted
            )
            if gk is not None:
                self._gradients[i] += gk
            if into is not None and found is not None:
                fold.window(into, i).add_(found)
            elif found is not None:
                into = found
        if gx is not None and into is not None:
            gx += torch.ops.aten.replication_pad2d_backward(into, x, fold.padding)

    def finish(
        self, g: Tensor, winner: Tensor, i: int, gx: Tensor | None, gw: Tensor | None
    ) -> None:
        """The borders' share, and from the folded kernels back to the weight."""
        with torch.enable_grad():
            weight = self.weight.detach().requires_grad_()
            lines = [line.detach().requires_grad_() for line in self.fold.lines(self.x)]
            results = [*self.fold.kernels(weight), *self.fold.borders(lines, weight)]
        bands = zip(self.fold.bands(g), self.fold.bands(winner), strict=True)
        gradients = [*self._gradients, *(-(part * (won == i)) for part, won in bands)]
        # A 1×1 kernel reaches over no border, and leaves empty bands outside of the graph.
        some = [(y, dy) for y, dy in zip(results, gradients, strict=True) if y.requires_grad]
        found = torch.autograd.grad(
            [y for y, _ in some],
            [weight, *lines],
            [dy for _, dy in some],
            allow_unused=True,
            materialize_grads=True,
        )
        if gw is not None:
            gw += found[0]
        if gx is not None:
            for line, part in zip(self.fold.lines(gx), found[1:], strict=True):
                line += part
