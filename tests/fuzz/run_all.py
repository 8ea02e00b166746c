"""Fuzzes every parser for a bounded time, then replays what was found on MicroPython: ``run_all.py --seconds 60``.

``--seconds`` is the time for fuzzing, shared by all targets. The replay takes the inputs that reached new code and
mutations of them, and runs the device's targets with a heap of 100 KB; none may end in anything but a return or a
refusal, or take longer than the bound. With ``--evidence FOLDER`` fuzz.md and fuzz.json there say what was run, and for
which boot/. The exit code is 0 only when nothing broke.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import fuzz

sys.path.insert(0, str(fuzz.ROOT / "tests"))

HEAP = 100
"""KiB of heap on MicroPython."""
HARNESS = {"boot": 36, "order": 8}
"""KiB on top, for what is on the heap of no device: targets.mpy, which takes 21 everywhere, and for `boot` up to 14 of
flash that it boots from. Orders and what they load take 71 here; an order of 4 KiB is beside that and its copy."""
BOUND_MS = 2000
"""Longest time one input may take on the Unix port: some hundred times what a real envelope takes."""
REPLAYED = 600
"""Inputs a target is replayed with."""


@dataclass
class Row:
    """What became of one target."""

    target: str
    inputs: int = 0
    """What fuzzing tried."""
    replayed: int = 0
    """Inputs on MicroPython, 0 for targets of the desk."""
    heap: int = 0
    """KiB on MicroPython."""
    slowest: int = 0
    """ms on MicroPython."""
    failures: tuple[str, ...] = ()


def fuzz_target(name: str, seconds: int) -> Row:
    """Fuzz one target in a process of its own."""
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
        return Row(name, int(executions[1]))
    return Row(name, failures=(output[-3000:],))


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


def replay(rows: list[Row]) -> None:
    """Run the targets of *rows* on MicroPython, and note there what became of them."""
    from helpers import micropython
    from sekisho_tools.measure import compile_module

    build = micropython.compiled()
    compile_module(fuzz.HERE / "targets.py", build / "targets.mpy")
    for row in rows:
        name, row.heap = row.target, HEAP + HARNESS.get(row.target, 0)
        file = fuzz.CORPUS / f"{name}.inputs"
        with file.open("wb") as out:
            for data in inputs(name):
                out.write(bytes((len(name),)) + name.encode() + len(data).to_bytes(4, "big") + data)
        done = subprocess.run(
            [
                micropython.executable(),
                "-X",
                f"heapsize={row.heap}k",
                fuzz.HERE / "replay.py",
                build,
                file,
                str(BOUND_MS),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        output = (done.stdout + done.stderr).strip()
        end = re.search(r"^(\d+) inputs, (\d+) failures, slowest (\d+) ms$", output, re.MULTILINE)
        if end:
            row.replayed, row.slowest = int(end[1]), int(end[3])
        if done.returncode or not end or int(end[2]):
            row.failures += (f"on MicroPython: {output[-3000:]}",)


def show(rows: list[Row]) -> str:
    """What was run, as a table."""
    lines = ["| target | inputs | on MicroPython | heap (KiB) | slowest (ms) |", "|---|---:|---:|---:|---:|"]
    for row in rows:
        device = (f"{row.replayed}", f"{row.heap}", f"{row.slowest}") if row.heap else ("-", "-", "-")
        lines.append(f"| {row.target} | {row.inputs:,} | {' | '.join(device)} |")
    lines += [f"\n**{row.target}** broke:\n\n```\n{failure}\n```" for row in rows for failure in row.failures]
    return "\n".join(lines)


def page(record: dict[str, Any], rows: list[Row]) -> str:
    """The page in docs/evidence."""
    broken = sum(bool(row.failures) for row in rows)
    tried, replayed = sum(row.inputs for row in rows), sum(row.replayed for row in rows)
    return f"""# Fuzzing

Written by `make fuzz`; do not edit. Recorded for boot/ {record["boot"][:16]}, commit {record["commit"]}.

Coverage-guided (atheris) on CPython, {record["seconds_each"]} seconds a target, {record["processes"]} at a time,
from seeds that the tools make and {record["vectors"]} vectors of the reference material. Then inputs that reached new
code, and mutations of them, run on MicroPython, with the modules as `.mpy` files on a heap of {HEAP} KiB; where it is
more, that is what the test itself needs (`tests/fuzz/run_all.py`). No input may end in anything but a return or a
refusal, or take longer than {BOUND_MS} ms. Targets without a heap run on the desk alone.

**{len(rows)} targets, {tried:,} inputs, {replayed:,} on MicroPython, {broken} broke**; {record["seconds"]} seconds.

{show(rows)}
"""


def write(folder: Path, record: dict[str, Any], rows: list[Row]) -> None:
    """fuzz.md and fuzz.json."""
    from sekisho_tools.files import write_atomic

    content = {**record, "rows": [asdict(row) for row in rows]}
    write_atomic(folder / "fuzz.json", (json.dumps(content, indent=1) + "\n").encode())
    write_atomic(folder / "fuzz.md", page(record, rows).encode())


def count_vectors() -> int:
    """Published vectors among the seeds."""
    import seeds

    return len(seeds.vectors())


def main() -> int:
    """Fuzz and replay; the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=int, default=60, help="time for fuzzing, shared by all targets")
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time")
    parser.add_argument("--evidence", type=Path, help="folder for fuzz.md and fuzz.json")
    options = parser.parse_args()

    import sekisho_tools.device_code
    import targets

    start = time.monotonic()
    vectors = count_vectors()
    if not vectors:
        print("notice: the reference material is missing, so no published vector is among the seeds", file=sys.stderr)
    names = [*targets.TARGETS, *fuzz.DESK_TARGETS]
    seconds = max(1, options.seconds * options.jobs // len(names))
    with ThreadPoolExecutor(options.jobs) as pool:
        rows = list(pool.map(lambda name: fuzz_target(name, seconds), names))
    replay([row for row in rows if row.target in targets.TARGETS])
    print(f"{len(names)} targets for {seconds} s each, then on MicroPython, bound {BOUND_MS} ms:")
    print(show(rows))
    if options.evidence:
        commit = subprocess.run(
            ["git", "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, cwd=fuzz.ROOT, check=False
        ).stdout.strip()
        record = {
            "boot": sekisho_tools.device_code.boot_digest(),
            "commit": commit,
            "seconds": round(time.monotonic() - start),
            "seconds_each": seconds,
            "processes": options.jobs,
            "vectors": vectors,
            "bound_ms": BOUND_MS,
        }
        write(options.evidence, record, rows)
    return 1 if any(row.failures for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
