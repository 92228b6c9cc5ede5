"""Memory that one call uses again and again: fresh pages cost more than the sums that fill them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["Room"]


class Room:
    """Scratch tensors by name; what a name held before is written over."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, torch.dtype], Tensor] = {}

    def take(
        self, name: str, shape: Sequence[int], like: Tensor, dtype: torch.dtype | None = None
    ) -> Tensor:
        """A contiguous tensor of this shape, with anything in it, where ``like`` lies."""
        size = torch.Size(shape).numel()
        key = (name, dtype or like.dtype)
        held = self._held.get(key)
        if held is None or held.numel() < size:
            held = self._held[key] = torch.empty(size, dtype=key[1], device=like.device)
        return held[:size].view(tuple(shape))
