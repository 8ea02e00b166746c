# Runs on CPython and on MicroPython: the agent with a pretended engine against tests/bad_server.py.
import asyncio
import gc
import time
from hashlib import sha256

from sekisho import agent, delay, http, policy, settings, values
from sekisho_boot.ledger import FETCHING, IDLE, READY
from sekisho_boot.reasons import (
    ATTEMPTS,
    BUSY,
    CLASS,
    FLASH,
    HEALTH,
    IMAGE_DIGEST,
    IMAGE_FORMAT,
    KEYSET_VERSION,
    NETWORK,
    NO_KEYSET,
    NOTHING,
    RETRY_LATER,
    WINDOW,
    Refused,
    name,
)

from .http_cases import be_patient

CLASS_ID = bytes(range(16))
SIZE = 10000


class Target:
    def __init__(self, digest, size, uri):
        self.component, self.digest, self.size, self.uri = 0, digest, size, uri


class Plan:
    def __init__(self, manifest):
        self.digest = sha256(manifest).digest()
        self.sequence = manifest[0]
        self.targets = [Target(manifest[1:33], int.from_bytes(manifest[33:37], "big"), str(manifest[37:], "utf-8"))]


def release(sequence, payload, uri):
    manifest = bytes([sequence]) + sha256(payload).digest() + len(payload).to_bytes(4, "big") + uri.encode()
    return b"\xd8\x6b\xa3\x02\x41\x00\x03\x58" + bytes([len(manifest)]) + manifest + b"\x17\x44text"


def key_set(version):
    return b"\xd8\x62\x84\x40\xa0\x43\xa1\x01" + bytes([version]) + b"\x80"


class Blank:
    """A part of flash without anything in it."""

    def read(self, off, buf):
        buf[:] = b"\xff" * len(buf)


class Config:
    CHIP = 0
    PRODUCT = "lamp"
    KEYSET = key_set(1)


class Port:
    device, classes, config, part = bytes(16), (CLASS_ID,), Config, Blank()


class Engine:
    """The engine's rules as far as the agent can meet them; `log` is what it was asked for."""

    port = Port

    def __init__(self, progress=4096):
        self.log = []
        self.flash = self.room()
        self.phase, self.manifest, self.at, self.kept = IDLE, b"", 0, 0
        self.plan = None
        self.keyset = 1
        self.pair, self.last = (255, 1, 0), (0, bytes(32), 0)
        self.retries = []
        self.trial = False
        self.refuse = self.refuse_bytes = self.refuse_keyset = 0
        self.step = progress

    def room(self):
        return bytearray(SIZE)

    def status(self):
        return {
            "phase": self.phase,
            "manifest": self.manifest,
            "pair": self.pair,
            "counters": (1, 0),
            "keyset": self.keyset,
            "running": 0,
            "locked": False,
            "degraded": 0,
            "last": self.last,
            "retries": tuple(self.retries),
            "trial": self.trial,
        }

    def now(self):
        return 1_700_000_000

    def accept_keyset(self, document):
        if self.refuse_keyset:
            raise Refused(self.refuse_keyset)
        if document[8] != self.keyset + 1:
            raise Refused(KEYSET_VERSION)
        self.keyset += 1
        self.log.append("keyset %d" % self.keyset)

    def accept(self, envelope):
        if self.refuse:
            raise Refused(self.refuse)
        assert envelope[2] == 0xA2
        self.plan = Plan(envelope[9:])
        return self.plan

    def begin(self):
        resumed = self.phase == FETCHING
        assert not resumed or self.manifest == self.plan.digest
        self.phase, self.manifest = FETCHING, self.plan.digest
        self.at = self.kept if resumed else 0
        self.log.append("begin %d" % self.at)
        return [self.at, 0]

    def write(self, component, off, buf):
        if self.refuse_bytes:
            raise Refused(self.refuse_bytes)
        target = self.plan.targets[component]
        assert off == self.at
        assert 0 < len(buf) <= 4096
        assert len(buf) == 4096 or off + len(buf) == target.size
        self.flash[off : off + len(buf)] = buf
        self.at = off + len(buf)
        self.kept = self.at // self.step * self.step

    def stage(self):
        target = self.plan.targets[0]
        assert self.at == target.size
        if sha256(memoryview(self.flash)[: target.size]).digest() != target.digest:
            self.abort(IMAGE_DIGEST)
            raise Refused(IMAGE_DIGEST)
        self.phase = READY
        self.log.append("stage")

    def abort(self, code):
        assert self.phase == FETCHING
        self.phase, self.kept = IDLE, 0
        self.log.append("abort " + name(code))

    def confirm(self):
        self.log.append("confirm")
        return 0

    def fail(self, code):
        self.log.append("fail " + name(code))


def settings_of(base, **more):
    options = {line[0]: line[3] for line in values.SCHEMA}
    options.update({"server": base, "ca": None})
    options.update(more)
    return options


def device(base, engine=None, **more):
    options = settings_of(base, **more)
    said = []
    return agent.Agent(engine or Engine(), options, CLASS_ID, said.append), said


async def update(updater) -> str:
    """What one poll comes to, and what it asked of the engine."""
    gc.collect()
    try:
        outcome = "staged" if await updater.poll() else "?"
    except Refused as refused:
        outcome = name(refused.code)
    log = updater.engine.log
    updater.engine.log = []
    return "%s: %s" % (outcome, ", ".join(log))


PAYLOADS = (
    "good truncates truncates-once changes-midway always-changes ignores-range no-etag loses-the-file wrong-bytes "
    "says-longer says-shorter wrong-range status/401 status/404 status/410 status/416 status/429 status/500 status/503 "
    "busy-midway chunked closes resets silent stalls drips redirect redirect-away"
).split()


async def payload(base: str, sin: str) -> str:
    settings.write(settings.STATE, {})
    updater, _ = device(base)
    be_patient(sin)
    found = await update(updater)
    be_patient("")
    return found


async def after_reboot(base: str, served) -> None:
    """A cut in the middle: the next agent goes on where the engine says, with the ETag from the file."""
    for sin in ("truncates", "ignores-range", "changes-midway"):
        settings.write(settings.STATE, {})
        await served("latest.suit", sin)
        engine = Engine()
        agent.MAX_FAILURES, kept = 0, agent.MAX_FAILURES  # the connection breaks, and then the power
        print("cut", sin, "=", await update(device(base, engine)[0]))
        agent.MAX_FAILURES = kept
        print("rebooted", sin, "=", await update(device(base, engine)[0]))
    settings.write(settings.STATE, {})
    await served("latest.suit", "truncates")
    agent.MAX_FAILURES, kept = 1, agent.MAX_FAILURES
    print("connections that bring a sector each =", await update(device(base)[0]))
    agent.MAX_FAILURES = kept


async def decisions(base: str, served) -> None:
    settings.write(settings.STATE, {})
    updater, _ = device(base)
    await served("latest.suit", "")
    print("no release =", await update(updater))
    await served("latest.suit", "html")
    print("not a release =", await update(updater))
    await served("latest.suit", "huge")
    print("too large =", await update(updater))
    await served("latest.suit", "running")
    print("runs already =", await update(updater))
    print("asked again =", await update(updater), updater.detail)

    await served("latest.suit", "good")
    updater.engine.refuse = CLASS
    print("refused =", await update(updater))
    updater.engine.refuse = 0
    print("not fetched again =", await update(updater))

    for code in (IMAGE_FORMAT, FLASH):
        engine = Engine()
        engine.refuse_bytes = code
        print("engine refuses the bytes,", name(code), "=", await update(device(base, engine)[0]))

    updater, _ = device(base)
    answers = [None, (policy.REFUSE, 0, 3)]
    updater.decide = lambda digest: answers.pop(0)
    print("declined while it is fetched =", await update(updater))

    engine = Engine()
    engine.phase, engine.manifest, engine.kept = FETCHING, b"another", 8192
    print("superseded =", await update(device(base, engine)[0]))

    engine = Engine()
    updater, _ = device(base, engine)
    await update(updater)
    engine.phase, engine.retries = IDLE, [(engine.plan.digest, 1)]
    print("failed lately =", await update(updater), 500 < await updater.look() <= 600)
    updater._since = updater._since - 601_000
    print("failed long ago =", await update(updater))
    updater._since, updater._passed = time.ticks_add(time.ticks_ms(), 100_000_000), 0
    print("failed before the ticks came round =", updater._quiet())
    print("staged already =", await update(updater), await updater.look())
    plan = Plan(release(7, b"", "/")[9:])
    plan.targets.append(Target(b"", 0, ""))
    plan.targets[1].component = 1
    found = []
    for running in ((7, 6), (6, 7), (7, 7)):
        updater, _ = device(base)
        updater.engine.pair = (0,) + running
        try:
            found.append(updater._hold(plan))
        except Refused as refused:
            found.append(name(refused.code))
    print("one of two runs already =", found)
    print("no server =", await update(device("", Engine())[0]))


class Counting(Engine):
    """Counts how often a release was begun, as the real one does."""

    def begin(self):
        self.retries = [(self.plan.digest, dict(self.retries).get(self.plan.digest, 0) + 1)]
        return super().begin()


def let_alone(updater) -> int:
    """Seconds for which a release that failed is not tried again; 100000 where it is never tried."""
    first, last = 0, 100_000
    while first < last:
        middle = (first + last) // 2
        updater._since, updater._passed = time.ticks_ms(), middle
        try:
            updater._hold(updater.engine.plan)
            last = middle
        except Refused as refused:
            if refused.code != RETRY_LATER or not 0 < refused.pause <= updater.every:
                return -1
            first = middle + 1
    return first


async def retries(base: str, served) -> None:
    await served("latest.suit", "always-changes")
    settings.write(settings.STATE, {})
    engine = Counting()
    updater, _ = device(base, engine, poll=60)
    found = []
    for _ in range(3):
        failed = (await update(updater))[:6]
        tries, since = engine.retries[0][1], updater._quiet()
        found.append((failed, tries, since, await update(updater), let_alone(updater)))
        updater._passed = agent.MAX_RETRY
    print("a download fails again and again =", found)

    engine.last, found = (ATTEMPTS, engine.plan.digest, 7), []
    for tries in (1, 2, 3, 7, 8, 9, 20, 255):
        engine.retries = [(b"another", 1), (engine.plan.digest, tries)]
        updater, _ = device(base, engine)  # the old image, which has just come back
        found.append(let_alone(updater) if updater._quiet() == 0 else -1)
    print("a trial fails again and again =", found)

    engine.retries = [(engine.plan.digest, 3)]
    found = []
    for poll in (60, 1800, 86400):
        updater, _ = device(base, engine, poll=poll)
        pause = await updater.look()
        found.append((name(updater.result), min(poll, 2400) - pause in (0, 1)))
    print("asked again meanwhile =", found)


class Group:
    """Peers that say no *left* times; None: they always agree."""

    def __init__(self, left):
        self.left = left
        self.log = []

    async def lease(self):
        self.left -= 1
        if self.left >= 0:
            raise http.Failed(BUSY, "peer says not now")
        self.log.append("leave")

    def stay(self):
        self.log.append("stay")


async def peers(base: str, served) -> None:
    await served("latest.suit", "good")
    for label, left, wait in (("agree", 0, 24), ("agree later", 2, 24), ("never agree", 99, 0), ("are dead", 99, 24)):
        settings.write(settings.STATE, {})
        updater, said = device(base, peers=["x"], peer_wait=wait)
        updater.group = Group(left)
        found = []
        for _ in range(3):
            found.append(await update(updater))
            updater._kept = (time.ticks_add(time.ticks_ms(), -3600_000),)
        print("peers", label, "=", "; ".join(found), updater.group.log)
    hour = 3
    while hour < 30:  # each hour a restart, in which nothing but the file survives
        updater, _ = device(base, updater.engine, peers=["x"], peer_wait=24)
        updater.group = Group(99)
        await update(updater)
        updater._kept = (time.ticks_add(time.ticks_ms(), -3600_000),)
        if (await update(updater))[:6] == "staged":
            break
        hour += 1
    print("peers are dead, in the end =", hour)
    settings.write(settings.STATE, {})
    updater, _ = device(base, peers=["x"], peer_wait=24)
    updater.group = Group(99)
    found = [await update(updater)]
    for ago in (-400_000_000, 100_000_000):  # ms: where the ticks stand is not known after days without a look
        updater._kept = (time.ticks_add(time.ticks_ms(), ago),)
        found.append(((await update(updater))[:4], updater.state["waited"]))
    print("peers, days without a look =", found[1:])
    settings.write(settings.STATE, {})
    print("peers, lock not up =", await update(device(base, peers=["x"])[0]))
    updater, _ = device(base, peers=["x"])
    updater.group = Group(0)
    updater.engine.stage = raises
    print("peers, staging fails =", await update(updater), updater.group.log)
    for left in (3, 99):
        updater, said = device("")
        updater.group = Group(left)
        kept, agent.TURN = agent.TURN, 0
        await updater._leave()
        agent.TURN = kept
        print("restart by order,", left, "times no =", len(said), updater.group.log)


def delays() -> None:
    """A day that somebody put a release off by, on a device that never knows the time."""
    plan = Plan(release(7, b"", "/")[9:])
    day, engine = 86400, Engine()

    def later(every=60):
        gc.collect()
        updater, _ = device("", engine)
        updater.every = every
        updater.decide = lambda digest: (policy.DELAY, day, 1)
        return updater

    def held(updater) -> bool:
        try:
            updater._allow(plan)
        except Refused as refused:
            return refused.code == WINDOW
        return False

    def looks(updater, restart: bool, apart: int) -> int:
        number = 0
        while held(updater) and number < 2000:
            number += 1
            if restart:
                updater = later(updater.every)
            else:
                updater.ran = time.ticks_add(updater.ran, -apart * 1000)
        return number

    settings.write(settings.STATE, {})
    updater = later()
    delay.begin(updater)
    print("delay, always on =", looks(updater, False, 3600), delay.left(updater, day))
    settings.write(settings.STATE, {})
    print("delay, restarted each minute =", looks(later(3600), True, 60))
    settings.write(settings.STATE, {})
    print("delay, restarted, asks once a day =", looks(later(86400), True, 60))
    settings.write(settings.STATE, {})
    print("delay, wakes every ten minutes =", looks(later(600), True, 0))
    settings.write(settings.STATE, {})
    updater = later()
    delay.begin(updater)
    updater.ran = time.ticks_add(updater.ran, -50_000_000)
    print("delay, half of it =", held(updater), delay.left(updater, day) // 1000)
    delay.begin(updater)
    print(
        "delay, put off again =",
        held(updater),
        delay.left(updater, day) // 100_000,
        delay.left(updater, 1 << 40) // 100_000,
    )
    where, settings.STATE = settings.STATE, "/nowhere/state"
    updater = later()
    delay.begin(updater)
    print("delay, nothing can be kept =", held(updater))
    updater = later()
    print("delay, and after a restart =", held(updater), held(updater))
    settings.STATE = where
    settings.write(settings.STATE, {})


class Forgetful(Engine):
    """Its newest key set was lost in flash: the chain from the frozen one leads back there."""

    def __init__(self, newest=3):
        super().__init__()
        self.keyset, self.link, self.refuse = newest, 1, NO_KEYSET

    def accept_keyset(self, document):
        if document[8] != self.link + 1:
            raise Refused(KEYSET_VERSION)
        self.link += 1
        self.refuse = NO_KEYSET if self.link < self.keyset else 0
        self.log.append("keyset %d" % self.link)


def raises():
    raise Refused(FLASH)


async def key_sets(base: str, served) -> None:
    await served("latest.suit", "")
    updater, said = device(base)
    print("chain =", await served("keys", "4") or await update(updater))
    print("chain again =", await update(updater))
    print("next link =", await served("keys", "5") or await update(updater))
    updater, said = device(base)
    print("gap =", await served("keys", "gap") or await update(updater), said[-1])
    print("broken =", await served("keys", "broken") or await update(updater), said[-1])
    await served("keys", "18")
    updater, said = device(base)
    for turn in ("sixteen links =", "and the rest ="):
        log = (await update(updater)).split(", ")
        print(turn, len(log), log[0], log[-1])
    await served("latest.suit", "good")
    await served("keys", "3")
    updater, said = device(base, Forgetful())
    print("lost key set =", await update(updater), await update(updater))
    await served("keys", "18")
    updater, said = device(base, Forgetful(18))
    found = []
    for _ in range(3):
        log = (await update(updater)).split(", ")
        found.append((len(log), log[0]))
    print("lost key set, a long way =", found)
    await served("keys", "4")
    updater, said = device(base, Forgetful(4))
    whole, fails = updater._document, [1]

    async def once(file, limit):
        if file == "keyset-3.cose" and fails:
            raise http.Failed(NETWORK, "", fails.pop())
        return await whole(file, limit)

    updater._document = once
    found = []
    for _ in range(3):
        found.append(await update(updater))
    print("lost key set, broken off on the way =", found)
    await served("keys", "broken")
    updater, said = device(base)
    print("update all the same =", await update(updater))
    await served("keys", "")


async def trials(base: str, dead: str) -> None:
    async def late():
        await asyncio.sleep(0)
        return True

    def breaks():
        raise OSError("sensor")

    for label, checks in (
        ("no checks", ()),
        ("all agree", (lambda: None, lambda: True, late)),
        ("one says no", (lambda: True, lambda: False)),
        ("one raises", (breaks,)),
    ):
        updater, _ = device(base)
        print(label, "=", await updater.prove(checks), updater.engine.log)
    updater, _ = device(dead)
    try:
        await asyncio.wait_for(updater.prove(), 0.3)
        print("unreachable = ?")
    except asyncio.TimeoutError:
        print("unreachable = never confirmed", updater.engine.log, name(updater.result))
    print("HEALTH, NOTHING =", HEALTH, NOTHING)


async def pauses(dead: str) -> None:
    updater, said = device(dead)
    found = []
    for _ in range(9):
        found.append(await updater.look())
    print("pauses =", found, len(said))
    updater, said = device(dead, poll=86400)
    found = []
    for updater.failures in (0, 9, 10, 11, 12, 99):
        found.append(await updater.look())
    print("pauses, of a device that asks once a day =", found)


def main(base: str, dead: str, state: str) -> None:
    be_patient("")
    agent.BREATH = 0 if agent.BREATH == 1 else agent.BREATH
    settings.STATE = state

    async def served(file: str, what: str) -> None:
        """Tells the server what to serve from now on."""
        (await http.get("%s/serve/%s/%s" % (base, file, what or "nothing"))).close()

    async def everything():
        for sin in PAYLOADS:
            await served("latest.suit", sin)
            print("payload", sin, "=", await payload(base, sin))
        await after_reboot(base, served)
        await decisions(base, served)
        await retries(base, served)
        await peers(base, served)
        delays()
        await key_sets(base, served)
        await trials(base, dead)
        await pauses(dead)

    gc.collect()
    asyncio.run(everything())
