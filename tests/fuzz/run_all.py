"""Fuzzes every parser for a bounded time, then replays what was found on MicroPython: ``run_all.py --seconds 60``.

``--seconds`` is the time for fuzzing, shared by all targets. The replay takes the inputs that reached new code and
mutations of them, and runs the device's targets with a heap of 100 KB; none may end in anything but a return or a
refusal, or take longer than the bound. The exit code is 0 only when nothing broke.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import fuzz

sys.path.insert(0, str(fuzz.ROOT / "tests"))

HEAP = 100
"""KiB of heap on MicroPython."""
HARNESS = {"boot": 36, "order": 120}
"""KiB on top for what a device has elsewhere: targets.mpy (20), the flash it boots from (up to 14), the input;
or loaded the module in pieces (orders)."""
BOUND_MS = 2000
"""Longest time one input may take on the Unix port: some hundred times what a real envelope takes."""
REPLAYED = 600
"""Inputs a target is replayed with."""


def fuzz_target(name: str, seconds: int) -> tuple[str, bool, str]:
    """Fuzz one target in a process of its own; (name, good, what happened)."""
    done = subprocess.run(
        [sys.executable, fuzz.HERE / "fuzz.py", name, "--seconds", str(seconds)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONHASHSEED": "0"},
        check=False,
    )
    output = done.stdout + done.stderr
    executions = re.search(r"number_of_executed_units: *(\d+)", output)
    if done.returncode == 0 and executions:
        return name, True, f"{int(executions[1]):,} inputs"
    return name, False, output[-3000:]


def mutate(data: bytes, chance: random.Random) -> bytes:
    """*data* with a few bytes changed, cut out, doubled or cut off."""
    out = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        if not out:
            return bytes((chance.randrange(256),))
        place = chance.randrange(len(out))
        what = chance.randrange(5)
        if what == 0:
            out[place] ^= 1 << chance.randrange(8)
        elif what == 1:
            out[place] = chance.choice(
                (0, 1, 0x17, 0x18, 0x1B, 0x5B, 0x7F, 0x80, 0x9B, 0xBB, 0xFF, chance.randrange(256))
            )
        elif what == 2:
            del out[place : place + chance.randint(1, 8)]
        elif what == 3:
            out[place:place] = out[place : place + chance.randint(1, 16)]
        else:
            del out[place:]
    return bytes(out)


def inputs(name: str) -> list[bytes]:
    """What a target is replayed with: the corpus, the smallest first, and mutations of it."""
    chance = random.Random(name)
    corpus = sorted((path.read_bytes() for path in (fuzz.CORPUS / name).glob("*")), key=lambda data: (len(data), data))
    if len(corpus) > REPLAYED // 2:
        corpus = chance.sample(corpus, REPLAYED // 2)
    limit = fuzz.MAX_LENGTH.get(name, 4200)
    return (corpus + [mutate(chance.choice(corpus or [b""]), chance) for _ in range(REPLAYED - len(corpus))])[
        :REPLAYED
    ] + [bytes(chance.randrange(256) for _ in range(min(limit, 600))) for _ in range(5)]


def replay(names: list[str]) -> tuple[bool, str]:
    """Run the device's targets on MicroPython; (good, last line or the failures)."""
    from helpers import micropython
    from sekisho_tools.measure import compile_module

    build = micropython.compiled()
    compile_module(fuzz.HERE / "targets.py", build / "targets.mpy")
    good, lines = True, []
    for name in names:
        file = fuzz.CORPUS / f"{name}.inputs"
        with file.open("wb") as out:
            for data in inputs(name):
                out.write(bytes((len(name),)) + name.encode() + len(data).to_bytes(4, "big") + data)
        done = subprocess.run(
            [
                micropython.executable(),
                "-X",
                f"heapsize={HEAP + HARNESS.get(name, 0)}k",
                fuzz.HERE / "replay.py",
                build,
                file,
                str(BOUND_MS),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        good &= done.returncode == 0
        output = (done.stdout + done.stderr).strip().splitlines()
        lines += [f"  {name:15} {output[-1] if output else 'no output'}"]
        lines += [f"    {line}" for line in output[:-1][:10]]
    return good, "\n".join(lines)


def main() -> int:
    """Fuzz and replay; the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=int, default=60, help="time for fuzzing, shared by all targets")
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time")
    options = parser.parse_args()

    import sekisho_tools.device_code
    import targets

    assert sekisho_tools.device_code.BOOT
    names = [*targets.TARGETS, *fuzz.DESK_TARGETS]
    seconds = max(1, options.seconds * options.jobs // len(names))
    with ThreadPoolExecutor(options.jobs) as pool:
        results = list(pool.map(lambda name: fuzz_target(name, seconds), names))
    print(f"fuzzed {len(names)} targets for {seconds} s each:")
    for name, _, what in results:
        print(f"  {name:15} {what}")
    good, table = replay(list(targets.TARGETS))
    print(f"replayed on MicroPython with a heap of {HEAP} KiB, bound {BOUND_MS} ms:")
    print(table)
    return 0 if good and all(result[1] for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
