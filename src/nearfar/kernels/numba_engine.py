"""The steps of an SI-layer as kernels compiled on first use, for CPUs; needs numba.

They do what :mod:`nearfar.kernels.dense` does, with the few entries of each tap list instead of matrices
that are mostly zeros, and the maximum in the same pass.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from nearfar.kernels.llvm_gather import gather, gather_max, gather_won, integer
from nearfar.kernels.plan import Rates
from nearfar.kernels.taps import Lists, Taps
from nearfar.kernels.workspace import Workspace, map_range

__all__ = ["CPU", "combine", "spread"]

CPU = Rates(sparse=4.5, band=0, budget=1 << 20, least=1 << 14)

_jit = numba.njit(nogil=True, cache=True, boundscheck=False)


# Every kernel takes its counts, strides and addresses as one array: converting two dozen arguments
# would cost as much as a small kernel's work.


@_jit
def _combine(zero, begin, end, frame):  # type: ignore[no-untyped-def]
    """Output rows ``begin`` to ``end`` of all images: along rows into ``mixed``, along columns out."""
    size, outputs, scales, columns, line, channels, rank = frame[:7]
    maps, image, mixed, best, best_image, best_row, best_column, won = frame[7:15]
    row_start, row_index, row_value, column_start, column_index, column_value = frame[15:21]
    for work in range(begin, end):
        b, o = work // outputs, work % outputs
        source = maps + b * image * size
        to = b * best_image + o * best_row
        for s in range(scales):
            r = s * outputs + o
            t, u = integer(row_start, r), integer(row_start, r + 1)
            gather(zero, mixed, source, row_index, row_value, t, u, line)
            for c in range(columns):
                q = s * columns + c
                position = to + c * best_column
                t, u = integer(column_start, q), integer(column_start, q + 1)
                # What comes first is not compared: nothing is there yet.
                if rank + s == 0:
                    target = best + position * size
                    gather(zero, target, mixed, column_index, column_value, t, u, channels)
                else:
                    gather_max(
                        zero,
                        best + position * size,
                        won + position if won else 0,
                        mixed,
                        column_index,
                        column_value,
                        t,
                        u,
                        channels,
                        rank + s,
                    )


@_jit
def _spread_columns(zero, begin, end, frame):  # type: ignore[no-untyped-def]
    """Output rows ``begin`` to ``end`` of all images: what each scale won, along columns into ``mixed``."""
    size, outputs, scales, positions, line, channels, rank = frame[:7]
    mixed, g, g_image, g_row, won, start, index, value = frame[7:15]
    for work in range(begin, end):
        b, o = work // outputs, work % outputs
        source = b * g_image + o * g_row
        for s in range(scales):
            to = ((b * scales + s) * outputs + o) * line
            for p in range(positions):
                q = s * positions + p
                gather_won(
                    zero,
                    mixed + (to + p * channels) * size,
                    g + source * size,
                    won + source,
                    index,
                    value,
                    integer(start, q),
                    integer(start, q + 1),
                    channels,
                    rank + s,
                )


@_jit
def _spread_rows(zero, begin, end, frame):  # type: ignore[no-untyped-def]
    """Map rows ``begin`` to ``end`` of all images and taps: along rows from ``mixed``."""
    size, samples, taps, line, part = frame[:5]
    maps, tap, row, image, mixed, start, index, value = frame[5:13]
    for work in range(begin, end):
        b, r = work // (taps * samples), work % (taps * samples)
        to = maps + ((r // samples) * tap + (r % samples) * row + b * image) * size
        t, u = integer(start, r), integer(start, r + 1)
        gather(zero, to, mixed + b * part * size, index, value, t, u, line)


def combine(
    maps: Tensor,
    rows: Taps,
    columns: Taps,
    best: Tensor,
    won: Tensor | None,
    rank: int,
    workspace: Workspace,
) -> None:
    """As :func:`nearfar.kernels.dense.combine`."""
    batch, channels = maps.shape[2], maps.shape[-1]
    line = maps.shape[3] * maps.shape[4] * channels
    threads = torch.get_num_threads()
    mixed = workspace.take("mixed", (threads, line), maps)
    frame = [
        *(maps.element_size(), rows.outputs, rows.scales, columns.outputs, line, channels, rank),
        *(maps.data_ptr(), maps.stride(2), 0),
        *(best.data_ptr(), best.stride(0), best.stride(1), best.stride(2)),
        0 if won is None else won.data_ptr(),
        *_lists(rows, "forward", maps, maps.stride(0), maps.stride(1)),
        *_lists(columns, "forward", maps, channels, maps.shape[4] * channels),
    ]

    def work(thread: int, begin: int, end: int) -> None:
        thread_frame = np.array(frame)
        thread_frame[9] = mixed[thread].data_ptr()
        _combine(_zero(maps), begin, end, thread_frame)

    map_range(work, batch * rows.outputs, threads)


def spread(
    g: Tensor, won: Tensor, rows: Taps, columns: Taps, rank: int, maps: Tensor, workspace: Workspace
) -> None:
    """As :func:`nearfar.kernels.dense.spread`."""
    batch, channels = maps.shape[2], maps.shape[-1]
    size, positions = maps.element_size(), columns.samples * columns.taps
    line = positions * channels
    threads = torch.get_num_threads()
    mixed = workspace.take("mixed", (batch, rows.scales, rows.outputs, line), maps)
    over_columns = np.array(
        [
            *(size, rows.outputs, rows.scales, positions, line, channels, rank, mixed.data_ptr()),
            *(g.data_ptr(), g.stride(0), g.stride(1), won.data_ptr()),
            *_lists(columns, "backward_by_scale", maps, 0, g.stride(2)),
        ]
    )
    over_rows = np.array(
        [
            *(size, rows.samples, rows.taps, line, mixed.stride(0)),
            *(maps.data_ptr(), maps.stride(0), maps.stride(1), maps.stride(2), mixed.data_ptr()),
            *_lists(rows, "backward", maps, rows.outputs * line, line),
        ]
    )
    zero = _zero(maps)
    map_range(
        lambda _, begin, end: _spread_columns(zero, begin, end, over_columns),
        batch * rows.outputs,
        threads,
    )
    map_range(
        lambda _, begin, end: _spread_rows(zero, begin, end, over_rows),
        batch * rows.taps * rows.samples,
        threads,
    )


def _zero(maps: Tensor) -> Any:
    """A zero of the elements' type, from which a kernel takes that type."""
    return np.float32(0) if maps.dtype == torch.float32 else np.float64(0)


def _lists(taps: Taps, name: str, like: Tensor, tap: int, sample: int) -> tuple[int, int, int]:
    """Addresses of a tap list's arrays: starts, offsets and coefficients.

    Args:
        taps: with the lists.
        name: of the list.
        like: a tensor of the coefficients' type.
        tap, sample: from a tap, and a sample, to the next in the maps, in elements.
    """
    key = (name, like.dtype, tap, sample)
    if key not in taps.cache:
        lists: Lists = getattr(taps, name)
        arrays = (
            lists.start.contiguous(),
            (lists.tap * tap + lists.sample * sample).contiguous(),
            lists.coefficient.to(like.dtype).contiguous(),
        )
        # What was cached first stays: another thread may be reading at its addresses.
        taps.cache.setdefault(key, (arrays, tuple(array.data_ptr() for array in arrays)))
    addresses: tuple[int, int, int] = taps.cache[key][1]
    return addresses
