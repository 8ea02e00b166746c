"""What a signature costs: ours against the textbook, on the MicroPython Unix port and on the 32-bit npm build.

``PYTHONPATH=tools:host_sim:tests python -m bench.bench_crypto [message bytes]``. Times are of this machine; the ratios
are what counts. ``--count`` adds instruction counts of the Unix port from valgrind, which do not depend on the machine.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent / room) for room in ("tools", "host_sim", "tests")]

import mp32  # noqa: E402
from sekisho_tools import device_code  # noqa: E402

ROOMS = [device_code.BOOT, device_code.LIB, HERE]


class Figure(NamedTuple):
    """One measurement beside the textbook's: microseconds or instructions, and how many times less ours is."""

    ours: float
    textbook: float
    ratio: float


def _program(size: int, rounds: int, times: int) -> str:
    return f"import crypto_device\nbench = crypto_device.Bench({size}, {rounds}, {times})\n"


def _unix() -> str:
    return shutil.which("micropython", path=str(Path(sys.executable).parent)) or "micropython"


def _figures(text: str) -> dict[str, Figure]:
    rows = [line.split() for line in text.splitlines()]
    return {name: Figure(*map(float, values)) for name, *values in rows}


def on_unix(size: int, rounds: int = 9) -> dict[str, Figure]:
    """Processor time on the Unix port, with a chip's heap of 160 KB (twice, as objects are twice the size)."""
    paths = [str(room) for room in ROOMS]
    program = (
        f"import sys\nsys.path[:] = ['.frozen'] + {paths!r}\n{_program(size, rounds, 40)}while bench.step(): pass\n"
    )
    done = subprocess.run(
        [_unix(), "-X", "heapsize=320k", "-c", program], capture_output=True, text=True, check=True, timeout=600
    )
    return _figures(done.stdout)


def on_32_bits(size: int, rounds: int = 15) -> dict[str, Figure]:
    """Processor time on the npm build; it collects garbage only between steps, so its heap holds that of one."""
    return _figures(mp32.run(_program(size, rounds, 5), ROOMS, heap=64 << 20, repeat="more = bench.step()"))


def counted(size: int) -> dict[str, Figure]:
    """Instructions on the Unix port under valgrind: the difference between four calls and two, by two."""
    paths = [str(room) for room in ROOMS]
    out = {}
    for index, name in enumerate(("verify_unknown_key", "verify_recent_key", "sign", "sha512_block")):
        cost = []
        for which in (1, 2):
            counts = []
            for calls in (2, 4):
                program = (
                    f"import sys\nsys.path[:] = ['.frozen'] + {paths!r}\n{_program(size, 0, 1)}"
                    f"call = bench.work[{index}][{which}]\nfor _ in range({calls}): call()\n"
                )
                command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", _unix()]
                done = subprocess.run(
                    [*command, "-X", "heapsize=320k", "-c", program],
                    capture_output=True,
                    text=True,
                    check=True,
                    timeout=600,
                )
                counts.append(int(done.stderr.split("Collected :")[1].split()[0]))
            cost.append((counts[1] - counts[0]) / 2)
        out[name] = Figure(cost[0], cost[1], cost[1] / cost[0])
    return out


def show(title: str, unit: str, figures: dict[str, Figure]) -> None:
    """Print one table: ours, the textbook's, how many times less."""
    print(f"\n{title}\n{'':22}{'ours':>14}{'textbook':>14}{'ratio':>8}   ({unit})")
    for name, figure in figures.items():
        print(f"{name:22}{figure.ours:14,.0f}{figure.textbook:14,.0f}{figure.ratio:8.2f}")
    print(f"sign / verify (unknown key): {figures['sign'].ours / figures['verify_unknown_key'].ours:.2f}")


def main() -> int:
    """Measure and print."""
    sizes = [int(argument) for argument in sys.argv[1:] if argument.isdigit()] or [512]
    for size in sizes:
        show(
            f"Ed25519, message of {size} bytes, MicroPython Unix port", "microseconds of processor time", on_unix(size)
        )
        why = mp32.missing()
        if why:
            print(f"\nnotice: no 32-bit figures: {why}")
        else:
            show(
                f"Ed25519, message of {size} bytes, 32-bit npm build",
                "microseconds of processor time",
                on_32_bits(size),
            )
        if "--count" in sys.argv:
            show(f"Ed25519, message of {size} bytes, Unix port under valgrind", "instructions", counted(size))
    return 0


if __name__ == "__main__":
    sys.exit(main())
