"""The signing log: who signed what, when, with which key. One JSON object per line, each chained to the one before.

The chain shows any change, removal or insertion before the last line. Only what is kept elsewhere shows that the end
was cut off: note the head (`log verify` prints it) in the minutes of a ceremony, or hand it to the other holders.
"""

from __future__ import annotations

import errno
import fcntl
import getpass
import hashlib
import io
import json
import os
import socket
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from .errors import ToolError
from .files import read_file, why

NAME = "signing-log.jsonl"
"""Usual name of the file, beside the keys."""
START = "0" * 64
"""What the first entry names as the one before it."""
MAX_LOG = 64 << 20


@dataclass(frozen=True)
class Entry:
    """One line. *object* and *before* are SHA-256 in hex: of what was signed, and of the line before."""

    number: int
    time: str
    who: str
    what: str
    key_id: str
    role: str
    environment: str
    object: str
    before: str

    def line(self) -> bytes:
        """The line as it stands in the file, without its end."""
        return json.dumps(asdict(self), separators=(",", ":")).encode()

    def hash(self) -> str:
        """SHA-256 of the line in hex."""
        return hashlib.sha256(self.line()).hexdigest()


def _who() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = f"uid {os.getuid()}"
    return f"{user}@{socket.gethostname()}"


def record(path: Path, what: str, key_id: bytes, role: str, environment: str, digest: str) -> Entry:
    """Append what is about to be signed; call it before the signature is given out. Raises ToolError LOG or FILE."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            data = _whole(file, path)
            entries = _parse(data, path)
            entry = Entry(
                number=len(entries) + 1,
                time=datetime.now(UTC).replace(microsecond=0).isoformat(),
                who=_who(),
                what=what,
                key_id=key_id.hex(),
                role=role,
                environment=environment,
                object=digest,
                before=entries[-1].hash() if entries else START,
            )
            _append(file, len(data), entry.line() + b"\n")
    except OSError as error:
        raise ToolError("FILE", f"Cannot write the signing log {path}: {why(error)}; nothing was signed.") from error
    return entry


def _whole(file: io.FileIO, path: Path) -> bytes:
    """The lines that have an end. One without is what a power cut leaves of an entry: nothing was given out on it."""
    file.seek(0)
    data = file.read(MAX_LOG + 1)
    if len(data) > MAX_LOG:
        raise ToolError("LOG", f"{path} has more than {MAX_LOG} bytes; put it away and let a new one begin.")
    return data[: data.rfind(b"\n") + 1]


def _append(file: io.FileIO, end: int, line: bytes) -> None:
    """*line* at *end*, durable, or the file as it was."""
    file.truncate(end)
    try:
        if file.write(line) != len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(file.fileno())
    except OSError:
        file.truncate(end)
        raise


def verify(path: Path, head: str | None = None) -> list[Entry]:
    """The entries of a log whose chain holds; *head* is the hash of an entry that must be in it.

    Raises ToolError LOG (which line is wrong), FILE.
    """
    entries = _parse(read_file(path, "signing log", MAX_LOG), path)
    if head is not None and head not in {START, *(entry.hash() for entry in entries)}:
        raise ToolError("LOG", f"{path} does not contain the entry {head}: its end was cut off, or it is another log.")
    return entries


def _parse(data: bytes, path: Path) -> list[Entry]:
    entries: list[Entry] = []
    before = START
    for number, line in enumerate(data.split(b"\n"), 1):
        if not line and number > data.count(b"\n"):
            break
        try:
            entry = Entry(**json.loads(line))
        except (ValueError, TypeError, RecursionError) as error:
            raise ToolError("LOG", f"Line {number} of {path} is damaged or cut off.") from error
        if entry.line() != line or entry.number != number or entry.before != before:
            raise ToolError("LOG", f"{path} was changed: line {number} does not follow from the line before it.")
        entries.append(entry)
        before = entry.hash()
    return entries
