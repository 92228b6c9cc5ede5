"""Python code that may take for ever is ended after a while, in whatever thread it runs."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["TooSlowError", "time_limit"]

#: Between attempts: a handler that takes any exception for its own may have swallowed one.
_AGAIN_S = 1.0


class TooSlowError(RuntimeError):
    """Code took longer than it may; no ``TimeoutError``, which stands for what the system does not answer."""


class _TimeIsOver(BaseException):
    """Raised within the code whose time is over; not an ``Exception``, so that few handlers catch it."""


@contextmanager
def time_limit(seconds: float, task: str) -> Iterator[None]:
    """Within it, code may take so long.

    Args:
        seconds: how long.
        task: what takes the time, for the error's text.

    Raises:
        TooSlowError: it took longer. It ends at its next step in Python; a long call into C comes first.
    """
    thread, lock, over = threading.get_ident(), threading.Lock(), threading.Event()

    def watch() -> None:
        wait = seconds
        while not over.wait(wait):
            with lock:
                if not over.is_set():
                    _raise_in(thread, _TimeIsOver)
            wait = _AGAIN_S

    def stop() -> None:
        with lock:
            over.set()
        _raise_in(thread, None)  # what was on its way

    watcher = threading.Thread(target=watch, name="nearfar time limit", daemon=True)
    try:
        try:
            watcher.start()
            yield
        finally:
            stop()
    except _TimeIsOver as cause:
        stop()  # it may have come within the stopping
        raise TooSlowError(f"{task} took more than {seconds:g} s") from cause


def _raise_in(thread: int, kind: type[BaseException] | None) -> None:
    """Makes another thread raise at its next step; ``None`` takes that back."""
    exception = None if kind is None else ctypes.py_object(kind)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), exception)
