"""Devices as the server knows them: registration, tokens and keys, attributes, enrolment, reports."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from .errors import Problem, exists, missing, quota, wrong
from .store import Tx
from .tables import action, attribute, device_order, enrolment, report, retired, target, target_metadata

MAX_TARGETS = 100_000
MAX_ATTRIBUTES = 100
MAX_TEXT = 128
"""Characters of an attribute's key and value (hawkBit's limit)."""
MAX_METADATA = 100
MAX_REPORTS = 200
"""Reports kept of one device; the oldest go first."""
MAX_REPORT = 32 * 1024
MIN_TOKEN = 16
RETIRED = "decommissioned"
"""Update status of a device whose identity is refused for good (ours; hawkBit has none like it)."""
MAX_ORDER = 8160
"""Bytes of an operator order with what goes with it (docs/orders.md)."""
_ATTRIBUTE = re.compile(r"[A-Za-z0-9\s_\-!@#$%^&*()+=\[\]{}|;:'\",.<>/\\?]{0,128}", re.ASCII)
_CONTROLLER = re.compile(r"[^/\\\x00-\x1f\x7f]{1,256}")


def new_token() -> str:
    """A fresh secret with 256 bits."""
    return secrets.token_urlsafe(32)


def hashed(token: str) -> bytes:
    """What is kept of a token. Tokens are random, so one SHA-256 is enough."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def same(token: str, wanted: bytes | None) -> bool:
    """Whether *token* is the one whose hash is *wanted*, in constant time."""
    return hmac.compare_digest(hashed(token), wanted or bytes(32)) and wanted is not None


def check_token(token: str) -> None:
    """Problem 400 for a token that an operator chose too short, or that does not fit into a header."""
    if not MIN_TOKEN <= len(token) <= 128 or not token.isascii() or not token.isprintable() or " " in token:
        raise wrong(f"A securityToken has {MIN_TOKEN} to 128 printable ASCII characters without spaces.")


def find(conn: Connection, controller_id: str) -> Row[Any] | None:
    """The device with this id."""
    return conn.execute(select(target).where(target.c.controller_id == controller_id)).first()


def need(conn: Connection, controller_id: str) -> Row[Any]:
    """The same; Problem 404."""
    found = find(conn, controller_id)
    if found is None:
        raise missing("target", controller_id)
    return found


def add(
    tx: Tx,
    who: str,
    controller_id: str,
    name: str | None = None,
    words: str | None = None,
    token: str | None = None,
    public_key: bytes | None = None,
) -> int:
    """Register a device; returns its row id. Problem 400, 409, 429."""
    if not _CONTROLLER.fullmatch(controller_id) or controller_id in (".", ".."):
        raise wrong("A controllerId has 1 to 256 characters, without slashes and control characters.")
    if token is not None:
        check_token(token)
    not_retired(tx.conn, controller_id, public_key)
    if (tx.conn.scalar(select(func.count()).select_from(target)) or 0) >= MAX_TARGETS:
        raise quota(f"This server keeps at most {MAX_TARGETS} targets.")
    try:
        inserted = tx.add(
            target,
            controller_id=controller_id,
            name=name or controller_id,
            description=words,
            token_hash=hashed(token) if token else None,
            public_key=public_key,
            update_status="unknown",
            request_attributes=True,
            auto_confirm=False,
            created_at=tx.now,
            created_by=who,
            modified_at=tx.now,
            modified_by=who,
        )
    except IntegrityError:
        raise exists("target", controller_id) from None
    number = inserted
    tx.touched.add(number)
    return number


def change(tx: Tx, who: str, number: int, **values: Any) -> None:
    """Change columns of a device. Problem 409 for the key of a decommissioned one."""
    not_retired(tx.conn, None, values.get("public_key"))
    tx.conn.execute(update(target).where(target.c.id == number).values(modified_at=tx.now, modified_by=who, **values))
    tx.touched.add(number)


def note(tx: Tx, number: int, **values: Any) -> None:
    """Change columns that the device's own doing changes."""
    tx.conn.execute(update(target).where(target.c.id == number).values(**values))
    tx.touched.add(number)


def remove(tx: Tx, number: int) -> None:
    """Delete a device with all that is known of it."""
    tx.conn.execute(delete(target).where(target.c.id == number))
    tx.touched.add(number)


# -- the end of a device ------------------------------------------------------------------------------------------


def retirement(conn: Connection, controller_id: str) -> Row[Any] | None:
    """When, by whom and why this device was decommissioned, or None."""
    return conn.execute(select(retired).where(retired.c.controller_id == controller_id)).first()


def not_retired(conn: Connection, controller_id: str | None, public_key: bytes | None) -> None:
    """Problem 409 for the id or the key of a decommissioned device."""
    if controller_id is not None and retirement(conn, controller_id) is not None:
        raise Problem(409, "decommissioned", f"{controller_id[:100]!r} was decommissioned; its id is not used again.")
    if public_key and conn.execute(select(retired.c.at).where(retired.c.public_key == public_key)).first():
        raise Problem(409, "decommissioned", "This key belongs to a device that was decommissioned.")


def retire(tx: Tx, who: str, device: Row[Any], why: str) -> bool:
    """Refuse this device's identity from now on, for good; False where that was so already.

    Its open updates end; its history stays, and its id and key are refused even when the device is deleted.
    """
    if retirement(tx.conn, device.controller_id) is not None:
        return False
    tx.conn.execute(
        insert(retired).values(
            controller_id=device.controller_id, public_key=device.public_key, at=tx.now, by=who, why=why[:512]
        )
    )
    forget_credentials(tx, device.id)
    mine = action.c.target_id == device.id, action.c.active
    tx.conn.execute(update(action).where(*mine).values(active=False, silent=False, status="canceled", closed_at=tx.now))
    note(tx, device.id, update_status=RETIRED, assigned_set_id=device.installed_set_id)
    return True


def forget_credentials(tx: Tx, number: int) -> None:
    """The device is nobody until it enrols anew: a wipe erases its secrets, and makes copies of them worthless."""
    tx.conn.execute(delete(device_order).where(device_order.c.target_id == number))
    note(tx, number, token_hash=None, public_key=None)


def last_words(tx: Tx, device: Row[Any], deed: str) -> None:
    """A device has signed that it is about to wipe itself (*deed*: wipe, transfer, decommission)."""
    if deed == "decommission":
        retire(tx, f"the device {device.controller_id}", device, "its last signed statement")
    else:
        forget_credentials(tx, device.id)


# -- operator orders ----------------------------------------------------------------------------------------------


def put_order(tx: Tx, who: str, number: int, body: bytes, deed: str) -> str:
    """Leave a signed order for a device, instead of the one before; returns its SHA-256 in hex."""
    take_order(tx, number)
    digest = hashlib.sha256(body).hexdigest()
    times = {"created_at": tx.now, "created_by": who, "modified_at": tx.now, "modified_by": who}
    tx.conn.execute(insert(device_order).values(target_id=number, body=body, sha256=digest, action=deed, **times))
    return digest


def waiting_order(conn: Connection, number: int) -> Row[Any] | None:
    """The order that waits for a device."""
    return conn.execute(select(device_order).where(device_order.c.target_id == number)).first()


def take_order(tx: Tx, number: int) -> None:
    """No order waits any more."""
    tx.conn.execute(delete(device_order).where(device_order.c.target_id == number))
    tx.touched.add(number)


# -- attributes ---------------------------------------------------------------------------------------------------


def put_attributes(tx: Tx, number: int, mode: str, data: Mapping[str, str | None]) -> None:
    """What a device says of itself: *mode* merge, replace or remove. Problem 400, 429."""
    if not data:
        raise wrong("data must not be empty.")
    for key, value in data.items():
        if not key or not _ATTRIBUTE.fullmatch(key) or not _ATTRIBUTE.fullmatch(value or ""):
            raise wrong(f"Keys and values have at most {MAX_TEXT} ASCII letters, digits, spaces and common signs.")
    mine = attribute.c.target_id == number
    if mode == "replace":
        tx.conn.execute(delete(attribute).where(mine))
    else:
        tx.conn.execute(delete(attribute).where(mine, attribute.c.key.in_(list(data))))
    if mode != "remove":
        rows = [{"target_id": number, "key": key, "value": value} for key, value in data.items() if value is not None]
        if rows:
            tx.conn.execute(insert(attribute), rows)
        if (tx.conn.scalar(select(func.count()).select_from(attribute).where(mine)) or 0) > MAX_ATTRIBUTES:
            raise quota(f"A target has at most {MAX_ATTRIBUTES} attributes.")
        note(tx, number, request_attributes=False)


def attributes(conn: Connection, number: int) -> dict[str, str]:
    """The attributes of a device, sorted by name."""
    query = select(attribute.c.key, attribute.c.value).where(attribute.c.target_id == number)
    return {row.key: row.value for row in conn.execute(query.order_by(attribute.c.key))}


def put_metadata(tx: Tx, number: int, pairs: Sequence[tuple[str, str]]) -> None:
    """What operators note about a device. Problem 429."""
    for key, value in pairs:
        tx.conn.execute(
            delete(target_metadata).where(target_metadata.c.target_id == number, target_metadata.c.key == key)
        )
        tx.conn.execute(insert(target_metadata).values(target_id=number, key=key, value=value))
    count = tx.conn.scalar(
        select(func.count()).select_from(target_metadata).where(target_metadata.c.target_id == number)
    )
    if (count or 0) > MAX_METADATA:
        raise quota(f"A target has at most {MAX_METADATA} metadata entries.")


def metadata(conn: Connection, number: int) -> dict[str, str]:
    """What operators noted."""
    query = select(target_metadata.c.key, target_metadata.c.value).where(target_metadata.c.target_id == number)
    return {row.key: row.value for row in conn.execute(query.order_by(target_metadata.c.key))}


# -- enrolment ----------------------------------------------------------------------------------------------------


def invite(tx: Tx, who: str, controller_id: str | None, note_text: str | None, seconds: int) -> tuple[int, str]:
    """A one-time token with which a device (that one, or any) may enrol; returns (id, token)."""
    token = new_token()
    inserted = tx.add(
        enrolment,
        token_hash=hashed(token),
        controller_id=controller_id,
        note=note_text,
        expires_at=tx.now + seconds * 1000,
        created_at=tx.now,
        created_by=who,
    )
    return inserted, token


def enrol(tx: Tx, controller_id: str, one_time: str, public_key: bytes | None) -> str | None:
    """Use up a one-time token. Returns the new target token, or None for a device that brings a *public_key*.

    A device that is known already gets its token or key replaced (a token for that very device is proof enough that an
    operator wants this). Problem 401 for a token that is unknown, used, expired or for another device.
    """
    found = tx.conn.execute(select(enrolment).where(enrolment.c.token_hash == hashed(one_time))).first()
    known = find(tx.conn, controller_id)
    if (
        found is None
        or found.used_at is not None
        or found.expires_at < tx.now
        or found.controller_id not in (None, controller_id)
        or (known is not None and found.controller_id is None)
        or retirement(tx.conn, controller_id) is not None
    ):
        raise Problem(401, "enrolment", "The one-time token is not valid for this device.")
    not_retired(tx.conn, None, public_key)
    tx.conn.execute(update(enrolment).where(enrolment.c.id == found.id).values(used_at=tx.now, used_by=controller_id))
    token = None if public_key else new_token()
    who = f"enrolment {found.id}"
    number = known.id if known is not None else add(tx, who, controller_id)
    change(tx, who, number, public_key=public_key, token_hash=hashed(token) if token else None)
    return token


# -- reports ------------------------------------------------------------------------------------------------------


def add_report(tx: Tx, number: int, body: bytes, verdict: str) -> int:
    """Keep a report; the same bytes are kept once. Returns its id."""
    digest = hashlib.sha256(body).digest()
    known = tx.conn.execute(select(report.c.id).where(report.c.target_id == number, report.c.sha256 == digest)).first()
    if known is not None:
        return int(known[0])
    inserted = tx.add(report, target_id=number, received_at=tx.now, verdict=verdict, sha256=digest, body=body)
    oldest = (
        select(report.c.id).where(report.c.target_id == number).order_by(report.c.id.desc()).offset(MAX_REPORTS)
    ).scalar_subquery()
    tx.conn.execute(delete(report).where(report.c.id.in_(oldest)))
    return inserted


def reports(conn: Connection, number: int, limit: int = 50) -> Sequence[Row[Any]]:
    """The newest reports of a device."""
    query = select(report).where(report.c.target_id == number).order_by(report.c.id.desc()).limit(limit)
    return conn.execute(query).all()
