"""Removes what simulators that were killed left in memory: up to 64 MiB each, until the next start of the desk.

A simulator's directory is `sekisho-sim-PID-*`; the simulator holds both ends of its FIFOs for as long as it lives. A
directory is left over when no process has that number and nobody holds its FIFOs. The first keeps away from simulators
that are just being made, the second from those whose number means nothing here (another container on the same memory).
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
import tempfile
from itertools import islice
from pathlib import Path

MEMORY = Path("/dev/shm")  # noqa: S108 (where the simulator makes its directories, if it may)
LOOKED_AT, REMOVED = 10_000, 100
"""Names looked at and directories removed in one sweep, at most."""
_NAME = re.compile(r"sekisho-sim-([1-9][0-9]{0,9})-[a-z0-9_]+", re.ASCII)


def place() -> Path:
    """Where simulators of this desk keep what they share with their devices."""
    return MEMORY if os.access(MEMORY, os.W_OK) else Path(tempfile.gettempdir())


def sweep(base: Path) -> list[Path]:
    """Remove what dead simulators of this user left in *base*; returns what went. Never raises for want of rights."""
    try:
        with os.scandir(base) as entries:
            found = [Path(entry.path) for entry in islice(entries, LOOKED_AT) if _left_over(entry)]
    except OSError:
        return []
    gone = []
    for path in found[:REMOVED]:
        shutil.rmtree(path, ignore_errors=True)
        if not path.exists():
            gone.append(path)
    return gone


def _left_over(entry: os.DirEntry[str]) -> bool:
    name = _NAME.fullmatch(entry.name)
    try:
        if name is None or _lives(int(name[1])):
            return False
        kind = entry.stat(follow_symlinks=False)
        mine = stat.S_ISDIR(kind.st_mode) and kind.st_uid == os.getuid()
        return mine and not any(_held(Path(entry.path, f"rpc{end}")) for end in (".ask", ".answer"))
    except OSError:  # gone in the meantime, or not to be looked at
        return False


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return True


def _held(fifo: Path) -> bool:
    """Whether a process has *fifo* open for reading, which only then can be opened for writing without waiting."""
    try:
        os.close(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW))
    except OSError as error:
        return error.errno not in (errno.ENXIO, errno.ENOENT)
    return True
