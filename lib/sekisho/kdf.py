"""HMAC-SHA256 (RFC 2104) and HKDF-SHA256 (RFC 5869)."""

import hashlib

from .crypto_error import CryptoError, octets


def hmac_sha256(key, *parts) -> bytes:
    """The 32-byte authentication code of the concatenation of *parts*; any key length. CryptoError TYPE."""
    key = octets(key)
    if len(key) > 64:
        key = hashlib.sha256(key).digest()
    key += bytes(64 - len(key))
    inner = hashlib.sha256(bytes([b ^ 0x36 for b in key]))
    for part in parts:
        inner.update(octets(part))
    outer = hashlib.sha256(bytes([b ^ 0x5C for b in key]))
    outer.update(inner.digest())
    return outer.digest()


def hkdf_sha256(secret, length: int, salt=b"", info=b"") -> bytes:
    """*length* (1..8160) bytes derived from *secret*, for the purpose named by *info*. CryptoError TYPE or LENGTH."""
    if type(length) is not int:
        raise CryptoError("TYPE")
    if not 1 <= length <= 255 * 32:
        raise CryptoError("LENGTH")
    key = hmac_sha256(salt, secret)
    block = out = b""
    while len(out) < length:
        block = hmac_sha256(key, block, info, bytes([len(out) // 32 + 1]))
        out += block
    return out[:length]
