"""COSE_Sign1 and COSE_Sign with Ed25519 (RFC 9052, RFC 9864), as small as the SUIT profile needs them.

A header names the algorithm, in the protected map, and may name the key (kid), in either map but not in both; any
other header, crit included, is refused. A kid of 8 bytes is a key id of ours; any other is a foreign hint and says
nothing, so every key is tried. Either way only the keys that the caller brings can verify anything.
"""

from hashlib import sha256

from micropython import const

from .cbor import NINT, NULL, SIMPLE, Reader
from .ed25519 import verify
from .reasons import ALGORITHM, COSE, KEY_REVOKED, KEY_UNKNOWN, LIMIT, SIGNATURE, Refused

KEY_ID_SIZE = const(8)
MAX_SIGNERS = const(16)  # signatures on one COSE_Sign

_TAG_SIGN1 = const(18)
_TAG_SIGN = const(98)
_OTHER_TAGS = (17, 97, 98)  # COSE_Mac0, COSE_Mac, COSE_Sign: legal SUIT authentication, not handled here
_ALG = const(1)
_KID = const(4)
_ALGORITHMS = (-19, -8)  # Ed25519; EdDSA, which older tools write and which is Ed25519 here by the sizes
_SIGNATURE_SIZE = const(64)


def key_id(public_key) -> bytes:
    """The first 8 bytes of SHA-256 over the 32 bytes of *public_key*."""
    return sha256(public_key).digest()[:KEY_ID_SIZE]


def _protected(reader: Reader) -> tuple:
    """Takes a protected header; returns (its encoding with head, kid or None). Refused(ALGORITHM) if not ours.

    The algorithm comes first in the map, so a block of a foreign algorithm is told apart before its other headers.
    """
    start = reader.pos
    header = reader.wrapped()
    kid = alg = None
    if header.pos < header.end:
        for label in header.int_keys():
            if label == _ALG:
                alg = header.int() if header.peek() <= NINT else None
                if alg not in _ALGORITHMS:
                    raise Refused(ALGORITHM)
            elif label == _KID:
                kid = header.bstr()
            else:
                raise Refused(COSE)
        header.done()
    if alg is None:
        raise Refused(COSE)  # the algorithm must be authenticated
    return reader.buf[start : reader.pos], kid


def _kid(reader: Reader, kid):
    """Takes an unprotected header, which holds nothing or the kid; returns the kid of both headers."""
    for label in reader.int_keys():
        if label != _KID or kid is not None:
            raise Refused(COSE)
        kid = reader.bstr()
    return kid


def _signature(reader: Reader):
    signature = reader.bstr()
    if len(signature) != _SIGNATURE_SIZE:
        raise Refused(COSE)
    return signature


def _to_be_signed(start: bytes, protected, payload) -> bytearray:
    """The Sig_structure: *start*, the protected header as received, no external_aad, the payload with its head."""
    size = len(payload)
    if size > 0xFFFF:
        raise Refused(LIMIT)
    out = bytearray(start)
    out.extend(protected)
    out.append(0x40)
    out.extend(bytes((0x40 | size,) if size < 24 else (0x58, size) if size < 256 else (0x59, size >> 8, size & 255)))
    out.extend(payload)
    return out


def _find(keys, kid, message, signature) -> int:
    """The index of the key in *keys* that made *signature*."""
    code = KEY_UNKNOWN
    hint = kid is not None and len(kid) == KEY_ID_SIZE
    for index, key in enumerate(keys):
        if not hint or key_id(key) == kid:
            code = SIGNATURE
            if verify(key, message, signature):
                return index
    raise Refused(code)


def verify_sign1(block, payload, keys, revoked=()) -> int:
    """Which of *keys* (32-byte public keys) signed *payload*, the detached payload of a tagged COSE_Sign1."""
    return open_sign1(block, keys, revoked, payload)[0]


def open_sign1(block, keys, revoked=(), payload=None) -> tuple:
    """(index of the key, payload) of a tagged COSE_Sign1, which carries its payload unless one is given.

    *revoked* holds 8-byte key ids. Raises Refused: COSE or CBOR malformed, LIMIT, ALGORITHM not Ed25519,
    KEY_UNKNOWN (the kid names none of the keys), KEY_REVOKED, SIGNATURE. RFC 9052 section 4.2 and 4.4.
    """
    reader = Reader(block, wrong=COSE)
    tag = reader.tag()
    if tag != _TAG_SIGN1:
        raise Refused(ALGORITHM if tag in _OTHER_TAGS else COSE)
    if reader.array() != 4:
        raise Refused(COSE)
    protected, kid = _protected(reader)
    kid = _kid(reader, kid)
    if payload is None:
        payload = reader.bstr()
    elif reader.head() != (SIMPLE, NULL):
        raise Refused(COSE)  # SUIT payloads are detached
    signature = _signature(reader)
    reader.done()
    if kid is not None and bytes(kid) in revoked:
        raise Refused(KEY_REVOKED)
    index = _find(keys, kid, _to_be_signed(b"\x84\x6aSignature1", protected, payload), signature)
    if key_id(keys[index]) in revoked:
        raise Refused(KEY_REVOKED)
    return index, payload


def _signer(reader: Reader, payload, keys) -> int:
    """Takes one COSE_Signature; returns the index of the key that made it, or -1 if it counts for nothing."""
    if reader.array() != 3:
        raise Refused(COSE)
    try:
        protected, kid = _protected(reader)
    except Refused as error:
        if error.code != ALGORITHM:
            raise
        reader.skip()
        reader.skip()
        return -1
    kid = _kid(reader, kid)
    signature = _signature(reader)
    if kid is None:
        raise Refused(COSE)  # required here: it bounds the work to one verification per signature
    if len(kid) != KEY_ID_SIZE:
        return -1
    message = _to_be_signed(b"\x85\x69Signature\x40", protected, payload)
    try:
        return _find(keys, kid, message, signature)
    except Refused:
        return -1


def verify_sign(document, keys) -> tuple:
    """Returns (payload as a memoryview, [index in *keys* of each key that signed it]) of a tagged COSE_Sign.

    Signatures by strangers, of other algorithms or that do not verify count for nothing; what is left is for the
    caller's threshold. A key counts once, by its bytes. Raises Refused: CBOR, COSE, LIMIT. RFC 9052 section 4.1.
    """
    reader = Reader(document, wrong=COSE)
    if reader.tag() != _TAG_SIGN or reader.array() != 4:
        raise Refused(COSE)
    if len(reader.bstr()) or reader.map():
        raise Refused(COSE)  # body headers: none
    payload = reader.bstr()
    found = []
    for _ in range(reader.array(MAX_SIGNERS)):
        index = _signer(reader, payload, keys)
        if index >= 0 and all(keys[index] != keys[other] for other in found):
            found.append(index)
    reader.done()
    return payload, found
