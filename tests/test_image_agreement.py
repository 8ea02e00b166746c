"""What the engine accepts, the bootloader starts: two readings of the same rules, held against each other."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256

import pytest
from helpers import firmware, images
from sekisho_boot import image, reasons
from sekisho_tools import imagefile
from sekisho_tools.errors import ToolError
from sekisho_tools.imagefile import CHIPS, Chip


def engine_takes(data: bytes, chip: Chip) -> bool:
    def read(off: int, buf: memoryview) -> None:
        buf[:] = data[off : off + len(buf)].ljust(len(buf), b"\xff")

    try:
        image.check(read, len(data), chip.chip_id, 300, sha256)
    except reasons.Refused:
        return False
    return True


def bootloader_says(data: bytes, chip: Chip) -> str:
    try:
        imagefile.verify(data, chip, revision=300)
    except ToolError as error:
        return error.sentence
    return ""


def addresses(chip: Chip) -> Iterator[int]:
    """Around the ends of every range either side knows, and a grid over all of memory."""
    edges = {edge for area in (*chip.mapped, chip.dram, chip.iram, *chip.rtc) for edge in area}
    edges |= {edge for area in (*chip.bootloader_dram, chip.bootloader_iram) for edge in area}
    edges |= {0, 4, 0x10000000, 0x20000000, 0x60000000}
    yield from sorted({edge + step for edge in edges for step in (-256, -64, -4, 0, 4, 64) if edge + step >= 0})
    yield from range(0, 0x70000000, 0x1234000)


@pytest.mark.requirement("UPE11")
@pytest.mark.parametrize("chip", CHIPS.values(), ids=lambda chip: chip.name)
@pytest.mark.rule("bootloader-checks")
def test_the_engine_takes_a_segment_only_where_the_bootloader_loads_it(chip: Chip) -> None:
    """And wherever a linker puts one. Above the bootloader's own memory the engine is the stricter one."""
    taken = 0
    stricter = set()
    for address in addresses(chip):
        for length in (0, 4, 256) if address in (0, 0x60000000) else (4, 256):
            segments = [(images.MAPPED[chip.name], images.descriptor() + bytes(256)), (address, bytes(length))]
            data = images.image(segments, chip.name)
            takes, said = engine_takes(data, chip), bootloader_says(data, chip)
            assert not (takes and said), (hex(address), said)
            if not takes and not said:
                stricter.add(address)
            taken += takes
    assert taken > 40
    dram, iram, _, reverse = chip.alias
    starts = [start for start, _ in chip.bootloader_dram]
    lowest = min(starts if reverse else [*starts, chip.bootloader_iram[0] - iram + dram])
    for address in stricter:
        in_dram = lowest <= address + 256 and address < chip.dram[1]
        in_iram = chip.bootloader_iram[0] <= address + 256 and address < chip.iram[1]
        assert in_dram or in_iram, hex(address)


@pytest.mark.parametrize("release", ["v1.15", "v1.16"])
def test_both_take_genuine_firmware(release: str) -> None:
    app = imagefile.parse(firmware.read(release)).data
    assert engine_takes(app, CHIPS["esp32"])
    assert not bootloader_says(app, CHIPS["esp32"])


@pytest.mark.rule("bootloader-checks")
def test_both_refuse_damage_anywhere() -> None:
    data = images.image([(0x3F400020, images.descriptor() + bytes(256)), (0x3FFB0000, b"data")])
    chip = CHIPS["esp32"]
    assert engine_takes(data, chip)
    for at in range(len(data)):
        damaged = bytearray(data)
        damaged[at] ^= 0x10
        assert not engine_takes(bytes(damaged), chip), at
