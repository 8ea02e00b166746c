"""The event logs of devices at the desk: read an export, check its chain and hold it against a signed head."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from uuid import UUID

from sekisho import eventlog
from sekisho.syslog import event_name
from sekisho_boot import reasons

from . import device_code
from .errors import ToolError

MAX_EXPORT = 1 << 20


@dataclass(frozen=True)
class Event:
    """One entry. *time* is seconds since 1970 as the device's clock had it, *trusted* whether that meant anything."""

    number: int
    time: int
    event: str
    reason: str
    trusted: bool
    value: int
    detail: bytes
    hash: bytes

    def line(self) -> str:
        """For people."""
        when = datetime.fromtimestamp(self.time, UTC).strftime("%Y-%m-%d %H:%M:%S") + ("" if self.trusted else "?")
        detail = self.detail.rstrip(b"\0").hex()
        return " ".join(filter(None, (f"{self.number:6} {when:20} {self.event}", self.reason, str(self.value), detail)))


@cache
def catalogue() -> dict[int, tuple[str, str]]:
    """Number of an event -> (name, meaning)."""
    source = (device_code.LIB / "sekisho" / "eventlog.py").read_text()
    part = source[source.index("# Events:") : source.index("\nUNTRUSTED =")]
    return {
        int(number): (name, meaning)
        for name, number, meaning in re.findall(r"^([A-Z_]+) = const\((\d+)\)  # (.*)$", part, re.MULTILINE)
    }


def is_log(data: bytes) -> bool:
    """Whether these are the bytes of an event log (of a device), by how they begin."""
    return data[:4] == eventlog.MAGIC


def verify(data: bytes, device: UUID | None = None, head: tuple[int, bytes] | None = None) -> list[Event]:
    """The entries of an export whose chain holds.

    *device*: the log must be this device's, as far as it goes back to its first entry. *head*: (number, hash) out of a
    signed report, which must be in it. Raises ToolError LOG with the number of the first entry that is wrong.
    """
    if len(data) > MAX_EXPORT or len(data) % eventlog.ENTRY or not is_log(data):
        raise ToolError("LOG", "This is no export of an event log, or its end was cut off.")
    events: list[Event] = []
    before, expected = b"", 0
    for at in range(0, len(data), eventlog.ENTRY):
        block = data[at : at + eventlog.ENTRY]
        if block[:4] == eventlog.MAGIC and (not events or block[32:] == before):
            first = struct.unpack_from("<I", block, 4)[0]
            if events and first != expected:
                raise ToolError("LOG", f"After entry {expected - 1} the log goes on with {first}: entries are missing.")
            before, expected = block[32:], first
            continue
        body = block[: eventlog.BODY]
        number, when, event, reason, trusted, _, value, detail = struct.unpack("<IIBBBBI16s", body)
        if number != expected:
            raise ToolError("LOG", f"Entry {expected} is missing, or entries were moved: {number} stands in its place.")
        if eventlog.chain(before, body) != block[eventlog.BODY :]:
            raise ToolError("LOG", f"Entry {number} was changed, or an entry before it was.")
        if number == 1 and device is not None and before != eventlog.origin(device.bytes):
            raise ToolError("LOG", f"This is not the log of device {device}.")
        before, expected = block[eventlog.BODY :], expected + 1
        name = reasons.name(reason) if reason else ""
        events.append(Event(number, when, event_name(event), name, bool(trusted), value, detail, before))
    if head is not None and not any((one.number, one.hash) == head for one in events):
        raise ToolError(
            "LOG", f"Entry {head[0]} is not the one that the device signed: the log was replaced or cut off."
        )
    return events
