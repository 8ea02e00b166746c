"""Device code on the real MicroPython Unix port, compiled as it goes onto a chip."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

from sekisho_tools import device_code
from sekisho_tools.measure import compile_module

TESTS = Path(__file__).parents[1]


def executable() -> str:
    """The MicroPython to use: SEKISHO_MICROPYTHON, else the one installed beside this Python."""
    return os.environ.get("SEKISHO_MICROPYTHON") or shutil.which("micropython", path=Path(sys.executable).parent) or ""


@cache
def compiled() -> Path:
    """boot/, lib/ and tests/device as .mpy files below one directory."""
    target = Path(mkdtemp(prefix="sekisho-mpy-"))
    for base, rooms in ((device_code.BOOT, "*"), (device_code.LIB, "*"), (TESTS, "device")):
        for source in sorted(base.glob(f"{rooms}/*.py")):
            out = target / source.relative_to(base).with_suffix(".mpy")
            out.parent.mkdir(exist_ok=True)
            compile_module(source, out)
    return target


def run(program: str, heap: str = "100k", timeout: float = 240) -> str:
    """What *program* prints; AssertionError with its output when it fails."""
    # Modules lie on the heap here: collecting often keeps what stays of loading them together.
    start = f"import gc; gc.threshold(2048); import sys; sys.path[:] = ['.frozen', {str(compiled())!r}]; "
    command = [executable(), "-X", f"heapsize={heap}", "-c", start + program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
