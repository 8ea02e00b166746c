"""A hard bound on the processes that a process may have forked and that are still alive.

A process that forks by itself, at a write, from a signal handler, can fork at the wrong moment; and a child that
inherited the handler would fork again, and so would its children. Here a child can never fork through the same door,
and the parent has at most so many children alive, whatever RLIMIT_NPROC allows.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from typing import Any

TOO_MANY = 125
"""Exit status of a process that was to have more children than it may; its children are killed first."""
_PR_SET_PDEATHSIG = 1


class Bounded:
    """Forks, with at most *most* children alive at any time.

    A child dies with its parent, and at its own next call. Where *most* are alive the parent waits *patience* seconds
    for one to end; then it kills them all and exits with `TOO_MANY`.
    """

    def __init__(self, most: int, *, patience: float = 5.0) -> None:
        self.most, self.patience = most, patience
        self._owner = os.getpid()
        self._alive: set[int] = set()
        # PyDLL keeps the interpreter's lock during the call, so that the child has it, too.
        self._libc = ctypes.PyDLL(None)

    def _reap(self) -> None:
        while self._alive:
            done, _ = os.waitpid(-1, os.WNOHANG)
            if not done:
                return
            self._alive.discard(done)

    def fork(self) -> int:
        """The child's process id, 0 in the child."""
        if os.getpid() != self._owner:
            os._exit(TOO_MANY)
        end = time.monotonic() + self.patience
        self._reap()
        while len(self._alive) >= self.most:
            if time.monotonic() > end:
                for pid in self._alive:
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)
                os._exit(TOO_MANY)
            time.sleep(0.001)
            self._reap()
        pid = int(self._libc.fork())
        if pid < 0:
            os._exit(TOO_MANY)
        if pid:
            self._alive.add(pid)
            return pid
        self._libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        return 0

    def handler(self) -> Any:
        """`fork` as a C signal handler; the caller keeps it. In the child the signal's default action is back."""

        def forked(number: int) -> None:
            if self.fork() == 0:
                self._libc.signal(number, None)  # SIG_DFL

        return ctypes.CFUNCTYPE(None, ctypes.c_int)(forked)
