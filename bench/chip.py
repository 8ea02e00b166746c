"""Instructions of Ed25519 and SHA-512 on genuine MicroPython v1.16 for ESP32: our portable code and the textbook.

``make test-chip`` once, then ``SEKISHO_MPY_CROSS_1_16=... PYTHONPATH=tools:host_sim:tests python -m bench.chip`` (see
docs/decisions/0011-an-esp32-for-tests.md). Machine code is left out, and one instruction is one cycle.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent / room) for room in ("tools", "host_sim", "tests")]

from helpers import chip, firmware  # noqa: E402
from sekisho_tools import flashimage  # noqa: E402

FILES, ROOM = 0x200000, 0x200000
PREPARE = """
import gc, utime
gc.threshold(4096)
from sekisho_boot import ed25519
from sekisho_boot.sha512 import sha512
gc.collect()
import textbook
gc.threshold(-1)
seed, message, block = bytes(range(32)), bytes(512), bytes(111)
key = ubinascii.unhexlify("03a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b8")
signature = textbook.sign(seed, message)
P = 2**255 - 19
x, y = P - 12345, P // 3
xy = x * y

def count(call, times=1):
    gc.collect()
    start = utime.ticks_cpu()
    for _ in range(times):
        call()
    return (utime.ticks_cpu() - start & 0x3FFFFFFF) // times
"""
WORK = {
    "verify, unknown key": "ed25519._recent.clear() or ed25519.verify(key, message, signature)",
    "verify, recent key": "ed25519.verify(key, message, signature)",
    "verify, textbook": "textbook.verify(key, message, signature)",
    "block of SHA-512": "sha512(block)",
    "block of SHA-512, textbook": "textbook.sha512(block)",
}
SMALL = {
    "call": "None",
    "product": "x * y",
    "remainder": "xy % P",
    "sum": "x + y",
    "shift": "xy >> 255",
    "mask": "xy & P",
}


def main() -> int:
    """Prints a line for each."""
    flash = bytearray((b"\xff" * 0x1000 + firmware.read("v1.16")).ljust(4 << 20, b"\xff"))
    files = chip.device_files(HERE / "textbook.py")
    flash[FILES : FILES + ROOM] = flashimage.make_littlefs(ROOM, files, "vfs")
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "flash.bin"
        path.write_bytes(flash)
        with chip.Chip(path) as board:
            board.run("import ubinascii" + PREPARE)
            for name, call in WORK.items():
                print(f"{name:28}{int(board.run(f'print(count(lambda: {call}))')):12,}")
            for name, call in SMALL.items():
                print(f"{name:28}{int(board.run(f'print(count(lambda: {call}, 200))')):12,}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
