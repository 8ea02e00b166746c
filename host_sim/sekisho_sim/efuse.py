"""The eFuses of an ESP32: bits that only ever go from 0 to 1, behind the registers at 0x3FF5A000.

The file is the register image from 0x00 to 0x11F, 288 bytes, last byte first, as `espefuse --virt --path-efuse-file`
keeps it, so that tool can be used on a simulated device and on one it prepared.

Modelled: read registers of BLOCK0..3 (loaded at power-up and by the read command), write registers, CONF and CMD, the
write and read protection of BLOCK1..3 in BLOCK0. Not modelled: the clock and DAC timing that programming needs on
silicon, coding schemes other than NONE, other chips. Source: ESP32 Technical Reference Manual, eFuse controller;
measured through `machine.mem32` on official firmware.
"""

from __future__ import annotations

from pathlib import Path

BASE = 0x3FF5A000
SIZE = 0x120
READ_AT = (0x00, 0x38, 0x58, 0x78)
"""Offset of the first read word of BLOCK0..3."""
WRITE_AT = (0x1C, 0x98, 0xB8, 0xD8)
"""Offset of the first write word of BLOCK0..3."""
WORDS = (7, 8, 8, 8)
CONF, CMD = 0xFC, 0x104
PROGRAM_CODE, READ_CODE = 0x5A5A, 0x5AA5
CMD_READ, CMD_PROGRAM = 1, 2
WRITE_DISABLE = (None, 1 << 7, 1 << 8, 1 << 9)
READ_DISABLE = (None, 1 << 16, 1 << 17, 1 << 18)
SECURE_VERSION_WORD = 4
"""SECURE_VERSION is word 4 of BLOCK3: 32 bits, the version is the number of ones."""


class Efuse:
    """The fuses and the registers in front of them. *image* is the content of an efuse.bin (None: nothing burnt)."""

    def __init__(self, image: bytes | None = None) -> None:
        if image is not None and len(image) != SIZE:
            raise ValueError(f"an eFuse file of the ESP32 has {SIZE} bytes, this has {len(image)}")
        self._reg = bytearray((image or bytes(SIZE))[::-1])
        self.fuses = [[self._get(at + 4 * i) for i in range(n)] for at, n in zip(READ_AT, WORDS, strict=True)]
        """The burnt words of BLOCK0..3."""
        self.burns = 0
        self._load()

    @classmethod
    def open(cls, path: Path) -> Efuse:
        """The fuses kept in *path*; unburnt ones when there is no such file."""
        return cls(path.read_bytes() if path.exists() else None)

    def encode(self) -> bytes:
        """The content of an efuse.bin, as `espefuse --virt` reads it."""
        image = bytearray(SIZE)
        for at, words in zip(READ_AT, self.fuses, strict=True):
            for i, word in enumerate(words):
                image[at + 4 * i : at + 4 * i + 4] = word.to_bytes(4, "little")
        return bytes(image[::-1])

    def read32(self, address: int) -> int:
        """The register at absolute *address*."""
        return self._get(self._offset(address))

    def write32(self, address: int, value: int) -> None:
        """Write a register at absolute *address*; CMD acts, read registers and DATE ignore writes."""
        at = self._offset(address)
        value &= 0xFFFFFFFF
        if any(first <= at < first + 4 * n for first, n in zip(READ_AT, WORDS, strict=True)):
            return
        if at != CMD:
            self._set(at, value)
            return
        if value & CMD_PROGRAM and self._get(CONF) == PROGRAM_CODE:
            self._program()
        if value & CMD_READ and self._get(CONF) == READ_CODE:
            self._load()

    @property
    def secure_version(self) -> int:
        """The anti-rollback version: ones in SECURE_VERSION."""
        return self.fuses[3][SECURE_VERSION_WORD].bit_count()

    def raise_secure_version(self, version: int) -> bool:
        """Burn SECURE_VERSION up to *version* (0..32) as the bootloader does: new low bits only, never lower.

        Returns whether anything was burnt. Raises ValueError for a version the field cannot hold.
        """
        if not 0 <= version <= 32:
            raise ValueError(f"SECURE_VERSION holds 0 to 32, not {version}")
        old = self.fuses[3][SECURE_VERSION_WORD]
        if version <= old.bit_count():
            return False
        self.fuses[3][SECURE_VERSION_WORD] = old | ((1 << version) - 1)
        self.burns += 1
        self._load()
        return True

    def _program(self) -> None:
        protection = self.fuses[0][0]
        for block, (at, n) in enumerate(zip(WRITE_AT, WORDS, strict=True)):
            locked = WRITE_DISABLE[block]
            if locked is not None and protection & locked:
                continue
            for i in range(n):
                self.fuses[block][i] |= self._get(at + 4 * i)
        self.burns += 1

    def _load(self) -> None:
        """Copy the fuses to the read registers, zeros for a read-protected block."""
        protection = self.fuses[0][0]
        for block, at in enumerate(READ_AT):
            hidden = READ_DISABLE[block]
            for i, word in enumerate(self.fuses[block]):
                self._set(at + 4 * i, 0 if hidden is not None and protection & hidden else word)

    @staticmethod
    def _offset(address: int) -> int:
        at = address - BASE
        if not 0 <= at < SIZE or at % 4:
            raise ValueError(f"0x{address:08x} is no eFuse register")
        return at

    def _get(self, at: int) -> int:
        return int.from_bytes(self._reg[at : at + 4], "little")

    def _set(self, at: int, value: int) -> None:
        self._reg[at : at + 4] = value.to_bytes(4, "little")
