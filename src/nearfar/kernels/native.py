"""The steps of an SI-layer as kernels compiled on first use, for CPUs; needs numba.

They do what :mod:`nearfar.kernels.dense` does, with the few entries of each tap list instead of matrices
that are mostly zeros, and the maximum in the same pass.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from nearfar.kernels.lanes import gather, gather_max, gather_won
from nearfar.kernels.plan import Rates
from nearfar.kernels.room import Room
from nearfar.kernels.taps import Lists, Taps

__all__ = ["CPU", "combine", "spread"]

CPU = Rates(sparse=4.5, band=0, budget=1 << 19)

_jit = numba.njit(nogil=True, cache=True, boundscheck=False)


@_jit  # type: ignore[untyped-decorator]
def _combine(  # type: ignore[no-untyped-def]
    zero,
    begin,
    end,
    size,
    outputs,
    scales,
    maps,
    image,
    line,
    mixed,
    row_start,
    row_index,
    row_value,
    columns,
    column_start,
    column_index,
    column_value,
    best,
    best_image,
    best_row,
    best_column,
    won,
    channels,
    rank,
):
    """Output rows ``begin`` to ``end`` of all images: along rows into ``mixed``, along columns out."""
    for work in range(begin, end):
        b, o = work // outputs, work % outputs
        source = maps + b * image * size
        to = b * best_image + o * best_row
        for s in range(scales):
            r = s * outputs + o
            gather(
                zero, mixed, source, row_index, row_value, row_start[r], row_start[r + 1], line
            )
            for c in range(columns):
                q = s * columns + c
                place = to + c * best_column
                gather_max(
                    zero,
                    best + place * size,
                    won + place,
                    mixed,
                    column_index,
                    column_value,
                    column_start[q],
                    column_start[q + 1],
                    channels,
                    rank + s,
                )


@_jit  # type: ignore[untyped-decorator]
def _spread_columns(  # type: ignore[no-untyped-def]
    zero,
    begin,
    end,
    size,
    outputs,
    scales,
    places,
    mixed,
    start,
    index,
    value,
    g,
    won,
    g_image,
    g_row,
    channels,
    rank,
):
    """Output rows ``begin`` to ``end`` of all images: what each scale won, along columns into ``mixed``."""
    line = places * channels
    for work in range(begin, end):
        b, o = work // outputs, work % outputs
        source = b * g_image + o * g_row
        for s in range(scales):
            to = ((b * scales + s) * outputs + o) * line
            for p in range(places):
                q = s * places + p
                gather_won(
                    zero,
                    mixed + (to + p * channels) * size,
                    g + source * size,
                    won + source,
                    index,
                    value,
                    start[q],
                    start[q + 1],
                    channels,
                    rank + s,
                )


@_jit  # type: ignore[untyped-decorator]
def _spread_rows(  # type: ignore[no-untyped-def]
    zero,
    begin,
    end,
    size,
    samples,
    taps,
    maps,
    tap,
    row,
    image,
    line,
    mixed,
    part,
    start,
    index,
    value,
):
    """Map rows ``begin`` to ``end`` of all images and taps: along rows from ``mixed``."""
    for work in range(begin, end):
        b, r = work // (taps * samples), work % (taps * samples)
        to = (r // samples) * tap + (r % samples) * row + b * image
        source = mixed + b * part * size
        gather(zero, maps + to * size, source, index, value, start[r], start[r + 1], line)


def combine(
    maps: Tensor, rows: Taps, columns: Taps, best: Tensor, won: Tensor, rank: int, room: Room
) -> None:
    """As :func:`nearfar.kernels.dense.combine`."""
    batch, channels = maps.shape[2], maps.shape[-1]
    line = maps.shape[3] * maps.shape[4] * channels
    zero, size, kind = _element(maps)
    along_rows = rows.forward
    along_columns = columns.forward
    threads = torch.get_num_threads()
    mixed = room.take("mixed", (threads, line), maps)
    row_index = _offsets(rows, "rows", along_rows, maps.stride(0), maps.stride(1))
    column_index = _offsets(columns, "columns", along_columns, channels, maps.shape[4] * channels)
    row_value, column_value = (_values(t, "forward", kind) for t in (rows, columns))
    row_start, column_start = along_rows.start.numpy(), along_columns.start.numpy()

    def work(thread: int, begin: int, end: int) -> None:
        _combine(
            zero,
            begin,
            end,
            size,
            rows.outputs,
            rows.scales,
            maps.data_ptr(),
            maps.stride(2),
            line,
            mixed[thread].data_ptr(),
            row_start,
            row_index.ctypes.data,
            row_value.ctypes.data,
            columns.outputs,
            column_start,
            column_index.ctypes.data,
            column_value.ctypes.data,
            best.data_ptr(),
            best.stride(0),
            best.stride(1),
            best.stride(2),
            won.data_ptr(),
            channels,
            rank,
        )

    _share(work, batch * rows.outputs, threads)


def spread(
    g: Tensor, won: Tensor, rows: Taps, columns: Taps, rank: int, maps: Tensor, room: Room
) -> None:
    """As :func:`nearfar.kernels.dense.spread`."""
    batch, channels = maps.shape[2], maps.shape[-1]
    zero, size, kind = _element(maps)
    places = columns.samples * columns.taps
    line = places * channels
    threads = torch.get_num_threads()
    mixed = room.take("mixed", (batch, rows.scales, rows.outputs, line), maps)
    along_columns, along_rows = columns.backward_by_scale, rows.backward
    column_index = _offsets(columns, "back", along_columns, 0, g.stride(2))
    row_index = _offsets(rows, "back", along_rows, rows.outputs * line, line)
    column_value = _values(columns, "backward_by_scale", kind)
    row_value = _values(rows, "backward", kind)
    column_start, row_start = along_columns.start.numpy(), along_rows.start.numpy()

    def over_columns(thread: int, begin: int, end: int) -> None:
        _spread_columns(
            zero,
            begin,
            end,
            size,
            rows.outputs,
            rows.scales,
            places,
            mixed.data_ptr(),
            column_start,
            column_index.ctypes.data,
            column_value.ctypes.data,
            g.data_ptr(),
            won.data_ptr(),
            g.stride(0),
            g.stride(1),
            channels,
            rank,
        )

    def over_rows(thread: int, begin: int, end: int) -> None:
        _spread_rows(
            zero,
            begin,
            end,
            size,
            rows.samples,
            rows.taps,
            maps.data_ptr(),
            maps.stride(0),
            maps.stride(1),
            maps.stride(2),
            line,
            mixed.data_ptr(),
            mixed[0].numel(),
            row_start,
            row_index.ctypes.data,
            row_value.ctypes.data,
        )

    _share(over_columns, batch * rows.outputs, threads)
    _share(over_rows, batch * rows.taps * rows.samples, threads)


def _element(maps: Tensor) -> tuple[Any, int, Any]:
    """A zero of the maps' type, the bytes of one, and the type."""
    kind = np.float32 if maps.dtype == torch.float32 else np.float64
    return kind(0), maps.element_size(), kind


def _offsets(taps: Taps, name: str, lists: Lists, tap: int, sample: int) -> Any:
    """Where each entry's row begins, for maps that lie so."""
    key = (name, tap, sample)
    if key not in taps.kept:
        taps.kept[key] = (lists.tap * tap + lists.sample * sample).numpy()
    return taps.kept[key]


def _values(taps: Taps, name: str, kind: Any) -> Any:
    key = ("values", name, kind)
    if key not in taps.kept:
        taps.kept[key] = getattr(taps, name).coefficient.numpy().astype(kind)
    return taps.kept[key]


def _share(work: Callable[[int, int, int], None], count: int, threads: int) -> None:
    """Splits ``range(count)`` over threads; the kernels run without the interpreter's lock."""
    if threads == 1 or count < threads:
        work(0, 0, count)
        return
    edges = [count * i // threads for i in range(threads + 1)]
    others = [
        _pool(threads - 1).submit(work, i, edges[i], edges[i + 1]) for i in range(1, threads)
    ]
    work(0, edges[0], edges[1])
    for other in others:
        other.result()


@lru_cache(maxsize=1)
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="nearfar")
