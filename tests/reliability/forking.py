"""Work in a forked process that is killed, interrupted or refused what it asks for."""

from __future__ import annotations

import io
import os
import random
import signal
import sys
import time
from pathlib import Path

#: Calls that change what is on the disk.
CHANGES = (
    "replace",
    "rename",
    "fsync",
    "unlink",
    "remove",
    "mkdir",
    "rmdir",
    "link",
    "symlink",
    "truncate",
)


def in_child(work, *, log=None):
    """Starts ``work()`` in a forked process; its exit status is that of ``sys.exit`` in it."""
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        return child
    status = 70
    try:
        handle = os.open(log or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for stream in (1, 2):
            os.dup2(handle, stream)
        sys.stdout = io.TextIOWrapper(io.FileIO(1, "w"), write_through=True)
        sys.stderr = io.TextIOWrapper(io.FileIO(2, "w"), write_through=True)
        work()
        status = 0
    except SystemExit as end:
        status = end.code or 0
    except BaseException as fault:
        sys.stderr.write(f"{type(fault).__name__}: {fault}\n")
    finally:
        os._exit(status)


def wait(child, seconds=60):
    """The exit status, negative for the signal that ended it."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    raise TimeoutError(f"the process did not end within {seconds} s")


def patch_changes(act):
    """Calls ``act(number, name, real, arguments)`` in place of each call that changes the disk."""
    count = [0]

    def patched(name, real):
        def call(*arguments, **options):
            count[0] += 1
            return act(count[0], name, lambda: real(*arguments, **options))

        return call

    for name in CHANGES:
        setattr(os, name, patched(name, getattr(os, name)))
    return count


def count_changes(work, folder):
    """How many calls that change the disk there are."""
    path = Path(folder) / "count"

    def counted():
        count = patch_changes(lambda number, name, real: real())
        work()
        path.write_text(str(count[0]))

    assert wait(in_child(counted)) == 0
    return int(path.read_text())


def kill_at(work, number, after):
    """Runs ``work`` and kills it before or after the numbered call that changes the disk."""

    def act(call, name, real):
        if call == number and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        try:  # a call that fails is over too
            return real()
        finally:
            if call == number:
                os.kill(os.getpid(), signal.SIGKILL)

    def killed():
        patch_changes(act)
        work()

    return wait(in_child(killed))


def kill_after(work, seconds, number=signal.SIGKILL, log=None):
    """Runs ``work`` and sends it a signal after some time: its status, and how long it took to end."""
    child = in_child(work, log=log)
    time.sleep(seconds)
    os.kill(child, number)
    sent = time.monotonic()
    return wait(child), time.monotonic() - sent


def moments(count, longest, seed=0):
    """So many moments, spread over the time that work takes."""
    draw = random.Random(seed)
    return [longest * (i + draw.random()) / count for i in range(count)]
