"""A simulated device whose firmware is a few lines of Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sekisho_sim.device import Limits, RunResult, machine, power_cycle
from sekisho_sim.flash import Flash
from sekisho_sim.personality import FROZEN, Personalities, Personality
from sekisho_sim.world import World

from .images import app, flash_with

SOON = Limits(seconds=10)


class Bench:
    """Makes devices in *directory* and runs them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.made = 0

    def world(
        self,
        main: str = "",
        *,
        boot: str = "",
        flash: Flash | bytes | None = None,
        start: str = FROZEN,
        modules: dict[str, str] | None = None,
        **options: Any,
    ) -> World:
        """A device with one firmware: frozen *boot* (`_boot.py`), *main* (`main.py`) and other *modules*."""
        scripts = {name: text for name, text in (("_boot.py", boot), ("main.py", main)) if text}
        personality = Personality("test", default=False, start=start, modules={**scripts, **(modules or {})})
        if flash is None:
            flash = flash_with({"ota_0": app(), "ota_1": app("another")})
        self.made += 1
        return World.create(
            self.directory / str(self.made),
            bytes(flash.buffer) if isinstance(flash, Flash) else flash,
            personalities=options.pop("personalities", None) or Personalities(personality),
            **options,
        )

    def run(self, main: str, **options: Any) -> RunResult:
        """One power-up of a new device that runs *main*."""
        return machine().run(self.world(main, **options), limits=SOON)

    def printed(self, main: str, **options: Any) -> list[str]:
        """The lines that *main* prints."""
        return self.run(main, **options).console.splitlines()


def boots(world: World, max_boots: int = 10, **options: Any) -> list[RunResult]:
    """Power-ups of *world* until it rests."""
    return list(power_cycle(world, max_boots=max_boots, limits=SOON, **options))


def causes(results: list[RunResult]) -> list[str]:
    """Why each power-up ended."""
    return [result.cause for result in results]
