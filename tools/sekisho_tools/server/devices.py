"""The devices' own side of the server: who they are, what their next poll shows, when they were last heard of.

A poll must cost next to nothing, since nearly all of them have nothing to say: what it is answered is kept in memory
and forgotten when a write touches the device. One process serves a data directory, so nothing else can change it.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import re
import secrets
import threading
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, bindparam, update

from .. import cose
from . import actions, settings, targets
from .errors import Problem, missing
from .store import Store, Tx
from .tables import target

FLUSH_SECONDS = 2.0
"""How long the time of a poll is kept in memory before it is written."""
MAX_CACHED = 200_000
CHALLENGE_SECONDS = 600
"""How long a challenge for signed requests is good."""
_KEY_AUTH = re.compile(r'c="?([A-Za-z0-9_\-]{20,200})"?, ?n="?(\d{1,18})"?, ?s="?([A-Za-z0-9_\-]{86})"?', re.ASCII)
SIGNED = "sekisho-request-1"
"""First line of what a device signs."""


@dataclass
class Policy:
    """The settings that matter to every request."""

    tokens: bool
    gateway: bytes | None
    keys: bool


@dataclass
class Entry:
    """One device in memory."""

    id: int
    controller_id: str
    token_hash: bytes | None
    public_key: bytes | None
    view: actions.View
    retired: bool = False
    """Decommissioned: whoever speaks for this identity is turned away."""
    bodies: dict[str, tuple[bytes, bytes]] = field(default_factory=dict)
    """Base URL -> (body of the poll's answer, its ETag)."""


def duration(seconds: int) -> str:
    """``HH:MM:SS``."""
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def poll_body(view: actions.View, home: str) -> dict[str, Any]:
    """The answer to a poll; *home* is the device's root URL."""
    links: dict[str, Any] = {}
    if view.kind == "deployment":
        links["deploymentBase"] = {"href": f"{home}/deploymentBase/{view.action_id}?c={view.mark}"}
    elif view.kind == "cancel":
        links["cancelAction"] = {"href": f"{home}/cancelAction/{view.action_id}"}
    elif view.kind == "confirmation":
        links["confirmationBase"] = {"href": f"{home}/confirmationBase/{view.action_id}?c={view.mark}"}
    if view.installed_id is not None:
        links["installedBase"] = {"href": f"{home}/installedBase/{view.installed_id}"}
    if view.wants_attributes:
        links["configData"] = {"href": f"{home}/configData"}
    if view.order is not None:  # not in hawkBit; devices that do not know it pass it over
        links["order"] = {"href": f"{home}/order?c={view.order[:16]}"}
    return {"config": {"polling": {"sleep": duration(view.sleep)}}, "_links": links}


def signed_text(method: str, path: str, body: bytes, challenge: str, number: int) -> bytes:
    """What a device signs with its key: *path* as sent, with its query; *body* empty where there is none."""
    digest = hashlib.sha256(body).hexdigest()
    return "\n".join((SIGNED, method, path, digest, challenge, str(number))).encode()


class Devices:
    """Devices in memory, over *store*."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.policy = store.look(self._policy)
        self.seen: dict[int, tuple[int, str]] = {}
        """Target id -> (ms, address) of polls that are not written yet."""
        self._entries: dict[str, Entry] = {}
        self._names: dict[int, str] = {}
        self._epoch = 0
        self._guard = threading.Lock()
        self._secret = secrets.token_bytes(32)
        self._numbers: dict[str, int] = {}
        store.listeners.append(self._forget)

    @staticmethod
    def _policy(conn: Connection) -> Policy:
        key = settings.get(conn, "authentication.gatewaytoken.key")
        enabled = settings.get(conn, "authentication.gatewaytoken.enabled") and key
        return Policy(
            settings.get(conn, "authentication.targettoken.enabled"),
            targets.hashed(key) if enabled else None,
            settings.get(conn, "authentication.devicekey.enabled"),
        )

    def _forget(self, touched: set[int]) -> None:
        """Called in the writing thread, before the writers are told that their writes are done."""
        with self._guard:
            self._epoch += 1
            if settings.EVERYBODY in touched:
                self._entries.clear()
                self._names.clear()
                self.policy = self.store.look(self._policy)
                return
            for number in touched:
                name = self._names.pop(number, None)
                if name is not None:
                    self._entries.pop(name, None)

    # -- finding ---------------------------------------------------------------------------------
    def cached(self, controller_id: str) -> Entry | None:
        """The device, if it is in memory and still right."""
        entry = self._entries.get(controller_id)
        if entry is not None and entry.view.until is not None and self.store.clock() >= entry.view.until:
            return None
        return entry

    async def find(self, controller_id: str) -> Entry | None:
        """The device, from memory or from disk; None when it is not registered."""
        entry = self.cached(controller_id)
        if entry is not None:
            return entry
        epoch = self._epoch
        entry = await self.store.read(lambda conn: self._load(conn, controller_id))
        if entry is not None:
            with self._guard:
                if epoch == self._epoch:
                    if len(self._entries) >= MAX_CACHED:
                        self._entries.clear()
                        self._names.clear()
                    self._entries[controller_id] = entry
                    self._names[entry.id] = controller_id
        return entry

    def _load(self, conn: Connection, controller_id: str) -> Entry | None:
        row = targets.find(conn, controller_id)
        if row is None:
            return None
        view = actions.view(conn, row, self.store.clock())
        gone = targets.retirement(conn, controller_id) is not None
        return Entry(row.id, controller_id, row.token_hash, row.public_key, view, gone)

    def answer(self, entry: Entry, home: str) -> tuple[bytes, bytes]:
        """Body and ETag of the answer to a poll."""
        known = entry.bodies.get(home)
        if known is None:
            body = json.dumps(poll_body(entry.view, home), separators=(",", ":")).encode()
            known = body, b'"' + hashlib.sha256(body).hexdigest()[:32].encode() + b'"'
            if len(entry.bodies) < 4:
                entry.bodies[home] = known
        return known

    # -- who it is -------------------------------------------------------------------------------
    async def authenticate(
        self, controller_id: str, authorization: str | None, method: str, path: str, body: bytes, register: bool
    ) -> Entry:
        """The device that makes this request. Problem 401; for a gateway 403 where it speaks for a decommissioned
        device, which has no credentials of its own any more, and 404 where it asks about an unknown one.

        *register*: a gateway may bring in a device that is not known yet.
        """
        entry = self.cached(controller_id) or await self.find(controller_id)
        scheme, _, rest = (authorization or "").partition(" ")
        policy = self.policy
        if scheme == "TargetToken" and policy.tokens and entry is not None:
            if targets.same(rest, entry.token_hash):
                return entry
        elif scheme == "GatewayToken" and policy.gateway is not None:
            if targets.same(rest, policy.gateway):
                if entry is None:
                    if not register:
                        raise missing("target", controller_id)
                    entry = await self._register(controller_id)
                if entry.retired:
                    raise Problem(403, "decommissioned", "This device was decommissioned.")
                return entry
        elif (
            scheme == "DeviceKey"
            and policy.keys
            and entry is not None
            and entry.public_key is not None
            and self._signed(entry, rest, method, path, body)
        ):
            return entry
        raise self.denied(controller_id)

    def denied(self, controller_id: str) -> Problem:
        """401, with a challenge for devices that sign."""
        header = {"WWW-Authenticate": f'DeviceKey c="{self.challenge(controller_id)}"'} if self.policy.keys else {}
        return Problem(401, "unauthorized", "", header)

    async def _register(self, controller_id: str) -> Entry:
        def job(tx: Tx) -> None:
            if targets.find(tx.conn, controller_id) is None:
                targets.add(tx, "gateway", controller_id)

        await self.store.write(job)
        entry = await self.find(controller_id)
        if entry is None:
            raise missing("target", controller_id)
        return entry

    def challenge(self, controller_id: str) -> str:
        """A text to be signed by this device, good for CHALLENGE_SECONDS; the server keeps nothing of it."""
        expires = (self.store.clock() // 1000 + CHALLENGE_SECONDS).to_bytes(8, "big")
        raw = expires + secrets.token_bytes(8)
        return base64.urlsafe_b64encode(raw + self._seal(raw, controller_id)).rstrip(b"=").decode()

    def _seal(self, raw: bytes, controller_id: str) -> bytes:
        return hmac.digest(self._secret, raw + controller_id.encode("utf-8", "surrogatepass"), "sha256")[:16]

    def challenge_good(self, controller_id: str, text: str) -> bool:
        """Whether *text* is a challenge of ours for this device and not too old."""
        try:
            raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        except ValueError:
            return False
        return (
            len(raw) == 32
            and hmac.compare_digest(raw[16:], self._seal(raw[:16], controller_id))
            and int.from_bytes(raw[:8], "big") >= self.store.clock() // 1000
        )

    def _signed(self, entry: Entry, rest: str, method: str, path: str, body: bytes) -> bool:
        match = _KEY_AUTH.fullmatch(rest.strip())
        if not match or entry.public_key is None:
            return False
        challenge, number = match[1], int(match[2])
        last = self._numbers.get(challenge, -1)
        if not self.challenge_good(entry.controller_id, challenge) or number <= last:
            return False
        signature = base64.urlsafe_b64decode(match[3] + "==")
        text = signed_text(method, path, body, challenge, number)
        if not cose.verify_by_device(entry.public_key, text, signature):
            return False
        if len(self._numbers) > MAX_CACHED:
            self._numbers = {text: value for text, value in self._numbers.items() if self._still(text)}
        self._numbers[challenge] = number
        return True

    def _still(self, challenge: str) -> bool:
        raw = base64.urlsafe_b64decode(challenge + "=" * (-len(challenge) % 4))
        return int.from_bytes(raw[:8], "big") >= self.store.clock() // 1000

    # -- last seen -------------------------------------------------------------------------------
    def heard(self, entry: Entry, address: str) -> None:
        """Note a sign of life; written with the next flush."""
        self.seen[entry.id] = (self.store.clock(), address)

    async def flush(self) -> None:
        """Write the times of the last polls."""
        if not self.seen:
            return
        seen, self.seen = self.seen, {}
        rows = [{"number": number, "at": at, "from": address} for number, (at, address) in seen.items()]

        def job(tx: Tx) -> None:
            tx.conn.execute(
                update(target)
                .where(target.c.id == bindparam("number"))
                .values(last_poll_at=bindparam("at"), address=bindparam("from")),
                rows,
            )
            first = [{"number": row["number"]} for row in rows]
            tx.conn.execute(
                update(target)
                .where(target.c.id == bindparam("number"), target.c.update_status == "unknown")
                .values(update_status="registered"),
                first,
            )

        await self.store.write(job)

    async def flush_forever(self) -> None:
        """Write them every now and then."""
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            await self.flush()
