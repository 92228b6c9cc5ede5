"""The next batches are made while a net works on the present one."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

__all__ = ["PrefetchLoader"]

_DEPTH = 2


class PrefetchLoader(DataLoader[tuple[Tensor, Tensor]]):
    """A loader whose batches are made by a thread of this process, up to two ahead.

    What makes a batch (rendering, decoding) leaves Python's lock free most of the time. The batches and
    their order are those of a plain loader. With worker processes it is a plain loader, which they keep
    ahead.
    """

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        batches = super().__iter__()
        return batches if self.num_workers else _ahead(batches)


def _ahead(batches: Iterator[Any]) -> Iterator[Any]:
    ready: queue.Queue[tuple[str, Any]] = queue.Queue(_DEPTH)
    stop, alone = threading.Event(), threading.Event()

    def put(kind: str, what: Any) -> bool:
        while not stop.is_set():
            try:
                ready.put((kind, what), timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def work() -> None:
        # One core for batches, the others for the net: two teams of threads on the same cores wait for
        # each other.
        torch.get_num_threads()  # a thread's first question sets its number anew; so it comes first
        torch.set_num_threads(1)
        alone.set()
        try:
            for batch in batches:
                if not put("batch", batch):
                    return
            put("end", None)
        except BaseException as cause:  # goes on where the batch was waited for
            put("fault", cause)

    worker = threading.Thread(target=work, name="nearfar batches", daemon=True)
    threads = torch.get_num_threads()
    worker.start()
    alone.wait()
    torch.set_num_threads(threads)  # torch takes the last number for threads to come, too
    try:
        while True:
            kind, what = ready.get()
            if kind == "end":
                return
            if kind == "fault":
                raise what
            yield what
    finally:  # also where the rest is not wanted
        stop.set()
        worker.join()
