"""Signing keys of the desk: key files, statements, and the one interface that everything signs through.

A key is named by a URI: ``file:keys/root-1.key`` (or just the path) or ``pkcs11:token=...;object=...``. Each key
carries a *statement*: label, role, environment and date, signed by the key itself, so that nobody without the private
key can turn a development key into a release key or a release key into a root key. The statement lies in the key
file and, for handing on, alone in the ``.pub`` file.
"""

from __future__ import annotations

import base64
import binascii
import getpass
import json
import os
import re
import stat
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from . import cose, pkcs8, signlog
from .errors import ToolError
from .files import read_file, why, write_atomic

ROLES = ("root", "release", "operator", "device", "approver")
ENVIRONMENTS = ("development", "release")
MIN_PASSPHRASE = 12
"""Characters of a passphrase; scrypt slows guessing down, it cannot save a short one."""
MAX_LABEL = 64
MAX_KEY_FILE = 16_384
"""Bytes of a key file or statement; more is no key file."""
PRIVATE, PUBLIC = ".key", ".pub"

_FORMAT = "sekisho-key-1"
_DOMAIN = b"sekisho key statement 1\0"  # no COSE Sig_structure starts like this, so no signature serves as another
_PEM = re.compile(
    r"-----BEGIN (ENCRYPTED )?PRIVATE KEY-----\s+([A-Za-z0-9+/=\s]+?)-----END (?:ENCRYPTED )?PRIVATE KEY-----"
)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_STATEMENT_LINE = "Statement: "


# -- statements ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Statement:
    """What a key says of itself. *created* is a date and time in UTC (ISO 8601); *signature* is by the key itself."""

    public_key: bytes
    label: str
    role: str
    environment: str
    created: str
    signature: bytes = b""

    @property
    def key_id(self) -> bytes:
        """The first 8 bytes of SHA-256(public key)."""
        return cose.key_id(self.public_key)

    def _fields(self) -> dict[str, str]:
        return {
            "format": _FORMAT,
            "key_id": self.key_id.hex(),
            "public_key": self.public_key.hex(),
            "label": self.label,
            "role": self.role,
            "environment": self.environment,
            "created": self.created,
        }

    def message(self) -> bytes:
        """The bytes that the key signs."""
        return _DOMAIN + json.dumps(self._fields(), sort_keys=True, separators=(",", ":")).encode()

    def to_dict(self) -> dict[str, str]:
        """As a JSON object."""
        return {**self._fields(), "signature": self.signature.hex()}

    def to_json(self, indent: int | None = 2) -> str:
        """As the text of a ``.pub`` file, or of one line with *indent* None."""
        return json.dumps(self.to_dict(), indent=indent)


def read_statement(data: str | bytes | dict[str, Any], what: str = "key statement") -> Statement:
    """The statement in JSON text or in an object, its signature checked.

    Raises ToolError KEY_FORMAT when it is none, KEY_STATEMENT when it was changed after the key signed it.
    """
    try:
        fields = data if isinstance(data, dict) else json.loads(data)
        statement = Statement(
            public_key=bytes.fromhex(fields["public_key"]),
            label=str(fields["label"]),
            role=str(fields["role"]),
            environment=str(fields["environment"]),
            created=str(fields["created"]),
            signature=bytes.fromhex(fields["signature"]),
        )
        ok = statement.to_dict() == fields and statement.role in ROLES and statement.environment in ENVIRONMENTS
        ok = ok and _good_label(statement.label) and statement.created.isprintable()
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ToolError("KEY_FORMAT", f"The {what} is not a Sekisho key statement.") from error
    if not ok or not cose.verify(statement.public_key, statement.message(), statement.signature):
        raise ToolError("KEY_STATEMENT", f"The {what} was changed after the key signed it; get the original.")
    return statement


def _good_label(label: str) -> bool:
    return 0 < len(label) <= MAX_LABEL and label.isprintable()


def make_statement(signer: cose.Signer, label: str, role: str, environment: str) -> Statement:
    """A statement signed by the key it is about. Raises ToolError KEY_ROLE or KEY_LABEL."""
    if role not in ROLES:
        raise ToolError("KEY_ROLE", f"There is no role {role!r}; take one of {', '.join(ROLES)}.")
    if environment not in ENVIRONMENTS:
        raise ToolError("KEY_ROLE", f"There is no environment {environment!r}; take one of {', '.join(ENVIRONMENTS)}.")
    if not _good_label(label):
        raise ToolError("KEY_LABEL", f"A label has 1 to {MAX_LABEL} printable characters.")
    created = datetime.now(UTC).replace(microsecond=0).isoformat()
    statement = Statement(signer.public_key, label, role, environment, created)
    return replace(statement, signature=signer.sign(statement.message()))


def require(statement: Statement, role: str | None, environment: str | None) -> None:
    """Refuse a key of another role or environment. Raises ToolError KEY_ROLE or KEYSET_ENVIRONMENT."""
    called = f"The key {statement.label!r} ({statement.key_id.hex()})"
    if role is not None and statement.role != role:
        raise ToolError("KEY_ROLE", f"{called} is a {statement.role} key, but a {role} key is needed here.")
    if environment is not None and statement.environment != environment:
        raise ToolError(
            "KEYSET_ENVIRONMENT",
            f"{called} belongs to the {statement.environment} environment; development and release are never mixed.",
        )


# -- passphrases --------------------------------------------------------------------------------------------------


class Passphrases:
    """Where passphrases and PINs come from: a prompt, or the lines of a file descriptor. Never arguments.

    From a descriptor each key takes the next line, in the order the keys are named; a single line serves all.
    """

    def __init__(self, descriptor: int | None = None, ask: Callable[[str], str] | None = None) -> None:
        self._lines: list[bytes] | None = None
        self._only: bytes | None = None
        self._ask = ask
        if descriptor is not None:
            try:
                with os.fdopen(os.dup(descriptor), "rb") as file:
                    self._lines = file.read(65_536).splitlines()
            except OSError as error:
                raise ToolError(
                    "PASSPHRASE", f"Cannot read passphrases from file descriptor {descriptor}: {why(error)}."
                ) from error
            if len(self._lines) == 1:
                self._only = self._lines[0]

    def get(self, what: str) -> bytes:
        """The passphrase of *what* (for example ``key root-1``). Raises ToolError PASSPHRASE when there is none."""
        if self._lines is not None:
            if self._only is not None:
                return self._only
            if not self._lines:
                raise ToolError("PASSPHRASE", f"The file descriptor has no line left for the passphrase of {what}.")
            return self._lines.pop(0)
        if self._ask is None and not sys.stdin.isatty():
            raise ToolError(
                "PASSPHRASE", f"The passphrase of {what} is needed: use a terminal, or name one with --passphrase-fd."
            )
        return (self._ask or getpass.getpass)(f"Passphrase of {what}: ").encode()

    def new(self, what: str) -> bytes:
        """A passphrase to be set: asked for twice at a prompt, and long enough."""
        passphrase = self.get(what)
        if self._lines is None and self.get(f"{what}, once more") != passphrase:
            raise ToolError("PASSPHRASE", "The two passphrases differ; start again.")
        if len(passphrase.decode(errors="replace")) < MIN_PASSPHRASE:
            raise ToolError("PASSPHRASE", f"A passphrase needs at least {MIN_PASSPHRASE} characters.")
        return passphrase


# -- signers ------------------------------------------------------------------------------------------------------


class Signer(cose.Signer, Protocol):
    """A key that can sign and says what it is."""

    @property
    def statement(self) -> Statement:
        """What the key says of itself, checked."""


class FileSigner:
    """The Signer of a key file."""

    def __init__(self, private: Ed25519PrivateKey, statement: Statement) -> None:
        self.private = private
        self.statement = statement
        self.public_key: bytes = private.public_key().public_bytes_raw()
        self.key_id: bytes = cose.key_id(self.public_key)

    def sign(self, data: bytes) -> bytes:
        """The 64-byte Ed25519 signature of *data*."""
        return self.private.sign(data)


def open_signer(
    uri: str, passphrases: Passphrases, *, role: str | None = None, environment: str | None = None
) -> Signer:
    """The key that *uri* names, ready to sign.

    *role* and *environment* refuse a key that is not meant for this (KEY_ROLE, KEYSET_ENVIRONMENT). Other ToolErrors:
    KEY_URI, FILE, KEY_FORMAT, KEY_STATEMENT, KEY_EXPOSED, KEY_UNPROTECTED, PASSPHRASE.
    """
    if uri.startswith("pkcs11:"):
        from . import pkcs11_keys

        return pkcs11_keys.open_signer(uri, passphrases, role, environment)
    path = _path_of(uri)
    statement, data, encrypted = read_key_file(path)
    require(statement, role, environment)
    if statement.environment == "release":
        _check_protected(path, encrypted)
    return _unlock(path, statement, data, passphrases.get(f"key {path.stem}") if encrypted else None)


def _path_of(uri: str) -> Path:
    scheme, colon, rest = uri.partition(":")
    if colon and scheme == "file":
        return Path(rest)
    if colon and not Path(uri).exists():
        raise ToolError("KEY_URI", f"There is no kind of key called {scheme!r}; use file: or pkcs11:.")
    return Path(uri)


def _check_protected(path: Path, encrypted: bool) -> None:
    if not encrypted:
        raise ToolError("KEY_UNPROTECTED", f"The release key {path} has no passphrase; make a new key and revoke it.")
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise ToolError("KEY_EXPOSED", f"Other users can read the release key {path}; run chmod 600 {path}.")


def _unlock(path: Path, statement: Statement, data: bytes, passphrase: bytes | None) -> FileSigner:
    try:
        key = pkcs8.load(data, passphrase)
    except ValueError as error:
        if passphrase is None:
            raise ToolError("KEY_FORMAT", f"The private key in {path} is damaged; use the backup.") from error
        raise ToolError("PASSPHRASE", f"The passphrase does not open {path}.") from error
    signer = FileSigner(key, statement)
    if signer.public_key != statement.public_key:
        raise ToolError("KEY_STATEMENT", f"The statement in {path} belongs to another key; use the backup.")
    return signer


# -- key files ----------------------------------------------------------------------------------------------------


def log_path(uri: str) -> Path:
    """Where the signing log of a key lies unless told otherwise: beside the key file, or in ``keys/`` for a token."""
    return (Path("keys") if uri.startswith("pkcs11:") else Path(uri.removeprefix("file:")).parent) / signlog.NAME


def record(log: Path, what: str, signer: Signer, digest: str) -> None:
    """Enter into *log* that *signer* is about to sign *what*, whose SHA-256 in hex is *digest*."""
    told = signer.statement
    signlog.record(log, what, signer.key_id, told.role, told.environment, digest)


def read_key_file(path: Path) -> tuple[Statement, bytes, bool]:
    """(statement, PKCS#8 bytes, whether they are encrypted) of the key file *path*."""
    text = read_file(path, "key file", MAX_KEY_FILE).decode(errors="replace")
    block = _PEM.search(text)
    line = next((one for one in text.splitlines() if one.startswith(_STATEMENT_LINE)), None)
    if block is None or line is None:
        hint = " It is the public half; name the .key file." if path.suffix == PUBLIC else ""
        raise ToolError("KEY_FORMAT", f"{path} is not a Sekisho key file.{hint}")
    statement = read_statement(line.removeprefix(_STATEMENT_LINE), f"statement in {path}")
    try:
        data = base64.b64decode("".join(block.group(2).split()), validate=True)
    except binascii.Error as error:
        raise ToolError("KEY_FORMAT", f"The private key in {path} is damaged; use the backup.") from error
    return statement, data, block.group(1) is not None


def load_statement(name: str | Path) -> Statement:
    """The statement in a ``.pub`` file or, without passphrase or PIN, in a key file or a token."""
    if str(name).startswith("pkcs11:"):
        from . import pkcs11_keys

        return pkcs11_keys.statement(pkcs11_keys.parse_uri(str(name)))
    path = _path_of(str(name))
    text = read_file(path, "key", MAX_KEY_FILE).decode(errors="replace")
    line = next((one for one in text.splitlines() if one.startswith(_STATEMENT_LINE)), None)
    return read_statement(line.removeprefix(_STATEMENT_LINE) if line else text, f"key statement in {path}")


def _key_file(key: Ed25519PrivateKey, statement: Statement, passphrase: bytes | None) -> str:
    encoded = base64.b64encode(pkcs8.dump(key, passphrase)).decode()
    name = "ENCRYPTED PRIVATE KEY" if passphrase is not None else "PRIVATE KEY"
    lines = [encoded[i : i + 64] for i in range(0, len(encoded), 64)]
    return "\n".join(
        (
            "Sekisho private key. The statement is signed by the key; the block is PKCS#8.",
            _STATEMENT_LINE + statement.to_json(indent=None),
            f"-----BEGIN {name}-----",
            *lines,
            f"-----END {name}-----",
            "",
        )
    )


@dataclass(frozen=True)
class KeyFiles:
    """A key pair on disk."""

    private: Path
    public: Path
    statement: Statement


def generate(
    name: str,
    directory: Path,
    role: str,
    environment: str,
    label: str | None = None,
    passphrases: Passphrases | None = None,
) -> KeyFiles:
    """Make the key pair ``NAME.key`` and ``NAME.pub`` in *directory*; *passphrases* None leaves it unencrypted.

    Raises ToolError: KEY_NAME, KEY_ROLE, KEY_LABEL, KEY_EXISTS, KEY_UNPROTECTED (a release key without passphrase),
    PASSPHRASE, FILE.
    """
    if not _NAME.fullmatch(name):
        raise ToolError("KEY_NAME", f"{name!r} cannot name a key; use letters, digits, dots, dashes, underscores.")
    private, public = directory / (name + PRIVATE), directory / (name + PUBLIC)
    for path in (private, public):
        if path.exists():
            raise ToolError("KEY_EXISTS", f"{path} exists already; a key is never overwritten.")
    if passphrases is None and environment != "development":
        raise ToolError("KEY_UNPROTECTED", "Only development keys may go without a passphrase.")
    key = Ed25519PrivateKey.generate()
    statement = make_statement(cose.MemorySigner(key.private_bytes_raw()), label or name, role, environment)
    passphrase = passphrases.new(f"the new key {name}") if passphrases else None
    write_atomic(private, _key_file(key, statement, passphrase), mode=0o600)
    try:
        write_atomic(public, statement.to_json() + "\n")
    except ToolError:
        private.unlink(missing_ok=True)  # nobody has used it yet, and half a pair could not be made again
        raise
    return KeyFiles(private, public, statement)


@dataclass(frozen=True)
class Listed:
    """One line of `list_keys`: *protection* is ``encrypted``, ``open``, ``public only`` or what is wrong."""

    path: Path | str
    statement: Statement | None
    protection: str


def list_keys(directory: Path) -> list[Listed]:
    """The keys in *directory*, damaged ones included. Raises ToolError FILE when it cannot be read."""
    if not directory.is_dir():
        raise ToolError("FILE", f"There is no directory {directory}.")
    found = []
    stems = {path.with_suffix("") for path in directory.iterdir() if path.suffix in (PRIVATE, PUBLIC)}
    for stem in sorted(stems):
        private = stem.with_name(stem.name + PRIVATE)
        path = private if private.exists() else stem.with_name(stem.name + PUBLIC)
        try:
            if path is private:
                statement, _, encrypted = read_key_file(path)
                found.append(Listed(path, statement, "encrypted" if encrypted else "open"))
            else:
                found.append(Listed(path, load_statement(path), "public only"))
        except ToolError as error:
            found.append(Listed(path, None, error.code))
    return found


def labels_in(directory: Path) -> dict[bytes, str]:
    """Key id -> label of the keys whose statements lie in *directory*, which may be missing."""
    found = list_keys(directory) if directory.is_dir() else []
    return {one.statement.key_id: one.statement.label for one in found if one.statement}


def backup(path: Path, target: Path, passphrases: Passphrases, new_passphrases: Passphrases | None = None) -> Path:
    """Copy the key file *path* to *target* (a file, or a directory), opened before and after to show that it works.

    With *new_passphrases* the copy gets a passphrase of its own. Raises ToolError KEY_EXISTS when *target* exists.
    """
    statement, data, encrypted = read_key_file(path)
    passphrase = passphrases.get(f"key {path.stem}") if encrypted else None
    signer = _unlock(path, statement, data, passphrase)
    if target.is_dir():
        target = target / path.name
    if target.exists():
        raise ToolError("KEY_EXISTS", f"{target} exists already; a key is never overwritten.")
    if new_passphrases is not None:
        passphrase = new_passphrases.new(f"the backup {target.name}")
        text = _key_file(signer.private, statement, passphrase)
    else:
        text = read_file(path, "key file", MAX_KEY_FILE).decode()
    write_atomic(target, text, mode=0o600)
    copied, copied_data, _ = read_key_file(target)
    _unlock(target, copied, copied_data, passphrase)
    if copied != statement:
        raise ToolError("FILE", f"{target} did not read back as it was written; the medium is bad.")
    return target


def destroy(path: Path, key_id: str) -> Statement:
    """Overwrite and remove the private key file *path*, whose key id must be *key_id*; its ``.pub`` stays.

    Overwriting reaches neither backups nor the spare blocks of an SSD; destroying the passphrase does.
    """
    statement, _, _ = read_key_file(path)
    if statement.key_id.hex() != key_id.lower():
        raise ToolError("KEY_UNKNOWN", f"{path} holds the key {statement.key_id.hex()}, not {key_id}; nothing done.")
    try:
        size = path.stat().st_size
        with path.open("r+b") as file:
            file.write(os.urandom(size))
            file.flush()
            os.fsync(file.fileno())
        path.unlink()
    except OSError as error:
        raise ToolError("FILE", f"Cannot destroy {path}: {why(error)}.") from error
    return statement
