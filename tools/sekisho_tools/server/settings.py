"""Settings that operators change while the server runs (hawkBit's "system configuration"): names, types, defaults."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, insert, select

from .errors import missing, wrong
from .store import Tx
from .tables import setting

_SPAN = re.compile(r"([01]\d|2[0-3]):([0-5]\d):([0-5]\d)")
MIN_POLL = 30
"""The least polling interval that can be set, in seconds (hawkBit's)."""


@dataclass(frozen=True)
class Setting:
    """One setting: what it is when nobody set it, and what it means."""

    default: Any
    words: str
    low: int = 0
    high: int = 0
    secret: bool = False


SETTINGS: dict[str, Setting] = {
    "pollingTime": Setting("00:05:00", "How often devices ask, HH:MM:SS."),
    "authentication.targettoken.enabled": Setting(True, "Devices may use a token of their own."),
    "authentication.gatewaytoken.enabled": Setting(False, "One token may act as any device and register new ones."),
    "authentication.gatewaytoken.key": Setting("", "That token, at least 16 characters.", secret=True),
    "authentication.devicekey.enabled": Setting(True, "Devices may sign their requests with the device key."),
    "user.confirmation.flow.enabled": Setting(False, "Updates wait until they are confirmed."),
    "rollout.approval.enabled": Setting(False, "A rollout waits until another operator approves it."),
    "sekisho.silence": Setting(7200, "Seconds until a device that took an update counts as silent.", 60, 30 * 86400),
    "sekisho.history.days": Setting(0, "Days that closed actions are kept; 0 keeps them.", 0, 36500),
}


def seconds(text: str) -> int:
    """Seconds of ``HH:MM:SS``."""
    hours, minutes, rest = (int(part) for part in text.split(":"))
    return hours * 3600 + minutes * 60 + rest


def get(conn: Connection, key: str) -> Any:
    """The value of a setting."""
    found = conn.execute(select(setting.c.value).where(setting.c.key == key)).first()
    return SETTINGS[key].default if found is None else found[0]


def is_default(conn: Connection, key: str) -> bool:
    """Whether nobody has set it."""
    return conn.execute(select(setting.c.key).where(setting.c.key == key)).first() is None


def check(key: str, value: Any) -> Any:
    """*value* if it fits the setting; Problem 404 (unknown), 400."""
    kind = SETTINGS.get(key)
    if kind is None:
        raise missing("setting", key)
    if type(value) is not type(kind.default):
        raise wrong(f"{key} must be {'true or false' if isinstance(kind.default, bool) else 'of its own type'}.")
    if kind.high and not kind.low <= value <= kind.high:
        raise wrong(f"{key} must be {kind.low} to {kind.high}.")
    if key == "pollingTime" and (not _SPAN.fullmatch(value) or seconds(value) < MIN_POLL):
        raise wrong("pollingTime must be 00:00:30 to 23:59:59.")
    if kind.secret and (not 16 <= len(value) <= 128 or not value.isascii() or not value.isprintable()):
        raise wrong(f"{key} must have 16 to 128 printable ASCII characters.")
    return value


def put(tx: Tx, key: str, value: Any) -> None:
    """Change a setting. Problem 404, 400."""
    check(key, value)
    reset(tx, key)
    tx.conn.execute(insert(setting).values(key=key, value=value))


def reset(tx: Tx, key: str) -> None:
    """Back to the default."""
    if key not in SETTINGS:
        raise missing("setting", key)
    tx.conn.execute(delete(setting).where(setting.c.key == key))
    tx.touched.add(EVERYBODY)


EVERYBODY = -1
"""In `Tx.touched`: every device's view may have changed."""
