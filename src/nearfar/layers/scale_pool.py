"""ScalePool: the end of a pyramid of features, one map over all scales."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import get_args

from torch import Tensor, nn

from nearfar.errors import InputError
from nearfar.layers.receptive_field import AxisField, ScaleLayer
from nearfar.pyramid import How, Pyramid, collapse

__all__ = ["ScalePool"]


class ScalePool(ScaleLayer, nn.Module):
    """Pools over scale: every level back onto the base grid, then the ``max`` (or another) of them.

    Args:
        how: ``max``, ``mean``, ``sum``, ``logsumexp`` or ``concat``.
        antialias: average where a level is finer than the base grid.

    Shape:
        Pyramid of levels ``[B, C, H_s, W_s]`` → ``[B, C, H, W]`` (``concat``: ``[B, L · C, H, W]``).

    Raises:
        InputError: unknown ``how``.
    """

    def __init__(self, how: How = "max", *, antialias: bool = False) -> None:
        super().__init__()
        if how not in get_args(How):
            raise InputError(f"how must be one of {', '.join(get_args(How))}, got {how!r}")
        self.how: How = how
        self.antialias = antialias

    def forward(self, x: Pyramid) -> Tensor:
        return collapse(x, self.how, antialias=self.antialias)

    def receptive_field(
        self, x: Tensor | Pyramid, fields: Sequence[AxisField], axis: int
    ) -> list[AxisField]:
        assert isinstance(x, Pyramid)
        assert x.base is not None
        target = x.base[axis]
        parts = [
            field.resample(grid[axis], target, self.antialias)
            for field, grid in zip(fields, x.grids, strict=True)
            if grid is not None
        ]
        return [functools.reduce(lambda one, other: one.union(other, target.size), parts)]

    def pooled(self, x: Tensor | Pyramid) -> int:
        assert isinstance(x, Pyramid)
        return 0 if self.how == "concat" else len(x)

    def extra_repr(self) -> str:
        return f"how={self.how!r}, antialias={self.antialias}"
