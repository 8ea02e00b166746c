"""Backups of the settings: taken and put back by order, at the console, or by the application. `seal` has the bytes.

A key is a passphrase (text), 32 bytes, or, as orders had better have it, ``[id of a key-encryption key of this device,
the 32 bytes wrapped under it]`` (AES key wrap): then neither the order nor whoever carries it gives the backup away.
"""

from hashlib import sha256

from sekisho_boot.reasons import BACKUP, CONTENT_KEY, SETTING, Refused

from . import eventlog, secure, store
from .cbor import decode, encode
from .seal import seal, unseal
from .values import ORDER, SCHEMA, VERSION, migrated

TAKEN = "/data/backup"  # the last backup that an order asked for, sealed
BROUGHT = "/data/backup-in"  # one that an order is to put back, from before it is obeyed until it was
PROFILE = "tag:sekisho,2026:backup-1"
EXPORT, IMPORT = 0, 1  # value of the event
OWN = ("controller", "token", "enrolment")  # settings of one device, which a backup does not carry to another


def opened(key):
    """The key as `seal` takes it: text or 32 bytes. Refused: CONTENT_KEY where this device cannot unwrap it."""
    if isinstance(key, (str, bytes)):
        return key
    if not isinstance(key, (list, tuple)) or len(key) != 2:
        raise Refused(BACKUP)
    for kek in secure.component().keks():
        if kek.id == key[0]:
            found = kek.unwrap(key[1])
            if len(found) == 32:
                return found
    raise Refused(CONTENT_KEY)


def take(settings, device: bytes, key, log=None) -> bytes:
    """A backup of all *settings* (`values.Settings`) under *key*, of the device of that id. Refused: LIMIT (short
    passphrase), CONTENT_KEY, BACKUP (no such key)."""

    def work() -> bytes:
        return seal(opened(key), encode({"version": VERSION, "device": device, "values": settings.all()}))

    return _noted(log, EXPORT, work)


def put_back(settings, device: bytes, key, document, role: int, log=None) -> None:
    """Sets what a backup holds, all of it or nothing, as any other change: only names that *role* may change, networks
    only kept once they worked. Names that this version does not know are passed over, and, of another device's backup,
    what makes that one known at its server (`OWN`).

    Refused: BACKUP (another key, or damaged), SETTING (of a newer schema, or values that cannot be), LIMIT, KEY_RIGHTS,
    CONTENT_KEY, FLASH.
    """
    held = settings.get("held") if role < ORDER else ()  # those stay as the operator wants them
    _noted(log, IMPORT, lambda: settings.change(_values(unseal(opened(key), document), device, role, held), role))


def _values(content: bytes, device: bytes, role: int, held) -> dict:
    found = decode(content)
    if not isinstance(found, dict):
        raise Refused(SETTING)
    found_values, version = found.get("values"), found.get("version")
    if not isinstance(found_values, dict) or not isinstance(version, int) or version > VERSION:
        raise Refused(SETTING)
    if version < VERSION:
        found_values = migrated(version, found_values)
    passed = () if found.get("device", b"") in (b"", device) else OWN
    known = [line[0] for line in SCHEMA if line[5] <= role and line[0] not in passed and line[0] not in held]
    return {name: found_values[name] for name in found_values if name in known}


def _noted(log, which: int, work):
    try:
        done = work()
    except Refused as refused:
        if log:
            log.append(eventlog.BACKUP, refused.code, which)
        raise
    if log:
        log.append(eventlog.BACKUP, 0, which)
    return done


class Keeper:
    """What orders do with backups. log: `eventlog.Log`."""

    def __init__(self, settings, device: bytes, log) -> None:
        self.settings = settings
        self.device = device
        self.log = log

    def keep(self, key) -> None:
        """Leaves a backup in flash, for whoever brings it away."""
        store.save(TAKEN, take(self.settings, self.device, key, self.log))

    def brought(self, document: bytes) -> None:
        """Keeps what came with an order, so that a power cut cannot part the two. Raises Refused(FLASH)."""
        store.save(BROUGHT, document)

    def put_back(self, key, digest: bytes, role: int) -> None:
        """Puts back what came with an order; *digest* is its SHA-256."""
        document = store.load(BROUGHT)
        if document is None or sha256(document).digest() != digest:
            raise Refused(BACKUP)
        put_back(self.settings, self.device, key, document, role, self.log)

    def done(self) -> None:
        """The order is through: what came with it is not needed any more."""
        store.remove(BROUGHT)


def statement(key, device: bytes, now: int) -> bytes:
    """The kept backup as a document that the device signed, for a server; b"" where there is none."""
    from . import report

    sealed = store.load(TAKEN)
    if sealed is None:
        return b""
    claims = {report.IAT: now, report.UEID: b"\x01" + device, report.PROFILE: PROFILE, report.SEKISHO: {1: sealed}}
    return key.sign1(encode(claims))
