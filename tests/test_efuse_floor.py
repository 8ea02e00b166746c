"""The hardware floor: burnt only behind a confirmed image, never past it, and obeyed afterwards."""

from __future__ import annotations

import pytest
from helpers import images, release
from helpers.desk import CLASS, VENDOR, Desk, Up, fetch
from helpers.keys import make_keyset
from sekisho import efuse, secure
from sekisho_boot import reasons
from sekisho_boot.reasons import Refused
from sekisho_sim.efuse import Efuse
from sekisho_tools import config
from sekisho_tools.errors import ToolError


class Registers:
    """`machine.mem32` over the eFuse model; the two timing registers are plain memory."""

    def __init__(self) -> None:
        self.fuses = Efuse()
        self.plain: dict[int, int] = {}

    def __getitem__(self, address: int) -> int:
        return self.plain.get(address, 0) if address in (0x3FF5A0F8, 0x3FF5A118) else self.fuses.read32(address)

    def __setitem__(self, address: int, value: int) -> None:
        if address in (0x3FF5A0F8, 0x3FF5A118):
            self.plain[address] = value
        else:
            self.fuses.write32(address, value & 0xFFFFFFFF)


class Chip(secure.Esp32):
    """The ESP32 back end on these registers."""

    def __init__(self, desk: Desk, registers: Registers) -> None:
        super().__init__(desk.config)
        self.registers = registers

    def _registers(self) -> Registers:
        return self.registers


def firmware(text: str, version: int) -> bytes:
    return images.app(text.ljust(8000, "."), secure_version=version)


def make(sequence: int, image: bytes) -> release.Release:
    return release.make(sequence, {0: image}, vendor=VENDOR, product=CLASS)


def device(hw_floor: int, *, opted: bool = True) -> tuple[Desk, Up]:
    """A device that was updated from security version 1 to 3 and confirmed that."""
    desk = Desk(keys=make_keyset(hardware_floor=hw_floor))
    desk.config.EFUSE_FLOOR = opted
    old, new = firmware("old", 1), firmware("new", 3)
    desk.factory(make(1, old), old)
    update = make(2, new)
    fetch(desk.power_on().engine, update.envelope, update.payloads)
    up = desk.power_on()
    return desk, up


@pytest.mark.requirement("UPE16")
@pytest.mark.parametrize(("hw_floor", "burnt"), [(0, 0), (1, 1), (2, 2), (3, 3), (9, 3)])
@pytest.mark.rule("efuse-floor")
def test_burns_the_smaller_of_key_set_floor_and_running_image(hw_floor, burnt):
    desk, up = device(hw_floor)
    registers = Registers()
    assert efuse.raise_floor(up.engine, Chip(desk, registers)) == 0, "nothing is burnt during a trial"
    up.engine.confirm()
    assert efuse.raise_floor(desk.power_on().engine, Chip(desk, registers)) == burnt
    assert registers.fuses.secure_version == burnt


@pytest.mark.rule("efuse-floor")
def test_without_opting_in_nothing_is_burnt():
    desk, up = device(3, opted=False)
    up.engine.confirm()
    registers = Registers()
    assert efuse.raise_floor(desk.power_on().engine, Chip(desk, registers)) == 0
    assert registers.fuses.burns == 0


@pytest.mark.requirement("UPE16", "UPE03")
@pytest.mark.rule("efuse-floor")
def test_a_lower_idle_image_is_unbootable_before_the_floor_rises_and_refused_after():
    desk, up = device(3)
    up.engine.confirm()
    registers = Registers()
    assert desk.flash.read(0x10000, 1) == b"\xe9"
    efuse.raise_floor(desk.power_on().engine, Chip(desk, registers))
    assert desk.flash.read(0x10000, 4096) == b"\xff" * 4096
    desk.fuse = efuse.level(registers)
    old = make(3, firmware("newer but weaker", 2))
    with pytest.raises(Refused) as caught:
        fetch(desk.power_on().engine, old.envelope, old.payloads)
    assert reasons.name(caught.value.code) == "FLOOR"


def test_a_controller_that_does_not_take_the_level_is_an_error():
    class Dead(Registers):
        def __setitem__(self, address: int, value: int) -> None:
            if address != 0x3FF5A0FC:
                super().__setitem__(address, value)

    with pytest.raises(OSError, match="eFuse"):
        efuse.burn(Dead(), 2)
    with pytest.raises(ValueError, match="range"):
        efuse.burn(Registers(), 33)


def test_what_other_code_left_in_the_write_registers_is_not_burnt():
    for address in (0x3FF5A01C, 0x3FF5A034, 0x3FF5A098, 0x3FF5A0B8, 0x3FF5A0D8, 0x3FF5A0F4):
        registers = Registers()
        registers[address] = 0xFFFF
        efuse.burn(registers, 1)
        assert [word for block in registers.fuses.fuses for word in block if word] == [1], hex(address)


def test_a_chip_whose_blocks_are_coded_is_left_alone():
    """esp_efuse_fields.c takes no coding scheme but NONE for counters: there bits cannot be added one by one."""
    registers = Registers()
    registers.fuses.fuses[0][6] = 1  # 3/4 coding
    registers.fuses._load()
    with pytest.raises(OSError, match="coded"):
        efuse.burn(registers, 1)
    assert registers.fuses.burns == 0


def test_a_product_opts_in_when_its_image_is_built():
    keys = make_keyset()
    made = [config.make("example.com", ["lamp"], keys.document, "esp32", efuse_floor=opted) for opted in (False, True)]
    for opted, device_config in zip((False, True), made, strict=True):
        module: dict[str, object] = {}
        exec(config.render(device_config), module)
        assert module["EFUSE_FLOOR"] is opted
    with pytest.raises(ToolError, match="esp32 only"):
        config.render(config.make("example.com", ["lamp"], keys.document, "esp32c3", efuse_floor=True))
