"""docs/engine.md draws the engine's states; the drawing, what records do and what the engine writes are the same."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from helpers import release
from helpers.desk import CLASS, VENDOR, Desk, ResetError, Up, fetch, firmware
from helpers.keys import ISSUED, YEAR, make_keyset
from sekisho_boot import engine, ledger, otadata, reasons, records
from sekisho_boot.ledger import Ledger
from sekisho_boot.reasons import Refused
from sekisho_tools import cose

PAGE = Path(__file__).parents[1] / "docs" / "engine.md"
PHASES = ("IDLE", "FETCHING", "READY", "TRYING", "SEALING")
LIMITS = {"ENTER": engine.MAX_FAULTS, "ATTEMPT": engine.MAX_ATTEMPTS, "RUN": engine.MAX_RUNS}
RECORDS = {
    name: getattr(ledger, name)
    for name in re.findall(r"^\| \d+ \| ([A-Z]+) \|", (PAGE.parent / "flash-format.md").read_text(), re.MULTILINE)
}
FIRST = ("FETCH", "STAGED", "TRIAL", "CONFIRMING")
"""The records that lead to FETCHING, READY, TRYING and SEALING, one after the other."""


def edges() -> list[tuple[str, str, str]]:
    found = []
    for start, end, label in re.findall(r"^    (\w+) --> (\w+): (.*)$", PAGE.read_text(), re.MULTILINE):
        found += [(start, end, name) for name in re.findall(r"\b[A-Z]{3,}\b", label) if name in RECORDS]
    return found


def state_in(phase: str) -> ledger.State:
    state = ledger.State()
    for name in FIRST[: PHASES.index(phase)]:
        state.apply(RECORDS[name], 1, 1, 7, 0, b"m" * 32, 1)
    assert state.phase == PHASES.index(phase)
    return state


@pytest.mark.parametrize(("start", "end", "record"), edges())
def test_every_arrow_is_what_the_record_does(start, end, record):
    state = state_in(start)
    state.apply(RECORDS[record], 1, 1, 7, 0, b"m" * 32, 1)
    assert PHASES[state.phase] == end


def test_every_record_that_moves_the_phase_is_drawn():
    drawn = {record for _, _, record in edges()}
    moving = set()
    for name, kind in RECORDS.items():
        for phase in PHASES:
            state = state_in(phase)
            state.apply(kind, 1, 1, 7, 0, b"m" * 32, 1)
            if PHASES[state.phase] != phase:
                moving.add(name)
    assert moving - {"HEADER"} <= drawn, "HEADER only begins a snapshot"


@pytest.mark.parametrize(("record", "limit"), LIMITS.items())
def test_the_limits_in_the_drawing_are_those_of_the_code(record, limit):
    assert re.search(rf"{record} \([^)]*\b{limit}\b", PAGE.read_text())


# -- what the engine writes ------------------------------------------------------------------------


NAMES = {kind: name for name, kind in RECORDS.items()}
BESIDE = {"COUNTERS", "PAIR", "KEYSET", "ABANDONED", "LOCK", "PROBE", "NONCE", "DEGRADED"}
"""Records that say nothing of the update in progress."""
OLD, NEW, NEWER = (
    release.make(number, {0: firmware(str(number))}, vendor=VENDOR, product=CLASS) for number in (1, 2, 3)
)
APP = release.make(4, {1: b"application" * 500}, vendor=VENDOR, product=CLASS, ties={0: 2})


def stage(desk: Desk, made: release.Release) -> None:
    fetch(desk.power_on().engine, made.envelope, made.payloads)


def trial(desk: Desk, made: release.Release) -> Up:
    stage(desk, made)
    return desk.power_on()


def confirmed(desk: Desk, made: release.Release) -> Up:
    assert trial(desk, made).engine.confirm() == 0
    return desk.power_on()


def resumed_download(desk: Desk) -> None:
    fetch(desk.power_on().engine, NEW.envelope, NEW.payloads, until=8192)
    confirmed(desk, NEW)


def given_up_download(desk: Desk) -> None:
    fetch(desk.power_on().engine, NEW.envelope, NEW.payloads, until=8192)
    desk.power_on().engine.abort(reasons.NETWORK)


def refused_download(desk: Desk) -> None:
    with pytest.raises(Refused):
        fetch(desk.power_on().engine, NEW.envelope, {0: NEW.payloads[0][:-1] + b"?"})


def refused_at_boot(desk: Desk) -> None:
    stage(desk, NEW)
    desk.part("sekisho").erase(records.STAGED)
    desk.power_on()


def unhealthy(desk: Desk) -> None:
    with pytest.raises(ResetError):
        trial(desk, NEW).engine.fail(reasons.HEALTH)
    desk.power_on()


def never_confirmed(desk: Desk) -> None:
    trial(desk, NEW)
    while desk.power_on().decision.trial:
        pass


def application(desk: Desk) -> None:
    confirmed(desk, NEW)
    trial(desk, APP)
    while desk.power_on().decision.trial:
        pass
    confirmed(desk, APP)


def ordered_rollback(desk: Desk) -> None:
    engine_ = confirmed(desk, NEW).engine
    members = {1: 3, 2: engine_.port.device, 3: engine_.nonce(), 4: ISSUED + YEAR, 5: OLD.plan.digest}
    with pytest.raises(ResetError):
        engine_.rollback(cose.sign1(release.encode(members), desk.keys.operators[0], attached=True))
    assert desk.power_on().engine.confirm() == 0


def lost_choice(desk: Desk) -> None:
    confirmed(desk, NEW)
    otadata.normalise(desk.part("otadata"), 0)
    assert desk.power_on().running == 1


def lost_choice_while_fetching(desk: Desk) -> None:
    confirmed(desk, NEW)
    fetch(desk.power_on().engine, NEWER.envelope, NEWER.payloads, until=0)  # the idle image is whole still
    otadata.normalise(desk.part("otadata"), 0)
    assert desk.power_on().running == 1


def broken_choice(desk: Desk) -> None:
    confirmed(desk, NEW)
    desk.flash.buffer[desk.layout["ota_1"].offset + 9000] ^= 1
    assert desk.power_on().running == 0


def cut_confirmation(desk: Desk) -> None:
    """The power goes after CONFIRMING, and the bootloader then finds only the other slot in otadata."""
    trial(desk, NEW)
    Ledger(desk.part("sekisho")).append(ledger.CONFIRMING)
    otadata.normalise(desk.part("otadata"), 0)
    assert desk.power_on().running == 1


def cut_confirmation_of_an_image_that_is_lost(desk: Desk) -> None:
    trial(desk, NEW)
    Ledger(desk.part("sekisho")).append(ledger.CONFIRMING)
    desk.flash.buffer[desk.layout["ota_1"].offset + 9000] ^= 1
    assert desk.power_on().running == 0


def key_sets_and_locks(desk: Desk) -> None:
    desk.power_on().engine.accept_keyset(desk.keys.next().document)
    for sector in range(16):
        desk.part("sekisho").erase(sector)
    desk.power_on().engine.nonce()


PATHS = [
    resumed_download,
    given_up_download,
    refused_download,
    refused_at_boot,
    unhealthy,
    never_confirmed,
    application,
    ordered_rollback,
    lost_choice,
    lost_choice_while_fetching,
    broken_choice,
    cut_confirmation,
    cut_confirmation_of_an_image_that_is_lost,
    key_sets_and_locks,
]


def test_the_arrows_are_what_the_engine_writes_on_all_its_paths(monkeypatch):
    written = set()
    genuine = Ledger.append

    def append(self: Ledger, kind: int, *arguments, **named) -> None:
        before = PHASES[self.state.phase]
        genuine(self, kind, *arguments, **named)
        written.add((before, PHASES[self.state.phase], NAMES[kind]))

    for path in PATHS:
        desk = Desk(keys=make_keyset(operators=1))
        desk.factory(OLD, OLD.payloads[0])
        monkeypatch.setattr(Ledger, "append", append)
        path(desk)
        monkeypatch.undo()
    beside = {arrow for arrow in written if arrow[2] in BESIDE}
    assert all(before == after for before, after, _ in beside)
    assert written - beside == set(edges())
