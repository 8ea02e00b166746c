"""Small app images and flashes that the bootloader model accepts, byte for byte in the real format."""

from __future__ import annotations

import hashlib
import struct

from sekisho_sim.bootloader import Entry
from sekisho_sim.flash import SECTOR, Flash
from sekisho_tools import imagefile
from sekisho_tools.layout import Layout, parse_csv

MAPPED = {"esp32": 0x3F400020, "esp32s3": 0x3C000020, "esp32c3": 0x3C000020, "esp32c6": 0x42000020}
"""Load address of the first segment, which holds the app descriptor."""

GOLDEN_CSV = """
nvs,      data, nvs,      0x9000,   0x4000,
otadata,  data, ota,      0xd000,   0x2000,
phy_init, data, phy,      0xf000,   0x1000,
ota_0,    app,  ota_0,    0x10000,  0x1a0000,
ota_1,    app,  ota_1,    0x1b0000, 0x1a0000,
vfs,      data, littlefs, 0x350000, 0xb0000,
"""
"""The table of the golden otadata cases."""


def descriptor(secure_version: int = 0, version: str = "", project: str = "", elf: bytes = bytes(32)) -> bytes:
    """The 256 bytes of an app descriptor."""
    fixed = imagefile.DESCRIPTOR.pack(
        imagefile.DESCRIPTOR_MAGIC,
        secure_version,
        bytes(8),
        version.encode(),
        project.encode(),
        b"00:00:00",
        b"Jan  1 2025",
        b"v5.4",
        elf,
    )
    return fixed.ljust(256, b"\0")


def image(segments: list[tuple[int, bytes]], chip: str = "esp32", *, hashed: bool = True, header: bytes = b"") -> bytes:
    """An image of *segments* (load address, data) with checksum and, when *hashed*, the appended SHA-256."""
    chip_id = imagefile.CHIPS[chip].chip_id
    out = header or imagefile.HEADER.pack(
        0xE9, len(segments), 2, 0x20, 0x40080400, 0xEE, bytes(3), chip_id, 0, 0, 0xFFFF, 0, hashed
    )
    value = 0xEF
    for address, data in segments:
        out += struct.pack("<II", address, len(data)) + data
        for byte in data:
            value ^= byte
    out += bytes(15 - len(out) % 16) + bytes((value,))
    return out + (hashlib.sha256(out).digest() if hashed else b"")


def app(text: str = "an app", chip: str = "esp32", *, secure_version: int = 0, micropython: str = "v1.26.1") -> bytes:
    """A small app image; *text* makes it differ from others, *micropython* is the version its banner tells."""
    banner = f"\0MicroPython {micropython} on 2025-09-11; {text}\0".encode()
    data = descriptor(secure_version) + banner
    return image([(MAPPED[chip], data.ljust(-(-len(data) // 4) * 4, b"\0"))], chip)


def bootloader(chip: str = "esp32") -> bytes:
    """A small image that has the shape of that chip's bootloader."""
    address = {"esp32": 0x3FFF0018, "esp32s3": 0x3FCE2820, "esp32c3": 0x3FCD5820, "esp32c6": 0x40875720}[chip]
    return image([(address, b"boot" * 16)], chip)


def golden_layout() -> Layout:
    """The layout of the golden otadata cases."""
    return parse_csv(GOLDEN_CSV, 4 << 20)


def flash_with(
    apps: dict[str, bytes], otadata: tuple[Entry | None, Entry | None] = (None, None), table: Layout | None = None
) -> Flash:
    """A flash with a bootloader, *table* (default: the golden one), *apps* by label, and two otadata entries."""
    table = table or golden_layout()
    flash = Flash.blank(table.flash_size)

    def put(address: int, data: bytes) -> None:
        flash.buffer[address : address + len(data)] = data

    put(0x1000, bootloader())
    put(0x8000, table.encode())
    for label, data in apps.items():
        put(table[label].offset, data)
    for number, entry in enumerate(otadata):
        if entry and table.otadata:
            put(table.otadata.offset + number * SECTOR, entry.encode())
    return flash
