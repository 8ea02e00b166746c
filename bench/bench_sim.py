"""How many power-ups of a simulated device fit in a minute, and what one costs.

    PYTHONPATH=tools:host_sim:tests python bench/bench_sim.py [--boots N] [--workers N]

Each power-up is a fresh MicroPython process: bootloader model, engine from frozen modules, then rest. Warm starts share
what happens before the device first touches its world (`sekisho_sim.driver.ForkDriver`). The flash is a
small one (app images of 20 KB), so that the figures are about the machinery and not about hashing.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
import time
from pathlib import Path

import sekisho_tools.device_code  # noqa: F401
from helpers import on_device, release
from helpers.desk import CLASS, VENDOR, Desk, firmware
from rich.console import Console
from rich.table import Table
from sekisho_sim.device import Machine
from sekisho_sim.driver import ForkDriver, ProcessDriver

ENGINE = """
import sys
sys.path[:] = [".frozen"]
import sekisho_config
from sekisho_boot import engine, port
engine.boot(port.Port(sekisho_config))
"""
COLD, WARM, PLAIN = "cold", "warm", "plain"
CASES = {
    "interpreter and shims": ("import sys\n", COLD),
    "engine, nothing to do": (ENGINE, COLD),
    "engine, warm starts": (ENGINE, WARM),
    "engine, plain process": (ENGINE, PLAIN),
}


def measure(case: str, boots: int) -> tuple[float, float]:
    """(seconds, device processor seconds) of *boots* power-ups in this process."""
    code, kind = CASES[case]
    old = firmware("old")
    desk = Desk()
    desk.factory(release.make(1, {0: old}, vendor=VENDOR, product=CLASS), old)
    if kind == PLAIN:
        driver: ForkDriver | ProcessDriver = ProcessDriver(os.environ.get("SEKISHO_MICROPYTHON", "micropython"))
    else:
        driver = ForkDriver(warm=kind == WARM)
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory, Machine(driver) as machine:
        world = on_device.world(Path(directory), desk, {old: code}, volatile=True)
        for _ in range(3):  # the first two ask the bootloader whether it knows rollback
            result = machine.run(world)
        assert (result.cause, result.ops, result.console) == ("idle", [], ""), result
        start, used = time.perf_counter(), getattr(driver, "cpu", 0.0)
        for _ in range(boots):
            machine.run(world)
        return time.perf_counter() - start, getattr(driver, "cpu", 0.0) - used


def main() -> None:
    """Measure every case, with one worker and with several, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--boots", type=int, default=300, help="power-ups for each figure")
    parser.add_argument("--workers", type=int, default=2, help="processes side by side")
    options = parser.parse_args()
    table = Table("case", "ms each", "device CPU ms", "a minute, 1 worker", f"a minute, {options.workers} workers")
    with multiprocessing.get_context("spawn").Pool(options.workers) as pool:
        for case, (_, kind) in CASES.items():
            boots = max(5, options.boots // 20) if kind == PLAIN else options.boots
            seconds, used = pool.apply(measure, (case, boots))
            several = max(s for s, _ in pool.starmap(measure, [(case, boots)] * options.workers))
            table.add_row(
                case,
                f"{1000 * seconds / boots:.2f}",
                f"{1000 * used / boots:.2f}" if used else "",
                f"{60 * boots / seconds:,.0f}",
                f"{60 * boots * options.workers / several:,.0f}",
            )
    Console().print(table)


if __name__ == "__main__":
    main()
