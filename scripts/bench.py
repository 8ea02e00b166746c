"""Prints what the engine costs, beside its budgets and the figures last recorded; fails when it is over or grew.

`make bench` compares; ``--record`` writes the figures to docs/evidence/bench.json. Heap is measured with the 64-bit
MicroPython of the simulator, whose objects are twice a chip's, against twice the chip's budget.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table
from sekisho_sim.flash import SECTOR
from sekisho_tools import cli, demo
from sekisho_tools.errors import ToolError
from sekisho_tools.measure import LINE_BUDGET, MPY_BUDGET, engine_size

RECORDED = Path(__file__).parents[1] / "docs" / "evidence" / "bench.json"
HEAP_BUDGET = 2 * 24 * 1024
GROWTH = 1.05
"""A figure may be this much over the recorded one before it counts as grown."""

FIGURES = {
    "mpy": (".mpy bytes of boot/", MPY_BUDGET),
    "lines": ("lines of boot/", LINE_BUDGET),
    "code_lines": ("of them with code", None),
    "heap": ("heap of verify and swap, above imports", HEAP_BUDGET),
    "erases": ("sector erases of one update", None),
    "programs": ("flash programs of one update", None),
    "programmed": ("bytes programmed in one update", None),
    "fetched": ("bytes fetched", None),
}


def modules() -> Table:
    """The engine's modules, one by one."""
    table = Table("module", ".mpy bytes", "lines", "with code", title="boot/, module by module", title_justify="left")
    for size in engine_size():
        table.add_row(size.name, f"{size.mpy:,}", f"{size.lines:,}", f"{size.code:,}")
    return table


def main() -> int:
    """Measure, print, compare or record."""
    console = Console(highlight=False)
    try:
        with demo.stage_of(Console(quiet=True)) as (stage_demo, stage):
            cost = dataclasses.asdict(demo.figures(stage_demo, stage))
    except ToolError as error:
        cli.show_error(error)
        return 1
    recorded = json.loads(RECORDED.read_text()) if RECORDED.exists() else {}
    bad = []
    table = Table("figure", "now", "recorded", "budget", title="One update, and the engine", title_justify="left")
    for name, (words, budget) in FIGURES.items():
        now, before = cost[name], recorded.get(name)
        table.add_row(words, *(f"{value:,}" if value is not None else "-" for value in (now, before, budget)))
        if budget is not None and now > budget:
            bad.append(f"{words}: {now:,} of {budget:,}")
        if before is not None and now > before * GROWTH and "--record" not in sys.argv:
            bad.append(f"{words} grew from {before:,} to {now:,}")
    console.print(modules())
    console.print(table)
    console.print(
        f"The least an update of {cost['image']:,} bytes can do is {-(-cost['image'] // SECTOR)} erases and that many "
        f"bytes programmed; the rest are the holding sector, records and otadata."
    )
    if "--record" in sys.argv:
        RECORDED.parent.mkdir(parents=True, exist_ok=True)
        RECORDED.write_text(json.dumps(cost, indent=1) + "\n")
        console.print(f"wrote {RECORDED.relative_to(Path.cwd())}")
    for sentence in bad:
        print(f"error[BUDGET]: {sentence}.", file=sys.stderr)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
