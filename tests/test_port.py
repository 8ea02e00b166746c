"""What the engine reads of the chip itself: its revision, held against what esptool makes of the same registers."""

from __future__ import annotations

import random
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from esptool.targets import CHIP_DEFS
from helpers import release
from helpers.desk import CLASS, VENDOR, Desk, fetch, firmware
from sekisho_boot import reasons
from sekisho_boot.port import Port
from sekisho_boot.reasons import Refused
from sekisho_tools.imagefile import CHIPS

ECO = {0: 0, 1: 1 << 15, 2: 1 << 15, 3: 1 << 15}
"""Word 3 of BLOCK0 of an ESP32 of that major revision."""


class Registers(dict[int, int]):
    """`machine.mem32`: 32 bits, signed as on the chip."""

    def __missing__(self, address: int) -> int:
        return 0

    def read(self, address: int, *_: Any) -> int:
        return self[address] & 0xFFFFFFFF


@pytest.fixture
def registers(monkeypatch: pytest.MonkeyPatch) -> Registers:
    found = Registers()
    module = ModuleType("machine")
    module.mem32 = found  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "machine", module)
    return found


def ours(chip: str) -> int:
    port = Port.__new__(Port)
    port.config = SimpleNamespace(CHIP=CHIPS[chip].chip_id)
    return port.revision


def esptools(chip: str, registers: Registers) -> int:
    theirs = CHIP_DEFS[chip].__new__(CHIP_DEFS[chip])
    theirs.read_reg = registers.read
    return int(theirs.get_chip_revision())


def signed(word: int) -> int:
    return word - (1 << 32) if word >> 31 else word


def set_esp32(registers: Registers, major: int, noise: int, minor: int) -> None:
    registers[0x3FF5A00C] = signed(noise & ~(1 << 15) | ECO[major])
    registers[0x3FF5A014] = signed(noise & ~(0x13 << 20 | 3 << 24) | (major > 1) << 20 | minor << 24)
    registers[0x3FF6607C] = signed(noise & 0x7FFFFFFF | (major > 2) << 31)


@pytest.mark.requirement("UPE11")
@pytest.mark.parametrize("major", range(4))
def test_the_revision_of_an_esp32_is_what_esptool_says(registers: Registers, major: int) -> None:
    for seed in range(50):
        set_esp32(registers, major, random.Random(seed).getrandbits(32), seed & 3)
        assert ours("esp32") == esptools("esp32", registers) == major * 100 + (seed & 3)


def test_bits_that_no_esp32_has_are_read_as_esptool_reads_them(registers: Registers) -> None:
    for bits in range(8):
        registers[0x3FF5A00C] = (bits & 1) << 15
        registers[0x3FF5A014] = (bits >> 1 & 1) << 20
        registers[0x3FF6607C] = signed((bits >> 2) << 31)
        assert ours("esp32") == esptools("esp32", registers)


@pytest.mark.requirement("UPE11")
@pytest.mark.parametrize("chip", ["esp32s3", "esp32c3", "esp32c6"])
def test_the_revision_of_newer_chips_is_what_esptool_says_or_unknown(registers: Registers, chip: str) -> None:
    rng = random.Random(chip)
    unknown = 0
    for _ in range(400):
        for word in range(8):
            registers[CHIP_DEFS[chip].EFUSE_BLOCK1_ADDR + 4 * word] = signed(rng.getrandbits(32))
        unknown += ours(chip) < 0
        assert ours(chip) in (-1, esptools(chip, registers))
    assert (unknown > 0) == (chip == "esp32s3"), "the first ESP32-S3 have other things there, and no others do"
    assert unknown < 100


def test_the_revision_of_a_chip_that_the_engine_does_not_know_is_not_guessed(registers: Registers) -> None:
    port = Port.__new__(Port)
    port.config = SimpleNamespace(CHIP=2)
    assert port.revision == -1


def _for_revisions(least: int, most: int) -> bytes:
    image = bytearray(firmware("for some revisions"))
    image[15:19] = least.to_bytes(2, "little") + most.to_bytes(2, "little")
    return bytes(image)


@pytest.mark.requirement("UPE11")
@pytest.mark.parametrize(
    ("revision", "least", "most", "taken"),
    [
        (300, 300, 0, True),
        (299, 300, 0, False),
        (300, 0, 299, False),
        (300, 0, 300, True),
        (300, 0, 0xFFFF, True),
        (-1, 300, 301, True),
    ],
)
def test_an_image_for_other_revisions_is_refused_before_the_slot_is_touched(revision, least, most, taken):
    desk, old = Desk(), firmware("old")
    desk.factory(release.make(1, {0: old}, vendor=VENDOR, product=CLASS), old)
    update = release.make(2, {0: _for_revisions(least, most)}, vendor=VENDOR, product=CLASS)
    up = desk.power_on()
    up.port.revision = revision
    if taken:
        fetch(up.engine, update.envelope, update.payloads, until=4096)
        return
    with pytest.raises(Refused) as caught:
        fetch(up.engine, update.envelope, update.payloads, until=4096)
    assert reasons.name(caught.value.code) == "IMAGE_CHIP"
    assert not [op for op in desk.ops() if desk.layout["ota_1"].offset <= op.address < desk.layout["ota_1"].end]
