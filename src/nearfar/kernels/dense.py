"""The steps of an SI-layer in plain PyTorch: matrix products, on any device.

Maps are ``[taps, rows, B, columns, taps', C]``: vertical taps, then positions with the image between row
and column, then horizontal taps, then channels. In this order a combination along rows is one matrix product
and a combination along columns is a batch of them, and nothing is transposed.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from nearfar.kernels.plan import Rates
from nearfar.kernels.taps import Taps
from nearfar.kernels.workspace import Workspace

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
    workspace: Workspace,
) -> None:
    """Each scale's outputs from its maps, and their maximum with what ``best`` holds already.

    Args:
        maps: ``[taps, rows, B, columns, taps', C]``.
        rows, columns: where each output reads them.
        best: ``[B, rows, columns, C]``, the largest outputs so far; changed.
        won: the same, uint8: the ranks of the scales they come from; changed. None if not needed.
        rank: of the first of these scales; the others follow. At rank 0, ``best`` holds nothing yet.
        workspace: scratch memory.
    """
    batch, channels = maps.shape[2], maps.shape[-1]
    tall = _tall(rows, maps)
    # Tap maps are summed at full precision; for 16-bit types that is single.
    flat = maps.to(tall.dtype).reshape(tall.shape[1], -1)
    mixed = workspace.take("mixed", (tall.shape[0], flat.shape[1]), tall)
    torch.mm(tall, flat, out=mixed)
    mixed = mixed.view(rows.scales, rows.outputs * batch, -1, channels)
    for first, last, low, high, wide in _column_bands(columns, maps):
        size = (rows.outputs, batch, last - first, channels)
        out = workspace.take("out", size, tall)
        best_band, shape = best[:, :, first:last].transpose(0, 1), (-1, last - first, channels)
        inputs = mixed[:, :, low * columns.taps : high * columns.taps]
        if won is not None:
            better, ranks = workspace.take("better", size, tall), workspace.take("rank", size, tall)
            ranks.zero_()
        for s in range(rows.scales):
            torch.bmm(wide[s].expand(inputs.shape[1], -1, -1), inputs[s], out=out.view(shape))
            if rank + s == 0:
                best_band.copy_(out)
                continue
            if won is not None:
                # Comparing into numbers is vectorised; into booleans it is not. Later ranks are
                # larger, so a maximum leaves the last to be better.
                torch.gt(out, best_band, out=better)
                torch.maximum(ranks, better.mul_(rank + s), out=ranks)
            torch.maximum(best_band, out, out=best_band)
        if won is not None:
            owner = won[:, :, first:last].transpose(0, 1)
            torch.maximum(owner, ranks.to(torch.uint8), out=owner)


def spread(
    g: Tensor, won: Tensor, rows: Taps, columns: Taps, rank: int, maps: Tensor, workspace: Workspace
) -> None:
    """The adjoint: each output's gradient to the maps of the scale that won it.

    Args:
        g: ``[B, rows, columns, C]``.
        won, rows, columns, rank, workspace: as in :func:`combine`.
        maps: their gradient, written over.
    """
    batch, channels = maps.shape[2], maps.shape[-1]
    tall, wide = _tall(rows, maps), _wide(columns, maps)
    shape = (rows.scales, rows.outputs * batch, wide.shape[-1], channels)
    mixed = workspace.take("mixed", shape, tall)
    own = workspace.take("own", (rows.outputs, batch, columns.outputs, channels), tall)
    is_own = workspace.take("is_own", own.shape, tall, torch.uint8)
    for s in range(rows.scales):
        # Products of unlike types are not vectorised; two passes of like ones are faster.
        torch.eq(won.transpose(0, 1), rank + s, out=is_own)
        own.copy_(is_own).mul_(g.transpose(0, 1))
        torch.bmm(
            wide[s].mT.expand(shape[1], -1, -1), own.view(shape[1], -1, channels), out=mixed[s]
        )
    flat = (tall.shape[1], mixed[0, 0].numel() * batch)
    if maps.is_contiguous() and maps.dtype == tall.dtype:
        torch.mm(tall.mT, mixed.view(tall.shape[0], -1), out=maps.view(flat))
    else:
        out = workspace.take("out", flat, tall)
        torch.mm(tall.mT, mixed.view(tall.shape[0], -1), out=out)
        maps.copy_(out.view(maps.shape))


def _tall(rows: Taps, maps: Tensor) -> Tensor:
    """``[scales · outputs, taps · rows]``, in the order in which the maps lie."""
    return _cached(rows, "tall", maps, lambda: rows.matrix.flatten(1))


def _wide(columns: Taps, maps: Tensor) -> Tensor:
    """``[scales, 1, outputs, columns · taps]``."""
    shape = (columns.scales, 1, columns.outputs, -1)
    return _cached(columns, "wide", maps, lambda: columns.matrix.transpose(1, 2).reshape(shape))


def _column_bands(columns: Taps, maps: Tensor) -> list[tuple[int, int, int, int, Tensor]]:
    """Outputs ``first`` to ``last``, the samples ``low`` to ``high`` they read, and the matrix of that."""
    key = ("bands", maps.dtype, maps.device)
    if key not in columns.cache:
        count = max(1, round(columns.outputs / _WIDEST)) if maps.device.type == "cpu" else 1
        edges = [columns.outputs * i // count for i in range(count + 1)]
        bands = []
        for first, last in pairwise(edges):
            taps, low, high = columns.band(first, last)
            bands.append((first, last, low, high, _wide(taps, maps)))
        columns.cache[key] = bands
    cached: list[tuple[int, int, int, int, Tensor]] = columns.cache[key]
    return cached


def _cached(taps: Taps, name: str, like: Tensor, make: Callable[[], Tensor]) -> Tensor:
    """A matrix in the maps' type, on their device; cached, because moving it costs more than using it."""
    dtype = torch.float32 if like.dtype.itemsize < 4 else like.dtype
    key = (name, dtype, like.device)
    if key not in taps.cache:
        taps.cache[key] = make().to(like.device, dtype)
    matrix: Tensor = taps.cache[key]
    return matrix
