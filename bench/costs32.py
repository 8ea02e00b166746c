"""Where the time of a verification goes on the 32-bit npm build, and what single operations cost there.

``PYTHONPATH=tools:host_sim:tests python -m bench.costs32 [message bytes]``: the figures behind what docs/crypto.md says
about that build. Operations are net of the loop around them; the shares are what carries over to other machines.
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent / room) for room in ("tools", "host_sim", "tests")]

import mp32  # noqa: E402
from sekisho_tools import device_code  # noqa: E402


def measure(size: int, rounds: int = 15) -> dict[str, dict[str, float]]:
    """Microseconds by kind (op, part) and name."""
    program = f"import costs_device\ncosts = costs_device.Costs({size}, {rounds})\n"
    text = mp32.run(program, [device_code.BOOT, device_code.LIB, HERE], heap=64 << 20, repeat="more = costs.step()")
    out: dict[str, dict[str, float]] = {"op": {}, "part": {}}
    for kind, name, value in (line.split() for line in text.splitlines()):
        out[kind][name.replace("_", " ")] = float(value)
    return out


def main() -> int:
    """Measure and print."""
    why = mp32.missing()
    if why:
        print(f"notice: {why}")
        return 0
    figures = measure(int(sys.argv[1]) if len(sys.argv) > 1 else 512)
    empty = figures["op"].pop("nothing")
    print(f"{'one operation, net':32}{'ns':>9}")
    for name, value in figures["op"].items():
        print(f"{name:32}{(value - empty) * 1000:9,.0f}")
    whole = figures["part"]["verification by an unknown key"]
    print(f"\n{'one verification':32}{'us':>9}{'share':>9}")
    for name, value in figures["part"].items():
        print(f"{name:32}{value:9,.0f}{value / whole:8.0%}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
