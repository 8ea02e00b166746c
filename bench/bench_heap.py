"""Prints the heap that the update agent takes beyond the level after imports, against its goal; exit code 1 over it.

One whole update by hawkBit's device API with three key sets is done in less and less heap, on the 64-bit MicroPython of
the simulator, whose objects take twice the room they take on a chip. Besides it, what the group lock keeps while it
waits. TLS buffers are ESP-IDF's on a chip, and not in here.
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / room) for room in ("tests", "tools", "host_sim")]

from sekisho_tools import device_code  # noqa: E402  (makes the device packages importable)

assert device_code

import ddi_server  # noqa: E402
import test_ddi_agent as agent  # noqa: E402
from helpers import micropython  # noqa: E402

GOAL = 40
"""KB beyond the imports."""
GROUP = """
import gc
from binascii import hexlify
from sekisho import peer
options = {"peers": ["ab" * 16 + "@127.0.0.1"], "peer_port": 0, "peer_key": "0123456789abcdef"}
gc.collect(); before = gc.mem_alloc()
group = peer.Group(options, bytes(16), bool)
gc.collect(); print(gc.mem_alloc() - before)
"""


def enough(room: int) -> bool:
    """Whether *room* KB beyond the imports are enough for an update."""
    with (
        TemporaryDirectory() as folder,
        ddi_server.DdiServer(agent.PAYLOAD, agent.RELEASES, agent.KEY_SETS) as server,
    ):
        program = f"from device import ddi_memory; ddi_memory.main({server.url!r}, {folder!r}, {room << 10})"
        try:
            return micropython.run(program, heap="400k").strip() == "True"
        except AssertionError:  # no memory even to report it
            return False


def main() -> int:
    """Measure and print."""
    least, most = 4, GOAL
    if not enough(most):
        print(f"update by DDI: more than the goal of {GOAL} KB")
        return 1
    while most - least > 1:
        middle = (least + most) // 2
        least, most = (least, middle) if enough(middle) else (middle, most)
    print(f"update by DDI, beyond the imports: {most} KB (goal {GOAL} KB)")
    print(f"group lock, while it waits: {int(micropython.run(GROUP)) / 1024:.1f} KB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
