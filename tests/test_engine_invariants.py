"""The engine's invariants (design, section 4), each attacked where it was most likely to break."""

from __future__ import annotations

import hashlib
from zlib import crc32

import pytest
from helpers import images
from helpers.desk import CLASS, VENDOR, Desk, Port, ResetError, fetch, firmware
from helpers.keys import ISSUED, YEAR, make_keyset, signer
from helpers.steps import (
    APP,
    APP_A,
    APP_B,
    APP_ONLY,
    BOTH,
    FACTORY,
    FW,
    NEW,
    NEWER,
    OLD,
    UPDATE,
    confirmed,
    degraded,
    last,
    make,
    refusal,
    stage,
    update,
)
from sekisho_boot import engine, ledger, otadata, reasons, records, suit
from sekisho_boot.flash import is_blank
from sekisho_boot.ledger import Ledger
from sekisho_sim import bootloader
from sekisho_sim.flash import SECTOR, Flash, cut_states
from sekisho_tools import imagefile
from sekisho_tools.errors import ToolError
from sekisho_tools.layout import parse_csv


@pytest.fixture
def desk() -> Desk:
    made = Desk()
    made.factory(FACTORY, OLD)
    return made


def damage(desk: Desk, label: str, at: int = 9000) -> None:
    desk.flash.buffer[desk.layout[label].offset + at] ^= 1


def bootable(desk: Desk, label: str) -> bool:
    part = desk.layout[label]
    content = memoryview(bytes(desk.flash.buffer[part.offset : part.end]))
    try:
        imagefile.verify(content, imagefile.CHIPS["esp32"], revision=300, address=part.offset)
    except ToolError:
        return False
    return True


def rerun(desk: Desk, running: int):
    """The engine runs again without the bootloader: a wake from deep sleep or a soft reset. None after a reset."""
    try:
        return engine.boot(Port(desk, running))
    except ResetError:
        return None


# -- 1: nothing is bootable before it is verified --------------------------------------------------


@pytest.mark.requirement("UPE10")
@pytest.mark.invariant(1)
def test_at_every_write_of_a_download_the_idle_slot_is_not_bootable(desk):
    confirmed(desk)  # so that the idle slot holds a bootable image when the download begins
    writer = desk.power_on().engine
    writer.accept(make(3, {FW: NEWER}).envelope)
    writer.begin()
    assert bootable(desk, "ota_0")
    for off in range(0, len(NEWER), SECTOR):
        writer.write(FW, off, NEWER[off : off + SECTOR])
        assert not bootable(desk, "ota_0")
    writer.stage()
    assert not bootable(desk, "ota_0")


@pytest.mark.requirement("UPE10")
@pytest.mark.invariant(1)
@pytest.mark.rule("target")
def test_the_first_sector_is_erased_before_any_other_byte_of_the_slot_is_touched(desk):
    confirmed(desk)
    desk.flash.log.clear()
    stage(desk, make(3, {FW: NEWER}))
    slot = desk.layout["ota_0"]
    touched = [op for op in desk.ops() if slot.offset <= op.address < slot.end]
    assert (touched[0].kind, touched[0].address) == ("erase", slot.offset)
    assert not [op for op in touched if op.kind == "program" and op.address < slot.offset + SECTOR]


@pytest.mark.invariant(1)
def test_the_first_page_of_a_verified_image_is_written_last(desk):
    stage(desk)
    desk.flash.log.clear()
    desk.power_on()
    slot = desk.layout["ota_1"]
    programs = [op for op in desk.ops() if op.kind == "program" and slot.offset <= op.address < slot.end]
    assert [(op.address - slot.offset, op.length) for op in programs] == [(256, SECTOR - 256), (0, 256)]
    record = desk.layout["sekisho"].offset + 3 * SECTOR
    order = [op.address for op in desk.ops() if op.kind == "program" and op.address in (record, slot.offset)]
    assert order == [record, slot.offset]  # what proves the image is there before the image


@pytest.mark.requirement("UPE10")
@pytest.mark.parametrize("where", ["ota_1", "holding"])
@pytest.mark.invariant(1, 5)
def test_what_changed_after_staging_never_becomes_bootable(desk, where):
    stage(desk)
    if where == "holding":
        desk.flash.buffer[desk.layout["sekisho"].offset + records.HOLDING * SECTOR + 700] ^= 1
    else:
        damage(desk, where, len(NEW) - 1)
    up = desk.power_on()
    assert (up.running, last(up)) == (0, "IMAGE_DIGEST")
    assert not bootable(desk, "ota_1")


@pytest.mark.requirement("UPE01")
@pytest.mark.invariant(5)
def test_a_staged_envelope_that_was_exchanged_is_dropped(desk):
    stage(desk)
    other = make(5, {FW: NEW})
    records.save(desk.part("sekisho"), records.STAGED, 1, records.KIND_STAGED, 0, other.envelope)
    up = desk.power_on()
    assert (up.running, last(up)) == (0, "STAGED_CHANGED")


def test_a_staged_envelope_that_is_lost_is_dropped(desk):
    stage(desk)
    desk.part("sekisho").erase(records.STAGED)
    up = desk.power_on()
    assert (up.running, last(up)) == (0, "STAGED_CHANGED")


@pytest.mark.rule("target")
def test_a_staged_record_that_names_the_running_slot_is_refused_and_the_running_image_untouched(desk):
    stage(desk)
    book = Ledger(desk.part("sekisho"))
    state = book.state
    book.append(ledger.STAGED, state.mask, 0 | state.slots & 0xF0, state.sequence, 0, state.manifest)
    before = desk.flash.read(desk.layout["ota_0"].offset, 0x10000)
    up = desk.power_on()
    assert (up.running, last(up)) == (0, "SLOT")
    assert desk.flash.read(desk.layout["ota_0"].offset, 0x10000) == before


def test_a_staged_mask_that_the_manifest_does_not_have_is_refused(desk):
    stage(desk)
    book = Ledger(desk.part("sekisho"))
    state = book.state
    book.append(ledger.STAGED, 3, state.slots, state.sequence, 0, state.manifest)
    up = desk.power_on()
    assert (up.running, last(up)) == (0, "STAGED_CHANGED")


@pytest.mark.invariant(1)
@pytest.mark.rule("failed")
def test_an_update_that_was_refused_at_boot_leaves_nothing_bootable_behind(desk):
    """The slot record and first sector of an earlier try may lie there when the verdict turns (a cut)."""
    stage(desk)
    part, slot = desk.part("sekisho"), desk.part("ota_1")
    head = bytearray(SECTOR)
    part.read(records.HOLDING * SECTOR, head)
    slot.program(0, bytes(head))  # the swap got this far before the power went
    assert bootable(desk, "ota_1")
    damage(desk, "sekisho", records.STAGED * SECTOR + 40)
    base = desk.snapshot()
    desk.flash.log.clear()
    up = desk.power_on()
    assert (up.running, last(up)) == (0, "STAGED_CHANGED")
    assert not bootable(desk, "ota_1")
    for cut, state in cut_states(base, desk.ops()):
        desk.restore(state)
        desk.power_on()
        assert not bootable(desk, "ota_1"), cut


def test_a_refused_update_is_scrubbed_where_the_other_slot_runs(desk):
    for sequence in (2, 3):
        update = make(sequence, {0: firmware(f"release {sequence}")}, vendor=VENDOR, product=CLASS)
        fetch(desk.power_on().engine, update.envelope, update.payloads)
        if sequence == 2:
            assert desk.power_on().engine.confirm() == 0
    head = bytearray(SECTOR)
    desk.part("sekisho").read(records.HOLDING * SECTOR, head)
    desk.part("ota_0").program(0, bytes(head))
    damage(desk, "sekisho", records.STAGED * SECTOR + 40)
    assert bootable(desk, "ota_0")
    up = desk.power_on()
    assert (up.running, last(up)) == (1, "STAGED_CHANGED")
    assert not bootable(desk, "ota_0")
    assert bootable(desk, "ota_1")


def _without_hash() -> bytes:
    data = images.descriptor().ljust(20_000, b"x")
    return images.image([(images.MAPPED["esp32"], data)], hashed=False)


def _wrong(change) -> bytes:
    data = bytearray(NEW)
    change(data)
    return bytes(data)


def _rehashed(change) -> bytes:
    """With a change, and an appended SHA-256 that fits it."""
    data = _wrong(change)[:-32]
    return data + hashlib.sha256(data).digest()


def _put(at: int, value: bytes):
    def change(data: bytearray) -> None:
        data[at : at + len(value)] = value

    return change


@pytest.mark.requirement("UPE11")
@pytest.mark.parametrize(
    ("image", "name"),
    [
        (images.app("s3", "esp32s3").ljust(512, b"\0"), "IMAGE_CHIP"),
        (_rehashed(_put(15, b"\xff\x7f")), "IMAGE_CHIP"),  # needs a chip revision that never was
        (_rehashed(_put(17, b"\x01\x00")), "IMAGE_CHIP"),  # is only for an older chip
        (_without_hash(), "IMAGE_HASH"),
        (_wrong(_put(len(NEW) - 1, b"\x00")), "IMAGE_HASH"),
        (_rehashed(_put(len(NEW) - 33, b"\x77")), "IMAGE_FORMAT"),  # checksum
        (_rehashed(_put(0, b"\xea")), "IMAGE_FORMAT"),
        (_rehashed(_put(1, b"\x00")), "IMAGE_FORMAT"),
        (_rehashed(_put(1, b"\x11")), "IMAGE_FORMAT"),
        (_rehashed(_put(32, b"\x00")), "IMAGE_FORMAT"),  # no app descriptor
        (_rehashed(_put(28, b"\xfc\xff\xff\x00")), "IMAGE_FORMAT"),  # a segment past the end
        (_rehashed(_put(28, (len(NEW) - 32 + 4).to_bytes(4, "little"))), "IMAGE_FORMAT"),  # a little past the end
        (_rehashed(_put(28, (len(NEW) - 34).to_bytes(4, "little"))), "IMAGE_FORMAT"),  # not a multiple of 4
        (_rehashed(_put(24, b"\x00\x00\xfe\x3f")), "IMAGE_FORMAT"),  # over the bootloader's own memory
        (_rehashed(_put(24, b"\x24\x00\x40\x3f")), "IMAGE_FORMAT"),  # not where the MMU could map it
        (_rehashed(_put(24, b"\x00\x00\x00\x60")), "IMAGE_FORMAT"),  # where there is no memory
    ],
)
@pytest.mark.rule("bootloader-checks")
def test_an_image_that_the_bootloader_would_refuse_is_refused_before_it_is_staged(desk, image, name):
    up = desk.power_on()
    made = make(2, {FW: image})
    assert refusal(fetch, up.engine, made.envelope, made.payloads) == name
    up = desk.power_on()
    assert (up.running, up.decision.trial) == (0, False)
    assert not bootable(desk, "ota_1")


@pytest.mark.rule("bootloader-checks")
def test_a_combined_firmware_file_is_refused_at_its_first_block(desk):
    up = desk.power_on()
    combined = images.bootloader().ljust(0x8000, b"\xff") + NEW
    made = make(2, {FW: combined})
    assert refusal(fetch, up.engine, made.envelope, made.payloads) == "IMAGE_FORMAT"
    assert up.engine.status()["phase"] == ledger.FETCHING
    assert bootable(desk, "ota_0")


# -- 2 and 9: cuts, attempts, loops ----------------------------------------------------------------


def entries(desk: Desk):
    return otadata.entries(desk.part("otadata"))


@pytest.mark.requirement("UPE14")
@pytest.mark.invariant(2)
@pytest.mark.rule("otadata")
def test_a_cut_between_erase_and_program_of_an_otadata_entry_is_harmless_at_every_step(desk):
    """Every otadata write of an update, by engine and bootloader, is cut right after its erase."""
    base = desk.snapshot()
    where = desk.layout["otadata"]

    def go(desk: Desk) -> None:
        for _ in range(6):
            up = desk.power_on()
            if up.decision.trial:
                assert up.engine.confirm() == 0
            elif up.running == 0:
                fetch(up.engine, UPDATE.envelope, UPDATE.payloads)

    go(desk)
    ops = desk.ops()
    erased = [n for n, op in enumerate(ops) if op.kind == "erase" and where.offset <= op.address < where.end]
    assert len(erased) >= 5  # probe twice, normalise, select, PENDING, VALID
    for number in erased:
        desk.restore(base)
        for op in ops[: number + 1]:
            op.apply(desk.flash.buffer)
        go(desk)
        up = desk.power_on()
        assert (up.running, up.engine.status()["counters"], degraded(up)) == (1, (2, 0), "")
        assert otadata.selected(desk.part("otadata")) == (1, otadata.VALID)


@pytest.mark.requirement("UPE14")
@pytest.mark.invariant(2)
def test_the_plug_may_be_pulled_twice_in_a_trial_and_the_third_start_may_confirm(desk):
    up = update(desk)
    for _ in range(2):
        assert (up.running, up.decision.trial) == (1, True)
        up = desk.power_on()
    assert up.engine.confirm() == 0
    assert desk.power_on().engine.status()["counters"] == (2, 0)


@pytest.mark.requirement("UPE13")
@pytest.mark.invariant(9)
def test_an_attempt_is_counted_before_the_slot_is_selected(desk):
    stage(desk)
    desk.flash.log.clear()
    desk.power_on()
    where = desk.layout["otadata"]
    ledger_writes = [
        n
        for n, op in enumerate(desk.ops())
        if op.kind == "program" and op.length == 64 and op.data[1] == ledger.ATTEMPT
    ]
    selecting = [n for n, op in enumerate(desk.ops()) if where.offset <= op.address < where.end]
    assert len(ledger_writes) == 2  # both banks
    assert max(ledger_writes) < min(selecting)


@pytest.mark.requirement("UPE13", "UPE14")
@pytest.mark.invariant(9)
def test_an_image_that_never_comes_to_its_engine_is_tried_three_times(desk):
    """The new image hangs before the engine: only the bootloader sees it, and the old engine counts."""
    stage(desk)
    starts = 0
    for _ in range(20):
        result = bootloader.power_on(desk.flash, None, "power-on", desk.profile)
        if result.running == "ota_1":
            starts += 1
            continue
        if rerun(desk, 0):
            break
    assert starts == 3
    up = desk.power_on()
    assert (up.running, last(up), degraded(up)) == (0, "ATTEMPTS", "")


@pytest.mark.requirement("UPE13")
@pytest.mark.invariant(9)
@pytest.mark.rule("runs")
def test_waking_from_deep_sleep_in_a_trial_again_and_again_ends_it(desk):
    """Deep sleep and soft reset skip the bootloader, so otadata never says ABORTED: the engine itself counts."""
    up = update(desk)
    assert up.decision.trial
    runs, attempts = 1, 1
    for _ in range(60):
        decision = rerun(desk, up.running)
        if decision:
            assert decision.trial
            runs += 1
            continue
        up = desk.power_on()
        if not up.decision.trial:
            break
        attempts += 1
        runs += 1
    assert (attempts, runs) == (3, 3 * engine.MAX_RUNS)
    assert (up.running, last(up)) == (0, "ATTEMPTS")


@pytest.mark.requirement("UPE14")
@pytest.mark.invariant(4)
def test_while_a_trial_is_repeated_otadata_keeps_the_way_back(desk):
    """A further attempt that is made from inside the trial slot would overwrite the entry of the old image."""
    confirmed(desk)
    up = update(desk, make(3, {FW: NEWER}))
    assert (up.running, up.decision.trial) == (0, True)
    while rerun(desk, 0):
        pass
    for _ in range(3):
        result = bootloader.power_on(desk.flash, None, "power-on", desk.profile)  # attempts that hang at once
        selects = [(entry[0] - 1) % 2 for entry in entries(desk) if entry and entry[1] == otadata.VALID]
        assert selects == [1]
        if result.running == "ota_1":
            rerun(desk, 1)
    up = desk.power_on()
    assert (up.running, degraded(up)) in ((0, ""), (1, ""))


@pytest.mark.rule("runs", "application-trial")
def test_waking_from_deep_sleep_in_the_trial_of_an_application_is_counted_too(desk):
    confirmed(desk, BOTH)
    up = update(desk, APP_ONLY)
    trials = 1
    while True:
        decision = rerun(desk, up.running)
        assert decision is not None
        if not decision.trial:
            break
        trials += 1
    assert trials == 3
    assert decision.app[1] == len(APP_A)


@pytest.mark.requirement("UPE13")
@pytest.mark.rule("watchdog")
def test_the_watchdog_is_armed_at_every_start_inside_a_trial_and_at_no_other(desk):
    assert desk.power_on().port.dogs == []
    assert update(desk).port.dogs == [300]
    assert desk.power_on().port.dogs == [300]
    confirmed_port = Port(desk, 1)
    engine.boot(confirmed_port)
    assert confirmed_port.dogs == [300]
    assert engine.Engine(confirmed_port).confirm() == 0
    assert desk.power_on().port.dogs == []


@pytest.mark.requirement("UPE13")
@pytest.mark.parametrize("components", ["fw", "app"])
@pytest.mark.invariant(9)
@pytest.mark.rule("watchdog")
def test_a_trial_whose_start_cannot_be_counted_ends_by_its_watchdog_all_the_same(desk, monkeypatch, components):
    """The catch-all of _boot.py lets the image on trial run after a fault of the engine: then too its time must end."""
    if components == "fw":
        stage(desk)
        assert desk.boot_once() is None
    else:
        confirmed(desk, BOTH)
        stage(desk, APP_ONLY)
        assert desk.boot_once() is None
    result = bootloader.power_on(desk.flash)
    assert result.running
    port = Port(desk, int(result.running[-1]))
    monkeypatch.setattr(Ledger, "append", lambda *_: (_ for _ in ()).throw(MemoryError))
    with pytest.raises(MemoryError):
        engine.boot(port)
    assert port.dogs == [300]


@pytest.mark.parametrize("error", [MemoryError, ValueError, OSError])
@pytest.mark.invariant(9)
def test_an_exception_inside_the_engine_is_counted_and_ends_the_update_after_four(desk, monkeypatch, error):
    stage(desk)

    def fail(*_):
        raise error

    monkeypatch.setattr(suit, "check", fail)
    boots = 0
    for _ in range(20):
        up = desk.boot_once()
        if up:
            break
        boots += 1
    assert boots == engine.MAX_FAULTS + 1
    assert (up.running, last(up)) == (0, "INTERRUPTED")
    assert reasons.kind(reasons.INTERRUPTED) == "unproven"  # neither the engine nor the agent bans what broke off
    assert not bootable(desk, "ota_1")
    monkeypatch.undo()
    assert confirmed(desk).running == 1


@pytest.mark.requirement("UPE14")
@pytest.mark.parametrize("cuts", [engine.MAX_FAULTS - 1, engine.MAX_FAULTS])
@pytest.mark.invariant(2, 9)
def test_pulling_the_plug_while_installing_ends_the_update_after_four_times_and_bans_nothing(desk, monkeypatch, cuts):
    stage(desk)

    def cut(*_):
        raise ResetError

    monkeypatch.setattr(engine.Engine, "_reveal", cut)
    for _ in range(cuts):
        assert desk.boot_once() is None
    monkeypatch.undo()
    up = desk.power_on()
    if cuts < engine.MAX_FAULTS:
        assert (up.running, up.decision.trial) == (1, True)
        return
    assert (up.running, up.decision.trial, last(up)) == (0, False, "INTERRUPTED")
    assert not bootable(desk, "ota_1")
    assert confirmed(desk).running == 1  # fetched again, and in


@pytest.mark.requirement("UPE14")
def test_an_exception_after_the_image_was_revealed_leaves_a_device_that_updates(desk, monkeypatch):
    stage(desk)
    monkeypatch.setattr(otadata, "select", lambda *_: (_ for _ in ()).throw(MemoryError))
    for _ in range(20):
        try:
            up = desk.boot_once()
        except MemoryError:
            up = None
        if up:
            break
    monkeypatch.undo()
    up = desk.power_on()
    if up.decision.trial:
        assert up.engine.confirm() == 0
        up = desk.power_on()
    assert confirmed(desk, make(5, {FW: NEWER})).engine.status()["counters"] == (5, 0)


@pytest.mark.rule("retries")
def test_tries_of_a_download_are_counted_per_manifest_and_forgotten_when_it_is_confirmed(desk):
    for tries in (1, 2, 3):
        up = desk.power_on()
        fetch(up.engine, UPDATE.envelope, UPDATE.payloads, until=8192)
        status = desk.power_on().engine.status()
        assert status["retries"] == ((UPDATE.plan.digest, tries),)
    up = desk.power_on().engine
    up.abort(reasons.NETWORK)
    other = make(3, {FW: NEWER})
    fetch(desk.power_on().engine, other.envelope, other.payloads, until=4096)
    status = desk.power_on().engine.status()
    assert status["retries"] == ((other.plan.digest, 1), (UPDATE.plan.digest, 3))
    desk.power_on().engine.abort(reasons.NETWORK)
    confirmed(desk)
    assert desk.power_on().engine.status()["retries"] == ((other.plan.digest, 1),)


def test_another_update_cannot_take_over_a_download_without_ending_it_first(desk):
    fetch(desk.power_on().engine, UPDATE.envelope, UPDATE.payloads, until=8192)
    up = desk.power_on().engine
    up.accept(make(3, {FW: NEWER}).envelope)
    assert refusal(up.begin) == "BUSY"


@pytest.mark.rule("otadata")
def test_begin_makes_otadata_say_one_thing_before_anything_is_written(desk):
    up = desk.power_on()
    otadata.select(desk.part("otadata"), 0, otadata.VALID)  # as after a probe or a trial: two entries
    assert None not in entries(desk)
    desk.flash.log.clear()
    fetch(up.engine, UPDATE.envelope, UPDATE.payloads, until=4096)
    assert desk.ops()[0].kind == "erase"
    assert desk.layout["otadata"].offset <= desk.ops()[0].address < desk.layout["otadata"].end
    assert otadata.selected(desk.part("otadata")) == (0, otadata.VALID)
    assert is_blank(desk.part("otadata"), entries(desk).index(None))


# -- 3: counters -----------------------------------------------------------------------------------


@pytest.mark.requirement("UPE02")
@pytest.mark.invariant(3)
def test_counters_are_raised_by_confirming_and_by_nothing_before(desk):
    up = update(desk)
    assert up.engine.status()["counters"] == (1, 0)
    up = desk.power_on()
    assert up.engine.status()["counters"] == (1, 0)
    up.engine.confirm()
    assert desk.power_on().engine.status()["counters"] == (2, 0)


@pytest.mark.requirement("UPE14")
def test_otadata_says_valid_before_the_counters_are_raised(desk):
    up = update(desk)
    desk.flash.log.clear()
    up.engine.confirm()
    where = desk.layout["otadata"]
    valid = [n for n, op in enumerate(desk.ops()) if op.kind == "program" and where.offset <= op.address < where.end]
    raised = [
        n
        for n, op in enumerate(desk.ops())
        if op.kind == "program" and op.length == 64 and op.data[1] in (ledger.CONFIRMED, ledger.COUNTERS)
    ]
    confirming = [
        n
        for n, op in enumerate(desk.ops())
        if op.kind == "program" and op.length == 64 and op.data[1] == ledger.CONFIRMING
    ]
    assert max(confirming) < min(valid) < min(raised)


def banks_gone(desk: Desk) -> None:
    for bank in (0, 1):
        desk.part("sekisho").erase(bank)


@pytest.mark.requirement("UPE02")
@pytest.mark.invariant(3, 7)
def test_with_both_banks_gone_the_running_slots_record_proves_the_counter(desk):
    confirmed(desk)
    banks_gone(desk)
    up = desk.power_on()
    status = up.engine.status()
    assert (up.running, status["counters"][FW], status["locked"]) == (1, 2, False)
    assert refusal(up.engine.accept, FACTORY.envelope) == "SEQUENCE"
    assert confirmed(desk, make(3, {FW: NEWER})).engine.status()["counters"][FW] == 3


@pytest.mark.requirement("UPE02")
def test_with_both_banks_gone_the_applications_record_proves_its_counter_too(desk):
    confirmed(desk, BOTH)
    confirmed(desk, APP_ONLY)
    banks_gone(desk)
    up = desk.power_on()
    assert up.engine.status()["counters"] == (3, 4)
    assert (up.decision.app, degraded(up)) == (None, "TARGET_LOST")  # no proof whose it is
    assert degraded(desk.power_on()) == "TARGET_LOST"
    assert refusal(up.engine.accept, make(3, {APP: APP_A}, ties={FW: 3}).envelope) == "SEQUENCE"
    up = confirmed(desk, make(5, {FW: NEW, APP: APP_A}))
    assert (up.decision.app[1], degraded(up)) == (len(APP_A), "")


def test_a_device_that_never_had_an_application_misses_none_after_losing_its_ledger(desk):
    confirmed(desk)
    banks_gone(desk)
    assert degraded(desk.power_on()) == ""


@pytest.mark.requirement("UPE02")
def test_an_envelope_proves_only_the_image_that_it_names(desk):
    """A slot record whose digest fits the flash, with a genuine envelope of a higher sequence for another image."""
    banks_gone(desk)
    part, other = desk.part("sekisho"), make(900, {FW: NEW})
    records.save_slot(part, FW, 0, FACTORY.plan.targets[0], other.plan, other.envelope)
    up = desk.power_on()
    assert (up.engine.status()["counters"], up.engine.status()["locked"]) == ((0, 0), True)


@pytest.mark.requirement("UPE02")
@pytest.mark.invariant(3, 7)
@pytest.mark.rule("ledger-maximum")
def test_one_readable_counter_record_is_enough_when_no_bank_counts(desk):
    confirmed(desk)
    start = desk.layout["sekisho"].offset
    for bank in (0, 1):
        desk.flash.buffer[start + bank * SECTOR] = 0  # HEADER
    for slot in (2, 3):
        desk.part("sekisho").erase(slot)
    up = desk.power_on()
    assert up.engine.status()["counters"][FW] == 2
    assert refusal(up.engine.accept, FACTORY.envelope) == "SEQUENCE"


@pytest.mark.parametrize("how", ["record", "image", "signature"])
@pytest.mark.invariant(7)
def test_where_nothing_proves_a_counter_the_device_runs_and_is_locked(desk, how):
    confirmed(desk)
    banks_gone(desk)
    part = desk.part("sekisho")
    if how == "record":
        part.erase(3)
    elif how == "image":  # still bootable, but not what the record says: bytes behind the image are nobody's
        record = records.load_slot(part, FW, 1)
        payload = bytearray(records.load(part, 3, 1, records.KIND_SLOT))
        payload[16:48] = hashlib.sha256(b"another").digest()
        assert record
        records.save(part, 3, 1, records.KIND_SLOT, 0, bytes(payload))
    else:
        forged = make(900, {FW: NEW}, key=signer("stranger"))
        records.save_slot(part, FW, 1, forged.plan.targets[0], forged.plan, forged.envelope)
    up = desk.power_on()
    assert (up.running, up.engine.status()["locked"]) == (1, True)
    assert refusal(up.engine.accept, make(3, {FW: NEWER}).envelope) == "LOCKED"


@pytest.mark.requirement("UPE02")
@pytest.mark.invariant(7)
def test_with_the_whole_partition_erased_the_constants_of_the_build_are_a_floor(desk):
    confirmed(desk)
    for sector in range(16):
        desk.part("sekisho").erase(sector)
    desk.config.FLOOR_FW = 2
    up = desk.power_on()
    assert (up.running, up.engine.status()["locked"]) == (1, False)
    assert refusal(up.engine.accept, FACTORY.envelope) == "SEQUENCE"


@pytest.mark.rule("ledger-foreign")
def test_a_ledger_of_a_newer_format_is_left_alone(desk):
    confirmed(desk)
    body = bytes((2, ledger.COUNTERS)) + bytes(58)
    start = desk.layout["sekisho"].offset
    desk.flash.buffer[start + 60 * 64 : start + 61 * 64] = body + crc32(body).to_bytes(4, "little")
    desk.flash.log.clear()
    up = desk.power_on()
    assert (up.running, degraded(up)) == (1, "LEDGER_VERSION")
    assert refusal(up.engine.accept, make(3, {FW: NEWER}).envelope) == "LEDGER_VERSION"
    assert refusal(up.engine.accept_keyset, desk.keys.next().document) == "LEDGER_VERSION"
    assert desk.ops() == []


# -- 4: fallback, confirm, the way back ------------------------------------------------------------


@pytest.mark.parametrize("selects", [0, 1])
@pytest.mark.rule("confirm")
def test_after_a_fallback_the_old_image_cannot_confirm_the_new_one(desk, selects):
    """The engine was kept from its work (no memory, say), and the application calls confirm at once."""
    assert update(desk).running == 1
    otadata.normalise(desk.part("otadata"), selects)
    old = engine.Engine(Port(desk, 0))
    desk.flash.log.clear()
    assert reasons.name(old.confirm()) == "NOT_SELECTED"
    assert desk.ops() == []
    assert desk.power_on().engine.status()["counters"] == (1, 0)


@pytest.mark.rule("confirm")
def test_after_the_esp_idf_call_blessed_the_wrong_slot_nothing_is_confirmed(desk):
    """`mark_app_valid` acts on the active entry, whoever runs: after a fallback that is the other slot's."""
    update(desk)
    otadata.normalise(desk.part("otadata"), 0)
    desk.flash.log.clear()
    trial = engine.Engine(Port(desk, 1))
    assert reasons.name(trial.confirm()) == "NOT_SELECTED"
    assert desk.ops() == []


@pytest.mark.rule("confirm")
def test_without_a_trial_there_is_nothing_to_confirm(desk):
    up = confirmed(desk)
    desk.flash.log.clear()
    assert reasons.name(up.engine.confirm()) == "NOTHING"
    assert desk.ops() == []


@pytest.mark.invariant(3)
@pytest.mark.rule("one-rule")
def test_after_a_bootloader_fallback_the_device_updates_into_the_broken_slot(desk):
    confirmed(desk)
    damage(desk, "ota_1")
    up = desk.power_on()
    assert (up.running, degraded(up), up.boots) == (0, "FALLBACK", 1)  # a broken image is not tried again
    assert up.engine.status()["counters"] == (2, 0)
    assert refusal(up.engine.accept, FACTORY.envelope) == "SEQUENCE"
    up = update(desk, make(3, {FW: NEWER}))
    assert (up.running, up.decision.trial) == (1, True)
    assert up.engine.confirm() == 0
    up = desk.power_on()
    assert (up.running, degraded(up), up.engine.status()["counters"]) == (1, "", (3, 0))


@pytest.mark.rule("one-rule")
def test_a_choice_that_only_lost_its_otadata_entry_is_brought_back(desk):
    confirmed(desk)
    for sector in (0, 1):
        desk.part("otadata").erase(sector)
    up = desk.power_on()
    assert (up.running, degraded(up)) == (1, "")
    assert otadata.selected(desk.part("otadata")) == (1, otadata.VALID)


@pytest.mark.invariant(9)
@pytest.mark.rule("one-rule")
def test_a_choice_that_the_bootloader_refuses_again_and_again_is_given_up(desk, monkeypatch):
    """The engine finds the image right and the bootloader does not: no loop without end."""
    confirmed(desk)
    boots = 0
    up = None
    while not up:
        boots += 1
        assert boots < 10
        otadata.normalise(desk.part("otadata"), 1)
        decision = rerun(desk, 0)
        up = decision
    assert boots == engine.MAX_ATTEMPTS + 1
    assert reasons.name(up.degraded) == "FALLBACK"


@pytest.mark.requirement("UPE14")
@pytest.mark.invariant(4)
def test_while_an_image_is_on_trial_nobody_touches_the_other_slot(desk):
    up = update(desk)
    for call, arguments in (
        (up.engine.accept, (make(3, {FW: NEWER}).envelope,)),
        (up.engine.begin, ()),
        (up.engine.accept_keyset, (desk.keys.next().document,)),
        (up.engine.rollback, (b"",)),
    ):
        assert refusal(call, *arguments) == "TRIAL"
    assert bootable(desk, "ota_0")


def test_a_trial_that_lost_its_image_returns_with_the_reason(desk):
    update(desk)
    damage(desk, "ota_1")
    up = desk.power_on()
    assert (up.running, last(up)) == (0, "TARGET_LOST")
    entry = [found for found in entries(desk) if found]
    assert entry == [(entry[0][0], otadata.VALID)]  # otadata says one thing
    assert is_blank(desk.part("otadata"), entries(desk).index(None))


@pytest.mark.rule("otadata")
def test_without_a_selected_and_valid_slot_nothing_is_accepted(desk):
    confirmed(desk)
    other = Port(desk, 0)
    assert refusal(engine.Engine(other).accept, make(3, {FW: NEWER}).envelope) == "NOT_SELECTED"


# -- the bootloader without rollback ---------------------------------------------------------------


@pytest.mark.rule("probe")
def test_without_rollback_in_the_bootloader_firmware_is_refused_by_name_and_applications_are_not():
    desk = Desk(profile=bootloader.NO_ROLLBACK)
    desk.factory(FACTORY, OLD)
    up = desk.power_on()
    assert not up.engine.status()["rollback"]
    assert refusal(up.engine.accept, UPDATE.envelope) == "NO_ROLLBACK"
    assert refusal(up.engine.accept, BOTH.envelope) == "NO_ROLLBACK"
    up = update(desk, make(2, {APP: APP_A}, ties={FW: 1}))
    assert (up.decision.trial, up.decision.app[1]) == (True, len(APP_A))
    assert up.engine.confirm() == 0
    assert desk.power_on().engine.status()["counters"] == (1, 2)


# -- key sets --------------------------------------------------------------------------------------


@pytest.mark.requirement("UPC05")
def test_a_key_set_that_revokes_the_signer_forbids_the_idle_image_it_signed():
    keys = make_keyset(release=2, operators=1)
    desk = Desk(keys=keys)
    desk.factory(FACTORY, OLD)
    confirmed(desk, make(2, {FW: NEW}, key=signer("release", 1)))
    up = desk.power_on()
    changed = keys.next(release=keys.content.release[1:], revoked_keys=(keys.release[0].key_id,))
    up.engine.accept_keyset(changed.document)
    assert not bootable(desk, "ota_0")
    up = desk.power_on()
    assert (up.running, degraded(up)) == (1, "")


@pytest.mark.requirement("UPC05")
@pytest.mark.parametrize("how", ["not begun", "begun", "written", "app", "staged"])
def test_a_key_set_that_comes_during_a_download_forbids_the_idle_image_all_the_same(desk, how):
    """The download may be given up afterwards: what it has not overwritten yet must not stay bootable."""
    up = confirmed(desk)
    app = make(3, {APP: APP_A}, ties={FW: 2})
    download = app if how == "app" else make(3, {FW: NEWER})
    if how == "staged":
        fetch(up.engine, download.envelope, download.payloads)
    elif how != "not begun":
        until = {"begun": 0, "written": 8192, "app": 4096}[how]
        fetch(up.engine, download.envelope, download.payloads, until=until)
    assert bootable(desk, "ota_0") == (how in ("not begun", "begun", "app"))
    up.engine.accept_keyset(desk.keys.next(revoked_manifests=(FACTORY.plan.digest,)).document)
    assert not bootable(desk, "ota_0")
    if how == "staged":
        assert desk.power_on().decision.trial  # what was staged is not harmed
        return
    if how != "not begun":
        desk.power_on().engine.abort(reasons.NETWORK)
    damage(desk, "ota_1")
    assert bootloader.power_on(desk.flash).running is None  # and there is nothing to fall back to


@pytest.mark.requirement("UPC05")
@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"revoked_manifests": (UPDATE.plan.digest,)}, "MANIFEST_REVOKED"),
        ({"limits": {"fw": (5, 100), "app": (0, 100)}}, "FLOOR"),
        ({"limits": {"fw": (0, 1), "app": (0, 100)}}, "CEILING"),
        ({"expires": ISSUED + 1}, "EXPIRED_KEYSET"),
    ],
)
def test_a_staged_update_is_judged_under_the_newest_key_set(desk, changes, name):
    stage(desk)
    port = Port(desk, 0)
    engine.Engine(port).accept_keyset(desk.keys.next(**changes).document)
    desk.clock = ISSUED + 2
    up = desk.power_on()
    assert (up.running, last(up)) == (0, name)


def test_a_document_gets_its_header_last_and_is_not_written_twice(desk):
    part = desk.part("sekisho")
    desk.flash.log.clear()
    records.save(part, 12, 2, records.KIND_KEYSET, 7, b"payload" * 900)
    start = part.offset + 12 * SECTOR
    assert [(op.kind, op.address - start, op.length) for op in desk.ops()] == [
        ("erase", 0, SECTOR),
        ("erase", SECTOR, SECTOR),
        ("program", 16, 6300),
        ("program", 0, 16),
    ]
    desk.flash.log.clear()
    records.save(part, 12, 2, records.KIND_KEYSET, 7, b"payload" * 900)
    assert desk.ops() == []
    assert records.load(part, 12, 2, records.KIND_KEYSET) == b"payload" * 900
    assert records.load(part, 12, 2, records.KIND_SLOT) is None
    assert records.load(part, 12, 1, records.KIND_KEYSET) is None


@pytest.mark.requirement("UPC05")
def test_an_expired_key_set_installs_nothing_and_can_still_be_replaced(desk):
    desk.clock = ISSUED + 11 * YEAR
    up = desk.power_on()
    assert refusal(up.engine.accept, UPDATE.envelope) == "EXPIRED_KEYSET"
    up.engine.accept_keyset(desk.keys.next(expires=ISSUED + 20 * YEAR).document)
    assert confirmed(desk).running == 1


def test_time_never_goes_below_what_the_key_set_proves(desk):
    later = desk.keys.next(issued_at=ISSUED + YEAR)
    desk.power_on().engine.accept_keyset(later.document)
    desk.clock = 0
    assert desk.power_on().engine.now() == ISSUED + YEAR


def test_a_manifest_whose_time_has_passed_is_refused_under_the_time_floor(desk):
    made = make(2, {FW: NEW}, use_before=ISSUED - 1)
    assert refusal(desk.power_on().engine.accept, made.envelope) == "EXPIRED_MANIFEST"


def test_both_copies_of_the_newest_key_set_lost_installs_nothing_until_it_comes_back(desk):
    second = desk.keys.next()
    desk.power_on().engine.accept_keyset(second.document)
    part = desk.part("sekisho")
    for sector in (8, 9, 10, 11):
        part.erase(sector)
    up = desk.power_on()
    assert refusal(up.engine.accept, UPDATE.envelope) == "NO_KEYSET"
    up.engine.accept_keyset(second.document)
    assert confirmed(desk).running == 1


@pytest.mark.requirement("UPC05")
def test_a_lost_key_set_comes_back_only_with_the_content_it_had(desk):
    second, other = desk.keys.next(), desk.keys.next(expires=ISSUED + 20 * YEAR)
    third = other.next()
    desk.power_on().engine.accept_keyset(second.document)
    for sector in (8, 9, 10, 11):
        desk.part("sekisho").erase(sector)
    up = desk.power_on().engine
    desk.flash.log.clear()
    assert refusal(up.accept_keyset, other.document) == "KEYSET_CONTENT"
    assert refusal(up.accept_keyset, third.document) == "KEYSET_VERSION"
    assert desk.ops() == []
    up.accept_keyset(second.document)
    assert confirmed(desk).running == 1


@pytest.mark.requirement("UPC05")
def test_a_device_that_lost_its_key_set_walks_the_chain_again_and_keeps_nothing_on_the_way(desk):
    second = desk.keys.next()
    third = second.next(limits={"fw": (2, 100), "app": (0, 100)})
    for link in (second, third):
        desk.power_on().engine.accept_keyset(link.document)
    for sector in (8, 9, 10, 11):
        desk.part("sekisho").erase(sector)
    up = desk.power_on().engine
    desk.flash.log.clear()
    up.accept_keyset(second.document)
    assert desk.ops() == []
    assert refusal(up.accept, UPDATE.envelope) == "NO_KEYSET"
    up.accept_keyset(third.document)
    assert confirmed(desk).engine.status()["keyset"] == 3


@pytest.mark.requirement("UPC05")
def test_a_lost_ledger_does_not_take_the_key_set_back(desk):
    confirmed(desk)
    second = desk.keys.next(limits={"fw": (3, 100), "app": (0, 100)})
    desk.power_on().engine.accept_keyset(second.document)
    banks_gone(desk)
    up = desk.power_on()
    assert up.engine.status()["keyset"] == 2
    assert refusal(up.engine.accept, make(2, {FW: NEWER}).envelope) in ("SEQUENCE", "FLOOR")


def test_a_damaged_key_set_copy_is_not_believed(desk):
    second = desk.keys.next()
    desk.power_on().engine.accept_keyset(second.document)
    damage(desk, "sekisho", 8 * SECTOR + 60)
    assert refusal(desk.power_on().engine.accept, UPDATE.envelope) == "NO_KEYSET"


def test_a_key_set_is_in_flash_before_the_ledger_knows_of_it(desk):
    up = desk.power_on()
    desk.flash.log.clear()
    up.engine.accept_keyset(desk.keys.next().document)
    start = desk.layout["sekisho"].offset
    kinds = ["document" if op.address >= start + 8 * SECTOR else "ledger" for op in desk.ops()]
    assert kinds.index("ledger") > max(n for n, kind in enumerate(kinds) if kind == "document")


# -- two components --------------------------------------------------------------------------------


@pytest.mark.rule("pairs")
def test_an_application_from_another_release_is_not_mounted_with_this_firmware(desk):
    """Mixed and matched: a genuine slot record and image of the application, but not of this pair."""
    confirmed(desk, BOTH)
    up = desk.power_on()
    slot = 0 if up.decision.app[0].offset == desk.layout["app_0"].offset else 1
    other = make(5, {APP: APP_B}, ties={FW: 3})
    part = desk.part("sekisho")
    records.save_slot(part, APP, slot, other.plan.targets[0], other.plan, other.envelope)
    desk.put(f"app_{slot}", APP_B)
    up = desk.power_on()
    assert (up.decision.app, degraded(up)) == (None, "TARGET_LOST")


def test_a_pair_of_the_other_firmware_slot_is_not_taken_for_this_one(desk):
    confirmed(desk, BOTH)
    book = Ledger(desk.part("sekisho"))
    pair = book.state.pairs[1]
    book.append(ledger.PAIR, 0, *pair[:1], x=pair[1], y=pair[2], digest=pair[3])
    book.append(ledger.COUNTERS, 0, 0, 3, 3)
    otadata.normalise(desk.part("otadata"), 0)
    up = desk.power_on()
    assert (up.running, up.decision.app) == (0, None)


@pytest.mark.parametrize("where", ["image", "record"])
@pytest.mark.invariant(5)
@pytest.mark.rule("pairs")
def test_an_application_that_changed_in_flash_is_not_mounted(desk, where):
    up = confirmed(desk, BOTH)
    slot = 0 if up.decision.app[0].offset == desk.layout["app_0"].offset else 1
    if where == "image":
        damage(desk, f"app_{slot}", 600)
    else:
        damage(desk, "sekisho", (records.SLOT_RECORDS + 2 + slot) * SECTOR + 40)
    up = desk.power_on()
    assert (up.decision.app, degraded(up)) == (None, "TARGET_LOST")
    assert confirmed(desk, make(5, {FW: OLD, APP: APP_B})).decision.app[1] == len(APP_B)


@pytest.mark.rule("pairs")
def test_a_firmware_that_falls_back_brings_its_own_application_back(desk):
    confirmed(desk, BOTH)
    up = update(desk, make(5, {FW: NEW, APP: APP_B}))
    assert up.decision.app[1] == len(APP_B)
    with pytest.raises(ResetError):
        up.engine.fail(reasons.HEALTH)
    up = desk.power_on()
    assert (up.decision.app[1], up.engine.status()["counters"], degraded(up)) == (len(APP_A), (3, 3), "")


@pytest.mark.rule("pairs")
def test_a_pair_whose_application_was_overwritten_is_void_and_its_firmware_runs_alone(desk):
    confirmed(desk, BOTH)  # ota_1 with a
    confirmed(desk, make(5, {FW: NEW, APP: APP_B}))  # ota_0 with b; ota_1 still pairs with a
    confirmed(desk, make(6, {APP: APP_A + b"!"}, ties={FW: 5}))  # overwrites a
    damage(desk, "ota_0")
    up = desk.power_on()
    assert (up.running, up.decision.app) == (1, None)
    assert up.decision.degraded


def test_an_application_on_trial_that_loses_its_image_returns_to_the_paired_one(desk):
    confirmed(desk, BOTH)
    up = update(desk, APP_ONLY)
    slot = 0 if up.decision.app[0].offset == desk.layout["app_0"].offset else 1
    damage(desk, f"app_{slot}", 600)
    up = desk.power_on()
    assert last(up) == "TARGET_LOST"
    assert not desk.power_on().decision.trial
    assert desk.power_on().decision.app[1] == len(APP_A)


@pytest.mark.rule("ties")
def test_an_application_update_names_the_firmware_it_needs(desk):
    confirmed(desk)
    engine_ = desk.power_on().engine
    assert refusal(engine_.accept, make(3, {APP: APP_A}, ties={FW: 3}).envelope) == "VERSION_TIE"
    assert refusal(engine_.accept, make(3, {APP: APP_A}).envelope) == "VERSION_TIE"


def test_a_tampered_application_is_refused_at_stage_and_at_boot(desk):
    confirmed(desk, BOTH)
    up = desk.power_on()
    bad = b"?" + APP_B[1:]
    assert refusal(fetch, up.engine, APP_ONLY.envelope, {APP: bad}) == "IMAGE_DIGEST"
    stage(desk, APP_ONLY)
    damage(desk, "app_1", 100)
    damage(desk, "app_0", 100)
    up = desk.power_on()
    assert not up.decision.trial
    assert last(up) == "IMAGE_DIGEST"


def test_without_application_slots_an_application_is_refused_by_name():
    desk = Desk(with_app=False)
    desk.factory(FACTORY, OLD)
    assert refusal(desk.power_on().engine.accept, make(2, {APP: APP_A}, ties={FW: 1}).envelope) == "COMPONENT"


# -- what the agent may do wrong -------------------------------------------------------------------


@pytest.mark.invariant(8)
def test_bytes_out_of_order_too_many_or_too_few_are_refused(desk):
    up = desk.power_on().engine
    assert refusal(up.write, FW, 0, NEW[:SECTOR]) == "NOTHING"
    assert refusal(up.stage) == "NOTHING"
    assert refusal(up.begin) == "NOTHING"
    up.accept(UPDATE.envelope)
    up.begin()
    assert refusal(up.write, FW, SECTOR, NEW[:SECTOR]) == "IMAGE_SIZE"
    assert refusal(up.write, FW, 0, NEW[:100]) == "IMAGE_SIZE"
    assert refusal(up.write, FW, 0, b"") == "IMAGE_SIZE"
    assert refusal(up.write, FW, 0, NEW[: SECTOR + 4]) == "IMAGE_SIZE"
    assert refusal(up.write, APP, 0, APP_A[:SECTOR]) == "NOTHING"
    up.write(FW, 0, NEW[:SECTOR])
    assert refusal(up.stage) == "TRUNCATED"
    for off in range(SECTOR, len(NEW) - SECTOR, SECTOR):
        up.write(FW, off, NEW[off : off + SECTOR])
    off = up._at[FW]
    assert refusal(up.write, FW, off, NEW[off:].ljust(SECTOR, b"\0")) == "IMAGE_SIZE"


def test_an_encrypted_partition_is_refused_by_name(desk):
    up = desk.power_on()
    up.port.part.encrypted = True
    assert refusal(up.engine.accept, UPDATE.envelope) == "ENCRYPTED"


def test_a_staged_update_can_be_given_up_and_nothing_else_can(desk):
    up = desk.power_on()
    assert refusal(up.engine.abort, reasons.DISABLED) == "NOT_STAGED"
    assert refusal(up.engine.fail, reasons.HEALTH) == "NOTHING"
    fetch(up.engine, UPDATE.envelope, UPDATE.payloads)
    engine.Engine(Port(desk, 0)).abort(reasons.DISABLED)
    up = desk.power_on()
    assert (up.running, last(up)) == (0, "DISABLED")


@pytest.mark.rule("wear")
def test_a_resumed_download_rewrites_what_may_be_half_written():
    """Cells of the last 64 KiB before a cut may read well once and badly later: they are written again."""
    csv = """
otadata,  data, ota,      0xd000,   0x2000,
ota_0,    app,  ota_0,    0x10000,  0x30000,
ota_1,    app,  ota_1,    0x40000,  0x30000,
sekisho,  data, 0x40,     0x70000,  0x10000,
app_0,    data, 0x41,     0x80000,  0x4000,
app_1,    data, 0x41,     0x84000,  0x4000,
"""
    desk = Desk(flash=Flash.blank(0x88000), layout=parse_csv(csv, 0x88000))
    desk.factory(FACTORY, OLD)
    big = firmware("big", 150_000)
    made = make(2, {FW: big})
    fetch(desk.power_on().engine, made.envelope, made.payloads, until=100_000 // SECTOR * SECTOR)
    up = desk.power_on().engine
    up.accept(made.envelope)
    assert list(up.begin()) == [65_536, 0]
    desk.flash.log.clear()
    for off in range(65_536, len(big), SECTOR):
        up.write(FW, off, big[off : off + SECTOR])
    slot = desk.layout["ota_1"]
    erased = {
        op.address - slot.offset for op in desk.ops() if op.kind == "erase" and slot.offset <= op.address < slot.end
    }
    assert set(range(65_536, 131_072, SECTOR)) <= erased
    up.stage()
    assert confirmed_after(desk) == 1


def confirmed_after(desk: Desk) -> int:
    up = desk.power_on()
    assert up.engine.confirm() == 0
    return desk.power_on().running
