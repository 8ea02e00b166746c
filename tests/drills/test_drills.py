"""The runbooks, played: the commands are those of docs/runbooks, the devices are simulated, the intruder is here."""

from __future__ import annotations

import hashlib
import inspect
from dataclasses import replace
from pathlib import Path

import pytest
from helpers import releases
from helpers.fleet import CLASS, VENDOR, Device, Sites, together
from helpers.keys import signer
from helpers.pages import PASSPHRASE, Stage, items
from sekisho_sim.personality import behaviour
from sekisho_tools import keys, keyset, suit
from sekisho_tools.identity import Identity

from drills.conftest import EVIL, RUNBOOKS, Company, prepare

IDENTITY = Identity.of(VENDOR, CLASS)
INTRUDER = signer("release", 666)
CLOCK_CHIP = """\
import machine
machine.RTC().datetime((2026, 1, 1, 3, 0, 0, 0, 0))  # what the battery-backed clock of the product says
import sekisho
sekisho.run("application")
"""


def key(company: Company, name: str) -> keys.Signer:
    """A key of the company, as a thief has it."""
    return keys.open_signer(str(company.directory / f"keys/{name}.key"), keys.Passphrases(ask=lambda _: PASSPHRASE))


def intrude(company: Company, envelope: bytes, payload: bytes, *devices: str, keyset: bytes = b"") -> None:
    """Assign a release past all checks, as somebody does who has taken over an operator's account."""
    folder = company.directory / f"intruder-{len(company.stage.ran)}"
    (folder / "payload").mkdir(parents=True)
    (folder / "evil.suit").write_bytes(envelope)
    (folder / "payload" / hashlib.sha256(payload).hexdigest()).write_bytes(payload)
    if keyset:
        (folder / "keyset.cose").write_bytes(keyset)
    company.stage.run(f"sekisho publish {folder.name}/* --name {folder.name}".replace("/*", "/*.*"))
    company.stage.run(f"sekisho assign {folder.name} {' '.join(devices)}")
    company.stage.values["INTRUDED"] = folder.name


def evil_release(company: Company, name: str, sequence: int) -> bytes:
    return releases.envelope(EVIL, IDENTITY, key(company, name), sequence)


def forged_keyset(company: Company, previous: str, *signers: keys.Signer) -> bytes:
    """A key set that names the intruder's release key, in valid form, signed by whom the intruder has."""
    content = keyset.decode(company.file(previous))
    mine = keyset.ReleaseKey(INTRUDER.public_key, ("fw", "app"), None)
    return keyset.sign(replace(content, version=content.version + 1, release=(mine,)), signers)


def put_release(company: Company, number: int) -> None:
    """A genuine release by the page's own commands for release 1, with the numbers changed."""
    for item in items(RUNBOOKS / "README.md"):
        if item.kind == "command" and ("release create" in item.text or "publish" in item.text):
            line = item.text.replace("firmware-1.bin", f"firmware-{number}.bin").replace(
                "release-1/", f"release-{number}/"
            )
            line = line.replace("--version 1.0 --sequence 1", f"--version {number}.0 --sequence {number}")
            line = line.replace("--out release-1", f"--out release-{number}").replace("lamp-1.0", f"lamp-{number}.0")
            if company.server or "--to" in line or not line.startswith("sekisho publish"):
                company.stage.run(line)


@pytest.mark.requirement("ORG05", "UPC05", "UPC06")
def test_release_key_leaked(company: Company) -> None:
    early, late = company.devices(2)

    def intruder_publishes() -> None:
        intrude(company, evil_release(company, "release-1", 900), EVIL, "lamp-1", "lamp-2")
        early.until("sekisho: confirmed")
        assert early.running() == hashlib.sha256(EVIL).hexdigest(), "the theft is real: the key signs what devices take"

    def intruder_tries_again() -> None:
        assert company.knows("updatestatus==pending") == ["lamp-1", "lamp-2"]
        for printed in together("sekisho: NOTHING", early, late):
            assert "key set 2 accepted" in printed
        assert company.knows("updatestatus==pending") == []
        assert company.actions("lamp-2")[0] == "finished", "the server knows that the device has the key set"
        intrude(company, evil_release(company, "release-1", 999), EVIL, "lamp-1", "lamp-2")
        together("sekisho: KEY_REVOKED", early, late)
        assert late.running() == hashlib.sha256(company.firmware(1)).hexdigest()

    def devices_recover() -> None:
        printed, _ = together("sekisho: confirmed", early, late)
        assert "degraded" in printed, "the intruder's image is known to be below the floor"

    company.stage.play(
        RUNBOOKS / "release-key-leaked.md",
        {
            "intruder-publishes": intruder_publishes,
            "intruder-tries-again": intruder_tries_again,
            "devices-recover": devices_recover,
        },
    )
    company.safe_and_updated(company.firmware(2), 901, company.file("keyset-2.cose"))
    assert hashlib.sha256(EVIL).hexdigest() not in late.bootable()


@pytest.mark.requirement("ORG05", "UPC06")
def test_root_key_lost(company: Company) -> None:
    device, sleeper = company.devices(2)

    def key_is_gone() -> None:
        (company.directory / "keys" / "root-1.key").unlink()

    def device_follows() -> None:
        assert "key set 2 accepted" in device.until("sekisho: NOTHING")

    def devices_update() -> None:
        awake, asleep = together("sekisho: confirmed", device, sleeper)
        assert "key set 3 accepted" in awake
        assert "key set 2 accepted" in asleep
        assert "key set 3 accepted" in asleep

    company.stage.play(
        RUNBOOKS / "root-key-lost.md",
        {"key-is-gone": key_is_gone, "device-follows": device_follows, "devices-update": devices_update},
    )
    company.safe_and_updated(company.firmware(2), 2, company.file("keyset-3.cose"))


@pytest.mark.requirement("ORG05", "UPC05", "UPC07", "UPC08")
def test_root_key_leaked(company: Company) -> None:
    device, sleeper = company.devices(2)

    def forge(previous: str, *signers: keys.Signer) -> None:
        forged = forged_keyset(company, previous, *signers)
        intrude(company, releases.envelope(EVIL, IDENTITY, INTRUDER, 50), EVIL, "lamp-1", keyset=forged)

    def intruder_forges() -> None:
        for signers in ((), (signer("root", 666),), (key(company, "root-1"), key(company, "root-1"))):
            forge("keyset-1.cose", key(company, "root-1"), *signers)
            printed = device.until("sekisho: KEY_UNKNOWN")
            assert "key set refused" in printed
            assert "accepted" not in printed

    def intruder_forges_again() -> None:
        assert "key set 2 accepted" in device.until("sekisho: NOTHING")
        forge("keyset-2.cose", key(company, "root-1"), signer("root", 666))
        assert "key set refused" in device.until("sekisho: KEY_UNKNOWN")

    def devices_update() -> None:
        together("sekisho: confirmed", device, sleeper)

    company.stage.play(
        RUNBOOKS / "root-key-leaked.md",
        {
            "intruder-forges": intruder_forges,
            "intruder-forges-again": intruder_forges_again,
            "devices-update": devices_update,
        },
    )
    assert "KEY_UNKNOWN" in company.stage.run("sekisho devices show lamp-1"), "and what it refused, it has told"
    company.safe_and_updated(company.firmware(2), 2, company.file("keyset-2.cose"), never=(EVIL,))


@pytest.mark.requirement("ORG05", "UPC05", "STS03")
def test_vulnerable_release(company: Company) -> None:
    device, sleeper = company.devices(2)

    def everybody_has_it() -> None:
        put_release(company, 2)
        company.stage.run("sekisho assign lamp:2.0 lamp-1 lamp-2")
        device.until("sekisho: confirmed")

    def vulnerable_release_is_offered() -> None:
        for printed in together("sekisho: NOTHING", device, sleeper):
            assert "key set 2 accepted" in printed
        company.stage.run("sekisho assign lamp:2.0 lamp-2")
        sleeper.until("sekisho: FLOOR")
        assert sleeper.running() == hashlib.sha256(company.firmware(1)).hexdigest()
        assert "degraded: FLOOR" in device.until("sekisho: NOTHING"), "it runs on, and says so"

    def devices_recover() -> None:
        device.until("sekisho: confirmed")
        device.until("sekisho: NOTHING")
        assert company.knows("attribute.fw_version!=3") == ["lamp-2"], "the table says who is left"
        sleeper.until("sekisho: confirmed")
        sleeper.until("sekisho: NOTHING")

    def nobody_is_left() -> None:
        assert company.knows("attribute.fw_version!=3") == []
        assert "attribute.fw_version" in company.file("inventory.csv").decode()
        company.stage.run("sekisho assign lamp:2.0 lamp-1 lamp-2")
        together("sekisho: SEQUENCE", device, sleeper)

    company.stage.play(
        RUNBOOKS / "vulnerable-release.md",
        {
            "everybody-has-it": everybody_has_it,
            "vulnerable-release-is-offered": vulnerable_release_is_offered,
            "devices-recover": devices_recover,
            "nobody-is-left": nobody_is_left,
        },
    )
    company.safe_and_updated(company.firmware(3), 3, company.file("keyset-2.cose"))


@pytest.mark.requirement("ORG05", "UPC06")
def test_keyset_expired(sites: Sites, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same company, two years too late: its key set was issued for 2024."""
    then = {
        "--expires 2035-12-31": "--issued 2024-01-01 --expires 2025-01-01",
        "--out release-": "--override 'in 2024 the key set was valid' --out release-",
    }
    stage = Stage(tmp_path, monkeypatch, changes=then)
    stage.skip = ("sekisho factory check",)  # it refuses an expired key set, as it must; in 2024 it did not
    company = Company(stage, sites)
    with company.running:
        prepare(company)
        put_release(company, 2)
        stage.changes = {}
        (unaware,) = company.devices(1)
        company.fleet.modules["main"] = CLOCK_CHIP
        device, sleeper = company.devices(2)

        def device_waits() -> None:
            company.stage.run("sekisho assign lamp:2.0 --filter 'controllerid==*'")
            # Without a clock, and with a server that nothing vouches for (http): as the page says.
            unaware.until("sekisho: confirmed")
            device.until("sekisho: EXPIRED_KEYSET")
            assert device.running() == hashlib.sha256(company.firmware(1)).hexdigest()

        def devices_recover() -> None:
            for printed in together("sekisho: confirmed", device, sleeper):
                assert "key set 2 accepted" in printed

        stage.play(RUNBOOKS / "keyset-expired.md", {"device-waits": device_waits, "devices-recover": devices_recover})
        assert "key set 2 accepted" in unaware.until("sekisho: NOTHING")
        company.safe_and_updated(company.firmware(2), 2, company.file("keyset-2.cose"))


@pytest.mark.requirement("ORG05", "UPC05", "UPE13")
def test_wrong_image(company: Company) -> None:
    company.fleet.behave[hashlib.sha256(company.firmware(2)).hexdigest()] = behaviour("unhealthy")
    company.devices(3)
    canary: list[Device] = []
    others: list[Device] = []

    def some_took_it() -> None:
        put_release(company, 2)
        start = "sekisho rollout start first-try --release lamp:2.0 --devices 'controllerid==*' --canary 30 --groups 1"
        company.stage.run(start)
        first = company.knows("updatestatus==pending")
        for name, device in company.named().items():
            (canary if name in first else others).append(device)
        (victim,) = canary
        victim.until("release 2 failed: HEALTH")
        assert victim.running() == hashlib.sha256(company.firmware(1)).hexdigest(), "the trial took it back by itself"
        victim.until("sekisho: NOTHING")
        company.rollout("first-try", "paused")
        for printed in together("sekisho: NOTHING", *others):
            assert "release 2" not in printed, "the rollout stopped itself at its first group"
        envelope = suit.decode(company.file("release-2/lamp-2.0.suit"))
        company.stage.values["MANIFEST"] = envelope.digest.value.hex()

    def cache_offers_it_again() -> None:
        late = others[0]
        assert "key set 2 accepted" in late.until("sekisho: NOTHING")
        (name,) = (name for name, device in company.named().items() if device is late)
        company.stage.run(f"sekisho assign lamp:2.0 {name}")
        printed = late.until("sekisho: MANIFEST_REVOKED")
        assert "staged" not in printed
        assert late.running() == hashlib.sha256(company.firmware(1)).hexdigest()

    def first_group_is_well() -> None:
        assert company.knows("updatestatus==pending and assignedds.name==lamp") == [
            name for name, device in company.named().items() if device is canary[0]
        ]
        canary[0].until("sekisho: confirmed")
        canary[0].until("sekisho: NOTHING")

    def devices_recover() -> None:
        together("sekisho: confirmed", *others)
        together("sekisho: NOTHING", *others)
        company.rollout("second-try", "finished")

    company.stage.play(
        RUNBOOKS / "wrong-image.md",
        {
            "some-took-it": some_took_it,
            "cache-offers-it-again": cache_offers_it_again,
            "first-group-is-well": first_group_is_well,
            "devices-recover": devices_recover,
        },
    )
    company.safe_and_updated(company.firmware(3), 3, company.file("keyset-2.cose"), never=(company.firmware(2),))


@pytest.mark.requirement("ORG05")
def test_server_lost(company: Company) -> None:
    """The update server with its database, and the web site; two devices ask the one, two the other."""
    managed, asleep = company.devices(2)
    device, sleeper = company.fleet.new(), company.fleet.new()
    stage = company.stage

    def server_is_gone() -> None:
        stage.run("mkdir backup")
        stage.run("cp -r site backup/site")
        stage.run("sekisho admin backup backup/fleet --data fleet")
        stage.run(
            "sekisho keyset replace keyset-2.cose --previous keyset-1.cose --key keys/root-1.key --key keys/root-2.key"
        )
        put_release(company, 2)
        stage.run(f"sekisho publish --to site --class {company.home.name} keyset-2.cose")
        stage.run("sekisho publish release-2/lamp-2.0.suit keyset-2.cose")
        stage.run("sekisho assign lamp:2.0 lamp-1")
        together("sekisho: confirmed", device, managed)
        together("sekisho: NOTHING", device, managed)
        assert company.knows("attribute.fw_version==2") == ["lamp-1"]
        company.stop()
        stage.run("rm -r site fleet")
        assert "release 1" in sleeper.until("sekisho: RETRY_LATER")
        assert "release 1" in asleep.until("sekisho: NETWORK")
        stage.values["SITE"] = company.sites.url

    def devices_ask_the_old_backup() -> None:
        assert company.knows("attribute.fw_version==2") == [], "the backup does not know yet"
        assert "fw slot 1, release 2" in device.until("sekisho: SEQUENCE")
        assert "fw slot 1, release 2" in managed.until("sekisho: NOTHING")
        for one in (device, managed):
            assert one.running() == hashlib.sha256(company.firmware(2)).hexdigest(), "an old backup takes nobody back"
        together("sekisho: NOTHING", sleeper, asleep)
        assert company.knows("attribute.fw_version==2") == ["lamp-1"], "the device has told the server"

    def devices_recover() -> None:
        together("sekisho: confirmed", device, sleeper, managed, asleep)

    stage.play(
        RUNBOOKS / "server-lost.md",
        {
            "server-is-gone": server_is_gone,
            "devices-ask-the-old-backup": devices_ask_the_old_backup,
            "devices-recover": devices_recover,
        },
    )
    company.safe_and_updated(company.firmware(3), 3, company.file("keyset-2.cose"))


DRILLS = {
    "release-key-leaked": test_release_key_leaked,
    "root-key-lost": test_root_key_lost,
    "root-key-leaked": test_root_key_leaked,
    "vulnerable-release": test_vulnerable_release,
    "keyset-expired": test_keyset_expired,
    "server-lost": test_server_lost,
    "wrong-image": test_wrong_image,
}
"""The seven misfortunes: page -> drill."""


def test_every_runbook_is_played_and_listed() -> None:
    pages = {page.stem for page in RUNBOOKS.glob("*.md")} - {"README"}
    assert pages == set(DRILLS)
    listed = (RUNBOOKS / "README.md").read_text()
    for page, drill in DRILLS.items():
        source = inspect.getsource(drill)
        assert f'RUNBOOKS / "{page}.md"' in source
        assert "company.devices(" in source, "devices that the update server manages"
        assert ".safe_and_updated(" in source, "each drill ends with every device safe and updated"
        assert f"({page}.md)" in listed
        steps = [item.text for item in items(RUNBOOKS / f"{page}.md") if item.kind == "command"]
        assert [step for step in steps if step.startswith("sekisho")], "a runbook says what to type"
