"""What the engine promises across several updates: two components, keys that leak, sectors that are lost, wear."""

from __future__ import annotations

import hashlib

import pytest
from helpers import images, release
from helpers.desk import Desk, ResetError, Up, fetch
from helpers.keys import ISSUED, YEAR, make_keyset, signer
from helpers.steps import (
    APP,
    APP_A,
    APP_B,
    BOTH,
    FACTORY,
    FW,
    NEW,
    NEWER,
    OLD,
    UPDATE,
    confirmed,
    degraded,
    make,
    refusal,
    stage,
    update,
)
from sekisho_boot import engine, ledger, otadata, reasons, records
from sekisho_boot.flash import is_blank
from sekisho_boot.ledger import Ledger
from sekisho_sim import bootloader
from sekisho_sim.flash import ERASE, SECTOR, cut_states
from sekisho_tools import cose


@pytest.fixture
def desk() -> Desk:
    made = Desk()
    made.factory(FACTORY, OLD)
    return made


@pytest.fixture
def paired(desk: Desk) -> Desk:
    """Firmware 3 with application 3 on it, confirmed."""
    confirmed(desk, BOTH)
    return desk


def mounted(up: Up) -> bytes | None:
    """The bytes of the application that is to be mounted."""
    if up.decision.app is None:
        return None
    part, size = up.decision.app
    data = bytearray(size)
    part.read(0, data)
    return bytes(data)


# -- two components --------------------------------------------------------------------------------


def test_a_firmware_only_update_keeps_the_application_and_pairs_it_anew(paired):
    up = update(paired, make(5, {FW: NEW}, ties={APP: 3}))
    assert (up.running, up.decision.trial, mounted(up)) == (0, True, APP_A)
    assert up.engine.confirm() == 0
    up = paired.power_on()
    assert (mounted(up), degraded(up)) == (APP_A, "")
    assert up.engine.status()["counters"] == (5, 3)
    assert up.engine.status()["pair"][1:] == (5, 3)


def test_a_firmware_only_update_that_fails_leaves_the_old_pair(paired):
    up = update(paired, make(5, {FW: NEW}, ties={APP: 3}))
    with pytest.raises(ResetError):
        up.engine.fail(reasons.HEALTH)
    up = paired.power_on()
    assert (up.running, mounted(up), up.engine.status()["pair"][1:]) == (1, APP_A, (3, 3))


def test_an_application_only_update_leaves_the_firmware_slots_alone(paired):
    before = {label: bytes(paired.flash.read(paired.layout[label].offset, 0x2000)) for label in ("ota_0", "ota_1")}
    paired.flash.log.clear()
    up = confirmed(paired, make(4, {APP: APP_B}, ties={FW: 3}))
    firmware_slots = paired.layout["ota_0"].offset, paired.layout["ota_1"].end
    assert not [op for op in paired.ops() if firmware_slots[0] <= op.address < firmware_slots[1]]
    otadata_ops = [op for op in paired.ops() if op.address < firmware_slots[0]]
    assert [op.kind for op in otadata_ops] == [ERASE]  # begin() makes it say one thing; it is never selected anew
    assert all(paired.flash.read(paired.layout[label].offset, 0x2000) == data for label, data in before.items())
    assert (mounted(up), up.engine.status()["counters"]) == (APP_B, (3, 4))


MIXED = [
    (make(2, {FW: NEW}, ties={APP: 3}), "SEQUENCE"),  # older firmware, application as it is
    (make(3, {FW: OLD, APP: APP_B}), "SEQUENCE"),  # the pair of an older release: its firmware would be new enough
    (make(4, {APP: APP_A}, ties={FW: 3}), "SEQUENCE"),  # older application for this very firmware
    (make(6, {FW: NEW}, ties={APP: 6}), "VERSION_TIE"),  # newer firmware that wants a newer application
    (make(6, {APP: APP_A}, ties={FW: 4}), "VERSION_TIE"),  # newer application that wants a newer firmware
    (make(6, {FW: NEW}), "VERSION_TIE"),  # from before the product had applications
    (make(6, {APP: APP_A}), "VERSION_TIE"),
]


@pytest.mark.requirement("UPE02", "UPE11")
@pytest.mark.parametrize(("old", "name"), MIXED)
@pytest.mark.rule("ties")
def test_a_genuine_release_that_is_replayed_into_another_pair_is_refused(paired, old, name):
    """Mixed and matched: everything is signed, nothing was ever released together."""
    confirmed(paired, make(5, {APP: APP_B}, ties={FW: 3}))
    paired.flash.log.clear()
    assert refusal(paired.power_on().engine.accept, old.envelope) == name
    assert paired.ops() == []


def test_the_pair_is_judged_again_at_boot(paired):
    """What was staged fitted the running pair when it was accepted."""
    stage(paired, make(5, {FW: NEW}, ties={APP: 3}))
    book = Ledger(paired.part("sekisho"))
    app, fw_sequence, _, digest = book.state.pairs[1]
    book.append(ledger.PAIR, 1, app, fw_sequence, 2, digest)
    up = paired.power_on()
    assert (up.running, reasons.name(up.engine.status()["last"][0])) == (1, "VERSION_TIE")


@pytest.mark.invariant(9)
@pytest.mark.rule("application-trial")
def test_an_application_trial_that_is_never_confirmed_is_tried_three_times(paired):
    stage(paired, make(4, {APP: APP_B}, ties={FW: 3}))
    seen = []
    for _ in range(6):
        up = paired.power_on()
        seen.append((mounted(up) == APP_B, up.decision.trial))
    assert seen == [(True, True)] * engine.MAX_ATTEMPTS + [(False, False)] * 3
    assert (mounted(up), reasons.name(up.engine.status()["last"][0])) == (APP_A, "ATTEMPTS")


def test_an_application_on_trial_ends_with_the_firmware_it_was_tried_on(paired):
    """The bootloader falls back while the pair is on trial: the trial is over, and the other firmware is not in it."""
    up = update(paired, make(4, {APP: APP_B}, ties={FW: 3}))
    assert (up.running, mounted(up)) == (1, APP_B)
    paired.flash.buffer[paired.layout["ota_1"].offset + 9000] ^= 1
    up = paired.power_on()
    assert (up.running, up.decision.trial, mounted(up)) == (0, False, None)
    assert (reasons.name(up.engine.status()["last"][0]), degraded(up)) == ("FALLBACK", "FALLBACK")


def test_a_choice_that_came_back_has_all_its_tries_again(desk):
    """Otherwise the fourth lost otadata entry in the life of a device would cost it the newer image."""
    confirmed(desk, UPDATE)
    part = desk.part("otadata")
    for _ in range(2 * engine.MAX_ATTEMPTS):
        otadata.normalise(part, 0)
        assert desk.power_on().running == 1
        assert degraded(desk.power_on()) == ""


@pytest.mark.requirement("UPE02", "UPE03")
@pytest.mark.rule("permit")
def test_an_order_without_a_nonce_that_was_drawn_is_refused():
    keys = make_keyset(operators=1)
    desk = Desk(keys=keys)
    desk.factory(FACTORY, OLD)
    up = confirmed(desk, UPDATE)
    assert up.engine.state.nonce == 0
    order = {1: 3, 2: up.port.device, 3: 0, 4: ISSUED + YEAR, 5: FACTORY.plan.digest}
    permit = cose.sign1(release.encode(order), keys.operators[0], attached=True)
    assert refusal(up.engine.rollback, permit) == "PERMIT"


@pytest.mark.requirement("UPE02", "UPE16")
@pytest.mark.invariant(3)
@pytest.mark.rule("efuse-floor")
def test_below_the_hardware_floor_the_idle_image_is_chosen_by_no_order_and_no_rule():
    keys = make_keyset(operators=1)
    desk = Desk(keys=keys)
    old, new = (images.app(text.ljust(8000, "."), secure_version=level) for text, level in (("old", 1), ("new", 3)))
    factory = make(1, {FW: old})
    desk.factory(factory, old)
    confirmed(desk, make(2, {FW: new}))
    desk.fuse = 2
    up = desk.power_on()
    assert degraded(up) == ""
    order = {1: 3, 2: up.port.device, 3: up.engine.nonce(), 4: ISSUED + YEAR, 5: factory.plan.digest}
    permit = cose.sign1(release.encode(order), keys.operators[0], attached=True)
    assert refusal(up.engine.rollback, permit) == "PERMIT_TARGET"
    desk.fuse = 0
    with pytest.raises(ResetError):
        desk.power_on().engine.rollback(permit)  # it was the floor that forbade it


@pytest.mark.requirement("UPE02")
@pytest.mark.rule("permit", "pairs")
def test_a_rolled_back_firmware_gets_its_own_application_back():
    keys = make_keyset(operators=1)
    desk = Desk(keys=keys)
    desk.factory(FACTORY, OLD)
    confirmed(desk, BOTH)
    up = confirmed(desk, make(5, {FW: NEW, APP: APP_B}))
    order = {1: 3, 2: up.port.device, 3: up.engine.nonce(), 4: ISSUED + YEAR, 5: BOTH.plan.digest}
    permit = cose.sign1(release.encode(order), keys.operators[0], attached=True)
    with pytest.raises(ResetError):
        up.engine.rollback(permit)
    up = desk.power_on()
    assert (up.running, up.decision.trial, mounted(up)) == (1, True, APP_A)
    assert up.engine.confirm() == 0
    assert desk.power_on().engine.status()["counters"] == (5, 5)  # the counter stays


# -- keys ------------------------------------------------------------------------------------------


@pytest.mark.requirement("UPC05", "UPE02")
def test_a_device_that_took_the_highest_release_of_a_leaked_key_is_brought_back():
    """The thief signs 2^63-1, which the ceiling refuses, and then the ceiling itself, which installs."""
    keys = make_keyset(release=2, limits={"fw": (0, 1000)})
    thief, good = keys.release
    desk = Desk(keys=keys)
    desk.factory(FACTORY, OLD)
    up = desk.power_on()
    assert refusal(up.engine.accept, make(2**63 - 1, {FW: NEW}, key=thief).envelope) == "CEILING"
    up = confirmed(desk, make(1000, {FW: NEW}, key=thief))
    assert up.engine.status()["counters"][FW] == 1000
    changed = keys.next(
        release=keys.content.release[1:], revoked_keys=(thief.key_id,), limits={"fw": (1001, 2000), "app": (0, 2000)}
    )
    up.engine.accept_keyset(changed.document)
    up = desk.power_on()
    assert (up.running, degraded(up)) == (1, "KEY_REVOKED")  # it runs, and may only update
    assert refusal(up.engine.accept, make(1001, {FW: NEWER}, key=thief).envelope) == "KEY_REVOKED"
    up = confirmed(desk, make(1001, {FW: NEWER}, key=good))
    assert (up.running, degraded(up), up.engine.status()["counters"][FW]) == (0, "", 1001)
    assert refusal(up.engine.accept, make(1000, {FW: NEW}, key=good).envelope) == "SEQUENCE"


@pytest.mark.requirement("UPC03", "UPC04")
def test_a_device_never_changes_its_environment(desk):
    """Not by a key set, nor by one that lies in flash when the ledger is lost, although the same roots signed it."""
    other = make_keyset(2, environment="release", limits={"fw": (900, 1000)})
    up = desk.power_on()
    assert refusal(up.engine.accept_keyset, other.document) == "KEYSET_ENVIRONMENT"
    part = desk.part("sekisho")
    records.save(part, records.KEYSETS, 2, records.KIND_KEYSET, 2, other.document)
    for bank in (0, 1):
        part.erase(bank)
    up = desk.power_on()
    assert up.engine.status()["keyset"] == 1
    assert confirmed(desk, UPDATE).running == 1


@pytest.mark.requirement("UPC06")
def test_a_device_that_slept_for_years_installs_after_walking_the_chain(desk):
    made, chain = desk.keys, []
    for year in range(1, 6):
        root = signer("root", year)
        made = made.next(
            roots=(root.public_key,),
            signed_by=[*made.roots, root],
            issued_at=ISSUED + (9 + year) * YEAR,
            expires=ISSUED + (10 + year) * YEAR,
        )
        made = type(made)(made.content, made.document, (root,), made.release, made.operators)
        chain.append(made.document)
    desk.clock = ISSUED + 14 * YEAR
    up = desk.power_on()
    assert refusal(up.engine.accept, UPDATE.envelope) == "EXPIRED_KEYSET"
    assert refusal(up.engine.accept_keyset, chain[-1]) == "KEYSET_VERSION"
    for version, document in enumerate(chain, 2):
        assert desk.power_on().engine.accept_keyset(document).version == version
        if version < 6:
            assert refusal(desk.power_on().engine.accept, UPDATE.envelope) == "EXPIRED_KEYSET"
    assert confirmed(desk, UPDATE).running == 1


@pytest.mark.requirement("UPC05", "UPC06", "UPE14")
@pytest.mark.invariant(2)
def test_a_cut_while_a_key_set_is_replaced_leaves_the_old_or_the_new_one(desk):
    """Before, between and inside all flash operations: never none, never one that is half written."""
    second = desk.keys.next()
    third = second.next(revoked_manifests=(FACTORY.plan.digest,))
    desk.power_on().engine.accept_keyset(second.document)
    confirmed(desk, UPDATE)
    base = desk.snapshot()
    up = desk.power_on()
    desk.flash.log.clear()
    up.engine.accept_keyset(third.document)
    states = list(cut_states(base, desk.ops(), seeds=(0, 1)))
    versions = set()
    for cut, state in states:
        desk.restore(state)
        up = desk.power_on()
        versions.add(up.engine.keyset().version)
        assert up.engine.keyset().version in (2, 3), cut
        assert up.engine.accept_keyset(third.document).version == 3, cut
        assert desk.power_on().engine.keyset().version == 3, cut
        assert is_blank(desk.part("ota_0"), 0), cut  # what the new one forbids
    assert versions == {2, 3}
    assert len(states) > 40


# -- floors and revocations bind the application, too ----------------------------------------------


NO_OLD_APP = {"limits": {"fw": (0, 100), "app": (4, 100)}}
NO_APP_AT_ALL = {"limits": {"fw": (0, 100), "app": (90, 100)}}
APP_FOUR = make(4, {APP: APP_B}, ties={FW: 3}, key=signer("release", 1))


@pytest.fixture
def guarded() -> Desk:
    """Firmware 3 with application 3 on it, confirmed; two release keys, and an operator who may order a rollback."""
    made = Desk(keys=make_keyset(release=2, operators=1))
    made.factory(FACTORY, OLD)
    confirmed(made, BOTH)
    return made


def forbid(desk: Desk, **changes) -> Up:
    desk.keys = desk.keys.next(**changes)
    desk.power_on().engine.accept_keyset(desk.keys.document)
    return desk.power_on()


def permit(desk: Desk, up: Up, target) -> bytes:
    order = {1: 3, 2: up.port.device, 3: up.engine.nonce(), 4: ISSUED + YEAR, 5: target.plan.digest}
    return cose.sign1(release.encode(order), desk.keys.operators[0], attached=True)


def revocation(desk: Desk, how: str) -> dict:
    """What a key set says that forbids APP_FOUR, and nothing else the device has."""
    if how == "manifest":
        return {"revoked_manifests": (APP_FOUR.plan.digest,)}
    key = desk.keys.release[1].key_id
    return {"release": desk.keys.content.release[:1], "revoked_keys": (key,)}


@pytest.mark.requirement("UPC05")
def test_a_running_application_below_its_new_floor_is_degraded_and_stays_mounted(guarded):
    up = forbid(guarded, **NO_OLD_APP)
    assert (degraded(up), mounted(up)) == ("FLOOR", APP_A)
    assert (degraded(guarded.power_on()), mounted(guarded.power_on())) == ("FLOOR", APP_A)


@pytest.mark.requirement("UPC05")
def test_an_application_at_its_floor_is_not_degraded(guarded):
    up = forbid(guarded, limits={"fw": (3, 100), "app": (3, 100)})
    assert (degraded(up), mounted(up)) == ("", APP_A)


@pytest.mark.requirement("UPC05")
@pytest.mark.parametrize(("how", "name"), [("manifest", "MANIFEST_REVOKED"), ("key", "KEY_REVOKED")])
def test_a_running_application_that_is_revoked_is_degraded_and_stays_mounted(guarded, how, name):
    confirmed(guarded, APP_FOUR)
    up = forbid(guarded, **revocation(guarded, how))
    assert (degraded(up), mounted(up)) == (name, APP_B)


@pytest.mark.requirement("UPC05")
def test_a_forbidden_applications_flag_goes_when_an_allowed_one_is_confirmed(guarded):
    assert degraded(forbid(guarded, **NO_OLD_APP)) == "FLOOR"
    up = update(guarded, make(4, {APP: APP_B}, ties={FW: 3}))
    assert (up.decision.trial, degraded(up)) == (True, "FLOOR")  # not before it is confirmed
    assert up.engine.confirm() == 0
    up = guarded.power_on()
    assert (degraded(up), mounted(up)) == ("", APP_B)


@pytest.mark.requirement("UPC05")
def test_a_forbidden_applications_flag_goes_when_the_next_key_set_allows_it_again(guarded):
    assert degraded(forbid(guarded, **NO_OLD_APP)) == "FLOOR"
    up = forbid(guarded, limits={"fw": (0, 100), "app": (3, 100)})
    assert (degraded(up), mounted(up)) == ("", APP_A)


@pytest.mark.requirement("UPC05")
def test_a_key_set_that_allows_everything_takes_no_other_reason_back(guarded):
    """Only what a key set said is a key set's to take back."""
    guarded.flash.buffer[guarded.layout["ota_1"].offset + 9000] ^= 1
    assert degraded(guarded.power_on()) == "FALLBACK"
    assert degraded(forbid(guarded)) == "FALLBACK"


@pytest.mark.requirement("UPC05", "UPE02", "UPE03")
@pytest.mark.parametrize("how", ["floor", "manifest", "key"])
def test_a_permit_to_a_firmware_whose_application_is_forbidden_is_refused_without_a_write(guarded, how):
    confirmed(guarded, APP_FOUR)  # firmware 3 with application 4: what the permit asks for
    confirmed(guarded, make(5, {FW: NEW, APP: APP_A}))
    changes = {"limits": {"fw": (0, 100), "app": (5, 100)}} if how == "floor" else revocation(guarded, how)
    up = forbid(guarded, **changes)
    assert (degraded(up), mounted(up)) == ("", APP_A)  # the running pair is allowed
    order = permit(guarded, up, BOTH)
    guarded.flash.log.clear()
    assert refusal(up.engine.rollback, order) == "PERMIT_TARGET"
    assert guarded.ops() == []
    assert guarded.power_on().running == up.running


@pytest.mark.requirement("UPE02", "UPE03")
def test_a_permit_to_a_firmware_whose_application_is_allowed_is_obeyed(guarded):
    """The same steps as where it is refused: it was the key set that forbade it."""
    confirmed(guarded, APP_FOUR)
    confirmed(guarded, make(5, {FW: NEW, APP: APP_A}))
    up = forbid(guarded, limits={"fw": (0, 100), "app": (4, 100)})
    order = permit(guarded, up, BOTH)
    with pytest.raises(ResetError):
        up.engine.rollback(order)
    up = guarded.power_on()
    assert (up.decision.trial, mounted(up)) == (True, APP_B)


@pytest.mark.requirement("UPE02", "UPE03")
def test_an_idle_firmware_whose_application_was_overwritten_is_judged_by_itself_alone(guarded):
    """What lies in that slot now belongs to the running firmware; that it is revoked says nothing of the idle one."""
    confirmed(guarded, make(5, {FW: NEW, APP: APP_B}))
    six = make(6, {APP: APP_A + b"!"}, ties={FW: 5})
    confirmed(guarded, six)
    up = forbid(guarded, revoked_manifests=(six.plan.digest,))
    assert degraded(up) == "MANIFEST_REVOKED"
    order = permit(guarded, up, BOTH)
    with pytest.raises(ResetError):
        up.engine.rollback(order)
    up = guarded.power_on()
    assert (up.decision.trial, mounted(up), degraded(up)) == (True, None, "TARGET_LOST")


@pytest.mark.requirement("UPC05", "UPE02")
@pytest.mark.parametrize("allowed", [True, False])
@pytest.mark.invariant(3)
@pytest.mark.rule("one-rule")
def test_a_lost_choice_is_brought_back_only_where_its_application_is_allowed(guarded, allowed):
    forbid(guarded, **({"limits": {"fw": (0, 100), "app": (3, 100)}} if allowed else NO_OLD_APP))
    for sector in (0, 1):
        guarded.part("otadata").erase(sector)
    up = guarded.power_on()
    assert (up.running, degraded(up)) == ((1, "") if allowed else (0, "FALLBACK"))


@pytest.mark.requirement("UPC05", "UPE14")
def test_a_firmware_update_that_keeps_a_forbidden_application_is_confirmed_degraded(guarded):
    """The reason stands in the record that confirms, and that record is written again where a cut took it."""
    forbid(guarded, **NO_OLD_APP)
    up = update(guarded, make(5, {FW: NEW}, ties={APP: 3}))
    before = guarded.snapshot()
    guarded.flash.log.clear()
    assert up.engine.confirm() == 0
    ops = guarded.ops()
    book = guarded.layout["sekisho"]
    last = [n for n, op in enumerate(ops) if op.kind == "program" and book.offset <= op.address < book.end][-2:]
    assert [ops[n].data[1] for n in last] == [ledger.CONFIRMED] * 2  # the same record, to both banks
    for done in (last[0], last[1], len(ops)):
        guarded.restore(before)
        for op in ops[:done]:
            op.apply(guarded.flash.buffer)
        for _ in range(2):
            up = guarded.power_on()
            assert (up.running, up.decision.trial, degraded(up), mounted(up)) == (0, False, "FLOOR", APP_A)
        assert up.engine.status()["counters"] == (5, 3)


@pytest.mark.requirement("UPE14")
def test_a_lost_key_set_does_not_stop_a_confirmation(guarded):
    forbid(guarded)
    up = update(guarded, make(5, {FW: NEW}, ties={APP: 3}))
    for sector in range(8, 12):
        guarded.part("sekisho").erase(sector)
    assert refusal(up.engine.keyset) == "NO_KEYSET"
    assert up.engine.confirm() == 0
    up = guarded.power_on()
    assert (up.running, up.decision.trial, up.engine.status()["counters"]) == (0, False, (5, 3))
    assert degraded(up) == ""  # nothing says so any more; the next key set will


@pytest.mark.requirement("UPC05", "UPE02")
@pytest.mark.parametrize(("floor", "name"), [(3, ""), (4, "FLOOR")])
def test_after_a_lost_ledger_a_firmware_below_the_floor_of_the_key_set_in_flash_is_degraded(desk, floor, name):
    confirmed(desk, make(3, {FW: NEW}))
    desk.keys = desk.keys.next(limits={"fw": (floor, 100), "app": (0, 100)})
    desk.power_on().engine.accept_keyset(desk.keys.document)
    for bank in (0, 1):
        desk.part("sekisho").erase(bank)
    up = desk.power_on()
    assert (up.running, up.engine.status()["keyset"], degraded(up)) == (1, 2, name)
    assert degraded(desk.power_on()) == name
    up = confirmed(desk, make(4, {FW: NEWER}))
    assert degraded(up) == ""


@pytest.mark.requirement("UPC05", "UPE14")
def test_pulling_the_plug_is_no_evidence_against_a_firmware_that_keeps_a_forbidden_application(guarded):
    forbid(guarded, **NO_OLD_APP)
    up = update(guarded, make(5, {FW: NEW}, ties={APP: 3}))
    for _ in range(engine.MAX_ATTEMPTS - 1):
        up = guarded.power_on()
        assert (up.running, up.decision.trial, mounted(up)) == (0, True, APP_A)
    assert up.engine.confirm() == 0
    assert degraded(guarded.power_on()) == "FLOOR"


@pytest.mark.requirement("UPC05", "UPE14")
def test_a_firmware_that_keeps_a_forbidden_application_is_confirmed_degraded_whenever_the_power_goes(guarded):
    forbid(guarded, **NO_OLD_APP)
    base_up = update(guarded, make(5, {FW: NEW}, ties={APP: 3}))
    base = guarded.snapshot()
    guarded.flash.log.clear()
    assert base_up.engine.confirm() == 0
    states = list(cut_states(base, guarded.ops(), seeds=(0,)))
    assert len(states) > 40
    on_trial = set()
    for cut, state in states:
        guarded.restore(state)
        up = guarded.power_on()
        on_trial.add(up.decision.trial)
        assert (up.running, degraded(up), mounted(up)) == (0, "FLOOR", APP_A), cut
        if up.decision.trial:
            assert up.engine.confirm() == 0
        up = guarded.power_on()
        assert (up.running, degraded(up), up.engine.status()["counters"]) == (0, "FLOOR", (5, 3)), cut
    assert on_trial == {True, False}  # cut before the wish to confirm was kept, and after


# -- loss, wear ------------------------------------------------------------------------------------


@pytest.mark.requirement("UPE02", "SSS02")
@pytest.mark.parametrize("how", ["erased", "noise"])
@pytest.mark.parametrize("sector", range(12))
@pytest.mark.invariant(3, 7)
def test_the_loss_of_any_one_sector_takes_no_counter_and_no_way_to_update(paired, sector, how):
    second = paired.keys.next()
    third = second.next()
    for one in (second, third):
        paired.power_on().engine.accept_keyset(one.document)
    before = confirmed(paired, make(5, {FW: NEW, APP: APP_B}))
    part = paired.part("sekisho")
    part.erase(sector)
    if how == "noise":
        part.program(sector * SECTOR, hashlib.shake_256(bytes((sector,))).digest(SECTOR))
    up = paired.power_on()
    status = up.engine.status()
    assert (up.running, status["counters"], status["locked"]) == (before.running, (5, 5), False)
    assert (mounted(up) == APP_B) == (degraded(up) == ""), "what is missing is said"
    if status["keyset"] == 3:
        again = up.engine  # where the newest copy is lost, the chain is walked again from the key set of the build
        for one in (second, third) if sector == 10 else (third,):
            again.accept_keyset(one.document)
    old = make(4, {FW: OLD, APP: APP_A})
    assert refusal(paired.power_on().engine.accept, old.envelope) == "SEQUENCE"
    up = confirmed(paired, make(6, {FW: OLD, APP: APP_A}))
    assert (mounted(up), degraded(up), up.engine.status()["counters"]) == (APP_A, "", (6, 6))


@pytest.mark.rule("wear")
def test_sectors_that_hold_the_right_bytes_already_are_not_rewritten(desk):
    """The image of two updates ago lies in the idle slot: only its first sector is erased when it comes again."""
    confirmed(desk, UPDATE)
    slot = desk.layout["ota_0"]
    desk.flash.log.clear()
    stage(desk, make(3, {FW: OLD}))
    ops = [op for op in desk.ops() if slot.offset <= op.address < slot.end]
    assert [(op.kind, op.address) for op in ops] == [(ERASE, slot.offset)]
    assert desk.power_on().running == 0


@pytest.mark.rule("failed")
def test_an_image_that_failed_its_trial_stays_bootable_and_is_overwritten_by_the_next(desk):
    """It is authentic: a better fallback than none. What is not authorised is scrubbed (see the invariants)."""
    up = update(desk, UPDATE)
    with pytest.raises(ResetError):
        up.engine.fail(reasons.HEALTH)
    up = desk.power_on()
    assert (up.running, is_blank(desk.part("ota_1"), 0)) == (0, False)
    desk.flash.buffer[desk.layout["ota_0"].offset + 9000] ^= 1
    assert bootloader.power_on(desk.flash).running == "ota_1"
    assert degraded(desk.power_on()) == "FALLBACK"


@pytest.mark.rule("retries")
def test_every_try_of_a_manifest_is_counted_until_it_is_confirmed(desk):
    """By these counts the agent makes its pauses grow; power cuts, refusals at boot and failed trials all count."""
    for tries in (1, 2, 3):
        up = update(desk, UPDATE)
        assert up.engine.status()["retries"] == ((UPDATE.plan.digest, tries),)
        with pytest.raises(ResetError):
            up.engine.fail(reasons.HEALTH)
    assert confirmed(desk, UPDATE).engine.status()["retries"] == ()


@pytest.mark.requirement("SSS06")
def test_the_device_knows_its_versions_and_the_state_of_its_update(paired):
    status = paired.power_on().engine.status()
    assert (status["running"], status["counters"], status["pair"][1:], status["phase"]) == (1, (3, 3), (3, 3), 0)
    engine_ = paired.power_on().engine
    made = make(4, {FW: NEW}, ties={APP: 3})
    fetch(engine_, made.envelope, made.payloads, until=8192)
    assert (engine_.status()["phase"], engine_.status()["manifest"]) == (1, made.plan.digest)
    up = update(paired, made)
    assert (up.engine.status()["trial"], up.engine.status()["attempts"]) == (True, 1)
    assert up.engine.confirm() == 0
    assert up.engine.status()["last"] == (0, made.plan.digest, 4)


def test_the_selected_slot_is_the_running_one_after_every_outcome(paired):
    for made, end in ((make(5, {FW: NEW}, ties={APP: 3}), "confirm"), (make(6, {FW: OLD}, ties={APP: 3}), "fail")):
        up = update(paired, made)
        if end == "confirm":
            assert up.engine.confirm() == 0
        else:
            with pytest.raises(ResetError):
                up.engine.fail(reasons.HEALTH)
        up = paired.power_on()
        assert otadata.selected(paired.part("otadata")) == (up.running, otadata.VALID)
