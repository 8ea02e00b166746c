"""A whole small device in one process: flash, bootloader model and the engine on CPython, for tests of the engine.

The simulator proper (`sekisho_sim.device`) runs the same code in a real MicroPython process; this one is for asking
many small questions fast. A reset is a BaseException, so the engine's own catch-all cannot swallow it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from sekisho_boot import engine, records
from sekisho_boot.ledger import Ledger
from sekisho_sim import bootloader
from sekisho_sim.flash import Flash, MemPart, Op
from sekisho_tools.layout import Layout, parse_csv

from helpers import images
from helpers.keys import ISSUED, MadeKeySet, make_keyset

CSV = """
otadata,  data, ota,      0xd000,   0x2000,
ota_0,    app,  ota_0,    0x10000,  0x10000,
ota_1,    app,  ota_1,    0x20000,  0x10000,
sekisho,  data, 0x40,     0x30000,  0x10000,
app_0,    data, 0x41,     0x40000,  0x4000,
app_1,    data, 0x41,     0x44000,  0x4000,
"""
SIZE = 0x48000
VENDOR = bytes(range(16, 32))
CLASS = bytes(range(16))
MAX_BOOTS = 40


class ResetError(BaseException):
    """The device restarts (`machine.reset()`)."""


class Port:
    """The engine's port on the simulated flash."""

    revision = 301

    def __init__(self, desk: Desk, running: int) -> None:
        self.fw = [desk.part("ota_0"), desk.part("ota_1")]
        self.app = [desk.part("app_0"), desk.part("app_1")] if desk.with_app else []
        self.part = desk.part("sekisho")
        self.part.encrypted = False
        self.otadata = desk.part("otadata")
        self.config = desk.config
        self.running = running
        self.device = bytes(15) + b"\x07"
        self.vendor, self.classes = VENDOR, (CLASS,)
        self.clock, self.fuse = desk.clock, desk.fuse
        self.dogs: list[int] = []

    def now(self) -> int:
        return self.clock

    def hardware_floor(self) -> int:
        return self.fuse

    def watchdog(self, seconds: int) -> None:
        self.dogs.append(seconds)

    def reset(self) -> None:
        raise ResetError


@dataclass
class Up:
    """A device that came up: the slot that runs, what the engine decided, its port, and how many boots it took."""

    running: int
    decision: Any
    port: Port
    boots: int

    @property
    def engine(self) -> engine.Engine:
        return engine.Engine(self.port)


@dataclass
class Desk:
    """One device: ``flash`` is all it keeps."""

    keys: MadeKeySet = field(default_factory=make_keyset)
    profile: bootloader.Profile = bootloader.ROLLBACK
    with_app: bool = True
    clock: int = 0
    fuse: int = 0
    flash: Flash = field(default_factory=lambda: Flash.blank(SIZE))
    layout: Layout = field(default_factory=lambda: parse_csv(CSV, SIZE))

    def __post_init__(self) -> None:
        self.config = SimpleNamespace(
            KEYSET=self.keys.document,
            VENDOR=VENDOR,
            CLASSES=(CLASS,),
            CHIP=0,
            BUILD_TIME=ISSUED,
            FLOOR_FW=0,
            FLOOR_APP=0,
            TRIAL_SECONDS=300,
        )

    def part(self, label: str) -> Any:
        found = self.layout[label]
        return MemPart(found.size, self.flash, found.offset)

    def put(self, label: str, data: bytes, at: int = 0) -> None:
        """Bytes that a cable wrote: no flash operation of the device."""
        start = self.layout[label].offset + at
        self.flash.buffer[start : start + len(data)] = data

    def factory(self, release: Any, firmware: bytes) -> None:
        """What `image build` leaves: bootloader, table, firmware in ota_0, ledger and its slot record."""
        self.flash.buffer[0x1000 : 0x1000 + len(images.bootloader())] = images.bootloader()
        table = self.layout.encode()
        self.flash.buffer[0x8000 : 0x8000 + len(table)] = table
        self.put("ota_0", firmware)
        part = self.part("sekisho")
        part.encrypted = False
        ledger = Ledger(part)
        ledger.state.chosen = 0
        if release is not None:
            ledger.state.counters[0] = release.plan.sequence
            ledger.state.pairs[0] = (255, release.plan.sequence, 0, bytes(32))
            records.save_slot(part, 0, 0, release.plan.targets[0], release.plan, release.envelope)
        ledger.format()
        self.flash.log.clear()

    def snapshot(self) -> bytes:
        return bytes(self.flash.buffer)

    def restore(self, state: bytes) -> None:
        self.flash.buffer[:] = state
        self.flash.log.clear()

    def ops(self) -> list[Op]:
        return list(self.flash.log)

    def boot_once(self, cause: str = "power-on") -> Up | None:
        """One run of bootloader and engine: an Up where the application goes on, None after a reset."""
        result = bootloader.power_on(self.flash, None, cause, self.profile)  # type: ignore[arg-type]
        assert result.running is not None, "dead: " + "; ".join(result.log)
        port = Port(self, int(result.running[-1]))
        try:
            return Up(port.running, engine.boot(port), port, 1)
        except ResetError:
            return None

    def power_on(self) -> Up:
        """Boots until the application runs; more than MAX_BOOTS is a failure (invariant 9)."""
        for boots in range(1, MAX_BOOTS):
            up = self.boot_once()
            if up:
                up.boots = boots
                return up
        raise AssertionError("boot loop")


def fetch(engine_: engine.Engine, envelope: bytes, payloads: dict[int, bytes], *, until: int | None = None) -> None:
    """What the agent does up to `stage`; *until* breaks off after so many bytes of each payload."""
    engine_.accept(envelope)
    offsets = list(engine_.begin())
    for component, payload in payloads.items():
        end = len(payload) if until is None else min(until, len(payload))
        for off in range(offsets[component], end, 4096):
            engine_.write(component, off, payload[off : off + 4096])
    if until is None:
        engine_.stage()


def firmware(text: str, size: int = 20_000) -> bytes:
    """An app image that the bootloader takes, about *size* bytes of noise that depends on *text*."""
    noise = hashlib.shake_256(text.encode()).digest(size // 4 * 4)
    data = images.descriptor() + f"\0MicroPython v1.26.1 on 2025-09-11; {text}\0".encode().ljust(128, b"\0") + noise
    return images.image([(images.MAPPED["esp32"], data)])
