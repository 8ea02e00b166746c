"""Operators: accounts, passwords, lockout, sessions. The first account is made on the command line, never over HTTP."""

from __future__ import annotations

import hashlib
import re
import secrets
import threading
from dataclasses import dataclass
from typing import Any

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError
from sqlalchemy import Connection, Row, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from ..errors import ToolError
from .options import Login
from .store import Store, Tx
from .tables import audit, operator, session

ROLES = ("viewer", "operator", "admin")
"""From the one who may only look to the one who may change everything."""
MIN_PASSWORD = 12
MAX_PASSWORD = 128
_NAME = re.compile(r"[A-Za-z0-9._@-]{1,64}")
_COMMON = ("password", "passwort", "12345678", "qwerty", "administrator", "letmein", "sekisho", "hawkbit", "abcdefgh")
_hasher = PasswordHasher(time_cost=3, memory_cost=19 * 1024, parallelism=1)
_NOBODY = _hasher.hash(secrets.token_hex(16))
_one_at_a_time = threading.Semaphore(1)
"""Argon2 needs 19 MiB a time; many at once would let logins eat the memory."""


@dataclass(frozen=True)
class Operator:
    """Somebody who has proved who they are."""

    id: int
    name: str
    role: str

    def may(self, role: str) -> bool:
        """Whether this account has at least the rights of *role*."""
        return ROLES.index(self.role) >= ROLES.index(role)


@dataclass(frozen=True)
class Locked(Exception):
    """Too many wrong passwords: no further one is looked at for *seconds*."""

    seconds: int


def check_password(name: str, password: str) -> None:
    """Raises ToolError PASSWORD for one that is too short, too long, or easily guessed."""
    low = password.lower()
    if not MIN_PASSWORD <= len(password) <= MAX_PASSWORD:
        raise ToolError("PASSWORD", f"A password has {MIN_PASSWORD} to {MAX_PASSWORD} characters.")
    if len(set(password)) < 6 or name.lower() in low or any(word in low for word in _COMMON):
        raise ToolError("PASSWORD", "This password is easily guessed; take several unrelated words.")


def _hash(password: str) -> str:
    with _one_at_a_time:
        return _hasher.hash(password)


def _verify(stored: str, password: str) -> bool:
    with _one_at_a_time:
        try:
            return _hasher.verify(stored, password)
        except (Argon2Error, InvalidHashError):
            return False


def create(store: Store, name: str, password: str, role: str) -> None:
    """A new account. Raises ToolError OPERATOR, PASSWORD."""
    if not _NAME.fullmatch(name):
        raise ToolError("OPERATOR", "A name has 1 to 64 letters, digits, dots, dashes and @.")
    if role not in ROLES:
        raise ToolError("OPERATOR", f"A role is one of {', '.join(ROLES)}.")
    check_password(name, password)
    stored = _hash(password)

    def job(tx: Tx) -> None:
        try:
            tx.conn.execute(
                insert(operator).values(
                    name=name, password=stored, role=role, created_at=tx.now, failures=0, locked_until=0
                )
            )
        except IntegrityError:
            raise ToolError("OPERATOR", f"There is an operator {name} already; see `sekisho admin passwd`.") from None
        log(tx, "command line", "operator created", name=name, role=role)

    store.call(job)


def _need(conn: Connection, name: str) -> Row[Any]:
    found = conn.execute(select(operator).where(operator.c.name == name)).first()
    if found is None:
        raise ToolError("OPERATOR", f"There is no operator {name}; see `sekisho admin list`.")
    return found


def change(store: Store, name: str, password: str | None = None, role: str | None = None) -> None:
    """Another password or role; sessions end, a lock is lifted. Raises ToolError OPERATOR, PASSWORD."""
    if role is not None and role not in ROLES:
        raise ToolError("OPERATOR", f"A role is one of {', '.join(ROLES)}.")
    if password is not None:
        check_password(name, password)
    values: dict[str, Any] = {"failures": 0, "locked_until": 0}
    values |= {"role": role} if role else {}
    values |= {"password": _hash(password)} if password is not None else {}

    def job(tx: Tx) -> None:
        number = _need(tx.conn, name).id
        tx.conn.execute(update(operator).where(operator.c.id == number).values(**values))
        tx.conn.execute(delete(session).where(session.c.operator_id == number))
        log(tx, "command line", "operator changed", name=name, role=role, password=password is not None)

    store.call(job)


def remove(store: Store, name: str) -> None:
    """Delete an account. Raises ToolError OPERATOR."""

    def job(tx: Tx) -> None:
        tx.conn.execute(delete(operator).where(operator.c.id == _need(tx.conn, name).id))
        log(tx, "command line", "operator removed", name=name)

    store.call(job)


def everybody(conn: Connection) -> list[dict[str, Any]]:
    """All accounts, without secrets."""
    columns = (operator.c.name, operator.c.role, operator.c.created_at, operator.c.locked_until)
    return [dict(row._mapping) for row in conn.execute(select(*columns).order_by(operator.c.name))]


def log(tx: Tx, who: str, what: str, **detail: Any) -> None:
    """Write down who changed what."""
    tx.conn.execute(insert(audit).values(at=tx.now, who=who, what=what, detail=detail))


class Doorkeeper:
    """Checks passwords and sessions for one server. Blocking: call it in a thread."""

    CACHE_MS = 60_000

    def __init__(self, store: Store, rules: Login) -> None:
        self.store = store
        self.rules = rules
        self._secret = secrets.token_bytes(32)
        self._known: dict[bytes, tuple[int, int, str]] = {}
        """HMAC of (name, password) -> (checked at ms, operator id, stored hash): programs send it with each request."""

    def _find(self, name: str) -> Row[Any] | None:
        return self.store.look(lambda conn: conn.execute(select(operator).where(operator.c.name == name)).first())

    def password(self, name: str, password: str) -> Operator | None:
        """The operator, or None for a wrong name or password. Raises Locked."""
        row = self._find(name)
        now = self.store.clock()
        mark = hashlib.blake2b(f"{name}\0{password}".encode("utf-8", "replace"), key=self._secret).digest()
        known = self._known.get(mark)
        if known and row and 0 <= now - known[0] < self.CACHE_MS and known[1:] == (row.id, row.password):
            return Operator(row.id, row.name, row.role)
        if row is not None and row.locked_until > now:
            raise Locked((row.locked_until - now) // 1000 + 1)
        good = len(password) <= MAX_PASSWORD and _verify(row.password if row else _NOBODY, password)
        if row is None:
            return None
        if not good:
            self.store.call(lambda tx: self._failed(tx, row.id))
            return None
        if row.failures:
            self.store.call(
                lambda tx: tx.conn.execute(
                    update(operator).where(operator.c.id == row.id).values(failures=0, locked_until=0)
                )
            )
        if len(self._known) > 1000:
            self._known.clear()
        self._known[mark] = (now, row.id, row.password)
        return Operator(row.id, row.name, row.role)

    def _failed(self, tx: Tx, number: int) -> None:
        row = tx.conn.execute(select(operator).where(operator.c.id == number)).first()
        if row is None:
            return
        failures = row.failures + 1
        over = failures - self.rules.attempts
        pause = 0 if over < 0 else min(self.rules.longest, self.rules.seconds << min(over, 20))
        tx.conn.execute(
            update(operator)
            .where(operator.c.id == number)
            .values(failures=failures, locked_until=tx.now + pause * 1000 if pause else 0)
        )
        if pause:
            log(tx, row.name, "account locked", failures=failures, seconds=pause)

    # -- sessions --------------------------------------------------------------------------------
    def begin(self, who: Operator) -> tuple[str, str]:
        """A new session: (the cookie's value, the token that forms carry)."""
        cookie, csrf = secrets.token_urlsafe(32), secrets.token_urlsafe(32)

        def job(tx: Tx) -> None:
            tx.conn.execute(delete(session).where(session.c.created_at < tx.now - self.rules.longest_hours * 3_600_000))
            tx.conn.execute(
                insert(session).values(
                    token_hash=hashlib.sha256(cookie.encode()).digest(),
                    operator_id=who.id,
                    csrf=csrf,
                    created_at=tx.now,
                    seen_at=tx.now,
                )
            )
            log(tx, who.name, "logged in")

        self.store.call(job)
        return cookie, csrf

    def session(self, cookie: str) -> tuple[Operator, str] | None:
        """Who has this session, and its form token; None when it is unknown or over."""
        digest = hashlib.sha256(cookie.encode("utf-8", "replace")).digest()
        query = (
            select(session, operator.c.name, operator.c.role)
            .join(operator, operator.c.id == session.c.operator_id)
            .where(session.c.token_hash == digest)
        )
        row = self.store.look(lambda conn: conn.execute(query).first())
        now = self.store.clock()
        if (
            row is None
            or now - row.seen_at > self.rules.idle_minutes * 60_000
            or now - row.created_at > self.rules.longest_hours * 3_600_000
        ):
            return None
        if now - row.seen_at > 60_000:
            self.store.call(
                lambda tx: tx.conn.execute(update(session).where(session.c.token_hash == digest).values(seen_at=tx.now))
            )
        return Operator(row.operator_id, row.name, row.role), row.csrf

    def end(self, cookie: str) -> None:
        """Log out."""
        digest = hashlib.sha256(cookie.encode("utf-8", "replace")).digest()
        self.store.call(lambda tx: tx.conn.execute(delete(session).where(session.c.token_hash == digest)))
