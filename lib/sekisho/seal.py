"""Encrypted and authenticated backups: AES-256-CTR and HMAC-SHA-256, encrypt-then-MAC, keys separated by HKDF.

    magic `SKX1` | u8 kind of key | 3 zero bytes | u32 rounds | 16 bytes salt | ciphertext | HMAC over all before it

Integers are little-endian. Kind 0: the caller's 32 bytes. Kind 1: a passphrase, through PBKDF2-HMAC-SHA-256 (RFC 8018)
with the salt. Then HKDF (RFC 5869) with the salt gives one key for each purpose. The salt is fresh for each backup, so
the counter of AES-CTR can begin at 0.

What the rounds cost and why so few: bench/password_hash.py calculates it for a chip; ROUNDS take about a second there,
during which nothing else runs. That slows guessing down by that much and no more; the length of the passphrase has to
do the rest, hence MIN_PASSPHRASE.
"""

from hashlib import sha256
from struct import pack, unpack_from

from micropython import const
from sekisho_boot.reasons import BACKUP, LIMIT, Refused

from .kdf import hkdf_sha256, hmac_sha256
from .secure import component

ROUNDS = const(8192)
MAX_ROUNDS = const(65536)
MIN_PASSPHRASE = const(12)  # characters
MAX_SEALED = const(16384)  # bytes

_MAGIC = b"SKX1"
_HEADER = const(28)
_TAG = const(32)
_KEY = const(0)
_PASSPHRASE = const(1)
_PIECE = const(32)  # rounds


def pbkdf2_pieces(passphrase: bytes, salt: bytes, rounds: int):
    """PBKDF2 (RFC 8018 section 5.2 with HMAC-SHA-256) as a generator: an empty string after each 32 rounds, so that
    others may run meanwhile, and at last the 32 bytes."""
    if len(passphrase) > 64:
        passphrase = sha256(passphrase).digest()
    key = passphrase + bytes(64 - len(passphrase))
    inner, outer = bytes([byte ^ 0x36 for byte in key]), bytes([byte ^ 0x5C for byte in key])
    last, total = salt + b"\x00\x00\x00\x01", 0
    for number in range(rounds):
        hasher = sha256(inner)
        hasher.update(last)
        last = hasher.digest()
        hasher = sha256(outer)
        hasher.update(last)
        last = hasher.digest()
        total ^= int.from_bytes(last, "big")
        if number % _PIECE == 0:
            yield b""
    yield total.to_bytes(32, "big")


def pbkdf2(passphrase: bytes, salt: bytes, rounds: int) -> bytes:
    """32 bytes, in one go."""
    found = b""
    for found in pbkdf2_pieces(passphrase, salt, rounds):  # noqa: B007 (the last one is it)
        pass
    return found


def same(one, other) -> bool:
    """Whether two byte strings are equal, in a time that does not tell where they differ."""
    different = len(one) ^ len(other)
    for a, b in zip(one, other):  # noqa: B905 (MicroPython's zip has no strict)
        different |= a ^ b
    return different == 0


def _keys(key, header: bytes) -> tuple:
    kind, rounds = header[4], unpack_from("<I", header, 8)[0]
    salt = header[12:_HEADER]
    if isinstance(key, str):
        if kind != _PASSPHRASE or not 0 < rounds <= MAX_ROUNDS:
            raise Refused(BACKUP)
        key = pbkdf2(key.encode(), salt, rounds)
    elif kind != _KEY or len(key) != 32:
        raise Refused(BACKUP)
    return (
        hkdf_sha256(key, 32, salt, b"sekisho backup encryption"),
        hkdf_sha256(key, 32, salt, b"sekisho backup authentication"),
    )


def _crypt(key: bytes, content) -> bytes:
    """AES-256-CTR from counter 0, both directions; the key is used once."""
    from .ciphers import AesCtr

    out = bytearray(content)
    AesCtr(key, bytes(16)).crypt(out)
    return bytes(out)


def seal(key, content: bytes, rounds: int = ROUNDS) -> bytes:
    """*content* under *key*: 32 bytes, or a passphrase as text of at least MIN_PASSPHRASE characters."""
    if isinstance(key, str) and len(key) < MIN_PASSPHRASE:
        raise Refused(LIMIT)
    kind, rounds = (_PASSPHRASE, rounds) if isinstance(key, str) else (_KEY, 0)
    header = _MAGIC + pack("<BBHI", kind, 0, 0, rounds) + component().random(16)
    encryption, authentication = _keys(key, header)
    sealed = header + _crypt(encryption, content)
    return sealed + hmac_sha256(authentication, sealed)


def unseal(key, document) -> bytes:
    """What was sealed. Refused(BACKUP): no backup, another key, or changed since; LIMIT: too large."""
    if len(document) > MAX_SEALED:
        raise Refused(LIMIT)
    document = bytes(document)
    if len(document) < _HEADER + _TAG or document[:4] != _MAGIC or document[5:8] != b"\x00\x00\x00":
        raise Refused(BACKUP)
    encryption, authentication = _keys(key, document[:_HEADER])
    if not same(hmac_sha256(authentication, document[:-_TAG]), document[-_TAG:]):
        raise Refused(BACKUP)
    return _crypt(encryption, document[_HEADER:-_TAG])
