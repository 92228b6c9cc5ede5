"""Ctrl-C ends the process soon, whatever it is doing."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from contextlib import suppress

__all__ = ["INTERRUPTED", "InterruptWatch"]

#: Exit status, as shells have it for a process that Ctrl-C ended.
INTERRUPTED = 130
#: Seconds from Ctrl-C until the process is ended, if it has not ended by itself.
_PATIENCE = 1.5


class InterruptWatch:
    """Ends this process with status 130 soon after Ctrl-C, or at once after a second one.

    Python raises KeyboardInterrupt between two steps of the main thread: a long computation in C comes first,
    an exception in a destructor is lost, and an exit may wait for other processes. So a thread waits for the
    signal too. Files that matter are written whole or not at all, so that any moment is good to end in.

    Args:
        message: written to standard error, once.

    Attributes:
        interrupted: set moments after the signal came.
    """

    def __init__(self, message: str) -> None:
        self.message = message
        self.interrupted = threading.Event()
        self._announced = False

    def start(self) -> None:
        """From now on to the end of the process; to be called in the main thread."""
        receiver, sender = socket.socketpair()
        sender.setblocking(False)
        signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
        # The thread holds on to the sender: a socket that nothing refers to is closed.
        threading.Thread(target=self._wait, args=(receiver, sender), daemon=True).start()

    def announce(self) -> None:
        """Writes the message unless that was done."""
        if not self._announced:
            self._announced = True
            sys.stderr.write(self.message)

    def end(self) -> None:
        """Ends the process now, and those that it started.

        Without Python's own way out, which may wait for other processes, and which aborts where a thread is
        in the middle of one of torch's operations.
        """
        # Not imported here: the main thread may be in the middle of importing it.
        processes = sys.modules.get("multiprocessing.process")
        with suppress(Exception):
            for process in processes.active_children() if processes else ():
                process.kill()
        os._exit(INTERRUPTED)

    def _wait(self, receiver: socket.socket, _sender: socket.socket) -> None:
        while signal.SIGINT not in receiver.recv(64):
            pass  # another signal that Python handles
        self.interrupted.set()
        receiver.settimeout(_PATIENCE)
        with suppress(TimeoutError):
            while signal.SIGINT not in receiver.recv(64):
                pass
        if not self._announced:
            os.write(
                2, self.message.encode()
            )  # not sys.stderr, which the main thread may have locked
        self.end()
