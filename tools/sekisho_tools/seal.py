"""Signatures of documents for people: detached COSE_Sign1 (RFC 9052) over the very bytes of a file, as ``FILE.cose``.

No device takes one for the signature of a release: that is over a SUIT digest, an array in CBOR, and the documents
signed here are text that says in its beginning what it is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from . import cose, keys, keyset
from .errors import ToolError
from .files import read_file

SUFFIX = ".cose"
MAX_SEAL = 512
"""Bytes of a signature file."""
ROLES = ("release", "approver")
"""Who may sign documents: the holder of the release key, and the people who approve releases."""


@dataclass(frozen=True)
class Trusted:
    """Whose signatures count: public keys with what to call them, and key ids that were revoked."""

    known: dict[bytes, tuple[bytes, str]]
    """key id -> (public key, name)."""
    revoked: frozenset[bytes] = frozenset()


def trust(keyset_file: Path | None, public: Sequence[Path], roles: Sequence[str] = ROLES) -> Trusted | None:
    """Keys of a key set and of ``.pub`` files; None where neither was given.

    Raises ToolError FILE, KEY_FORMAT, KEY_STATEMENT, KEY_ROLE (a key that signs no documents), or why a device would
    refuse the key set.
    """
    if keyset_file is None and not public:
        return None
    known: dict[bytes, tuple[bytes, str]] = {}
    revoked: tuple[bytes, ...] = ()
    if keyset_file is not None:
        content = keyset.verify(read_file(keyset_file, "key set"))
        revoked = content.revoked_keys
        for grant in content.release:
            known[cose.key_id(grant.public_key)] = grant.public_key, f"release key of key set {content.version}"
    for path in public:
        told = keys.load_statement(path)
        _require_role(told, roles)
        known[told.key_id] = told.public_key, f"{told.role} key {told.label!r}"
    return Trusted(known, frozenset(revoked))


def require_trust(keyset_file: Path | None, public: Sequence[Path], roles: Sequence[str] = ROLES) -> Trusted:
    """The same where something must be given. Raises ToolError USAGE, too."""
    found = trust(keyset_file, public, roles)
    if found is None:
        raise ToolError("USAGE", "Name whose signature counts: --keyset FILE or --key FILE.pub.")
    return found


def _require_role(told: keys.Statement, roles: Sequence[str]) -> None:
    if told.role not in roles:
        wanted = " or ".join(roles)
        raise ToolError(
            "KEY_ROLE",
            f"The key {told.label!r} ({told.key_id.hex()}) is a {told.role} key; documents need a {wanted} key.",
        )


def open_signer(uri: str, passphrases: keys.Passphrases, roles: Sequence[str] = ROLES) -> keys.Signer:
    """The key *uri* (a file or a token), if it may sign documents: judged before anybody is asked for a PIN."""
    _require_role(keys.load_statement(uri), roles)
    return keys.open_signer(uri, passphrases)


def seal(data: bytes, what: str, signer: keys.Signer, log: Path) -> bytes:
    """The signature of *data*, entered into the signing log *log* as *what* before it is given out."""
    keys.record(log, what, signer, hashlib.sha256(data).hexdigest())
    return cose.sign1(data, signer)


def key_id_of(document: bytes) -> bytes:
    """The key id that a signature file claims. Raises ToolError SIGNATURE where it is none of ours."""
    try:
        block = cose.parse_block(document)
    except ToolError as error:
        raise ToolError("SIGNATURE", f"This is no signature of a document: {error.sentence}") from error
    if block.tag != cose.TAG_SIGN1 or block.algorithm != cose.ALG_ED25519 or block.kid is None:
        raise ToolError(
            "SIGNATURE", "This is no signature of a document: not a COSE_Sign1 by an Ed25519 key with a key id."
        )
    return block.kid


def check(data: bytes, document: bytes, trusted: Trusted) -> str:
    """The name of the trusted key that signed *data*. Raises ToolError SIGNATURE, KEY_UNKNOWN, KEY_REVOKED."""
    key_id = key_id_of(document)
    if key_id in trusted.revoked:
        raise ToolError("KEY_REVOKED", f"The key {key_id.hex()} that signed this has been revoked.")
    if key_id not in trusted.known:
        raise ToolError("KEY_UNKNOWN", f"The key {key_id.hex()} that signed this is not among those given.")
    public, name = trusted.known[key_id]
    if not cose.verify_block(cose.parse_block(document), data, Ed25519PublicKey.from_public_bytes(public)):
        raise ToolError("SIGNATURE", f"The signature by {name} ({key_id.hex()}) does not verify: the file was changed.")
    return f"{name} ({key_id.hex()})"
