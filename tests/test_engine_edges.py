"""Where the engine's rules begin and end: the first and the last value that is taken, and the first that is not."""

from __future__ import annotations

from zlib import crc32

import pytest
from helpers import images, release
from helpers.desk import CLASS, Desk, Port, ResetError, fetch, firmware
from helpers.keys import ISSUED, YEAR, make_keyset, signer
from helpers.steps import (
    APP,
    APP_A,
    APP_B,
    APP_ONLY,
    BOTH,
    FACTORY,
    FW,
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
from sekisho_boot import engine, ledger, otadata, reasons, records
from sekisho_boot.ledger import Ledger
from sekisho_sim.flash import SECTOR
from sekisho_tools import cose
from sekisho_tools.keyset import OperatorKey

ROLLBACK, UNLOCK = 3, 7  # rights


@pytest.fixture
def desk() -> Desk:
    made = Desk(keys=make_keyset(operators=1))
    made.factory(FACTORY, OLD)
    return made


def rerun(desk: Desk, running: int):
    """The engine runs again without the bootloader; None after a reset."""
    try:
        return engine.boot(Port(desk, running))
    except ResetError:
        return None


def lose(desk: Desk, *sectors: int) -> None:
    for sector in sectors:
        desk.part("sekisho").erase(sector)


def order(desk: Desk, right: int, nonce: int, argument: bytes = b"", *, behind: bytes = b"", **changes) -> bytes:
    members = {1: right, 2: bytes(15) + b"\x07", 3: nonce, 4: ISSUED + YEAR, 5: argument}
    members.update({int(name[1:]): value for name, value in changes.items()})
    payload = release.encode({number: value for number, value in members.items() if value is not None})
    return cose.sign1(payload + behind, desk.keys.operators[0], attached=True)


# -- everything lost -------------------------------------------------------------------------------


@pytest.mark.requirement("UPE02")
@pytest.mark.invariant(7)
def test_a_device_that_lost_its_whole_partition_is_locked_until_an_operators_order_and_then_updates(desk):
    confirmed(desk)
    lose(desk, *range(16))
    for _ in range(2):  # it runs on, and stays locked
        up = desk.power_on()
        status = up.engine.status()
        assert (up.running, up.decision.trial, status["locked"], status["counters"]) == (1, False, True, (0, 0))
    made = make(3, {FW: NEWER})
    assert refusal(up.engine.accept, made.envelope) == "LOCKED"
    assert refusal(up.engine.begin) == "LOCKED"
    assert refusal(up.engine.rollback, b"") == "LOCKED"
    nonce = up.engine.nonce()
    assert nonce == desk.power_on().engine.nonce() != 0  # kept until an order spends it
    stranger = cose.sign1(b"\xa0", signer("operator", 9), attached=True)
    desk.flash.log.clear()
    for document, name in (
        (order(desk, UNLOCK, nonce + 1), "PERMIT"),
        (order(desk, UNLOCK, 0), "PERMIT"),
        (order(desk, ROLLBACK, nonce), "PERMIT"),
        (order(desk, UNLOCK, nonce, _2=bytes(16)), "PERMIT"),
        (order(desk, UNLOCK, nonce, _5=None), "PERMIT"),
        (order(desk, UNLOCK, nonce, _8=b"more"), "PERMIT"),
        (order(desk, UNLOCK, nonce, behind=b"\0"), "CBOR"),
        (order(desk, UNLOCK, nonce, _4=ISSUED), "PERMIT_EXPIRED"),
        (stranger, "KEY_UNKNOWN"),
    ):
        assert refusal(desk.power_on().engine.unlock, document) == name
    assert refusal(desk.power_on().engine.accept, made.envelope) == "LOCKED"
    assert desk.ops() == []
    good = order(desk, UNLOCK, nonce)
    desk.power_on().engine.unlock(good)
    up = desk.power_on()
    assert (up.engine.status()["locked"], up.running) == (False, 1)
    assert refusal(up.engine.unlock, good) == "PERMIT"  # once
    assert confirmed(desk, made).engine.status()["counters"] == (3, 0)
    assert refusal(desk.power_on().engine.accept, UPDATE.envelope) == "SEQUENCE"


def test_the_least_floor_of_the_build_proves_a_counter(desk):
    confirmed(desk)
    lose(desk, *range(16))
    desk.config.FLOOR_FW = 1
    assert not desk.power_on().engine.status()["locked"]
    assert confirmed(desk).engine.status()["counters"] == (2, 0)


@pytest.mark.requirement("UPC05", "UPC06")
@pytest.mark.parametrize("genuine", [True, False])
def test_after_a_lost_ledger_a_key_set_counts_only_if_its_own_roots_signed_it(desk, genuine):
    second = desk.keys.next(signed_by=None if genuine else [signer("root", 5)])
    records.save(desk.part("sekisho"), records.KEYSETS, 2, records.KIND_KEYSET, 2, second.document)
    lose(desk, 0, 1)
    assert desk.power_on().engine.status()["keyset"] == (2 if genuine else 1)
    assert confirmed(desk).running == 1


def test_a_key_set_that_the_build_brings_itself_needs_no_copy_in_flash(desk):
    second = desk.keys.next()
    desk.power_on().engine.accept_keyset(second.document)
    lose(desk, 8, 9, 10, 11)
    assert refusal(desk.power_on().engine.accept, UPDATE.envelope) == "NO_KEYSET"
    desk.config.KEYSET = second.document
    assert desk.power_on().engine.accept(UPDATE.envelope).sequence == 2


# -- documents of a newer format -------------------------------------------------------------------


def newer(desk: Desk, sector: int, version: int = 2) -> None:
    """Makes the document in *sector* one of another format version; its CRC fits."""
    start = desk.layout["sekisho"].offset + sector * SECTOR
    document = desk.flash.buffer
    assert document[start : start + 4] == b"SKB1"
    document[start + 5] = version
    size = int.from_bytes(document[start + 6 : start + 8], "little")
    crc = crc32(document[start + 16 : start + 16 + size], crc32(document[start : start + 12]))
    document[start + 12 : start + 16] = crc.to_bytes(4, "little")


@pytest.mark.rule("document-version")
@pytest.mark.parametrize("version", [0, 2, 255])
def test_a_slot_record_of_a_newer_format_proves_nothing_and_what_runs_goes_on(desk, version):
    confirmed(desk)
    newer(desk, 2, version)
    newer(desk, 3, version)
    up = desk.power_on()
    assert (up.running, degraded(up), up.engine.status()["counters"]) == (1, "", (2, 0))
    document = order(desk, ROLLBACK, up.engine.nonce(), FACTORY.plan.digest)
    assert refusal(desk.power_on().engine.rollback, document) == "PERMIT_TARGET"
    otadata.normalise(desk.part("otadata"), 0)  # the choice is lost, and not brought back
    up = desk.power_on()
    assert (up.running, degraded(up)) == (0, "FALLBACK")
    assert refusal(up.engine.accept, FACTORY.envelope) == "SEQUENCE"
    assert confirmed(desk, make(3, {FW: NEWER})).engine.status()["counters"] == (3, 0)
    assert records.load_slot(desk.part("sekisho"), FW, 1) is not None  # written over


@pytest.mark.rule("document-version")
def test_without_a_ledger_a_slot_record_of_a_newer_format_leaves_the_device_locked(desk):
    confirmed(desk)
    newer(desk, 3)
    lose(desk, 0, 1)
    up = desk.power_on()
    assert (up.running, up.engine.status()["locked"]) == (1, True)


@pytest.mark.rule("document-version")
def test_an_application_with_a_slot_record_of_a_newer_format_is_not_mounted(desk):
    up = confirmed(desk, BOTH)
    newer(desk, 4 if up.decision.app[0].offset == desk.layout["app_0"].offset else 5)
    up = desk.power_on()
    assert (up.decision.app, degraded(up)) == (None, "TARGET_LOST")
    assert degraded(confirmed(desk, make(5, {FW: OLD, APP: APP_B}))) == ""


@pytest.mark.rule("document-version")
def test_a_staged_envelope_of_a_newer_format_ends_the_update_which_can_be_fetched_again(desk):
    stage(desk)
    newer(desk, records.STAGED)
    up = desk.power_on()
    assert (up.running, last(up)) == (0, "STAGED_CHANGED")
    assert confirmed(desk).running == 1


@pytest.mark.rule("document-version")
@pytest.mark.requirement("UPC05", "UPC06")
def test_a_key_set_copy_of_a_newer_format_is_a_lost_key_set_and_comes_back_by_the_chain(desk):
    second = desk.keys.next()
    desk.power_on().engine.accept_keyset(second.document)
    newer(desk, records.KEYSETS)
    up = desk.power_on()
    assert refusal(up.engine.accept, UPDATE.envelope) == "NO_KEYSET"
    lose(desk, 0, 1)  # nor does it count where the ledger is lost, too
    assert desk.power_on().engine.status()["keyset"] == 1
    assert desk.power_on().engine.accept_keyset(second.document).version == 2
    assert confirmed(desk).running == 1


def test_the_serial_of_a_key_set_copy_is_the_low_part_of_its_version():
    """Which must fit the field also where the version does not."""
    version = (1 << 40) + 6
    desk = Desk(keys=make_keyset(version - 1))
    desk.factory(FACTORY, OLD)
    desk.power_on().engine.accept_keyset(desk.keys.next().document)
    start = desk.layout["sekisho"].offset + records.KEYSETS * SECTOR
    assert int.from_bytes(desk.flash.read(start + 8, 4), "little") == version & 0x7FFFFFFF
    assert desk.power_on().engine.keyset().version == version


# -- time ------------------------------------------------------------------------------------------


@pytest.mark.requirement("UPC05")
@pytest.mark.parametrize("before", [1, 0])
def test_a_key_set_expires_by_the_time_of_the_build_where_the_clock_says_nothing(desk, before):
    desk.clock = 0
    desk.config.BUILD_TIME = desk.keys.content.expires - before
    up = desk.power_on()
    if before:
        assert up.engine.accept(UPDATE.envelope).sequence == 2
    else:
        assert refusal(up.engine.accept, UPDATE.envelope) == "EXPIRED_KEYSET"


@pytest.mark.requirement("UPC05")
@pytest.mark.parametrize("before", [1, 0])
def test_a_key_set_expires_by_the_time_that_an_accepted_key_set_proved(desk, before):
    """The one of the build is trusted, the ledger knows when another one was issued."""
    book = Ledger(desk.part("sekisho"))
    book.append(ledger.KEYSET, 0, 0, 1, desk.keys.content.expires - before, bytes(32))
    up = desk.power_on()
    if before:
        assert up.engine.accept(UPDATE.envelope).sequence == 2
    else:
        assert refusal(up.engine.accept, UPDATE.envelope) == "EXPIRED_KEYSET"


@pytest.mark.requirement("UPC05")
def test_a_staged_update_whose_key_set_expires_by_the_build_is_dropped(desk):
    stage(desk)
    desk.config.BUILD_TIME = desk.keys.content.expires
    up = desk.power_on()
    assert (up.running, last(up)) == (0, "EXPIRED_KEYSET")


# -- orders ----------------------------------------------------------------------------------------


@pytest.mark.requirement("UPE03")
@pytest.mark.parametrize(("left", "name"), [(0, "PERMIT_EXPIRED"), (1, "PERMIT_TARGET")])
def test_an_order_ends_with_the_second_of_its_expiry(desk, left, name):
    up = confirmed(desk)
    document = order(desk, ROLLBACK, up.engine.nonce(), bytes(32), _4=ISSUED + left)
    assert refusal(desk.power_on().engine.rollback, document) == name


@pytest.mark.requirement("UPE03")
@pytest.mark.parametrize(("behind", "obeyed"), [(b"", True), (b"\0", False), (b"\xf6", False), (b"\xa0", False)])
def test_an_order_with_bytes_behind_it_is_none(desk, behind, obeyed):
    engine_ = confirmed(desk).engine
    document = order(desk, ROLLBACK, engine_.nonce(), FACTORY.plan.digest, behind=behind, _7="a reason")
    if obeyed:
        with pytest.raises(ResetError):
            engine_.rollback(document)
        assert desk.power_on().decision.trial
    else:
        assert refusal(engine_.rollback, document) == "CBOR"


@pytest.mark.requirement("UPE03")
@pytest.mark.parametrize(
    ("rights", "classes", "obeyed"),
    [
        (None, None, True),
        (None, (CLASS,), True),
        (None, (bytes(16), CLASS), True),
        (None, (bytes(16),), False),
        ((1, 2), (CLASS,), False),
        ((1, 2), None, False),
        ((ROLLBACK,), (CLASS,), True),
        ((ROLLBACK,), (bytes(16),), False),
    ],
)
def test_an_operator_orders_only_within_its_rights_and_classes(rights, classes, obeyed):
    keys = make_keyset(operators=1)
    members = {"classes": classes} if rights is None else {"classes": classes, "rights": rights}
    desk = Desk(keys=keys.next(version=1, operators=(OperatorKey(keys.operators[0].public_key, **members),)))
    desk.factory(FACTORY, OLD)
    engine_ = confirmed(desk).engine
    document = order(desk, ROLLBACK, engine_.nonce(), FACTORY.plan.digest)
    if obeyed:
        with pytest.raises(ResetError):
            engine_.rollback(document)
    else:
        assert refusal(engine_.rollback, document) == "KEY_RIGHTS"


def test_no_nonce_is_zero_whatever_the_chip_draws(desk, monkeypatch):
    monkeypatch.setattr(engine, "urandom", bytes)
    assert desk.power_on().engine.nonce() == 1
    monkeypatch.setattr(engine, "urandom", lambda size: b"\xff" * size)
    Ledger(desk.part("sekisho")).append(ledger.NONCE)
    assert desk.power_on().engine.nonce() == 1 << 56
    assert desk.power_on().engine.nonce() == 1 << 56  # as it was recorded


@pytest.mark.requirement("UPE02", "UPE03")
@pytest.mark.parametrize("selects", [0, 1])
@pytest.mark.invariant(4)
@pytest.mark.rule("permit")
def test_a_permit_selects_its_target_and_keeps_the_entry_of_the_running_image(desk, selects):
    """Even where the application called ESP-IDF's own `set_boot` just before."""
    engine_ = confirmed(desk).engine
    otadata.normalise(desk.part("otadata"), selects)
    document = order(desk, ROLLBACK, engine_.nonce(), FACTORY.plan.digest)
    with pytest.raises(ResetError):
        engine_.rollback(document)
    found = {((entry[0] - 1) % 2, entry[1]) for entry in otadata.entries(desk.part("otadata"))}
    assert found == {(0, otadata.NEW), (1, otadata.VALID)}
    assert otadata.selected(desk.part("otadata")) == (0, otadata.NEW)
    state = Ledger(desk.part("sekisho")).state
    assert (state.phase, state.permit, state.attempts, state.nonce) == (ledger.TRYING, True, 1, 0)


# -- sizes and levels ------------------------------------------------------------------------------


def exactly(size: int) -> bytes:
    """A firmware image of exactly *size* bytes, a multiple of 16."""
    around = len(firmware("full", 1024)) - 1024
    for spare in range(0, 64, 4):
        made = firmware("full", size - around - 32 + spare)
        if len(made) == size:
            return made
    raise AssertionError("no such image")


@pytest.mark.requirement("UPE11")
@pytest.mark.parametrize(("component", "room"), [(FW, 0x10000), (APP, 0x4000)])
@pytest.mark.invariant(8)
def test_a_payload_as_large_as_its_slot_is_taken_and_one_byte_more_is_not(desk, component, room):
    confirmed(desk, BOTH)
    ties = {APP: 3} if component == FW else {FW: 3}
    more = make(4, {component: bytes(room + 1)}, ties=ties)
    desk.flash.log.clear()
    assert refusal(desk.power_on().engine.accept, more.envelope) == "IMAGE_SIZE"
    assert desk.ops() == []
    payload = exactly(room) if component == FW else b"a" * room
    up = confirmed(desk, make(4, {component: payload}, ties=ties))
    assert up.engine.status()["counters"] == ((4, 3) if component == FW else (3, 4))
    assert degraded(up) == ""
    assert up.decision.app[1] == (len(APP_A) if component == FW else room)


@pytest.mark.requirement("UPE02")
def test_an_image_as_large_as_its_slot_is_brought_back_and_proves_its_counter(desk):
    confirmed(desk, make(4, {FW: exactly(0x10000)}))
    for sector in (0, 1):
        desk.part("otadata").erase(sector)
    up = desk.power_on()
    assert (up.running, degraded(up)) == (1, "")
    lose(desk, 0, 1)
    assert desk.power_on().engine.status()["counters"] == (4, 0)


@pytest.mark.requirement("UPE02", "UPE16")
@pytest.mark.parametrize(("fuse", "taken"), [(2, True), (3, False)])
def test_an_image_exactly_at_the_hardware_floor_is_allowed(fuse, taken):
    desk = Desk()
    old, new = (images.app(text.ljust(8000, "."), secure_version=2) for text in ("old", "new"))
    desk.factory(make(1, {FW: old}), old)
    desk.power_on()
    desk.fuse = fuse
    up = desk.power_on()
    made = make(2, {FW: new})
    if not taken:
        assert degraded(up) == "FLOOR"
        assert refusal(fetch, up.engine, made.envelope, made.payloads) == "FLOOR"
        return
    assert degraded(up) == ""
    assert degraded(confirmed(desk, made)) == ""
    for sector in (0, 1):
        desk.part("otadata").erase(sector)
    assert desk.power_on().running == 1


# -- ways back -------------------------------------------------------------------------------------


@pytest.mark.rule("runs")
def test_an_image_that_used_up_its_attempts_from_inside_resets_to_the_old_one(desk):
    """Its engine ran too often in the last attempt: going on in it would be no way back."""
    up = update(desk)
    for attempt in range(1, engine.MAX_ATTEMPTS + 1):
        assert up.engine.status()["attempts"] == attempt
        runs = 1
        while rerun(desk, 1):
            runs += 1
        assert runs == engine.MAX_RUNS
        assert otadata.selected(desk.part("otadata")) == (0, otadata.VALID)
        up = desk.power_on()
    assert (up.running, up.decision.trial, last(up)) == (0, False, "ATTEMPTS")
    assert up.boots == 1  # given up by the image itself, before the restart


def test_an_image_that_used_up_its_attempts_does_not_go_on_even_where_the_old_one_is_gone(desk):
    """Whether it is the lesser evil is decided after the restart, when the bootloader has had its say."""
    update(desk)
    book = Ledger(desk.part("sekisho"))
    book.append(ledger.ATTEMPT, 0, engine.MAX_ATTEMPTS)
    book.append(ledger.RUN, 0, engine.MAX_RUNS)
    desk.flash.buffer[desk.layout["ota_0"].offset + 9000] ^= 1
    assert rerun(desk, 1) is None
    assert Ledger(desk.part("sekisho")).state.chosen == 0
    up = desk.power_on()
    assert (up.running, up.decision.trial, degraded(up)) == (1, False, "FALLBACK")


def test_an_old_image_that_gives_the_trial_up_goes_on_without_a_reset(desk):
    update(desk)
    book = Ledger(desk.part("sekisho"))
    book.append(ledger.ATTEMPT, 0, engine.MAX_ATTEMPTS)
    decision = rerun(desk, 0)
    assert decision is not None
    assert not decision.trial
    assert otadata.selected(desk.part("otadata")) == (0, otadata.VALID)


def test_an_unhealthy_image_selects_the_old_one_before_it_resets(desk):
    up = update(desk)
    with pytest.raises(ResetError):
        up.engine.fail(reasons.HEALTH)
    found = otadata.entries(desk.part("otadata"))
    assert [entry[1] for entry in found if entry] == [otadata.VALID]
    assert otadata.selected(desk.part("otadata")) == (0, otadata.VALID)


def test_a_fallback_that_is_accepted_leaves_one_entry(desk):
    confirmed(desk)
    desk.flash.buffer[desk.layout["ota_1"].offset + 9000] ^= 1
    assert degraded(desk.power_on()) == "FALLBACK"
    found = otadata.entries(desk.part("otadata"))
    assert [entry[1] for entry in found if entry] == [otadata.VALID]
    assert otadata.selected(desk.part("otadata")) == (0, otadata.VALID)


@pytest.mark.parametrize("selects", [None, 0, 1])
@pytest.mark.rule("probe", "otadata")
def test_the_probe_keeps_a_valid_entry_for_the_running_slot_all_along_and_leaves_one(desk, selects):
    part = desk.part("otadata")
    if selects is not None:  # 1: of the empty slot, from which the bootloader falls back
        otadata.normalise(part, selects)
    assert desk.boot_once() is None
    found = otadata.entries(part)
    assert sorted(entry[1] for entry in found) == [otadata.NEW, otadata.VALID]
    assert {(entry[0] - 1) % 2 for entry in found} == {0}
    assert desk.boot_once()
    assert [entry[1] for entry in otadata.entries(part) if entry] == [otadata.VALID]
    assert otadata.selected(part) == (0, otadata.VALID)


def test_a_confirmation_that_was_cut_off_is_finished_at_the_next_start(desk):
    update(desk)
    Ledger(desk.part("sekisho")).append(ledger.CONFIRMING)
    up = desk.power_on()
    assert (up.running, up.decision.trial, up.engine.status()["counters"]) == (1, False, (2, 0))
    assert otadata.selected(desk.part("otadata")) == (1, otadata.VALID)


# -- what else a dropped or accepted update leaves -------------------------------------------------


@pytest.mark.invariant(4)
def test_an_update_that_was_begun_and_given_up_leaves_the_idle_image(desk):
    confirmed(desk)
    fetch(desk.power_on().engine, make(3, {FW: NEWER}).envelope, {FW: NEWER}, until=0)
    desk.power_on().engine.abort(reasons.NETWORK)
    assert desk.flash.read(desk.layout["ota_0"].offset, 1) == b"\xe9"


@pytest.mark.invariant(4)
@pytest.mark.rule("failed")
def test_an_application_that_is_refused_at_boot_leaves_the_idle_firmware(desk):
    confirmed(desk, BOTH)
    stage(desk, APP_ONLY)
    desk.part("sekisho").erase(records.STAGED)
    assert last(desk.power_on()) == "STAGED_CHANGED"
    assert desk.flash.read(desk.layout["ota_0"].offset, 1) == b"\xe9"


def test_what_is_staged_is_not_replaced_by_what_comes_next(desk):
    stage(desk)
    engine_ = engine.Engine(Port(desk, 0))
    assert refusal(engine_.accept, make(3, {FW: NEWER}).envelope) == "BUSY"
    assert refusal(engine_.begin) == "BUSY"
    assert desk.power_on().engine.confirm() == 0


def test_a_firmware_without_an_application_has_a_pair_that_says_so(desk):
    assert confirmed(desk).engine.status()["pair"] == (ledger.NO_APP, 2, 0)


def test_more_tries_than_a_byte_holds_are_the_most_that_is_counted(desk):
    Ledger(desk.part("sekisho")).append(ledger.RETRY, digest=UPDATE.plan.digest, z=254)
    for expected in (255, 255):
        engine_ = desk.power_on().engine
        engine_.accept(UPDATE.envelope)
        engine_.begin()
        assert engine_.status()["retries"] == ((UPDATE.plan.digest, expected),)
