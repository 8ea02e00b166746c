"""COSE_Sign1 and COSE_Sign as Sekisho writes them: Ed25519, deterministic CBOR (RFC 9052, RFC 9864).

Everything here is written with `cbor2` and `cryptography` and shares no code with the device's `sekisho_boot.cose`,
so that each checks the other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import cbor2
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from sekisho_tools.errors import ToolError

ALG_ED25519 = -19
ALG_EDDSA = -8
LABEL_ALG = 1
LABEL_KID = 4
TAG_SIGN1 = 18
TAG_SIGN = 98
KEY_ID_SIZE = 8


class Signer(Protocol):
    """Whatever can sign: a key in memory, an encrypted file, an HSM."""

    @property
    def key_id(self) -> bytes:
        """First 8 bytes of SHA-256(public key)."""

    @property
    def public_key(self) -> bytes:
        """32 bytes, RFC 8032."""

    def sign(self, data: bytes) -> bytes:
        """The 64-byte Ed25519 signature of *data*."""


class MemorySigner:
    """A Signer over a private key held in memory."""

    def __init__(self, private_key: bytes) -> None:
        """*private_key* is the 32-byte seed of RFC 8032."""
        self._key = Ed25519PrivateKey.from_private_bytes(private_key)
        self.public_key: bytes = self._key.public_key().public_bytes_raw()
        self.key_id: bytes = key_id(self.public_key)

    def sign(self, data: bytes) -> bytes:
        """The 64-byte Ed25519 signature of *data*."""
        return self._key.sign(data)


def key_id(public_key: bytes) -> bytes:
    """The first 8 bytes of SHA-256 over the 32-byte public key."""
    return hashlib.sha256(public_key).digest()[:KEY_ID_SIZE]


def encode(value: Any) -> bytes:
    """*value* as deterministic CBOR (RFC 8949 section 4.2.1)."""
    return cbor2.dumps(value, canonical=True)


_PROTECTED = encode({LABEL_ALG: ALG_ED25519})


def sign1_input(protected: bytes, payload: bytes) -> bytes:
    """The Sig_structure of a COSE_Sign1 (RFC 9052 section 4.4) without external data."""
    return encode(["Signature1", protected, b"", payload])


def sign_input(body_protected: bytes, protected: bytes, payload: bytes) -> bytes:
    """The Sig_structure of one signature of a COSE_Sign (RFC 9052 section 4.4) without external data."""
    return encode(["Signature", body_protected, protected, b"", payload])


def _signed(signer: Signer, data: bytes) -> bytes:
    """Signs and checks the result, so that a faulty token or file cannot put a bad signature into a release."""
    signature = signer.sign(data)
    if signer.key_id != key_id(signer.public_key):
        raise ToolError("KEY_UNKNOWN", "The signer's key id does not belong to its public key; check the key store.")
    if not verify(signer.public_key, data, signature):
        raise ToolError("SIGNATURE", "The signer returned a signature that does not verify; check the key store.")
    return signature


def verify(public_key: bytes, data: bytes, signature: bytes) -> bool:
    """Whether *signature* is the Ed25519 signature of *data* by *public_key*."""
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, data)
    except (InvalidSignature, ValueError):
        return False
    return True


def sign1(payload: bytes, signer: Signer) -> bytes:
    """A tagged COSE_Sign1 over the detached *payload*: Ed25519 (-19) protected, key id unprotected."""
    signature = _signed(signer, sign1_input(_PROTECTED, payload))
    return encode(cbor2.CBORTag(TAG_SIGN1, [_PROTECTED, {LABEL_KID: signer.key_id}, None, signature]))


def _signature(payload: bytes, signer: Signer) -> list[Any]:
    return [_PROTECTED, {LABEL_KID: signer.key_id}, _signed(signer, sign_input(b"", _PROTECTED, payload))]


def sign(payload: bytes, signers: Sequence[Signer]) -> bytes:
    """A tagged COSE_Sign with *payload* attached and one signature per signer (none is allowed: to be signed later)."""
    return encode(cbor2.CBORTag(TAG_SIGN, [b"", {}, payload, [_signature(payload, signer) for signer in signers]]))


def _load_sign(document: bytes) -> list[Any]:
    try:
        tagged = cbor2.loads(document)
    except (cbor2.CBORDecodeError, ValueError, RecursionError) as error:
        raise ToolError("CBOR", f"This is not well-formed CBOR ({error}).") from error
    ok = isinstance(tagged, cbor2.CBORTag) and tagged.tag == TAG_SIGN and encode(tagged) == document
    value = tagged.value if ok else None
    if (
        not isinstance(value, list | tuple)
        or len(value) != 4
        or value[0] != b""
        or value[1] != {}
        or not isinstance(value[2], bytes)
        or not isinstance(value[3], list | tuple)
        or not all(isinstance(s, list | tuple) and len(s) == 3 and isinstance(s[1], Mapping) for s in value[3])
    ):
        raise ToolError("COSE", "This is not a COSE_Sign document with an attached payload.")
    return list(value)


def payload_of(document: bytes) -> bytes:
    """The payload of a COSE_Sign *document*, not verified."""
    payload = _load_sign(document)[2]
    assert isinstance(payload, bytes)
    return payload


def signer_ids(document: bytes) -> list[bytes]:
    """The key ids that a COSE_Sign *document* claims to be signed by, in order, not verified."""
    return [bytes(entry[1].get(LABEL_KID, b"")) for entry in _load_sign(document)[3]]


def add_signature(document: bytes, signer: Signer) -> bytes:
    """*document* with one more signature; a signature by the same key is replaced, never doubled."""
    body, headers, payload, signatures = _load_sign(document)
    kept = [entry for entry in signatures if entry[1].get(LABEL_KID) != signer.key_id]
    return encode(cbor2.CBORTag(TAG_SIGN, [body, headers, payload, [*kept, _signature(payload, signer)]]))


def verify_sign(document: bytes, keys: Sequence[bytes]) -> tuple[bytes, list[int]]:
    """(payload, [index in *keys* of each key that signed]); a key counts once, by its bytes."""
    _, _, payload, signatures = _load_sign(document)
    found: list[int] = []
    for protected, unprotected, signature in signatures:
        kid = unprotected.get(LABEL_KID)
        for index, key in enumerate(keys):
            if (
                protected == _PROTECTED
                and key_id(key) == kid
                and all(keys[other] != key for other in found)
                and verify(key, sign_input(b"", protected, payload), signature)
            ):
                found.append(index)
    return payload, found
