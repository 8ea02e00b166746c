"""Try an application before it goes onto a chip: python try_it.py flash.bin sekisho_config.py lamp.py "lamp on".

flash.bin is what `sekisho image build` wrote, sekisho_config.py the configuration that it left beside it. The device is
switched on until it has printed the text; what it printed is shown. In a test, call `run` and look at the result.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from sekisho_sim.device import Limits, RunResult, power_cycle
from sekisho_sim.personality import Personalities, Personality
from sekisho_sim.world import World


def run(flash: bytes, config: str, application: str, until: str, seconds: float = 60.0) -> list[RunResult]:
    """Every power-up until *until* was printed. A MicroPython process with the heap of a chip runs the application."""
    firmware = Personality("mine").with_modules(sekisho_config=config, application=application)
    with tempfile.TemporaryDirectory() as folder:
        world = World.create(Path(folder) / "device", flash, personalities=Personalities(firmware))
        return list(power_cycle(world, limits=Limits(seconds, until)))


if __name__ == "__main__":
    image, config, source, text = sys.argv[1:]
    results = run(Path(image).read_bytes(), Path(config).read_text(), Path(source).read_text(), text)
    print("".join(result.console for result in results))
    sys.exit(results[-1].cause != "until")
