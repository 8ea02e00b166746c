"""The engine on the real MicroPython, loaded from .mpy files into a heap of a stated size, on the bytes of a flash."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from sekisho_tools import device_code
from sekisho_tools.layout import Layout
from sekisho_tools.measure import compile_module

from helpers.micropython import executable

DEVICE = Path(__file__).parents[1] / "device" / "engine_run.py"
VALGRIND = ("valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null")


def can_count() -> bool:
    """Whether instructions can be counted here."""
    return shutil.which("valgrind") is not None


@dataclass(frozen=True)
class Ran:
    """What the device said last, its flash afterwards, and the instructions that it took (0: not counted)."""

    said: str
    flash: bytes
    instructions: int


class Bench:
    """*flash* of a device with the partitions of *table*, whose slot *running* runs; *config* is `sekisho_config`.

    *native*: whether the modules with machine code are there.
    """

    def __init__(
        self, directory: Path, flash: bytes, table: Layout, config: str, running: int, *, native: bool = True
    ) -> None:
        self.directory = directory
        self.flash = flash
        self.running = running
        self.labels = [f"{part.label}={part.offset}:{part.size}" for part in table]
        code = directory / "code" / "sekisho_boot"
        code.mkdir(parents=True)
        for source in (device_code.BOOT / "sekisho_boot").glob("*.py"):
            if native or not source.stem.endswith("_native"):
                compile_module(source, code / f"{source.stem}.mpy")
        (directory / "code" / "sekisho_config.py").write_text(config)

    def run(self, what: str, heap: str = "100k", *, count: bool = False) -> Ran:
        """One start of the device; AssertionError with what it said when it breaks down."""
        with tempfile.NamedTemporaryFile(dir=self.directory) as file:
            path = Path(file.name)
            path.write_bytes(self.flash)
            sources = [str(device_code.BOOT)] if what.startswith("bodies") else []
            words = [
                str(path),
                str(self.running),
                what,
                str(self.directory / "code"),
                *sources,
                *self.labels,
            ]
            command = [*(VALGRIND if count else ()), executable(), "-X", f"heapsize={heap}", str(DEVICE), *words]
            done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
            assert done.returncode == 0, done.stdout + done.stderr
            counted = int(done.stderr.split("Collected :")[1].split()[0]) if count else 0
            return Ran(done.stdout.splitlines()[-1], path.read_bytes(), counted)
