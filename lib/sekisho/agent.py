"""The update agent: asks a static server for key sets and releases and hands them to the engine. `ddi` has one for
servers that speak hawkBit's device API.

It decides nothing about trust. The engine judges every byte it is given and refuses by reason code; the agent only
fetches, in an order that never costs the running image: key sets, envelope, every check that needs no payload, and
only then the first erase. What it was doing survives a restart: the engine tells how far a payload has come.

It runs under asyncio beside the application. Layout of the server (see `sekisho publish`): ``/<class>/keyset.cose``,
``/<class>/keyset-<version>.cose``, ``/<class>/latest.suit``, ``/payload/<sha256>``.
"""

import asyncio
import gc
import os
import time
from binascii import hexlify

from micropython import const
from sekisho_boot.keyset import MAX_KEYSET
from sekisho_boot.ledger import FETCHING, READY
from sekisho_boot.reasons import BUSY, HEALTH, NETWORK, NO_KEYSET, NOTHING, RETRY_LATER, SERVER, Refused, kind, name

from . import clock, http, policy, settings
from .envelope import MAX_DOWNLOAD, keyset_version, sever, tells_how

SECTOR = const(4096)  # bytes handed to the engine at a time
KEYSET_REFUSED = const(10)  # `eventlog.KEYSET_REFUSED`: small devices have no log
MAX_LINKS = const(16)  # key sets of the chain taken in one poll
MAX_FAILURES = 5  # connections in a row that brought a payload no further, then the poll is given up
MAX_CHANGES = const(3)  # times one poll begins a payload anew because the server's file changed
FIRST_PAUSE = const(30)  # s after the first failure to reach a server; it doubles with every further one
FIRST_RETRY = const(600)  # s before a release that failed once is tried again; doubles as well
MAX_RETRY = const(86400)
MAX_BACKOFF = const(3600)  # s that failing to reach a server makes the pause at most, or as long as the usual one
TURNS = const(8)  # times that a restart which is no update asks the peers for their leave, and then does without
TURN = 15  # s between two of them
GRACE = 1  # s; how soon a call is heard, and how long after that the look follows
BREATH = 1  # s between two connections for one payload; doubles while they bring nothing
_PROGRESS = const(65536)  # bytes between two lines of progress


def doubling(first: int, count: int, limit: int) -> int:
    """*first* after one failure, twice that after two, and so on up to *limit*. Seconds."""
    return min(limit, first << min(max(count - 1, 0), 12))


def jitter(seconds: int) -> int:
    """The same time give or take an eighth, so that a fleet does not ask all at once."""
    return seconds * (224 + (os.urandom(1)[0] >> 2)) >> 8


def _nobody(*_):
    """In place of a hook that is not set."""


class _Changed(Exception):
    """The server's payload is not the file that was begun with."""


class Agent:
    """One device's dealings with one static server.

    engine: `sekisho_boot.engine.Engine`. options: what `settings.load()` returns. class_id: the product class UUID
    (16 bytes). say(text): prints one line. ``result`` is the reason code of the last look at the server (0 after one
    that staged an update), ``detail`` its sentence. ``decide(manifest digest)`` gives what people decided on a release
    (see `policy.verdict`), ``tell(event, release, reason)`` passes on what people want to be told of, and
    ``ask(release)`` may put off a release that is not forced; ``envelope(envelope, plan)`` hears of every release
    that was accepted and does not run yet.
    """

    def __init__(self, engine, options: dict, class_id: bytes, say=print) -> None:
        digits = str(hexlify(class_id), "utf-8")
        self.engine = engine
        self.options = options
        self.decide = self.tell = self.ask = self.envelope = _nobody
        self.group = None  # `peer.Group`: devices that never restart together with this one
        self._kept: tuple = ()  # (ticks at which peers kept a release waiting last,)
        self.server = options["server"]
        self.networks = options["wifi"]
        self.every = options["poll"]
        self.ca = options["ca"]
        self.home = "/%s-%s-%s-%s-%s/" % (digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:])
        self.say = say
        self.duties = None  # `duties.Duties`: orders, policy, event log
        self.door = None  # `door.Door`: releases that people bring
        self.card = None  # `card.Card`: a folder with files that people bring
        self.line = None  # the task that answers the serial line
        self.busy = False  # while a release is taken from the server
        self._called = False
        self.result = NOTHING
        self.detail = ""
        self.failures = 0
        self._tags: dict = {}  # file of the server -> ETag of the copy that has been dealt with
        self.offered = b""  # manifest digest of the release that is wanted of people, or was last
        self._lost = 0  # the engine's newest key set is lost: the version from which on the chain is followed again
        self._since = time.ticks_ms()  # start, the last failure of a release, or when `_passed` was brought up to date
        self._passed = 0  # s from the first two of these to the last, MAX_RETRY at most
        self.ran = None  # ticks, see `delay`
        self.state = settings.read(settings.STATE)  # {"manifest": digest, "etag": of its payload}
        self._packed: dict = {}  # component -> form of its payload, see `payload`
        self._offset = self._quarter = 0
        self._piece = bytearray(SECTOR)

    # -- one look at the server ------------------------------------------------------------------
    async def poll(self) -> bool:
        """Takes new key sets, then a new release if there is one. True when an update is staged and a restart due.

        Raises Refused, with NOTHING where the server offers nothing new.
        """
        if not self.server:
            raise http.Failed(NETWORK, "no server in the settings")
        if self.engine.status()["phase"] == READY:
            return True
        await self._key_sets()
        envelope = await self._document("latest.suit", MAX_DOWNLOAD)
        if envelope is None:
            raise http.Failed(NOTHING, "nothing new")
        plan = self._accept(envelope)
        envelope = None
        self._allow(plan)
        return await self._install(plan)

    def _allow(self, plan) -> None:
        """Raises the reason why people's settings hold this release back for now."""
        self.offered = plan.digest
        self.tell("available", plan.sequence, "")
        decision = self.decide(plan.digest)
        if decision and decision[0] == policy.DELAY:
            from . import delay

            decision = (policy.DELAY, delay.passed(self, decision[1]), decision[2])
        code = policy.verdict(self.options, decision, self.engine.now(), clock.trusted())
        if code:
            raise http.Failed(code, "release %d is held back" % plan.sequence)

    async def _ready(self, plan) -> None:
        """The payloads are there: raises the reason why the device must not restart into them now."""
        self._allow(plan)
        if self.options["peers"]:
            await self._turn()

    async def _turn(self) -> None:
        """Peers promise to stay while this device restarts. Failed(BUSY) where they do not, for `peer_wait` hours."""
        try:
            if not self.group:
                raise http.Failed(BUSY, "the group lock is not up")
            await self.group.lease()
        except http.Failed as failed:
            now, before = time.ticks_ms(), self.state.get("waited", 0)
            passed = time.ticks_diff(now, self._kept[0]) // 1000 if self._kept else 0
            self._kept = (now,)
            self.state["waited"] = waited = before + min(max(passed, 0), max(self.every, MAX_BACKOFF))
            if waited // 3600 != before // 3600:
                settings.write(settings.STATE, self.state)  # so that restarts do not make it wait for ever
            limit = self.options["peer_wait"] * 3600
            if not limit or waited < limit:
                raise
            self.say("sekisho: %s; it has waited for long enough" % failed.detail)

    async def _install(self, plan) -> bool:
        """Fetches the payloads of an accepted release and stages it. True, or Refused."""
        for _ in range(MAX_CHANGES):
            offsets = tuple(self.engine.begin())
            try:
                for target in plan.targets:
                    await self._payload(target, offsets[target.component])
                gc.collect()
                await self._ready(plan)
                gc.collect()  # the engine now reads the whole image back
                self.engine.stage()
                self.say("sekisho: release %d staged" % plan.sequence)
                return True
            except _Changed:
                self.say("sekisho: the server's payload has changed; starting again")
                self._drop(SERVER)
            except http.Failed:
                raise  # what has come so far stays; the next poll goes on from there
            except Refused as refused:
                if kind(refused.code) == "permanent":  # the engine will not have these bytes
                    self._drop(refused.code)
                raise
            finally:
                if self.group and self.engine.status()["phase"] != READY:
                    self.group.stay()
        raise http.Failed(SERVER, "the server's payload keeps changing")

    def _accept(self, envelope):
        """The engine's plan for a release that is to be fetched now; Refused where it is not."""
        gc.collect()
        try:
            plan = self.engine.accept(sever(envelope))
            self._hold(plan)
            self._packed = self._choose(envelope, plan)
            self.envelope(envelope, plan)
        except Refused as refused:
            lost, self._lost = self._lost, 0
            if refused.code == NO_KEYSET:
                self.again()  # key sets that have been dealt with are needed once more
                self._lost = lost or keyset_version(self.engine.port.config.KEYSET)
            if refused.code != NOTHING and kind(refused.code) != "permanent":
                self._forget("latest.suit")  # the answer may change, so it is asked for again at the next poll
            raise
        self._forget("latest.suit")
        self._lost = 0
        digest = str(hexlify(plan.digest), "utf-8")
        if self.state.get("manifest") != digest:
            self.state = {"manifest": digest}
        return plan

    def _hold(self, plan) -> None:
        """Raises Refused for a release that runs already (NOTHING) or failed too lately (RETRY_LATER)."""
        status = self.engine.status()
        running = status["pair"][1:] if status["pair"] else status["counters"]
        if all(running[target.component] == plan.sequence for target in plan.targets):
            raise http.Failed(NOTHING, "release %d runs already" % plan.sequence)
        if status["phase"] == FETCHING:
            if status["manifest"] != plan.digest:
                self.engine.abort(NOTHING)  # the server offers another release by now
            return
        tries = dict(status["retries"]).get(plan.digest, 0)
        if tries:
            left = doubling(FIRST_RETRY, tries, MAX_RETRY) - self._quiet()
            if left > 0:
                raise http.Failed(RETRY_LATER, "release %d failed before" % plan.sequence, min(left, self.every))

    def _quiet(self) -> int:
        """Seconds since the start or the last failure of a release, MAX_RETRY at most. Asked at every look: the chip's
        ticks come round after 12 days, and after 6 the difference of two is negative."""
        passed = time.ticks_diff(time.ticks_ms(), self._since) // 1000
        self._passed = MAX_RETRY if passed < 0 else min(self._passed + passed, MAX_RETRY)
        self._since = time.ticks_ms()
        return self._passed

    def _drop(self, code: int) -> None:
        """Ends the update in progress, if the engine has not done so already."""
        self._since, self._passed = time.ticks_ms(), 0
        self._remember("")
        if self.engine.status()["phase"] == FETCHING:
            self.engine.abort(code)

    def again(self) -> None:
        """What was refused or held back may be taken now: everything is asked for anew."""
        self._tags.clear()
        self._lost = 0

    def _forget(self, file: str) -> None:
        self._tags.pop(file, None)

    async def _document(self, file: str, limit: int):
        """A small document of this class, or None where the server still has the one already dealt with."""
        gc.collect()
        url = http.join(self.server, self.home + file)
        body, self._tags[file] = await http.fetch(url, limit, self._tags.get(file, ""), self.ca)
        return body

    async def _key_sets(self) -> None:
        """Follows the chain from the device's key set to the server's newest, link by link.

        A key set that is refused is reported and asked for again; it does not keep the device from updates under the
        one it has.
        """
        try:
            newest = await self._document("keyset.cose", MAX_KEYSET)
            if newest is None:
                return
            have, offered = self._lost or self.engine.status()["keyset"], keyset_version(newest)
            for version in range(have + 1, min(offered, have + MAX_LINKS) + 1):
                link = newest
                if version != offered:
                    file = "keyset-%d.cose" % version
                    self._forget(file)
                    link = await self._document(file, MAX_KEYSET)
                self._take_key_set(link, version)
                self._forget("latest.suit")  # it may be judged differently now
            if offered > have + MAX_LINKS:
                self._forget("keyset.cose")
            else:
                self._lost = 0
        except Refused as refused:
            self._forget("keyset.cose")
            if refused.code in (NETWORK, RETRY_LATER):
                raise
            if refused.code != NOTHING:
                self._refused_key_set(refused.code)

    def _take_key_set(self, document, version: int) -> None:
        self.engine.accept_keyset(document)
        self._lost = self._lost and version
        self.say("sekisho: key set %d accepted" % version)

    def _refused_key_set(self, code: int) -> None:
        self.say("sekisho: key set refused: %s" % name(code))
        if self.duties:
            self.duties.log.append(KEYSET_REFUSED, code)

    # -- the payload -----------------------------------------------------------------------------
    def _choose(self, envelope, plan) -> dict:
        """Component -> form in which its payload comes, where that is not the image as it is. Raises Refused."""
        if not tells_how(envelope):
            return {}
        from . import payload

        gc.collect()
        offers, trusted = payload.offers(envelope, plan), self.engine.keyset()
        chosen = [payload.choose(forms, payload.device_keys(), trusted) for forms in offers]
        return {target.component: form for target, form in zip(plan.targets, chosen) if form.digest}  # noqa: B905

    def _form(self, target):
        """What is to be fetched for *target*: a form of its payload, or the target itself. Has uri, digest, size."""
        return self._packed.get(target.component) or target

    def _remember(self, etag: str) -> None:
        if self.state.get("etag", "") != etag:
            self.state["etag"] = etag
            settings.write(settings.STATE, self.state)

    def _source(self, form) -> str:
        """The URL of a payload."""
        return http.join(self.server, form.uri or "/payload/" + str(hexlify(form.digest), "utf-8"))

    async def _ask_for(self, url: str, start: int = 0, etag: str = ""):
        """The head of the answer to a GET from byte *start* on."""
        return await http.get(url, start, etag, ca=self.ca)

    async def _progress(self) -> None:
        """Called at each quarter of a payload (`_quarter`), while its connection is open."""

    async def _payload(self, target, offset: int) -> None:
        """Brings one payload into its slot from *offset* on, over as many connections as it takes."""
        form, unpacker = self._form(target), None
        source = self._source(form)
        if form is not target:
            from .payload import Unpacker

            gc.collect()
            write = self.engine.write
            unpacker = Unpacker(form, target.size, offset, lambda at, view: write(target.component, at, view))
            offset = 0  # a packed payload can only be read from its beginning
        self._offset = offset
        self._quarter = offset * 4 // form.size
        failures = 0
        while self._offset < form.size:
            before = self._offset
            try:
                await self._stream(source, target, form.size, unpacker)
            except http.Failed as failed:
                if failed.code == NOTHING:  # a release without its payload is a mistake of the server
                    raise http.Failed(SERVER, failed.detail)
                failures = failures + 1 if self._offset == before else 0
                if failed.code != NETWORK or failures >= MAX_FAILURES:
                    raise
                self.say("sekisho: %s; going on from %d" % (failed.detail, self._offset))
                await asyncio.sleep(BREATH << failures)
        if unpacker:
            unpacker.done()

    async def _stream(self, source: str, target, total: int, unpacker) -> None:
        """One connection: writes what comes, sector by sector, and keeps `_offset` at what the engine has taken."""
        tag = self.state.get("etag", "")
        gc.collect()
        response = await self._ask_for(source, self._offset, tag)
        try:
            skip = 0
            if response.status == 416 or (self._offset and response.etag != tag):
                raise _Changed
            if response.status == 200:
                skip = self._offset  # the server does not know ranges: pass over what is there
            elif response.status != 206:
                raise http.Failed(SERVER, "the server answered HTTP %d" % response.status)
            if response.total != total:
                sizes = (response.total, total)
                raise http.Failed(SERVER, "the payload has %d bytes where the manifest says %d" % sizes)
            self._remember(response.etag)
            view = memoryview(self._piece)
            while skip:
                skip -= await response.readinto(view[: min(SECTOR, skip)])
            while self._offset < total:
                size = await response.readinto(view[: min(SECTOR, total - self._offset)])
                if unpacker:
                    unpacker.feed(view[:size])
                else:
                    self.engine.write(target.component, self._offset, view[:size])
                self._offset += size
                if self._offset % _PROGRESS == 0 or self._offset == total:
                    self.say("sekisho: fetched %d of %d bytes" % (self._offset, total))
                    if self._quarter < self._offset * 4 // total < 4:
                        self._quarter = self._offset * 4 // total
                        await self._progress()
        finally:
            response.close()

    # -- on trial --------------------------------------------------------------------------------
    async def online(self) -> None:
        """Raises Failed(NETWORK) unless a network is up; devices that manage their own network list none."""
        if self.networks:
            from . import wifi

            if not await wifi.up(self.networks):
                raise http.Failed(NETWORK, "no Wi-Fi network of the settings can be reached")

    def _wind(self) -> None:
        """Certificates have dates: where there is TLS, the clock is brought to the time that has certainly passed."""
        if self.ca:
            clock.raise_to(self.engine.now())
            http.hear, http.early = self._heard, clock.proved  # type: ignore[assignment]

    def _heard(self, date: str) -> None:
        clock.told(date, self.engine.now())

    async def reaches_server(self) -> None:
        """The least a new image must prove: that the next update could reach the device. Raises Refused."""
        await self.online()
        self._wind()
        if self.server:
            await self._answers()

    async def _answers(self) -> None:
        try:
            (await http.get(http.join(self.server, self.home + "latest.suit"), ca=self.ca)).close()
        except http.Failed as failed:
            if failed.code != NOTHING:  # an answer, even if the server offers nothing
                raise

    def _reached(self, server: bool) -> None:
        """On trial: whether the server was reached."""

    async def prove(self, checks=()) -> int:
        """On trial: confirms the running image once the server is reached and every check agrees.

        checks: functions or coroutine functions without arguments. One that returns False or raises ends the trial at
        once (on a chip the engine restarts into the old image); a server that cannot be reached is tried until the
        watchdog ends the trial. Returns 0 after confirming, else the reason.
        """
        failures = 0
        while True:
            try:
                await self.reaches_server()
                self._reached(True)
                break
            except Refused as refused:
                self._note(refused)
                if refused.code == NETWORK:
                    self._reached(False)
                failures += 1
                await asyncio.sleep(BREATH * min(failures, 10))
        for check in checks:
            try:
                answer = check()
                if hasattr(answer, "send"):  # a coroutine
                    answer = await answer
            except Exception as error:
                self.say("sekisho: health check raised %r" % error)
                answer = False
            if answer is False:
                self.say("sekisho: health check failed, the old image returns")
                self.engine.fail(HEALTH)
                return HEALTH
        code = self.engine.confirm()
        self.say("sekisho: not confirmed: %s" % name(code) if code else "sekisho: confirmed")
        return code

    # -- for as long as the device runs ----------------------------------------------------------
    async def look(self) -> int:
        """One poll with everything that can go wrong caught; returns the seconds to the next one, 0 for a restart."""
        pause = await self._look()
        if self.duties:
            try:
                if await self.duties.looked(self, self.result, self.detail):
                    return 0
            except Exception as error:  # what is only reported must not keep the device from updates
                gc.collect()
                self.say("sekisho: not written down: %r" % error)
        return pause

    async def _look(self) -> int:
        self._quiet()
        try:
            if self.card:
                await self.card.visit()
            if not self._due():
                await self.online()
                self._wind()
                if self.duties and await self.duties.visit(self):
                    return 0  # an order that takes effect with a restart
                if self.door and self.door.active():
                    raise http.Failed(BUSY, "a release is being brought by hand")
                self.busy = True
                await self.poll()
        except Refused as refused:
            return self._note(refused)
        except MemoryError:
            gc.collect()
            return self._note(http.Failed(RETRY_LATER, "not enough memory"))
        except Exception as error:  # the network's own errors, and whatever else must not stop the application
            return self._note(http.Failed(NETWORK, repr(error)))
        finally:
            self.busy = False
        self.result, self.detail, self.failures = 0, "", 0
        return 0

    def _due(self) -> bool:
        """Whether a restart is due: an update is staged, or an order takes effect with one."""
        return self.engine.status()["phase"] == READY or bool(self.duties and self.duties.due())

    def call(self) -> None:
        """The next look comes in GRACE seconds instead of at its time."""
        self._called = True

    async def _rest(self, seconds: int) -> None:
        while seconds > 0 and not self._called:
            await asyncio.sleep(min(GRACE, seconds))
            seconds -= GRACE
        if self._called:
            self._called = False
            await asyncio.sleep(GRACE)  # whoever called may say a last word

    def _note(self, refused) -> int:
        """Remembers and prints a refusal; returns how many seconds to wait because of it."""
        code, detail = refused.code, getattr(refused, "detail", "")
        if code != self.result or detail != self.detail:
            self.say("sekisho: %s%s" % (name(code), detail and " (%s)" % detail))
        self.result, self.detail = code, detail
        if code == NOTHING or kind(code) == "permanent":
            self.failures = 0
            return self.every
        self.failures += 1
        return getattr(refused, "pause", 0) or doubling(FIRST_PAUSE, self.failures, max(self.every, MAX_BACKOFF))

    async def forever(self) -> None:
        """Polls until an update is staged."""
        while True:
            pause = await self.look()
            if not pause:
                return await self._leave()
            await self._rest(jitter(pause))

    async def _leave(self) -> None:
        """Before a restart that an order or a change of settings wants: asks the peers too, but not for ever."""
        if not self.group:
            return
        for _ in range(TURNS):
            try:
                await self.group.lease()
                return
            except http.Failed as failed:
                self.say("sekisho: the restart waits: %s" % failed.detail)
                await asyncio.sleep(TURN)
