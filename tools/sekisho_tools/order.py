"""Operator orders at the desk: put together, sign, look at, hand over, and find out what became of one.

The shape is checked by the device's own code (`sekisho.orders`), so that nothing is signed that devices would not
understand. An order that is not signed yet is a file with its payload alone: it can be carried to the machine that has
the key, and back.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from cryptography.hazmat.primitives.keywrap import aes_key_wrap
from sekisho import orders as device
from sekisho import seal
from sekisho_boot.reasons import Refused
from sekisho_boot.reasons import name as reason_name

from . import cose, keys, keyset, strict_cbor
from . import settings as settings_of_devices
from .errors import ToolError
from .files import write_atomic

DAY = 86_400
DEFAULT_LIFETIME = 30 * DAY
"""Seconds after which an order is not obeyed any more, unless told otherwise."""
NONCE_ONLY = ("rollback", "unlock")
"""Actions that the engine itself judges: for one device, with the nonce it drew."""
KEYED = ("backup", "put-back")
"""Actions whose argument is the key of a backup."""
NAMES: dict[int, str] = {number: action for action, (number, _, _) in device.ACTIONS.items()}


@dataclass(frozen=True)
class Address:
    """Whom an order is for: exactly one of a device id, a product class, a group."""

    device: UUID | None = None
    product: UUID | None = None
    group: str | None = None

    def encode(self) -> Any:
        """As it stands in the order. ToolError ORDER unless it is one address."""
        given = [one for one in (self.device, self.product, self.group) if one is not None]
        if len(given) != 1:
            raise ToolError("ORDER", "An order is for one device, one class or one group: give one of the three.")
        if self.device is not None:
            return self.device.bytes
        if self.product is not None:
            return [device.CLASS, self.product.bytes]
        return [device.GROUP, self.group]


@dataclass(frozen=True)
class Order:
    """What an order says. Times are seconds since 1970; one of *nonce* and *counter* is set."""

    action: str
    address: Any
    expires: int
    nonce: int | None = None
    counter: int | None = None
    argument: Any = None
    reason: str | None = None

    def encode(self) -> bytes:
        """The payload. ToolError ORDER where a device would not understand it."""
        if self.action not in device.ACTIONS:
            raise ToolError("ORDER", f"There is no action {self.action!r}; take one of {', '.join(device.ACTIONS)}.")
        argument = b"" if self.argument is None and self.action in NONCE_ONLY else self.argument
        optional = {3: self.nonce, 5: argument, 6: self.counter, 7: self.reason}
        members = {1: device.ACTIONS[self.action][0], 2: self.address, 4: self.expires}
        members.update({key: value for key, value in optional.items() if value is not None})
        payload = cose.encode(members)
        try:
            device.members(payload)
        except Refused as refused:
            raise ToolError(
                "ORDER", f"Devices would not understand this order ({reason_name(refused.code)})."
            ) from None
        if self.action in NONCE_ONLY and (self.nonce is None or not isinstance(self.address, bytes)):
            raise ToolError("ORDER", f"{self.action} is for one device and takes the nonce that the device shows.")
        return payload


def create(
    action: str,
    address: Address,
    *,
    argument: Any = None,
    nonce: int | None = None,
    counter: int | None = None,
    expires: int | None = None,
    reason: str | None = None,
    now: int | None = None,
) -> Order:
    """An order; without *nonce* or *counter* it gets the time in milliseconds as counter, which grows by itself."""
    now = int(time.time()) if now is None else now
    if nonce is None and counter is None:
        counter = now * 1000 + int(time.time() * 1000) % 1000
    expires = now + DEFAULT_LIFETIME if expires is None else expires
    if expires <= now:
        raise ToolError("ORDER", "The order has expired already; give a later time.")
    order = Order(action, address.encode(), expires, nonce, counter, argument, reason)
    order.encode()
    return order


def argument(action: str, values: list[str], until: int | None = None) -> Any:
    """The argument of *action* out of the words of a command line. ToolError ORDER or SETTING."""
    kind = device.ACTIONS[action][2] if action in device.ACTIONS else None
    if kind == "settings":
        if not values:
            raise ToolError("ORDER", "Name what is to be set: NAME=VALUE.")
        return settings_of_devices.check(dict(settings_of_devices.parse(text) for text in values))
    if kind == "interfaces":
        return settings_of_devices.check({"interfaces": values})["interfaces"]
    if kind == "until":
        if until is None:
            raise ToolError("ORDER", "Say until when with --until.")
        return [_hex(values, 32, "the manifest digest"), until]
    if kind == "manifest":
        return _hex(values, 32, "the manifest digest")
    if kind == "nonce":
        return _hex(values, None, "the nonce") if values else b""
    if kind == "owner" and values:
        return _hex(values, None, "what identifies the new owner")
    if values:
        raise ToolError("ORDER", f"{action} takes no argument.")
    return None


def backup_argument(action: str, secret: str | bytes, kek: bytes | None, sealed: bytes | None) -> Any:
    """The argument of `backup` or `put-back`. *secret* is a passphrase, or a key of 32 bytes, which is wrapped under
    the key-encryption key *kek* of the device (16 bytes); *sealed* is the backup to put back. ToolError ORDER."""
    if isinstance(secret, str):
        if len(secret) < seal.MIN_PASSPHRASE:
            raise ToolError("ORDER", f"A passphrase has at least {seal.MIN_PASSPHRASE} characters.")
        key: Any = secret
    elif kek is None:
        raise ToolError("ORDER", "A backup key travels wrapped: give the key-encryption key of the device (--kek).")
    else:
        key = [hashlib.sha256(b"sekisho kek" + kek).digest()[:8], aes_key_wrap(kek, secret)]
    if (action == "put-back") != (sealed is not None):
        raise ToolError("ORDER", "put-back takes the backup (--attach), and no other action does.")
    if sealed is None:
        return key
    if len(sealed) > device.MAX_ATTACHED:
        raise ToolError("LIMIT", f"The backup has {len(sealed)} bytes; devices take {device.MAX_ATTACHED}.")
    return [key, hashlib.sha256(sealed).digest()]


def _hex(values: list[str], size: int | None, what: str) -> bytes:
    try:
        data = bytes.fromhex(values[0]) if len(values) == 1 else None
    except ValueError:
        data = None
    if data is None or (len(data) != size if size else len(data) > device.MAX_NONCE):
        raise ToolError("ORDER", f"Give {what} as {f'{2 * size} hex digits' if size else 'hex digits'}.")
    return data


def sign(payload: bytes, signer: keys.Signer, log: Path | None = None, attachment: bytes = b"") -> bytes:
    """The order as it goes to devices, with the backup that it is to put back behind it.

    ToolError ORDER for a payload that is none or names another *attachment*, KEY_ROLE for another key.
    """
    order = parse_payload(payload)
    wanted = order.argument[1] if order.action == "put-back" else None
    if wanted != (hashlib.sha256(attachment).digest() if attachment else None):
        told = "needs the backup that it names" if wanted else "takes no attachment"
        raise ToolError("ORDER", f"This order {told} (--attach).")
    keys.require(signer.statement, "operator", None)
    if log is not None:
        keys.record(log, f"order {order.action}", signer, hashlib.sha256(payload).hexdigest())
    document = cose.sign1(order.encode(), signer, attached=True)
    if len(document) > device.MAX_ORDER:
        raise ToolError("LIMIT", f"The order has {len(document)} bytes; devices take {device.MAX_ORDER}.")
    return document + attachment


def parse_payload(payload: bytes) -> Order:
    """What a payload says. ToolError ORDER."""
    try:
        members = device.members(payload)
    except Refused as refused:
        raise ToolError("ORDER", f"This is no operator order ({reason_name(refused.code)}).") from None
    found = Order(
        NAMES[members[1]], members.get(2), members[4], members.get(3), members.get(6), members.get(5), members.get(7)
    )
    return replace(found, argument=None) if found.action in NONCE_ONLY and found.argument == b"" else found


@dataclass(frozen=True)
class Signed:
    """A signed order: what it says and by which key id, nothing verified. *name* is how devices name it in results,
    *document* the order without what goes with it, *attached*."""

    order: Order
    key_id: bytes | None
    name: str
    document: bytes
    attached: bytes


def parse(document: bytes) -> Signed | Order:
    """A signed order, or the payload of one that is not signed yet. ToolError ORDER."""
    if document[:1] != b"\xd2":
        return parse_payload(document)
    try:
        bare, attached = device.split(document)
        device.payload(bare)
    except Refused as refused:
        raise ToolError("ORDER", f"This is no operator order ({reason_name(refused.code)}).") from None
    parts = strict_cbor.loads(bare).value
    kid = parts[1].get(cose.LABEL_KID)
    return Signed(parse_payload(parts[2]), kid, device.digest(document).hex(), bare, attached)


def verify(document: bytes, key_set: bytes) -> tuple[Signed, keyset.OperatorKey]:
    """Whether the key set lets the signer give this order: the engine's own verdict. ToolError with its reason code.

    Address, expiry and repetition are for the device to judge.
    """
    from types import SimpleNamespace

    from sekisho_boot import engine
    from sekisho_boot import keyset as boot_keyset

    signed = parse(document)
    if isinstance(signed, Order):
        raise ToolError("COSE", "This order is not signed yet.")
    content = keyset.decode(key_set)
    every = {one for key in content.operators for one in key.classes or ()}
    judge = SimpleNamespace(keyset=lambda: boot_keyset.parse(key_set), port=SimpleNamespace(classes=tuple(every)))
    if isinstance(signed.order.address, list) and signed.order.address[0] == device.CLASS:
        judge.port.classes = (bytes(signed.order.address[1]),)
    try:
        public, _ = engine.Engine.operator(judge, signed.document, device.ACTIONS[signed.order.action][1])  # type: ignore[arg-type]
    except Refused as refused:
        name = reason_name(refused.code)
        raise ToolError(name, f"Devices with this key set would not obey the order ({name}).") from None
    return signed, next(key for key in content.operators if key.public_key == public)


def send(document: bytes, site: Path, device_id: UUID) -> Path:
    """Put a signed order where the device looks for it: ``orders/<device id>.cose`` below the static directory."""
    if isinstance(parse(document), Order):
        raise ToolError("COSE", "This order is not signed yet.")
    target = site / "orders" / f"{device_id}.cose"
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(target, document)
    return target


def status(document: bytes, results: list[tuple[bytes, int, int, int]]) -> str:
    """What a device says of an order, in one line; *results* is that member of its report."""
    signed = parse(document)
    if isinstance(signed, Order):
        return "not signed yet"
    for digest, _, code, when in results:
        if digest.hex() == signed.name:
            moment = datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%d %H:%M UTC")
            return f"obeyed at {moment}" if code == 0 else f"could not be done: {reason_name(code)} at {moment}"
    return "not among the last orders of this device"


def describe(order: Order) -> dict[str, str]:
    """An order in words, name by name."""
    to = order.address
    if isinstance(to, bytes):
        address = f"device {UUID(bytes=to)}" if len(to) == 16 else f"device {to.hex()}"
    else:
        address = f"class {UUID(bytes=to[1])}" if to[0] == device.CLASS else f"group {to[1]}"
    shown = {
        "action": order.action,
        "for": address,
        "expires": datetime.fromtimestamp(order.expires, UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "nonce" if order.nonce is not None else "counter": str(
            order.nonce if order.nonce is not None else order.counter
        ),
    }
    if order.action in KEYED:
        key = order.argument[0] if order.action == "put-back" else order.argument
        shown["key"] = "a passphrase, in the order" if isinstance(key, str) else f"wrapped for {bytes(key[0]).hex()}"
    elif order.argument is not None:
        shown["argument"] = _words(order.argument)
    if order.reason:
        shown["reason"] = order.reason
    return shown


def _words(value: Any) -> str:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Mapping):
        return ", ".join(f"{name} = {_words(item)}" for name, item in value.items())
    if isinstance(value, list):
        return "[" + ", ".join(_words(item) for item in value) + "]"
    return str(value)
