"""The last statement of a device that was wiped (docs/wipe.md): what it signed with the key that went."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from . import cose, device_code, strict_cbor
from .errors import ToolError

assert device_code
from sekisho import orders, report  # noqa: E402
from sekisho import wipe as device  # noqa: E402

MAX_STATEMENT = 4096
_WORDS = {orders.WIPE: "wipe", orders.TRANSFER: "transfer", orders.DECOMMISSION: "decommission"}


@dataclass(frozen=True)
class Statement:
    """What it says. *done*: everything was erased and read back; else it was about to be. *order*: its name in results,
    in hex; *head*: of the event log that went with it, as `sekisho events verify --head` takes it."""

    device: UUID
    action: str
    order: str
    done: bool
    time: int
    places: int
    head: str
    key_id: bytes
    document: bytes

    def describe(self) -> dict[str, str]:
        """Name by name."""
        moment = datetime.fromtimestamp(self.time, UTC).strftime("%Y-%m-%d %H:%M UTC")
        return {
            "device": str(self.device),
            "action": self.action,
            "order": self.order or "not known",
            "says": f"all {self.places} places were erased and read back"
            if self.done
            else f"begins now to erase {self.places} places; nothing else runs before that is done",
            "at": moment,
            "event log": self.head,
            "signed by": self.key_id.hex(),
        }


def is_statement(document: bytes) -> bool:
    """Whether a signed document of a device is one of these, nothing of it verified."""
    try:
        parse(document)
    except ToolError:
        return False
    return True


def read(content: bytes) -> bytes:
    """The document in a file: as it is, or in a console's line ``sekisho: statement <base64>``. ToolError STATEMENT."""
    found = re.findall(rb"sekisho: statement ([A-Za-z0-9+/=]+)", content)
    if not found:
        return content
    try:
        return base64.b64decode(found[-1], validate=True)
    except binascii.Error:
        raise ToolError("STATEMENT", "The line with the statement is damaged.") from None


def parse(document: bytes) -> Statement:
    """A statement, its signature not yet checked. ToolError STATEMENT, CBOR, LIMIT."""
    wrong = ToolError("STATEMENT", "This is no last statement of a device.")
    if len(document) > MAX_STATEMENT:
        raise wrong
    parts = strict_cbor.loads(document)
    parts = parts.value if isinstance(parts, strict_cbor.Tag) and parts.number == cose.TAG_SIGN1 else None
    if not isinstance(parts, tuple) or len(parts) != 4 or not isinstance(parts[1], dict):
        raise wrong
    kid = parts[1].get(cose.LABEL_KID)
    if not isinstance(kid, bytes) or not all(isinstance(part, bytes) for part in (parts[0], parts[2], parts[3])):
        raise wrong
    claims: Any = strict_cbor.loads(parts[2])
    if not isinstance(claims, dict) or claims.get(report.PROFILE) != device.PROFILE:
        raise wrong
    ours, ueid, time = claims.get(report.SEKISHO), claims.get(report.UEID), claims.get(report.IAT)
    if not isinstance(ours, dict) or not isinstance(ueid, bytes) or len(ueid) != 17 or not isinstance(time, int):
        raise wrong
    members: list[Any] = [ours.get(number) for number in range(1, 6)]
    action, order, head, places, state = members
    shape = isinstance(order, bytes) and isinstance(places, int) and isinstance(head, tuple) and len(head) == 2
    if action not in _WORDS or not shape or state not in (device.PROMISED, device.DONE) or not 0 <= time < 1 << 40:
        raise wrong
    if not isinstance(head[0], int) or not isinstance(head[1], bytes):
        raise wrong
    return Statement(
        UUID(bytes=ueid[1:]), _WORDS[action], order.hex(), state == device.DONE, time, places,
        f"{head[0]}:{head[1].hex()}", kid, document,
    )  # fmt: skip


def verify(document: bytes, public_key: bytes) -> Statement:
    """A statement that *public_key* signed. ToolError STATEMENT, KEY_UNKNOWN, SIGNATURE."""
    found = parse(document)
    if found.key_id != cose.key_id(public_key):
        raise ToolError("KEY_UNKNOWN", f"The key {found.key_id.hex()} signed the statement, which is another one.")
    if not cose.verify_sign1_by_device(document, public_key):
        raise ToolError("SIGNATURE", "The statement was changed after the device signed it.")
    return found
