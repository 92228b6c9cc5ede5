"""Threads that each take some images of a batch, and the memory that each of them uses again."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from threading import Barrier, Lock
from typing import TypeVar

import torch
from torch import Tensor

__all__ = ["Workspace", "map_batch", "map_range"]

_Result = TypeVar("_Result")


class Workspace:
    """Scratch tensors by name. Fresh memory costs more than the sums that fill it, so it is reused."""

    def __init__(self) -> None:
        self._buffers: dict[tuple[str, torch.dtype], Tensor] = {}

    def take(
        self, name: str, shape: Sequence[int], like: Tensor, dtype: torch.dtype | None = None
    ) -> Tensor:
        """A contiguous, uninitialised tensor on the device of ``like``.

        It overwrites the tensor that was last taken under this name and type.
        """
        size = torch.Size(shape).numel()
        key = (name, dtype or like.dtype)
        buffer = self._buffers.get(key)
        if buffer is None or buffer.numel() < size:
            buffer = self._buffers[key] = torch.empty(size, dtype=key[1], device=like.device)
        return buffer[:size].view(tuple(shape))


def map_batch(work: Callable[[slice], _Result], batch: int, device: torch.device) -> list[_Result]:
    """``work(images)`` for consecutive parts of a batch, as many as torch has threads on the CPU.

    Each thread takes its images through all steps: the steps are short, and threads that meet after each
    of them would mostly wait. A batch smaller than the number of threads is one part: there the steps
    themselves use the threads. Parts depend on nothing but the sizes, so sums over them do not change
    from run to run.
    """
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads == 1 or batch < threads:
        return [work(slice(0, batch))]
    inference = torch.is_inference_mode_enabled()

    def without_graph(images: slice) -> _Result:
        with torch.inference_mode(inference), torch.no_grad():
            return work(images)

    edges = [batch * i // threads for i in range(threads + 1)]
    parts = [slice(a, b) for a, b in itertools.pairwise(edges)]
    return list(_pool(threads).map(without_graph, parts))


def map_range(work: Callable[[int, int, int], None], count: int, threads: int) -> None:
    """``work(thread, begin, end)`` for consecutive parts of ``range(count)``, one a thread.

    For compiled code that runs without the interpreter's lock.
    """
    if threads == 1 or count < threads:
        work(0, 0, count)
        return
    edges = [count * i // threads for i in range(threads + 1)]
    others = [_pool(threads).submit(work, i, edges[i], edges[i + 1]) for i in range(1, threads)]
    work(0, edges[0], edges[1])
    for other in others:
        other.result()


_starting = Lock()


@lru_cache(maxsize=1)
def _pool(threads: int) -> ThreadPoolExecutor:
    """Threads in which torch's own operations use one thread each."""
    with _starting:
        pool = ThreadPoolExecutor(threads, "nearfar", initializer=_use_one_thread)
        all_started = Barrier(threads)
        for started in [pool.submit(all_started.wait) for _ in range(threads)]:
            started.result()
        # A thread's own setting is also what later threads begin with: put that back.
        torch.set_num_threads(threads)
    return pool


def _use_one_thread() -> None:
    torch.get_num_threads()  # a thread copies the common number when it first reads it: now
    torch.set_num_threads(1)


# A forked process has the pool but none of its threads.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)
