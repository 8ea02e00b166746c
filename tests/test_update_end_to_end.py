"""A whole update on a simulated device: flash image, frozen firmware, Wi-Fi, static server, engine, trial and its end.

The firmware is this repository's own (boot/, lib/, firmware/), frozen; the new image is the same with one behaviour of
`sekisho_sim.personality.BEHAVIOURS` laid over it. Device time runs fast, so that a trial of minutes takes a second.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import UUID

import pytest
from helpers import images, keys, releases
from helpers.desk import firmware
from sekisho_sim.device import Limits, RunResult, machine, power_cycle
from sekisho_sim.personality import Personalities, Personality, behaviour
from sekisho_sim.world import Network, World
from sekisho_tools import config, flashimage, imagefile, layout
from sekisho_tools.identity import Identity
from sekisho_tools.imagefile import CHIPS
from sekisho_tools.publish import publish
from sekisho_tools.serve import StaticServer

VENDOR, CLASS = "example.com", "lamp"
IDENTITY = Identity.of(VENDOR, CLASS)
KEYSET = keys.make_keyset()
SIGNER = keys.signer("release", 0)
OLD, NEW = firmware("old"), firmware("new", 48_000)
WATCH = Limits(seconds=30, until=None)


@dataclass
class Scene:
    """A device with `OLD` and a server that offers `NEW`."""

    directory: Path
    url: str
    served: Path

    def world(self, new: Personality, speed: int = 20) -> World:
        """The device, switched off; *new* is what the new image does."""
        device = config.make(VENDOR, [CLASS], KEYSET.document, "esp32", trial_seconds=60)
        settings = {"server": self.url, "wifi": [["sekisho", "sekisho-lab"]], "poll": 3600}
        built = flashimage.build(
            flashimage.Inputs(
                app=imagefile.parse(OLD),
                table=layout.load("4MiB"),
                device=device,
                bootloader=(CHIPS["esp32"], images.bootloader("esp32")),
                release=releases.envelope(OLD, IDENTITY, SIGNER, 1),
                settings=json.dumps(settings).encode(),
            )
        )
        source = config.render(device)
        table = Personalities(
            Personality().with_modules(sekisho_config=source),
            {hashlib.sha256(NEW).hexdigest(): new.with_modules(sekisho_config=source)},
        )
        return World.create(self.directory / "world", built.data, personalities=table, network=Network(), speed=speed)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    served = tmp_path / "served"
    (tmp_path / "new.suit").write_bytes(releases.envelope(NEW, IDENTITY, SIGNER, 2))
    (tmp_path / "new.bin").write_bytes(NEW)
    publish(served, UUID(bytes=IDENTITY.classes[0]), [tmp_path / "new.suit", tmp_path / "new.bin"])
    with StaticServer(served) as server:
        yield Scene(tmp_path, server.url, served)


def watch(world: World, until: str, max_boots: int = 14) -> list[RunResult]:
    return list(power_cycle(world, max_boots=max_boots, limits=replace(WATCH, until=until)))


def console(results: list[RunResult]) -> str:
    return "".join(result.console for result in results)


@pytest.mark.requirement("UPE01", "UPC01")
def test_signed_update_is_fetched_swapped_in_tried_and_confirmed(scene: Scene) -> None:
    world = scene.world(Personality("new"))
    results = watch(world, "sekisho: confirmed")
    printed = console(results)
    assert "release 2 staged" in printed
    assert "fw slot 1, release 2, on trial" in printed
    assert results[-1].cause == "until"
    assert results[-1].personality == "new"
    again = watch(world, "release 2 is confirmed")
    assert again[-1].slot == "ota_1"


@pytest.mark.requirement("UPE02", "UPE13", "UPE14")
@pytest.mark.parametrize(
    ("name", "reason", "ends", "speed"),
    [
        ("unhealthy", "HEALTH", "reset", 20),
        ("crashes", "HEALTH", "reset", 20),
        ("hangs", "ATTEMPTS", "watchdog", 100),
        ("throws", "ATTEMPTS", "watchdog", 100),
        ("resets", "ATTEMPTS", "reset", 20),
    ],
)
def test_image_that_misbehaves_is_rolled_back_with_the_reason(
    scene: Scene, name: str, reason: str, ends: str, speed: int
) -> None:
    world = scene.world(behaviour(name), speed=speed)
    results = watch(world, f"release 2 failed: {reason}", max_boots=30)
    assert results[-1].cause == "until", console(results)
    assert results[-1].slot == "ota_0"
    assert ends in {result.cause for result in results if result.personality == name}


@pytest.mark.requirement("UPE14")
def test_power_lost_anywhere_in_the_swap_is_recovered(scene: Scene) -> None:
    """A cut at each operation between staging and trial; the campaign does the same for every state there is."""
    world = scene.world(Personality("new"))
    staged = watch(world, "sekisho: restarting")
    assert staged[-1].cause == "until"
    saved = world.flash_path.read_bytes()
    swap = machine().run(world)
    assert swap.cause == "reset"
    for number in range(len(swap.ops)):
        world.flash_path.write_bytes(saved)
        world.unplug()
        assert machine().run(world, cut=number).cause == "cut"
        results = watch(world, "sekisho: confirmed")
        assert results[-1].cause == "until", (number, console(results))


@pytest.mark.requirement("UPE11")
def test_tampered_payload_is_refused_and_the_old_image_stays(scene: Scene) -> None:
    payload = next((scene.served / "payload").iterdir())
    broken = bytearray(payload.read_bytes())
    broken[-100] ^= 1
    payload.write_bytes(broken)
    results = watch(scene.world(Personality("new")), "IMAGE_DIGEST")
    assert results[-1].cause == "until", console(results)
    assert results[-1].slot == "ota_0"


@pytest.mark.parametrize("network", [Network(ap=False), Network(key="another")], ids=["dead", "wrong password"])
def test_a_network_that_fails_during_the_trial_costs_a_good_image_nothing_but_time(
    scene: Scene, network: Network
) -> None:
    world = scene.world(Personality("new"), speed=200)
    assert watch(world, "release 2 staged")[-1].cause == "until"
    world.network = network
    results = watch(world, "release 2 failed: ATTEMPTS", max_boots=30)
    assert results[-1].cause == "until", console(results)
    world.network = Network()
    results = watch(world, "sekisho: confirmed", max_boots=30)
    assert results[-1].cause == "until", console(results)
    assert "RETRY_LATER" in console(results)


def test_wrong_password_and_dead_server_leave_the_device_running(scene: Scene) -> None:
    for network in (Network(key="another"), Network(ap=False)):
        world = scene.world(Personality("new"), speed=200)
        world.network = network
        results = watch(world, "sekisho: NETWORK")
        assert results[-1].cause == "until", console(results)
