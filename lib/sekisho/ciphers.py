"""AES key wrap (RFC 3394) and AES-CTR (NIST SP 800-38A 6.5), on the ECB mode that every ESP32 firmware has.

Keys have 16 or 32 bytes: `cryptolib` knows no others.
"""

import cryptolib

from .crypto_error import CryptoError, octets

_ECB = 1
_IV = b"\xa6" * 8  # RFC 3394 section 2.2.3.1
_BATCH = 256  # bytes of key stream made at a time


def _ecb(key):
    key = octets(key)
    if len(key) not in (16, 32):
        raise CryptoError("KEY_LENGTH")
    return cryptolib.aes(key, _ECB)


def wrap(kek, key) -> bytes:
    """*key* (16, 24, ... bytes) under the key-encryption key, 8 bytes longer. CryptoError TYPE, LENGTH, KEY_LENGTH."""
    # One object a direction: on some ports a cipher object that has encrypted cannot decrypt.
    aes = _ecb(kek)
    key = octets(key)
    n = len(key) // 8
    if n < 2 or len(key) % 8:
        raise CryptoError("LENGTH")
    a = _IV
    r = [key[8 * i : 8 * i + 8] for i in range(n)]
    for t in range(6 * n):
        block = aes.encrypt(a + r[t % n])
        a = (int.from_bytes(block[:8], "big") ^ t + 1).to_bytes(8, "big")
        r[t % n] = block[8:]
    return a + b"".join(r)


def unwrap(kek, wrapped) -> bytes:
    """The key inside *wrapped*. CryptoError INTEGRITY when it was not made with this KEK; TYPE, LENGTH, KEY_LENGTH."""
    aes = _ecb(kek)
    wrapped = octets(wrapped)
    n = len(wrapped) // 8 - 1
    if n < 2 or len(wrapped) % 8:
        raise CryptoError("LENGTH")
    a = wrapped[:8]
    r = [wrapped[8 * i : 8 * i + 8] for i in range(1, n + 1)]
    for t in range(6 * n - 1, -1, -1):
        block = aes.decrypt((int.from_bytes(a, "big") ^ t + 1).to_bytes(8, "big") + r[t % n])
        a = block[:8]
        r[t % n] = block[8:]
    if int.from_bytes(a, "big") ^ int.from_bytes(_IV, "big"):
        raise CryptoError("INTEGRITY")
    return b"".join(r)


class AesCtr:
    """A key stream that can be entered anywhere; *iv* is the first 16-byte counter block, counted as 128 bits."""

    def __init__(self, key, iv, offset: int = 0) -> None:
        self._aes = _ecb(key)
        self._iv = int.from_bytes(octets(iv, 16), "big")
        self._counters = bytearray(_BATCH)
        self._stream = bytearray(_BATCH)
        self.seek(offset)

    def seek(self, offset: int) -> None:
        """Continue at byte *offset* of the message. CryptoError TYPE or LENGTH."""
        if type(offset) is not int:
            raise CryptoError("TYPE")
        if offset < 0:
            raise CryptoError("LENGTH")
        self._next = offset // 16
        self._refill()
        self._used = offset % 16

    def _refill(self) -> None:
        first = self._iv + self._next
        for i in range(_BATCH // 16):
            self._counters[16 * i : 16 * i + 16] = (first + i & (1 << 128) - 1).to_bytes(16, "big")
        self._aes.encrypt(self._counters, self._stream)
        self._next += _BATCH // 16
        self._used = 0

    def crypt(self, buf) -> None:
        """Encrypts or decrypts *buf* (writable) in place. CryptoError TYPE."""
        try:
            view = memoryview(buf)
            view[0:0] = b""  # refuses read-only buffers before anything changes
        except (TypeError, ValueError):
            raise CryptoError("TYPE")
        at = 0
        while at < len(view):
            if self._used == _BATCH:
                self._refill()
            size = min(_BATCH - self._used, len(view) - at)
            key = int.from_bytes(self._stream[self._used : self._used + size], "little")
            text = int.from_bytes(view[at : at + size], "little")
            view[at : at + size] = (key ^ text).to_bytes(size, "little")
            self._used += size
            at += size
