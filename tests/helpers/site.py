"""One product from the signer's desk to the device: keys, releases, a static site and simulated devices."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from uuid import UUID

from sekisho_sim.device import Limits, RunResult, power_cycle
from sekisho_sim.personality import STOCK, Personalities, Personality
from sekisho_sim.world import World
from sekisho_tools import config, flashimage, imagefile, layout, suit
from sekisho_tools.device_code import FIRMWARE
from sekisho_tools.imagefile import CHIPS
from sekisho_tools.publish import publish

from helpers import images
from helpers.desk import firmware
from helpers.keys import MadeKeySet, make_keyset

VENDOR = "acme.example"
PRODUCT = "lamp"


@dataclass
class Product:
    """Everything behind one product class. *root* is the directory of its static site."""

    folder: Path
    server: str = ""
    keys: MadeKeySet = field(default_factory=make_keyset)
    trial_seconds: int = 30
    settings: dict[str, object] = field(default_factory=dict)
    """What the devices of this product are set to besides server and network."""

    def __post_init__(self) -> None:
        self.root = self.folder / "site"
        self.root.mkdir(parents=True, exist_ok=True)
        self.device = config.make(
            VENDOR, [PRODUCT], self.keys.document, "esp32", trial_seconds=self.trial_seconds, product="Lamp"
        )
        self.class_id = UUID(bytes=self.device.classes[0])
        self.personalities = Personalities(self.personality())

    def personality(self, name: str = "good", **modules: str) -> Personality:
        """Our firmware with this product's configuration and further frozen modules (name=source)."""
        return Personality(name).with_modules(sekisho_config=config.render(self.device), **modules)

    def release(
        self,
        sequence: int,
        payload: bytes | None,
        app: bytes | None = None,
        *ties: suit.Tie,
        text: Mapping[str, suit.Text] | None = None,
    ) -> bytes:
        """A signed envelope for a firmware, an application image, or both."""
        images = {"fw": payload, "app": app}
        components = tuple(suit.Component.of(name, data) for name, data in images.items() if data is not None)
        contents = suit.Release(self.device.vendor, self.device.classes[0], sequence, components, ties, text=text or {})
        return suit.encode(contents, [self.keys.release[0]])

    def offer(self, sequence: int, payload: bytes, **modules: str) -> bytes:
        """Publish a firmware release; *modules* make the new firmware behave differently. Returns the envelope."""
        if modules:
            image = imagefile.parse(payload)
            self.personalities.images[image.digest.hex()] = self.personality(f"release {sequence}", **modules)
        envelope = self.release(sequence, payload)
        self.publish(envelope, payload)
        return envelope

    def publish(self, envelope: bytes, *payloads: bytes) -> None:
        """Put a release, its payloads and the newest key set where devices look."""
        paths = []
        for number, data in enumerate((envelope, *payloads, self.keys.document)):
            paths.append(self.folder / f"published-{number}")
            paths[-1].write_bytes(data)
        publish(self.root, self.class_id, paths)

    def factory(self, payload: bytes, sequence: int = 1, name: str = "device", **world: int) -> World:
        """A device as it leaves the factory with *payload* as release *sequence*."""
        settings = {"server": self.server, "wifi": [["sekisho", "sekisho-lab"]], "poll": 30} | self.settings
        built = flashimage.build(
            flashimage.Inputs(
                app=imagefile.parse(payload),
                table=layout.load(FIRMWARE / "partitions" / "4MiB.csv"),
                device=self.device,
                bootloader=(CHIPS["esp32"], images.bootloader()),
                release=self.release(sequence, payload),
                settings=json.dumps(settings).encode(),
            )
        )
        self.device = built.device
        return World.create(self.folder / name, built.data, personalities=self.personalities, **world)

    def stock(self, application: str, name: str = "stock", **world: int) -> World:
        """A device with official firmware and our files and layout, release 1: all our code is on the heap, without
        what small devices leave out. *application*: source of the module."""
        app = imagefile.parse(firmware("official"))
        settings = {"server": self.server, "wifi": [["sekisho", "sekisho-lab"]], "poll": 30} | self.settings
        built = flashimage.build(
            flashimage.Inputs(
                app=app,
                table=layout.load(FIRMWARE / "partitions" / "4MiB.csv"),
                device=replace(self.device, led=2),
                mode=flashimage.STOCK,
                bootloader=(CHIPS["esp32"], images.bootloader()),
                release=self.release(1, app.data),
                files={"lib/application.py": application.encode()},
                settings=json.dumps(settings).encode(),
            )
        )
        self.device = built.device
        personalities = Personalities(Personality(start=STOCK))
        return World.create(self.folder / name, built.data, personalities=personalities, heap=200 << 10, **world)


def run(world: World, until: str, seconds: float = 60, **options: int) -> list[RunResult]:
    """Power-ups of *world* until it has printed *until* (a failure to do so is an AssertionError with the console)."""
    results = list(power_cycle(world, limits=Limits(seconds, until), **options))
    assert results[-1].cause in ("until", "cut"), consoles(results) + results[-1].cause
    return results


def consoles(results: list[RunResult]) -> str:
    """All that was printed, with a line per power-up."""
    return "".join(f"[{result.slot}, {result.personality}]\n{result.console}" for result in results)


__all__ = ["Product", "consoles", "firmware", "run"]
