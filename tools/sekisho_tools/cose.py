"""COSE_Sign1 and COSE_Sign as Sekisho writes them: Ed25519, deterministic CBOR (RFC 9052, RFC 9864).

Everything here is written with `cbor2` and `cryptography` and shares no code with the device's `sekisho_boot.cose`,
so that each checks the other.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import cbor2
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from sekisho_tools import strict_cbor
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


class MadeOffline:
    """The Signer of a *signature* that came back in a file; it signs the one thing that it was made for."""

    public_key: bytes
    signature: bytes

    @property
    def key_id(self) -> bytes:
        """The first 8 bytes of SHA-256(public key)."""
        return key_id(self.public_key)

    def sign(self, _data: bytes) -> bytes:
        """The signature as it is; it is verified before it enters a document."""
        return self.signature


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


ALG_ES256 = -7
ALG_ESP256 = -9
ED25519 = "Ed25519"
P256 = "P-256"
DEVICE_KEYS = {32: ED25519, 64: P256}
"""Types of device keys by the size of their public half: RFC 8032, or the coordinates X and Y one after the other."""
_DEVICE_ALGORITHMS = {ED25519: (ALG_ED25519,), P256: (ALG_ES256, ALG_ESP256)}


def _p256(public_key: bytes) -> ec.EllipticCurvePublicKey:
    """Raises ValueError unless the coordinates are those of a point of the curve."""
    return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\x04" + public_key)


def device_key_type(public_key: bytes) -> str:
    """ED25519 or P256. ToolError KEY_FORMAT for what cannot be the public half of a device key."""
    kind = DEVICE_KEYS.get(len(public_key))
    try:
        if kind == P256:
            _p256(public_key)
    except ValueError:
        kind = None
    if kind is None:
        raise ToolError(
            "KEY_FORMAT", "A device's public key has 32 bytes (Ed25519), or is a point of P-256 in 64 (X and Y)."
        )
    return kind


def verify_by_device(public_key: bytes, data: bytes, signature: bytes, algorithm: Any = None) -> bool:
    """Whether *signature* over *data* is by the device key *public_key* (Ed25519, or ECDSA with P-256 and SHA-256).

    *algorithm*, where a header names one, must be one of that type of key: the key says how it is checked, never the
    document. An ECDSA signature is r and s, 32 bytes each (RFC 9053 section 2.1).
    """
    kind = DEVICE_KEYS.get(len(public_key))
    if kind is None or len(signature) != 64:
        return False
    if algorithm is not None and algorithm not in _DEVICE_ALGORITHMS[kind]:
        return False
    if kind == ED25519:
        return verify(public_key, data, signature)
    r, s = (int.from_bytes(part, "big") for part in (signature[:32], signature[32:]))
    try:
        _p256(public_key).verify(encode_dss_signature(r, s), data, ec.ECDSA(hashes.SHA256()))
    except (InvalidSignature, ValueError):
        return False
    return True


def verify_sign1_by_device(document: bytes, public_key: bytes) -> bool:
    """Whether the device key *public_key* signed the COSE_Sign1 *document*, whose payload is attached.

    The outer form must be right already. Raises ToolError CBOR where the protected header is none.
    """
    parts = strict_cbor.loads(document).value
    protected = strict_cbor.loads(parts[0])
    algorithm = protected.get(LABEL_ALG) if isinstance(protected, dict) else None
    return algorithm is not None and verify_by_device(public_key, sign1_input(parts[0], parts[2]), parts[3], algorithm)


def sign1(payload: bytes, signer: Signer, *, attached: bool = False) -> bytes:
    """A tagged COSE_Sign1 over *payload*, detached or carried: Ed25519 (-19) protected, key id unprotected."""
    signature = _signed(signer, sign1_input(_PROTECTED, payload))
    carried = payload if attached else None
    return encode(cbor2.CBORTag(TAG_SIGN1, [_PROTECTED, {LABEL_KID: signer.key_id}, carried, signature]))


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


def raw_signature(document: bytes, signer: Signer) -> bytes:
    """The 64 bytes that `add_signature` would add for *signer*, to be carried from an offline machine."""
    signature = _signature(payload_of(document), signer)[2]
    assert isinstance(signature, bytes)
    return signature


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


# -- authentication blocks of any kind -------------------------------------------------------------------------------

TAG_MAC0, TAG_MAC = 17, 97
KINDS = {TAG_MAC0: "COSE_Mac0", TAG_SIGN1: "COSE_Sign1", TAG_MAC: "COSE_Mac", TAG_SIGN: "COSE_Sign"}
ALGORITHMS = {
    -19: "Ed25519",
    -8: "EdDSA",
    -7: "ES256",
    -9: "ESP256",
    -35: "ES384",
    -36: "ES512",
    -46: "HSS/LMS",
    -51: "ESP384",
    -52: "ESP512",
    -53: "Ed448",
    5: "HMAC 256/256",
}


@dataclass(frozen=True)
class HmacKey:
    """A shared secret for COSE_Mac0."""

    value: bytes


AnyKey = Ed25519PublicKey | ec.EllipticCurvePublicKey | HmacKey
"""A key that can verify a block."""


@dataclass(frozen=True)
class Block:
    """One authentication block of a SUIT envelope, as it stands there."""

    tag: int
    protected: bytes
    algorithm: int | str | None
    """None where the block has several signers or recipients."""
    kid: bytes | None
    kid_protected: bool
    signature: bytes
    """Signature or MAC tag; empty for COSE_Sign."""
    encoded: bytes


def _headers(protected: Any, unprotected: Any) -> tuple[int | str, bytes | None, bool]:
    """(algorithm, kid, kid is protected) of a pair of header maps, by the rules of docs/suit-profile.md."""
    if not isinstance(protected, bytes) or not isinstance(unprotected, dict):
        raise ToolError("COSE", "The headers of a COSE block are not a byte string and a map.")
    inner = strict_cbor.loads(protected) if protected else {}
    if not isinstance(inner, dict):
        raise ToolError("COSE", "The protected header of a COSE block is not a map.")
    if any(isinstance(label, bool) for label in (*inner, *unprotected)):  # to Python true is 1
        raise ToolError("COSE", "A COSE header has a truth value as a label.")
    if set(inner) & set(unprotected):
        raise ToolError("COSE", "A COSE header is given twice, protected and unprotected.")
    if LABEL_ALG not in inner:
        raise ToolError("COSE", "The algorithm of a COSE block is not in its protected header.")
    algorithm = inner[LABEL_ALG]
    if not isinstance(algorithm, int | str) or isinstance(algorithm, bool):
        raise ToolError("ALGORITHM", "The algorithm of a COSE block is neither a number nor a name.")
    extra = (set(inner) | set(unprotected)) - {LABEL_ALG, LABEL_KID}
    if extra and algorithm in (ALG_ED25519, ALG_EDDSA):
        raise ToolError("COSE", f"A COSE block has headers that the profile does not allow: {sorted(map(str, extra))}.")
    kid = inner.get(LABEL_KID, unprotected.get(LABEL_KID))
    if not isinstance(kid, bytes) and (kid is not None or LABEL_KID in {**inner, **unprotected}):
        raise ToolError("COSE", "The key id of a COSE block is not a byte string.")
    return algorithm, kid, LABEL_KID in inner


def parse_block(data: bytes) -> Block:
    """Reads an authentication block: COSE_Sign1, COSE_Mac0, COSE_Sign or COSE_Mac, tagged, with detached payload."""
    tagged = strict_cbor.loads(data)
    if not isinstance(tagged, strict_cbor.Tag) or tagged.number not in KINDS:
        raise ToolError("COSE", "An authentication block is not a tagged COSE signature or MAC.")
    value = tagged.value
    single = tagged.number in (TAG_SIGN1, TAG_MAC0)
    size = 5 if tagged.number == TAG_MAC else 4
    if not isinstance(value, tuple) or len(value) != size or not isinstance(value[0], bytes):
        raise ToolError("COSE", f"A {KINDS[tagged.number]} block does not have its {size} parts.")
    if value[2] is not None:
        raise ToolError("COSE", "An authentication block carries a payload; SUIT blocks are detached.")
    if not single:
        return Block(tagged.number, value[0], None, None, False, b"", data)
    algorithm, kid, kid_protected = _headers(value[0], value[1])
    if not isinstance(value[3], bytes):
        raise ToolError("COSE", "The signature of an authentication block is not a byte string.")
    if algorithm in (ALG_ED25519, ALG_EDDSA) and tagged.number == TAG_SIGN1 and len(value[3]) != 64:
        raise ToolError("COSE", "An Ed25519 signature does not have 64 bytes (Ed448 is not supported).")
    return Block(tagged.number, value[0], algorithm, kid, kid_protected, value[3], data)


def verify_block(block: Block, payload: bytes, key: AnyKey) -> bool:
    """Whether *key* made *block* over the detached *payload*: Ed25519, ES256/ESP256 or HMAC 256/256.

    As on the device, a kid of the form of our key ids that names another key rules this one out.
    """
    if block.tag == TAG_MAC0 and isinstance(key, HmacKey):
        data = encode(["MAC0", block.protected, b"", payload])
        return block.algorithm == 5 and hmac.compare_digest(hmac.digest(key.value, data, "sha256"), block.signature)
    if block.tag != TAG_SIGN1:
        return False
    data = sign1_input(block.protected, payload)
    try:
        if isinstance(key, Ed25519PublicKey) and block.algorithm in (ALG_ED25519, ALG_EDDSA):
            if block.kid is not None and len(block.kid) == KEY_ID_SIZE and block.kid != key_id(key.public_bytes_raw()):
                return False
            key.verify(block.signature, data)
        elif isinstance(key, ec.EllipticCurvePublicKey) and block.algorithm in (-7, -9) and len(block.signature) == 64:
            r, s = (int.from_bytes(part, "big") for part in (block.signature[:32], block.signature[32:]))
            key.verify(encode_dss_signature(r, s), data, ec.ECDSA(hashes.SHA256()))
        else:
            return False
    except InvalidSignature:
        return False
    return True
