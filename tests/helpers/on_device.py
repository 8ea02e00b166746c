"""The engine in its real place: frozen into a simulated device, on the flash of a `Desk`.

`tests/helpers/desk.py` asks the engine many questions inside one process; here the same flash runs in MicroPython, with
a heap, resets and power cuts. The firmware is the engine and a `_boot.py` of a few lines; what the new image does after
the engine is up to the test.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from sekisho_sim.personality import Personalities, Personality, default_sources
from sekisho_sim.world import World

from helpers.desk import Desk

BOOT = """
import sys
sys.path[:] = [".frozen"]
import gc
gc.threshold(4096)  # importing makes much garbage between what stays: a small heap would fall to pieces
import sekisho_config
from sekisho_boot import engine, port
p = port.Port(sekisho_config)
decision = engine.boot(p)
e = engine.Engine(p)
status = e.status()
print("fw", status["running"], "trial" if decision.trial else "steady", status["counters"], status["last"][0])
"""
"""A boot stage: the engine, then one line that says what runs."""

CONFIRM = (
    BOOT
    + """
if decision.trial:
    print("confirm", e.confirm())
"""
)
UNHEALTHY = (
    BOOT
    + """
if decision.trial:
    from sekisho_boot.reasons import HEALTH
    e.fail(HEALTH)
"""
)
HANGS = (
    BOOT
    + """
while decision.trial:
    pass
"""
)
THROWS = """
raise ValueError("this image is broken")
"""


def config_source(desk: Desk) -> str:
    """The text of `sekisho_config` for the devices of *desk*."""
    return "".join(f"{name} = {value!r}\n" for name, value in vars(desk.config).items())


def personality(desk: Desk, boot: str = BOOT, name: str = "engine", **options: Any) -> Personality:
    """The engine and *boot*, frozen."""
    engine = {path: text for path, text in default_sources().items() if path.startswith("sekisho_boot/")}
    modules = {**engine, "_boot.py": boot, "sekisho_config.py": config_source(desk)}
    return Personality(name, default=False, modules=modules, **options)


def world(directory: Path, desk: Desk, images: dict[bytes, str] | None = None, **options: Any) -> World:
    """A device with the flash of *desk*; *images*: app image -> its `_boot.py`, every other image runs `BOOT`."""
    table = {
        hashlib.sha256(image).hexdigest(): personality(desk, boot, f"image-{number}")
        for number, (image, boot) in enumerate((images or {}).items())
    }
    return World.create(directory, desk.snapshot(), personalities=Personalities(personality(desk), table), **options)
