"""Virtual environments of their own under build/, made from a hash-locked file of requirements/.

For what must not share ours: servers of others (`goosebit`), compilers of another age (`chip`).
"""

from __future__ import annotations

import subprocess
import venv
from pathlib import Path

ROOT = Path(__file__).parents[2]


class Environment:
    """That of requirements/*name*.txt; ``python`` is its interpreter."""

    def __init__(self, name: str) -> None:
        self.lock = ROOT / "requirements" / f"{name}.txt"
        self.place = ROOT / "build" / name
        self.python = self.place / "bin" / "python"
        self._stamp = self.place / "installed"

    def installed(self) -> bool:
        """Whether it is there, as locked."""
        return self._stamp.exists() and self._stamp.read_text() == self.lock.read_text()

    def install(self) -> None:
        """Make it, or bring it up to date. Raises CalledProcessError."""
        if self.installed():
            return
        venv.create(self.place, with_pip=True, clear=True)
        command = [str(self.python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*command, "--require-hashes", "-r", str(self.lock)], check=True)
        self._stamp.write_text(self.lock.read_text())
