"""Work on a batch, shared by threads: each takes some images through all steps.

Threads that meet after every step wait for each other more than they work, because the steps are short.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from threading import Barrier, Lock
from typing import TypeVar

import torch

__all__ = ["each_share"]

_Result = TypeVar("_Result")


def each_share(work: Callable[[slice], _Result], batch: int, device: torch.device) -> list[_Result]:
    """``work(images)`` for consecutive parts of a batch, as many as torch has threads on the CPU.

    A batch smaller than that is one part: there the steps themselves use the threads. Parts depend on
    nothing but the sizes, so sums over them do not change from run to run.
    """
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads == 1 or batch < threads:
        return [work(slice(0, batch))]
    inference = torch.is_inference_mode_enabled()

    def alone(images: slice) -> _Result:
        with torch.inference_mode(inference), torch.no_grad():
            return work(images)

    edges = [batch * i // threads for i in range(threads + 1)]
    parts = [slice(a, b) for a, b in itertools.pairwise(edges)]
    return list(_pool(threads).map(alone, parts))


_starting = Lock()


@lru_cache(maxsize=1)
def _pool(threads: int) -> ThreadPoolExecutor:
    """Threads in which torch's own operations use one thread each."""
    with _starting:
        pool = ThreadPoolExecutor(threads, "nearfar", initializer=_one_thread)
        all_here = Barrier(threads)
        for started in [pool.submit(all_here.wait) for _ in range(threads)]:
            started.result()
        # What a thread sets for itself is also what threads to come begin with: put that back.
        torch.set_num_threads(threads)
    return pool


def _one_thread() -> None:
    torch.get_num_threads()  # a thread takes over the common number when it first needs it: now
    torch.set_num_threads(1)


# A forked process has the pool but none of its threads.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)
