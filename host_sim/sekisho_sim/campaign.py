"""Cut the power at every flash state an update goes through, and again at every state of the recovery.

    python -m sekisho_sim.campaign                   every first cut, second cuts as far as `make powercut` has time
    python -m sekisho_sim.campaign --full            every first cut with more seeds, every second cut
    python -m sekisho_sim.campaign --case ID         one case again, with its story
    python -m sekisho_sim.campaign --only swap,trial some scenarios; --first-failure stops at the first

Each scenario has an uninterrupted golden run, every flash operation of which is recorded. Each operation boundary is
then also cut for real - the device process kills itself at that operation - and must leave the very bytes that the
replayed log gives; a cut that does not fire is an error. From then on the states are built from the log: before each
operation, and inside it in every shape of `flash.SHAPES`, equal states once. From each the device, a fresh MicroPython
process at each power-up, must find its own way: boot, resume, reach its goal, then do one more update.

The judge stands outside. It reads flash bytes and what the device says on its console, and it knows the approved
images; it has its own reader of the ledger's counters, made from docs/flash-format.md, and asks the bootloader model
what is bootable. It uses no verdict of the engine. Its rules are in `Judge`; docs/evidence/powercut.md lists them.

A case id says where to cut: ``swap/17:erase-first-half:0`` inside operation 17 of that golden run in that shape with
that seed, ``swap/17`` before operation 17; a second part, ``/3:program-none:0``, cuts the recovery from the first.

Needs a checkout: the releases and images it plays with are those of tests/helpers.
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import json
import mmap
import multiprocessing
import os
import queue
import resource
import select
import signal
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from sekisho_tools import cose, device_code, imagefile, layout
from sekisho_tools.errors import ToolError
from sekisho_tools.files import write_atomic
from sekisho_tools.measure import compile_module

from . import bootloader
from .flash import ERASE_SHAPES, PROGRAM_SHAPES, SECTOR, Flash, MemPart, Op, decode_ops, replay, shapes_for, tear, torn
from .forks import Bounded

assert device_code
from sekisho_boot import ledger, reasons, records  # noqa: E402

REPO = Path(__file__).parents[2]
if str(REPO / "tests") not in sys.path:
    sys.path.append(str(REPO / "tests"))
from helpers import images, release  # noqa: E402
from helpers.keys import ISSUED, YEAR, make_keyset, signer  # noqa: E402

CSV = """
otadata,  data, ota,      0xd000,   0x2000,
ota_0,    app,  ota_0,    0x10000,  0x20000,
ota_1,    app,  ota_1,    0x30000,  0x20000,
sekisho,  data, 0x40,     0x50000,  0x10000,
app_0,    data, 0x41,     0x60000,  0x4000,
app_1,    data, 0x41,     0x64000,  0x4000,
"""
SIZE = 0x68000
TABLE = layout.parse_csv(CSV, SIZE)
SECTORS = SIZE // SECTOR
LOG_ROOM = 1 << 20
VENDOR, CLASS, DEVICE = bytes(range(16, 32)), bytes(range(16)), bytes(15) + b"\x07"
TRIAL_SECONDS = 300
MAX_POWER_UPS = 60
MAX_RUNS = 8
"""Starts inside one attempt that the design allows, where the bootloader does not end it."""
MOST_ALIVE = 4
"""Devices of one `Device` that may be alive: one works, those before it may still be on their way out."""
FW, APP = 0, 1


# -- the world: images, releases, key sets ----------------------------------------------------------------------------


def firmware(text: str, size: int = 12_000) -> bytes:
    """An app image that the bootloader takes: *size* bytes of noise that depends on *text*."""
    noise = hashlib.shake_256(text.encode()).digest(size // 4 * 4)
    data = images.descriptor() + f"\0MicroPython v1.26.1 on 2025-09-11; {text}\0".encode().ljust(128, b"\0") + noise
    return images.image([(images.MAPPED["esp32"], data)])


FIRMWARE = {
    "old": firmware("old"),
    "new": firmware("new", 14_000),
    "big": firmware("big", 74_000),
    "crash": firmware("crash"),
    "crash-again": firmware("crash again"),
    "unhealthy": firmware("unhealthy"),
    "sleep": firmware("sleep"),
    "newer": firmware("newer"),
    "next": firmware("next", 9_000),
}
"""Approved firmware; how an image behaves on trial is told by its name."""
EVIL = firmware("evil", 14_000)
"""Firmware that the bootloader takes and nobody approved, as long as ``new``."""
APPLICATION = {"a": b"app three" * 700, "b": b"app four!" * 600}
SEQUENCE = {
    "old": 1,
    "new": 2,
    "big": 2,
    "crash": 2,
    "crash-again": 4,
    "unhealthy": 2,
    "sleep": 2,
    "newer": 3,
    "next": 9,
}
KEYS = make_keyset(operators=1, release=1)
_NEW_RELEASE = signer("release", 7)


def _release(sequence: int, payloads: dict[int, bytes], **options: Any) -> release.Release:
    return release.make(sequence, payloads, vendor=VENDOR, product=CLASS, **options)


@cache
def releases() -> dict[str, release.Release]:
    """Every release of the campaign by name."""
    made = {name: _release(SEQUENCE[name], {FW: data}) for name, data in FIRMWARE.items() if name not in ("newer",)}
    made["newer"] = _release(3, {FW: FIRMWARE["newer"], APP: APPLICATION["a"]})
    made["app-b"] = _release(4, {APP: APPLICATION["b"]}, ties={FW: 3})
    made["next"] = _release(9, {FW: FIRMWARE["next"]}, ties={APP: 1})
    made["next-rotated"] = _release(9, {FW: FIRMWARE["next"]}, ties={APP: 1}, key=_NEW_RELEASE)
    made["evil"] = made["new"]
    return made


@cache
def keysets() -> dict[str, bytes]:
    """Key sets by name: ``2`` adds a release key, ``3`` revokes the first and raises the floor above ``old``."""
    from sekisho_tools.keyset import ReleaseKey

    keys = ReleaseKey(KEYS.release[0].public_key), ReleaseKey(_NEW_RELEASE.public_key)
    second = KEYS.next(release=keys)
    third = second.next(release=keys[1:], revoked_keys=(KEYS.release[0].key_id,))
    forbids = KEYS.next(revoked_manifests=(releases()["new"].plan.digest,))
    floor = KEYS.next(limits={"fw": (2, 100), "app": (0, 100)})
    return {"2": second.document, "3": third.document, "forbids-new": forbids.document, "floor": floor.document}


NONCE = 0x1234567
"""The one nonce that the device draws."""


def order(right: int, argument: bytes) -> bytes:
    """An operator's order to the device under the right of that number."""
    content = {1: right, 2: DEVICE, 3: NONCE, 4: ISSUED + YEAR, 5: argument}
    return cose.sign1(release.encode(content), KEYS.operators[0], attached=True)


_CONFIG = {
    "KEYSET": KEYS.document,
    "VENDOR": VENDOR,
    "CLASSES": (CLASS,),
    "CHIP": 0,
    "BUILD_TIME": ISSUED,
    "FLOOR_FW": 0,
    "FLOOR_APP": 0,
    "TRIAL_SECONDS": TRIAL_SECONDS,
}


def _device_world() -> str:
    """What the device knows of the world, as Python source."""
    made = {
        name: {
            "envelope": one.envelope,
            "digest": one.plan.digest,
            "sequence": one.plan.sequence,
            "components": tuple(target.component for target in one.plan.targets),
            "payloads": tuple({FW: EVIL}.items() if name == "evil" else one.payloads.items()),
        }
        for name, one in releases().items()
    }
    values = {
        "parts": {part.label: (part.offset, part.size) for part in TABLE},
        "config": _CONFIG,
        "vendor": VENDOR,
        "product": CLASS,
        "device": DEVICE,
        "releases": made,
        "keysets": keysets(),
        "permits": {"back": order(3, releases()["old"].plan.digest)},
        "unlock": order(7, b""),
        "nonce": NONCE,
    }
    return "".join(f"{name} = {value!r}\n" for name, value in values.items())


# -- the device -------------------------------------------------------------------------------------------------------


class CampaignError(Exception):
    """The campaign itself is broken: a cut that did not fire, a replay that differs, a device that hangs."""


class State:
    """The bytes of a flash, and a hash of each sector, so that the hash of the whole is cheap."""

    def __init__(self, data: bytes, sectors: list[int] | None = None) -> None:
        self.data = data
        self.sectors = sectors or [hash(data[at : at + SECTOR]) for at in range(0, SIZE, SECTOR)]

    @property
    def key(self) -> int:
        """The hash of the whole."""
        return hash(tuple(self.sectors))

    def part(self, label: str) -> int:
        """The hash of one partition."""
        found = TABLE[label]
        return hash(tuple(self.sectors[found.offset // SECTOR : found.end // SECTOR]))


def touched(ops: Iterable[Op]) -> set[int]:
    """Numbers of the sectors that *ops* write to."""
    return {at for op in ops for at in range(op.address // SECTOR, (op.address + op.length - 1) // SECTOR + 1)}


@dataclass
class PowerUp:
    """One power-up: what the bootloader started, what the device said, the operations it made, how it ended."""

    running: str | None
    said: dict[str, Any]
    ops: list[Op]
    end: str
    booted: int = 0
    """So many of the operations are the bootloader's, which runs outside the process that can be killed."""


def _open_files() -> list[int]:
    return [int(name) for name in os.listdir("/proc/self/fd")]  # noqa: PTH208 (numbers, not paths)


class Device:
    """The flash in shared memory, and the MicroPython process from which every power-up is forked.

    MicroPython cannot fork. So the process that will call it sets a handler that forks (forks.py: at most `MOST_ALIVE`
    at a time, children never) for SIGXFSZ and its file size limit to 0: a write to a file from Python code then raises
    that signal at a known point, and two processes go on.
    """

    def __init__(self) -> None:
        self.memory = mmap.mmap(-1, SIZE + LOG_ROOM)
        self.rtc = bytearray(bootloader.RTC_SIZE)
        self.power_ups = 0
        self._directory = tempfile.TemporaryDirectory(prefix="sekisho-campaign-")
        base = Path(self._directory.name)
        (base / "sekisho_boot").mkdir()
        for source in sorted((device_code.BOOT / "sekisho_boot").glob("*.py")):
            compile_module(source, base / "sekisho_boot" / f"{source.stem}.mpy")
        compile_module(Path(__file__).parent / "shims" / "_campaign.py", base / "_campaign.mpy")
        (base / "world.txt").write_text(_device_world())
        command, self._commands = os.pipe()
        self._results, result = os.pipe()
        trigger = os.memfd_create("trigger")
        self._pid = os.fork()
        if self._pid == 0:
            try:
                self._become(base, command, result, trigger)
            finally:
                os._exit(127)
        os.close(command)
        os.close(result)
        os.close(trigger)
        self._buffer = b""

    def _become(self, base: Path, command: int, result: int, trigger: int) -> None:
        from micropython_run import run_main  # type: ignore[import-not-found]

        address = ctypes.addressof((ctypes.c_char * len(self.memory)).from_buffer(self.memory))
        os.close(self._commands)
        os.close(self._results)
        # A write to a regular file forks, so none but the trigger may be open here, whoever's it is.
        null = os.open(os.devnull, os.O_RDWR)
        for stream in _open_files():
            if stream not in (command, result, trigger, null):
                os.dup2(null, stream)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
        forks = Bounded(MOST_ALIVE)
        on_write = forks.handler()
        libc = ctypes.CDLL(None)
        libc.signal.argtypes = [ctypes.c_int, ctypes.c_void_p]
        libc.signal(signal.SIGXFSZ, ctypes.cast(on_write, ctypes.c_void_p))
        libc.signal(signal.SIGSEGV, 0)  # SIG_DFL: that is how a device loses power
        libc.signal(signal.SIGCHLD, 0)
        start = f"{address}, {SIZE}, {LOG_ROOM}, {command}, {result}, {trigger}, {str(base / 'world.txt')!r}"
        code = f"import sys; sys.path[:] = ['.frozen', {str(base)!r}]; import _campaign; _campaign.start({start})"
        os._exit(run_main(["micropython", "-X", "heapsize=1m", "-c", code]) & 0xFF)

    def close(self) -> None:
        """End the process."""
        os.close(self._commands)
        os.waitpid(self._pid, 0)
        os.close(self._results)
        self._directory.cleanup()

    def load(self, state: State) -> None:
        """Put a flash into the device. The power has been off: nothing is left in RTC memory."""
        self.memory[:SIZE] = state.data
        self.rtc[:] = bytes(len(self.rtc))

    def read(self) -> bytes:
        """The bytes of its flash."""
        return self.memory[:SIZE]

    def _ask(self, job: dict[str, Any]) -> dict[str, Any]:
        os.write(self._commands, json.dumps(job).encode() + b"\n")
        while b"\n" not in self._buffer:
            ready, _, _ = select.select([self._results], [], [], 60)
            data = os.read(self._results, 1 << 16) if ready else b""
            if not data:
                raise CampaignError("the device process does not answer")
            self._buffer += data
        line, self._buffer = self._buffer.split(b"\n", 1)
        return dict(json.loads(line))

    def power_up(self, cause: bootloader.Cause, job: dict[str, Any], cut: int | None = None) -> PowerUp:
        """Bootloader, engine and application, until the device resets, sleeps, rests, or reaches operation *cut*."""
        self.power_ups += 1
        with memoryview(self.memory) as view, view[:SIZE] as cells:
            flash = Flash(cells)
            boot = bootloader.power_on(flash, None, cause, bootloader.ROLLBACK, self.rtc)
        if boot.running is None:
            return PowerUp(None, {"log": boot.log}, flash.log, "dead")
        self.memory[SIZE : SIZE + 8] = struct.pack("<II", len(flash.log), 8)
        job = {**job, "running": int(boot.running[-1]), "count": len(flash.log), "used": 8}
        said = self._ask({**job, "cut": 0xFFFFFFFF if cut is None else cut})
        if said.get("learn"):
            self._ask({"learn": said["learn"]})  # the process that devices are forked from verifies it again itself
        _, used = struct.unpack_from("<II", self.memory, SIZE)
        ops = flash.log + decode_ops(self.memory[SIZE + 8 : SIZE + used])
        return PowerUp(boot.running, said, ops, said["end"], len(flash.log))


# -- the judge --------------------------------------------------------------------------------------------------------


class Broken(Exception):  # noqa: N818 (a verdict, not a fault of ours)
    """An invariant does not hold."""


def provable(data: bytes) -> tuple[int, int]:
    """The counters that the ledger's bytes prove (docs/flash-format.md): maximum over all valid records 3 and 14.

    Slot records prove none here, though the engine asks them when both banks are gone. A cut tears one sector, so it
    never takes both banks: from the first record on, whatever is cut, one bank must go on proving the counters. And a
    slot record proves something only with the signature of its envelope and the digest of the running image, as the
    engine checks them; to take its number as it stands would be weaker than the design. That a device whose banks were
    both lost finds its counters again is asked for otherwise, by the scenarios `lost-ledger`: their goal names them.
    """
    fw = app = 0
    start = TABLE["sekisho"].offset
    for at in range(start, start + 2 * SECTOR, 64):
        raw = data[at : at + 64]
        if raw[1] in (3, 14) and raw[0] == 1 and zlib.crc32(raw[:60]) == int.from_bytes(raw[60:], "little"):
            one, other = struct.unpack_from("<QQ", raw, 8)
            fw, app = max(fw, one), max(app, other)
    return fw, app


def bootable(data: bytes, label: str) -> str | None:
    """The name of the approved firmware that the bootloader would start from a slot, None where it would not start;
    Broken when it would start anything else."""
    part = TABLE[label]
    content = data[part.offset : part.end]
    try:
        imagefile.verify(memoryview(content), imagefile.CHIPS["esp32"], revision=300, address=part.offset)
    except ToolError:
        return None
    for name, image in FIRMWARE.items():
        if content.startswith(image):
            return name
    raise Broken(f"{label} is bootable and holds nothing that was approved")


@dataclass
class Scenario:
    """What is cut: from *base* the device pursues *goals*; *cuts* says in which power-ups of the golden run (None:
    all).

    A goal is (kind, name, ends): ``update`` ends also with one of the reason codes *ends*; ``keyset`` is reached at
    version *ends*; ``rollback`` follows the operator's permit. *then* is the update that must still be possible
    afterwards. *running*, *counters*, *app*, *last*: what must be so when the goals are reached (app: name or None;
    last: reason codes allowed). *pairs*: applications that may be mounted with a firmware. *keep*: slot that must stay
    bootable with what is in it; *damaged*: slots that do not hold what they seem to;
    *gone*: slot that must not be bootable when the goals are reached.
    *refuse*: what must be refused in the end, with the reasons allowed; *at_goal*: the same as soon as the goals are
    reached (None: all of *refuse*, where the counter is above ``old`` by then).
    *whole*: what is recovered is done by the application, so second cuts go on until the goals are reached.
    """

    name: str
    base: Callable[[], bytes]
    goals: list[tuple[str, str, Any]]
    running: str
    counters: tuple[int, int]
    cuts: tuple[int, ...] | None = None
    app: str | None = None
    last: tuple[int, ...] = (0,)
    then: tuple[str, str] = ("next", "next")
    pairs: dict[str, tuple[str | None, ...]] = field(default_factory=dict)
    damaged: tuple[str, ...] = ()
    gone: str | None = None
    keep: str | None = "ota_0"
    keyset: int = 1
    refuse: dict[str, tuple[int, ...]] = field(default_factory=lambda: {"old": (reasons.SEQUENCE,)})
    at_goal: dict[str, tuple[int, ...]] | None = None
    ordered: bool = False
    degraded: tuple[int, ...] = ()
    trials: int = 3
    whole: bool = False

    def refused_at_goal(self) -> dict[str, tuple[int, ...]]:
        """What must be refused when the goals are reached, before one more update makes everything too old."""
        if self.at_goal is not None:
            return self.at_goal
        return self.refuse if self.counters[FW] > SEQUENCE["old"] else {}

    def job(self, *, short: bool = False) -> dict[str, Any]:
        """What the device is told; *short*: without the further update and what must be refused after it."""
        return {
            "goals": [*self.goals, *([] if short else [("update", self.then[0], [])])],
            "mark": len(self.goals),
            "at_goal": list(self.refused_at_goal()),
            "refuse": [] if short else list(self.refuse),  # some of it only the further update makes too old
            "keyset": self.keyset,
        }


class Judge:
    """All rules, for one scenario. None of them asks the engine for its opinion."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self._slots: dict[tuple[str, int], str | None] = {}
        self._counters: dict[int, tuple[int, int]] = {}

    def slot(self, state: State, label: str) -> str | None:
        """See `bootable`."""
        key = label, state.part(label)
        if key not in self._slots:
            self._slots[key] = bootable(state.data, label)
        return self._slots[key]

    def counters(self, state: State) -> tuple[int, int]:
        """See `provable`."""
        start = TABLE["sekisho"].offset // SECTOR
        key = hash((state.sectors[start], state.sectors[start + 1]))
        if key not in self._counters:
            self._counters[key] = provable(state.data)
        return self._counters[key]

    def odd(self, state: State) -> bool:
        """Whether a torn erase left an otadata entry that counts, with a state that the bootloader does not know.

        It then starts that slot as if it had been confirmed, again and again; only the engine's own count of runs ends
        such a trial.
        """
        entries = bootloader.read_entries(Flash(bytearray(state.data)), TABLE["otadata"])
        return any(entry.valid and entry.state not in bootloader.STATES for entry in entries)

    def at_rest(self, state: State, before: State | None, within: bool = False) -> None:
        """Rules for flash without power. *before*: the state that an operation began from, *within*: it was torn."""
        found = {label: self.slot(state, label) for label in ("ota_0", "ota_1")}
        if not any(found.values()):
            raise Broken("no slot is bootable")
        if before is not None:
            kept = self.scenario.keep
            if kept and self.slot(before, kept) and found[kept] != self.slot(before, kept):
                raise Broken(f"the way back in {kept} is gone")
            old, new = self.counters(before), self.counters(state)
            if new[0] < old[0] or new[1] < old[1]:
                raise Broken(f"counters went from {old} to {new}")
        if not within and before is not None:
            for label, name in found.items():
                head = state.data[TABLE[label].offset :][:256]
                if (
                    label not in self.scenario.damaged
                    and not name
                    and any(head == image[:256] for image in FIRMWARE.values())
                ):
                    raise Broken(f"{label} begins like a whole image and is none")

    def power_up(self, up: PowerUp, before: State, after: State, *, short: bool = False) -> None:
        """Rules for one power-up; *short*: see `Scenario.job`."""
        scenario = self.scenario
        if up.running is None:
            raise Broken(f"dead: {up.said}")
        if up.end in ("crash", "stuck"):
            raise Broken(f"{up.end}: {up.said}")
        image = self.slot(before, up.running)
        if image is None:
            raise Broken(f"{up.running} runs and is not bootable")
        old, new = self.counters(before), self.counters(after)
        if new[0] < old[0] or new[1] < old[1]:
            raise Broken(f"counters went from {old} to {new}")
        decision = up.said.get("decision")
        if decision is None:
            return
        status = up.said["status"]
        if tuple(status["counters"]) < old:
            raise Broken(f"the device says counters {status['counters']}, flash proves {old}")
        trial, degraded = decision["trial"], decision["degraded"]
        if bool(up.said["wdt"]) != trial or up.said["wdt"] not in (0, TRIAL_SECONDS):
            raise Broken(f"watchdog {up.said['wdt']} with trial={trial}")
        mounted = self._mounted(decision["app"], after)
        wanted = scenario.pairs.get(image, (None,))
        if mounted not in wanted and not (mounted is None and degraded == reasons.TARGET_LOST):
            raise Broken(f"{image} runs with application {mounted}")
        if degraded and degraded not in scenario.degraded:
            raise Broken(f"degraded: {reasons.name(degraded)}")
        if not trial and not degraded and not scenario.ordered and SEQUENCE[image] < status["counters"][FW]:
            raise Broken(f"{image} was chosen, which is below the counter {status['counters'][FW]}")
        if up.end == "idle":
            self._rest(up, after, image, short)

    def _refused(self, said: list[tuple[str, int]], wanted: dict[str, tuple[int, ...]], when: str) -> None:
        if [name for name, _ in said] not in ([], list(wanted)):
            raise Broken(f"{when} {said} was asked, not {list(wanted)}")
        for name, code in said:
            if code not in wanted[name]:
                raise Broken(f"{name} {when}: {reasons.name(code) if code > 0 else 'accepted'}")

    def _mounted(self, app: list[int] | None, state: State) -> str | None:
        if app is None:
            return None
        start = TABLE[f"app_{app[0]}"].offset
        content = state.data[start : start + app[1]]
        for name, data in APPLICATION.items():
            if data == content:
                return name
        raise Broken("an application is mounted that nobody approved")

    def _rest(self, up: PowerUp, state: State, image: str, short: bool) -> None:
        """Everything is done: was it what was wanted?"""
        scenario, said = self.scenario, up.said
        self._refused(said["old"], scenario.refuse, "in the end")
        if said["writes"]:
            raise Broken(f"refusing wrote {said['writes']} times")
        if short:
            wanted, allowed = scenario.running, (0, *scenario.degraded)
        else:
            wanted, allowed = scenario.then[1], (0,)
        if image != wanted or said["decision"]["degraded"] not in allowed:
            raise Broken(f"{image} runs in the end instead of {wanted}, {said['decision']}")
        held = said["done" if short else "status"]["keyset"]
        if held != scenario.keyset:
            raise Broken(f"key set {held}")
        flash = Flash(bytearray(state.data))
        entries = bootloader.read_entries(flash, TABLE["otadata"])
        active = bootloader.active_entry(entries)
        if active < 0 or entries[active].state != bootloader.VALID:
            raise Broken(f"otadata in the end: [{entries[0]}] [{entries[1]}]")
        if f"ota_{(entries[active].seq - 1) % 2}" != up.running:
            raise Broken(f"otadata selects the other slot: [{entries[0]}] [{entries[1]}]")

    def done(self, up: PowerUp, state: State) -> None:
        """The goals are reached: are they?"""
        scenario, status = self.scenario, up.said["done"]
        image = self.slot(state, str(up.running))
        decision = up.said["decision"]
        said = (image, tuple(status["counters"]), self._mounted(decision["app"], state), status["last"][0])
        expected = (scenario.running, scenario.counters, scenario.app)
        if scenario.gone and self.slot(state, scenario.gone):
            raise Broken(f"{scenario.gone} is still bootable")
        if said[:3] != expected or said[3] not in scenario.last:
            raise Broken(f"the goal was not reached: {said} instead of {expected}, {scenario.last}")
        if len(up.said["at_goal"]) != len(scenario.refused_at_goal()):
            raise Broken(f"only {up.said['at_goal']} was asked at the goal")
        self._refused(up.said["at_goal"], scenario.refused_at_goal(), "at the goal")


# -- running a device from a state ------------------------------------------------------------------------------------

_BEHAVIOURS = ("crash", "unhealthy", "sleep")


@dataclass
class Step:
    """One power-up of a chain: the flash before and after, and how it began."""

    up: PowerUp
    before: State
    after: State
    cause: bootloader.Cause
    rtc: bytes


class Runner:
    """Runs one scenario's device from any state until it rests, judging all the way."""

    def __init__(self, device: Device, scenario: Scenario, *, remember: bool = True) -> None:
        self.device, self.scenario = device, scenario
        self.judge = Judge(scenario)
        self.good: dict[int, int] = {}
        """States that end well, with the tries of a failing image on the way."""
        self.near: dict[int, int] = {}
        """States of which that is known only up to the goal."""
        self.cut: set[int] = set()
        """States whose recovery has itself been cut, every state of it."""
        self._recovering = False
        self.remember = remember
        self.most = scenario.trials

    def chain(self, start: State, *, short: bool = False) -> Iterator[Step]:
        """Power-ups from *start* until the device rests or a state comes that is known to end well.

        *short*: it rests when the goals are reached, without the further update.
        """
        self.device.load(start)
        cause: bootloader.Cause = "power-on"
        state, seen, trials, done = start, [], 0, False
        self.most = self.scenario.trials + (MAX_RUNS if self.judge.odd(start) else 0)
        for _ in range(MAX_POWER_UPS):
            if self.remember and cause != "deep-sleep":
                if state.key in (self.cut if self._recovering else self.good) or (short and state.key in self.near):
                    self._limit(trials + self.good.get(state.key, self.near.get(state.key, 0)))
                    break
                seen.append((state.key, trials))
            image = None
            for label in ("ota_0", "ota_1"):
                self.judge.slot(state, label)
            job = self.scenario.job(short=short)
            job["behaviour"] = "good"
            # Which image will run is the bootloader's to say; its behaviour is looked up by what both slots hold.
            rtc = bytes(self.device.rtc)
            up = self._power_up(cause, job, state)
            data = self.device.read()
            sectors = list(state.sectors)
            for number in touched(up.ops):
                sectors[number] = hash(data[number * SECTOR : (number + 1) * SECTOR])
            after = State(data, sectors)
            self.judge.at_rest(after, None if done or "done" in up.said else state)
            self.judge.power_up(up, state, after, short=short)
            image = self.judge.slot(state, str(up.running))
            if up.said.get("decision", {}).get("trial") and str(image).startswith("crash"):
                trials += 1
                self._limit(trials)
            if "done" in up.said and not done:
                done = True
                begun = replay(state.data, up.ops[: up.said["done_at"]])
                self.judge.done(up, State(bytes(begun)))
            yield Step(up, state, after, cause, rtc)
            state = after
            if up.end == "idle":
                break
            cause = "deep-sleep" if up.end == "deep-sleep" else "reset"
        else:
            raise Broken(f"no end after {MAX_POWER_UPS} power-ups")
        if self.remember:
            for key, before in seen:
                (self.near if short else self.good).setdefault(key, trials - before)

    def _limit(self, trials: int) -> None:
        if trials > self.most:
            raise Broken(f"the failing image was tried {trials} times")

    def _power_up(self, cause: bootloader.Cause, job: dict[str, Any], state: State, cut: int | None = None) -> PowerUp:
        names = {label: self.judge.slot(state, label) for label in ("ota_0", "ota_1")}
        behaviours = [str(names[label]).split("-")[0] for label in ("ota_0", "ota_1")]
        job["behaviours"] = [behaviour if behaviour in _BEHAVIOURS else "good" for behaviour in behaviours]
        return self.device.power_up(cause, job, cut)

    def recover(self, start: State, *, again: bool = True, whole: bool = False) -> list[Op]:
        """Runs the device from *start*; returns the operations of its recovery: up to where the application got
        control first, or, *whole*, until the goals are reached. They end early at a state that an earlier call with
        *again* went through, for the states behind it have then been cut."""
        recovery: list[Op] = []
        self._recovering = again
        mark, passed, over = "done_at" if whole else "handover", [], False
        try:
            for step in self.chain(start):
                if over:
                    continue
                passed.append(step.before.key)
                count = step.up.said.get(mark)
                recovery += step.up.ops if count is None else step.up.ops[:count]
                if count is not None:
                    over, self._recovering = True, False
        finally:
            self._recovering = False
        if again:
            self.cut.update(passed)
        return recovery


def _boundaries(start: State, ops: list[Op]) -> Iterator[int]:
    """The key of the state before each operation and after the last."""
    data, sectors = bytearray(start.data), list(start.sectors)
    yield hash(tuple(sectors))
    for op in ops:
        op.apply(data)
        for at in touched([op]):
            sectors[at] = hash(bytes(data[at * SECTOR : (at + 1) * SECTOR]))
        yield hash(tuple(sectors))


def cuts(start: State, ops: list[Op], seeds: tuple[int, ...]) -> Iterator[tuple[str, State, State, bool]]:
    """Every state that a power cut during *ops* can leave, equal ones once: (id, state, before, torn).

    What a cut between two operations leaves as well is not called torn.
    """
    data, sectors = bytearray(start.data), list(start.sectors)
    known: set[int] = set()
    between = set(_boundaries(start, ops))

    def state_of(numbers: Iterable[int]) -> State | None:
        changed = list(sectors)
        for number in numbers:
            changed[number] = hash(bytes(data[number * SECTOR : (number + 1) * SECTOR]))
        key = hash(tuple(changed))
        if key in known or (numbers and key in between):
            return None
        known.add(key)
        return State(bytes(data), changed)

    before = start
    for number, op in enumerate(ops):
        state = state_of(())
        if state:
            yield str(number), state, before, False
        current = State(bytes(data), list(sectors))
        span = slice(op.address, op.address + op.length)
        old = bytes(data[span])
        numbers = touched([op])
        for shape in shapes_for(op):
            for seed in seeds:
                data[span] = torn(old, op, shape, seed)
                state = state_of(numbers)
                if state:
                    yield f"{number}:{shape}:{seed}", state, current, True
        data[span] = op.result(old)
        for at in numbers:
            sectors[at] = hash(bytes(data[at * SECTOR : (at + 1) * SECTOR]))
        before = current
    state = state_of(())
    if state:
        yield str(len(ops)), state, before, False


# -- bases ------------------------------------------------------------------------------------------------------------


def factory() -> bytes:
    """What `image build` leaves: bootloader, table, ``old`` in ota_0, its slot record, a new ledger."""
    data = bytearray(b"\xff" * SIZE)
    data[0x1000 : 0x1000 + len(images.bootloader())] = images.bootloader()
    table = TABLE.encode()
    data[0x8000 : 0x8000 + len(table)] = table
    start = TABLE["ota_0"].offset
    data[start : start + len(FIRMWARE["old"])] = FIRMWARE["old"]
    part = _sekisho(data)
    plan = releases()["old"].plan
    book = ledger.Ledger(part)
    book.state.chosen = 0
    book.state.counters[0] = 1
    book.state.pairs[0] = (255, 1, 0, bytes(32))
    records.save_slot(part, 0, 0, plan.targets[0], plan, releases()["old"].envelope)
    book.format()
    return bytes(data)


def _sekisho(data: bytearray) -> MemPart:
    found = TABLE["sekisho"]
    return MemPart(found.size, Flash(data), found.offset)


_DEVICES: dict[int, Device] = {}
"""By process: whoever is forked sees its parent's device, but the answers in that pipe are not for it."""


def the_device() -> Device:
    """The one device of this process."""
    if os.getpid() not in _DEVICES:
        _DEVICES[os.getpid()] = Device()
    return _DEVICES[os.getpid()]


@cache
def after(base: Callable[[], bytes], *goals: tuple[str, str, int | None], power_ups: int | None = None) -> bytes:
    """The flash of a device that, starting from *base*, reached *goals*; or after so many power-ups of that."""
    device = the_device()
    device.load(State(base()))
    job = {"goals": [(kind, name, [] if ends is None else ends) for kind, name, ends in goals], "mark": -1}
    job |= {"refuse": [], "keyset": 1, "behaviours": ["good", "good"]}
    for _ in range(MAX_POWER_UPS if power_ups is None else power_ups):
        up = device.power_up("reset", job)
        if up.end == "idle":
            break
        if up.end != "reset":
            raise CampaignError(f"a base could not be made: {up}")
    return device.read()


def edited(base: Callable[[], bytes], change: Callable[[bytearray], None]) -> bytes:
    """*base* with a change."""
    data = bytearray(base())
    change(data)
    return bytes(data)


def probed() -> bytes:
    """A device that came up for the first time."""
    return after(factory)


def updated() -> bytes:
    """A device that was updated to ``new``."""
    return after(probed, ("update", "new", None))


def paired() -> bytes:
    """A device that was updated to ``newer`` with application ``a``."""
    return after(updated, ("update", "newer", None))


def filled(base: Callable[[], bytes], room: int) -> bytes:
    """*base* with a ledger in which *room* records are left before it is rewritten."""

    def fill(data: bytearray) -> None:
        book = ledger.Ledger(_sekisho(data))
        while max(book._room) < 61 - room:
            book.append(ledger.NONCE, 0, 0, NONCE)

    return edited(base, fill)


def staged_then_changed() -> bytes:
    """``new`` is staged; then somebody puts ``evil`` in its place, all of it."""

    def change(data: bytearray) -> None:
        start, holding = TABLE["ota_1"].offset, TABLE["sekisho"].offset + records.HOLDING * SECTOR
        data[start + SECTOR : start + len(EVIL)] = EVIL[SECTOR:]
        data[holding : holding + SECTOR] = EVIL[:SECTOR]

    return edited(lambda: after(probed, ("update", "new", None), power_ups=1), change)


def refused_after_reveal() -> bytes:
    """``new`` is staged and was made bootable, as far as its first sector, when the power went; then its envelope fell
    over, so that the next verdict is a refusal."""

    def change(data: bytearray) -> None:
        start, holding = TABLE["ota_1"].offset, TABLE["sekisho"].offset + records.HOLDING * SECTOR
        data[start : start + SECTOR] = data[holding : holding + SECTOR]
        data[TABLE["sekisho"].offset + records.STAGED * SECTOR + 60] ^= 1

    return edited(lambda: after(probed, ("update", "new", None), power_ups=1), change)


def ordered_back() -> bytes:
    """``new`` runs, ``old`` lies in the other slot, and the nonce for a permit is drawn."""
    return edited(updated, lambda data: ledger.Ledger(_sekisho(data)).append(ledger.NONCE, 0, 0, NONCE))


def without_ledger(base: Callable[[], bytes]) -> bytes:
    """*base* whose both banks were lost."""

    def erase(data: bytearray) -> None:
        start = TABLE["sekisho"].offset
        data[start : start + 2 * SECTOR] = b"\xff" * (2 * SECTOR)

    return edited(base, erase)


def without_anything() -> bytes:
    """``new`` runs, and the whole `sekisho` partition was lost: nothing proves a counter any more."""

    def erase(data: bytearray) -> None:
        part = TABLE["sekisho"]
        data[part.offset : part.end] = b"\xff" * part.size

    return edited(updated, erase)


def fallen_back() -> bytes:
    """``new`` was chosen, but a bit of it fell over: the bootloader starts ``old``."""

    def damage(data: bytearray) -> None:
        data[TABLE["ota_1"].offset + 9000] ^= 1

    return edited(updated, damage)


Goal = tuple[str, str, Any]
Pairs = dict[str, tuple[str | None, ...]]
_UPDATE: Goal = ("update", "new", [])
_A: Pairs = {"newer": ("a",), "next": ("a",)}
_AB: Pairs = {"newer": ("a", "b"), "next": ("b",)}
_OLD = (reasons.SEQUENCE, reasons.VERSION_TIE)


def scenarios() -> list[Scenario]:
    """All of them."""
    update: list[Goal] = [_UPDATE]
    two: list[Goal] = [("update", "newer", [])]
    app: list[Goal] = [("update", "app-b", [])]
    ties: dict[str, tuple[int, ...]] = {"old": _OLD}
    return [
        Scenario("first-boot", factory, [], "old", (1, 0), cuts=(0, 1)),
        Scenario("download", probed, update, "new", (2, 0), cuts=(0,)),
        Scenario("swap", probed, update, "new", (2, 0), cuts=(1,)),
        Scenario("trial-confirm", probed, update, "new", (2, 0), cuts=(2, 3)),
        Scenario("download-big", probed, [("update", "big", [])], "big", (2, 0), cuts=(0,)),
        Scenario(
            "automatic-rollback",
            probed,
            [("update", "crash", [reasons.ATTEMPTS])],
            "old",
            (1, 0),
            cuts=(1, 2, 3, 4, 5, 6),
            last=(reasons.ATTEMPTS,),
        ),
        Scenario(
            "automatic-rollback-to-1",
            updated,
            [("update", "crash-again", [reasons.ATTEMPTS])],
            "new",
            (2, 0),
            cuts=(1, 2, 3, 4, 5, 6),
            last=(reasons.ATTEMPTS,),
            keep="ota_1",
        ),
        Scenario(
            "unhealthy",
            probed,
            [("update", "unhealthy", [reasons.HEALTH, reasons.ATTEMPTS])],
            "old",
            (1, 0),
            cuts=(2, 3),
            last=(reasons.HEALTH, reasons.ATTEMPTS),
        ),
        Scenario(
            "deep-sleep-loop",
            probed,
            [("update", "sleep", [reasons.ATTEMPTS])],
            "old",
            (1, 0),
            cuts=(2, 9, 10, 11, 27, 28, 29),
            last=(reasons.ATTEMPTS,),
        ),
        Scenario(
            "ordered-rollback",
            ordered_back,
            [("rollback", "back", [0])],
            "old",
            (2, 0),
            keep="ota_1",
            ordered=True,
            refuse={"back": (reasons.PERMIT,), "new": (reasons.SEQUENCE,)},
            at_goal={"back": (reasons.PERMIT,), "new": (reasons.ABANDONED,)},
            whole=True,
        ),
        Scenario(
            "key-sets",
            updated,
            [("keyset", "2", 2), ("keyset", "3", 3)],
            "new",
            (2, 0),
            then=("next-rotated", "next"),
            keep="ota_1",
            keyset=3,
            refuse={"next": (reasons.KEY_REVOKED,), "2": (reasons.KEYSET_VERSION,)},
            degraded=(reasons.KEY_REVOKED,),
            whole=True,
        ),
        Scenario(
            "key-set-forbids-idle",
            updated,
            [("keyset", "floor", 2)],
            "new",
            (2, 0),
            keep="ota_1",
            gone="ota_0",
            keyset=2,
            whole=True,
        ),
        Scenario("two-components", updated, two, "newer", (3, 3), app="a", pairs=_A, keep="ota_1", refuse=ties),
        Scenario("app-only", paired, app, "newer", (3, 4), app="b", pairs=_AB, refuse=ties),
        Scenario(
            "refused-download",
            probed,
            [("update", "evil", [reasons.IMAGE_DIGEST])],
            "old",
            (1, 0),
            last=(reasons.IMAGE_DIGEST,),
        ),
        Scenario(
            "changed-after-staging",
            staged_then_changed,
            [("update", "evil", [reasons.IMAGE_DIGEST])],
            "old",
            (1, 0),
            last=(reasons.IMAGE_DIGEST,),
        ),
        Scenario(
            "scrub",
            refused_after_reveal,
            [],
            "old",
            (1, 0),
            last=(reasons.STAGED_CHANGED,),
            gone="ota_1",
        ),
        Scenario(
            "revoked-while-staged",
            lambda: after(probed, ("update", "new", None), power_ups=1),
            [("keyset", "forbids-new", 2)],
            "new",
            (2, 0),
            keyset=2,
            degraded=(reasons.MANIFEST_REVOKED,),
            whole=True,
        ),
        Scenario("compaction-in-fetch", lambda: filled(probed, 1), update, "new", (2, 0), cuts=(0,)),
        Scenario("compaction-in-swap", lambda: filled(probed, 5), update, "new", (2, 0), cuts=(1,)),
        Scenario("compaction-in-trial", lambda: filled(probed, 8), update, "new", (2, 0), cuts=(2,)),
        Scenario(
            "compaction-with-pairs",
            lambda: filled(paired, 3),
            app,
            "newer",
            (3, 4),
            cuts=(0, 1),
            app="b",
            pairs=_AB,
            refuse=ties,
        ),
        Scenario("lost-ledger", lambda: without_ledger(updated), [], "new", (2, 0), keep="ota_1"),
        Scenario(
            "lost-ledger-with-pairs",
            lambda: without_ledger(paired),
            [],
            "newer",
            (3, 3),
            refuse=ties,
            degraded=(reasons.TARGET_LOST,),
        ),
        Scenario("all-lost", without_anything, [("unlock", "", [])], "new", (0, 0), keep="ota_1", whole=True),
        Scenario(
            "fallback",
            fallen_back,
            [],
            "old",
            (2, 0),
            degraded=(reasons.FALLBACK,),
            damaged=("ota_1",),
        ),
    ]


# -- the campaign -----------------------------------------------------------------------------------------------------


@dataclass
class Numbers:
    """What one scenario came to."""

    name: str
    operations: int = 0
    killed: int = 0
    states: int = 0
    torn: int = 0
    again: int = 0
    second: int = 0
    further: int = 0
    distinct: int = 0
    power_ups: int = 0
    seconds: float = 0.0
    failures: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Effort:
    """How much: seeds of torn first and second cuts; the recovery from every clean first cut, and from one in *sample*
    torn ones, is cut again (0: none); *whole*: in every scenario until the goals are reached. After one in *further*
    of the second cuts the device must do one more update, as after every first cut."""

    name: str
    seeds: tuple[int, ...]
    second_seeds: tuple[int, ...]
    sample: int
    further: int = 1
    whole: bool = False

    def again(self, numbers: Numbers, *, is_torn: bool) -> bool:
        """Whether the recovery from the first cut that was counted last is cut again."""
        return bool(self.sample) and (not is_torn or numbers.torn % self.sample == 0)


QUICK = Effort("make powercut", (0, 1), (0,), 48, further=8)
FULL = Effort("make powercut-full", (0, 1, 2), (0,), 1, whole=True)
SMOKE = Effort("smoke", (0,), (), 0)


def golden(runner: Runner, start: State) -> list[Step]:
    """The uninterrupted run of a scenario up to its goal; the replay of its operations must give the flash."""
    steps = []
    for step in runner.chain(start):
        data = bytearray(step.before.data)
        for op in step.up.ops:
            op.apply(data)
        if bytes(data) != step.after.data:
            raise CampaignError(f"{runner.scenario.name}: the replayed operations do not give the flash")
        if "done" in step.up.said:
            steps.append(step)
            break
        steps.append(step)
    runner.good.clear()
    return steps


def _own(steps: list[Step], scenario: Scenario) -> list[tuple[int, Step]]:
    """The steps in which the scenario is cut."""
    numbered = list(enumerate(steps))
    chosen = [pair for pair in numbered if scenario.cuts is None or pair[0] in scenario.cuts]
    if not chosen:
        raise CampaignError(f"{scenario.name}: the golden run has no power-up {scenario.cuts}, only {len(steps)}")
    return chosen


def _ops_of(step: Step) -> list[Op]:
    """The operations of a step that belong to its scenario: not those of the update that proves that updates go on."""
    return step.up.ops[: step.up.said["done_at"]] if "done" in step.up.said else step.up.ops


def kill_for_real(runner: Runner, number: int, step: Step) -> int:
    """Cuts a step before each of its operations by killing the device; the bytes left must be the replayed ones."""
    device = runner.device
    data = bytearray(step.before.data)
    fired = 0
    for at, op in enumerate(_ops_of(step)):
        device.load(step.before)
        device.rtc[:] = step.rtc
        job = runner.scenario.job()
        up = runner._power_up(step.cause, job, step.before, at)
        if up.end == "cut":
            fired += 1
            if device.read() != bytes(data):
                raise CampaignError(
                    f"{runner.scenario.name}: killed at {number}.{at}, the flash is not the replayed one"
                )
        elif at >= step.up.booted:
            raise CampaignError(f"{runner.scenario.name}: the cut at operation {number}.{at} did not fire")
        op.apply(data)
    return fired


def starve(scenario: Scenario, device: Device, leaves: Iterable[int]) -> tuple[int, int]:
    """Runs every step of a scenario with so few bytes of heap; whatever MemoryError leaves must be as good as a cut.

    Returns how many power-ups broke off with a MemoryError and how many did not. Broken where a rule does not hold.
    """
    runner = Runner(device, scenario)
    steps = golden(runner, State(scenario.base()))
    failed = fine = 0
    for leave in leaves:
        for _, step in _own(steps, scenario):
            device.load(step.before)
            device.rtc[:] = step.rtc
            up = runner._power_up(step.cause, {**scenario.job(), "leave": leave}, step.before)
            if up.end == "crash" and "MemoryError" not in up.said.get("error", ""):
                raise Broken(f"{scenario.name} with {leave} bytes of heap: {up.said}")
            short = up.end == "crash" or len(up.ops) < len(step.up.ops)  # the engine catches it, too
            failed, fine = failed + short, fine + (not short)
            state = State(device.read())
            reached = "done" in up.said  # what came after it belongs to another update
            runner.judge.at_rest(state, None if reached else step.before)
            if not reached:
                runner.recover(state, again=False)
    return failed, fine


Tell = Callable[[Numbers], None]


def run(
    scenario: Scenario,
    effort: Effort,
    device: Device,
    *,
    first_failure: bool = False,
    tell: Tell | None = None,
) -> Numbers:
    """One scenario; *tell* is called now and then with the numbers so far."""
    began, boots = time.monotonic(), device.power_ups
    numbers = Numbers(scenario.name)
    runner = Runner(device, scenario)
    distinct: set[int] = set()
    told = began

    def count() -> None:
        nonlocal told
        numbers.distinct, numbers.power_ups = len(distinct), device.power_ups - boots
        numbers.seconds = time.monotonic() - began
        if tell and time.monotonic() > told + 2:
            tell(numbers)
            told = time.monotonic()

    try:
        steps = golden(runner, State(scenario.base()))
    except Broken as broken:
        numbers.failures.append(f"{scenario.name}/: {broken}")
        return numbers
    for number, step in _own(steps, scenario):
        ops = _ops_of(step)
        numbers.operations += len(ops)
        numbers.killed += kill_for_real(runner, number, step)
        for cut, state, before, is_torn in cuts(step.before, ops, effort.seeds):
            numbers.states += 1
            numbers.torn += is_torn
            distinct.add(state.key)
            name = f"{scenario.name}/{number}.{cut}"
            again = effort.again(numbers, is_torn=is_torn)
            try:
                runner.judge.at_rest(state, before, is_torn)
                recovery = runner.recover(state, again=again, whole=effort.whole or scenario.whole)
            except Broken as broken:
                numbers.failures.append(f"{name}: {broken}")
                if first_failure:
                    return numbers
                continue
            numbers.again += again
            for second, other, between, torn_too in cuts(state, recovery if again else [], effort.second_seeds):
                if other.key == state.key:
                    continue
                numbers.second += 1
                distinct.add(other.key)
                try:
                    runner.judge.at_rest(other, between, torn_too or is_torn)
                    short = bool(numbers.second % effort.further)
                    numbers.further += not short
                    for _ in runner.chain(other, short=short):
                        pass
                except Broken as broken:
                    numbers.failures.append(f"{name}/{second}: {broken}")
                    break
                count()
            if first_failure and numbers.failures:
                return numbers
            count()
    count()
    return numbers


def reproduce(name: str) -> str | None:
    """Runs one case by its id and prints its story; returns what is broken, or None."""
    wanted, *parts = name.split("/")
    scenario = next(one for one in scenarios() if one.name == wanted)
    runner = Runner(the_device(), scenario, remember=False)
    try:
        steps = golden(runner, State(scenario.base()))
    except Broken as broken:
        return str(broken)
    if not parts or not parts[0]:
        return None
    number, cut = parts[0].split(".", 1)
    step = steps[int(number)]
    try:
        state, before, within = _find(step.before, _ops_of(step), cut)
        runner.judge.at_rest(state, before, within)
        if len(parts) > 1:
            first = within
            state, before, within = _find(state, runner.recover(state, whole=True), parts[1])
            runner.judge.at_rest(state, before, within or first)
            for _ in runner.chain(state, short=True):
                pass
        for step in runner.chain(state):
            print(f"{step.up.running}: {json.dumps(step.up.said)}")
            for op in step.up.ops:
                print(f"    {op.kind} 0x{op.address:x} {op.length}")
    except Broken as broken:
        return str(broken)
    return None


def _find(start: State, ops: list[Op], cut: str) -> tuple[State, State, bool]:
    """The state of a cut by its id, the one that its operation began from, and whether that was torn."""
    place, _, how = cut.partition(":")
    number = int(place)
    if not how:
        before = State(bytes(replay(start.data, ops[: max(0, number - 1)])))
        return State(bytes(replay(start.data, ops[:number]))), before, False
    data = replay(start.data, ops[:number])
    before = State(bytes(data))
    shape, seed = how.split(":")
    tear(data, ops[number], shape, int(seed))
    return State(bytes(data)), before, True


def _worker(tasks: Any, results: Any, effort: Effort, first_failure: bool) -> None:
    known = {one.name: one for one in scenarios()}
    try:
        while name := tasks.get():
            done = run(
                known[name],
                effort,
                the_device(),
                first_failure=first_failure,
                tell=lambda numbers: results.put((False, numbers)),
            )
            results.put((True, done))
    except BaseException as error:
        results.put((True, CampaignError(f"{name}: {error!r}")))
        raise


def _dearest_first(names: list[str]) -> list[str]:
    """*names* by what they took the last time, so that the processes end together; unknown ones first."""
    try:
        rows = json.loads((REPO / "docs" / "evidence" / "powercut.json").read_text())["rows"]
    except (OSError, KeyError, ValueError):
        rows = []
    took = {row["scenario"]: row["power_ups"] for row in rows}
    return sorted(names, key=lambda name: -took.get(name, 1 << 30))


class Progress:
    """One line that is written again and again on a terminal, now and then in a log."""

    def __init__(self, scenarios: int) -> None:
        self.scenarios = scenarios
        self.began = self.told = time.monotonic()
        self.current: dict[str, Numbers] = {}
        self.ended: list[Numbers] = []

    def tell(self) -> None:
        """Write the line, if it is time."""
        now, tty = time.monotonic(), sys.stderr.isatty()
        if now - self.told < (0.5 if tty else 30):
            return
        self.told = now
        every = [*self.ended, *self.current.values()]
        width = 24 * len(self.ended) // max(1, self.scenarios)
        print(
            f"{chr(13) if tty else ''}[{'#' * width:24}] {len(self.ended)} of {self.scenarios} scenarios, "
            f"{sum(one.states for one in every):,} first cuts, {sum(one.second for one in every):,} second cuts, "
            f"{now - self.began:,.0f} s ",
            end="" if tty else "\n",
            file=sys.stderr,
            flush=True,
        )


class Checkpoint:
    """Ended scenarios in a file, a JSON line each; those of other code or another effort do not count."""

    def __init__(self, path: Path | None, effort: Effort) -> None:
        self.path = path
        here = Path(__file__).parent
        code = b"".join(path.read_bytes() for path in sorted([*here.glob("*.py"), here / "shims" / "_campaign.py"]))
        self.key = f"{device_code.boot_digest()[:16]}-{hashlib.sha256(code).hexdigest()[:16]}-{effort.name}"

    def load(self) -> list[Numbers]:
        """The scenarios that need not be run again."""
        if not self.path or not self.path.exists():
            return []
        lines = [json.loads(line) for line in self.path.read_text().splitlines()]
        return [Numbers(**line["numbers"]) for line in lines if line["key"] == self.key]

    def add(self, numbers: Numbers) -> None:
        """Keep one more."""
        if self.path:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a") as file:
                file.write(json.dumps({"key": self.key, "numbers": asdict(numbers)}) + "\n")


def campaign(
    names: list[str],
    effort: Effort,
    workers: int,
    *,
    first_failure: bool = False,
    checkpoint: Path | None = None,
    minutes: float = 0,
) -> list[Numbers]:
    """All scenarios in *names* on so many processes. CampaignError when the campaign itself is broken.

    After *minutes* it stops: with a *checkpoint* it returns the scenarios that ended, else that is an error.
    """
    kept = Checkpoint(checkpoint, effort)
    progress = Progress(len(names))
    progress.ended = [one for one in kept.load() if one.name in names]
    open_names = [name for name in names if name not in [one.name for one in progress.ended]]
    tasks: Any = multiprocessing.Queue()
    results: Any = multiprocessing.Queue()
    for name in [*_dearest_first(open_names), *[""] * workers]:
        tasks.put(name)
    processes = [
        multiprocessing.Process(target=_worker, args=(tasks, results, effort, first_failure)) for _ in range(workers)
    ]
    for process in processes:
        process.start()
    try:
        while len(progress.ended) < len(names):
            if minutes and time.monotonic() - progress.began > 60 * minutes:
                if checkpoint:
                    break
                raise CampaignError(f"not done after {minutes:g} minutes")
            try:
                ended, got = results.get(timeout=1)
            except queue.Empty:
                if not any(process.is_alive() for process in processes):
                    raise CampaignError("a worker has died") from None
                progress.tell()
                continue
            if isinstance(got, BaseException):
                raise got
            progress.current[got.name] = got
            if ended:
                progress.ended.append(progress.current.pop(got.name))
                kept.add(got)
                _print(got)
            progress.tell()
    finally:
        for process in processes:
            if len(progress.ended) < len(names):
                process.terminate()
            process.join()
    found = {one.name: one for one in progress.ended}
    return [found[name] for name in names if name in found]


def _print(got: Numbers) -> None:
    print(f"{got.name}: {got.states} states, {got.second} second cuts, {got.seconds:.0f} s", flush=True)
    for failure in got.failures:
        print(f"FAIL {failure}\n     python -m sekisho_sim.campaign --case {failure.split(': ')[0]}", flush=True)


COLUMNS = ("operations", "killed", "states", "torn", "again", "second", "distinct", "power_ups", "seconds")


def report(numbers: list[Numbers]) -> str:
    """The numbers as a Markdown table."""
    lines = [
        "| scenario | operations | killed for real | states | torn | cut again | second cuts | distinct states "
        "| power-ups | seconds |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    total = Numbers("**all**")
    for one in numbers:
        lines.append(_row(one))
        for key in COLUMNS:
            setattr(total, key, getattr(total, key) + getattr(one, key))
    return "\n".join([*lines, _row(total)])


def _row(one: Numbers) -> str:
    cells = [f"{getattr(one, name):,.0f}" for name in COLUMNS]
    return f"| {one.name} | " + " | ".join(cells) + " |"


def main(arguments: list[str] | None = None) -> int:
    """The command; 1 when anything is broken."""
    parser = argparse.ArgumentParser(prog="python -m sekisho_sim.campaign", description=__doc__.split("\n")[0])
    parser.add_argument("--full", action="store_true", help="every second cut (long)")
    parser.add_argument("--smoke", action="store_true", help="first cuts with one seed only")
    parser.add_argument("--sample", type=int, help="cut the recovery again from one in so many torn first cuts")
    parser.add_argument("--seeds", type=int, help="so many seeds of each torn shape")
    parser.add_argument("--case", metavar="ID", help="run one case again and tell its story")
    parser.add_argument("--only", metavar="NAMES", help="these scenarios, comma-separated")
    parser.add_argument("--first-failure", action="store_true", help="stop a scenario at its first failure")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--evidence", metavar="DIRECTORY", help="write powercut.md and powercut.json there")
    parser.add_argument("--checkpoint", metavar="FILE", type=Path, help="keep ended scenarios there, and go on from it")
    parser.add_argument("--minutes", type=float, default=0, help="stop after so long; without --checkpoint an error")
    options = parser.parse_args(arguments)
    if options.case:
        broken = reproduce(options.case)
        print(f"{options.case}: {broken or 'holds'}")
        return 1 if broken else 0
    names = [one.name for one in scenarios()]
    if options.only:
        unknown = set(options.only.split(",")) - set(names)
        if unknown:
            parser.error(f"no such scenario: {', '.join(sorted(unknown))}; known: {', '.join(names)}")
        names = [name for name in names if name in options.only.split(",")]
    effort = FULL if options.full else SMOKE if options.smoke else QUICK
    if options.sample:
        effort = replace(effort, name=f"{effort.name} --sample {options.sample}", sample=options.sample)
    if options.seeds:
        effort = replace(effort, name=f"{effort.name} --seeds {options.seeds}", seeds=tuple(range(options.seeds)))
    began = time.monotonic()
    try:
        numbers = campaign(
            names,
            effort,
            options.workers,
            first_failure=options.first_failure,
            checkpoint=options.checkpoint,
            minutes=options.minutes,
        )
    except CampaignError as error:
        print(f"error[CAMPAIGN]: the campaign itself is broken: {error}.", file=sys.stderr)
        return 1
    took = time.monotonic() - began
    print(report(numbers))
    failures = [failure for one in numbers for failure in one.failures]
    print(f"{effort.name}: {len(numbers)} of {len(names)} scenarios, {len(failures)} failures, {took:.0f} s")
    if options.evidence:
        evidence(Path(options.evidence), numbers, effort, took, options.workers)
    return 1 if failures else 0


RULES = """* The bootloader finds a slot to start in every state, and whatever it would start is an approved image.
* A slot that begins like a whole image is one: the first page comes last (not judged inside a torn operation).
* Until a scenario's goal is reached, the slot that must be kept as the way back stays bootable as it is.
* The counters that the ledger's bytes prove never decrease, not from operation to operation nor from boot to boot, and
  the device never says less than they prove.
* Firmware that runs outside a trial, and not degraded, is not below the counter.
* The application that is mounted is approved and belongs to the firmware that runs.
* The watchdog is armed in a trial and only there, for the whole trial.
* An image that never confirms is tried three times at most, whatever is cut; eight times more where a torn erase left
  an otadata state that the bootloader does not know.
* The device is never degraded without a reason that the scenario gives, never stuck, and rests after at most 60
  power-ups: with its goal reached or the update ended for the reason that is due, and with one more update done.
* In the end otadata selects the running slot as VALID, the key set is the newest, and what must be refused (the factory
  release, a spent permit, a revoked signer) is refused without a single flash operation."""


def _second(effort: Effort) -> str:
    if effort.sample == 1:
        return "every one of them"
    return f"every clean one and one in {effort.sample} of the torn ones"


def _scope(effort: Effort) -> str:
    if effort.whole:
        return "A recovery is all that the device does until the goal\nof the scenario is reached."
    return (
        "A recovery is what the engine does until the\napplication gets control; where it is the application that "
        "recovers (key sets, ordered rollback), what the device\ndoes until the goal of the scenario is reached."
    )


def _commit() -> str:
    done = subprocess.run(
        ["git", "-C", str(REPO), "describe", "--always", "--dirty", "--abbrev=12"],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or "unknown"


def evidence(directory: Path, numbers: list[Numbers], effort: Effort, took: float, workers: int) -> None:
    """Writes powercut.md and powercut.json, or powercut-full.*."""
    name = "powercut-full" if effort.whole else "powercut"
    failures = [failure for one in numbers for failure in one.failures]
    rows = [{"scenario": one.name, **{name: round(getattr(one, name)) for name in COLUMNS}} for one in numbers]
    missing = [one.name for one in scenarios() if one.name not in [done.name for done in numbers]]
    boot = device_code.boot_digest()
    commit = _commit()
    content = {
        "effort": effort.name,
        "boot": boot,
        "commit": commit,
        "seconds": round(took),
        "processes": workers,
        "failures": failures,
        "missing": missing,
        "rows": rows,
    }
    write_atomic(directory / f"{name}.json", (json.dumps(content, indent=1) + "\n").encode())
    shapes = len(PROGRAM_SHAPES) + len(ERASE_SHAPES)
    left_out = f"Not run: {', '.join(missing)}.\n\n" if missing else ""
    broken = "".join(f"* `{failure}`\n" for failure in failures)
    processor = sum(one.seconds for one in numbers)
    text = f"""# Power cuts{" without end" if effort.whole else ""}

Written by `{effort.name}`; do not edit. How it works is said at the top of `host_sim/sekisho_sim/campaign.py`.
Recorded for boot/ {boot[:16]}, commit {commit}.

**{effort.name}: {len(numbers)} scenarios, {len(failures)} failures**, {processor:,.0f} seconds of {workers} processes.
{broken}
{left_out}{report(numbers)}

*Operations*: flash operations of the golden run, erase or program, the bootloader's included. *Killed for real*: the
device process killed itself before that operation, and its flash was compared with the replayed log, byte for byte.
*States*: what a cut at any operation boundary or inside any operation leaves, equal ones once; from each the
device was started again in fresh MicroPython processes. *Torn*: those inside an operation; they come in {shapes} shapes
({len(PROGRAM_SHAPES)} of a program, {len(ERASE_SHAPES)} of an erase), each with {len(effort.seeds)} seeds.
*Cut again*: first cuts whose recovery was cut at every state of it, cleanly and torn, {_second(effort)}.
*Second cuts*: the states that this gave, equal ones of one recovery once; the device must come to the goal again, and
after one in {effort.further} of them do one more update and refuse what must be refused, as after every first cut.
*Distinct states*: of all first and second cuts of the scenario. {_scope(effort)}

## What the judge asks

{RULES}

## What this does not show

* Ed25519 signatures are verified once for each (key, message, signature), by the engine's own code on MicroPython, in
  the process that the devices are forked from; the devices then remember the verdict. Nothing else is remembered.
* A state from which a device of the same scenario has already been followed to a good end is not followed again.
* Slots are 128 KiB, images 9 to 74 KiB, so that there is time for all states. The engine is the shipped one.
* The bootloader's own weakness: a torn erase of an otadata entry can leave sequence and CRC as they were and another
  state, which ESP-IDF takes for confirmed. An image that then hangs before its first engine run is started for ever.
* The shapes of torn operations are a model. What real flash does when the voltage sinks is for a real board to show.
"""
    write_atomic(directory / f"{name}.md", text.encode())


if __name__ == "__main__":
    sys.exit(main())
