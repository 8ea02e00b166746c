"""Cuts the power of a simulated device at every flash state that one of its actions goes through."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from sekisho_sim.device import Limits, RunResult, machine
from sekisho_sim.flash import cut_states
from sekisho_sim.world import World

from helpers.site import Product, firmware

SOON = Limits(seconds=20)


def settle(world: World) -> None:
    """The first starts with their own flash operations (the bootloader is probed) are over after this."""
    for _ in range(4):
        if machine().run(world, limits=SOON).cause not in ("reset",):
            return
    raise AssertionError("the device does not come to rest")


def states(world: World, *, skip: Callable[[bytes], bool] | None = None) -> Iterator[tuple[str, bytes]]:
    """Every flash that a cut during the next power-up of *world* can leave: (id, bytes)."""
    base = world.flash_path.read_bytes()
    result = machine().run(world, limits=SOON)
    assert result.ops, "nothing was written:\n" + result.console
    yield from cut_states(base, result.ops)


def start(world: World, flash: bytes) -> RunResult:
    """One power-up of *world* from these bytes."""
    world.flash_path.write_bytes(flash)
    return machine().run(world, limits=SOON)


def consoles(product: Product, main: str, *, of: int, before: str = "print('idle')") -> Iterator[tuple[str, str]]:
    """What *main* prints at a start after a cut in its first run, for some *of* of the cuts, the last one included.

    The device ran *before* until it came to rest, so that all that is cut is what *main* does: (case id, console).
    """
    product.personalities.default = product.personality(main=before)
    world = product.factory(firmware("old", 20_000))
    settle(world)
    product.personalities.default = product.personality(main=main)
    cases = list(states(world))
    assert len(cases) > 60, "there is little to cut"
    for name, flash in cases[:: max(1, len(cases) // of)] + [cases[-1]]:
        yield name, start(world, flash).console


__all__ = ["consoles", "settle", "start", "states"]
