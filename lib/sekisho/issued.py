"""What the factory gave this device: the NVS namespace `sekisho`, written once on the production line.

Read here, copied elsewhere by whoever needs it to last: MicroPython erases the whole NVS when it is full or of a newer
version, and a device that loses its identity is issued anew. docs/factory.md describes every entry.
"""

from hashlib import sha256

from micropython import const
from sekisho_boot.reasons import CONTENT_KEY, Refused

NAMESPACE = "sekisho"
VERSION = const(1)
NAMES = ("id", "key", "kek", "token", "console", "groups")
MAX_VALUE = const(128)  # bytes of the longest value


def _store():
    from esp32 import NVS

    return NVS(NAMESPACE)


def load() -> dict:
    """{"id": 16 bytes, "key": Ed25519 seed, "kek": 16 bytes, "token": ..., "console": ...,
    "groups": key-encryption keys of device groups, 16 bytes each}; what is missing is left
    out, and a device that was never issued, or by a newer factory, has {}."""
    try:
        store = _store()
        if store.get_i32("version") != VERSION:
            return {}
    except OSError:
        return {}
    found = {}
    buf = bytearray(MAX_VALUE)
    for name in NAMES:
        try:
            found[name] = bytes(memoryview(buf)[: store.get_blob(name, buf)])
        except OSError:
            pass
    return found


def forget(name: str) -> None:
    """Marks an entry as erased: a token that was used, a first console secret that was changed. Its bytes stay in the
    flash until the page is reused, so it must be worthless by then."""
    try:
        store = _store()
        store.erase_key(name)
        store.commit()
    except OSError:
        pass


class Kek:
    """A key-encryption key that software holds (16 bytes)."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self.id = sha256(b"sekisho kek" + key).digest()[:8]

    def unwrap(self, wrapped: bytes) -> bytes:
        """The content key in *wrapped* (AES key wrap, RFC 3394). Refused(CONTENT_KEY) where it is not for this key."""
        from .ciphers import unwrap
        from .crypto_error import CryptoError

        try:
            return unwrap(self._key, wrapped)
        except CryptoError:
            raise Refused(CONTENT_KEY)


def keks() -> list:
    """The key-encryption keys of this device: its own, and those of its groups."""
    given = load()
    keys = given.get("kek", b"") + given.get("groups", b"")
    return [Kek(keys[at : at + 16]) for at in range(0, len(keys) - 15, 16)]
