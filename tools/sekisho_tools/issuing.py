"""Batches of device identities: made at the desk, encrypted at rest, each given out once.

A batch file is JSON. What is secret in it (device key, key-encryption key, enrolment token, console secret) is sealed
record by record with AES-256-GCM under a key that scrypt makes from a passphrase; the whole file carries an HMAC under
the same passphrase, so that nobody turns a used record into a fresh one by editing.

A record is *fresh*, then *taken*, and never fresh again: the log beside the batch and the batch itself say that it is
taken before its secrets leave, and the batch forgets those secrets in the same write. A crash in between costs a
record, never gives one to two devices. The log also remembers where an old copy of the batch file was put back.
"""

from __future__ import annotations

import base64
import binascii
import fcntl
import hashlib
import hmac
import json
import os
import re
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from . import config, cose, keyset, signlog
from .errors import ToolError
from .files import read_file, why, write_atomic
from .identity import class_id, vendor_id

FORMAT = "sekisho-batch-1"
LOG = "issue-log.jsonl"
"""The log of what was given out, beside the batch file: a chained log like that of the signing desk."""
SCRYPT_N, SCRYPT_R, SCRYPT_P = 1 << 16, 8, 1
"""Costs of guessing a passphrase: 64 MiB and some tenths of a second per guess."""
MAX_COUNT = 10_000
"""Records of one batch."""
MAX_FILE = 32 << 20
KEK_SIZE = 16
"""Bytes of a key-encryption key: A128KW."""
FRESH, TAKEN, VOID = "fresh", "taken", "void"
ISSUED, ON_DEVICE = "issued", "on-device"
"""Where the device key comes from: made here, or by the device at its first start (no secret key passes the desk)."""
CONSOLE_ALPHABET = "23456789ABCDEFGHJKMNPQRSTUVWXYZ"
"""Letters of a console secret: none that a person takes for another (0 O, 1 I L)."""
CONSOLE_GROUPS, CONSOLE_GROUP = 4, 4
_MAC = re.compile(r"([0-9a-f]{2})[:-]?" * 5 + r"([0-9a-f]{2})")


@dataclass(frozen=True)
class Secrets:
    """What one device keeps to itself: Ed25519 *seed* (None: the device makes its own), *kek*, the one-time enrolment
    *token* (the server's security token), the *console* secret that is printed on the label."""

    kek: bytes = field(repr=False)
    token: str = field(repr=False)
    console: str = field(repr=False)
    seed: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Header:
    """What all devices of a batch have in common. *keyset* is the SHA-256 (hex) of their first key set."""

    batch: str
    created: str
    product: str
    vendor: str
    product_class: str
    environment: str
    keyset: str
    keyset_version: int
    key: str


@dataclass
class Record:
    """One identity. *physical* is the MAC address (``24:0a:c4:00:00:01``) once it is known; *once* and *kept* are
    sealed: what leaves with the device and is then forgotten, and the key-encryption key, which releases need."""

    number: int
    id: str
    public_key: str | None
    kept: str
    once: str | None
    state: str = FRESH
    physical: str | None = None
    taken: str | None = None
    note: str = ""

    def public(self) -> dict[str, Any]:
        """Everything that is no secret."""
        return {name: value for name, value in asdict(self).items() if name not in ("once", "kept")}


@dataclass(frozen=True)
class Taken:
    """A record that has just been given out, with its secrets. There is no second time."""

    header: Header
    record: Record
    secrets: Secrets


def now() -> str:
    """The time in UTC, ISO 8601, whole seconds."""
    return datetime.now(UTC).replace(microsecond=0).isoformat()


def physical_id(text: str) -> str:
    """*text* (``24:0A:C4:00:00:01``, also with dashes or nothing between) in the form that records have.

    Raises ToolError PHYSICAL_ID for anything that is no MAC address of one device.
    """
    match = _MAC.fullmatch(text.strip().lower())
    octets = bytes.fromhex("".join(match.groups())) if match else b""
    if not octets or octets[0] & 1 or not any(octets):
        raise ToolError("PHYSICAL_ID", f"{text!r} is no MAC address of a device, for example 24:0a:c4:00:00:01.")
    return octets.hex(":")


def _console_secret() -> str:
    groups = ("".join(secrets.choice(CONSOLE_ALPHABET) for _ in range(CONSOLE_GROUP)) for _ in range(CONSOLE_GROUPS))
    return "-".join(groups)


def _canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


class _Cipher:
    """Seals and opens records, and authenticates the file; made from passphrase and salt."""

    def __init__(self, passphrase: bytes, salt: bytes) -> None:
        derived = Scrypt(salt, 64, SCRYPT_N, SCRYPT_R, SCRYPT_P).derive(passphrase)
        self._aead, self._mac = AESGCM(derived[:32]), derived[32:]

    def seal(self, values: dict[str, str], *about: str) -> str:
        nonce = os.urandom(12)
        return base64.b64encode(nonce + self._aead.encrypt(nonce, _canonical(values), _canonical(about))).decode()

    def open(self, sealed: str, *about: str) -> dict[str, str]:
        try:
            data = base64.b64decode(sealed, validate=True)
            values = json.loads(self._aead.decrypt(data[:12], data[12:], _canonical(about)))
        except (InvalidTag, ValueError, binascii.Error) as error:
            raise ToolError("BATCH", f"The secrets of record {about[1]} are damaged; void it.") from error
        return {str(name): str(value) for name, value in values.items()}

    def mac(self, content: dict[str, Any]) -> str:
        return hmac.digest(self._mac, _canonical(content), "sha256").hex()


@dataclass
class Batch:
    """The content of a batch file. Nothing in it is believed until `unlock` has checked it."""

    header: Header
    salt: bytes
    records: list[Record]
    mac: str = ""

    def content(self) -> dict[str, Any]:
        """The file without its HMAC."""
        return {
            "format": FORMAT,
            "header": asdict(self.header),
            "kdf": {"name": "scrypt", "n": SCRYPT_N, "r": SCRYPT_R, "p": SCRYPT_P, "salt": self.salt.hex()},
            "records": [asdict(record) for record in self.records],
        }

    def find(self, name: str) -> Record:
        """The record with the id (or number, or MAC address) *name*. Raises ToolError RECORD."""
        wanted = name.strip().lower()
        for record in self.records:
            if wanted in (record.id, str(record.number), record.physical):
                return record
        raise ToolError("RECORD", f"The batch has no record {name!r}; `sekisho issue list` shows what it has.")

    def count(self, state: str) -> int:
        """How many records are in *state*."""
        return sum(record.state == state for record in self.records)


def load(path: Path) -> Batch:
    """The batch in *path*, its shape checked but not its HMAC. Raises ToolError FILE or BATCH."""
    data = read_file(path, "batch", MAX_FILE)
    try:
        raw = json.loads(data)
        batch = Batch(
            header=Header(**raw["header"]),
            salt=bytes.fromhex(raw["kdf"]["salt"]),
            records=[Record(**one) for one in raw["records"]],
            mac=str(raw["mac"]),
        )
        known = {**batch.content(), "mac": batch.mac} == raw and all(
            UUID(one.id) and one.state in (FRESH, TAKEN, VOID) for one in batch.records
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ToolError("BATCH", f"{path} is no batch file, or it was cut off; use the backup.") from error
    if not known:
        raise ToolError("BATCH", f"{path} is a batch file of another version of Sekisho, or it was changed.")
    return batch


def create(
    path: Path,
    count: int,
    document: bytes,
    vendor: str,
    product_class: str,
    passphrase: bytes,
    *,
    product: str = "",
    key: str = ISSUED,
) -> Batch:
    """Make *count* records for devices whose first key set is *document*, and write them to *path*.

    The batch belongs to the environment of that key set. Raises ToolError COUNT, FILE_EXISTS, FILE, IDENTITY, and the
    engine's reasons for a key set that no device would take.
    """
    if not 1 <= count <= MAX_COUNT:
        raise ToolError("COUNT", f"A batch has 1 to {MAX_COUNT} records, not {count}.")
    if path.exists():
        raise ToolError("FILE_EXISTS", f"{path} exists already; a batch is never overwritten.")
    config.first_keyset(document)
    content = keyset.decode(document)
    header = Header(
        batch=str(uuid4()),
        created=now(),
        product=product,
        vendor=str(vendor_id(vendor)),
        product_class=str(class_id(vendor, product_class)),
        environment=content.environment_name,
        keyset=keyset_digest(document),
        keyset_version=content.version,
        key=key,
    )
    salt = os.urandom(16)
    cipher = _Cipher(passphrase, salt)
    batch = Batch(header, salt, [_new_record(cipher, header, number) for number in range(1, count + 1)])
    _save(path, batch, cipher)
    return batch


def keyset_digest(document: bytes) -> str:
    """SHA-256 of a key set document in hex."""
    return hashlib.sha256(document).hexdigest()


def _new_record(cipher: _Cipher, header: Header, number: int) -> Record:
    name = str(uuid4())
    once = {"token": secrets.token_hex(32), "console": _console_secret()}
    public = None
    if header.key == ISSUED:
        seed = os.urandom(32)
        once["seed"] = seed.hex()
        public = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw().hex()
    kept = {"kek": os.urandom(KEK_SIZE).hex()}
    return Record(
        number=number,
        id=name,
        public_key=public,
        kept=cipher.seal(kept, header.batch, name, "kept"),
        once=cipher.seal(once, header.batch, name, "once"),
    )


def _save(path: Path, batch: Batch, cipher: _Cipher) -> None:
    content = batch.content()
    batch.mac = cipher.mac(content)
    write_atomic(path, json.dumps({**content, "mac": batch.mac}, indent=1) + "\n", mode=0o600)


class OpenBatch:
    """A batch that is unlocked and locked against others for as long as `unlock` lasts."""

    def __init__(self, path: Path, batch: Batch, cipher: _Cipher) -> None:
        self.path, self.batch, self._cipher = path, batch, cipher
        self.log = path.with_name(LOG)

    @property
    def header(self) -> Header:
        """What all its devices have in common."""
        return self.batch.header

    def take(self, count: int = 1, physical: Sequence[str] = ()) -> list[Taken]:
        """Give out *count* fresh records; with *physical* the first ones are bound to these MAC addresses.

        When this returns, log and batch already say that they are taken. Raises ToolError BATCH_EMPTY, PHYSICAL_USED.
        """
        macs = [physical_id(text) for text in physical]
        for mac in macs:
            self._check_physical(mac)
        known = self._given_out()
        for record in self.batch.records:
            if record.state == FRESH and record.id in known:
                record.state, record.once, record.note = VOID, None, "the log has it as given out already"
        fresh = [record for record in self.batch.records if record.state == FRESH][:count]
        if len(fresh) < count:
            raise ToolError("BATCH_EMPTY", f"{self.path} has {len(fresh)} fresh records left, not {count}.")
        taken = [self._open(record) for record in fresh]
        for number, (record, _) in enumerate(taken):
            record.physical = macs[number] if number < len(macs) else record.physical
            record.state, record.once, record.taken = TAKEN, None, now()
            self._enter(f"issued device {record.id}", record)
        self.save()
        return [Taken(self.header, record, kept) for record, kept in taken]

    def _open(self, record: Record) -> tuple[Record, Secrets]:
        once = self._cipher.open(record.once or "", self.header.batch, record.id, "once")
        seed = bytes.fromhex(once["seed"]) if "seed" in once else None
        return record, Secrets(self.kek(record), once["token"], once["console"], seed)

    def kek(self, record: Record) -> bytes:
        """The key-encryption key of a device, for releases that are encrypted to it."""
        return bytes.fromhex(self._cipher.open(record.kept, self.header.batch, record.id, "kept")["kek"])

    def bind(self, record: Record, physical: str) -> None:
        """Note that the device with this identity is the chip with this MAC address, for good.

        Raises ToolError PHYSICAL_ID, PHYSICAL_USED (another record has that chip), RECORD_BOUND (to another chip),
        RECORD_STATE (not given out yet).
        """
        mac = physical_id(physical)
        if record.state != TAKEN:
            raise ToolError("RECORD_STATE", f"Record {record.id} is {record.state}; only a taken one can be bound.")
        if record.physical == mac:
            return
        if record.physical:
            raise ToolError("RECORD_BOUND", f"Record {record.id} belongs to the chip {record.physical} already.")
        self._check_physical(mac)
        record.physical = mac
        self._enter(f"bound device {record.id} to {mac}", record)
        self.save()

    def void(self, record: Record, reason: str) -> None:
        """Never use this record (again): its device was scrapped, or its secrets were seen."""
        record.state, record.once, record.note = VOID, None, reason
        self._enter(f"voided device {record.id}", record)
        self.save()

    def save(self) -> None:
        """Write the file."""
        _save(self.path, self.batch, self._cipher)

    def _check_physical(self, mac: str) -> None:
        other = next((one for one in self.batch.records if one.physical == mac and one.state != VOID), None)
        if other:
            raise ToolError("PHYSICAL_USED", f"The chip {mac} has the identity {other.id}; void that one first.")

    def _given_out(self) -> set[str]:
        entries = signlog.verify(self.log) if self.log.exists() else []
        return {entry.what.split()[-1] for entry in entries if entry.what.startswith("issued device ")}

    def _enter(self, what: str, record: Record) -> None:
        key_id = cose.key_id(bytes.fromhex(record.public_key)) if record.public_key else b""
        digest = hashlib.sha256(_canonical(record.public())).hexdigest()
        signlog.record(self.log, what, key_id, "device", self.header.environment, digest)


@contextmanager
def unlock(path: Path, passphrase: bytes) -> Iterator[OpenBatch]:
    """The batch in *path*, for this process alone. Raises ToolError PASSPHRASE (or a changed file), BATCH_BUSY."""
    load(path)
    with _lock(path):
        batch = load(path)
        cipher = _Cipher(passphrase, batch.salt)
        if not hmac.compare_digest(cipher.mac(batch.content()), batch.mac):
            raise ToolError("PASSPHRASE", f"The passphrase does not open {path}, or the file was changed.")
        yield OpenBatch(path, batch, cipher)


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """One station at a time, also when the batch lies on a shared disk that knows locks."""
    name = path.with_name(f".{path.name}.lock")
    try:
        with name.open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise ToolError("BATCH_BUSY", f"Another station is working with {path}; try again.") from error
            yield
    except OSError as error:
        raise ToolError("FILE", f"Cannot lock {path}: {why(error)}.") from error
