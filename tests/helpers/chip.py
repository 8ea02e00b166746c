"""An ESP32 that runs genuine MicroPython firmware from its flash, instruction by instruction (tests/chip/esp32.c).

The firmware is the ET-board's (see `firmware`), MicroPython v1.15 or v1.16: older than what the product supports, so
two things are lent to it. Its .mpy files are of version 5, made by its own mpy-cross, and `struct` learns the padding
`x`. The machine code of our modules stays away: the emitter of that time cannot branch so far.
"""

from __future__ import annotations

import functools
import os
import select
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import IO

import pytest
from sekisho_tools import device_code

SOURCE = Path(__file__).parents[1] / "chip" / "esp32.c"
CROSS = os.environ.get("SEKISHO_MPY_CROSS_1_16", "")
RESET, CUT = 42, 43
SECONDS = 300.0
PIECE = 256
STRUCT = """
from ustruct import *
import ustruct

def unpack(form, data):
    return ustruct.unpack(form, data) if "x" not in form else _padded(form, data)

def _padded(form, data):
    values, at = [], 0
    for part in form[1:].replace("20x", " x ").split():
        if part == "x":
            at += 20
        else:
            values += ustruct.unpack_from(form[0] + part, data, at)
            at += ustruct.calcsize(form[0] + part)
    return tuple(values)
"""


def required() -> None:
    """Skips what needs the chip where `make test-chip` has not prepared it."""
    if not CROSS or not shutil.which("cc"):
        pytest.skip("needs mpy-cross 1.16 and a C compiler; `make test-chip` prepares them")


@functools.cache
def _program() -> Path:
    target = Path(tempfile.mkdtemp(prefix="sekisho-chip-")) / "esp32"
    subprocess.run(["cc", "-O2", "-o", str(target), str(SOURCE), "-lm"], check=True)
    return target


@functools.cache
def device_files(*more: Path) -> dict[str, bytes]:
    """The engine for the firmware's file system, as .mpy files of version 5, and *more* modules."""
    files = {"struct.py": STRUCT.encode()}
    engine = sorted((device_code.BOOT / "sekisho_boot").glob("*.py"))
    with tempfile.TemporaryDirectory() as place:
        for path in (*engine, *more):
            if path.stem.endswith("_native"):
                continue
            made = Path(place) / "made.mpy"
            options = ["-O3", "-march=xtensawin", "-msmall-int-bits=31", "-s", path.name, "-o", str(made)]
            subprocess.run([CROSS, *options, str(path)], check=True)
            folder = "" if path in more else "sekisho_boot/"
            files[f"{folder}{path.stem}.mpy"] = made.read_bytes()
    return files


class EndedError(Exception):
    """The chip stopped running: ``code`` is RESET, CUT, or 3 with ``said`` telling what was not modelled."""

    def __init__(self, code: int, said: str) -> None:
        super().__init__(f"the chip ended with {code}: {said}")
        self.code = code


class Chip:
    """The chip under power, its flash in the file *flash*; power goes in the middle of flash operation number *cut*."""

    def __init__(self, flash: Path, cut: int = 0) -> None:
        self._flash, self._cut = flash, cut
        self._seen = b""
        self.banner = ""

    def __enter__(self) -> Chip:
        self._errors = tempfile.TemporaryFile()
        command = [str(_program()), str(self._flash), str(self._cut)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, bufsize=0
        )
        try:
            self.banner = self._until(b">>> ").decode(errors="replace")
            self._send(b"\x01")
            self._until(b"CTRL-B to exit\r\n>")
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def _stop(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._errors):
            if pipe:
                pipe.close()

    def _send(self, data: bytes) -> None:
        pipe: IO[bytes] | None = self._process.stdin
        assert pipe
        try:
            pipe.write(data)
        except BrokenPipeError:
            self._ended()

    def _ended(self) -> None:
        code = self._process.wait(10)
        self._errors.seek(0)
        raise EndedError(
            code, self._errors.read().decode(errors="replace") + self._seen[-500:].decode(errors="replace")
        )

    def _until(self, what: bytes) -> bytes:
        pipe = self._process.stdout
        assert pipe
        end = time.monotonic() + SECONDS
        while what not in self._seen:
            if time.monotonic() > end:
                raise TimeoutError(self._seen[-500:].decode(errors="replace"))
            if select.select([pipe], [], [], 1)[0]:
                data = os.read(pipe.fileno(), 65536)
                if not data:
                    self._ended()
                self._seen += data
        at = self._seen.index(what) + len(what)
        found, self._seen = self._seen[:at], self._seen[at:]
        return found

    def run(self, code: str) -> str:
        """What *code* prints in the raw REPL; AssertionError with the traceback when it raises."""
        self._send(code.encode() + b"\x04")
        self._until(b"OK")
        out = self._until(b"\x04")[:-1].decode()
        error = self._until(b"\x04>")[:-2].decode()
        assert not error, error
        return out.replace("\r", "").strip()

    def last(self, code: str) -> str | int:
        """Like `run`, for what may end the chip: what it prints, or RESET or CUT."""
        try:
            return self.run(code)
        except EndedError as end:
            if end.code not in (RESET, CUT):
                raise
            return end.code
