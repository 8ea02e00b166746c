"""The secure component: what a device does with its own secrets, behind one interface, chosen by the product (UPE12).

`SECURE` in `sekisho_config`: "software" (keys in flash, no counter), "esp32" (the same keys, protection and counter by
the eFuses; the default), or the name of a module of the product with a class `Component(config)`. Whatever stands
behind it, a component has

    ALGORITHM             COSE algorithm of `sign` (-19 Ed25519, -9 ECDSA with P-256)
    public()              the public half of the device key, as bytes
    kept()                whether there is a device key already; public() and sign() make one where there is none
    made()                whether it was made just now
    sign(message)         a signature by the device key, whose private half nobody else ever sees
    verify(public, message, signature)   whether an Ed25519 signature holds, by the engine's rules
    random(size)          that many random bytes
    keks()                key-encryption keys, opaque: each has `id` (8 bytes) and `unwrap(wrapped)`
    counter(), advance(target)   a number that never falls; `advance` returns what it is then
    state()               what the chip says of its protection: {`hardware` number: bool}, or None
    forget()              destroys the device key as far as the component can

Missing functions of a chip raise Refused(NOTHING). Verification of releases and orders is the engine's own and does not
come here: it takes no secrets, and the engine imports nothing from lib/.
"""

import os

from micropython import const
from sekisho_boot.reasons import NOTHING, Refused

EDDSA = const(-19)
_ESP32 = const(0)  # chip id in image headers


def component(config=None):
    """The component of this product. config: its `sekisho_config`, which is imported where it is not given."""
    if config is None:
        try:
            import sekisho_config as config  # type: ignore[import-not-found, no-redef]
        except ImportError:
            pass
    name = getattr(config, "SECURE", "esp32")
    if name == "software" or config is None:
        return Software(config)
    if name == "esp32":
        return Esp32(config)
    return __import__(name).Component(config)


class Software:
    """Keys in flash: the device key on `data`, key-encryption keys in NVS. No counter."""

    ALGORITHM = EDDSA

    def __init__(self, config) -> None:
        self.config = config
        self._key: tuple = ()

    def _device(self) -> tuple:
        """(seed, public half, whether it was made now)."""
        if not self._key:
            from .devicekey import load

            self._key = load(self.random)
        return self._key

    def public(self) -> bytes:
        return self._device()[1]

    def made(self) -> bool:
        return self._device()[2]

    def kept(self) -> bool:
        from . import store
        from .devicekey import PATH

        return store.load(PATH) is not None

    def sign(self, message) -> bytes:
        from .signing import sign

        seed, public, _ = self._device()
        return sign(seed, message, public)

    def verify(self, public, message, signature) -> bool:
        from sekisho_boot import ed25519

        return ed25519.verify(bytes(public), message, bytes(signature))

    def random(self, size: int) -> bytes:
        return os.urandom(size)

    def keks(self) -> list:
        from .issued import keks

        return keks()

    def counter(self) -> int:
        raise Refused(NOTHING)

    def advance(self, _: int) -> int:
        raise Refused(NOTHING)

    def state(self):
        return None

    def forget(self) -> None:
        from . import store
        from .devicekey import PATH

        self._key = ()
        store.remove(PATH)


class Esp32(Software):
    """Software keys, with what the eFuses protect and count. Burns only in `advance`, and only on an ESP32."""

    def _registers(self):
        try:
            from machine import mem32
        except ImportError:
            raise Refused(NOTHING)
        return mem32

    def state(self):
        from .hardware import fuses

        try:
            return fuses(self.config.CHIP, self._registers())
        except Refused:
            return None

    def counter(self) -> int:
        """Bits set in the eFuse field SECURE_VERSION."""
        if self.config.CHIP != _ESP32:
            raise Refused(NOTHING)
        from .efuse import level

        return level(self._registers())

    def advance(self, target: int) -> int:
        if not getattr(self.config, "EFUSE_FLOOR", False):
            raise Refused(NOTHING)  # burning is for good: only where the product opted in
        from .efuse import burn

        if target > self.counter():
            burn(self._registers(), target)
        return self.counter()
