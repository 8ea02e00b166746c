"""What a signature costs: ours against the textbook, on the MicroPython Unix port and on the 32-bit npm build.

``PYTHONPATH=tools:host_sim:tests python -m bench.bench_crypto [message bytes]``. Times are of this machine; the ratios
are what counts. ``--count`` adds instruction counts of the Unix port from valgrind, which do not depend on the machine.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent / room) for room in ("tools", "host_sim", "tests")]

import mp32  # noqa: E402
from sekisho_tools import device_code  # noqa: E402

ROOMS = [device_code.BOOT, device_code.LIB, HERE]
OURS = {
    "verify_unknown_key": "textbook_verify",
    "verify_recent_key": "textbook_verify",
    "sign": "textbook_sign",
    "sha512_block": "textbook_sha512_block",
}
"""Our measurement: the textbook's."""


def _program(size: int, rounds: int = 5) -> str:
    return f"import crypto_device\nbench = crypto_device.Bench({size}, {rounds})\n"


def _unix() -> str:
    return shutil.which("micropython", path=str(Path(sys.executable).parent)) or "micropython"


def _figures(text: str) -> dict[str, float]:
    return {name: float(value) for name, value in (line.split() for line in text.splitlines())}


def on_unix(size: int, rounds: int = 5) -> dict[str, float]:
    """Microseconds by name on the Unix port, with a chip's heap of 160 KB (twice, as objects are twice the size)."""
    paths = [str(room) for room in ROOMS]
    program = f"import sys\nsys.path[:] = ['.frozen'] + {paths!r}\n{_program(size, rounds)}while bench.step(): pass\n"
    done = subprocess.run(
        [_unix(), "-X", "heapsize=320k", "-c", program], capture_output=True, text=True, check=True, timeout=600
    )
    return _figures(done.stdout)


def on_32_bits(size: int) -> dict[str, float]:
    """Microseconds by name on the npm build; it collects garbage only between steps, so its heap holds that of one."""
    return _figures(mp32.run(_program(size), ROOMS, heap=64 << 20, repeat="more = bench.step()"))


def counted(size: int) -> dict[str, float]:
    """Instructions by name on the Unix port under valgrind: those of two rounds of one call minus those of one."""
    paths = [str(room) for room in ROOMS]
    out = {}
    for name in ("textbook_verify", *OURS, "textbook_sign", "textbook_sha512_block"):
        counts = []
        for calls in (2, 6):
            program = (
                f"import sys\nsys.path[:] = ['.frozen'] + {paths!r}\n{_program(size)}"
                f"call = dict(bench.work)[{name!r}]()\nfor _ in range({calls}): call()\n"
            )
            command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", _unix(), "-X", "heapsize=320k"]
            done = subprocess.run([*command, "-c", program], capture_output=True, text=True, check=True, timeout=600)
            counts.append(int(done.stderr.split("Collected :")[1].split()[0]))
        out[name] = (counts[1] - counts[0]) / 4
    return out


def show(title: str, unit: str, figures: dict[str, float]) -> None:
    """Print one table: ours, the textbook's, how many times less."""
    print(f"\n{title}\n{'':22}{'ours':>14}{'textbook':>14}{'ratio':>8}   ({unit})")
    for ours, other in OURS.items():
        print(f"{ours:22}{figures[ours]:14,.0f}{figures[other]:14,.0f}{figures[other] / figures[ours]:8.2f}")
    print(f"sign / verify (unknown key): {figures['sign'] / figures['verify_unknown_key']:.2f}")


def main() -> int:
    """Measure and print."""
    sizes = [int(argument) for argument in sys.argv[1:] if argument.isdigit()] or [512]
    for size in sizes:
        show(f"Ed25519, message of {size} bytes, MicroPython Unix port", "microseconds", on_unix(size))
        why = mp32.missing()
        if why:
            print(f"\nnotice: no 32-bit figures: {why}")
        else:
            show(f"Ed25519, message of {size} bytes, 32-bit npm build", "microseconds", on_32_bits(size))
        if "--count" in sys.argv:
            show(f"Ed25519, message of {size} bytes, Unix port under valgrind", "instructions", counted(size))
    return 0


if __name__ == "__main__":
    sys.exit(main())
