"""A damaged `data` file system must not stop a device; MicroPython's own littlefs is asked, image by image."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import micropython
from helpers.cli import Runner
from helpers.factory import build
from helpers.keys import make_keyset
from sekisho_tools import layout
from sekisho_tools.flashimage import littlefs_version, make_littlefs, read_littlefs

COUNT = 1500


def test_mounting_and_reading_a_damaged_file_system_always_ends(tmp_path: Path) -> None:
    files = {
        "sekisho.json": b'{"server": ""}',
        "log/events": bytes(9000),
        "sekisho-state.json": b"{}",
    }
    image = tmp_path / "data.img"
    image.write_bytes(make_littlefs(0x20000, files, "data"))
    program = f"from device import mount_cases; mount_cases.main({str(image)!r}, {COUNT})"
    count, mounted, read = map(int, micropython.run(program, heap="600k", timeout=120).split())
    assert count == COUNT
    # Both ways must have been gone: file systems that were refused, and damage that was lived with.
    assert 0 < read <= mounted < count


def _newer(data: bytes) -> bytes:
    """A file system that says it is a littlefs 3: what it says does not fit its checksum, which is as good."""
    return data.replace(b"\x00\x00\x02\x00", b"\x00\x00\x03\x00").replace(b"\x01\x00\x02\x00", b"\x00\x00\x03\x00")


def test_the_desk_reads_a_file_system_that_a_device_has_written_to(tmp_path: Path) -> None:
    image = tmp_path / "data.img"
    image.write_bytes(make_littlefs(0x20000, {"sekisho.json": b"{}", "log/events": bytes(9000)}, "data"))
    assert littlefs_version(image.read_bytes()) == "2.0"
    program = f"from device import mount_cases; mount_cases.write({str(image)!r})"
    micropython.run(program, heap="600k")
    data = image.read_bytes()
    assert littlefs_version(data) == "2.1", "MicroPython's littlefs has made it its own"
    assert read_littlefs(data) == {"/sekisho.json": b"{}", "/log/events": bytes(9000), "/written": b"by the device"}
    assert read_littlefs(_newer(data)) is None
    assert littlefs_version(_newer(data)) is None
    assert littlefs_version(bytes(0x20000)) is None


def test_inspecting_a_used_flash_says_what_is_on_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Runner(capsys, monkeypatch)
    monkeypatch.setenv("COLUMNS", "200")
    flash = bytearray(build(make_keyset()))
    row = layout.load("4MiB")["data"]
    (tmp_path / "data.img").write_bytes(flash[row.offset : row.end])
    micropython.run(f"from device import mount_cases; mount_cases.write({str(tmp_path / 'data.img')!r})", heap="600k")
    flash[row.offset : row.end] = (tmp_path / "data.img").read_bytes()
    (tmp_path / "flash.bin").write_bytes(flash)
    shown = run(f"image inspect {tmp_path / 'flash.bin'}")
    assert shown.code == 0, shown.err
    assert "littlefs 2.1" in shown.out
    assert "/written" in shown.out
    flash[row.offset : row.end] = _newer(make_littlefs(row.size, {}, "data"))
    (tmp_path / "flash.bin").write_bytes(flash)
    assert "a littlefs that is damaged, or newer" in run(f"image inspect {tmp_path / 'flash.bin'}").out
