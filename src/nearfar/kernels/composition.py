"""The operators as the algebra defines them, which the fast paths are proved against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from nearfar import pyramid
from nearfar.errors import InputError
from nearfar.grid import Window
from nearfar.pyramid import How, collapse, expand
from nearfar.reference import reference_only

__all__ = ["PADDING_MODES", "Composition", "check_padding_mode", "convolve"]

#: What lies outside of a map, as ``torch.nn.Conv2d`` names it.
PADDING_MODES = ("zeros", "reflect", "replicate", "circular")


def check_padding_mode(mode: str) -> None:
    """Refuses what is no padding mode.

    Raises:
        InputError: it is none.
    """
    if mode not in PADDING_MODES:
        raise InputError(f"padding_mode must be one of {', '.join(PADDING_MODES)}, got {mode!r}")


@dataclass(frozen=True)
class Composition:
    """``collapse(how) ∘ map(convolution) ∘ expand(scales)``, for any input and weight.

    Attributes:
        window: the convolution's geometry.
        groups: of the convolution.
        scales: at which the convolution meets the input.
        numbers: of the scales, as winner maps name them.
        antialias: average where a level is made smaller.
        how: the scales' outputs are combined.
        padding_mode: one of :data:`PADDING_MODES`, at every scale.
    """

    window: Window
    groups: int
    scales: tuple[float, ...]
    numbers: tuple[int, ...]
    antialias: bool
    how: How
    padding_mode: str = "zeros"

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The operator's output."""
        return collapse(self._levels(x, weight, bias), self.how)

    def with_winner(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
        """The output, and the number of the scale that won; ``how`` must be ``max``."""
        out, rank = collapse(self._levels(x, weight, bias), self.how, return_winner=True)
        return out, self.numbered(rank, range(len(self.scales)))

    def numbered(self, rank: Tensor, order: Sequence[int]) -> Tensor:
        """The scales' numbers, from ranks in the order of the indices ``order``."""
        numbers = [self.numbers[i] for i in order]
        if numbers == list(range(len(numbers))):
            return rank
        return torch.tensor(numbers, dtype=torch.uint8, device=rank.device)[rank.long()]

    def gradients(
        self,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        g: Tensor,
        needed: Sequence[bool],
    ) -> tuple[Tensor | None, ...]:
        """The gradients in ``x``, ``weight`` and ``bias``, where needed, from that in the output.

        Within a backward pass with ``create_graph=True`` they can be differentiated in turn.
        """
        create_graph = torch.is_grad_enabled()
        inputs = [x, weight, bias]
        if not create_graph:
            inputs = [
                None if t is None else t.detach().requires_grad_(need)
                for t, need in zip(inputs, needed, strict=True)
            ]
        with torch.enable_grad(), reference_only():
            out = self(inputs[0], inputs[1], inputs[2])  # type: ignore[arg-type]
        sources = [t for t, need in zip(inputs, needed, strict=True) if need and t is not None]
        gradients = iter(torch.autograd.grad(out, sources, g, create_graph=create_graph))
        return tuple(next(gradients) if need else None for need in needed)

    def _levels(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> pyramid.Pyramid:
        levels = expand(x, self.scales, antialias=self.antialias)
        return pyramid.map(
            lambda level: convolve(
                level, weight, bias, self.window, self.groups, self.padding_mode
            ),
            levels,
            window=self.window,
        )


def convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    window: Window,
    groups: int,
    padding_mode: str = "zeros",
) -> Tensor:
    """The plain convolution of one map, with any padding that ``torch.nn.Conv2d`` knows.

    Raises:
        InputError: an unknown ``padding_mode``, or a map too small for it.
    """
    padded, padding = _pad(x, window, padding_mode)
    return F.conv2d(padded, weight, bias, window.stride, padding, window.dilation, groups)


def _pad(x: Tensor, window: Window, mode: str) -> tuple[Tensor, tuple[int, int]]:
    """Pads ``x`` as far as the convolution itself cannot; returns what is left for it to pad."""
    check_padding_mode(mode)
    (top, bottom), (left, right) = window.padding
    if mode == "zeros" and top == bottom and left == right:
        return x, (top, left)
    if mode == "zeros":
        return F.pad(x, (left, right, top, bottom)), (0, 0)
    limits = {"reflect": -1, "circular": 0}
    if mode in limits and (
        max(top, bottom) > x.shape[-2] + limits[mode]
        or max(left, right) > x.shape[-1] + limits[mode]
    ):
        raise InputError(
            f"padding_mode={mode!r} cannot pad a level of {tuple(x.shape[-2:])} by "
            f"{window.padding}; leave small scales out, or use 'zeros' or 'replicate'"
        )
    return F.pad(x, (left, right, top, bottom), mode=mode), (0, 0)
