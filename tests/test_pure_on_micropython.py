"""The tests of tests/pure once more, on two real MicroPythons with bounded heaps: 64 and 32 bit.

pytest collects them on CPython, too."""

import subprocess
from pathlib import Path

import mp32
import pytest
from helpers import micropython
from sekisho_tools import device_code

PURE = Path(__file__).parent / "pure"
FILES = sorted(PURE.glob("test_*.py"))

HEAP = "384k"
"""Heap of the Unix port. Its objects are twice the chip's size and the code under test lies on the heap here, so this
stands for a chip with less than its 160 KB; what the engine really uses is measured by `make bench`."""


def run(room: Path, file: Path) -> "subprocess.CompletedProcess[str]":
    """Run one test file with the modules of *room*."""
    command = [micropython.executable(), "-X", f"heapsize={HEAP}", PURE / "run.py", room, "--", file]
    return subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_on_the_unix_port(file: Path) -> None:
    done = run(micropython.compiled(), file)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert " 0 failed" in done.stdout


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_on_the_32_bit_build(file: Path) -> None:
    """Small integers of 31 bits and 16-bit digits, as on the chip."""
    mp32.require()
    assert " 0 failed" in mp32.run_pure(file, (device_code.BOOT, device_code.LIB))


def test_the_runner_notices_a_failing_test(tmp_path: Path) -> None:
    (tmp_path / "test_bad.py").write_text("def test_good():\n    pass\n\n\ndef test_bad():\n    assert 1 == 2\n")
    done = run(tmp_path, tmp_path / "test_bad.py")
    assert done.returncode == 1
    assert "ok test_bad.py test_good" in done.stdout
    assert "FAIL test_bad.py test_bad" in done.stdout
    assert "1 passed, 1 failed" in done.stdout
