"""The device of the power-cut campaign, run by MicroPython: the engine on shared memory, and a small application.

One process loads all this and waits; every power-up is a fork of it, so that each starts from the same fresh state.
`start` is called with what campaign.py put into the command line. The forks come from a signal handler (see
campaign.py): the write in `_fork` returns twice.
"""

import gc
import json
import sys
from io import StringIO
from struct import pack_into

import uctypes
from sekisho_boot import cose, engine, reasons
from sekisho_boot.ed25519 import verify
from sekisho_boot.reasons import Refused

_ERASE = 0
_PROGRAM = 1
NEVER = 0xFFFFFFFF


class Board:
    """The shared memory: the flash, then u32 count of operations, u32 bytes of log, and the log."""

    def __init__(self, address, size, room):
        self.flash = memoryview(uctypes.bytearray_at(address, size))
        self.log = memoryview(uctypes.bytearray_at(address + size, room))
        self.used = 8
        self.count = 0
        self.cut = NEVER

    def op(self, kind, address, length, data=b""):
        if self.count == self.cut:
            send({"end": "cut"})
            uctypes.bytearray_at(0, 1)[0] = 1  # dies here and now; nothing can catch it
        pack_into("<BII", self.log, self.used, kind, address, length)
        self.used += 9
        self.log[self.used : self.used + len(data)] = data
        self.used += len(data)
        self.count += 1
        pack_into("<II", self.log, 0, self.count, self.used)


class Part:
    encrypted = False

    def __init__(self, where):
        self.offset, self.size = where

    def read(self, off, buf):
        start = self.offset + off
        if off < 0 or off + len(buf) > self.size:
            raise OSError(-0x104)
        memoryview(buf)[:] = board.flash[start : start + len(buf)]

    def program(self, off, buf):
        start, size = self.offset + off, len(buf)
        if off < 0 or off + size > self.size:
            raise OSError(-0x104)
        board.op(_PROGRAM, start, size, buf)
        span = board.flash[start : start + size]
        old = int.from_bytes(bytes(span), "little")
        span[:] = (old & int.from_bytes(bytes(buf), "little")).to_bytes(size, "little")

    def erase(self, sector):
        start = self.offset + sector * 4096
        if sector < 0 or (sector + 1) * 4096 > self.size:
            raise OSError(-0x104)
        board.op(_ERASE, start, 4096)
        board.flash[start : start + 4096] = BLANK


BLANK = b"\xff" * 4096


class Config:
    pass


class Port:
    def __init__(self, running):
        at = world["parts"]
        self.fw = [Part(at["ota_0"]), Part(at["ota_1"])]
        self.app = [Part(at["app_0"]), Part(at["app_1"])]
        self.part = Part(at["sekisho"])
        self.otadata = Part(at["otadata"])
        self.config = config
        self.running = running
        self.vendor, self.classes, self.device = world["vendor"], (world["product"],), world["device"]
        self.revision = 301

    def now(self):
        return 0

    def hardware_floor(self):
        return 0

    def watchdog(self, seconds):
        said["wdt"] = seconds

    def reset(self):
        finish("reset")


def send(result):
    out.write(json.dumps(result) + "\n")


def starve(leave):
    """Takes all heap but *leave* bytes, until `feed`."""
    gc.collect()
    size = 1 << 16
    while size >= 64:
        while gc.mem_free() > leave + size:
            try:
                held.append(bytearray(size))
            except MemoryError:
                break
        size >>= 1


def feed():
    held.clear()
    gc.collect()


held = []


def finish(end):
    """The power-up is over: tells how, and is gone."""
    said["end"] = end
    send(said)
    sys.exit(0)


def plain(status):
    return {
        key: value.hex() if isinstance(value, bytes) else value for key, value in status.items() if key != "retries"
    }


def snapshot(up):
    status = up.status()
    code, manifest, sequence = status["last"]
    status["last"] = (code, manifest.hex(), sequence)
    return plain(status)


def fetch(up, release):
    up.accept(release["envelope"])
    offsets = list(up.begin())
    for component, payload in release["payloads"]:
        for off in range(offsets[component], len(payload), 4096):
            up.write(component, off, payload[off : off + 4096])
    up.stage()


def pursue(up, goal):
    """One step towards a goal: True when it is reached or given up for a reason that was expected."""
    kind, name, ends = goal
    status = up.status()
    if kind == "keyset":
        if status["keyset"] >= ends:
            return True
        up.accept_keyset(world["keysets"][name])
        return pursue(up, goal)
    if kind == "unlock":
        if status["locked"]:
            up.nonce()
            up.unlock(world["unlock"])
        return True
    release = world["releases"]["old" if kind == "rollback" else name]
    code, manifest, _ = status["last"]
    if manifest == release["digest"] and code in ends:
        return True
    if kind == "rollback":
        if status["counters"][0] > 2:
            return True  # long ago
        up.rollback(world["permits"][name])
    reached = True
    for component in release["components"]:
        reached = reached and status["counters"][component] >= release["sequence"]
    if reached:
        return True
    fetch(up, release)
    finish("reset")
    return False


def application(up, decision, job):
    """What the application of a field device does: proves its image on trial, then goes after what it was told."""
    if decision.trial:
        behaviour = job["behaviours"][job["running"]]
        if behaviour == "crash":
            finish("reset")
        if behaviour == "unhealthy":
            up.fail(reasons.HEALTH)
        if behaviour == "sleep":
            finish("deep-sleep")
        said["confirm"] = up.confirm()
        finish("reset")
    for number, goal in enumerate(job["goals"]):
        if number == job["mark"]:
            reached(up, job)
        for _ in range(4):
            try:
                if pursue(up, goal):
                    break
            except Refused as refused:
                said["refused"].append((goal[1], refused.code))
                if refused.code not in (goal[2] if goal[0] != "keyset" else ()):
                    finish("stuck")
    if job["mark"] == len(job["goals"]):
        reached(up, job)
    before = board.count
    said["old"] = refusals(up, job["refuse"], job["keyset"])
    said["writes"] += board.count - before
    finish("idle")


def reached(up, job):
    """The goals are: says how things are, and asks for what must be refused from now on."""
    said["done"], said["done_at"] = snapshot(up), board.count
    said["at_goal"] = refusals(up, job["at_goal"], job["keyset"])
    said["writes"] += board.count - said["done_at"]


def refusals(up, names, keyset):
    """The reason why each is refused; 0 where it is not."""
    found = []
    for name in names:
        code = 0
        try:
            if name in world["permits"]:
                up.rollback(world["permits"][name])
            elif name in world["keysets"]:
                code = 0 if up.accept_keyset(world["keysets"][name]).version == keyset else -1
            else:
                up.accept(world["releases"][name]["envelope"])
        except Refused as refused:
            code = refused.code
        found.append((name, code))
    return found


def device(job):
    """One power-up from the first instruction of the engine on."""
    global said
    said = {"end": "", "old": [], "at_goal": [], "writes": 0, "refused": [], "wdt": 0}
    board.count, board.used = job["count"], job["used"]
    board.cut = job["cut"]
    port = Port(job["running"])
    if "leave" in job:
        starve(job["leave"])
    decision = engine.boot(port)
    up = engine.Engine(port)
    said["handover"] = board.count
    app = None
    if decision.app:
        app = (port.app.index(decision.app[0]), decision.app[1])
    said["decision"] = {"trial": decision.trial, "degraded": decision.degraded, "app": app}
    said["status"] = snapshot(up)
    application(up, decision, job)


def remembered(key, message, signature):
    """Ed25519 verification, its result kept: in this process when it is asked to learn, else what is known."""
    entry = (bytes(key), bytes(message), bytes(signature))
    if entry not in memo:
        verdict = verify(*entry)
        if forked:
            said.setdefault("learn", []).append([part.hex() for part in entry])
        memo[entry] = verdict
    return memo[entry]


memo = {}
forked = False
said = {}
world = {}
config = Config()
board = None
out = None


def _pid():
    with open("/proc/self/stat") as file:
        return file.read(24).split(" ")[0]


def start(address, size, room, commands, results, trigger, path):
    global board, out, forked
    board = Board(address, size, room)
    with open(path) as file:
        exec(file.read(), world)  # noqa: S102 (written by campaign.py)
    for key, value in world["config"].items():
        setattr(config, key, value)
    cose.verify = remembered
    engine.urandom = lambda size: (world["nonce"] - 1).to_bytes(size, "big")
    commands, out, trigger = open(commands, "rb"), open(results, "w"), open(trigger, "wb")
    me = _pid()
    while True:
        line = commands.readline()
        if not line:
            return
        job = json.loads(line)
        if "learn" in job:
            for entry in job["learn"]:
                remembered(*[bytes.fromhex(part) for part in entry])
            send({})
            continue
        try:
            trigger.write(b"x")
        except OSError:
            pass
        if _pid() != me:
            forked = True
            trigger.close()
            try:
                device(job)
            except Exception as error:
                feed()
                trace = StringIO()
                sys.print_exception(error, trace)
                said["error"] = trace.getvalue()
                finish("crash")
