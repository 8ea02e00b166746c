"""A digest is compared to its last byte: what differs in the first or in the last byte only is something else."""

from __future__ import annotations

import hashlib
from types import SimpleNamespace

import pytest
from helpers import images, release
from helpers.desk import Desk, Port, ResetError, Up, fetch
from helpers.keys import ISSUED, YEAR, make_keyset
from helpers.steps import APP, APP_ONLY, BOTH, FACTORY, FW, NEW, OLD, UPDATE, confirmed, degraded, last, refusal, stage
from sekisho_boot import cbor, engine, image, ledger, reasons, records, suit
from sekisho_boot.ledger import Ledger
from sekisho_sim.flash import SECTOR
from sekisho_tools import cose

NEAR = pytest.mark.parametrize("at", [0, 31], ids=["first byte", "last byte"])
"""The one byte in which the two digests differ."""


@pytest.fixture
def desk() -> Desk:
    made = Desk(keys=make_keyset(operators=1))
    made.factory(FACTORY, OLD)
    return made


def near(digest: bytes, at: int) -> bytes:
    """*digest* with one bit of byte *at* turned over."""
    changed = bytearray(digest)
    changed[at] ^= 1
    return bytes(changed)


@pytest.fixture
def flash_reads_near(monkeypatch, at):
    """From the call on, whatever the engine hashes in flash has nearly the digest that it has."""
    genuine = engine._digest

    def begin() -> None:
        monkeypatch.setattr(engine, "_digest", lambda part, size: near(genuine(part, size), at))

    return begin


def rewrite(desk: Desk, component: int, slot: int, at: int, value: bytes) -> None:
    """Changes bytes of a slot record; its CRC fits."""
    part, sector = desk.part("sekisho"), records.SLOT_RECORDS + 2 * component + slot
    payload = bytearray(records.load(part, sector, 1, records.KIND_SLOT))
    payload[at : at + len(value)] = value
    records.save(part, sector, 1, records.KIND_SLOT, 0, bytes(payload))


# -- images in flash -------------------------------------------------------------------------------


@NEAR
@pytest.mark.requirement("UPE10")
@pytest.mark.parametrize("made", [UPDATE, APP_ONLY], ids=["fw", "app"])
def test_an_image_with_nearly_its_digest_is_not_staged(desk, flash_reads_near, made):
    if made is APP_ONLY:
        confirmed(desk, BOTH)
    up = desk.power_on()
    flash_reads_near()
    assert refusal(fetch, up.engine, made.envelope, made.payloads) == "IMAGE_DIGEST"


@NEAR
@pytest.mark.requirement("UPE10")
@pytest.mark.parametrize("made", [UPDATE, APP_ONLY], ids=["fw", "app"])
@pytest.mark.invariant(1, 5)
def test_an_image_with_nearly_its_digest_is_not_made_bootable(desk, flash_reads_near, made):
    if made is APP_ONLY:
        confirmed(desk, BOTH)
    stage(desk, made)
    flash_reads_near()
    up = desk.power_on()
    assert (up.decision.trial, last(up)) == (False, "IMAGE_DIGEST")


@NEAR
def test_an_image_on_trial_with_nearly_its_digest_is_not_tried_again(desk, flash_reads_near):
    stage(desk)
    assert desk.boot_once() is None  # swapped in and selected; the attempt has not begun
    flash_reads_near()
    assert engine.Engine(Port(desk, 0))._broken(1) == reasons.TARGET_LOST
    desk.flash.buffer[desk.layout["ota_1"].offset + 9000] ^= 1  # so that the bootloader falls back
    up = desk.power_on()
    assert (up.running, last(up)) == (0, "TARGET_LOST")


@NEAR
def test_a_lost_choice_with_nearly_its_digest_is_not_brought_back(desk, flash_reads_near):
    confirmed(desk)
    for sector in (0, 1):
        desk.part("otadata").erase(sector)
    flash_reads_near()
    up = desk.power_on()
    assert (up.running, degraded(up)) == (0, "FALLBACK")


@NEAR
@pytest.mark.requirement("UPE02")
def test_a_running_image_with_nearly_its_digest_proves_no_counter(desk, flash_reads_near):
    confirmed(desk)
    for bank in (0, 1):
        desk.part("sekisho").erase(bank)
    flash_reads_near()
    status = desk.power_on().engine.status()
    assert (status["counters"], status["locked"]) == ((0, 0), True)


@NEAR
@pytest.mark.requirement("UPE02")
def test_an_envelope_proves_no_image_with_nearly_the_digest_that_it_names(desk, monkeypatch, at):
    """Record and flash agree, and the envelope names another image, one bit away."""
    confirmed(desk)
    for bank in (0, 1):
        desk.part("sekisho").erase(bank)
    genuine = engine._digest
    monkeypatch.setattr(engine, "_digest", lambda part, size: near(genuine(part, size), at))
    rewrite(desk, FW, 1, 16, near(hashlib.sha256(NEW).digest(), at))
    status = desk.power_on().engine.status()
    assert (status["counters"], status["locked"]) == ((0, 0), True)


@NEAR
def test_an_application_with_nearly_its_digest_is_not_mounted(desk, flash_reads_near):
    confirmed(desk, BOTH)
    flash_reads_near()
    up = desk.power_on()
    assert (up.decision.app, degraded(up)) == (None, "TARGET_LOST")


@NEAR
def test_an_application_is_not_mounted_with_nearly_its_pair(desk, at):
    confirmed(desk, BOTH)
    book = Ledger(desk.part("sekisho"))
    app, fw_sequence, sequence, digest = book.state.pairs[1]
    book.append(ledger.PAIR, 1, app, fw_sequence, sequence, near(digest, at))
    up = desk.power_on()
    assert (up.decision.app, degraded(up)) == (None, "TARGET_LOST")


@NEAR
def test_an_application_that_nearly_belongs_to_a_firmware_does_not_bar_it(desk, at):
    confirmed(desk, BOTH)
    book = Ledger(desk.part("sekisho"))
    app, fw_sequence, sequence, digest = book.state.pairs[1]
    trusted = desk.power_on().engine.keyset()
    trusted.limits["app"] = (4, 100)
    assert engine.Engine(Port(desk, 1))._barred(trusted, 1) == reasons.FLOOR
    book = Ledger(desk.part("sekisho"))
    book.append(ledger.PAIR, 1, app, fw_sequence, sequence, near(digest, at))
    assert engine.Engine(Port(desk, 1))._barred(trusted, 1) == 0


@NEAR
def test_an_application_on_trial_is_the_one_of_the_manifest_on_trial(desk, at):
    confirmed(desk, BOTH)
    stage(desk, APP_ONLY)
    up = desk.power_on()
    slot = 0 if up.decision.app[0].offset == desk.layout["app_0"].offset else 1
    rewrite(desk, APP, slot, 48, near(APP_ONLY.plan.digest, at))
    assert (desk.power_on().decision.app, last(desk.power_on())) == (None, "TARGET_LOST")


@NEAR
@pytest.mark.requirement("UPE11")
def test_an_image_whose_appended_hash_nearly_fits_is_refused(at):
    class Near:
        def __init__(self) -> None:
            self.hasher = hashlib.sha256()
            self.update = self.hasher.update

        def digest(self) -> bytes:
            return near(self.hasher.digest(), at)

    made = images.app("esp32".ljust(600, "."))

    def read(off: int, buf) -> None:
        buf[:] = made[off : off + len(buf)]

    image.check(read, len(made), 0, 301, hashlib.sha256)
    assert refusal(image.check, read, len(made), 0, 301, Near) == "IMAGE_HASH"


# -- manifests -------------------------------------------------------------------------------------


@NEAR
@pytest.mark.requirement("UPE01")
def test_a_manifest_with_nearly_the_digest_that_was_signed_is_refused(desk, monkeypatch, at):
    genuine = suit._hashed

    def hashed(reader):
        inner, digest = genuine(reader)
        return inner, near(digest, at)

    up = desk.power_on()
    monkeypatch.setattr(suit, "_hashed", hashed)
    assert refusal(up.engine.accept, UPDATE.envelope) == "MANIFEST_DIGEST"


@NEAR
def test_a_text_with_nearly_the_digest_that_the_manifest_names_is_refused(at):
    digest = hashlib.sha256(b"text").digest()
    manifest = {1: 1, 2: 2, 3: release.encode({}), 7: release.encode([]), 23: [-16, digest]}

    def members(text: bytes):
        return suit._members(cbor.Reader(release.encode(manifest), wrong=reasons.MANIFEST), text)

    assert members(digest)[0] == 2
    assert refusal(members, near(digest, at)) == "SEVERABLE"


@NEAR
def test_a_component_has_one_image_and_not_nearly_the_same_again(at):
    digest, parts = hashlib.sha256(b"image").digest(), [suit._Part(FW)]

    def override(value: bytes) -> None:
        suit._override(cbor.Reader(release.encode({3: release.encode([-16, value])})), parts)

    override(digest)
    override(digest)
    assert refusal(override, near(digest, at)) == "PARAMETER"


@NEAR
@pytest.mark.requirement("UPC05")
def test_the_neighbour_of_a_revoked_manifest_is_not_revoked(desk, at):
    desk.power_on().engine.accept_keyset(desk.keys.next(revoked_manifests=(near(UPDATE.plan.digest, at),)).document)
    up = confirmed(desk)
    assert (up.running, degraded(up)) == (1, "")
    revoked = [near(FACTORY.plan.digest, at), near(UPDATE.plan.digest, at)]
    second = desk.keys.next(revoked_manifests=(revoked[1],))
    up.engine.accept_keyset(second.next(revoked_manifests=tuple(revoked)).document)
    assert desk.flash.read(desk.layout["ota_0"].offset, 1) == b"\xe9"
    assert degraded(desk.power_on()) == ""


@NEAR
@pytest.mark.requirement("UPE01")
def test_a_staged_envelope_must_be_the_one_that_the_ledger_names(desk, at):
    stage(desk)
    book = Ledger(desk.part("sekisho"))
    state = book.state
    book.append(ledger.STAGED, state.mask, state.slots, state.sequence, 0, near(state.manifest, at))
    up = desk.power_on()
    assert (up.running, last(up)) == (0, "STAGED_CHANGED")


@NEAR
def test_a_download_goes_on_only_with_its_own_manifest(desk, at):
    fetch(desk.power_on().engine, UPDATE.envelope, UPDATE.payloads, until=8192)
    book = Ledger(desk.part("sekisho"))
    state = book.state
    book.append(ledger.FETCH, state.mask, state.slots, state.sequence, 0, near(state.manifest, at), 1)
    up = desk.power_on().engine
    up.accept(UPDATE.envelope)
    assert refusal(up.begin) == "BUSY"
    assert refusal(up.write, FW, 0, NEW[:SECTOR]) == "NOTHING"


@NEAR
def test_a_manifest_that_nearly_is_the_same_begins_at_nothing_and_has_tries_of_its_own(at):
    digest, state = hashlib.sha256(b"manifest").digest(), ledger.State()
    state.apply(ledger.FETCH, 1, 1, 7, 0, digest, 3)
    state.apply(ledger.PROGRESS, 0, 0, 65_536, 0, ledger.NO_DIGEST, 0)
    assert state.tries(near(digest, at)) == 0
    state.apply(ledger.FETCH, 1, 1, 7, 0, near(digest, at), 1)
    assert state.progress == [0, 0]
    assert state.retries == [(near(digest, at), 1), (digest, 3)]


# -- orders and key sets ---------------------------------------------------------------------------


def permit(desk: Desk, up: Up, target: bytes) -> bytes:
    order = {1: 3, 2: up.port.device, 3: up.engine.nonce(), 4: ISSUED + YEAR, 5: target}
    return cose.sign1(release.encode(order), desk.keys.operators[0], attached=True)


@NEAR
@pytest.mark.requirement("UPE02", "UPE03")
def test_a_permit_names_the_whole_digest_of_its_target(desk, at):
    up = confirmed(desk)
    orders = [permit(desk, up, target) for target in (near(FACTORY.plan.digest, at), FACTORY.plan.digest)]
    assert refusal(up.engine.rollback, orders[0]) == "PERMIT_TARGET"
    with pytest.raises(ResetError):
        up.engine.rollback(orders[1])


@NEAR
@pytest.mark.requirement("UPE02")
def test_the_neighbour_of_an_abandoned_image_is_not_abandoned(desk, at):
    digest = UPDATE.plan.targets[0].digest
    for named, refused in ((digest, True), (near(digest, at), False)):
        Ledger(desk.part("sekisho")).append(ledger.ABANDONED, 0, 0, 2, 0, named)
        up = desk.power_on()
        if refused:
            assert refusal(up.engine.accept, UPDATE.envelope) == "ABANDONED"
        else:
            assert up.engine.accept(UPDATE.envelope).sequence == 2


@NEAR
@pytest.mark.requirement("UPC05", "UPC06")
def test_the_key_set_in_flash_is_the_one_that_the_ledger_names(desk, at):
    second = desk.keys.next()
    desk.power_on().engine.accept_keyset(second.document)
    book = Ledger(desk.part("sekisho"))
    version, issued, digest = book.state.keyset
    book.append(ledger.KEYSET, 0, 0, version, issued, near(digest, at))
    up = desk.power_on()
    assert refusal(up.engine.accept, UPDATE.envelope) == "NO_KEYSET"
    assert refusal(up.engine.accept_keyset, second.document) == "KEYSET_CONTENT"


@NEAR
@pytest.mark.requirement("UPC05")
def test_the_neighbour_of_a_revoked_key_is_not_revoked(at):
    """Key ids are the first eight bytes of a digest."""
    mine = UPDATE.plan.key
    record = SimpleNamespace(manifest=UPDATE.plan.digest, key=mine, sequence=2)
    for revoked, code in ((mine, reasons.KEY_REVOKED), (near(mine, min(at, 7)), 0)):
        trusted = SimpleNamespace(revoked_manifests=(), revoked_keys=(revoked,), limit=lambda _: (0, 9))
        assert engine.Engine._forbidden(None, trusted, FW, record) == code
