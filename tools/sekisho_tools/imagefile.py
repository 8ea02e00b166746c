"""Firmware files: find the app image in whatever a user downloaded, and check it as the bootloader will.

MicroPython publishes whole-flash files (bootloader + partition table + app in one, to be written at the bootloader's
offset) and builds bare app images (`micropython.bin`). Only the app may go into a slot.

Sources: ESP-IDF `esp_app_format.h`, `esp_app_desc.h`, `esp_image_format.c` and the chips' bootloader linker scripts;
the checks, their order and the memory ranges are those of the second-stage bootloader.
"""

from __future__ import annotations

import hashlib
import re
import struct
import zlib
from dataclasses import dataclass, field

from . import layout
from .errors import ToolError

HEADER = struct.Struct("<BBBBIB3sHBHHIB")
"""magic, segments, SPI mode, SPI speed and size, entry, WP pin, drive, chip id, revisions (3), reserved, hash flag."""
SEGMENT = struct.Struct("<II")
MAGIC = 0xE9
MAX_SEGMENTS = 16
MAX_SEGMENT = 16 << 20
MMU_PAGE = 0x10000
CHECKSUM_SEED = 0xEF
HASH_SIZE = 32
SIGNATURE_SECTOR = 4096
"""Bytes of a secure boot v2 signature, and what the image before it is padded to."""
DESCRIPTOR_AT = 0x20
DESCRIPTOR_MAGIC = 0xABCD5432
DESCRIPTOR = struct.Struct("<II8s32s32s16s16s32s32s")
"""magic, secure version, reserved, version, project, time, date, IDF version, SHA-256 of the ELF."""
NOT_LOADED_BELOW = 0x10000000

Range = tuple[int, int]


@dataclass(frozen=True)
class Chip:
    """What the bootloader of one chip knows: where it lies, what is mapped, what may be loaded, what it uses itself.

    Ranges are (first address, address after the last). *dram* and *iram* are two views of one memory where *alias* is
    set: (dram, iram, length, reversed word order).
    """

    name: str
    chip_id: int
    bootloader_offset: int
    mapped: tuple[Range, ...]
    dram: Range
    iram: Range
    rtc: tuple[Range, ...]
    alias: tuple[int, int, int, bool]
    bootloader_dram: tuple[Range, ...]
    bootloader_iram: Range


# Bootloader ranges follow its linker scripts: stack (32 KiB of headroom under the ROM's stack), static data, and the
# part of its code that loads the app.
CHIPS = {
    chip.name: chip
    for chip in (
        Chip(
            "esp32",
            0x0000,
            0x1000,
            ((0x400D0000, 0x40400000), (0x3F400000, 0x3F800000)),
            (0x3FFAE000, 0x40000000),
            (0x40080000, 0x400AA000),
            ((0x400C0000, 0x400C2000), (0x3FF80000, 0x3FF82000), (0x50000000, 0x50002000)),
            (0x3FFE0000, 0x400A0000, 0x20000, True),
            ((0x3FFDBB20, 0x3FFE3F20), (0x3FFF0000, 0x3FFF6000)),
            (0x40078000, 0x40080000),
        ),
        Chip(
            "esp32s3",
            0x0009,
            0x0,
            ((0x42000000, 0x44000000), (0x3C000000, 0x3E000000)),
            (0x3FC88000, 0x3FD00000),
            (0x40370000, 0x403E0000),
            ((0x600FE000, 0x60100000), (0x50000000, 0x50002000)),
            (0x3FC88000, 0x40378000, 0x68000, False),
            ((0x3FCE3310, 0x3FCEB710), (0x3FCE2700, 0x3FCE7700)),
            (0x403CB700, 0x403D2700),
        ),
        Chip(
            "esp32c3",
            0x0005,
            0x0,
            ((0x42000000, 0x42800000), (0x3C000000, 0x3C800000)),
            (0x3FC80000, 0x3FCE0000),
            (0x4037C000, 0x403E0000),
            ((0x50000000, 0x50002000),),
            (0x3FC80000, 0x40380000, 0x60000, False),
            ((0x3FCD6310, 0x3FCDE710), (0x3FCD5710, 0x3FCDA710)),
            (0x403CE710, 0x403D5710),
        ),
        Chip(
            "esp32c6",
            0x000D,
            0x0,
            ((0x42000000, 0x43000000),),
            (0x40800000, 0x40880000),
            (0x40800000, 0x40880000),
            ((0x50000000, 0x50004000),),
            (0x40800000, 0x40800000, 0x80000, False),
            ((0x40876210, 0x4087E610), (0x40875610, 0x4087A610)),
            (0x4086E610, 0x40875610),
        ),
    )
}
"""The chips that Sekisho has layouts and board definitions for."""
BY_ID = {chip.chip_id: chip for chip in CHIPS.values()}


@dataclass(frozen=True)
class Segment:
    """One segment: its data lies at *offset* in the image, has *length* bytes and is loaded or mapped to *address*."""

    address: int
    length: int
    offset: int


@dataclass(frozen=True)
class Structure:
    """An image as its headers describe it, before anything is judged good. *length* is without trailing bytes."""

    chip_id: int
    min_revision: int
    max_revision: int
    entry: int
    segments: tuple[Segment, ...]
    checksum_at: int
    hash_appended: bool
    length: int


@dataclass(frozen=True)
class AppImage:
    """An app image that passed every check the bootloader makes.

    *data* is the image itself with its secure boot signature, if it has one, and without what else follows it in the
    file; *digest* the SHA-256 of that, which is what a release signs. *appended_hash* is the SHA-256 inside.
    *micropython* is the version string found in it (``v1.26.1``) or None. *kind* says what the file was: ``app`` or
    ``whole-flash``; then *bootloader* holds the bootloader image.
    """

    data: bytes = field(repr=False)
    chip: str
    structure: Structure = field(repr=False)
    secure_version: int
    version: str
    project: str
    idf: str
    built: str
    elf_sha256: bytes = field(repr=False)
    checksum: int
    appended_hash: bytes
    micropython: str | None
    kind: str = "app"
    bootloader: bytes | None = field(default=None, repr=False)

    @property
    def size(self) -> int:
        """Bytes of the image."""
        return len(self.data)

    @property
    def digest(self) -> bytes:
        """SHA-256 of the image, 32 bytes."""
        return hashlib.sha256(self.data).digest()

    @property
    def segments(self) -> tuple[Segment, ...]:
        """The segments in file order."""
        return self.structure.segments


def _bad(sentence: str, code: str = "IMAGE_FORMAT") -> ToolError:
    return ToolError(code, sentence)


def read_structure(data: bytes | bytearray | memoryview) -> Structure:
    """Read header and segment table of the image at the start of *data*; ToolError IMAGE_FORMAT when they are not one.

    Rules (ESP-IDF `verify_image_header`, `verify_segment_header`): magic E9, at most 16 segments, segment lengths
    multiples of 4 below 16 MiB, all within the bytes given.
    """
    if len(data) < HEADER.size or data[0] != MAGIC:
        raise _bad("There is no image here: the first byte is not 0xE9.")
    (_, count, _, _, entry, _, _, chip_id, _, low, high, _, appended) = HEADER.unpack_from(data)
    if count > MAX_SEGMENTS:
        raise _bad(f"The image has {count} segments; at most {MAX_SEGMENTS} are allowed.")
    at = HEADER.size
    segments = []
    for number in range(count):
        if at + SEGMENT.size > len(data):
            raise _bad(f"The image ends within the header of segment {number}.")
        address, length = SEGMENT.unpack_from(data, at)
        at += SEGMENT.size
        if length % 4 or length >= MAX_SEGMENT:
            raise _bad(f"Segment {number} has the length 0x{length:x}, which no segment can have.")
        if at + length > len(data):
            raise _bad(f"The image ends within segment {number}; the file is cut short.")
        segments.append(Segment(address, length, at))
        at += length
    checksum_at = at | 15
    end = checksum_at + 1 + (HASH_SIZE if appended == 1 else 0)
    return Structure(chip_id, low, high, entry, tuple(segments), checksum_at, appended == 1, end)


def xor_bytes(data: bytes | memoryview) -> int:
    """XOR of all bytes (0 for none)."""
    value, width = int.from_bytes(data, "little"), len(data)
    while width > 1:
        half = (width + 1) // 2
        value = (value >> 8 * half) ^ (value & ((1 << 8 * half) - 1))
        width = half
    return value


def checksum(data: bytes | memoryview, segments: tuple[Segment, ...]) -> int:
    """The one-byte checksum over the data of *segments*."""
    value = CHECKSUM_SEED
    for segment in segments:
        value ^= xor_bytes(data[segment.offset : segment.offset + segment.length])
    return value


def _overlap(a: Range, b: Range) -> bool:
    return a[0] < b[1] and b[0] < a[1]


def _inside(a: Range, b: Range) -> bool:
    return b[0] <= a[0] and a[1] <= b[1]


def _other_view(area: Range, chip: Chip, to_iram: bool) -> Range | None:
    """*area* as the other bus sees it, or None where that bus does not see it."""
    dram, iram, size, reverse = chip.alias
    here, there = (dram, iram) if to_iram else (iram, dram)
    low, high = max(area[0], here) - here, min(area[1], here + size) - here
    if low >= high:
        return None
    return (there + size - high, there + size - low) if reverse else (there + low, there + high)


def load_conflict(area: Range, chip: Chip) -> str | None:
    """Why the bootloader refuses to load a segment to *area*, in its own words, or None when it loads it."""
    if _inside(area, chip.dram):
        dram: Range | None = area
        iram = _other_view(area, chip, to_iram=True)
    elif _inside(area, chip.iram):
        dram = _other_view(area, chip, to_iram=False)
        iram = area
    else:
        return None if any(_inside(area, rtc) for rtc in chip.rtc) else "bad load address range"
    if dram and _overlap(dram, chip.bootloader_dram[0]):
        return "overlaps bootloader stack"
    if dram and _overlap(dram, chip.bootloader_dram[1]):
        return "overlaps bootloader data"
    if iram and _overlap(iram, chip.bootloader_iram):
        return "overlaps loader IRAM"
    return None


def is_mapped(address: int, chip: Chip) -> bool:
    """Whether a segment for *address* stays in flash and is mapped, not loaded."""
    return any(low <= address < high for low, high in chip.mapped)


def verify(
    data: bytes | memoryview, chip: Chip, *, revision: int = 300, address: int = 0, loading: bool = True
) -> Structure:
    """Check the image at the start of *data* (a slot, or a file) as a bootloader of *chip* does.

    *revision* is the chip's, major * 100 + minor; *address* the flash address of the image modulo 64 KiB; *loading*
    False leaves the load addresses alone, as the check in a running app does (`set_boot`). Raises ToolError
    IMAGE_FORMAT, IMAGE_CHIP, IMAGE_SIZE or IMAGE_HASH; returns the structure. As there, an image without an appended
    hash passes on its checksum alone.
    """
    if len(data) > layout.MAX_APP:
        raise _bad("The partition is larger than 16 MiB.", "IMAGE_SIZE")
    if len(data) >= HEADER.size and data[0] == MAGIC:
        found = BY_ID.get(HEADER.unpack_from(data)[7])
        if found is not chip:
            name = found.name if found else f"chip id 0x{HEADER.unpack_from(data)[7]:04x}"
            raise _bad(f"The image is for {name}, this chip is {chip.name}.", "IMAGE_CHIP")
    image = read_structure(data)
    if revision < image.min_revision or (0 < image.max_revision < 0xFFFF and revision > image.max_revision):
        raise _bad(
            f"The image is for chip revisions {image.min_revision} to {image.max_revision}, this one is {revision}.",
            "IMAGE_CHIP",
        )
    for number, segment in enumerate(image.segments):
        if is_mapped(segment.address, chip):
            if (address + segment.offset - segment.address) % MMU_PAGE:
                raise _bad(f"Segment {number} for 0x{segment.address:08x} is not aligned with its flash address.")
        elif loading and segment.length and segment.address >= NOT_LOADED_BELOW:
            area = (segment.address, segment.address + segment.length)
            reason = load_conflict(area, chip)
            if reason:
                raise _bad(f"Segment {number} 0x{area[0]:08x}-0x{area[1]:08x} invalid: {reason}.")
    if image.checksum_at >= len(data):
        raise _bad("The image ends before its checksum; the file is cut short.")
    expected = checksum(data, image.segments)
    if expected != data[image.checksum_at]:
        raise _bad(f"The checksum is 0x{data[image.checksum_at]:02x}, the data gives 0x{expected:02x}.")
    if image.length > len(data):
        raise _bad(f"The image of 0x{image.length:x} bytes does not fit in 0x{len(data):x}.", "IMAGE_SIZE")
    if image.hash_appended:
        end = image.length - HASH_SIZE
        if hashlib.sha256(data[:end]).digest() != bytes(data[end : image.length]):
            raise _bad("The appended SHA-256 does not match the image.", "IMAGE_HASH")
    return image


def has_descriptor(data: bytes | memoryview) -> bool:
    """Whether *data* starts with an image that carries an app descriptor, that is, an app and no bootloader."""
    end = DESCRIPTOR_AT + DESCRIPTOR.size
    return (
        len(data) >= end and data[0] == MAGIC and struct.unpack_from("<I", data, DESCRIPTOR_AT)[0] == DESCRIPTOR_MAGIC
    )


def secure_version(data: bytes | memoryview) -> int | None:
    """The secure version in the app descriptor (for anti-rollback), or None without a descriptor."""
    return int(DESCRIPTOR.unpack_from(data, DESCRIPTOR_AT)[1]) if has_descriptor(data) else None


def _text(raw: bytes) -> str:
    return raw.split(b"\0")[0].decode(errors="replace")


_VERSION = re.compile(
    rb"(?:MicroPython |\0)(v\d{1,2}\.\d{1,3}(?:\.\d{1,3})?(?:[-.+][-.+\w]{1,60})?) on \d{4}-\d\d-\d\d"
)


def micropython_version(data: bytes | memoryview) -> str | None:
    """The MicroPython version in an image, for example ``v1.26.1`` or ``v1.15-108-g43e7e5f00-dirty``; None if absent.

    Stock builds leave the version of the app descriptor empty, so the banner is looked for.
    """
    found = _VERSION.search(data)
    return found[1].decode() if found else None


def release_of(version: str) -> tuple[int, int]:
    """(major, minor) of a MicroPython version string."""
    found = re.match(r"v(\d+)\.(\d+)", version)
    if not found:
        raise ValueError(version)
    return int(found[1]), int(found[2])


def _file_kind(data: bytes) -> str:
    """A few words for a file that is no firmware, so that the user sees what was picked."""
    known = {
        b"\x7fELF": "an ELF file; the .bin next to it is wanted",
        b"UF2\n": "a UF2 file; the .bin for esptool is wanted",
        b"PK\x03\x04": "a ZIP archive; unpack it first",
        b"\x1f\x8b": "gzip-compressed; unpack it first",
        b":": "an Intel HEX file; the .bin is wanted",
        b"M\x06": "a .mpy module",
        b"\xd8\x6b": "a SUIT envelope, no firmware",
    }
    return next((words for start, words in known.items() if data.startswith(start)), "no ESP32 firmware")


def _table_at(data: bytes) -> tuple[int, layout.Layout] | None:
    """(flash address of the file's first byte, partition table) of a whole-flash file, or None.

    A file that begins with an app is none, whatever its bytes at those places look like.
    """
    if has_descriptor(data):
        return None
    for base in (0x1000, 0x0):
        at = layout.TABLE_OFFSET - base
        if data[at : at + 2] == b"\xaa\x50":
            return base, layout.decode(data[at : at + layout.TABLE_SIZE], 1 << 32)
    return None


def signed_length(data: bytes | bytearray | memoryview, length: int) -> int:
    """Where the secure boot v2 signature of an image of *length* bytes ends; *length* itself where it has none.

    The signature is a sector of its own behind the padded image (ESP-IDF, secure-boot-v2.rst): magic E7, version 2
    (RSA) or 3 (ECDSA), a CRC at 1196. It belongs to the image: without it a chip with secure boot does not start it.
    """
    start = -(-length // SIGNATURE_SECTOR) * SIGNATURE_SECTOR
    block = bytes(data[start : start + 1200])
    if len(data) < start + SIGNATURE_SECTOR or block[0] != 0xE7 or block[1] not in (2, 3):
        return length
    right = zlib.crc32(block[:1196]) == int.from_bytes(block[1196:], "little")
    return start + SIGNATURE_SECTOR if right else length


def find_bootloader(data: bytes, base: int = 0) -> tuple[Chip, bytes] | None:
    """The chip and the bootloader image in the bytes of a flash that starts at *base*, or None without a usable one.

    Read by its header and segments only: esptool may have changed the header after the hash was made.
    """
    for offset in (0x0, 0x1000):
        at = offset - base
        if at < 0 or data[at : at + 1] != bytes((MAGIC,)):
            continue
        room = data[at : layout.TABLE_OFFSET - base]
        try:
            image = read_structure(room)
        except ToolError:
            continue
        chip = BY_ID.get(image.chip_id)
        if chip and chip.bootloader_offset == offset and image.length <= len(room):
            return chip, bytes(room[: signed_length(room, image.length)])
    return None


FLASH_SIZES = {1 << 20: 0, 2 << 20: 1, 4 << 20: 2, 8 << 20: 3, 16 << 20: 4, 32 << 20: 5, 64 << 20: 6}
"""Flash size in bytes -> its code in the high nibble of an image header's fourth byte."""


def flash_size(bootloader: bytes) -> int | None:
    """The flash size in bytes that the header of a bootloader tells it, or None for a code nobody knows."""
    return next((size for size, code in FLASH_SIZES.items() if code == bootloader[3] >> 4), None)


def parse_bootloader(data: bytes) -> tuple[Chip, bytes]:
    """The chip and the bootloader image of a bare bootloader file or of a whole-flash file.

    Raises ToolError IMAGE_FORMAT or IMAGE_CHIP.
    """
    whole = _table_at(data)
    if whole:
        found = find_bootloader(data, whole[0])
        if not found:
            raise _bad("The whole-flash file has no bootloader for a chip that Sekisho knows.")
        return found
    if data[:1] != bytes((MAGIC,)):
        raise _bad(f"This is {_file_kind(data)}; a bootloader is wanted.")
    if has_descriptor(data):
        raise _bad("This is an app image; a bootloader is wanted.")
    image = read_structure(data)
    chip = _chip(image.chip_id)
    if image.checksum_at >= len(data) or image.length > len(data):
        raise _bad("The bootloader is cut short.")
    if checksum(data, image.segments) != data[image.checksum_at]:
        raise _bad("The checksum of the bootloader is wrong.")
    end = signed_length(data, image.length)
    if end > layout.TABLE_OFFSET - chip.bootloader_offset:
        raise _bad("The bootloader is too large to lie before the partition table at 0x8000.", "IMAGE_SIZE")
    return chip, data[:end]


def _chip(chip_id: int) -> Chip:
    chip = BY_ID.get(chip_id)
    if chip is None:
        names = ", ".join(CHIPS)
        raise _bad(
            f"The image is for a chip (id 0x{chip_id:04x}) that Sekisho does not know; known: {names}.", "IMAGE_CHIP"
        )
    return chip


def parse(data: bytes) -> AppImage:
    """Find the app image in *data*, a bare app image or a whole-flash file, and check it as the bootloader will.

    A whole-flash file has a partition table at 0x7000 (ESP32, written at 0x1000) or 0x8000 (others, and dumps from
    0x0); the app is the first app partition in it. Raises ToolError: IMAGE_FORMAT (no firmware, a bootloader, damaged),
    IMAGE_CHIP (unknown chip), IMAGE_HASH (no appended SHA-256, or a wrong one).
    """
    whole = _table_at(data)
    if whole is None:
        return _parse_app(data, "app", None)
    base, table = whole
    apps = sorted((p for p in table if p.type == layout.APP), key=lambda p: p.offset)
    for partition in apps:
        app = data[partition.offset - base : partition.end - base]
        if app[:1] == bytes((MAGIC,)):
            found = find_bootloader(data, base)
            parsed = _parse_app(app, "whole-flash", found[1] if found else None)
            if found and found[0].name != parsed.chip:
                raise _bad(f"The file has a bootloader for {found[0].name} and an app for {parsed.chip}.", "IMAGE_CHIP")
            return parsed
    raise _bad("The whole-flash file has a partition table but no app image where the table says.")


def _parse_app(data: bytes, kind: str, bootloader: bytes | None) -> AppImage:
    if data[:1] != bytes((MAGIC,)):
        raise _bad(f"This is {_file_kind(data)}: neither an app image nor a whole-flash file for the ESP32 family.")
    if not has_descriptor(data):
        structure = read_structure(data)
        chip = BY_ID.get(structure.chip_id)
        starts = {segment.address for segment in structure.segments if segment.length}
        if chip and starts and not any(is_mapped(address, chip) for address in starts):
            raise _bad("This is a bootloader; give the app image (micropython.bin) or the whole-flash file.")
        raise _bad("The image has no app descriptor, so it is no app for ESP-IDF: a bootloader or an ESP8266 file?")
    chip = _chip(HEADER.unpack_from(data)[7])
    structure = verify(data, chip, revision=max(300, HEADER.unpack_from(data)[9]))
    if not structure.hash_appended:
        raise _bad("The image carries no appended SHA-256; build it with one (elf2image appends it).", "IMAGE_HASH")
    image = bytes(data[: signed_length(data, structure.length)])
    fields = DESCRIPTOR.unpack_from(image, DESCRIPTOR_AT)
    return AppImage(
        data=image,
        chip=chip.name,
        structure=structure,
        secure_version=fields[1],
        version=_text(fields[3]),
        project=_text(fields[4]),
        idf=_text(fields[7]),
        built=f"{_text(fields[6])} {_text(fields[5])}".strip(),
        elf_sha256=fields[8],
        checksum=image[structure.checksum_at],
        appended_hash=image[structure.length - HASH_SIZE : structure.length],
        micropython=micropython_version(image),
        kind=kind,
        bootloader=bootloader,
    )
