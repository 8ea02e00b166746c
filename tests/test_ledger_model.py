"""The ledger against a plain dictionary: whatever is cut, torn, lost or worn out, it says what was written into it.

The model below is written from docs/flash-format.md, not from the code. A record that was being written when the
power went is there or not; everything before it is there.
"""

from __future__ import annotations

import json
import os
import random
from typing import Any
from zlib import crc32

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sekisho_boot import ledger as led
from sekisho_boot import reasons
from sekisho_boot.ledger import Ledger, State
from sekisho_boot.reasons import Refused
from sekisho_sim.flash import SECTOR, Flash, MemPart, shapes_for, torn

SEEDED = "SEKISHO_SEEDED" in os.environ  # a bug was put in on purpose: nobody needs the shortest example
PART = 0x10000
RECORD = 64
NONE = bytes(32)
DIGESTS = tuple(bytes((n,)) * 32 for n in range(1, 7))

IDLE, FETCHING, READY, TRYING, SEALING = range(5)


class WornPart(MemPart):
    """A partition with places (bank, record) of which one bit cannot be cleared any more."""

    def __init__(self) -> None:
        super().__init__(PART, Flash.blank(PART))
        self.worn: set[tuple[int, int]] = set()

    def program(self, off: int, buf: Any) -> None:
        super().program(off, buf)
        for bank, place in self.worn:
            at = bank * SECTOR + place * RECORD
            if off <= at < off + len(buf):
                self.flash.buffer[at] |= 2  # the version byte of a record reads back wrong


def fresh() -> dict[str, Any]:
    """What a ledger without records says."""
    return {
        "counters": (0, 0),
        "chosen": -1,
        "degraded": 0,
        "locked": False,
        "probe": 0,
        "keyset": (0, 0, NONE),
        "pairs": {},
        "retries": [],
        "abandoned": (NONE, 0),
        "nonce": 0,
        "last": (0, NONE, 0),
        **idle(),
    }


def idle() -> dict[str, Any]:
    return {
        "phase": IDLE,
        "mask": 0,
        "slots": 0,
        "sequence": 0,
        "manifest": NONE,
        "permit": False,
        "progress": {},
        "attempts": 0,
        "runs": 0,
        "faults": 0,
    }


def retry(model: dict[str, Any], digest: bytes, tries: int) -> None:
    rest = [entry for entry in model["retries"] if entry[0] != digest]
    model["retries"] = ([(digest, tries)] if tries else []) + rest[:3]


def tell(model: dict[str, Any], record: tuple) -> dict[str, Any]:
    """The model after one more record (type, a, b, x, y, digest, z)."""
    kind, a, b, x, y, digest, z = record
    model = {**model, "pairs": dict(model["pairs"]), "progress": dict(model["progress"])}

    def start(phase: int) -> None:
        if model["manifest"] != digest:
            model.update(idle())
        model.update(phase=phase, mask=a, slots=b, sequence=x, manifest=digest)
        if phase != FETCHING:  # what was complete needs no offsets
            model["progress"] = {}

    def count() -> None:
        model["counters"] = (max(model["counters"][0], x), max(model["counters"][1], y))

    if kind == led.COUNTERS:
        count()
        model["chosen"] = a if a < 2 else -1
    elif kind == led.PAIR:
        model["pairs"][a] = (b, x, y, digest)
    elif kind == led.KEYSET:
        if x >= model["keyset"][0]:
            model["keyset"] = (x, y, digest)
    elif kind == led.FETCH:
        start(FETCHING)
        retry(model, digest, z)
    elif kind == led.PROGRESS:
        model["progress"][a] = x
    elif kind == led.STAGED:
        start(READY)
    elif kind == led.ENTER:
        model["faults"] = b
    elif kind == led.TRIAL:
        start(TRYING)
        model.update(attempts=0, runs=0)
    elif kind == led.ATTEMPT:
        model.update(attempts=b, runs=0)
    elif kind == led.RUN:
        model["runs"] = b
    elif kind == led.CONFIRMING:
        model["phase"] = SEALING
    elif kind == led.CONFIRMED:
        count()
        retry(model, digest, 0)
        model.update(chosen=a, degraded=0, last=(0, digest, model["sequence"]))
        model.update(idle())
    elif kind == led.FAILED:
        model["last"] = (b, digest, x)
        model.update(idle())
    elif kind == led.RETRY:
        retry(model, digest, z)
    elif kind == led.ROLLBACK:
        model.update(idle())
        start(TRYING)
        model.update(permit=True, nonce=0)
    elif kind == led.ABANDONED:
        model["abandoned"] = (digest, x)
    elif kind == led.LOCK:
        model.update(locked=a == 1, nonce=0)
    elif kind == led.PROBE:
        model["probe"] = a
    elif kind == led.NONCE:
        model["nonce"] = x
    elif kind == led.DEGRADED:
        model["degraded"] = b
    return model


def seen(state: State) -> dict[str, Any]:
    """A State in the model's words."""
    return {
        "counters": tuple(state.counters),
        "chosen": state.chosen,
        "degraded": state.degraded,
        "locked": state.locked,
        "probe": state.probe,
        "keyset": tuple(state.keyset),
        "pairs": {slot: tuple(pair) for slot, pair in enumerate(state.pairs) if pair},
        "retries": [tuple(entry) for entry in state.retries],
        "abandoned": tuple(state.abandoned),
        "nonce": state.nonce,
        "last": tuple(state.last),
        "phase": state.phase,
        "mask": state.mask,
        "slots": state.slots,
        "sequence": state.sequence,
        "manifest": state.manifest,
        "permit": state.permit,
        "progress": {c: off for c, off in enumerate(state.progress) if off and state.phase == FETCHING},
        "attempts": state.attempts,
        "runs": state.runs,
        "faults": state.faults,
    }


numbers = st.one_of(st.integers(1, 9), st.integers(1, (1 << 63) - 1))
counts = st.integers(1, 250)
digests = st.sampled_from(DIGESTS)


def candidates(model: dict[str, Any], draw: Any) -> tuple:
    """A record that an engine could append in this state."""
    phase = model["phase"]
    kinds = [led.COUNTERS, led.PAIR, led.KEYSET, led.ABANDONED, led.LOCK, led.PROBE, led.NONCE, led.DEGRADED]
    kinds += [led.ATTEMPT]
    kinds += {
        IDLE: [led.FETCH, led.ROLLBACK] * 2,
        FETCHING: [led.FETCH, led.PROGRESS, led.STAGED, led.FAILED, led.PROGRESS],
        READY: [led.ENTER, led.TRIAL, led.FAILED] * 2,
        TRYING: [led.RUN, led.CONFIRMING, led.FAILED] * 2,
        SEALING: [led.CONFIRMED, led.CONFIRMED, led.RUN, led.FAILED],
    }[phase]
    kind = draw(st.sampled_from(kinds))
    manifest = model["manifest"] if phase else draw(digests)
    if kind == led.COUNTERS:
        return (kind, draw(st.sampled_from((0, 1, 255))), 0, draw(numbers), draw(numbers), NONE, 0)
    if kind == led.PAIR:
        return (kind, draw(st.integers(0, 1)), draw(st.sampled_from((0, 1, 255))), draw(numbers), 3, draw(digests), 0)
    if kind == led.KEYSET:
        return (kind, 0, 0, draw(numbers), draw(numbers), draw(digests), 0)
    if kind in (led.FETCH, led.STAGED, led.TRIAL, led.ROLLBACK):
        tries = draw(counts) if kind == led.FETCH else 0
        sequence = model["sequence"] or draw(numbers)
        return (kind, model["mask"] or draw(st.integers(1, 3)), draw(st.integers(0, 17)), sequence, 0, manifest, tries)
    if kind == led.PROGRESS:
        return (kind, draw(st.integers(0, 1)), 0, draw(st.integers(1, 1 << 20)), 0, NONE, 0)
    if kind in (led.ENTER, led.ATTEMPT, led.RUN):
        return (kind, 0, draw(counts), 0, 0, NONE, 0)
    if kind == led.CONFIRMED:
        return (kind, draw(st.integers(0, 1)), 0, draw(numbers), draw(numbers), manifest, 0)
    if kind == led.FAILED:
        return (kind, 0, draw(counts), model["sequence"], 0, manifest, 0)
    if kind == led.ABANDONED:
        return (kind, 0, 0, draw(numbers), 0, draw(digests), 0)
    if kind in (led.LOCK, led.PROBE):
        return (kind, draw(st.integers(0, 1)) if kind == led.LOCK else draw(st.integers(0, 3)), 0, 0, 0, NONE, 0)
    if kind == led.NONCE:
        return (kind, 0, 0, draw(numbers), 0, NONE, 0)
    if kind == led.DEGRADED:
        return (kind, 0, draw(counts), 0, 0, NONE, 0)
    return (kind, 0, 0, 0, 0, NONE, 0)


class LedgerModel(RuleBasedStateMachine):
    """`expected` are the models that the ledger may hold: more than one only between a cut and the next reading."""

    def __init__(self) -> None:
        super().__init__()
        self.part = WornPart()
        self.ledger: Ledger | None = None
        self.expected = [fresh()]
        self.damaged: int | None = None  # bank that was lost since both were level

    @initialize()
    def format(self) -> None:
        self.ledger = Ledger(self.part)
        assert self.ledger.lost
        self.ledger.format()

    def load(self) -> Ledger:
        """Reads the ledger; it must say one of the models that are expected, and then stay with it."""
        loaded = Ledger(self.part)
        assert not loaded.lost
        assert not loaded.foreign
        said = seen(loaded.state)
        assert said in self.expected
        self.expected = [said]
        self.damaged = None
        return loaded

    @property
    def model(self) -> dict[str, Any]:
        return self.expected[0]

    @rule(data=st.data(), times=st.integers(1, 12))
    def append(self, data: Any, times: int) -> None:
        if self.ledger is None:
            self.ledger = self.load()
        for _ in range(times):
            record = candidates(self.model, data.draw)
            self.ledger.append(*record)
            self.expected = [tell(self.model, record)]
            assert seen(self.ledger.state) == self.model

    @rule(data=st.data())
    def fill_up_to_the_next_rewriting(self, data: Any) -> None:
        if self.ledger is None:
            self.ledger = self.load()
        left = 60 - max(self.ledger._room)
        for number in range(max(0, left)):
            record = (led.NONCE, 0, 0, number + 1, 0, NONE, 0)
            self.ledger.append(*record)
            self.expected = [tell(self.model, record)]

    @rule()
    def reboot(self) -> None:
        self.ledger = self.load()
        self.part.flash.log.clear()
        assert seen(Ledger(self.part).state) == self.model
        assert self.part.flash.log == []  # reading a level ledger writes nothing

    def _cut(self, data: Any, before: bytes) -> None:
        """Takes back what was just done up to one operation, which is torn or not begun."""
        flash = self.part.flash
        ops = list(flash.log)
        if ops:
            at = data.draw(st.integers(0, len(ops) - 1))
            flash.buffer[:] = before
            for op in ops[:at]:
                if op.kind == "program":
                    self.part.program(op.address, op.data)
                else:
                    self.part.erase(op.address // SECTOR)
            shape = data.draw(st.sampled_from([None, *shapes_for(ops[at])]))
            if shape:
                span = slice(ops[at].address, ops[at].address + ops[at].length)
                flash.buffer[span] = torn(bytes(flash.buffer[span]), ops[at], shape, data.draw(st.integers(0, 99)))
        flash.log.clear()
        self.ledger = None

    @rule(data=st.data())
    def cut_in_append(self, data: Any) -> None:
        if self.ledger is None:
            self.ledger = self.load()
        record = candidates(self.model, data.draw)
        before = bytes(self.part.flash.buffer)
        self.part.flash.log.clear()
        self.ledger.append(*record)
        self._cut(data, before)
        self.expected = [self.model, tell(self.model, record)]

    @precondition(lambda self: self.damaged is None)
    @rule(data=st.data())
    def cut_while_reading(self, data: Any) -> None:
        before = bytes(self.part.flash.buffer)
        self.part.flash.log.clear()
        Ledger(self.part)
        self._cut(data, before)

    @precondition(lambda self: self.damaged is None and len(self.expected) == 1)
    @rule(
        bank=st.integers(0, 1),
        how=st.sampled_from(("erased", "zeros", "noise", "header", "end", "one")),
        seed=st.integers(),
    )
    def lose_a_bank(self, bank: int, how: str, seed: int) -> None:
        # Only while both are level: a bank that is lost while the other waits to be levelled is two faults at once.
        self.ledger = self.load()
        chance = random.Random(seed)
        start = bank * SECTOR
        view = self.part.flash.buffer
        if how in ("header", "end", "one"):
            kinds = {"header": led.HEADER, "end": led.END}
            places = [
                at for at in range(start, start + SECTOR, RECORD) if how == "one" or view[at + 1] == kinds.get(how, 0)
            ]
            at = chance.choice([at for at in places if view[at : at + RECORD] != b"\xff" * RECORD])
            view[at + chance.randrange(RECORD)] ^= 1 << chance.randrange(8)
        else:
            view[start : start + SECTOR] = {
                "erased": b"\xff" * SECTOR,
                "zeros": bytes(SECTOR),
                "noise": chance.randbytes(SECTOR),
            }[how]
        self.damaged = bank
        self.ledger = None

    @precondition(lambda self: len(self.part.worn) < 8)
    @rule(bank=st.integers(0, 1), place=st.integers(0, 63))
    def wear_out_a_place(self, bank: int, place: int) -> None:
        if len([one for one in self.part.worn if one[0] == bank]) < 4:
            at = bank * SECTOR + place * RECORD
            if self.part.flash.buffer[at : at + RECORD] == b"\xff" * RECORD:
                self.part.worn.add((bank, place))

    @rule(bank=st.integers(0, 1), version=st.sampled_from((0, 2, 255)), place=st.integers(0, 63))
    def a_newer_format_is_read_only(self, bank: int, version: int, place: int) -> None:
        flash = self.part.flash
        before = bytes(flash.buffer)
        body = bytes((version, led.COUNTERS)) + bytes(58)
        start = bank * SECTOR + place * RECORD
        flash.buffer[start : start + RECORD] = body + crc32(body).to_bytes(4, "little")
        flash.log.clear()
        foreign = Ledger(self.part)
        assert foreign.foreign
        for call in (foreign.format, lambda: foreign.append(led.NONCE, 0, 0, 1)):
            with pytest.raises(Refused) as caught:
                call()
            assert caught.value.code == reasons.LEDGER_VERSION
        assert flash.log == []
        flash.buffer[:] = before
        self.ledger = None

    @invariant()
    def records_are_numbered_once(self) -> None:
        """No two different valid records of a bank bear the same n."""
        for bank in (0, 1):
            known: dict[int, bytes] = {}
            for at in range(bank * SECTOR, (bank + 1) * SECTOR, RECORD):
                raw = bytes(self.part.flash.buffer[at : at + RECORD])
                if crc32(raw[:60]).to_bytes(4, "little") == raw[60:] and raw[0] == 1:
                    n = int.from_bytes(raw[4:8], "little")
                    assert known.setdefault(n, raw) == raw


LedgerModel.TestCase.settings = settings(
    max_examples=60,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.generate,) if SEEDED else (Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink),
)


@pytest.mark.requirement("UPE10", "UPE14")
class TestLedgerModel(LedgerModel.TestCase):
    """What Hypothesis runs."""


@settings(max_examples=300, deadline=None)
@given(st.data(), st.integers(0, 60))
def test_a_snapshot_rebuilds_every_reachable_state(data, length):
    state, model = State(), fresh()
    for _ in range(length):
        record = candidates(model, data.draw)
        state.apply(*record)
        model = tell(model, record)
    assert seen(state) == model
    again = State()
    again.apply(led.HEADER, 0, 0, 0, 0, NONE, 0)
    for record in state.snapshot():
        again.apply(*record)
    assert seen(again) == model


@pytest.mark.rule("ledger-maximum")
def test_counters_are_found_where_no_bank_counts_any_more():
    part = MemPart(PART)
    ledger = Ledger(part)
    ledger.format()
    ledger.append(led.COUNTERS, 1, 0, 41, 7)
    ledger.append(led.CONFIRMED, 1, 0, 42, 5, DIGESTS[0])
    for bank in (0, 1):
        part.flash.buffer[bank * SECTOR] = 0  # the HEADER
    lost = Ledger(part)
    assert lost.lost
    assert lost.state.counters == [42, 7]


@pytest.mark.rule("ledger-skip", "ledger-records")
def test_loading_twice_gives_the_same_when_the_newest_record_reads_well_only_once():
    """A record whose program was cut may read well now and badly the next time: it must be fixed before it counts."""
    part = MemPart(PART)
    ledger = Ledger(part)
    ledger.format()
    ledger.append(led.COUNTERS, 0, 0, 1, 0)
    before = bytes(part.flash.buffer)
    part.flash.log.clear()
    ledger.append(led.COUNTERS, 0, 0, 2, 0)
    first = part.flash.log[0]
    part.flash.buffer[:] = before
    first.apply(part.flash.buffer)  # bank 0 has it, bank 1 does not
    assert Ledger(part).state.counters == [2, 0]
    part.flash.buffer[first.address + 8] ^= 2  # and now it does not read well any more
    assert Ledger(part).state.counters == [2, 0]


@pytest.mark.rule("ledger-records", "ledger-skip")
def test_a_record_whose_place_is_worn_in_both_banks_is_written_to_the_next_one():
    part = WornPart()
    ledger = Ledger(part)
    ledger.format()
    place = max(ledger._room)
    part.worn = {(bank, at) for bank in (0, 1) for at in (place, place + 1)}
    ledger.append(led.COUNTERS, 1, 0, 42, 7)
    ledger.append(led.PROBE, 2)
    again = Ledger(part).state
    assert (again.counters, again.chosen, again.probe) == ([42, 7], 1, 2)


def test_a_bank_without_a_good_place_left_is_refused_by_name():
    part = WornPart()
    ledger = Ledger(part)
    ledger.format()
    part.worn = {(0, at) for at in range(64)}
    with pytest.raises(Refused) as caught:
        ledger.append(led.COUNTERS, 1, 0, 42, 7)
    assert caught.value.code == reasons.FLASH


# -- records of today must be read for ever --------------------------------------------------------


def golden(repo) -> list[dict[str, Any]]:
    return json.loads((repo / "tests/golden/ledger-v1.json").read_text())["cases"]


def plain(model: dict[str, Any]) -> Any:
    """The model in what JSON knows."""
    return json.loads(json.dumps(model, default=lambda value: value.hex(), sort_keys=True))


@pytest.mark.requirement("UPE10")
def test_reads_every_ledger_that_format_1_ever_wrote(repo):
    for case in golden(repo):
        part = MemPart(PART)
        for place, raw in case["records"].items():
            data = bytes.fromhex(raw)
            part.flash.buffer[int(place) : int(place) + len(data)] = data
        ledger = Ledger(part)
        assert not ledger.foreign, case["name"]
        assert plain(seen(ledger.state)) == case["state"], case["name"]
        ledger.append(led.NONCE, 0, 0, 77)  # and it can go on from there
        assert plain(seen(Ledger(part).state)) == {**case["state"], "nonce": 77}, case["name"]
