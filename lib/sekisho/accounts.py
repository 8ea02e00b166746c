"""Who may use the console: two accounts, their passwords, and what holds guessing back. Nothing of HTTP here.

Kept with `store` as `/data/console`, JSON: ``{"fails": {role: failures in a row}, "user": [salt, rounds, hash] in hex,
"administrator": ..., "label": the secret from the label, once it is used up}``. The first log-in is the
administrator's with the secret from the label (`issued`), or the one that an order set (`console_reset`); it leads to
nothing but the choice of a password.

**Guessing**: every attempt is counted in flash before it is judged, so that pulling the plug in between gains nothing.
After a failure the account waits, 1 s, then 2, 4, 8..., and after `lockout_tries` for `lockout_minutes`, each time
anew until somebody gets in. The clock of a device may start anywhere, so a wait that was not over begins afresh with
the power: it can be prolonged that way, never cut short.

**The hash**: PBKDF2-HMAC-SHA-256 (RFC 8018), the one slow hash whose work official MicroPython does in C: bcrypt,
scrypt and argon2 are not there, and in Python they would cost us more than an attacker. docs/console.md says what
ROUNDS cost.
"""

import asyncio
import json
import os
import time
from binascii import hexlify, unhexlify
from hashlib import sha256

from micropython import const

from . import eventlog, issued, store
from .seal import pbkdf2_pieces, same
from .values import ADMIN, ORDER, USER

KEPT = "/data/console"
ROUNDS = const(4096)
MAX_ROUNDS = const(100000)
MIN_PASSWORD = const(10)  # characters
MIN_LETTERS = const(5)  # different ones
MAX_PASSWORD = const(64)  # bytes
MAX_DELAY = const(60)  # s that the wait grows to before the account is locked
NAMES = {USER: "user", ADMIN: "administrator"}

MAX_SESSIONS = const(4)
IDLE = const(600)  # s without a request after which a session is over
MAX_SESSION = const(3600)  # s after which it is over in any case


async def slow_hash(password: bytes, salt: bytes, rounds: int) -> bytes:
    """PBKDF2-HMAC-SHA-256, 32 bytes; lets others run meanwhile."""
    found = b""
    for found in pbkdf2_pieces(password, salt, rounds):  # noqa: B007 (the last one is it)
        await asyncio.sleep(0)
    return found


def plain(secret: str) -> bytes:
    """A secret from the label as it is compared: without the dashes and blanks that people may leave out."""
    return "".join([char for char in secret.upper() if char not in "- "]).encode()


class Denied(Exception):
    """A log-in that did not succeed. ``wait``: s until the next one is judged; 0 where the password was just wrong."""

    def __init__(self, wait: int = 0) -> None:
        super().__init__(wait)
        self.wait = wait


class Session:
    """One browser that logged in. ``change``: it may do nothing but choose a password."""

    def __init__(self, role: int, change: bool, now: int) -> None:
        self.id = str(hexlify(os.urandom(16)), "utf-8")
        self.csrf = str(hexlify(os.urandom(16)), "utf-8")
        self.role = role
        self.change = change
        self.began = self.used = now
        self.note = ""  # what the next page says on top


class Accounts:
    """settings: `values.Settings`; log: `eventlog.Log`."""

    def __init__(self, settings, log) -> None:
        self.settings = settings
        self.log = log
        self.sessions: list = []  # the longest unused first
        self._busy = False
        self._waits: dict = {}  # role -> s (of `seconds`) from which on it may try again
        self._uptime, self._tick = 0, time.ticks_ms()
        try:
            found = json.loads(store.load(KEPT) or b"{}")
        except ValueError:
            found = {}
        self._kept: dict = found if isinstance(found, dict) else {}
        for role in NAMES:
            if self._fails(role):
                self._waits[role] = self._pause(role)

    def seconds(self) -> int:
        """Seconds since this was made. Must be asked once in a while, since ticks wrap around after some days."""
        now = time.ticks_ms()
        passed = time.ticks_diff(now, self._tick) // 1000
        self._uptime += passed
        self._tick = time.ticks_add(self._tick, passed * 1000)
        return self._uptime

    # -- secrets and passwords ----------------------------------------------------------------------------

    def _record(self, role: int):
        """(salt, rounds, hash) of an account that has a password, or None."""
        try:
            salt, rounds, digest = self._kept[NAMES[role]]
            if 0 < rounds <= MAX_ROUNDS:
                return unhexlify(salt), rounds, unhexlify(digest)
        except (KeyError, ValueError, TypeError):
            pass
        return None

    def has(self, role: int) -> bool:
        """Whether the account has a password."""
        return self._record(role) is not None

    def _firsts(self) -> list:
        """The secrets that lead to the choice of the administrator's password."""
        found = [plain(self.settings.get("console_reset"))]
        if not self.has(ADMIN):
            found.append(plain(str(issued.load().get("console", b""), "utf-8")))
        return [secret for secret in found if len(secret) >= MIN_PASSWORD]

    def ready(self) -> bool:
        """Whether anybody could log in: never with a secret that is the same for all devices."""
        return self.has(ADMIN) or bool(self._firsts())

    def label(self) -> str:
        """The secret from the label, for the access point: whoever can read the label stands beside the device."""
        secret = self._kept.get("label") or str(issued.load().get("console", b""), "utf-8")
        return secret if isinstance(secret, str) else ""

    def weakness(self, password: str) -> str:
        """Why this may not be a password, in one of the words of `console_words`, or ""."""
        if len(password) < MIN_PASSWORD or len(set(password)) < MIN_LETTERS:
            return "too short or too simple"
        if len(password.encode()) > MAX_PASSWORD:
            return "too long"
        if plain(password) in (plain(self.label()), plain(self.settings.get("console_reset"))):
            return "the secret from the label is no password"
        return ""

    async def set_password(self, role: int, password: str) -> None:
        """Gives an account a password ("": takes it away) and ends its sessions. Raises Refused(FLASH)."""
        kept = dict(self._kept)
        kept["label"] = self.label()
        kept.pop(NAMES[role], None)
        if password:
            salt = os.urandom(16)
            digest = await slow_hash(password.encode(), salt, ROUNDS)
            kept[NAMES[role]] = [str(hexlify(salt), "utf-8"), ROUNDS, str(hexlify(digest), "utf-8")]
        kept["fails"] = {name: count for name, count in self._counts().items() if name != NAMES[role]}
        self._save(kept)
        self._waits.pop(role, None)
        self.sessions = [session for session in self.sessions if session.role != role]
        self.log.append(eventlog.PASSWORD, 0, role)
        if role == ADMIN:
            issued.forget("console")
            if self.settings.get("console_reset"):
                self.settings.change({"console_reset": ""}, ORDER)

    def _save(self, kept: dict) -> None:
        store.save(KEPT, json.dumps(kept).encode())
        self._kept = kept

    # -- logging in ---------------------------------------------------------------------------------------

    def _counts(self) -> dict:
        found = self._kept.get("fails")
        return found if isinstance(found, dict) else {}

    def _fails(self, role: int) -> int:
        count = self._counts().get(NAMES[role], 0)
        return count if isinstance(count, int) else self.settings.get("lockout_tries")

    def _count(self, role: int, count: int) -> None:
        kept = dict(self._kept)
        kept["fails"] = dict(self._counts())
        kept["fails"][NAMES[role]] = min(count, 255)
        self._save(kept)

    def _pause(self, role: int) -> int:
        """Seconds that the account waits after its failures so far."""
        fails = self._fails(role)
        if fails >= self.settings.get("lockout_tries"):
            return self.settings.get("lockout_minutes") * 60
        return min(MAX_DELAY, 1 << max(fails - 1, 0)) if fails else 0

    def wait(self, role: int) -> int:
        """Seconds until an attempt on this account is judged."""
        return max(0, self._waits.get(role, 0) - self.seconds())

    async def login(self, name: str, password: str) -> Session:
        """The session of whoever knows the password. Raises Denied; Refused(FLASH) where attempts cannot be counted."""
        role = ADMIN if name == NAMES[ADMIN] else USER  # an unknown name is a wrong password
        wait = self.wait(role)
        if wait or self._busy:
            raise Denied(wait or 1)
        self._busy = True
        try:
            fails = self._fails(role) + 1
            self._count(role, fails)  # before anything is judged
            self._waits[role] = self.seconds() + max(1, self._pause(role))
            change = await self._judge(role, password)
            if change is None or name != NAMES[role]:
                self._waits[role] = self.seconds() + self._pause(role)
                if fails == self.settings.get("lockout_tries"):
                    self.log.append(eventlog.LOCKED_OUT, 0, role)
                self.log.append(eventlog.LOGIN_FAILED, 0, fails)
                raise Denied
            self._count(role, 0)
            self._waits.pop(role, None)
        finally:
            self._busy = False
        self.log.append(eventlog.LOGIN, 0, role)
        session = Session(role, change, self.seconds())
        self.sessions.append(session)
        self.sessions = self.sessions[-MAX_SESSIONS:]
        return session

    async def check(self, role: int, password: str) -> bool:
        """Whether this is the password, asked again of somebody who is logged in; failures count as in `login`."""
        try:
            found = await self.login(NAMES[role], password)
        except Denied:
            return False
        self.end(found)
        return True

    async def _judge(self, role: int, password: str):
        """None for a wrong password, True where it is only good for the choice of another one, else False.

        Takes the same time for an account without a password.
        """
        kept = self._record(role)
        salt, rounds, expected = kept or (bytes(16), ROUNDS, bytes(32))
        good = same(await slow_hash(password.encode()[: MAX_PASSWORD + 1], salt, rounds), expected)
        if kept and good:
            return False
        first = False
        if role == ADMIN:
            given = sha256(plain(password)).digest()
            for secret in self._firsts():
                first |= same(sha256(secret).digest(), given)
        return True if first else None

    # -- sessions -----------------------------------------------------------------------------------------

    def session(self, number: str):
        """The session of this id, or None; it counts as used."""
        now = self.seconds()
        self.sessions = [one for one in self.sessions if now - one.used < IDLE and now - one.began < MAX_SESSION]
        found = None
        for one in self.sessions:
            if same(one.id.encode(), number.encode()):
                found = one
        if found:
            found.used = now
            self.sessions.remove(found)
            self.sessions.append(found)
        return found

    def end(self, session: Session) -> None:
        """Logs out."""
        if session in self.sessions:
            self.sessions.remove(session)
