"""The chip as the engine sees it: parts of flash, who is running, reset and watchdog. No decision is made here."""

import time

from micropython import const

from . import flash

_APP = const(0)
_DATA = const(1)
_EPOCH_2000 = const(946684800)
_SECURE_VERSION = const(0x3FF5A088)  # ESP32 eFuse controller: BLOCK3 read register of word 4
_APB_DATE = const(0x3FF6607C)  # ESP32: its top bit tells revision 3 from those before
_REVISION = {0: 0x3FF5A00C, 9: 0x60007050, 5: 0x60008850, 13: 0x600B0850}  # eFuse word 3: BLOCK0 of ESP32, else BLOCK1


class Port:
    """Everything outside the engine; tests and the campaign bring their own with the same members.

    ``fw``, ``app``: the two slots of each component (app may be empty); ``part``: the `sekisho` partition;
    ``otadata``; ``running``: index of the fw slot this code runs from; ``config``: the module `sekisho_config`;
    ``vendor``, ``classes``, ``device``: who this device is.
    """

    def __init__(self, config) -> None:
        from esp32 import Partition

        self.config = config
        self.vendor, self.classes = config.VENDOR, config.CLASSES
        self.fw = [flash.find(_APP, subtype) for subtype in (0x10, 0x11)]
        self.app = [flash.find(_DATA, 0x41, label) for label in ("app_0", "app_1")]
        if None in self.app:
            self.app = []
        self.part = flash.find(_DATA, 0x40, "sekisho")
        self.otadata = flash.find(_DATA, 0)
        running = flash.Part(Partition(Partition.RUNNING))  # type: ignore[arg-type]
        self.running = 0 if running.address == self.fw[0].address else 1

    @property
    def device(self) -> bytes:
        """The device identifier: UUIDv5 of the vendor UUID and the chip's unique id in lower-case hex."""
        from binascii import hexlify
        from hashlib import sha1

        from machine import unique_id

        uuid = bytearray(sha1(self.vendor + hexlify(unique_id())).digest()[:16])  # noqa: S324 (UUIDv5 is defined so)
        uuid[6] = uuid[6] & 0x0F | 0x50
        uuid[8] = uuid[8] & 0x3F | 0x80
        return bytes(uuid)

    @property
    def revision(self) -> int:
        """The chip's revision, major * 100 + minor, from where ESP-IDF reads it (efuse_hal.c); -1 where unknown."""
        from machine import mem32

        chip = self.config.CHIP
        if chip not in _REVISION:
            return -1
        three, five = mem32[_REVISION[chip]], mem32[_REVISION[chip] + 8]
        if chip == 0:
            bits = three >> 15 & 1 | five >> 19 & 2 | mem32[_APB_DATE] >> 29 & 4
            return {1: 100, 3: 200, 7: 300}.get(bits, 0) + (five >> 24 & 3)
        if chip == 13:
            return (three >> 22 & 3) * 100 + (three >> 18 & 15)
        minor = three >> 18 & 7 | five >> 20 & 8
        if chip == 9 and minor & 7 == 0:
            return -1  # the first ESP32-S3 have other things in these bits
        return (five >> 24 & 3) * 100 + minor

    def hardware_floor(self) -> int:
        """Bits set in the eFuse field SECURE_VERSION (ESP32: BLOCK3 word 4); 0 where the product does not use it."""
        if not getattr(self.config, "EFUSE_FLOOR", False):
            return 0
        from machine import mem32

        return bin(mem32[_SECURE_VERSION] & 0xFFFFFFFF).count("1")

    def now(self) -> int:
        """What the clock says, in seconds since 1970; it may be anything, so the engine holds it against its floor."""
        return time.time() + (_EPOCH_2000 if time.gmtime(0)[0] == 2000 else 0)

    def watchdog(self, seconds: int) -> None:
        """Resets the chip unless it is fed within *seconds*; it cannot be stopped again."""
        from machine import WDT

        self.wdt = WDT(timeout=seconds * 1000)

    def reset(self) -> None:
        """The only restart after a slot was chosen: deep sleep and soft reset skip the bootloader."""
        from machine import reset

        reset()
