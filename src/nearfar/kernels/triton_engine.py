"""The steps of an SI-layer as fused kernels for GPUs; needs triton. Not measured on a GPU.

They do what :mod:`nearfar.kernels.dense` does, as :mod:`nearfar.kernels.native` does it: with the few
entries of each tap list instead of matrices that are mostly zeros. What a GPU waits for is memory, so
nothing is written in between: a program holds the running maximum of a tile of outputs, and its rank,
while all scales go by, and stores them once. The way back is a gather as well: a program sums all that
comes to its part of the maps. Nothing is added atomically, so results do not change from run to run.

The price is that the sum along rows is not shared between the outputs of a row. An output reads its row
entries times its column entries: 2 × 2 at most for restoring a level's answer, but for tap maps as many
as the taps of the kernel, several times over. These reads overlap from output to output and mostly meet
the cache.

Interpreted on a CPU (``TRITON_INTERPRET=1`` before triton is imported) the kernels give the same numbers;
so the tests see them.
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
# The lists are walked side by side up to the end of the longest. Reads behind the end of a list are
# masked: an entry that is not there must not bring in a NaN, which a coefficient of zero would let pass.
#
# Offsets of rows and images are 64 bits wide, since maps may have more than 2³¹ elements.


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
    b, o = (tl.program_id(0) // outputs).to(tl.int64), tl.program_id(0) % outputs
    column = tl.program_id(1) * tile + tl.arange(0, tile)
    channel = tl.program_id(2) * block + tl.arange(0, block)
    here, there = column < columns, (channel < channels)[None, :]
    inside = here[:, None] & there
    kind = row_value.dtype.element_ty

    place = b * best_image + o.to(tl.int64) * best_row
    held = best + place + column[:, None].to(tl.int64) * best_column + channel[None, :]
    place = b * won_image + o.to(tl.int64) * won_row
    owner = won + place + column[:, None].to(tl.int64) * won_column + channel[None, :]
    # Where nothing is there yet: less than anything, and owned by the first to come.
    most = tl.full([tile, block], float("-inf"), kind)
    whose = tl.zeros([tile, block], tl.int32)
    if rank > 0:
        most = tl.load(held, mask=inside, other=0).to(kind)
        if ranked:
            whose = tl.load(owner, mask=inside, other=0).to(tl.int32)

    for s in range(scales):
        r = s * outputs + o
        row_first, row_end = tl.load(row_start + r), tl.load(row_start + r + 1)
        q = s * columns + column
        first = tl.load(column_start + q, mask=here, other=0)
        length = tl.load(column_start + q + 1, mask=here, other=0) - first
        found = tl.zeros([tile, block], kind)
        for t in range(tl.max(length, axis=0)):
            listed = t < length
            line = tl.load(column_sample + first + t, mask=listed, other=0) * taps
            line += tl.load(column_tap + first + t, mask=listed, other=0)
            value = tl.load(column_value + first + t, mask=listed, other=0)
            offset = line[:, None] * channels + channel[None, :]
            read = listed[:, None] & there
            along = tl.zeros([tile, block], kind)
            for u in range(row_first, row_end):
                source = maps + b * maps_image
                source += tl.load(row_tap + u).to(tl.int64) * maps_tap
                source += tl.load(row_sample + u).to(tl.int64) * maps_row
                seen = tl.load(source + offset, mask=read, other=0)
                along += tl.load(row_value + u) * seen.to(kind)
            found += value[:, None] * along
        # NaN takes the place and keeps it.
        better = (found > most) | (found != found)
        most = tl.where(better, found, most)
        whose = tl.where(better, rank + s, whose)

    tl.store(held, most.to(best.dtype.element_ty), mask=inside)
    if ranked:
        tl.store(owner, whose.to(tl.uint8), mask=inside)


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
    here, there = line < lines, (channel < channels)[None, :]
    kind = row_value.dtype.element_ty

    total = tl.zeros([tile, block], kind)
    for u in range(tl.load(row_start + r), tl.load(row_start + r + 1)):
        s, o = tl.load(row_scale + u), tl.load(row_output + u).to(tl.int64)
        q = s * lines + line
        first = tl.load(column_start + q, mask=here, other=0)
        length = tl.load(column_start + q + 1, mask=here, other=0) - first
        along = tl.zeros([tile, block], kind)
        for t in range(tl.max(length, axis=0)):
            listed = t < length
            c = tl.load(column_output + first + t, mask=listed, other=0)[:, None].to(tl.int64)
            value = tl.load(column_value + first + t, mask=listed, other=0)
            read = listed[:, None] & there
            owner = won + b * won_image + o * won_row + c * won_column + channel[None, :]
            mine = tl.load(owner, mask=read, other=0).to(tl.int32) == rank + s
            source = g + b * g_image + o * g_row + c * g_column + channel[None, :]
            seen = tl.load(source, mask=read & mine, other=0)
            along += value[:, None] * seen.to(kind)
        total += tl.load(row_value + u) * along

    place = (r // samples).to(tl.int64) * maps_tap + (r % samples).to(tl.int64) * maps_row
    target = maps + b * maps_image + place + line[:, None] * channels + channel[None, :]
    tl.store(target, total.to(maps.dtype.element_ty), mask=here[:, None] & there)


def combine(
    maps: Tensor,
    rows: Taps,
    columns: Taps,
    best: Tensor,
    won: Tensor | None,
    rank: int,
    workspace: Workspace,
) -> None:
    """As :func:`nearfar.kernels.dense.combine`, but that NaN wins, and only where it is read.

    The channels of ``best`` and ``won`` lie side by side; everything behind the images of ``maps`` does.
    """
    batch, channels = maps.shape[2], maps.shape[-1]
    tile, block = _tile(columns.outputs, channels)
    owner = best if won is None else won
    over_columns = (triton.cdiv(columns.outputs, tile), triton.cdiv(channels, block))
    with _on(maps):
        _combine[(batch * rows.outputs, *over_columns)](
            *(maps, *maps.stride()[:3]),
            *(best, *best.stride()[:3]),
            *(owner, *owner.stride()[:3]),
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
    """Columns and channels of a program's tile; channels first, because they lie side by side."""
    block: int = min(_CHANNELS, triton.next_power_of_2(channels))
    tile: int = min(_TILE // block, triton.next_power_of_2(columns))
    return tile, block


def _lists(taps: Taps, name: str, like: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The lists beside the maps; the type of their coefficients is the one that sums are made in."""
    dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
    key = ("triton", name, dtype, like.device)
    if key not in taps.cache:
        lists: Lists = getattr(taps, name)
        indices = (lists.start, lists.tap, lists.sample)
        start, tap, sample = (t.to(like.device, torch.int32) for t in indices)
        value = lists.coefficient.to(like.device, dtype)
        taps.cache.setdefault(key, (start, tap, sample, value))
    found: tuple[Tensor, Tensor, Tensor, Tensor] = taps.cache[key]
    return found


def _on(like: Tensor) -> AbstractContextManager[object]:
    """Triton launches on the current device, which need not be where the maps are."""
    return torch.cuda.device(like.device) if like.device.type == "cuda" else nullcontext()
