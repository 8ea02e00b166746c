"""MicroPython's `deflate` and `cryptolib` for CPython, as far as device code uses them."""

from __future__ import annotations

import sys
import zlib
from types import ModuleType
from typing import Any

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

ZLIB = 2


class DeflateIO:
    """Reads its stream byte by byte and never more than it needs, as MicroPython's does."""

    def __init__(self, stream: Any, form: int, window: int) -> None:
        assert form == ZLIB
        self._stream = stream
        self._inflater = zlib.decompressobj(window)
        self._ready = b""

    def read(self, size: int) -> bytes:
        out = bytearray()
        while len(out) < size and not self._inflater.eof:
            more = self._ready or self._stream.read(1)
            if not more:
                raise EOFError
            try:
                out += self._inflater.decompress(more, size - len(out))
            except zlib.error as error:
                raise OSError(22) from error
            self._ready = self._inflater.unconsumed_tail
        return bytes(out)

    def readinto(self, buf: memoryview) -> int:
        data = self.read(len(buf))
        buf[: len(data)] = data
        return len(data)


class _Ecb:
    def __init__(self, key: bytes, mode: int) -> None:
        assert mode == 1
        self._cipher = Cipher(algorithms.AES(bytes(key)), modes.ECB())

    def encrypt(self, data: bytes, out: Any = None) -> bytes:
        result = self._cipher.encryptor().update(bytes(data))
        if out is not None:
            out[:] = result
        return result

    def decrypt(self, data: bytes) -> bytes:
        return self._cipher.decryptor().update(bytes(data))


def install(monkeypatch: Any) -> None:
    """Puts both modules where device code finds them."""
    deflate, cryptolib = ModuleType("deflate"), ModuleType("cryptolib")
    deflate.DeflateIO, deflate.ZLIB = DeflateIO, ZLIB  # type: ignore[attr-defined]
    cryptolib.aes = lambda key, mode: _Ecb(key, mode)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "deflate", deflate)
    monkeypatch.setitem(sys.modules, "cryptolib", cryptolib)
    monkeypatch.delitem(sys.modules, "sekisho.ciphers", raising=False)
