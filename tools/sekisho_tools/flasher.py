"""Drives esptool: writes an image to a board, verifies it, reads it back.

esptool is run as a program (it is under the GPL; none of it is imported). Verifying asks the chip for a digest of the
whole flash; reading back compares, byte for byte, what is not blank in it. Both are done, since a device that
leaves the line wrong is not seen again.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from . import issuing
from .errors import ToolError

TIMEOUT = 900
"""Seconds for one call of esptool: 16 MiB at 115200 baud take less than half an hour, at 460800 some minutes."""
BAUD = 460_800
SECTOR, GAP = 4096, 65_536
STUB, ROM, NONE = "stub", "rom", "none"
"""How to read back: with esptool's stub (fast), through the chip's ROM (slow, always there), not at all."""
_MAC = re.compile(r"MAC:\s+([0-9a-fA-F:]{17})\b")
_NOISE = re.compile(r"^(esptool v|Serial port|Connecting|Stub|Uploading|Configuring|Changed|Hard resetting|\s*$)")


@dataclass(frozen=True)
class Port:
    """A serial port with a board of kind *chip* in its bootloader (or that esptool can reset into it)."""

    name: str
    chip: str
    baud: int = BAUD

    def esptool(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run esptool on this port. Raises ToolError FLASH_TIMEOUT."""
        command = [sys.executable, "-m", "esptool", "--chip", self.chip, "--port", self.name]
        if not self.name.startswith(("socket:", "rfc2217:")):
            command += ["--baud", str(self.baud)]
        try:
            return subprocess.run([*command, *words], capture_output=True, text=True, check=False, timeout=TIMEOUT)
        except subprocess.TimeoutExpired as error:
            raise ToolError("FLASH_TIMEOUT", f"The board on {self.name} did not finish {words[0]}.") from error

    def must(self, code: str, what: str, *words: str) -> str:
        """What esptool printed; ToolError *code* when it failed."""
        done = self.esptool(*words)
        if done.returncode:
            raise ToolError(code, f"{what} {self.name} failed: {_reason(done)}")
        return done.stdout


def _reason(done: subprocess.CompletedProcess[str]) -> str:
    lines = [line.strip() for line in (done.stdout + done.stderr).splitlines() if not _NOISE.match(line)]
    fatal = [line for line in lines if "error" in line.lower() or "fail" in line.lower()]
    return (fatal or lines or ["esptool said nothing"])[-1]


def read_mac(port: Port) -> str:
    """The MAC address of the chip on *port*. Raises ToolError FLASH_CONNECT."""
    said = port.must("FLASH_CONNECT", "Talking to the board on", "read-mac")
    found = _MAC.search(said)
    if not found:
        raise ToolError("FLASH_CONNECT", f"The board on {port.name} did not say which chip it is.")
    return issuing.physical_id(found[1])


def extents(image: bytes) -> list[tuple[int, int]]:
    """(start, end) of what is not blank in *image*, in sectors; gaps of up to GAP bytes are bridged."""
    found: list[tuple[int, int]] = []
    for start in range(0, len(image), SECTOR):
        end = min(start + SECTOR, len(image))
        if image[start:end].count(0xFF) == end - start:
            continue
        if found and start - found[-1][1] <= GAP:
            found[-1] = (found[-1][0], end)
        else:
            found.append((start, end))
    return found


def flash(port: Port, image: bytes, say: Callable[[str], None], *, read_back: str = STUB) -> None:
    """Write *image* from address 0, verify it, read back what is not blank in it (*read_back* STUB, ROM or NONE).

    Raises ToolError FLASH_WRITE, FLASH_VERIFY, FLASH_READ_BACK (the flash holds something else), FLASH_TIMEOUT. The
    image lies in a private temporary directory for as long as this runs, since it may hold a device's secrets.
    """
    with tempfile.TemporaryDirectory(prefix="sekisho-flash-") as directory:
        written, back = Path(directory) / "image.bin", Path(directory) / "back.bin"
        written.write_bytes(image)
        port.must("FLASH_WRITE", "Writing to the board on", "write-flash", "0x0", str(written))
        say(f"wrote {len(image)} bytes")
        port.must("FLASH_VERIFY", "Verifying the board on", "verify-flash", "0x0", str(written))
        say("verified: the chip's digest is that of the image")
        if read_back == NONE:
            return
        stub = ("--no-stub",) if read_back == ROM else ()
        for start, end in extents(image):
            words = (*stub, "read-flash", f"0x{start:x}", f"0x{end - start:x}", str(back))
            port.must("FLASH_READ_BACK", "Reading back the board on", *words)
            _compare(port, back.read_bytes(), image[start:end], start)
        say("read back: every byte is right")


def _compare(port: Port, found: bytes, wanted: bytes, start: int) -> None:
    if found != wanted:
        at = next((n for n, (a, b) in enumerate(zip(found, wanted, strict=False)) if a != b), len(found))
        raise ToolError("FLASH_READ_BACK", f"The board on {port.name} holds something else from 0x{start + at:x} on.")
