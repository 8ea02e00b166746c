"""The first update engine: one rule at every boot, and the only hands that make a slot bootable.

Order of one update (each arrow is a ledger record, so that a cut anywhere leaves one clear next step):

    accept -> begin: otadata normalised, envelope kept -> FETCH -> write: header checked, first 4 KiB to the holding
    sector, slot sector 0 erased, the rest written -> stage: digest and image checked in flash -> STAGED -> reset
    boot: ENTER -> envelope, rights, counters, digest, image checked again -> slot record, first 4 KiB (first page
    last), PAIR -> TRIAL -> ATTEMPT -> otadata selects the slot -> reset
    trial: RUN, watchdog -> confirm: CONFIRMING -> otadata VALID -> CONFIRMED with the counters

The write target is never read from state: it is the ota slot that is not RUNNING. otadata is a hint, the ledger the
truth. docs/engine.md draws the states.
"""

from collections import namedtuple
from hashlib import sha256
from os import urandom

from micropython import const

from . import cose, image, keyset, otadata, reasons, records, suit
from . import ledger as log
from .cbor import Reader
from .flash import SECTOR, feed, is_blank, put, same
from .reasons import Refused

RIGHT_ROLLBACK = const(3)  # of an operator key, and the action of its order; the others: sekisho.orders
RIGHT_UNLOCK = const(7)

FW = suit.FW
APP = suit.APP

MAX_ATTEMPTS = const(3)  # starts of a trial, and tries to bring a lost choice back
MAX_RUNS = const(8)  # engine runs within one attempt: wakes from deep sleep and soft resets
MAX_FAULTS = const(4)  # engine runs on one staged update that did not end: broken down, or cut off
_PIECE = const(1024)  # bytes hashed at a time: no large piece of heap is needed
CHUNK = const(65536)  # progress is recorded after so many bytes

_FORBIDDEN = (reasons.MANIFEST_REVOKED, reasons.KEY_REVOKED, reasons.FLOOR)
_ROLLBACK_YES = const(2)
_ROLLBACK_NO = const(3)


# What the device does now: ``app`` is (part, size) of the application image to mount or None, ``trial`` whether the
# running pair must still be confirmed, ``degraded`` a reason code or 0.
Decision = namedtuple("Decision", ("app", "trial", "degraded"))
_View = namedtuple("_View", ("counters", "running"))  # what `suit.check` may know of this device


class _Held:
    """A fw slot whose first 4 KiB still lie in the holding sector, read as one image."""

    def __init__(self, part, slot) -> None:
        self._part = part
        self._slot = slot

    def read(self, off: int, buf) -> None:
        view = memoryview(buf)
        head = max(0, min(len(view), SECTOR - off))
        if head:
            self._part.read(records.HOLDING * SECTOR + off, view[:head])
        if head < len(view):
            self._slot.read(off + head, view[head:])


def boot(port) -> Decision:
    """Runs the engine before anything else; returns only where the running image goes on."""
    return Engine(port).run()


class Engine:
    """The engine on one port. Every refusal is a `Refused` with its reason code, raised before the first effect."""

    def __init__(self, port) -> None:
        self.port = port
        self.ledger = log.Ledger(port.part)
        self.state = self.ledger.state
        self.plan = None
        self._envelope = b""
        self._at = [0, 0]
        self._redo = [0, 0]  # below these offsets sectors are rewritten even if they look right
        self._link: "keyset.KeySet | None" = None  # last key set of a chain that leads back to a lost one

    # -- what is trusted --------------------------------------------------------------------------

    def keyset(self):
        """The newest accepted key set. ``Refused(reasons.NO_KEYSET)`` where the ledger knows of one that is lost."""
        frozen = keyset.parse(self.port.config.KEYSET)
        version, _, digest = self.state.keyset
        if version <= frozen.version:
            return frozen
        for copy in self._copies():
            if copy.digest == digest:
                return copy
        raise Refused(reasons.NO_KEYSET)

    def _copies(self) -> list:
        """The key sets that lie in flash, unjudged: the ledger says which one was accepted."""
        copies = []
        for at in (0, 2):
            document = records.load(self.port.part, records.KEYSETS + at, 2, records.KIND_KEYSET)
            try:
                if document:
                    copies.append(keyset.parse(document))
            except Refused:
                pass  # written by an engine that knew more
        return copies

    def now(self) -> int:
        """Seconds since 1970, never before what the build and the root-signed key set prove."""
        return max(self.port.now(), self.port.config.BUILD_TIME, self.state.keyset[1])

    def _view(self) -> _View:
        config, pair = self.port.config, self.state.pairs[self.port.running]
        counters = [max(self.state.counters[FW], config.FLOOR_FW), max(self.state.counters[APP], config.FLOOR_APP)]
        return _View(counters, (pair[1], pair[2]) if pair else (self.state.counters[FW], 0))

    def _check(self, envelope: bytes):
        """The plan of an envelope under the newest key set, or Refused."""
        trusted = self.keyset()
        if trusted.expired(self.now()):
            raise Refused(reasons.EXPIRED_KEYSET)
        return suit.check(envelope, trusted, self.port, self._view(), self.now())

    def _forbidden(self, trusted, component: int, record) -> int:
        """The reason why the key set forbids choosing an image, or 0."""
        if record.manifest in trusted.revoked_manifests:
            return reasons.MANIFEST_REVOKED
        if record.key in trusted.revoked_keys:
            return reasons.KEY_REVOKED
        return reasons.FLOOR if record.sequence < trusted.limit(suit.NAMES[component])[0] else 0

    def _barred(self, trusted, slot: int) -> int:
        """Why the key set forbids the firmware in *slot* or the application that belongs to it, or 0."""
        record = records.load_slot(self.port.part, FW, slot)
        code = self._forbidden(trusted, FW, record) if record else 0
        app = self._paired_app(slot)
        record = records.load_slot(self.port.part, APP, app) if app != log.NO_APP else None
        if code or record is None or self.state.pairs[slot][3] != self._pair_digest(slot, app, record.digest):
            return code
        return self._forbidden(trusted, APP, record)

    def _broken(self, slot: int) -> int:
        """Why the firmware in *slot* may not be started, or 0: unproven, changed in flash, or below the eFuses."""
        record = records.load_slot(self.port.part, FW, slot)
        part = self.port.fw[slot]
        if record is None or record.size > part.size or _digest(part, record.size) != record.digest:
            return reasons.TARGET_LOST
        return reasons.FLOOR if image.secure_version(part) < self.port.hardware_floor() else 0

    def _unfit(self, slot: int) -> int:
        """Why the firmware in *slot* may not be chosen, or 0: broken or forbidden."""
        try:
            return self._broken(slot) or self._barred(self.keyset(), slot)
        except Refused as refused:
            return refused.code

    # -- at every boot ----------------------------------------------------------------------------

    def run(self) -> Decision:
        state, port = self.state, self.port
        if self.ledger.foreign:
            return Decision(None, False, reasons.LEDGER_VERSION)
        if self.ledger.lost:
            self._recover()
        if state.probe < _ROLLBACK_YES:
            self._probe()
        if state.phase == log.READY:
            self._install()
        if state.phase in (log.TRYING, log.SEALING):
            self._trial()
        if state.phase != log.TRYING and state.chosen != port.running:
            self._fallback()
        elif state.attempts and state.phase != log.TRYING:
            self.ledger.append(log.ATTEMPT)  # the choice came back: the next loss is a new one
        app = self._mountable()
        floor = port.hardware_floor()  # a whole old flash that was put back: only the eFuse can tell
        below = reasons.FLOOR if floor and image.secure_version(port.fw[port.running]) < floor else 0
        return Decision(app, state.phase == log.TRYING, below or state.degraded)

    def _recover(self) -> None:
        """A new ledger from what can still be proved; without any proof the device is locked (invariant 7)."""
        state, port = self.state, self.port
        frozen = keyset.parse(port.config.KEYSET)
        for copy in self._copies():
            try:
                keyset.genesis(copy.document)
            except Refused:
                continue
            if copy.environment == frozen.environment and copy.version > max(frozen.version, state.keyset[0]):
                state.keyset = (copy.version, copy.issued_at, copy.digest)
        proved = max(state.counters[FW], port.config.FLOOR_FW) > 0
        slots = [(FW, port.running, port.fw[port.running])] + [(APP, slot, part) for slot, part in enumerate(port.app)]
        for component, slot, part in slots:
            record = records.load_slot(port.part, component, slot)
            if record and record.size <= part.size and _digest(part, record.size) == record.digest:
                try:
                    plan = suit.check(record.envelope, self.keyset(), port, None, 0)  # installed: only who and what
                except Refused:
                    continue
                if (component, record.digest) in [(target.component, target.digest) for target in plan.targets]:
                    state.counters[component] = max(state.counters[component], plan.sequence)
                    if component == FW:
                        proved = True
                    else:  # which firmware it belonged to is not known any more: it is not mounted
                        state.degraded = reasons.TARGET_LOST
        state.locked = not proved
        state.degraded = state.degraded or self._barred(self.keyset(), port.running)
        state.chosen = port.running
        self.ledger.format()

    def _probe(self) -> None:
        """Asks the bootloader once whether it knows rollback: does it turn a NEW entry into PENDING_VERIFY?

        Two entries select the running slot meanwhile, so that a cut changes nothing.
        """
        part, running = self.port.otadata, self.port.running
        if self.state.probe == 0:
            otadata.normalise(part, running)
            otadata.select(part, running, otadata.NEW)
            self.ledger.append(log.PROBE, 1)
            self.port.reset()
        knows = otadata.selected(part) != (running, otadata.NEW)
        otadata.normalise(part, running)
        self.ledger.append(log.PROBE, _ROLLBACK_YES if knows else _ROLLBACK_NO)

    def _install(self) -> None:
        """A staged update: verify what lies in flash, make it bootable, select it. Always ends in a reset."""
        faults = self.state.faults + 1
        if faults > MAX_FAULTS:
            self._drop(reasons.INTERRUPTED)
        else:
            self.ledger.append(log.ENTER, 0, faults)
            try:
                self._swap(self._judge())
            except Refused as refused:
                self._drop(refused.code)
            except Exception:  # counted by the log.ENTER above: after four the update is dropped (invariant 9)
                pass
        self.port.reset()

    def _judge(self):
        """The plan of the staged update, if everything about it still holds."""
        state, port = self.state, self.port
        if state.slots != self._target_slots() or state.chosen != port.running:
            raise Refused(reasons.SLOT)
        envelope = records.load(port.part, records.STAGED, 1, records.KIND_STAGED)
        if envelope is None:
            raise Refused(reasons.STAGED_CHANGED)
        self._envelope = envelope
        plan = self._check(envelope)
        if plan.digest != state.manifest or _mask(plan) != state.mask:
            raise Refused(reasons.STAGED_CHANGED)
        self._verify(plan)
        return plan

    def _verify(self, plan) -> None:
        """The images as they are in flash: digest first, then what the bootloader will ask."""
        for target in plan.targets:
            if target.component == FW:
                held = _Held(self.port.part, self.port.fw[1 - self.port.running])
                if _digest(held, target.size) != target.digest:
                    raise Refused(reasons.IMAGE_DIGEST)
                image.check(held.read, target.size, self.port.config.CHIP, self.port.revision, sha256)
                if image.secure_version(held) < self.port.hardware_floor():
                    raise Refused(reasons.FLOOR)
            elif _digest(self.port.app[self._spare()], target.size) != target.digest:
                raise Refused(reasons.IMAGE_DIGEST)

    def _swap(self, plan) -> None:
        """Makes the verified images usable: slot records, the first 4 KiB, the pair, the trial, the choice."""
        port, slots = self.port, self.state.slots
        fw, app = slots & 15, slots >> 4
        for target in plan.targets:
            slot = app if target.component == APP else fw
            records.save_slot(port.part, target.component, slot, target, plan, self._envelope)
        if self.state.mask & 1:
            self._reveal(port.fw[fw])
            self._pair(fw, plan.sequence, app if self.state.mask & 2 else self._paired_app(self.port.running))
        self.ledger.append(log.TRIAL, self.state.mask, slots, plan.sequence, 0, plan.digest)
        if self.state.mask & 1:
            self._attempt(1)

    def _reveal(self, slot) -> None:
        """Copies the holding sector to the start of the slot; the first page comes last (invariant 1)."""
        head = bytearray(SECTOR)
        self.port.part.read(records.HOLDING * SECTOR, head)
        slot.erase(0)
        put(slot, 256, memoryview(head)[256:])
        put(slot, 0, memoryview(head)[:256])

    def _pair(self, fw: int, fw_sequence: int, app: int) -> None:
        """Records which application belongs to the firmware in slot *fw*."""
        record = records.load_slot(self.port.part, APP, app) if app != log.NO_APP else None
        if record is None:
            self.ledger.append(log.PAIR, fw, log.NO_APP, fw_sequence)
        else:
            digest = self._pair_digest(fw, app, record.digest)
            self.ledger.append(log.PAIR, fw, app, fw_sequence, record.sequence, digest)

    def _pair_digest(self, fw: int, app: int, app_digest: bytes) -> bytes:
        record = records.load_slot(self.port.part, FW, fw)
        fw_digest = record.digest if record else log.NO_DIGEST
        return sha256(bytes((fw, app)) + fw_digest + app_digest).digest()

    def _attempt(self, count: int) -> None:
        """Counts, then selects the trial slot: an attempt is counted before it is made."""
        self.ledger.append(log.ATTEMPT, 0, count)
        otadata.select(self.port.otadata, self.state.slots & 15, otadata.NEW)

    def _trial(self) -> None:
        state, port = self.state, self.port
        firmware = state.mask & 1
        if firmware and (port.running != state.slots & 15 or state.runs >= MAX_RUNS):
            self._retry()
        elif not firmware and state.chosen != port.running:
            self._drop(reasons.FALLBACK)
        elif state.phase == log.SEALING:
            self._seal()
        elif not firmware and state.attempts >= MAX_ATTEMPTS:
            self._drop(reasons.ATTEMPTS)
        else:
            port.watchdog(port.config.TRIAL_SECONDS)  # first, so that the trial ends even if the count cannot be kept
            if firmware:
                self.ledger.append(log.RUN, 0, state.runs + 1)
            else:
                self.ledger.append(log.ATTEMPT, 0, state.attempts + 1)

    def _retry(self) -> None:
        """The trial slot does not run, or ran too often unconfirmed: one more attempt, or the way back."""
        state, port = self.state, self.port
        # Whether it is forbidden was judged when the trial began, and no key set is accepted before its end.
        code = reasons.ATTEMPTS if state.attempts >= MAX_ATTEMPTS else self._broken(state.slots & 15)
        if code == 0:
            if port.running == state.chosen:
                self._attempt(state.attempts + 1)
            else:  # the next attempt is made from there, through the other entry: this one would take its place
                otadata.normalise(port.otadata, state.chosen)
            port.reset()
        self.ledger.append(log.FAILED, 0, code, state.sequence, 0, state.manifest)
        otadata.normalise(port.otadata, state.chosen)
        if port.running != state.chosen:
            port.reset()

    def _fallback(self) -> None:
        """The chosen slot does not run: bring it back while it verifies and tries are left, else go on degraded."""
        state, port = self.state, self.port
        if state.chosen >= 0 and state.attempts < MAX_ATTEMPTS and not self._unfit(state.chosen):
            self.ledger.append(log.ATTEMPT, 0, state.attempts + 1)
            otadata.select(port.otadata, state.chosen, otadata.VALID)
            port.reset()
        self.ledger.append(log.DEGRADED, 0, reasons.FALLBACK)
        otadata.normalise(port.otadata, port.running)  # before the record: after a cut between the two both come again
        self.ledger.append(log.COUNTERS, port.running, 0, state.counters[FW], state.counters[APP])

    def _drop(self, code: int) -> None:
        """Ends the update with a reason; whatever lies in the idle slot without being authorised stays unbootable."""
        state, port = self.state, self.port
        scrub = state.phase == log.READY and state.mask & 1 and port.running == state.chosen
        if scrub and not is_blank(port.fw[1 - port.running], 0):
            port.fw[1 - port.running].erase(0)  # first, so that a cut after the record leaves nothing
        self.ledger.append(log.FAILED, 0, code, state.sequence, 0, state.manifest)

    # -- the application image --------------------------------------------------------------------

    def _paired_app(self, slot: int) -> int:
        pair = self.state.pairs[slot]
        return pair[0] if pair and pair[0] < len(self.port.app) else log.NO_APP

    def _spare(self) -> int:
        """The app slot that the running pair does not use."""
        return 1 if self._paired_app(self.port.running) == 0 else 0

    def _target_slots(self) -> int:
        return 1 - self.port.running | self._spare() << 4

    def _mountable(self):
        """(part, size) of the application of the running pair, hashed against its slot record, or None."""
        state, port = self.state, self.port
        trying = state.phase == log.TRYING and not state.mask & 1
        app = state.slots >> 4 if trying else self._paired_app(port.running)
        if app >= len(port.app):
            return None
        record = records.load_slot(port.part, APP, app)
        pair = state.pairs[port.running]
        if (
            record is None
            or record.size > port.app[app].size
            or (
                not (trying and record.manifest == state.manifest)
                and (pair is None or pair[3] != self._pair_digest(port.running, app, record.digest))
            )
            or _digest(port.app[app], record.size) != record.digest
        ):
            if trying:
                self._drop(reasons.TARGET_LOST)
            elif state.degraded != reasons.TARGET_LOST:
                self.ledger.append(log.DEGRADED, 0, reasons.TARGET_LOST)
            return None
        return port.app[app], record.size

    # -- what the agent asks for ------------------------------------------------------------------

    def _open(self) -> None:
        """Raises the reason why no update may be accepted now."""
        state = self.state
        if self.ledger.foreign or self.ledger.lost:
            raise Refused(reasons.LEDGER_VERSION)
        if self.port.part.encrypted:
            raise Refused(reasons.ENCRYPTED)
        if state.locked:
            raise Refused(reasons.LOCKED)
        if state.phase in (log.TRYING, log.SEALING):
            raise Refused(reasons.TRIAL)
        if state.phase == log.READY:
            raise Refused(reasons.BUSY)
        if state.chosen != self.port.running:
            raise Refused(reasons.NOT_SELECTED)

    def accept(self, envelope):
        """Verifies an envelope and everything that needs no payload; returns the Plan. Writes nothing (UPE11)."""
        self.plan = None
        self._open()
        envelope = bytes(envelope)
        plan = self._check(envelope)
        for target in plan.targets:
            if target.component == FW:
                if self.state.probe != _ROLLBACK_YES:
                    raise Refused(reasons.NO_ROLLBACK)
                room = self.port.fw[1 - self.port.running].size
            elif self.port.app:
                room = self.port.app[self._spare()].size
            else:
                raise Refused(reasons.COMPONENT)
            if not 0 < target.size <= room:
                raise Refused(reasons.IMAGE_SIZE)
            if target.digest == self.state.abandoned[0] and plan.sequence <= self.state.abandoned[1]:
                raise Refused(reasons.ABANDONED)
        self.plan, self._envelope = plan, envelope
        return plan

    def accept_keyset(self, document):
        """Verifies a key set and keeps it; returns the newest one. Never during a trial (UPC05, UPC06)."""
        state = self.state
        if self.ledger.foreign or self.ledger.lost:
            raise Refused(reasons.LEDGER_VERSION)
        if state.phase in (log.TRYING, log.SEALING):
            raise Refused(reasons.TRIAL)
        try:
            old = self.keyset()
        except Refused:
            old = self._link or keyset.parse(self.port.config.KEYSET)
        new = keyset.accept(old, document)
        if new is old:
            return old
        if new.version < state.keyset[0]:
            self._link = new  # a link on the way back to the lost key set; nothing is kept before it is reached
            return new
        if new.version == state.keyset[0] and new.digest != state.keyset[2]:
            raise Refused(reasons.KEYSET_CONTENT)
        self._scrub_forbidden(new)
        at = records.KEYSETS + (new.version & 1) * 2
        records.save(self.port.part, at, 2, records.KIND_KEYSET, new.version & 0x7FFFFFFF, new.document)
        self.ledger.append(log.KEYSET, 0, 0, new.version, new.issued_at, new.digest)
        return new

    def _scrub_forbidden(self, trusted) -> None:
        """Under a new key set: an idle image that became forbidden is made unbootable, a running one is degraded."""
        state, port, idle = self.state, self.port, 1 - self.port.running
        code = self._barred(trusted, port.running)
        if code != state.degraded and (code or state.degraded in _FORBIDDEN):
            self.ledger.append(log.DEGRADED, 0, code)
        record = records.load_slot(port.part, FW, idle)
        if record and self._forbidden(trusted, FW, record) and not is_blank(port.fw[idle], 0):
            port.fw[idle].erase(0)  # no harm to a fetched or staged image: its first sector is still held back

    def begin(self) -> list:
        """Opens the accepted update for writing; returns per component the offset to go on from (bytes)."""
        self._open()
        plan, state, port = self.plan, self.state, self.port
        if plan is None:
            raise Refused(reasons.NOTHING)
        mask, slots = _mask(plan), self._target_slots()
        resume = state.phase == log.FETCHING and (state.manifest, state.mask, state.slots) == (plan.digest, mask, slots)
        if state.phase == log.FETCHING and not resume:
            raise Refused(reasons.BUSY)
        otadata.normalise(port.otadata, port.running)
        records.save(port.part, records.STAGED, 1, records.KIND_STAGED, 0, self._envelope)
        tries = min(state.tries(plan.digest) + 1, 255)
        self.ledger.append(log.FETCH, mask, slots, plan.sequence, 0, plan.digest, tries)
        self._at = list(state.progress)
        self._redo = [offset + CHUNK for offset in self._at] if resume else [0, 0]
        return self._at

    def write(self, component: int, off: int, buf) -> None:
        """Writes the next bytes of a component: whole sectors in order, the last one as long as it is."""
        target = self._target(component)
        size = len(buf)
        if off != self._at[component] or off + size > target.size or not 0 < size <= SECTOR:
            raise Refused(reasons.IMAGE_SIZE)
        if size < SECTOR and off + size != target.size:
            raise Refused(reasons.IMAGE_SIZE)
        slot = self.port.fw[1 - self.port.running] if component == FW else self.port.app[self._spare()]
        if component == FW and off == 0:
            image.check_header(buf, self.port.config.CHIP, self.port.revision)
            self.port.part.erase(records.HOLDING)
            put(self.port.part, records.HOLDING * SECTOR, buf)
            slot.erase(0)  # from here on the slot is not bootable, and only then is the rest of it touched
        elif off < self._redo[component] or not same(slot, off, buf):
            slot.erase(off // SECTOR)
            put(slot, off, buf)
        off += size
        self._at[component] = off
        if off % CHUNK == 0 or off == target.size:
            self.ledger.append(log.PROGRESS, component, 0, off)

    def _target(self, component: int):
        if self.plan and self.state.phase == log.FETCHING and self.state.manifest == self.plan.digest:
            for target in self.plan.targets:
                if target.component == component:
                    return target
        raise Refused(reasons.NOTHING)

    def stage(self) -> None:
        """Checks the complete update in flash and records it as staged; `machine.reset()` then starts the swap."""
        plan = self.plan
        if plan is None:
            raise Refused(reasons.NOTHING)
        for target in plan.targets:
            if self._at[self._target(target.component).component] != target.size:
                raise Refused(reasons.TRUNCATED)
        try:
            self._verify(plan)
        except Refused as refused:
            self.abort(refused.code)
            raise
        self.ledger.append(log.STAGED, self.state.mask, self.state.slots, plan.sequence, 0, plan.digest)

    def abort(self, code: int) -> None:
        """Gives up the update that is being fetched or is staged, with a reason."""
        if self.state.phase not in (log.FETCHING, log.READY):
            raise Refused(reasons.NOT_STAGED)
        self._drop(code)

    def confirm(self) -> int:
        """Ends the trial well; 0, or the reason why there is nothing to confirm (then nothing was written)."""
        state, port = self.state, self.port
        if state.phase not in (log.TRYING, log.SEALING):
            return reasons.NOTHING
        expected = state.slots & 15 if state.mask & 1 else state.chosen
        if port.running != expected or otadata.selected(port.otadata)[0] != port.running:
            return reasons.NOT_SELECTED
        if state.phase == log.TRYING:
            self.ledger.append(log.CONFIRMING)
        self._seal()
        return 0

    def _seal(self) -> None:
        """CONFIRMING is recorded: otadata VALID, then the one record with all counters (invariants 2 and 3)."""
        state, port = self.state, self.port
        counters = list(state.counters)
        if state.mask & 1:
            otadata.mark_valid(port.otadata, port.running)
        else:
            self._pair(port.running, self._view().running[FW], state.slots >> 4)
        if state.permit:
            record = records.load_slot(port.part, FW, 1 - port.running)
            if record:
                self.ledger.append(log.ABANDONED, 0, 0, record.sequence, 0, record.digest)
        else:
            for component in (FW, APP):
                if state.mask >> component & 1:
                    counters[component] = max(counters[component], state.sequence)
        try:
            code = self._barred(self.keyset(), port.running)  # an application that stayed may be below its floor
        except Refused:
            code = 0
        self.ledger.append(log.CONFIRMED, port.running, code, counters[FW], counters[APP], state.manifest)

    def fail(self, code: int) -> None:
        """The application found its own image unhealthy: back to the old one, with the reason. Does not return."""
        state, port = self.state, self.port
        if state.phase != log.TRYING:
            raise Refused(reasons.NOTHING)
        self.ledger.append(log.FAILED, 0, code, state.sequence, 0, state.manifest)
        otadata.normalise(port.otadata, state.chosen)
        port.reset()

    # -- the way back, on order ---------------------------------------------------------------------

    def operator(self, order, right: int) -> tuple:
        """(public key, payload) of an order by an operator key with *right* (0: any) for this product, else Refused.

        Address, time and repetition are for the caller to judge.
        """
        trusted, classes = self.keyset(), self.port.classes
        index, payload = cose.open_sign1(order, [key for key, _, _ in trusted.operators], trusted.revoked_keys)
        key, rights, own = trusted.operators[index]
        if (right and right not in rights) or (own is not None and set(own).isdisjoint(classes)):
            raise Refused(reasons.KEY_RIGHTS)
        return key, payload

    def nonce(self) -> int:
        """The nonce that the next order to the engine must carry; drawn when there is none."""
        if not self.state.nonce:
            self.ledger.append(log.NONCE, 0, 0, int.from_bytes(urandom(7), "big") + 1)
        return self.state.nonce

    def _order(self, document, right: int) -> bytes:
        """The argument of an order to this very device, now and once: a map {1: right, 2: device id, 3: nonce,
        4: expiry (s since 1970), 5: argument, ?7: reason} under the right of that number."""
        reader = Reader(self.operator(document, right)[1])
        order: dict = {}
        for key in reader.int_keys(6):
            if key == 7:
                reader.skip()
            else:
                order[key] = reader.uint() if key in (1, 3, 4) else bytes(reader.bstr())
        reader.done()
        expected = (right, self.port.device, self.state.nonce)
        if len(order) != 5 or (order.get(1), order.get(2), order.get(3)) != expected or not self.state.nonce:
            raise Refused(reasons.PERMIT)
        if not order.get(4, 0) > self.now():
            raise Refused(reasons.PERMIT_EXPIRED)
        return order.get(5, b"")

    def unlock(self, document) -> None:
        """Obeys an operator's order to install again although nothing proves a counter any more (invariant 7)."""
        self._order(document, RIGHT_UNLOCK)
        self.ledger.append(log.LOCK)

    def rollback(self, permit) -> None:
        """Obeys an operator's rollback permit, an order whose argument is the manifest digest of the target: the idle
        image takes an ordinary trial. Does not return (UPE03)."""
        self._open()
        target, port = self._order(permit, RIGHT_ROLLBACK), self.port
        slot = 1 - port.running
        record = records.load_slot(port.part, FW, slot)
        if self.state.phase != log.IDLE or not record or record.manifest != target or self._unfit(slot):
            raise Refused(reasons.PERMIT_TARGET)
        otadata.normalise(port.otadata, port.running)
        self.ledger.append(log.ROLLBACK, 1, slot, record.sequence, 0, record.manifest)
        self._attempt(1)
        port.reset()

    def status(self) -> dict:
        """What the agent and the report engine may know, in plain values."""
        state, pair = self.state, self.state.pairs[self.port.running]
        return {
            "running": self.port.running,
            "chosen": state.chosen,
            "phase": state.phase,
            "trial": state.phase in (log.TRYING, log.SEALING),
            "counters": tuple(state.counters),
            "pair": pair[:3] if pair else None,
            "keyset": max(state.keyset[0], keyset.parse(self.port.config.KEYSET).version),
            "degraded": state.degraded,
            "locked": state.locked,
            "rollback": state.probe == _ROLLBACK_YES,
            "manifest": state.manifest,
            "attempts": state.attempts,
            "last": state.last,
            "retries": tuple(state.retries),
        }


def _mask(plan) -> int:
    mask = 0
    for target in plan.targets:
        mask |= 1 << target.component
    return mask


def _digest(part, size: int) -> bytes:
    """SHA-256 of the first *size* bytes of a part."""
    hasher = sha256()
    feed(hasher, part, 0, size, bytearray(_PIECE))
    return hasher.digest()
