"""What a password costs an ESP32 (PBKDF2-HMAC-SHA-256, console and backups): calculated, never timed on a chip.

``PYTHONPATH=tools:host_sim:tests python -m bench.password_hash``. A round is counted in instructions of the Unix port
of MicroPython under valgrind, as the difference between many rounds and few, garbage collection included. What SHA-256
itself takes of that (four blocks a round, in C) is counted apart, as a chip does it otherwise. The rest, bytecode and
objects, is worth what `scripts/bench.py` says such an instruction is worth on a chip. So each figure is a range.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / room) for room in ("tools", "host_sim", "tests")]

from helpers import micropython  # noqa: E402
from sekisho_tools import device_code  # noqa: E402

assert device_code
from sekisho import accounts, seal  # noqa: E402

CLOCK = 160_000_000  # Hz; MicroPython's default on ESP32
WORTH = (0.2, 0.4, 0.8)
"""Instructions of an ESP32 for one of the Unix port, bytecode and objects (scripts/bench.py: from loops, sums and masks
whose instructions are known on both)."""
BLOCK = (600, 2_000, 6_000)
"""Cycles for one block of SHA-256: by the chip's accelerator with what mbedTLS does around it (least), in software with
twice the instructions of the Unix port (most), and something between. Assumed."""
BLOCKS = 4
"""Blocks of a round: HMAC hashes twice, each time its pad and then 32 bytes; hashlib cannot copy a state."""
FEW, MANY = 64, 576
_ROUNDS = """
import sys, asyncio
sys.path[:0] = {paths!r}
from sekisho import accounts
asyncio.run(accounts.slow_hash(b"correct horse", bytes(16), {rounds}))
"""
_BLOCKS = """
from hashlib import sha256
hasher = sha256()
data = bytes(64)
for _ in range({rounds}):
    hasher.update(data)
"""
_LOOP = """
class Nothing:
    def update(self, data): pass
hasher = "".join
data = ""
for _ in range({rounds}):
    hasher(data)
"""


@dataclass(frozen=True)
class Cost:
    """Instructions of the Unix port for one round: all of it, and SHA-256 in it."""

    round: float
    hashing: float

    def seconds(self, rounds: int) -> tuple[float, ...]:
        """Least, middle and most seconds that *rounds* take a chip."""
        rest = self.round - self.hashing
        return tuple(
            rounds * (BLOCKS * block + rest * worth) / CLOCK for block, worth in zip(BLOCK, WORTH, strict=True)
        )


def _instructions(program: str) -> int:
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", micropython.executable()]
    done = subprocess.run(
        [*command, "-X", "heapsize=320k", "-c", program], capture_output=True, text=True, check=True, timeout=300
    )
    return int(done.stderr.split("Collected :")[1].split()[0])


def _each(program: str) -> float:
    paths = [str(micropython.compiled())]
    few, many = (_instructions(program.format(paths=paths, rounds=rounds)) for rounds in (FEW, MANY))
    return (many - few) / (MANY - FEW)


def counted() -> Cost:
    """Counts a round. Needs valgrind and the Unix port."""
    return Cost(_each(_ROUNDS), BLOCKS * (_each(_BLOCKS) - _each(_LOOP)))


def main() -> None:
    """Print the calculation."""
    cost = counted()
    print(
        f"A round takes {cost.round:,.0f} instructions of the Unix port; {cost.hashing:,.0f} of them are SHA-256.\n"
        f"On an ESP32 at {CLOCK // 1_000_000} MHz (calculated, not timed: "
        f"{BLOCKS} blocks of {BLOCK} cycles, the rest worth {WORTH}):"
    )
    for what, rounds in (("console password", accounts.ROUNDS), ("passphrase of a backup", seal.ROUNDS)):
        least, middle, most = cost.seconds(rounds)
        print(f"  {what}, {rounds} rounds: about {middle:.1f} s ({least:.1f} to {most:.1f})")


if __name__ == "__main__":
    main()
