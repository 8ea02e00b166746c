"""`sekisho sim run`: what a user sees of a simulated device, and how the command ends."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.cli import Result, Runner
from helpers.images import app, flash_with

Sim = Callable[..., Result]

MAIN = """
import machine
from esp32 import Partition
print("cause", machine.reset_cause())
if machine.reset_cause() == machine.PWRON_RESET:
    Partition.find(1, label="vfs")[0].ioctl(6, 3)
    machine.reset()
print("resting")
"""


@pytest.fixture
def flash(tmp_path: Path) -> Path:
    """A flash image whose app images stand for a firmware of a few lines."""
    path = tmp_path / "flash.bin"
    path.write_bytes(bytes(flash_with({"ota_0": app()}).buffer))
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "_boot.py").write_text("")
    (tree / "boot.py").write_text("")
    (tree / "main.py").write_text(MAIN)
    world = tmp_path / "flash.bin.sim"
    world.mkdir()
    (world / "personalities.json").write_text(json.dumps({"default": {"name": "test", "trees": ["../tree"]}}))
    return path


@pytest.fixture
def sim(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Sim:
    runner = Runner(capsys, monkeypatch)
    return lambda *arguments: runner("sim run " + " ".join(map(str, arguments)))


def test_console_and_end_of_each_start_are_shown(flash: Path, sim: Sim) -> None:
    done = sim(flash, "--trace")
    assert done.code == 0, done.err
    lines = [line.strip() for line in done.out.splitlines()]
    assert lines[2:] == [
        "bootloader: ota_0 at 0x10000: started",
        "cause 1",
        "0 erase   0x00d000 4096",
        "1 program 0x00d000 32",
        "2 erase   0x353000 4096",
        "-- ota_0 stopped: reset, 3 flash operations",
        "bootloader: otadata: [seq 1 VALID] [empty]",
        "bootloader: ota_0 at 0x10000: started",
        "cause 5",
        "resting",
        "-- ota_0 stopped: idle, 0 flash operations",
    ]


def test_json_holds_the_same(flash: Path, sim: Sim) -> None:
    told = json.loads(sim(flash, "--json", "--trace").out)
    assert told["operations"] == 3
    assert [(boot["cause"], boot["slot"], boot["personality"]) for boot in told["boots"]] == [
        ("reset", "ota_0", "test"),
        ("idle", "ota_0", "test"),
    ]
    assert told["boots"][0]["console"] == "cause 1\n"
    assert told["boots"][0]["trace"][2] == ["erase", 0x353000, 4096, ""]


def test_power_cut_leaves_the_torn_operation_in_the_file(flash: Path, sim: Sim) -> None:
    before = flash.read_bytes()
    done = sim(flash, "--power-cut-at", 2, "--torn", "erase-noise", "--seed", 7)
    assert done.code == 0, done.err
    assert "power cut at operation 2 (erase 0x353000)" in done.out
    after = flash.read_bytes()
    assert after[0x353000:0x354000] != before[0x353000:0x354000]
    assert after[:0xD000] == before[:0xD000]
    assert after[0x354000:] == before[0x354000:]


def test_device_goes_on_where_it_stopped(flash: Path, sim: Sim) -> None:
    assert "cause 1" in sim(flash, "--max-boots", 1).out
    assert "cause 5" in sim(flash, "--max-boots", 1).out, "the RTC domain is kept beside the flash"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--power-cut-at", 3), "NO_CUT"),
        (("--power-cut-at", 2, "--torn", "no-such-shape"), "TORN_SHAPE"),
        (("--power-cut-at", 2, "--torn", "program-done"), "TORN_SHAPE"),
        (("--torn", "erase-noise"), "TORN_SHAPE"),
        (("--until", "never-printed"), "UNTIL"),
        (("--personalities", "missing.json"), "FILE"),
        (("--config", "missing.py"), "FILE"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_failure_is_one_sentence_with_a_code(flash: Path, sim: Sim, arguments: tuple[object, ...], code: str) -> None:
    done = sim(flash, *arguments)
    assert done.code == 1
    assert done.err.startswith(f"error[{code}]: ")
    assert done.err.count("\n") == 1


def test_files_that_are_no_flash_are_refused(tmp_path: Path, sim: Sim) -> None:
    short = tmp_path / "short.bin"
    short.write_bytes(b"\xff" * 5000)
    for path, code in ((short, "FLASH_IMAGE"), (tmp_path / "missing.bin", "FILE")):
        done = sim(path)
        assert (done.code, done.err[: 7 + len(code)]) == (1, f"error[{code}]")
    blank = tmp_path / "blank.bin"
    blank.write_bytes(b"\xff" * 0x10000)
    done = sim(blank)
    assert (done.code, done.err[:14]) == (1, "error[NO_BOOT]")


def test_until_ends_the_run(flash: Path, sim: Sim) -> None:
    done = sim(flash, "--until", "resting")
    assert done.code == 0
    assert "stopped: until" in done.out


def test_an_image_that_nothing_is_known_of_is_refused_in_one_sentence(flash: Path, sim: Sim) -> None:
    (flash.parent / "flash.bin.sim" / "personalities.json").unlink()
    done = sim(flash)
    assert done.code == 1
    assert "error[NO_CONFIG]" in done.err


def test_what_image_build_left_beside_the_image_is_found(flash: Path, sim: Sim) -> None:
    (flash.parent / "flash.bin.sim" / "personalities.json").unlink()
    (flash.parent / "flash.bin.config.py").write_text("print('configured')\nraise SystemExit\n")
    done = sim(flash, "--max-boots", "1")
    assert "configured" in done.out
