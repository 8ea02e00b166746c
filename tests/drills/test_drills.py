"""The runbooks, played: the commands are those of docs/runbooks, the devices are simulated, the intruder is here."""

from __future__ import annotations

import hashlib
import inspect
import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from helpers import releases
from helpers.fleet import CLASS, HOST, VENDOR, Sites
from helpers.keys import signer
from helpers.pages import PASSPHRASE, Stage, items
from sekisho_sim.personality import behaviour
from sekisho_tools import keys, keyset, suit
from sekisho_tools.hawkbit import Api
from sekisho_tools.identity import Identity
from sekisho_tools.server import run
from sekisho_tools.server.options import Limits, Options

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


def offer(company: Company, envelope: bytes, payload: bytes) -> None:
    """Put a release onto the site past all checks, as somebody who controls it would."""
    (company.home / "latest.suit").write_bytes(envelope)
    (company.directory / "site" / "payload" / hashlib.sha256(payload).hexdigest()).write_bytes(payload)


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
            company.stage.run(line)


@pytest.mark.requirement("ORG05", "UPC05", "UPC06")
def test_release_key_leaked(company: Company) -> None:
    early, late = company.fleet.new(), company.fleet.new()

    def intruder_publishes() -> None:
        offer(company, evil_release(company, "release-1", 900), EVIL)
        early.until("sekisho: confirmed")
        assert early.running() == hashlib.sha256(EVIL).hexdigest(), "the theft is real: the key signs what devices take"

    def intruder_tries_again() -> None:
        offer(company, evil_release(company, "release-1", 999), EVIL)
        printed = late.until("sekisho: KEY_REVOKED")
        assert "key set 2 accepted" in printed
        assert late.running() == hashlib.sha256(company.firmware(1)).hexdigest()
        printed = early.until("sekisho: KEY_REVOKED")
        (company.home / "latest.suit").unlink()

    def devices_recover() -> None:
        assert "degraded" in early.until("sekisho: confirmed"), "the intruder's image is known to be below the floor"
        late.until("sekisho: confirmed")

    company.stage.play(
        RUNBOOKS / "release-key-leaked.md",
        {
            "intruder-publishes": intruder_publishes,
            "intruder-tries-again": intruder_tries_again,
            "devices-recover": devices_recover,
        },
    )
    company.fleet.safe_and_updated(company.firmware(2), 901, company.file("keyset-2.cose"))
    assert hashlib.sha256(EVIL).hexdigest() not in late.bootable()


@pytest.mark.requirement("ORG05", "UPC06")
def test_root_key_lost(company: Company) -> None:
    device, sleeper = company.fleet.new(), company.fleet.new()

    def key_is_gone() -> None:
        (company.directory / "keys" / "root-1.key").unlink()

    def device_follows() -> None:
        assert "key set 2 accepted" in device.until("sekisho: NOTHING")

    def devices_update() -> None:
        assert "key set 3 accepted" in device.until("sekisho: confirmed")
        printed = sleeper.until("sekisho: confirmed")
        assert "key set 2 accepted" in printed
        assert "key set 3 accepted" in printed

    company.stage.play(
        RUNBOOKS / "root-key-lost.md",
        {"key-is-gone": key_is_gone, "device-follows": device_follows, "devices-update": devices_update},
    )
    company.fleet.safe_and_updated(company.firmware(2), 2, company.file("keyset-3.cose"))


@pytest.mark.requirement("ORG05", "UPC05", "UPC07", "UPC08")
def test_root_key_leaked(company: Company) -> None:
    device, sleeper = company.fleet.new(), company.fleet.new()

    def forge(previous: str, number: int, *signers: keys.Signer) -> None:
        (company.home / f"keyset-{number}.cose").write_bytes(forged_keyset(company, previous, *signers))
        (company.home / "keyset.cose").write_bytes(forged_keyset(company, previous, *signers))
        offer(company, releases.envelope(EVIL, IDENTITY, INTRUDER, 50), EVIL)

    def clean(number: int) -> None:
        (company.home / f"keyset-{number}.cose").unlink()
        (company.home / "keyset.cose").unlink()
        (company.home / "latest.suit").unlink()

    def intruder_forges() -> None:
        for signers in ((), (signer("root", 666),), (key(company, "root-1"), key(company, "root-1"))):
            forge("keyset-1.cose", 2, key(company, "root-1"), *signers)
            printed = device.until("sekisho: KEY_UNKNOWN")
            assert "key set refused" in printed
            assert "accepted" not in printed
            clean(2)

    def intruder_forges_again() -> None:
        assert "key set 2 accepted" in device.until("sekisho: NOTHING")
        forge("keyset-2.cose", 3, key(company, "root-1"), signer("root", 666))
        assert "key set refused" in device.until("sekisho: KEY_UNKNOWN")
        clean(3)
        shutil.copy(company.directory / "keyset-2.cose", company.home / "keyset.cose")

    def devices_update() -> None:
        for one in (device, sleeper):
            one.until("sekisho: confirmed")

    company.stage.play(
        RUNBOOKS / "root-key-leaked.md",
        {
            "intruder-forges": intruder_forges,
            "intruder-forges-again": intruder_forges_again,
            "devices-update": devices_update,
        },
    )
    company.fleet.safe_and_updated(company.firmware(2), 2, company.file("keyset-2.cose"), never=(EVIL,))


@pytest.mark.requirement("ORG05", "UPC05")
def test_vulnerable_release(company: Company) -> None:
    device, sleeper = company.fleet.new(), company.fleet.new()

    def everybody_has_it() -> None:
        put_release(company, 2)
        device.until("sekisho: confirmed")

    def vulnerable_release_is_offered() -> None:
        assert "key set 2 accepted" in sleeper.until("sekisho: FLOOR")
        assert sleeper.running() == hashlib.sha256(company.firmware(1)).hexdigest()
        device.until("sekisho: key set 2 accepted")
        assert "degraded: FLOOR" in device.until("sekisho: FLOOR"), "it runs on, and says so"

    def devices_recover() -> None:
        for one in (device, sleeper):
            one.until("sekisho: confirmed")
        shutil.copy(company.directory / "release-2" / "lamp-2.0.suit", company.home / "latest.suit")
        for one in (device, sleeper):
            one.until("sekisho: SEQUENCE")
        shutil.copy(company.directory / "release-3" / "lamp-3.0.suit", company.home / "latest.suit")

    company.stage.play(
        RUNBOOKS / "vulnerable-release.md",
        {
            "everybody-has-it": everybody_has_it,
            "vulnerable-release-is-offered": vulnerable_release_is_offered,
            "devices-recover": devices_recover,
        },
    )
    company.fleet.safe_and_updated(company.firmware(3), 3, company.file("keyset-2.cose"))


@pytest.mark.requirement("ORG05", "UPC06")
def test_keyset_expired(sites: Sites, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same company, two years too late: its key set was issued for 2024."""
    then = {
        "--expires 2035-12-31": "--issued 2024-01-01 --expires 2025-01-01",
        "--out release-": "--override 'in 2024 the key set was valid' --out release-",
    }
    stage = Stage(tmp_path, monkeypatch, changes=then)
    stage.skip = ("sekisho factory check",)  # it refuses an expired key set, as it must; in 2024 it did not
    prepare(stage, sites)
    company = Company(stage, sites)
    unaware = company.fleet.new()
    company.fleet.modules["main"] = CLOCK_CHIP
    device, sleeper = company.fleet.new(), company.fleet.new()
    put_release(company, 2)
    stage.changes = {}

    def device_waits() -> None:
        device.until("sekisho: EXPIRED_KEYSET")
        assert device.running() == hashlib.sha256(company.firmware(1)).hexdigest()
        unaware.until("sekisho: confirmed")  # no clock, and a server that nothing vouches for (http): as the page says

    def devices_recover() -> None:
        for one in (device, sleeper):
            assert "key set 2 accepted" in one.until("sekisho: confirmed")
        assert "key set 2 accepted" in unaware.until("sekisho: NOTHING")

    stage.play(RUNBOOKS / "keyset-expired.md", {"device-waits": device_waits, "devices-recover": devices_recover})
    company.fleet.safe_and_updated(company.firmware(2), 2, company.file("keyset-2.cose"))


@pytest.mark.requirement("ORG05", "UPC05", "UPE13")
def test_wrong_image(company: Company) -> None:
    company.fleet.behave[hashlib.sha256(company.firmware(2)).hexdigest()] = behaviour("unhealthy")
    victim, late = company.fleet.new(), company.fleet.new()

    def some_took_it() -> None:
        put_release(company, 2)
        victim.until("release 2 failed: HEALTH")
        assert victim.running() == hashlib.sha256(company.firmware(1)).hexdigest(), "the trial took it back by itself"
        envelope = suit.decode(company.file("release-2/lamp-2.0.suit"))
        company.stage.values["MANIFEST"] = envelope.digest.value.hex()

    def cache_offers_it_again() -> None:
        shutil.copy(company.directory / "release-2" / "lamp-2.0.suit", company.home / "latest.suit")
        printed = late.until("sekisho: MANIFEST_REVOKED")
        assert "key set 2 accepted" in printed
        assert "staged" not in printed
        assert late.running() == hashlib.sha256(company.firmware(1)).hexdigest()

    def devices_recover() -> None:
        for one in (victim, late):
            one.until("sekisho: confirmed")

    company.stage.play(
        RUNBOOKS / "wrong-image.md",
        {
            "some-took-it": some_took_it,
            "cache-offers-it-again": cache_offers_it_again,
            "devices-recover": devices_recover,
        },
    )
    company.fleet.safe_and_updated(company.firmware(3), 3, company.file("keyset-2.cose"), never=(company.firmware(2),))


@contextmanager
def update_server(company: Company, port: int = 0) -> Iterator[run.EmbeddedServer]:
    """The embedded server on the data in ``fleet``."""
    free = Limits(address_reads=0, address_writes=0, device=0, failures=0)
    with run.EmbeddedServer(company.directory / "fleet", port=port, settings=Options(limits=free)) as server:
        yield server


@pytest.mark.requirement("ORG05")
def test_server_lost(company: Company) -> None:
    """The web site and the update server with its database; two devices ask the one, two the other."""
    device, sleeper, managed, asleep = (company.fleet.new() for _ in range(4))
    roots = "--key keys/root-1.key --key keys/root-2.key"
    login = "--user admin --password-file pw"
    (company.directory / "pw").write_text(PASSPHRASE)
    stage, running = company.stage, ExitStack()

    def enrol(server: run.EmbeddedServer) -> None:
        api = Api(server.url, "admin", PASSPHRASE)
        for number, one in enumerate((managed, asleep), 1):
            name = f"lamp-{number}"
            made = api.call("POST", "/targets", [{"controllerId": name}])[0]
            address = f"http://{HOST}:{server.port}"
            one.change_settings(server=address, protocol="ddi", controller=name, token=made["securityToken"])
        api.close()

    def knows(server: run.EmbeddedServer) -> list[tuple[str, str]]:
        """(state, firmware) of the two, as the server's own tool shows it."""
        return [
            (found["target"]["updateStatus"], found["attributes"].get("fw_version", ""))
            for name in ("lamp-1", "lamp-2")
            for found in [json.loads(stage.run(f"sekisho devices show {name} --server {server.url} {login} --json"))]
        ]

    def server_is_gone() -> None:
        stage.run("mkdir backup")
        stage.run("cp -r site backup/site")
        stage.run("sekisho admin create admin --data fleet --password-file pw")
        with update_server(company) as server:
            stage.values["FLEET"] = server.url
            enrol(server)
            assert "NOTHING" in managed.until("sekisho: NOTHING")
            stage.run("sekisho admin backup backup/fleet --data fleet")
            stage.run(f"sekisho keyset replace keyset-2.cose --previous keyset-1.cose {roots}")
            put_release(company, 2)
            stage.run(f"sekisho publish --to site --class {company.home.name} keyset-2.cose")
            stage.run(f"sekisho publish release-2/lamp-2.0.suit keyset-2.cose --server {server.url} {login}")
            stage.run(f"sekisho assign lamp:2.0 lamp-1 --server {server.url} {login}")
            for one in (device, managed):
                one.until("sekisho: confirmed")
                one.until("sekisho: NOTHING")
            assert knows(server) == [("in_sync", "2"), ("unknown", "")]
        stage.run("rm -r site fleet")
        assert "release 1" in sleeper.until("sekisho: RETRY_LATER")
        assert "release 1" in asleep.until("sekisho: NETWORK")
        stage.values["URL"] = company.sites.url

    def devices_ask_the_old_backup() -> None:
        server = running.enter_context(update_server(company, int(stage.values["FLEET"].rpartition(":")[2])))
        assert server.url == stage.values["FLEET"], "under the same address"
        assert "fw slot 1, release 2" in device.until("sekisho: SEQUENCE")
        assert "fw slot 1, release 2" in managed.until("sekisho: NOTHING")
        for one in (device, managed):
            assert one.running() == hashlib.sha256(company.firmware(2)).hexdigest(), "an old backup takes nobody back"
        for one in (sleeper, asleep):
            one.until("sekisho: NOTHING")
        assert knows(server)[0][1] == "2", "the device has told the server what the backup did not know"

    def devices_recover() -> None:
        for one in (device, sleeper, managed, asleep):
            one.until("sekisho: confirmed")
            one.until("sekisho: NOTHING")

    with running:
        stage.play(
            RUNBOOKS / "server-lost.md",
            {
                "server-is-gone": server_is_gone,
                "devices-ask-the-old-backup": devices_ask_the_old_backup,
                "devices-recover": devices_recover,
            },
        )
        company.fleet.safe_and_updated(company.firmware(3), 3, company.file("keyset-2.cose"))
        assert "lamp-1  in_sync" in stage.run(f"sekisho devices list --server {stage.values['FLEET']} {login}")
        assert "lamp-2  in_sync" in stage.run(f"sekisho devices list --server {stage.values['FLEET']} {login}")


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
        assert "safe_and_updated(" in source, "each drill ends with every device safe and updated"
        assert f"({page}.md)" in listed
        steps = [item.text for item in items(RUNBOOKS / f"{page}.md") if item.kind == "command"]
        assert [step for step in steps if step.startswith("sekisho")], "a runbook says what to type"
