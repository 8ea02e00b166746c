"""Firmware files: what is found in them, and what is refused as the bootloader would refuse it."""

from __future__ import annotations

import hashlib
import struct

import pytest
from helpers import firmware, images
from sekisho_tools import imagefile
from sekisho_tools.errors import ToolError
from sekisho_tools.imagefile import CHIPS

ESP32 = CHIPS["esp32"]


def refusal(data: bytes) -> str:
    with pytest.raises(ToolError) as refused:
        imagefile.parse(data)
    return refused.value.code


def golden() -> bytes:
    """The vector that esptool's image-info accepts (platform notes, 2.5)."""
    header = bytes.fromhex("e9010220000408 40ee00000000000000 00ffff00000000 01")
    return images.image([(0x3F400020, images.descriptor(5, "1.2.3", "demo", bytes(range(32))))], header=header)


def test_golden_image_is_built_and_read_byte_for_byte() -> None:
    data = golden()
    assert len(data) == 336
    assert hashlib.sha256(data).hexdigest() == "e9a3fe0cfd6684ada7b8587e9069c23436217883ff128d39020f56536426918e"
    found = imagefile.parse(data)
    assert (found.checksum, found.structure.checksum_at) == (0xD1, 303)
    assert found.appended_hash.hex() == "bc3f5afd13d332ae980cc0759fa53ec52eb683a8cc57ccf8ac81781feef41189"
    assert (found.chip, found.secure_version, found.version, found.project) == ("esp32", 5, "1.2.3", "demo")
    assert (found.idf, found.built, found.elf_sha256) == ("v5.4", "Jan  1 2025 00:00:00", bytes(range(32)))
    assert found.micropython is None


def test_bytes_after_the_image_are_no_part_of_it() -> None:
    assert imagefile.parse(golden() + b"\xff" * 1000).data == golden()


@pytest.mark.parametrize(
    ("release", "version", "size"),
    [("v1.15", "v1.15-108-g43e7e5f00-dirty", 1_427_216), ("v1.16", "v1.16-237-g1613dc8a1-dirty", 1_495_344)],
)
def test_genuine_whole_flash_file_gives_up_its_app(release: str, version: str, size: int) -> None:
    data = firmware.read(release)
    found = imagefile.parse(data)
    assert (found.kind, found.chip, found.micropython, found.size) == ("whole-flash", "esp32", version, size)
    assert found.data == data[0xF000 : 0xF000 + size]
    assert found.bootloader is not None
    assert data.startswith(found.bootloader)
    assert imagefile.parse(found.data).digest == found.digest
    assert imagefile.verify(found.data, ESP32).length == size
    # The same flash, dumped from address 0.
    dump = imagefile.parse(b"\xff" * 0x1000 + data)
    assert (dump.data, dump.bootloader) == (found.data, found.bootloader)


def test_genuine_bootloader_is_refused_where_an_app_is_wanted() -> None:
    bootloader = imagefile.parse(firmware.read("v1.15")).bootloader
    assert bootloader is not None
    with pytest.raises(ToolError, match="This is a bootloader") as refused:
        imagefile.parse(bootloader)
    assert refused.value.code == "IMAGE_FORMAT"
    assert imagefile.parse_bootloader(bootloader) == (ESP32, bootloader)
    assert imagefile.parse_bootloader(firmware.read("v1.15")) == (ESP32, bootloader)


def test_whole_flash_file_in_a_slot_is_refused_as_the_bootloader_does() -> None:
    """`set_boot` takes it, the bootloader does not: "overlaps bootloader data"."""
    data = firmware.read("v1.15")
    with pytest.raises(ToolError, match="overlaps bootloader"):
        imagefile.verify(data, ESP32)
    assert imagefile.verify(data, ESP32, loading=False).segments


@pytest.mark.parametrize("chip", CHIPS)
def test_app_and_bootloader_of_every_chip_are_told_apart(chip: str) -> None:
    app, boot = images.app(chip=chip), images.bootloader(chip)
    assert imagefile.parse(app).chip == chip
    with pytest.raises(ToolError, match="This is a bootloader"):
        imagefile.parse(boot)
    with pytest.raises(ToolError, match="an app image; a bootloader is wanted"):
        imagefile.parse_bootloader(app)
    with pytest.raises(ToolError, match="overlaps bootloader"):
        imagefile.verify(boot, CHIPS[chip])
    whole = bytearray(b"\xff" * 0x20000)
    offset = CHIPS[chip].bootloader_offset
    whole[offset : offset + len(boot)] = boot
    whole[0x8000:0x8C00] = images.golden_layout().encode()
    whole[0x10000 : 0x10000 + len(app)] = app
    found = imagefile.parse(bytes(whole[offset:]))
    assert (found.kind, found.data, found.bootloader) == ("whole-flash", app, boot)


def test_damage_anywhere_in_the_image_is_noticed() -> None:
    data = golden()
    codes = set()
    for at in range(len(data)):
        damaged = bytearray(data)
        damaged[at] ^= 0x40
        codes.add(refusal(bytes(damaged)))
    assert codes == {"IMAGE_FORMAT", "IMAGE_CHIP", "IMAGE_HASH"}


def test_file_cut_short_anywhere_is_refused() -> None:
    data = golden()
    for length in range(len(data)):
        assert refusal(data[:length]) in ("IMAGE_FORMAT", "IMAGE_SIZE")


def test_image_without_appended_hash_is_refused_though_the_bootloader_takes_it() -> None:
    data = images.image([(0x3F400020, images.descriptor())], hashed=False)
    assert imagefile.verify(data, ESP32).hash_appended is False
    assert refusal(data) == "IMAGE_HASH"


def test_image_for_another_chip_is_refused() -> None:
    with pytest.raises(ToolError, match="for esp32c3, this chip is esp32") as refused:
        imagefile.verify(images.app(chip="esp32c3"), ESP32)
    assert refused.value.code == "IMAGE_CHIP"
    unknown = bytearray(images.app())
    unknown[12] = 2  # ESP32-S2
    assert refusal(bytes(unknown)) == "IMAGE_CHIP"


def test_chip_revision_must_be_in_range() -> None:
    header = imagefile.HEADER.pack(0xE9, 1, 2, 0x20, 0, 0xEE, bytes(3), 0, 0, 301, 399, 0, 1)
    data = images.image([(0x3F400020, images.descriptor())], header=header)
    imagefile.verify(data, ESP32, revision=301)
    for revision in (300, 400):
        with pytest.raises(ToolError, match="revisions 301 to 399"):
            imagefile.verify(data, ESP32, revision=revision)


@pytest.mark.parametrize(
    ("chip", "address", "length", "reason"),
    [
        ("esp32", 0x3FFB0000, 64, None),
        ("esp32", 0x40080000, 0x400, None),
        ("esp32", 0x400C0000, 64, None),
        ("esp32", 0x50000200, 64, None),
        ("esp32", 0x3FFF0018, 64, "overlaps bootloader data"),
        ("esp32", 0x3FFE0000, 64, "overlaps bootloader stack"),
        ("esp32", 0x40078000, 64, "bad load address range"),
        ("esp32", 0x60000000, 64, "bad load address range"),
        ("esp32", 0x3FFFFFFC, 64, "bad load address range"),
        ("esp32", 0x400A9000, 0x1000, None),
        ("esp32s3", 0x40374000, 64, None),
        ("esp32s3", 0x3FC90000, 64, None),
        ("esp32s3", 0x3FCE3000, 64, "overlaps bootloader data"),
        ("esp32s3", 0x3FCE9000, 64, "overlaps bootloader stack"),
        ("esp32s3", 0x403CC000, 64, "overlaps loader IRAM"),
        ("esp32s3", 0x403D3000, 64, "overlaps bootloader"),
        ("esp32c3", 0x40380000, 64, None),
        ("esp32c3", 0x3FCD5800, 64, "overlaps bootloader data"),
        ("esp32c3", 0x403CF000, 64, "overlaps loader IRAM"),
        ("esp32c6", 0x40800000, 64, None),
        ("esp32c6", 0x4086F000, 64, "overlaps loader IRAM"),
        ("esp32c6", 0x40875700, 64, "overlaps bootloader data"),
    ],
)
def test_segments_may_not_land_on_the_bootloader(chip: str, address: int, length: int, reason: str | None) -> None:
    found = imagefile.load_conflict((address, address + length), CHIPS[chip])
    assert (found or "").startswith(reason or "")
    assert bool(found) == bool(reason)


def test_mapped_segment_must_lie_at_its_place_in_the_page() -> None:
    data = images.image([(0x3F400024, images.descriptor())])
    with pytest.raises(ToolError, match="not aligned"):
        imagefile.verify(data, ESP32)
    imagefile.verify(images.image([(0x3F401020, images.descriptor())]), ESP32, address=0x1000)


def test_sixteen_segments_pass_and_seventeen_do_not() -> None:
    rest = [(0x3FFB0000, b"data")]
    imagefile.parse(images.image([(0x3F400020, images.descriptor()), *rest * 15]))
    assert refusal(images.image([(0x3F400020, images.descriptor()), *rest * 16])) == "IMAGE_FORMAT"


def test_segment_length_is_a_multiple_of_four() -> None:
    data = bytearray(golden())
    struct.pack_into("<I", data, 28, 0x102)
    assert refusal(bytes(data)) == "IMAGE_FORMAT"


@pytest.mark.parametrize(
    ("start", "words"),
    [
        (b"\x7fELF\x01", "ELF"),
        (b"PK\x03\x04", "ZIP"),
        (b"UF2\n", "UF2"),
        (b"\x1f\x8b\x08", "gzip"),
        (b":1000", "Intel HEX"),
        (b"M\x06\x00\x1f", ".mpy"),
        (b"\xd8\x6b\xa2", "SUIT"),
        (b"hello", "no ESP32 firmware"),
        (b"", "no ESP32 firmware"),
    ],
)
def test_other_files_are_named_for_what_they_are(start: bytes, words: str) -> None:
    with pytest.raises(ToolError, match=words) as refused:
        imagefile.parse(start)
    assert refused.value.code == "IMAGE_FORMAT"


def test_whole_flash_file_without_an_app_is_refused() -> None:
    data = bytearray(b"\xff" * 0x20000)
    data[0x8000:0x8C00] = images.golden_layout().encode()
    with pytest.raises(ToolError, match="no app image where the table says"):
        imagefile.parse(bytes(data))


def test_app_that_happens_to_hold_the_mark_of_a_table_is_still_an_app() -> None:
    data = bytearray(images.descriptor() + bytes(0x9000))
    for at in (0x7000, 0x8000):
        data[at - 0x20 : at - 0x1E] = b"\xaa\x50"
    app = images.image([(0x3F400020, bytes(data))])
    assert app[0x7000:0x7002] == b"\xaa\x50"
    assert imagefile.parse(app).kind == "app"


@pytest.mark.parametrize(
    ("banner", "version"),
    [
        (b"x\0MicroPython v1.26.1 on 2025-09-11; ESP32\0", "v1.26.1"),
        (b"MicroPython v1.27.0-preview.5.gabc1234 on 2025-10-01; ESP32", "v1.27.0-preview.5.gabc1234"),
        (b"x\0v1.20.0 on 2023-04-26\0", "v1.20.0"),
        (b"MicroPython is nice", None),
        (b"v1.26.1", None),
    ],
)
def test_micropython_version_is_read_from_the_banner(banner: bytes, version: str | None) -> None:
    assert imagefile.micropython_version(banner) == version


def test_xor_of_bytes_is_the_xor_of_bytes() -> None:
    for length in (0, 1, 2, 3, 7, 8, 255, 1000):
        data = bytes((i * 7 + length) & 0xFF for i in range(length))
        expected = 0
        for byte in data:
            expected ^= byte
        assert imagefile.xor_bytes(data) == expected
