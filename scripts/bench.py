"""Prints what the engine costs, beside its budgets and the figures last recorded.

    python scripts/bench.py             prints; a figure that is over its budget is said to be
    python scripts/bench.py --check     the same, and fails when a figure is worse than the recorded one (CI)
    python scripts/bench.py --record    writes the figures to docs/evidence/bench.json

Half a minute. Heap is measured with the 64-bit MicroPython of the simulator, whose objects are twice a chip's, against
twice the chip's budget. Instructions are those of the Unix port under valgrind; without it they are left out.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table
from sekisho_sim.flash import ERASE, SECTOR, Flash, MemPart
from sekisho_tools import cli, demo, device_code, layout
from sekisho_tools.errors import ToolError
from sekisho_tools.measure import LINE_BUDGET, MPY_BUDGET, engine_size

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(device_code.BOOT)]

from helpers import engine_run  # noqa: E402
from sekisho_boot import ledger  # noqa: E402

RECORDED = ROOT / "docs" / "evidence" / "bench.json"
HEAP_BUDGET = 2 * 24 * 1024
TOLERANCE = {"heap": 1.25, "boot": 1.15, "bodies": 1.15}
"""A figure may be this much over the recorded one before it counts as worse; heap is found by trying and strays."""
OTHERS = 1.03
"""The same for the other figures."""
YEAR = 365
ENDURANCE = 100_000
"""Erases that a sector is specified for (W25Q and similar; design of the flash model)."""

FIGURES = {
    "mpy": (".mpy bytes of boot/", MPY_BUDGET),
    "lines": ("lines of boot/", LINE_BUDGET),
    "code_lines": ("of them with code", None),
    "heap": ("heap of verify and swap, above imports", HEAP_BUDGET),
    "erases": ("sector erases of one update", None),
    "programs": ("flash programs of one update", None),
    "programmed": ("bytes programmed in one update", None),
    "fetched": ("bytes fetched", None),
    "boot": ("instructions of the engine at a start with nothing to do", None),
    "bodies": ("instructions of its modules' bodies, once a start", None),
    "hash": ("instructions to hash 64 KiB of application image", None),
}

# The model of a chip, for what an idle start costs there. An ESP32-S3 takes 635 ms from reset to main.py (47 to
# app_main, 217 to verify the image, the rest MicroPython and its file system): measured by the author of
# github.com/glenn20/upy-esp32-experiments, OptimisingMicropythonBootTime. MicroPython's default clock is 160 MHz, at
# somewhat under one instruction a cycle. What an instruction of the Unix port is worth there: a pass of an empty loop
# takes 50 on the ESP32 and 251 here, `x + p` of 255 bits 600 and 1,525, `x & p` 1,100 and 1,380.
CHIP_BOOT = 0.635
CHIP_CLOCK = 160e6
WORTH = (0.2, 0.4, 0.8)
BOOT_BUDGET = 0.03


def modules() -> Table:
    """The engine's modules, one by one."""
    table = Table("module", ".mpy bytes", "lines", "with code", title="boot/, module by module", title_justify="left")
    for size in engine_size():
        table.add_row(size.name, f"{size.mpy:,}", f"{size.lines:,}", f"{size.code:,}")
    return table


def instructions(confirmed: bytes, config: str) -> dict[str, int]:
    """What a start costs in instructions of the Unix port; nothing where there is no valgrind."""
    if not engine_run.can_count():
        return {}
    with tempfile.TemporaryDirectory() as directory:
        bench = engine_run.Bench(Path(directory), confirmed, layout.load("4MiB"), config, running=1)

        def count(what: str, heap: str = "4m") -> int:
            return bench.run(what, heap, count=True).instructions

        like_a_chip = "320k"  # 160 KB of objects of half the size; collecting garbage there is part of a start

        start = count("start")
        return {
            "boot": count("boot", like_a_chip) - count("start", like_a_chip),
            "bodies": (count("bodies6") - count("bodies1")) // 5,
            "hash": (count("hash") - start) // 2,
        }


def wear(stage: demo.Stage) -> Table:
    """Erases of one update by sector, and how many years of one update a day the sector lasts."""
    table = Table("sectors", "erases of one update", "years at one a day", title="Wear", title_justify="left")
    parts = layout.load("4MiB")
    start = parts["sekisho"].offset
    records = len([op for op in stage.seen.ops if op.kind != ERASE and start <= op.address < start + SECTOR])
    flash = Flash(bytearray(stage.confirmed))
    book = ledger.Ledger(MemPart(parts["sekisho"].size, flash, start))
    room = ledger._SLOTS - ledger._RESERVE - len(book.state.snapshot()) - 2
    table.add_row(
        f"sekisho 0, 1 (ledger: {records} records an update, {room} between two rewritings)",
        f"{records / room:.2f}",
        f"{ENDURANCE * room // records // YEAR:,}",
    )
    for label in ("otadata", "sekisho", "ota_1"):
        part = parts[label]
        counts: dict[int, int] = {}
        for op in stage.seen.ops:
            if op.kind == ERASE and part.offset <= op.address < part.end:
                at = (op.address - part.offset) // SECTOR
                counts[at] = counts.get(at, 0) + 1
        if label == "ota_1":
            most = max(counts.values())
            table.add_row(f"{label}, the busiest of {len(counts)}", str(most), f"{ENDURANCE // most // YEAR:,}")
        else:
            for at, number in sorted(counts.items()):
                table.add_row(f"{label} {at}", str(number), f"{ENDURANCE // number // YEAR:,}")
    return table


def boot_lines(cost: dict[str, int]) -> list[str]:
    """What an idle start costs on a chip, by the model above."""
    if "boot" not in cost:
        return ["notice: no valgrind here, so the cost of a start is not measured."]
    total = cost["boot"] + cost["bodies"]
    times = [1000 * total / CHIP_CLOCK * worth for worth in WORTH]
    shares = [f"{time / 10 / CHIP_BOOT:.1f}" for time in times]
    spread = ", ".join(f"{time:.0f} ms ({share} %)" for time, share in zip(times, shares, strict=True))
    return [
        f"A start with nothing to do costs {total:,} instructions of the Unix port (engine {cost['boot']:,}, bodies of "
        f"its modules {cost['bodies']:,}), and {cost['hash']:,} for each 64 KiB of application image.",
        f"As a model of a chip at {CHIP_CLOCK / 1e6:.0f} MHz, where an instruction here is worth {WORTH[0]}, "
        f"{WORTH[1]} or {WORTH[2]}: {spread} of the {1000 * CHIP_BOOT:.0f} ms from reset to main.py; the budget is "
        f"{100 * BOOT_BUDGET:.0f} %. Not measured on a board.",
    ]


def over_budget(cost: dict[str, int]) -> list[str]:
    """A sentence for each figure that is over its budget."""
    return [
        f"{words}: {cost[name]:,} of {budget:,}, {100 * cost[name] // budget - 100} % over"
        for name, (words, budget) in FIGURES.items()
        if budget is not None and cost.get(name, 0) > budget
    ]


def worse(cost: dict[str, int], recorded: dict[str, int]) -> list[str]:
    """A sentence for each figure that is worse than the recorded one by more than is tolerated."""
    return [
        f"{words}: {cost[name]:,}; recorded were {recorded[name]:,}, and "
        f"{TOLERANCE.get(name, OTHERS) - 1:.0%} more is tolerated"
        for name, (words, _) in FIGURES.items()
        if name in cost and name in recorded and cost[name] > recorded[name] * TOLERANCE.get(name, OTHERS)
    ]


def main() -> int:
    """Measure, print, compare or record."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 132)
    try:
        with demo.stage_of(Console(quiet=True)) as (stage_demo, stage):
            figures = dataclasses.asdict(demo.figures(stage_demo, stage))
            config = (stage_demo.directory / "sekisho_config.py").read_text()
    except ToolError as error:
        cli.show_error(error)
        return 1
    cost: dict[str, int] = {**figures, **instructions(stage.confirmed, config)}
    recorded = json.loads(RECORDED.read_text()) if RECORDED.exists() else {}
    table = Table("figure", "now", "recorded", "budget", title="One update, and the engine", title_justify="left")
    for name, (words, budget) in FIGURES.items():
        now, before = cost.get(name), recorded.get(name)
        table.add_row(words, *(f"{value:,}" if value is not None else "-" for value in (now, before, budget)))
    console.print(modules())
    console.print(table)
    console.print(wear(stage))
    console.print(
        f"The least an update of {cost['image']:,} bytes can do is {-(-cost['image'] // SECTOR)} erases and that many "
        f"bytes programmed; the rest are the holding sector, records and otadata."
    )
    for line in boot_lines(cost):
        console.print(line)
    for sentence in over_budget(cost):
        console.print(f"over budget (docs/decisions/0008-engine-size.md): {sentence}.")
    if "--record" in sys.argv:
        RECORDED.parent.mkdir(parents=True, exist_ok=True)
        RECORDED.write_text(json.dumps(cost, indent=1) + "\n")
        console.print(f"wrote {RECORDED.relative_to(Path.cwd())}")
    elif "--check" in sys.argv:
        found = worse(cost, recorded)
        for sentence in found:
            print(f"error[BENCH]: {sentence}.", file=sys.stderr)
        return 1 if found else 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
