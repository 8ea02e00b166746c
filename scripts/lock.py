"""Resolves the dependencies again and writes requirements/*.txt with exact versions and hashes, for every platform.

What is locked stays as long as the sources allow it: with nothing changed there, the files stay as they are, byte for
byte. What is to be brought up to date is deleted from its file beforehand. Nothing is written there by hand.
"""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
UV = "uv==0.13.9"
FILES: dict[str, tuple[str, ...]] = {
    "dev.txt": ("pyproject.toml", "--all-extras", "--group", "dev"),
    "firmware.txt": ("requirements/firmware.in", "--no-deps"),
    "goosebit.txt": ("requirements/goosebit.in",),
    "chip.txt": ("requirements/chip.in", "--no-deps"),
}


def main() -> int:
    """Write the files with a uv of our own under build/; the first failure is the exit code."""
    tool = ROOT / "build" / "lock"
    python = str(tool / "bin" / "python")
    if not Path(python).exists():
        venv.create(tool, with_pip=True)
    code = subprocess.run([python, "-m", "pip", "install", "--quiet", UV], check=False).returncode
    if code:
        return code
    for name, source in FILES.items():
        code = subprocess.run(
            [
                *(python, "-m", "uv", "pip", "compile", "--quiet", "--generate-hashes", "--universal"),
                *("--python-version", "3.11", "--custom-compile-command", "make lock"),
                *("-o", f"requirements/{name}", *source),
            ],
            cwd=ROOT,
            check=False,
        ).returncode
        if code:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
