"""A damaged `data` file system must not stop a device; MicroPython's own littlefs is asked, image by image."""

from __future__ import annotations

from pathlib import Path

from helpers import micropython
from sekisho_tools.flashimage import make_littlefs

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
