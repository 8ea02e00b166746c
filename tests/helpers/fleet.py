"""Simulated devices of one product and the web site they ask, for drills and flows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sekisho_sim import bootloader
from sekisho_sim.device import Limits, Machine, power_cycle
from sekisho_sim.flash import Flash
from sekisho_sim.personality import Personalities, Personality
from sekisho_sim.world import Network, World
from sekisho_tools import config, flashimage, imagefile, keyset, layout
from sekisho_tools.serve import StaticServer, application

from helpers import images

VENDOR, CLASS = "example.com", "lamp"
HOST = "updates.example.com"
TABLE = layout.load("4MiB")
WATCH = Limits(seconds=60)
SPEED = 40
"""Seconds of a device in one of ours: a trial of a minute takes a moment."""
FROZEN = b"\0_boot.py\0sekisho/agent.py\0sekisho_boot/engine.py\0sekisho_boot/keyset.py\0sekisho_boot/suit.py\0\0"


def firmware(version: str, document: bytes = b"", size: int = 12_000) -> bytes:
    """An app image that says it is a production build with everything frozen in, the key set *document* too."""
    noise = hashlib.shake_256(version.encode()).digest(size // 4 * 4)
    banner = f"\0MicroPython v1.26.1 on 2025-09-11; Sekisho ESP32 (production) with ESP32\0{version}".encode()
    data = images.descriptor() + banner + FROZEN + document
    return images.image([(images.MAPPED["esp32"], data.ljust(-(-len(data) // 4) * 4, b"\0") + noise)])


class Sites:
    """One web server for a whole test session; which directory it serves can be changed."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.root = directory
        self.down = False
        self._apps: dict[Path, Any] = {}

    @contextmanager
    def serving(self) -> Iterator[Sites]:
        """The server, running."""

        async def answer(scope: Any, receive: Any, send: Any) -> None:
            await self._answer(scope, receive, send)

        with StaticServer(self.directory, wrap=lambda _: answer) as server:
            self.url = server.url
            self.port = server.port
            yield self

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        if self.down or not self.root.is_dir():
            await send({"type": "http.response.start", "status": 503, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body", "body": b""})
            return
        if self.root not in self._apps:
            self._apps[self.root] = application(self.root)
        await self._apps[self.root](scope, receive, send)


@dataclass
class Device:
    """One device. Switched on, it runs until it has printed what is waited for."""

    world: World
    console: str = ""

    def until(self, text: str, boots: int = 14, on: Machine | None = None) -> str:
        """Switch it on and watch; the text must come. Returns what was printed since."""
        printed = ""
        for result in power_cycle(self.world, max_boots=boots, limits=replace(WATCH, until=text), on=on):
            printed += result.console
        self.console += printed
        assert text in printed, f"{text!r} never came:\n{printed[-3000:]}"
        return printed

    def state(self) -> dict[str, Any]:
        """The engine's records, read from the flash."""
        return dict(flashimage.describe_flash(self.world.flash_path.read_bytes())["sekisho"])

    def running(self) -> str:
        """SHA-256 (hex) of the app that a bootloader would start now."""
        flash = Flash(bytearray(self.world.flash_path.read_bytes()))
        slot = bootloader.power_on(flash).running
        assert slot is not None, "nothing on it starts"
        data = flash.buffer[TABLE[slot].offset : TABLE[slot].end]
        return hashlib.sha256(data[: imagefile.read_structure(data).length]).hexdigest()

    def change_settings(self, **changes: Any) -> None:
        """Change settings in its `data` file system, as its owner would, and leave the other files as they are."""
        row = TABLE["data"]
        flash = bytearray(self.world.flash_path.read_bytes())
        files = flashimage.read_littlefs(bytes(flash[row.offset : row.end]))
        assert files is not None, "the device has no file system any more"
        name = f"/{flashimage.SETTINGS}"
        files[name] = json.dumps({**json.loads(files[name]), **changes}).encode()
        flash[row.offset : row.end] = flashimage.make_littlefs(row.size, files, "data")
        self.world.flash_path.write_bytes(flash)

    def bootable(self) -> set[str]:
        """SHA-256 (hex) of every app on it that a bootloader could start, whatever otadata says."""
        data = self.world.flash_path.read_bytes()
        found = set()
        for label in ("ota_0", "ota_1"):
            try:
                found.add(imagefile.parse(data[TABLE[label].offset : TABLE[label].end]).digest.hex())
            except imagefile.ToolError:
                continue
        return found


def together(text: str, *devices: Device) -> list[str]:
    """All *devices* switched on at once, until each has printed *text*; returns what each has printed."""

    def watch(device: Device) -> str:
        with Machine() as machine:
            return device.until(text, on=machine)

    with ThreadPoolExecutor(len(devices)) as pool:
        return list(pool.map(watch, devices))


@dataclass
class Fleet:
    """All devices of a drill, made from one flash image; *behave* says what an app image does (default: its work),
    *modules* what every firmware of the product brings besides."""

    directory: Path
    behave: dict[str, Personality] = field(default_factory=dict)
    devices: list[Device] = field(default_factory=list)
    modules: dict[str, str] = field(default_factory=dict)

    def new(self) -> Device:
        """One more device, from ``flash.bin``, as it comes out of its box."""
        source = flashimage.config_beside(self.directory / "flash.bin").read_text()
        # One minute of trial instead of five: nothing else in the product is changed for the drill.
        source = source.replace(f"TRIAL_SECONDS = {config.TRIAL_SECONDS}\n", "TRIAL_SECONDS = 60\n")
        table = Personalities(
            Personality().with_modules(sekisho_config=source, **self.modules),
            {digest: one.with_modules(sekisho_config=source, **self.modules) for digest, one in self.behave.items()},
        )
        world = World.create(
            self.directory / f"device-{len(self.devices) + 1}",
            self.directory / "flash.bin",
            personalities=table,
            network=Network(hosts={HOST: "127.0.0.1"}),
            speed=SPEED,
        )
        self.devices.append(Device(world))
        return self.devices[-1]

    def safe_and_updated(self, app: bytes, sequence: int, document: bytes, never: tuple[bytes, ...] = ()) -> None:
        """Every device runs *app* as release *sequence*, confirmed, under the key set *document*; nothing in *never*
        could even start; the next start says that all is well."""
        for device, printed in zip(self.devices, together("sekisho: NOTHING", *self.devices), strict=True):
            assert "degraded" not in printed, printed
            assert "locked" not in printed, printed
            assert device.running() == hashlib.sha256(app).hexdigest()
            state = device.state()
            assert (state["phase"], state["locked"], state["degraded"]) == (0, False, 0), state
            assert state["counters"][0] == sequence
            version = keyset.decode(document).version
            # The ledger names the first key set, the one frozen in, only after another was taken.
            assert state["keyset_version"] == (version if version > 1 else 0)
            assert device.bootable().isdisjoint(hashlib.sha256(one).hexdigest() for one in never)
