"""The device: from power-up to the next reset, in a MicroPython process of its own.

`run` does one power-up: bootloader, then the personality of the slot it chose, until the chip resets, sleeps, loses
power or comes to rest. `power_cycle` goes on from there, as a device on a desk does. Every power-up is a fresh process;
a power cut or a watchdog kills it.
"""

from __future__ import annotations

import atexit
import hashlib
import mmap
import os
import shutil
import struct
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from sekisho_tools import imagefile
from sekisho_tools.errors import ToolError
from sekisho_tools.imagefile import CHIPS, Chip
from sekisho_tools.layout import Partition

from . import bootloader, nvs, ota
from .bootloader import BootResult, Cause
from .driver import Driver, Managed, Spec, default_driver
from .flash import Flash, MemPart, Op, PowerCutError, decode_ops, encode_ops, tear
from .ota import EspError
from .personality import STOCK, Personality, Tree, shims
from .shims import _sim_layout as at
from .world import RTC_MEMORY, World

CAUSES = {
    at.STOP_RESET: "reset",
    at.STOP_DEEPSLEEP: "deep-sleep",
    at.STOP_SOFT_RESET: "soft-reset",
    at.STOP_CUT: "cut",
    at.STOP_PANIC: "panic",
    at.STOP_IDLE: "idle",
}
"""Why a run ended, as the device says it. The host adds ``watchdog``, ``no-boot`` (the bootloader gave up),
``until`` (what the caller waited for was printed) and ``timeout`` (it never ended)."""

RESTING = ("idle", "until", "timeout", "cut", "no-boot")
"""Causes after which a device does not start again by itself."""

_NEXT: dict[str, Cause] = {"reset": "reset", "panic": "reset", "watchdog": "watchdog", "deep-sleep": "deep-sleep"}
_RESET_CAUSE: dict[Cause, int] = {"power-on": 1, "reset": 5, "watchdog": 3, "deep-sleep": 4}
BOARD_SIZE = 64 << 20
"""Room for the operation log of one power-up; the file is sparse."""
EPOCH = 946684800


@dataclass
class RunResult:
    """One power-up. *cause* is why it ended (`CAUSES`), *ops* its flash operations, the torn or missing last one of a
    cut left out; *boot* what the bootloader did, *sleep_ms* how long a deep sleep was to last (0: for ever),
    *heap_free* bytes of heap free when the device's own code began."""

    cause: str
    ops: list[Op]
    console: str
    boot: BootResult
    slot: str | None = None
    personality: str | None = None
    cut_op: Op | None = None
    sleep_ms: int = 0
    heap_free: int = 0


@dataclass(frozen=True)
class _Costs:
    """What the simulator itself takes of the interpreter's heap: *shims*, per frozen module, and *total* of these with
    the growth of the string pool."""

    shims: int
    modules: dict[str, int]
    total: int


_costs: dict[tuple[str, ...], _Costs] = {}
_measuring = threading.Lock()


class _Board:
    """The memory shared with the device (shims/_sim_layout.py)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("w+b") as file:
            file.truncate(BOARD_SIZE)
            self.memory = mmap.mmap(file.fileno(), BOARD_SIZE)
        self.memory[at.BLANK : at.BLANK + 4096] = b"\xff" * 4096

    def __getitem__(self, offset: int) -> int:
        return int(struct.unpack_from("<I", self.memory, offset)[0])

    def __setitem__(self, offset: int, value: int) -> None:
        struct.pack_into("<I", self.memory, offset, value)

    def get64(self, offset: int) -> int:
        """A u64."""
        return int(struct.unpack_from("<Q", self.memory, offset)[0])

    def put64(self, offset: int, value: int) -> None:
        """Write a u64."""
        struct.pack_into("<Q", self.memory, offset, value)

    def put(self, offset: int, data: bytes) -> None:
        """Write bytes."""
        self.memory[offset : offset + len(data)] = data

    def ops(self) -> list[Op]:
        """The operations that completed."""
        return decode_ops(self.memory[at.LOG : at.LOG + self[at.USED]])

    def pending(self) -> Op | None:
        """The operation that had begun, or was about to, when the device stopped."""
        used = self[at.USED]
        if self[at.PENDING] != used + 1:
            return None  # none, or it was complete and the device was stopped before it could say so
        start = at.LOG + used
        kind, _, length = struct.unpack_from("<BII", self.memory, start)
        return decode_ops(self.memory[start : start + 9 + (length if kind else 0)])[0]


class _BoardFlash(Flash):
    """The flash as host code sees it, with its operations counted, logged and cut together with the device's."""

    def __init__(self, buffer: mmap.mmap, board: _Board) -> None:
        super().__init__(buffer, keep_log=False)
        self.board = board

    def _do(self, op: Op) -> None:
        board = self.board
        record = encode_ops([op])
        used = board[at.USED]
        if used + len(record) > board[at.CAPACITY]:
            raise ToolError("OPS_FULL", "One power-up made more flash operations than the simulator has room to log.")
        board.put(at.LOG + used, record)
        board[at.PENDING] = used + 1
        if board[at.COUNT] == board[at.CUT]:
            raise PowerCutError(f"power lost at flash operation {board[at.COUNT]}")
        op.apply(self.buffer)
        board[at.USED] = used + len(record)
        board[at.COUNT] += 1
        board[at.PENDING] = 0


@dataclass
class Limits:
    """When to stop watching: *seconds* of the host's time for one power-up, *until* something was printed, or when
    another thread sets *stop*."""

    seconds: float = 120.0
    until: str | None = None
    stop: bool = False


class Machine(Managed):
    """Runs worlds, one power-up at a time. Holds a process to fork from and a directory for what is shared."""

    def __init__(self, driver: Driver | None = None) -> None:
        self.driver = driver or default_driver()
        base = Path("/dev/shm")  # noqa: S108 (memory, where there is any)
        prefix = f"sekisho-sim-{os.getpid()}-"
        self.directory = Path(tempfile.mkdtemp(prefix=prefix, dir=base if os.access(base, os.W_OK) else None))
        self._remove = weakref.finalize(self, shutil.rmtree, self.directory, ignore_errors=True)
        self._board = _Board(self.directory / "board.bin")
        self._rpc = self.directory / "rpc"
        for end in (".ask", ".answer"):
            os.mkfifo(f"{self._rpc}{end}")
        # Opened for both directions, an end of a FIFO neither waits for the other nor breaks when it goes away.
        self._ask = os.open(f"{self._rpc}.ask", os.O_RDWR | os.O_NONBLOCK)
        self._answer = os.open(f"{self._rpc}.answer", os.O_RDWR | os.O_NONBLOCK)
        self._maps: dict[Path, tuple[int, int, mmap.mmap]] = {}
        self._cause = ""
        self._digests: dict[tuple[int, bytes], str] = {}
        self._trees: dict[int, tuple[Personality, Tree]] = {}

    def close(self) -> None:
        """End the helper process and remove the shared files."""
        self.driver.close()
        os.close(self._ask)
        os.close(self._answer)
        self._maps.clear()
        self._board.memory.close()
        self._remove()

    def memory(self, world: World) -> mmap.mmap:
        """The bytes of the flash of *world*, as the device sees them; to be written only while it is switched off."""
        return self._map(world.flash_path)

    # -- one power-up -------------------------------------------------------------------------

    def run(
        self,
        world: World,
        cut: int | None = None,
        torn: str | None = None,
        *,
        seed: int = 0,
        limits: Limits | None = None,
        console: Callable[[str], None] | None = None,
        on_boot: Callable[[BootResult], None] | None = None,
        must_cut: bool = True,
    ) -> RunResult:
        """Start *world* and watch it until it stops.

        With *cut*, the power goes when flash operation number *cut* is about to start (0 = the first of this power-up,
        the bootloader's included); *torn* and *seed* say what becomes of that operation (`flash.torn`), without them
        nothing. *console* is given what the device prints as it comes, *on_boot* what the bootloader did.
        Raises ToolError NO_CUT when the device
        stopped before that operation (unless *must_cut* is False), TORN_SHAPE when the shape does not fit it,
        SIMULATOR when the simulator failed.
        """
        board = self._board
        flash = _BoardFlash(self.memory(world), board)
        board.put(0, bytes(512))
        board[at.CUT] = at.NEVER if cut is None else cut
        board[at.CAPACITY] = BOARD_SIZE - at.LOG
        try:
            result = self._boot_and_run(world, flash, limits or Limits(), console, on_boot)
        except PowerCutError:
            result = RunResult("cut", [], "", BootResult(None, None, []))
        self._settle(world, flash, result, torn, seed)
        result.ops = board.ops()
        world.save(board.memory[at.LOG : at.LOG + board[at.USED]])
        if cut is not None and result.cause != "cut" and must_cut:
            raise no_cut(len(result.ops), result.cause)
        return result

    def _boot_and_run(
        self,
        world: World,
        flash: _BoardFlash,
        limits: Limits,
        console: Callable[[str], None] | None,
        on_boot: Callable[[BootResult], None] | None,
    ) -> RunResult:
        board, rtc = self._board, world.rtc
        if rtc.stopped == "soft-reset":
            table = bootloader.read_table(flash)
            slot = next(part for part in table if part.offset == rtc.running)
            selected = bootloader.boot_partition(flash, table)
            boot = BootResult(slot.label, selected.label if selected else None, [], slot, table)
            board[at.WDT] = rtc.watchdog
        else:
            cause = _NEXT.get(rtc.stopped, "power-on")
            if cause == "power-on":
                world.unplug()
                rtc = world.rtc
            rtc.cause = _RESET_CAUSE[cause]
            boot = bootloader.power_on(flash, world.efuse, cause, world.profile, rtc.boot)
            if on_boot:
                on_boot(boot)
            if boot.slot is None or boot.table is None:
                return RunResult("no-boot", [], "", boot)
            slot, table = boot.slot, boot.table
        rtc.running = slot.offset
        personality = world.personalities.find(self._image_digest(flash, slot, world))
        self._fill(world, slot, list(table))
        printed = self._python(world, flash, boot, personality, limits, console)
        cause_name = self._cause
        result = RunResult(cause_name, [], printed, boot, slot.label, personality.name)
        result.sleep_ms = board[at.ARG] if cause_name == "deep-sleep" else 0
        result.heap_free = board[at.FREE]
        now = self._clock()
        rtc.clock = now + result.sleep_ms * 1000
        rtc.memory = board.memory[at.RTC : at.RTC + min(board[at.RTC_LENGTH], RTC_MEMORY)]
        rtc.watchdog = board[at.WDT]
        return result

    def _clock(self) -> int:
        board = self._board
        elapsed = time.monotonic_ns() // 1000 - board.get64(at.START)
        return board.get64(at.CLOCK) + elapsed * board[at.SPEED]

    def _fill(self, world: World, slot: Partition, table: list[Partition]) -> None:
        board, rtc = self._board, world.rtc
        now = time.monotonic_ns() // 1000
        board[at.SPEED] = world.speed
        board.put64(at.START, now)
        board.put64(at.CLOCK, rtc.clock)
        board.put64(at.FED, now)
        board[at.RUNNING], board[at.RUNNING_SIZE] = slot.offset, slot.size
        board[at.CAUSE] = rtc.cause
        board[at.RTC_LENGTH] = len(rtc.memory)
        board.put(at.RTC, rtc.memory)
        board.put(at.MAC, world.mac)
        if not any(part.label in ("vfs", "ffat") for part in table):
            # MicroPython registers what lies behind the last partition, in RAM, under this name.
            end = max(part.end for part in table)
            size = world.flash_path.stat().st_size
            if end < size:
                table = [*table, Partition("vfs", 1, 0x81, end, size - end)]
        board[at.TABLE_COUNT] = len(table)
        board.put(at.TABLE, b"".join(part.encode() for part in table))
        board.put(at.NET, world.network.encode())

    def _python(
        self,
        world: World,
        flash: _BoardFlash,
        boot: BootResult,
        personality: Personality,
        limits: Limits,
        console: Callable[[str], None] | None,
    ) -> str:
        """Run the personality; sets ``_cause`` and returns what it printed."""
        board = self._board
        with _measuring:  # fleets run many machines, in threads
            known = self._trees.get(id(personality))
            if known is None:
                known = self._trees[id(personality)] = (personality, personality.tree())
            tree = known[1]
            costs = self._measure(tree, world)
        board.put(at.VERSION, bytes(personality.version))
        board.put(at.COSTS, _encode_costs(costs.modules))
        heap = world.heap + costs.shims + costs.total
        spec = self._spec(world.flash_path, tree, heap, stock=personality.start == STOCK)
        host = _Host(flash, boot, world)
        self._cause = self._watch(spec, host, world, limits, console)
        printed = spec.console.read_bytes().decode(errors="replace")
        if self._cause in ("crash", "broken", "log-full"):
            raise ToolError(
                "SIMULATOR", f"The simulator itself failed ({self._cause}); the device had printed: {printed[-600:]!r}."
            )
        return printed

    def _spec(self, flash: Path, tree: Tree, heap: int, *, stock: bool = False, calibrate: bool = False) -> Spec:
        backend = "_sim_mem" if self.driver.shares_memory else "_sim_file"
        addresses = "@ADDRESSES@" if self.driver.shares_memory else f"0, {flash.stat().st_size}, 0, 0"
        console = self.directory / "console"
        shares = self.driver.shares_memory
        warm = self.driver.warm and not calibrate
        code = (
            "import gc\ngc.collect()\nb=gc.mem_alloc()\n"
            f"import _sim_start as s\nimport {backend} as p\n"
            f"s.go(b,p,({addresses}),{str(self._rpc)!r},{str(tree.directory)!r},"
            f"{'' if shares else str(flash.resolve())!r},{'' if shares else str(self._board.path)!r},"
            f"{stock},{calibrate},{warm})  # {self._board[at.VERSION]:x} {self._board[at.SPEED]}"
        )
        argv = ("micropython", "-X", f"heapsize={heap}", "-c", code)
        return Spec(argv, (flash.resolve(), self._board.path), shims().directory, console, warm)

    def _watch(
        self, spec: Spec, host: _Host, world: World, limits: Limits, console: Callable[[str], None] | None
    ) -> str:
        """Serve the device until it stops; returns the cause."""
        board, driver = self._board, self.driver
        tail = _Tail(spec.console, console, limits.until)
        self._start(spec)
        end = time.monotonic() + limits.seconds
        pause = 0.02 if console or limits.until else 0.05
        while True:
            status, asked = driver.wait(self._ask, pause)
            if status is not None:
                reached = tail.read()
                break
            try:
                if asked:
                    self._serve(host)
            except PowerCutError:
                driver.kill()
                return "cut"
            if tail.read():
                driver.kill()
                return "until"
            if board[at.WDT] and time.monotonic_ns() // 1000 > self._deadline(world):
                driver.kill()
                return "watchdog"
            if limits.stop or time.monotonic() > end:
                driver.kill()
                return "timeout"
        stop = board[at.STOP]
        if stop not in CAUSES:
            return {at.STOP_BROKEN: "broken", at.STOP_LOG_FULL: "log-full"}.get(stop, "crash")
        if reached and stop != at.STOP_CUT:
            return "until"
        if stop == at.STOP_IDLE and board[at.WDT]:
            return "watchdog"  # it sits at the prompt until the watchdog bites
        return CAUSES[stop]

    def _start(self, spec: Spec) -> None:
        """Start a device process with nothing in the pipes: one that was stopped between asking and reading the answer
        leaves a question or an answer behind, which would be taken for its successor's."""
        for pipe in (self._ask, self._answer):
            _drain(pipe)
        self.driver.start(spec)

    def _deadline(self, world: World) -> int:
        return self._board.get64(at.FED) + self._board[at.WDT] * 1000 // world.speed

    def _settle(self, world: World, flash: _BoardFlash, result: RunResult, torn: str | None, seed: int) -> None:
        """What becomes of the operation in progress, and of the RTC domain."""
        board = self._board
        op = board.pending()
        world.rtc.stopped = (
            "power-off" if result.cause in ("cut", "idle", "until", "timeout", "no-boot") else result.cause
        )
        if op is None:
            return
        if result.cause == "cut":
            result.cut_op = op
            if torn is not None:
                try:
                    tear(flash.buffer, op, torn, seed)
                except ValueError as error:
                    raise ToolError("TORN_SHAPE", f"{error}.") from error
        else:  # a reset does not stop what the flash chip was told to do
            op.apply(flash.buffer)
            board[at.USED] += len(encode_ops([op]))
            board[at.COUNT] += 1
        board[at.PENDING] = 0

    # -- what the device asks the host for ---------------------------------------

    def _serve(self, host: _Host) -> None:
        head = os.read(self._ask, 3)
        length, what = struct.unpack("<HB", head)
        payload = b""
        while len(payload) < length:
            payload += os.read(self._ask, length - len(payload))
        try:
            status, answer = 0, host.answer(what, payload)
        except EspError as error:
            status, answer = _errno(error.code), error.name.encode()
        os.write(self._answer, struct.pack("<iI", status, len(answer)) + answer)

    # -- small things -------------------------------------------------------------------------

    def _map(self, path: Path) -> mmap.mmap:
        stat = path.stat()
        known = self._maps.pop(path, None)
        if known is None or known[:2] != (stat.st_size, stat.st_ino):
            with path.open("r+b") as file:
                known = (stat.st_size, stat.st_ino, mmap.mmap(file.fileno(), 0))
        self._maps[path] = known
        while len(self._maps) > 8:
            del self._maps[next(iter(self._maps))]  # unmapped once nobody looks at it any more
        return known[2]

    def _image_digest(self, flash: Flash, slot: Partition, world: World) -> str:
        """SHA-256 (hex) of the app image in *slot*; an image just verified is known again by its appended hash."""
        if not world.personalities.images:
            return ""
        with memoryview(flash.buffer)[slot.offset : slot.end] as data:
            try:
                image = imagefile.read_structure(data)
            except ToolError:
                return ""
            if not image.hash_appended:
                return hashlib.sha256(data[: image.length]).hexdigest()
            key = (image.length, bytes(data[image.length - 32 : image.length]))
            if key not in self._digests:
                self._digests[key] = hashlib.sha256(data[: image.length]).hexdigest()
            return self._digests[key]

    def _measure(self, tree: Tree, world: World) -> _Costs:
        """What shims and frozen modules cost in heap, measured once in a process with plenty of it."""
        key = (str(tree.directory), str(shims().directory), type(self.driver).__name__)
        if key in _costs:
            return _costs[key]
        board = self._board
        saved = bytes(board.memory[:512]), bytes(board.memory[at.NET : at.BLANK])
        runs = []
        # In two orders: the growth of the string pool falls on whichever module fills it, another one each time, and on
        # another one again when the device runs. So it is kept aside for none.
        for paths in (tree.paths, tree.paths[::-1]):
            board.put(at.COSTS, _encode_costs(dict.fromkeys(paths, 0)))
            spec = self._spec(world.flash_path, tree, 16 << 20, calibrate=True)
            self._start(spec)
            status, _ = self.driver.wait(self._ask, 60)
            if status is None:
                self.driver.kill()
            if board[at.STOP] != at.STOP_IDLE:
                text = spec.console.read_text()
                raise ToolError("SIMULATOR", f"Measuring the simulator's own heap failed: {text!r}.")
            runs.append(_decode_costs(board.memory[at.COSTS : at.LOG]))
            board[at.STOP] = 0
        least = {path: min(run[path] for run in runs) for path in tree.paths}
        costs = _Costs(board[at.SHIM_COST], least, sum(runs[0].values()))
        board.put(0, saved[0])
        board.put(at.NET, saved[1])
        _costs[key] = costs
        return costs


class _Tail:
    """Reads what a growing file has got since the last look."""

    def __init__(self, path: Path, give: Callable[[str], None] | None, until: str | None) -> None:
        self.path, self.give, self.until = path, give, until
        self.at = 0
        self.text = ""
        path.write_bytes(b"")

    def read(self) -> bool:
        """Pass on what is new; True once the awaited text was there."""
        if self.give is None and self.until is None:
            return False
        try:
            with self.path.open("rb") as file:
                file.seek(self.at)
                data = file.read()
        except OSError:
            return False
        self.at += len(data)
        text = data.decode(errors="replace")
        if text and self.give:
            self.give(text)
        if self.until is None:
            return False
        self.text = (self.text + text)[-4096:]
        return self.until in self.text


class _Host:
    """Answers the requests of one running device."""

    def __init__(self, flash: Flash, boot: BootResult, world: World) -> None:
        assert boot.table is not None
        self.flash, self.table, self.world = flash, boot.table, world
        self._store: nvs.Nvs | None = None

    def answer(self, what: int, payload: bytes) -> bytes:
        """The answer to request *what*; raises EspError."""
        if what == at.RPC_SET_BOOT:
            ota.set_boot(self.flash, self.table, self._part(payload), self._chip())
            return b""
        if what == at.RPC_BOOT_PARTITION:
            part = bootloader.boot_partition(self.flash, self.table)
            return struct.pack("<I", part.offset if part else 0)
        if what == at.RPC_NEXT_UPDATE:
            return struct.pack("<I", ota.next_update(self.table, struct.unpack("<I", payload)[0]).offset)
        if what == at.RPC_MARK_VALID:
            ota.mark_valid(self.flash, self.table)
            return b""
        if what == at.RPC_EFUSE_READ:
            return struct.pack("<I", self.world.efuse.read32(struct.unpack("<I", payload)[0]))
        if what == at.RPC_EFUSE_WRITE:
            self.world.efuse.write32(*struct.unpack("<II", payload))
            return b""
        if what == at.RPC_TIME:
            if not self.world.network.time:
                raise EspError(0x107, "ESP_ERR_TIMEOUT")
            return struct.pack("<Q", int((time.time() - EPOCH) * 1000000))
        if what == at.RPC_NVS:
            return self._nvs(payload)
        raise EspError(0x106, "ESP_ERR_NOT_SUPPORTED")

    def _part(self, payload: bytes) -> Partition:
        address = struct.unpack("<I", payload)[0]
        return next(part for part in self.table if part.offset == address)

    def _chip(self) -> Chip:
        found = imagefile.find_bootloader(self.flash.read(0, 0x8000))
        return found[0] if found else CHIPS["esp32"]

    def _nvs(self, payload: bytes) -> bytes:
        """NVS: *payload* is a verb, then the namespace (its name for open, else its index), key and value."""
        verb, handle, key, value = [*payload.split(b"\0", 3), b"", b"", b""][:4]
        try:
            if self._store is None:
                part = self.table.get("nvs")
                if part is None:
                    raise EspError(0x1101, "ESP_ERR_NVS_NOT_INITIALIZED")
                self._store, _ = nvs.mount(MemPart(part.size, self.flash, part.offset))
            if verb == b"open":
                return b"%d" % self._store.open(handle.decode())
            return self._nvs_call(self._store, verb.decode(), int(handle), key.decode(), value)
        except OSError as error:
            raise EspError(-error.args[0], error.args[1]) from None

    @staticmethod
    def _nvs_call(store: nvs.Nvs, verb: str, namespace: int, key: str, value: bytes) -> bytes:
        if verb in ("get_i32", "get_blob"):
            return store.get(namespace, key, nvs.I32 if verb == "get_i32" else nvs.BLOB_INDEX)
        if verb in ("set_i32", "set_blob"):
            store.set(namespace, key, nvs.I32 if verb == "set_i32" else nvs.BLOB_INDEX, value)
        else:
            store.erase_key(namespace, key)
        return b""


def no_cut(count: int, cause: str) -> ToolError:
    """The error of a power cut that never fired: a test with such a cut has shown nothing."""
    return ToolError(
        "NO_CUT", f"The power cut never happened: there were only {count} flash operations; it stopped by {cause}."
    )


def _errno(code: int) -> int:
    """MicroPython's `check_esp_err`: the errno for an esp_err_t."""
    return {0x101: 12, 0x107: 116, 0x106: 95}.get(code, -code)


def _encode_costs(modules: dict[str, int]) -> bytes:
    data = struct.pack("<H", len(modules))
    for path, cost in modules.items():
        data += struct.pack("<IB", cost, len(path)) + path.encode()
    if len(data) > at.LOG - at.COSTS:
        raise ToolError("PERSONALITY", "The personality has too many frozen modules for the simulator.")
    return data


def _decode_costs(data: bytes) -> dict[str, int]:
    costs, offset = {}, 2
    for _ in range(struct.unpack_from("<H", data)[0]):
        cost, length = struct.unpack_from("<IB", data, offset)
        costs[data[offset + 5 : offset + 5 + length].decode()] = cost
        offset += 5 + length
    return costs


def _drain(handle: int) -> None:
    try:
        while os.read(handle, 65536):
            pass
    except BlockingIOError:
        pass


# -- for callers that run one device ------------------------------------------------------

_machine: Machine | None = None


def machine() -> Machine:
    """The one machine of this process, made when first asked for."""
    global _machine
    if _machine is None:
        _machine = Machine()
        atexit.register(_machine.close)
    return _machine


def run(world: World, cut: int | None = None, torn: str | None = None, **options: object) -> RunResult:
    """One power-up of *world* on this process's machine: see `Machine.run`."""
    return machine().run(world, cut, torn, **options)  # type: ignore[arg-type]


def power_cycle(
    world: World,
    *,
    cut: int | None = None,
    torn: str | None = None,
    seed: int = 0,
    max_boots: int = 20,
    limits: Limits | None = None,
    console: Callable[[str], None] | None = None,
    on_boot: Callable[[BootResult], None] | None = None,
    on: Machine | None = None,
) -> Iterator[RunResult]:
    """Power-ups of *world*, one after the other, until it rests: idle, asleep for ever, *until* reached, cut, or
    *max_boots* of them.

    *cut* counts flash operations from the first power-up on; after the cut the power stays away. A soft reset counts
    as a power-up here, since it is a process of its own.
    """
    done = 0
    cause = "max-boots"
    for _ in range(max_boots):
        this = None if cut is None else cut - done
        result = (on or machine()).run(
            world, this, torn, seed=seed, limits=limits, console=console, on_boot=on_boot, must_cut=False
        )
        done += len(result.ops)
        cause = result.cause
        yield result
        if cause in RESTING or (cause == "deep-sleep" and result.sleep_ms == 0):
            break
    if cut is not None and cause != "cut":
        raise no_cut(done, cause)
