"""The event log: what happened that matters to security, in entries chained by hashes (docs/events.md).

An entry has 64 bytes, little-endian: u32 number, u32 time (s since 1970), u8 event, u8 reason code, u8 1 if the clock
could be trusted, u8 0, u32 value, 16 bytes detail; then SHA-256 over the hash of the entry before and these 32 bytes.
Entries lie in two files, `/data/events.0` and `.1`, of at most ENTRIES each; when one is full the older one is
replaced, so the newest ENTRIES to 2 x ENTRIES are kept. A file begins with 64 bytes: magic `SKE1`, u32 number of its
first entry, 24 zero bytes, hash of the entry before that. The head (number and hash of the last entry) stands in every
signed report: with it, entries that were removed, changed or moved show. littlefs makes each append whole or absent.
"""

import os
from hashlib import sha256
from struct import pack, unpack_from

from micropython import const

PATH = "/data/events"
ENTRY = const(64)
BODY = const(32)
ENTRIES = const(128)  # of one file
MAGIC = b"SKE1"
MAX_UNTRUSTED = const(16)  # entries per start that somebody without any right can bring about

# Events: never renumbered. The comment is the meaning; value and detail are what it says.
START = const(1)  # The device started. value: reset cause.
KEY_MADE = const(2)  # The device made its key. detail: key id.
CLOCK = const(3)  # The clock was set from outside. value: new time.
AVAILABLE = const(4)  # A release is offered that may be installed. value: sequence number; detail: manifest digest.
STAGED = const(5)  # A release was fetched and waits for the restart. value: sequence number; detail: manifest digest.
INSTALLED = const(6)  # A release was tried and confirmed. value: sequence number; detail: manifest digest.
FAILED = const(7)  # A release was dropped or rolled back. value: sequence number; detail: manifest digest.
REFUSED = const(8)  # What a server offered was refused.
KEYSET = const(9)  # A key set was accepted. value: its version.
KEYSET_REFUSED = const(10)  # A key set was refused.
ORDER = const(11)  # An order was obeyed, or could not be done. value: action; detail: start of its digest.
ORDER_REFUSED = const(12)  # An order was not obeyed. detail: start of its digest.
SETTINGS = const(13)  # Settings were changed. detail: digest of all settings.
SETTINGS_BACK = const(14)  # A change of server or network did not work and was taken back.
DEGRADED = const(15)  # The device is not as it should be.
RECOVERED = const(16)  # It is again.
LOGIN = const(17)  # Somebody logged in at the console. value: role.
LOGIN_FAILED = const(18)  # A log-in failed. value: failures in a row.
LOCKED_OUT = const(19)  # An account was locked after too many of them.
WIPED = const(20)  # The device was wiped. value: action of the order.
BACKUP = const(21)  # Settings were exported or put back. value: 0 or 1.
LOG_LOST = const(22)  # The log could not be read and begins anew.
SUPPRESSED = const(23)  # Entries that strangers brought about were left out from here to the next start.
ROTATED = const(24)  # An order had the log go on in its other file. detail: start of its digest.
DECIDED = const(25)  # The console decided on a release. value: 1 yes, 2 no, 3 or 4 later; detail: manifest digest.
PASSWORD = const(26)  # The password of an account of the console was set or taken away. value: role.
SAFE = const(27)  # The application does not run. value: why (see `safe`).

UNTRUSTED = (REFUSED, KEYSET_REFUSED, ORDER_REFUSED, LOGIN_FAILED)
UPDATES = {AVAILABLE: "available", INSTALLED: "installed", FAILED: "failed"}  # names in the setting `notify`
WARNINGS = UNTRUSTED + (FAILED, SETTINGS_BACK, DEGRADED, LOCKED_OUT, LOG_LOST)  # noqa: RUF005


def chain(before: bytes, body) -> bytes:
    """The hash of an entry, given that of the one before it and its own 32 bytes."""
    hasher = sha256(before)
    hasher.update(body)
    return hasher.digest()


def origin(device: bytes) -> bytes:
    """What stands for the entry before the first one: it ties a log to its device."""
    return sha256(b"sekisho events " + device).digest()


class Log:
    """The log of one device. clock(): (s since 1970, whether to trust it). tell(entry): called with each new one.

    ``number`` and ``hash`` are the head, ``kept`` whether it is in flash. Without a file system it still counts and
    chains, but keeps nothing.
    """

    def __init__(self, device: bytes, clock, tell=None) -> None:
        self.clock = clock
        self.tell = tell
        self.number, self.hash = 0, origin(device)
        self.kept = True  # whether the last entry is in flash
        self._file = 0  # the one that is appended to
        self._entries = 0  # in it
        self._untrusted = 0
        self._last = (0, 0, b"")
        found = [_summary("%s.%d" % (PATH, number)) for number in (0, 1)]
        best = max(found[0], found[1])
        if best[0]:
            self._file = found.index(best)
            self.number, self._entries, self.hash = best[0], best[1], best[2]
            if best[3]:
                self._entries = ENTRIES  # its end is damaged: go on in the other file
        elif any(_exists("%s.%d" % (PATH, number)) for number in (0, 1)):
            self.append(LOG_LOST)

    def append(self, event: int, reason: int = 0, value: int = 0, detail=b"") -> bool:
        """Adds an entry. False where it is not kept: no file system, or one too many that strangers brought about."""
        detail = bytes(detail[:16])
        if event in UNTRUSTED:
            if self._last == (event, reason, detail):
                return False
            self._untrusted += 1
            if self._untrusted > MAX_UNTRUSTED:
                if self._untrusted > MAX_UNTRUSTED + 1:
                    return False
                event, reason, value, detail = SUPPRESSED, 0, 0, b""
        self._last = (event, reason, detail)
        now, trusted = self.clock()
        body = pack(
            "<IIBBBBI16s", self.number + 1, now & 0xFFFFFFFF, event, reason, trusted, 0, value & 0xFFFFFFFF, detail
        )
        entry = body + chain(self.hash, body)
        self.kept = self._write(entry)
        self.number += 1
        self.hash = entry[BODY:]
        if self.tell:
            self.tell(entry)
        return self.kept

    def _write(self, entry: bytes) -> bool:
        try:
            if self._entries in (0, ENTRIES):  # the first ever, or this file is full
                fresh = 1 - self._file if self._entries else self._file
                with open("%s.%d" % (PATH, fresh), "wb") as file:
                    file.write(MAGIC + pack("<I24s", self.number + 1, b"") + self.hash + entry)
                self._file, self._entries = fresh, 1
            else:
                with open("%s.%d" % (PATH, self._file), "ab") as file:
                    file.write(entry)
                self._entries += 1
        except OSError:
            return False
        return True

    def rotate(self, order: bytes) -> None:
        """Goes on in the other file, as when this one were full: the oldest entries go, none is changed. Once for each
        order (the start of its digest), so that it may be done twice."""
        if self._entries:
            with open("%s.%d" % (PATH, self._file), "rb") as file:
                file.seek(ENTRY)
                first = file.read(BODY)
            if first[8] == ROTATED and first[16:32] == (order + bytes(16))[:16]:
                return
            self._entries = ENTRIES
        self.append(ROTATED, 0, 0, order)

    def entries(self, after: int = 0):
        """Yields the kept entries (64 bytes each) with a number above *after*, oldest first."""
        for number in (1 - self._file, self._file):
            try:
                with open("%s.%d" % (PATH, number), "rb") as file:
                    if file.read(ENTRY)[:4] != MAGIC:
                        continue
                    while True:
                        entry = file.read(ENTRY)
                        if len(entry) < ENTRY:
                            break
                        if unpack_from("<I", entry)[0] > after:
                            yield entry
            except OSError:
                pass

    def export(self) -> bytes:
        """The files one after the other, older first, as `sekisho events verify` takes them (at most 16.5 KB)."""
        parts = []
        for number in (1 - self._file, self._file):
            try:
                with open("%s.%d" % (PATH, number), "rb") as file:
                    parts.append(file.read(ENTRY * (ENTRIES + 1)))
            except OSError:
                pass
        return b"".join(parts)


def _exists(path: str) -> bool:
    try:
        return os.stat(path)[6] > 0
    except OSError:
        return False


def _summary(path: str) -> tuple:
    """(number of the last entry, entries, its hash, whether the end is damaged) of a file; zeros if there is none."""
    try:
        with open(path, "rb") as file:
            head = file.read(ENTRY)
            size = file.seek(0, 2)
            count = min(size // ENTRY - 1, ENTRIES)
            if head[:4] != MAGIC or count < 1:
                return (0, 0, b"", False)
            file.seek(count * ENTRY)
            last = file.read(ENTRY)
    except OSError:
        return (0, 0, b"", False)
    if unpack_from("<I", last)[0] != unpack_from("<I", head, 4)[0] + count - 1:
        return (0, 0, b"", False)
    return (unpack_from("<I", last)[0], count, last[BODY:], size % ENTRY > 0)
