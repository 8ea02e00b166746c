"""The device's own key: of the factory or made at first use, kept on the `data` file system, gone with a wipe.

It signs reports and, where the settings say so, requests to the update server (`account`). What it is worth is what
keeps flash from being read out: without flash encryption, whoever holds the chip can copy it, and the report of such a
copy verifies (docs/report.md).
"""

import os

from sekisho_boot.cose import key_id
from sekisho_boot.reasons import FLASH, Refused

from . import store
from .cbor import encode
from .signing import public_key, sign

PATH = "/data/device"
_PROTECTED = b"\xa1\x01\x32"  # {1: -19}, Ed25519


def _issued():
    """The seed that the factory put into NVS, or None. It is copied, since NVS may be erased by MicroPython itself."""
    try:
        from .issued import load

        seed = load().get("key")
    except ImportError:
        return None
    return seed if seed and len(seed) == 32 else None


class DeviceKey:
    """``public`` is 32 bytes; ``made`` tells that it is new. Raises Refused(FLASH) where none can be kept."""

    def __init__(self) -> None:
        kept = store.load(PATH)
        self.made = kept is None
        if kept is None:
            seed = _issued() or os.urandom(32)
            kept = seed + public_key(seed)
            store.save(PATH, kept)
        if len(kept) != 64:
            raise Refused(FLASH)
        self._seed, self.public = kept[:32], kept[32:]
        self.id = key_id(self.public)

    def sign(self, message: bytes) -> bytes:
        """The 64-byte signature of what cannot be taken for a report: it must not begin as a CBOR array does."""
        return sign(self._seed, message, self.public)

    def sign1(self, payload: bytes) -> bytes:
        """A tagged COSE_Sign1 with *payload* attached (RFC 9052 section 4.2)."""
        signature = sign(self._seed, encode(["Signature1", _PROTECTED, b"", payload]), self.public)
        return b"\xd2" + encode([_PROTECTED, {4: self.id}, payload, signature])
