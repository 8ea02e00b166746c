"""Many simulated devices at once on one machine, each in a thread and a process of its own, against one server.

All come from one flash image. What makes them different is what would on a production line: the factory MAC address in
the eFuses (from which the device id follows) and the settings on the `data` file system, name and token at the server
among them. What they print is read for a table of how far each is; nothing is asked of the server.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sekisho_tools import flashimage, layout
from sekisho_tools.errors import ToolError

from .device import Limits, Machine, power_cycle
from .driver import Managed
from .personality import Personalities
from .world import HEAP, World

MAX_DEVICES = 200
STAGGER = 0.05
"""Seconds between two devices being switched on, so that they do not all start at once."""
FOREVER = 1 << 30
SETTINGS = "/sekisho.json"

_LINES: tuple[tuple[re.Pattern[str], Callable[[Member, re.Match[str]], None]], ...]


@dataclass
class Member:
    """One device and what it said of itself last."""

    name: str
    world: World
    slot: str = ""
    release: int = 0
    state: str = "off"
    last: str = ""
    rollbacks: int = 0
    refused: dict[int, str] = field(default_factory=dict)
    """Release that it took and gave up -> the reason that it told."""
    starts: int = 0
    error: str = ""
    _took: bool = False
    limits: Limits = field(default_factory=lambda: Limits(seconds=FOREVER))
    _rest: str = ""

    def hear(self, text: str) -> None:
        """Read what the device printed."""
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            for pattern, note in _LINES:
                found = pattern.fullmatch(line.rstrip("\r"))
                if found:
                    note(self, found)
                    break


def _runs(member: Member, found: re.Match[str]) -> None:
    member.slot, member.release = f"ota_{found[1]}", int(found[2])
    member.state = "on trial" if found[3] else "runs"
    member._took |= bool(found[3])


def _staged(member: Member, _: re.Match[str]) -> None:
    member.state, member._took = "staged", True


def _confirmed(member: Member, _: re.Match[str]) -> None:
    member.state, member._took = "confirmed", False
    member.refused.pop(member.release, None)


def _fetched(member: Member, found: re.Match[str]) -> None:
    member.state = f"fetching {100 * int(found[1]) // int(found[2])} %"


def _failed(member: Member, found: re.Match[str]) -> None:
    if found[2] not in ("NOTHING", "RETRY_LATER"):
        member.rollbacks += member._took  # it says so again at every later start
        member._took = False
        member.refused[int(found[1])] = member.last = found[2]
        member.state = "rolled back"


def _looked(member: Member, found: re.Match[str]) -> None:
    member.last = found[1]


_LINES = (
    (re.compile(r"sekisho: fw slot (\d), release (\d+)(, on trial)?"), _runs),
    (re.compile(r"sekisho: fetched (\d+) of (\d+) bytes"), _fetched),
    (re.compile(r"sekisho: release (\d+) failed: (\w+)"), _failed),
    (re.compile(r"sekisho: release \d+ staged"), _staged),
    (re.compile(r"sekisho: confirmed"), _confirmed),
    (re.compile(r"sekisho: (.*)"), _looked),
)


def provision(flash: bytes, settings: Mapping[str, object]) -> bytes:
    """*flash* with *settings* put over those of the `data` file system. Raises ToolError: LAYOUT, FILES."""
    table = layout.decode(flash[layout.TABLE_OFFSET :][: layout.TABLE_SIZE], len(flash))
    part = table.get("data")
    if part is None:
        raise ToolError("LAYOUT", "The flash image has no `data` partition to keep settings in.")
    files = flashimage.read_littlefs(flash[part.offset : part.end])
    if files is None:
        raise ToolError("FILES", "The `data` partition of the flash image holds no littlefs to put settings into.")
    try:
        known = json.loads(files.get(SETTINGS, b"{}"))
    except ValueError as error:
        raise ToolError("FILES", f"The settings of the flash image cannot be read: {error}.") from error
    files[SETTINGS] = json.dumps(known | dict(settings)).encode()
    return flash[: part.offset] + flashimage.make_littlefs(part.size, files, "data") + flash[part.end :]


class Fleet(Managed):
    """Devices made from *flash*, one for each entry of *settings*; *personalities* says what app images stand for."""

    def __init__(
        self,
        directory: Path,
        flash: bytes,
        settings: Sequence[Mapping[str, object]],
        personalities: Personalities | None = None,
        *,
        heap: int = HEAP,
        speed: int = 1,
    ) -> None:
        if not 0 < len(settings) <= MAX_DEVICES:
            raise ToolError("FLEET", f"A fleet on one desk has 1 to {MAX_DEVICES} devices.")
        self.members: list[Member] = []
        for number, values in enumerate(settings, 1):
            name = str(values.get("controller") or f"device-{number}")
            world = World.create(
                directory / f"{number:03}",
                provision(flash, values),
                personalities=personalities,
                heap=heap,
                speed=speed,
            )
            world.efuse.fuses[0][1] = (world.efuse.fuses[0][1] & 0xFFFF0000) | number
            self.members.append(Member(name, world))
        self._threads: list[threading.Thread] = []
        self._stop = threading.Event()

    def start(self) -> None:
        """Switch them on, one after the other."""
        for number, member in enumerate(self.members):
            thread = threading.Thread(target=self._run, args=(member, number * STAGGER), name=member.name, daemon=True)
            self._threads.append(thread)
            thread.start()

    def _run(self, member: Member, wait: float) -> None:
        if self._stop.wait(wait):
            return
        try:
            with Machine() as machine:
                cycle = power_cycle(
                    member.world, max_boots=FOREVER, limits=member.limits, console=member.hear, on=machine
                )
                for result in cycle:
                    member.starts += 1
                    if self._stop.is_set():
                        break
                    if result.cause == "no-boot":
                        member.state = "does not boot"
        except Exception as error:  # a device that fails is a line of the table, not the end of the others
            member.error = member.state = f"{type(error).__name__}: {error}"

    def wait(self, done: Callable[[Fleet], bool], seconds: float, each: Callable[[], None] | None = None) -> bool:
        """Watch until *done* or for *seconds*; *each* is called twice a second. True where it was done."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if each:
                each()
            if done(self):
                return True
            if not any(thread.is_alive() for thread in self._threads):
                return done(self)
            time.sleep(0.5)
        return False

    def close(self) -> None:
        """Switch all of them off."""
        self._stop.set()
        for member in self.members:
            member.limits.stop = True
        for thread in self._threads:
            thread.join(30)

    def busy(self) -> bool:
        """Whether a device is between the first byte of an update and what comes of it."""
        return any(member.state.startswith(("fetching", "staged", "on trial")) for member in self.members)

    def settled(self, release: int) -> bool:
        """Whether every device either runs *release*, confirmed, or has rolled it back."""
        return all(
            (member.release == release and member.state in ("confirmed", "runs")) or member.rollbacks
            for member in self.members
        )
