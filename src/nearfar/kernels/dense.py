"""The steps of an SI-layer in plain PyTorch: matrix products, on any device.

Maps are ``[taps, rows, B, columns, taps', C]``: vertical taps, then places with the image between row and
column, then horizontal taps, then channels. In this order a combination along rows is one matrix product
and a combination along columns is a batch of them, and nothing is transposed.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from nearfar.kernels.plan import Rates
from nearfar.kernels.room import Room
from nearfar.kernels.taps import Taps

__all__ = ["CPU", "GPU", "combine", "spread"]

CPU = Rates(sparse=0.0, band=14, budget=1 << 20, least=1 << 16)
#: Columns of outputs combined at once on a CPU: matrices of wider maps are mostly zeros.
_WIDEST = 20
GPU = Rates(sparse=0.0, band=28, budget=1 << 26)


def combine(
    maps: Tensor,
    rows: Taps,
    columns: Taps,
    best: Tensor,
    won: Tensor | None,
    rank: int,
    room: Room,
) -> None:
    """Answers of each scale from its maps, and their maximum with what is there already.

    Args:
        maps: ``[taps, rows, B, columns, taps', C]``.
        rows, columns: where each output reads them.
        best: ``[B, rows, columns, C]``, the largest answers so far; changed.
        won: the same, uint8: whose they are; changed. None where nobody asks.
        rank: what the first of these scales is called in ``won``; the others follow.
        room: scratch memory.
    """
    batch, channels = maps.shape[2], maps.shape[-1]
    tall = _tall(rows, maps)
    # Tap maps are summed at full precision; for 16-bit types that is single.
    flat = maps.to(tall.dtype).reshape(tall.shape[1], -1)
    mixed = room.take("mixed", (tall.shape[0], flat.shape[1]), tall)
    torch.mm(tall, flat, out=mixed)
    mixed = mixed.view(rows.scales, rows.outputs * batch, -1, channels)
    for first, last, low, high, wide in _column_bands(columns, maps):
        places = (rows.outputs, batch, last - first, channels)
        found = room.take("found", places, tall)
        was, shape = best[:, :, first:last].transpose(0, 1), (-1, last - first, channels)
        seen = mixed[:, :, low * columns.taps : high * columns.taps]
        if won is not None:
            better, here = room.take("better", places, tall), room.take("rank", places, tall)
            here.zero_()
        for s in range(rows.scales):
            torch.bmm(wide[s].expand(seen.shape[1], -1, -1), seen[s], out=found.view(shape))
            if rank + s == 0:
                was.copy_(found)  # nothing is there yet
                continue
            if won is not None:
                # Comparing into numbers is vectorised; into booleans it is not. Later ranks are
                # larger, so a maximum keeps the last to be better.
                torch.gt(found, was, out=better)
                torch.maximum(here, better.mul_(rank + s), out=here)
            torch.maximum(was, found, out=was)
        if won is not None:
            owner = won[:, :, first:last].transpose(0, 1)
            torch.maximum(owner, here.to(torch.uint8), out=owner)


def spread(
    g: Tensor, won: Tensor, rows: Taps, columns: Taps, rank: int, maps: Tensor, room: Room
) -> None:
    """The adjoint: each output's gradient to the maps of the scale that won it.

    Args:
        g: ``[B, rows, columns, C]``.
        won, rows, columns, rank, room: as in :func:`combine`.
        maps: their gradient, written over.
    """
    batch, channels = maps.shape[2], maps.shape[-1]
    tall, wide = _tall(rows, maps), _wide(columns, maps)
    shape = (rows.scales, rows.outputs * batch, wide.shape[-1], channels)
    mixed = room.take("mixed", shape, tall)
    mine = room.take("mine", (rows.outputs, batch, columns.outputs, channels), tall)
    is_mine = room.take("is_mine", mine.shape, tall, torch.uint8)
    for s in range(rows.scales):
        # Products of unlike types are not vectorised; two passes of like ones are faster.
        torch.eq(won.transpose(0, 1), rank + s, out=is_mine)
        mine.copy_(is_mine).mul_(g.transpose(0, 1))
        torch.bmm(
            wide[s].mT.expand(shape[1], -1, -1), mine.view(shape[1], -1, channels), out=mixed[s]
        )
    flat = (tall.shape[1], mixed[0, 0].numel() * batch)
    if maps.is_contiguous() and maps.dtype == tall.dtype:
        torch.mm(tall.mT, mixed.view(tall.shape[0], -1), out=maps.view(flat))
    else:
        found = torch.mm(tall.mT, mixed.view(tall.shape[0], -1), out=room.take("found", flat, tall))
        maps.copy_(found.view(maps.shape))


def _tall(rows: Taps, maps: Tensor) -> Tensor:
    """``[scales · outputs, taps · rows]``, in the order in which the maps lie."""
    return _kept(rows, "tall", maps, lambda: rows.matrix.flatten(1))


def _wide(columns: Taps, maps: Tensor) -> Tensor:
    """``[scales, 1, outputs, columns · taps]``."""
    shape = (columns.scales, 1, columns.outputs, -1)
    return _kept(columns, "wide", maps, lambda: columns.matrix.transpose(1, 2).reshape(shape))


def _column_bands(columns: Taps, maps: Tensor) -> list[tuple[int, int, int, int, Tensor]]:
    """Outputs ``first`` to ``last``, the samples ``low`` to ``high`` they read, and the matrix of that."""
    key = ("bands", maps.dtype, maps.device)
    if key not in columns.kept:
        count = max(1, round(columns.outputs / _WIDEST)) if maps.device.type == "cpu" else 1
        edges = [columns.outputs * i // count for i in range(count + 1)]
        found = []
        for first, last in pairwise(edges):
            taps, low, high = columns.band(first, last)
            found.append((first, last, low, high, _wide(taps, maps)))
        columns.kept[key] = found
    bands: list[tuple[int, int, int, int, Tensor]] = columns.kept[key]
    return bands


def _kept(taps: Taps, name: str, like: Tensor, make: Callable[[], Tensor]) -> Tensor:
    """A matrix in the maps' type and place; kept, because moving it costs more than using it."""
    dtype = torch.float32 if like.dtype.itemsize < 4 else like.dtype
    key = (name, dtype, like.device)
    if key not in taps.kept:
        taps.kept[key] = make().to(like.device, dtype)
    found: Tensor = taps.kept[key]
    return found
