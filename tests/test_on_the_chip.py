"""The engine on genuine MicroPython firmware for ESP32, started by its own bootloader (`make test-chip`).

Real here: the machine code of MicroPython, ESP-IDF, FreeRTOS on both cores, the flash driver, `esp32.Partition`, the
bootloader. Not real: the chip around it, and the release, which is v1.16 (see helpers/chip.py). What the flash holds
afterwards is compared byte by byte with what the same engine leaves on CPython and the simulator's bootloader.

That bootloader was built without rollback. So at each power-on the model of a bootloader with it writes first what such
a one writes, and the genuine one must then start the slot that the model has chosen.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from helpers import chip, firmware
from helpers.chip import CUT, RESET, Chip
from helpers.desk import CLASS, VENDOR, Desk, fetch
from helpers.release import Release, make
from sekisho_boot import reasons
from sekisho_boot.reasons import Refused
from sekisho_sim import bootloader
from sekisho_sim.flash import Flash
from sekisho_tools import flashimage
from sekisho_tools.layout import parse_csv

TABLE = parse_csv(
    """
    nvs,      data, nvs,      0x9000,   0x4000,
    otadata,  data, ota,      0xd000,   0x2000,
    phy_init, data, phy,      0xf000,   0x1000,
    ota_0,    app,  ota_0,    0x10000,  0x170000,
    ota_1,    app,  ota_1,    0x180000, 0x170000,
    sekisho,  data, 0x40,     0x2f0000, 0x10000,
    app_0,    data, 0x41,     0x300000, 0x20000,
    app_1,    data, 0x41,     0x320000, 0x20000,
    vfs,      data, littlefs, 0x340000, 0xc0000,
    """,
    4 << 20,
)
COMPARED = ("otadata", "ota_0", "ota_1", "sekisho", "app_0", "app_1")
START = """
import gc
gc.collect()
gc.threshold(4096)
import sekisho_config
from sekisho_boot import engine, port
gc.collect()
gc.threshold(-1)
p = port.Port(sekisho_config)
"""
BOOT = "d = engine.boot(p)\nprint(p.running, d.trial)"
STATUS = """
e = engine.Engine(p)
s = e.status()
print(s['running'], s['counters'], s['phase'], s['trial'], s['last'][0])
"""
NAMED = b"ET-Board with ESP32"
RENAMED = b"SEKISHO! with ESP32"


@pytest.fixture(scope="module", autouse=True)
def _needs_the_chip() -> None:
    chip.required()


def parts(release: str) -> tuple[bytes, bytes]:
    """Bootloader and app image of the ET-board's flash image of that release (which begins at 0x1000)."""
    data = firmware.read(release)
    app = data[0xF000:]
    end = 24
    for _ in range(app[1]):
        end += 8 + struct.unpack_from("<I", app, end + 4)[0]
    end = (end + 16) // 16 * 16
    return data[:0x7000], app[: end + 32]


def renamed(app: bytes) -> bytes:
    """The app with another banner, and checksum and hash to match."""
    made = bytearray(app.replace(NAMED, RENAMED))
    for byte in (NAMED + RENAMED) * app.count(NAMED):
        made[-33] ^= byte
    made[-32:] = hashlib.sha256(made[:-32]).digest()
    return bytes(made)


def device(
    profile: bootloader.Profile = bootloader.ROLLBACK, more: Mapping[str, bytes] | None = None
) -> tuple[Desk, Release]:
    """A device whose bootloader and app are genuine, with *more* files beside the engine's, and an update for it."""
    loader, old = parts("v1.16")
    desk = Desk(flash=Flash.blank(TABLE.flash_size), layout=TABLE, profile=profile)
    desk.factory(make(1, {0: old}, vendor=VENDOR, product=CLASS), old)
    desk.flash.buffer[0x1000 : 0x1000 + len(loader)] = loader
    names = ("KEYSET", "VENDOR", "CLASSES", "CHIP", "BUILD_TIME", "FLOOR_FW", "FLOOR_APP", "TRIAL_SECONDS")
    config = "".join(f"{name} = {getattr(desk.config, name)!r}\n" for name in names)
    files = {**chip.device_files(), "sekisho_config.py": config.encode(), **(more or {})}
    desk.put("vfs", flashimage.make_littlefs(TABLE["vfs"].size, files, "vfs"))
    return desk, make(2, {0: renamed(old)}, vendor=VENDOR, product=CLASS)


class Twins:
    """The same device twice: the chip on a flash file, and the desk, where the engine runs on CPython."""

    def __init__(self, directory: Path, desk: Desk) -> None:
        self.desk = desk
        self.file = directory / "flash.bin"
        self.file.write_bytes(desk.snapshot())

    @contextmanager
    def on(self, cut: int = 0) -> Iterator[Chip]:
        """The chip after power-on, the engine imported."""
        flash = Flash(bytearray(self.file.read_bytes()))
        chosen = bootloader.power_on(flash, profile=self.desk.profile).running
        self.file.write_bytes(bytes(flash.buffer))
        with Chip(self.file, cut) as board:
            board.run(START)
            assert board.run("from esp32 import Partition\nprint(Partition(Partition.RUNNING).info()[4])") == chosen
            yield board

    def differences(self) -> list[str]:
        """The partitions in which the two differ; what only MicroPython writes to is left out."""
        chips, desks = self.file.read_bytes(), self.desk.snapshot()
        spans = {label: slice(TABLE[label].offset, TABLE[label].offset + TABLE[label].size) for label in COMPARED}
        return [label for label, span in spans.items() if chips[span] != desks[span]]


@pytest.fixture(scope="module")
def staged() -> Desk:
    """A device on which the update is staged."""
    desk, update = device()
    fetch(desk.power_on().engine, update.envelope, update.payloads)
    return desk


@pytest.fixture
def twins(staged: Desk, tmp_path: Path) -> Twins:
    desk, _ = device()
    desk.restore(staged.snapshot())
    return Twins(tmp_path, desk)


@pytest.mark.parametrize("release", ["v1.15", "v1.16"])
def test_genuine_firmware_comes_up_through_its_own_bootloader(tmp_path, release):
    flash = tmp_path / "flash.bin"
    flash.write_bytes((b"\xff" * 0x1000 + firmware.read(release)).ljust(4 << 20, b"\xff"))
    with Chip(flash) as board:
        assert f"MicroPython {release}" in board.banner
        assert board.run("import sys; print(sys.platform, 2**70 % 1000003, 7 / 2)") == f"esp32 {2**70 % 1000003} 3.5"
        assert board.run("import uhashlib; print(uhashlib.sha256(bytes(200)).digest())") == str(
            hashlib.sha256(bytes(200)).digest()
        )


def test_hashes_and_signatures_on_the_chip(twins):
    with twins.on() as board:
        board.run("from sekisho_boot.sha512 import sha512\nfrom sekisho_boot.ed25519 import verify")
        for size in (0, 3, 111, 112, 300):
            data = bytes(i * 7 & 255 for i in range(size))
            assert board.run(f"print(bytes(sha512({data!r})))") == str(hashlib.sha512(data).digest())
        key = bytes.fromhex("fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025")  # RFC 8032 7.1, TEST 3
        signature = bytes.fromhex(
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
            "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a"
        )
        for message in (b"\xaf\x82", b"\xaf\x83"):
            said = board.run(f"print(verify({key!r}, {message!r}, {signature!r}))")
            assert said == str(message == b"\xaf\x82")


def test_an_update_is_fetched_on_the_chip_as_on_the_desk(tmp_path):
    """Accepted, written to flash in pieces and staged; the payload is the running firmware with another banner."""
    desk, update = device()
    desk.power_on()
    twins = Twins(tmp_path, desk)
    new = update.payloads[0]
    old = parts("v1.16")[1]
    changed = {at // 4096 for at in range(len(new)) if new[at] != old[at]}
    with twins.on() as board:
        assert board.run(BOOT) == "0 False"
        board.run(f"e = engine.Engine(p)\ne.accept({update.envelope!r})\nprint(e.begin())")
        board.run("buf = bytearray(4096)\nviews = memoryview(buf)")
        at = 0
        for piece in sorted(changed) + [len(new) // 4096 + 1]:
            end = min(piece * 4096, len(new))
            board.run(
                f"for off in range({at}, {end}, 4096):\n"
                f"    view = views[:min(4096, {end} - off)]\n    p.fw[0].read(off, view)\n    e.write(0, off, view)"
            )
            if piece in changed:
                board.run(f"p.fw[0].read({end}, buf)")
                for place in range(end, min(end + 4096, len(new))):
                    if new[place] != old[place]:
                        board.run(f"buf[{place - end}] = {new[place]}")
                board.run(f"e.write(0, {end}, views[:{min(4096, len(new) - end)}])")
            at = end + 4096
        board.run("e.stage()")
    fetch(desk.power_on().engine, update.envelope, update.payloads)
    assert not twins.differences()


def test_an_update_is_verified_and_swapped_and_confirmed_on_the_chip_as_on_the_desk(twins):
    with twins.on() as board:
        assert NAMED.decode() in board.banner
        assert board.last(BOOT) == RESET
    assert twins.desk.boot_once() is None
    assert not twins.differences()

    with twins.on() as board:  # its own bootloader has chosen the other slot
        assert RENAMED.decode() in board.banner
        assert board.run(BOOT) == "1 True"
        assert board.run(STATUS) == "1 (1, 0) 3 True 0"
        up = twins.desk.power_on()
        assert (up.running, up.decision.trial) == (1, True)
        assert not twins.differences()
        board.run("e.confirm()")
        up.engine.confirm()
        assert board.run(STATUS) == "1 (2, 0) 0 False 0"
    assert not twins.differences()


def test_a_bootloader_without_rollback_is_found_out_on_the_chip_as_on_the_desk(tmp_path):
    """What it does to otadata tells; firmware updates are refused then (reason 41)."""
    desk, update = device(bootloader.NO_ROLLBACK)
    twins = Twins(tmp_path, desk)
    with twins.on() as board:
        assert board.last(BOOT) == RESET  # after the question
    assert desk.boot_once() is None
    assert not twins.differences()
    with twins.on() as board:
        assert board.run(BOOT) == "0 False"
        board.run("e = engine.Engine(p)\nfrom sekisho_boot.reasons import Refused")
        said = board.run(f"try:\n    e.accept({update.envelope!r})\nexcept Refused as r:\n    print(r.code)")
        assert int(said) == reasons.NO_ROLLBACK
    with pytest.raises(Refused) as refused:
        desk.power_on().engine.accept(update.envelope)
    assert refused.value.code == reasons.NO_ROLLBACK
    assert not twins.differences()


@pytest.mark.parametrize("cut", [1, 2, 3, 4, 6])
def test_power_may_go_while_the_chip_swaps(twins, cut):
    """In the middle of a flash operation: afterwards the chip comes up and finishes what it had begun."""
    with twins.on():
        pass  # the firmware itself writes at its first start
    with twins.on(cut) as board:
        assert board.last(BOOT) in (CUT, RESET)
    for _ in range(3):
        with twins.on() as board:
            said = board.last(BOOT)
            if said != RESET:
                assert (said, RENAMED.decode() in board.banner) == ("1 True", True)
                return
    raise AssertionError("it never came up with the new firmware")


def test_a_damaged_image_is_left_by_the_bootloader_and_reported_by_the_engine(twins):
    with twins.on() as board:
        assert board.last(BOOT) == RESET
    data = bytearray(twins.file.read_bytes())
    data[TABLE["ota_1"].offset + 500_000] ^= 1
    twins.file.write_bytes(data)
    twins.desk.restore(bytes(data))
    with twins.on() as board:
        assert NAMED.decode() in board.banner
        said = board.run(BOOT)
        up = twins.desk.power_on()
        assert said == f"{up.running} {up.decision.trial}" == "0 False"
        assert int(board.run(STATUS).split()[-1]) == up.engine.status()["last"][0] != 0
    assert not twins.differences()
