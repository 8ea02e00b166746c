"""The engine on a simulated device, in this process: the straight way of an update and the main refusals."""

from __future__ import annotations

import pytest
from helpers import release
from helpers.desk import Desk, ResetError, Up, fetch
from helpers.keys import ISSUED, YEAR, make_keyset, signer
from helpers.steps import APP, BOTH, FACTORY, FW, NEW, NEWER, OLD, UPDATE, make, refusal, update
from sekisho_boot import reasons
from sekisho_tools import cose


@pytest.fixture
def desk() -> Desk:
    made = Desk()
    made.factory(FACTORY, OLD)
    return made


@pytest.mark.requirement("UPE01", "UPE11", "UPC01", "UPC02")
def test_a_signed_update_is_swapped_in_tried_and_confirmed(desk):
    up = update(desk)
    assert (up.running, up.decision.trial, up.port.dogs) == (1, True, [300])
    assert up.engine.confirm() == 0
    up = desk.power_on()
    assert (up.running, up.decision.trial, up.boots) == (1, False, 1)
    assert up.engine.status()["counters"] == (2, 0)
    assert up.engine.status()["last"][0] == 0


@pytest.mark.requirement("UPE13", "UPE14", "UPE02")
def test_an_unhealthy_image_returns_to_the_old_one_with_the_reason(desk):
    up = update(desk)
    with pytest.raises(ResetError):
        up.engine.fail(reasons.HEALTH)
    up = desk.power_on()
    assert (up.running, up.decision.trial) == (0, False)
    assert reasons.name(up.engine.status()["last"][0]) == "HEALTH"
    assert up.engine.status()["counters"] == (1, 0)


@pytest.mark.invariant(2)
def test_pulling_the_plug_during_a_trial_is_no_evidence_until_three_attempts(desk):
    up = update(desk)
    for _ in range(2):
        up = desk.power_on()
        assert (up.running, up.decision.trial) == (1, True)
    up = desk.power_on()
    assert (up.running, up.decision.trial) == (0, False)
    assert reasons.name(up.engine.status()["last"][0]) == "ATTEMPTS"
    assert update(desk).running == 1  # never banned


@pytest.mark.rule("probe")
def test_the_first_boot_learns_that_the_bootloader_knows_rollback(desk):
    up = desk.power_on()
    assert up.boots == 2
    assert up.engine.status()["rollback"]
    assert desk.power_on().boots == 1


@pytest.mark.invariant(1)
def test_nothing_is_bootable_in_the_idle_slot_before_the_engine_verified_it(desk):
    engine = desk.power_on().engine
    fetch(engine, UPDATE.envelope, UPDATE.payloads)
    assert desk.part("ota_1").flash.read(0x20000, 4096) == b"\xff" * 4096


@pytest.mark.parametrize(
    ("made", "name"),
    [
        (make(0, {FW: NEW}), "SEQUENCE"),
        (make(2, {FW: NEW}, key=signer("stranger")), "KEY_UNKNOWN"),
        (make(2, {FW: NEW}, product=bytes(16)), "CLASS"),
        (make(2, {FW: NEW}, vendor=bytes(16)), "VENDOR"),
        (make(2, {FW: NEW}, size=1 << 20), "IMAGE_SIZE"),
    ],
)
@pytest.mark.invariant(6)
def test_refuses_before_any_write(desk, made, name):
    engine = desk.power_on().engine
    desk.flash.log.clear()
    assert refusal(engine.accept, made.envelope) == name
    assert desk.ops() == []


def test_a_tampered_image_is_refused_at_stage_and_never_bootable(desk):
    engine = desk.power_on().engine
    bad = bytearray(NEW)
    bad[9000] ^= 1
    assert refusal(fetch, engine, UPDATE.envelope, {FW: bytes(bad)}) == "IMAGE_DIGEST"
    assert desk.power_on().running == 0


@pytest.mark.invariant(5)
def test_flash_that_changed_after_staging_is_refused_at_boot(desk):
    fetch(desk.power_on().engine, UPDATE.envelope, UPDATE.payloads)
    desk.flash.buffer[0x20000 + 9000] ^= 1
    up = desk.power_on()
    assert up.running == 0
    assert reasons.name(up.engine.status()["last"][0]) == "IMAGE_DIGEST"


def test_a_broken_download_resumes_where_it_was(desk):
    engine = desk.power_on().engine
    fetch(engine, UPDATE.envelope, UPDATE.payloads, until=8192)
    engine = desk.power_on().engine
    fetch(engine, UPDATE.envelope, UPDATE.payloads)
    assert desk.power_on().running == 1


@pytest.mark.rule("pairs")
def test_two_components_move_together_and_come_back_together(desk):
    up = update(desk, BOTH)
    assert up.running == 1
    assert up.decision.app[1] == 6300
    up.engine.confirm()
    up = desk.power_on()
    assert up.engine.status()["counters"] == (3, 3)
    assert up.engine.status()["pair"][1:] == (3, 3)
    assert up.decision.app[1] == 6300


@pytest.mark.rule("application-trial", "pairs")
def test_an_app_alone_is_a_trial_of_a_new_pair(desk):
    update(desk, BOTH).engine.confirm()
    app = make(4, {APP: b"app four" * 600}, ties={FW: 3})
    up = update(desk, app)
    assert (up.running, up.decision.trial, up.decision.app[1]) == (1, True, 4800)
    for _ in range(2):
        assert desk.power_on().decision.app[1] == 4800
    up = desk.power_on()
    assert (up.decision.trial, up.decision.app[1]) == (False, 6300)
    up = update(desk, app)
    assert up.engine.confirm() == 0
    up = desk.power_on()
    assert (up.decision.trial, up.decision.app[1]) == (False, 4800)
    assert up.engine.status()["counters"] == (3, 4)


def permit(desk: Desk, up: Up, *, key=None, **changes) -> bytes:
    """A rollback permit for the update's predecessor, with some members changed."""
    payload = {1: 3, 2: up.port.device, 3: up.engine.nonce(), 4: ISSUED + YEAR, 5: FACTORY.plan.digest}
    payload.update({int(name[1:]): value for name, value in changes.items()})
    return cose.sign1(
        release.encode({k: v for k, v in payload.items() if v is not None}),
        key or desk.keys.operators[0],
        attached=True,
    )


@pytest.fixture
def updated() -> tuple[Desk, Up]:
    """A device that was updated to UPDATE and trusts one operator who may order a rollback."""
    keys = make_keyset(operators=1)
    desk = Desk(keys=keys)
    desk.factory(FACTORY, OLD)
    update(desk).engine.confirm()
    return desk, desk.power_on()


@pytest.mark.requirement("UPE02", "UPE03")
@pytest.mark.rule("permit")
def test_an_operators_permit_brings_the_old_image_back_once(updated):
    desk, up = updated
    order = permit(desk, up)
    with pytest.raises(ResetError):
        up.engine.rollback(order)
    up = desk.power_on()
    assert (up.running, up.decision.trial) == (0, True)
    assert up.engine.confirm() == 0
    up = desk.power_on()
    assert (up.running, up.engine.status()["counters"]) == (0, (2, 0))
    assert refusal(up.engine.rollback, order) == "PERMIT"
    assert refusal(up.engine.accept, UPDATE.envelope) == "ABANDONED"
    assert update(desk, make(3, {FW: NEW})).running == 1


@pytest.mark.requirement("UPE03")
@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"_1": 4}, "PERMIT"),
        ({"_2": bytes(16)}, "PERMIT"),
        ({"_3": 1}, "PERMIT"),
        ({"_4": ISSUED}, "PERMIT_EXPIRED"),
        ({"_5": bytes(32)}, "PERMIT_TARGET"),
        ({"_5": None}, "PERMIT"),
        ({"key": signer("release", 0)}, "KEY_UNKNOWN"),
    ],
)
@pytest.mark.rule("permit")
def test_a_permit_that_does_not_fit_is_refused_without_a_write(updated, changes, name):
    desk, up = updated
    order = permit(desk, up, **changes)
    desk.flash.log.clear()
    assert refusal(up.engine.rollback, order) == name
    assert desk.ops() == []


@pytest.mark.requirement("UPE16")
def test_below_the_hardware_floor_nothing_is_chosen_and_the_device_says_so(desk):
    desk.fuse = 1
    up = desk.power_on()
    assert reasons.name(up.decision.degraded) == "FLOOR"
    assert refusal(fetch, up.engine, UPDATE.envelope, UPDATE.payloads) == "FLOOR"


@pytest.mark.requirement("UPC05")
@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"revoked_manifests": (UPDATE.plan.digest,)}, "MANIFEST_REVOKED"),
        ({"limits": {"fw": (3, 100), "app": (0, 100)}}, "FLOOR"),
    ],
)
def test_a_key_set_that_forbids_the_running_image_degrades_it_and_lets_it_run(updated, changes, name):
    desk, up = updated
    up.engine.accept_keyset(desk.keys.next(**changes).document)
    up = desk.power_on()
    assert (up.running, reasons.name(up.decision.degraded)) == (1, name)
    up = update(desk, make(4, {FW: NEWER}))
    up.engine.confirm()
    assert desk.power_on().decision.degraded == 0


@pytest.mark.requirement("UPC05")
def test_a_key_set_that_forbids_the_idle_image_makes_it_unbootable(updated):
    desk, up = updated
    up.engine.accept_keyset(desk.keys.next(limits={"fw": (2, 100), "app": (0, 100)}).document)
    assert desk.flash.read(0x10000, 4096) == b"\xff" * 4096
    order = permit(desk, up)
    assert refusal(up.engine.rollback, order) == "PERMIT_TARGET"


def test_no_key_set_is_accepted_during_a_trial(desk):
    assert refusal(update(desk).engine.accept_keyset, desk.keys.next().document) == "TRIAL"


def test_a_device_that_slept_follows_a_chain_of_key_sets_one_link_at_a_time(desk):
    engine = desk.power_on().engine
    second = desk.keys.next()
    third = second.next()
    assert refusal(engine.accept_keyset, third.document) == "KEYSET_VERSION"
    assert [engine.accept_keyset(one.document).version for one in (second, third)] == [2, 3]
    assert desk.power_on().engine.keyset().version == 3


def test_a_lost_key_set_is_fetched_again_and_nothing_is_installed_meanwhile(desk):
    engine = desk.power_on().engine
    second = desk.keys.next()
    third = second.next()
    for one in (second, third):
        engine.accept_keyset(one.document)
    for sector in range(8, 12):
        desk.part("sekisho").erase(sector)
    engine = desk.power_on().engine
    assert refusal(engine.accept, UPDATE.envelope) == "NO_KEYSET"
    assert engine.accept_keyset(second.document).version == 2
    assert refusal(engine.accept, UPDATE.envelope) == "NO_KEYSET"
    engine.accept_keyset(third.document)
    assert engine.accept(UPDATE.envelope).sequence == 2
