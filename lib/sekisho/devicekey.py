"""The device's own key: of the factory or made at first use, kept on the `data` file system, gone with a wipe.

It signs reports and, where the settings say so, requests to the update server (`account`). What it is worth is what
keeps flash from being read out: without flash encryption, whoever holds the chip can copy it, and the report of such a
copy verifies (docs/report.md).
"""

from sekisho_boot.cose import key_id
from sekisho_boot.reasons import FLASH, Refused

from . import secure, store
from .cbor import encode
from .signing import public_key

PATH = "/data/device"


def _issued():
    """The seed that the factory put into NVS, or None. It is copied, since NVS may be erased by MicroPython itself."""
    try:
        from .issued import load

        seed = load().get("key")
    except ImportError:
        return None
    return seed if seed and len(seed) == 32 else None


def load(random) -> tuple:
    """(seed, public half, whether it was made now) of the key that software keeps. random(size): random bytes.

    Raises Refused(FLASH) where none can be kept.
    """
    kept = store.load(PATH)
    made = kept is None
    if kept is None:
        seed = _issued() or random(32)
        kept = seed + public_key(seed)
        store.save(PATH, kept)
    if len(kept) != 64:
        raise Refused(FLASH)
    return kept[:32], kept[32:], made


class DeviceKey:
    """The device key as documents are signed with it. component: `secure.component()` where none is given.

    ``public`` is its public half; ``made`` tells that it is new. Raises Refused(FLASH) where none can be kept.
    """

    def __init__(self, component=None) -> None:
        self._component = component or secure.component()
        self.public = self._component.public()
        self.made = self._component.made()
        self.id = key_id(self.public)

    def sign(self, message: bytes) -> bytes:
        """The signature of what cannot be taken for a report: it must not begin as a CBOR array does."""
        return self._component.sign(message)

    def sign1(self, payload: bytes) -> bytes:
        """A tagged COSE_Sign1 with *payload* attached (RFC 9052 section 4.2)."""
        protected = encode({1: self._component.ALGORITHM})
        signature = self._component.sign(encode(["Signature1", protected, b"", payload]))
        return b"\xd2" + encode([protected, {4: self.id}, payload, signature])
