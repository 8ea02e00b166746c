"""MicroPython as on a 32-bit chip: the npm WebAssembly build (31-bit small integers, 16-bit digits), run by Node.

``npm ci --prefix tests/npm`` installs it. Where Node or the package is missing, `require` skips the test with a notice;
when the environment variable CI is set, that is an error.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

HERE = Path(__file__).parent / "npm"
PACKAGE = HERE / "node_modules" / "@micropython" / "micropython-webassembly-pyscript"
HEAP = 160 * 1024
"""Bytes of Python heap: what the official ESP32 firmware v1.26.1 has free at its prompt."""


def missing() -> str:
    """Why programs cannot be run here, or an empty string."""
    if not shutil.which("node"):
        return "Node is not installed"
    if not PACKAGE.is_dir():
        return "the npm package is not installed (npm ci --prefix tests/npm)"
    return ""


def require() -> None:
    """Skip the calling test where programs cannot be run; fail it there when CI is set."""
    import pytest

    why = missing()
    if why and os.environ.get("CI"):
        pytest.fail(f"32-bit MicroPython: {why}, and CI is set")
    if why:
        pytest.skip(f"32-bit MicroPython: {why}")


def run(program: str, rooms: Iterable[Path], heap: int = HEAP, timeout: float = 280, repeat: str = "") -> str:
    """What *program* prints, with the modules of *rooms* importable; AssertionError with its output when it raises.

    This build collects garbage only at the top level, so long work goes into *repeat*: it runs after *program*, again
    and again while it leaves the global ``more`` true.
    """
    names = [str(Path(room).resolve()) for room in rooms]
    job = json.dumps({"heap": heap, "rooms": names, "program": program, "repeat": repeat})
    done = subprocess.run(
        ["node", str(HERE / "run.mjs")],
        input=job,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        cwd=HERE,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def run_pure(test: Path, rooms: Iterable[Path], heap: int = 8 * HEAP) -> str:
    """What tests/pure/run.py prints for the pure test file *test*; its last line is ``N passed, M failed``.

    The heap is larger by default: sources are compiled inside it, where a chip has frozen modules.
    """
    pure = test.parent
    program = f"import run\nassert run.main(['/lib', '--', '/lib/{test.name}']) == 0\n"
    return run(program, [*rooms, pure], heap)
