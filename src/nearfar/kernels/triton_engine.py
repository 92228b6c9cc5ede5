"""The steps of an SI-layer as fused kernels for GPUs; needs triton. Not measured on a GPU.

They do what :mod:`nearfar.kernels.dense` does, with the few entries of each tap list instead of matrices
that are mostly zeros, as :mod:`nearfar.kernels.numba_engine` does. On a GPU memory is what limits, so
intermediate results are not written: a program has the running maximum of a tile of outputs, and its rank,
in registers while all scales go by, and stores them once. The backward pass is a gather as well: a program
sums all that belongs to its part of the maps. Nothing is added atomically, so results do not change from
run to run.

In exchange, the sum along rows is not shared between the outputs of a row. An output reads its row entries
times its column entries: 2 × 2 at most for restoring a level's output, but for tap maps as many as the
taps of the kernel, several times over. These reads overlap from output to output and mostly hit the cache.

With ``TRITON_INTERPRET=1`` before triton is imported, the kernels run on a CPU and give the same numbers,
which is how they are tested.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
import triton
import triton.language as tl
from torch import Tensor

from nearfar.kernels.plan import Rates
from nearfar.kernels.taps import Lists, Taps
from nearfar.kernels.workspace import Workspace

__all__ = ["GPU", "combine", "spread"]

#: The sparse rate is the CPU kernels': what an entry costs on a GPU has not been measured.
GPU = Rates(sparse=4.5, band=0, budget=1 << 26)

#: Elements of a program's tile, and its channels at most: 4 elements for each of 128 threads.
_TILE, _CHANNELS = 512, 64


# Ranks are many and would each be compiled for; nothing is gained by that.
_jit = triton.jit(do_not_specialize=["rank"])


# In both kernels a tile is some columns by some channels, and each column has a list of its own length.
# All lists are read in step, up to the end of the longest. Reads behind the end of a list are masked: an
# entry that does not exist must not bring in a NaN, which a coefficient of zero would let pass.
#
# Offsets of rows and images have 64 bits, since maps may have more than 2³¹ elements.


@_jit  # type: ignore[untyped-decorator]
def _combine(  # type: ignore[no-untyped-def]
    maps,
    maps_tap,
    maps_row,
    maps_image,
    best,
    best_image,
    best_row,
    best_column,
    won,
    won_image,
    won_row,
    won_column,
    row_start,
    row_tap,
    row_sample,
    row_value,
    column_start,
    column_tap,
    column_sample,
    column_value,
    outputs,
    columns,
    taps,
    channels,
    scales,
    rank,
    ranked: tl.constexpr,
    tile: tl.constexpr,
    block: tl.constexpr,
):
    """One output row of one image: a tile of its columns and channels, through all scales."""
    b, o = (tl.program_id(0) // outputs).to(tl.int64), (tl.program_id(0) % outputs).to(tl.int64)
    column = tl.program_id(1) * tile + tl.arange(0, tile)
    channel = tl.program_id(2) * block + tl.arange(0, block)
    is_column, is_channel = column < columns, (channel < channels)[None, :]
    is_inside = is_column[:, None] & is_channel
    dtype = row_value.dtype.element_ty
    c = column[:, None].to(tl.int64)
    best += b * best_image + o * best_row + c * best_column + channel[None, :]
    won += b * won_image + o * won_row + c * won_column + channel[None, :]
    # Where nothing is yet: less than anything, and won by the first to come.
    largest = tl.full([tile, block], float("-inf"), dtype)
    winner = tl.zeros([tile, block], tl.int32)
    if rank > 0:
        largest = tl.load(best, mask=is_inside, other=0).to(dtype)
        if ranked:
            winner = tl.load(won, mask=is_inside, other=0).to(tl.int32)
    for s in range(scales):
        q = s * columns + column
        first = tl.load(column_start + q, mask=is_column, other=0)
        length = tl.load(column_start + q + 1, mask=is_column, other=0) - first
        total = tl.zeros([tile, block], dtype)
        for t in range(tl.max(length, axis=0)):
            is_listed = t < length
            line = tl.load(column_sample + first + t, mask=is_listed, other=0) * taps
            line += tl.load(column_tap + first + t, mask=is_listed, other=0)
            value = tl.load(column_value + first + t, mask=is_listed, other=0)
            source = maps + b * maps_image + line[:, None] * channels + channel[None, :]
            is_read, row = is_listed[:, None] & is_channel, row_start + s * outputs + o
            total += value[:, None] * _along_rows(
                source, is_read, row, row_tap, row_sample, row_value, maps_tap, maps_row
            )
        # NaN wins and remains.
        better = (total > largest) | (total != total)
        largest = tl.where(better, total, largest)
        winner = tl.where(better, rank + s, winner)
    tl.store(best, largest.to(best.dtype.element_ty), mask=is_inside)
    if ranked:
        tl.store(won, winner.to(tl.uint8), mask=is_inside)


@triton.jit
def _along_rows(source, is_read, start, tap, sample, value, maps_tap, maps_row):  # type: ignore[no-untyped-def]
    """The sum over one row's list, of the samples at ``source`` in the rows that the list names."""
    dtype = value.dtype.element_ty
    total = tl.zeros(source.shape, dtype)
    for u in range(tl.load(start), tl.load(start + 1)):
        offset = tl.load(tap + u).to(tl.int64) * maps_tap
        offset += tl.load(sample + u).to(tl.int64) * maps_row
        total += tl.load(value + u) * tl.load(source + offset, mask=is_read, other=0).to(dtype)
    return total


@_jit  # type: ignore[untyped-decorator]
def _spread(  # type: ignore[no-untyped-def]
    maps,
    maps_tap,
    maps_row,
    maps_image,
    g,
    g_image,
    g_row,
    g_column,
    won,
    won_image,
    won_row,
    won_column,
    row_start,
    row_scale,
    row_output,
    row_value,
    column_start,
    column_output,
    column_value,
    samples,
    rows,
    lines,
    channels,
    rank,
    tile: tl.constexpr,
    block: tl.constexpr,
):
    """One row of one tap's map of one image: a tile of its columns (and horizontal taps) and channels."""
    b, r = (tl.program_id(0) // rows).to(tl.int64), tl.program_id(0) % rows
    line = tl.program_id(1) * tile + tl.arange(0, tile)
    channel = tl.program_id(2) * block + tl.arange(0, block)
    is_line, is_channel = line < lines, (channel < channels)[None, :]
    dtype = row_value.dtype.element_ty

    total = tl.zeros([tile, block], dtype)
    for u in range(tl.load(row_start + r), tl.load(row_start + r + 1)):
        s, o = tl.load(row_scale + u), tl.load(row_output + u).to(tl.int64)
        q = s * lines + line
        first = tl.load(column_start + q, mask=is_line, other=0)
        length = tl.load(column_start + q + 1, mask=is_line, other=0) - first
        along = tl.zeros([tile, block], dtype)
        for t in range(tl.max(length, axis=0)):
            is_listed = t < length
            c = tl.load(column_output + first + t, mask=is_listed, other=0)[:, None].to(tl.int64)
            value = tl.load(column_value + first + t, mask=is_listed, other=0)
            is_read = is_listed[:, None] & is_channel
            winner = won + b * won_image + o * won_row + c * won_column + channel[None, :]
            is_own = tl.load(winner, mask=is_read, other=0).to(tl.int32) == rank + s
            source = g + b * g_image + o * g_row + c * g_column + channel[None, :]
            gradient = tl.load(source, mask=is_read & is_own, other=0)
            along += value[:, None] * gradient.to(dtype)
        total += tl.load(row_value + u) * along

    offset = (r // samples).to(tl.int64) * maps_tap + (r % samples).to(tl.int64) * maps_row
    target = maps + b * maps_image + offset + line[:, None] * channels + channel[None, :]
    tl.store(target, total.to(maps.dtype.element_ty), mask=is_line[:, None] & is_channel)


def combine(
    maps: Tensor,
    rows: Taps,
    columns: Taps,
    best: Tensor,
    won: Tensor | None,
    rank: int,
    workspace: Workspace,
) -> None:
    """As :func:`nearfar.kernels.dense.combine`, but NaN wins, and only where it is read.

    ``best`` and ``won`` are contiguous in their channels, ``maps`` in all axes after the images.
    """
    batch, channels = maps.shape[2], maps.shape[-1]
    tile, block = _tile(columns.outputs, channels)
    winner = best if won is None else won
    over_columns = (triton.cdiv(columns.outputs, tile), triton.cdiv(channels, block))
    with _on(maps):
        _combine[(batch * rows.outputs, *over_columns)](
            *(maps, *maps.stride()[:3]),
            *(best, *best.stride()[:3]),
            *(winner, *winner.stride()[:3]),
            *_lists(rows, "forward", maps),
            *_lists(columns, "forward", maps),
            *(rows.outputs, columns.outputs, columns.taps, channels, rows.scales, rank),
            ranked=won is not None,
            tile=tile,
            block=block,
        )


def spread(
    g: Tensor, won: Tensor, rows: Taps, columns: Taps, rank: int, maps: Tensor, workspace: Workspace
) -> None:
    """As :func:`nearfar.kernels.dense.spread`."""
    batch, channels = maps.shape[2], maps.shape[-1]
    lines = columns.samples * columns.taps
    tile, block = _tile(lines, channels)
    start, _, output, value = _lists(columns, "backward_by_scale", maps)
    programs = batch * rows.taps * rows.samples
    with _on(maps):
        _spread[(programs, triton.cdiv(lines, tile), triton.cdiv(channels, block))](
            *(maps, *maps.stride()[:3]),
            *(g, *g.stride()[:3]),
            *(won, *won.stride()[:3]),
            *_lists(rows, "backward", maps),
            *(start, output, value),
            *(rows.samples, rows.taps * rows.samples, lines, channels, rank),
            tile=tile,
            block=block,
        )


def _tile(columns: int, channels: int) -> tuple[int, int]:
    """Columns and channels of a program's tile; as many channels as fit, because they are contiguous."""
    block: int = min(_CHANNELS, triton.next_power_of_2(channels))
    tile: int = min(_TILE // block, triton.next_power_of_2(columns))
    return tile, block


def _lists(taps: Taps, name: str, like: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The lists on the maps' device; the type of their coefficients is the one that is summed in."""
    dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
    key = ("triton", name, dtype, like.device)
    if key not in taps.cache:
        lists: Lists = getattr(taps, name)
        indices = (lists.start, lists.tap, lists.sample)
        start, tap, sample = (t.to(like.device, torch.int32) for t in indices)
        value = lists.coefficient.to(like.device, dtype)
        taps.cache.setdefault(key, (start, tap, sample, value))
    cached: tuple[Tensor, Tensor, Tensor, Tensor] = taps.cache[key]
    return cached


def _on(like: Tensor) -> AbstractContextManager[object]:
    """The tensor's device as the current one, on which Triton launches."""
    return torch.cuda.device(like.device) if like.device.type == "cuda" else nullcontext()
