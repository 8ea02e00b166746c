"""Prints what the engine costs and fails when it is over budget."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.table import Table
from sekisho_tools.measure import LINE_BUDGET, MPY_BUDGET, engine_size


def main() -> int:
    """Measure, print, compare."""
    sizes = engine_size()
    mpy, lines = sum(size.mpy for size in sizes), sum(size.lines for size in sizes)
    table = Table(title="boot/, the first update engine", title_justify="left")
    for heading in ("module", ".mpy bytes", "lines", "with code"):
        table.add_column(heading, justify="left" if heading == "module" else "right")
    for size in sizes:
        table.add_row(size.name, f"{size.mpy:,}", f"{size.lines:,}", f"{size.code:,}")
    table.add_section()
    table.add_row("all", f"{mpy:,}", f"{lines:,}", f"{sum(size.code for size in sizes):,}")
    table.add_row("budget", f"{MPY_BUDGET:,}", f"{LINE_BUDGET:,}", "")
    Console().print(table)
    if mpy > MPY_BUDGET or lines > LINE_BUDGET:
        print("error[BUDGET]: boot/ is over its budget.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
