"""Reports: what a device says of itself, signed, and what the desk makes of it."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import re
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cbor2
import pytest
from helpers import powercut
from helpers.cli import Runner
from helpers.desk import CLASS, VENDOR, Desk, fetch, firmware
from helpers.keys import ISSUED, YEAR, make_keyset, signer
from helpers.release import make
from helpers.site import Product
from helpers.site import firmware as image
from sekisho import devicekey, eventlog, hardware, orders, record, report, values
from sekisho_boot import reasons
from sekisho_boot.reasons import Refused
from sekisho_sim.efuse import Efuse
from sekisho_tools import cose, issued
from sekisho_tools import report as desk_report
from sekisho_tools.errors import ToolError

OLD = firmware("old")
FACTORY = make(1, {0: OLD}, vendor=VENDOR, product=CLASS)
APPLICATIONS = [make(n, {1: bytes([n]) * 9000}, ties={0: 1}, vendor=VENDOR, product=CLASS) for n in (2, 3)]


class Device:
    """A device whose files lie in a folder of the host."""

    def __init__(self, **members: Any) -> None:
        self.desk = Desk(keys=make_keyset(operators=1, **members))
        self.desk.config.PRODUCT = "lamp"
        self.desk.clock = ISSUED + 5
        self.desk.factory(FACTORY, OLD)
        self.start()

    def start(self) -> None:
        self.up = self.desk.power_on()
        self.engine = self.up.engine
        self.record = record.Record(self.up.port.part)
        self.settings = values.Settings()
        self.log = eventlog.Log(self.up.port.device, lambda: (ISSUED, 1))
        self.orders = orders.Orders(self.engine, self.record, self.settings)
        self.reporter = report.Reporter(
            self.engine, self.record, self.settings, self.log, self.orders, self.up.decision
        )
        self.key = devicekey.DeviceKey()

    def report(self, nonce: bytes = b"asked") -> bytes:
        return asyncio.run(self.reporter.make(self.key, nonce))

    def verdict(self, **options: Any) -> desk_report.Verdict:
        return desk_report.verify(self.report(), self.key.public, nonce=b"asked", **options)

    def wrong(self, **options: Any) -> list[str]:
        return [one.text for one in self.verdict(**options).findings if one.bad]


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Device]:
    monkeypatch.setattr(values, "KEPT", str(tmp_path / "settings"))
    monkeypatch.setattr(eventlog, "PATH", str(tmp_path / "events"))
    monkeypatch.setattr(devicekey, "PATH", str(tmp_path / "device"))
    return Device()  # type: ignore[return-value]


@pytest.mark.requirement("SSS01", "SSS06")
def test_a_report_says_what_runs_and_is_signed_by_the_device(device: Device) -> None:
    verdict = device.verdict()
    assert verdict.good, verdict.findings
    told = verdict.report
    assert told.device.bytes == device.up.port.device
    assert told.running()["fw"] == (1, FACTORY.plan.digest, FACTORY.plan.targets[0].digest)
    assert told.ours[report.KEYSET][:2] == (1, device.engine.keyset().digest)
    assert told.ours[report.SETTINGS] == device.settings.digest()
    assert told.ours[report.LOG] == (0, device.log.hash)
    assert told.ours[report.MODE] == 1
    assert told.claims[report.NONCE] == b"asked"
    assert "release 1" in desk_report.describe(told)["fw slot 0"]


def test_the_key_is_made_once_and_lasts(device: Device) -> None:
    public = device.key.public
    assert device.key.made
    device.start()
    assert not device.key.made
    assert device.key.public == public


def test_a_report_that_was_changed_or_is_another_devices_or_old_is_not_believed(device: Device) -> None:
    document = device.report()
    for at in range(0, len(document), 11):
        changed = bytearray(document)
        changed[at] ^= 1
        with pytest.raises(ToolError) as caught:
            desk_report.verify(bytes(changed), device.key.public, nonce=b"asked")
        assert caught.value.code in ("SIGNATURE", "CBOR", "LIMIT", "REPORT", "KEY_UNKNOWN", "COSE")
    with pytest.raises(ToolError, match="KEY_UNKNOWN"):
        desk_report.verify(document, signer("stranger").public_key)
    with pytest.raises(ToolError, match="NONCE"):
        desk_report.verify(document, device.key.public, nonce=b"another")
    for junk in (b"", b"\xd2\x80", cbor2.dumps([1]), document[:-1], document + b"\0"):
        with pytest.raises(ToolError):
            desk_report.verify(junk, device.key.public)


@pytest.mark.requirement("SSS02", "UPE17")
def test_changed_bytes_in_the_running_slot_are_told(device: Device) -> None:
    device.desk.flash.buffer[0x10000 + 9000] ^= 1
    assert device.wrong() == ["The bytes in fw_0 are not those that were installed."]


@pytest.mark.requirement("SSS02")
def test_what_the_key_set_has_against_it_is_told(device: Device) -> None:
    limits = {"fw": (5, 1000), "app": (0, 1000)}
    newer = device.desk.keys.next(limits=limits, revoked_manifests=(FACTORY.plan.digest,))
    device.engine.accept_keyset(newer.document)
    device.start()
    wrong = device.wrong()
    assert "What runs is below the security floor: it may only update." in wrong
    assert "What runs was revoked: it may only update." in wrong
    device.desk.clock = ISSUED + 20 * YEAR
    device.start()
    assert any("expired" in text for text in device.wrong())


@pytest.mark.requirement("SSS02")
@pytest.mark.parametrize(
    ("against", "why"),
    [
        ({"limits": {"fw": (1, 99), "app": (3, 99)}}, ()),
        ({"limits": {"fw": (1, 99), "app": (4, 99)}}, ("engine:FLOOR", "below-floor")),
        ({"limits": {"fw": (2, 99), "app": (3, 99)}}, ("engine:FLOOR", "below-floor")),
        ({"limits": {"fw": (2, 99), "app": (4, 99)}}, ("engine:FLOOR", "below-floor", "below-floor")),
        ({"revoked_manifests": (APPLICATIONS[1].plan.digest,)}, ("engine:MANIFEST_REVOKED", "revoked")),
        ({"revoked_manifests": (APPLICATIONS[0].plan.digest,)}, ()),
    ],
    ids=["nothing", "floor of app", "floor of fw", "floors of both", "app revoked", "the app that idles revoked"],
)
def test_the_application_is_held_against_the_key_set_like_the_firmware(
    device: Device, against: dict[str, Any], why: tuple[str, ...]
) -> None:
    """Firmware 1 with application 3; application 2 lies in the other slot."""
    for one in APPLICATIONS:
        fetch(device.engine, one.envelope, one.payloads)
        assert device.desk.power_on().engine.confirm() == 0
        device.start()
    assert device.verdict().report.ours[report.VERDICT] == ()
    device.engine.accept_keyset(device.desk.keys.next(**against).document)
    device.start()
    told = device.verdict().report
    assert told.running()["app"][0] == 3
    assert sorted(told.ours[report.VERDICT]) == sorted(why)


@pytest.mark.requirement("SSS02")
def test_a_locked_device_a_lost_record_and_a_lost_log_are_told(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    from sekisho_boot.ledger import LOCK

    device.engine.ledger.append(LOCK, 1)
    for sector in record.SECTORS:
        device.desk.flash.buffer[device.desk.layout["sekisho"].offset + sector * 4096] = 0
    device.start()
    device.reporter.decision = None
    monkeypatch.setattr(eventlog, "PATH", "/nowhere/events")
    device.log.append(eventlog.START)
    wrong = " ".join(device.wrong())
    for words in ("unlocks", "device record is lost", "log cannot be kept", "broke down"):
        assert words in wrong


@pytest.mark.requirement("STS11", "UPE15", "UPE17")
def test_a_production_device_tells_open_interfaces_and_missing_hardware(
    tmp_path: Path, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    device.desk.config.HARDWARE = ("secure-boot", "jtag-off")
    device.reporter.open = ["repl", "console"]
    device.desk.config.INTERFACES = ("console",)
    assert device.verdict().report.ours[report.MODE] == 1
    assert not any("interface" in text for text in device.wrong())
    device.record.update({record.PRODUCTION: 1})
    assert device.verdict().report.ours[report.MODE] == 2
    efuse = Efuse()
    efuse.fuses[0][6] = 1 << 6
    efuse._load()
    machine: Any = types.ModuleType("machine")
    machine.mem32 = type("Mem", (), {"__getitem__": lambda self, address: efuse.read32(address)})()
    machine.unique_id = lambda: b"\x24\x0a\xc4\x00\x00\x01"
    monkeypatch.setitem(sys.modules, "machine", machine)
    wrong = device.wrong()
    assert wrong == [
        "The interface repl is open and must not be on a production device.",
        "The product asks for secure-boot, which is not burnt into this chip.",
    ]
    told = device.verdict().report
    assert told.claims[report.DBGSTAT] == 3
    assert told.ours[report.CHIP] == b"\x24\x0a\xc4\x00\x00\x01"


def test_fuses_are_read_where_espefuse_has_them() -> None:
    """The definitions of the installed esptool are the oracle."""
    import espefuse
    import yaml

    root = Path(espefuse.__file__).parent / "efuse_defs"
    where = {
        0: ("esp32", ("ABS_DONE_1", "FLASH_CRYPT_CNT", ("JTAG_DISABLE",), "UART_DOWNLOAD_DIS")),
        9: ("esp32s3", ("SECURE_BOOT_EN", "SPI_BOOT_CRYPT_CNT", ("DIS_PAD_JTAG", "DIS_USB_JTAG"), "DIS_DOWNLOAD_MODE")),
        5: ("esp32c3", ("SECURE_BOOT_EN", "SPI_BOOT_CRYPT_CNT", ("DIS_PAD_JTAG", "DIS_USB_JTAG"), "DIS_DOWNLOAD_MODE")),
        13: (
            "esp32c6",
            ("SECURE_BOOT_EN", "SPI_BOOT_CRYPT_CNT", ("DIS_PAD_JTAG", "DIS_USB_JTAG"), "DIS_DOWNLOAD_MODE"),
        ),
    }
    for chip, (name, fields) in where.items():
        definitions = yaml.safe_load((root / f"{name}.yaml").read_text())["EFUSES"]
        base = hardware._BASES[chip]
        for number, field in enumerate(fields, start=1):
            memory: dict[int, int] = {}
            for one in field if isinstance(field, tuple) else (field,):
                entry = definitions[one]
                address = base + 4 * entry["word"]
                memory[address] = memory.get(address, 0) | 1 << int(entry["pos"])
            mem = type("Mem", (), {"__getitem__": lambda self, address, memory=memory: memory.get(address, 0)})()
            expected = {other: other == number for other in (1, 2, 3, 4)}
            assert hardware.fuses(chip, mem) == expected, (name, field)
    assert hardware.fuses(99, {}) is None


@pytest.mark.requirement("SSS07")
def test_releases_and_vulnerabilities_are_held_against_it(device: Device, tmp_path: Path) -> None:
    assert device.verdict(releases=[FACTORY.envelope]).good
    newer = make(2, {0: firmware("new")}, vendor=VENDOR, product=CLASS)
    verdict = device.verdict(releases=[FACTORY.envelope, newer.envelope])
    assert verdict.good
    assert any("release 2 is out" in one.text for one in verdict.findings)
    assert device.wrong(releases=[newer.envelope]) == ["fw runs release 1, which is none of the known ones."]
    bom = {
        "bomFormat": "CycloneDX",
        "metadata": {"component": {"hashes": [{"alg": "SHA-256", "content": FACTORY.plan.targets[0].digest.hex()}]}},
        "vulnerabilities": [
            {"id": "CVE-2026-0001", "ratings": [{"severity": "high"}]},
            {"id": "CVE-2026-0002", "analysis": {"state": "not_affected"}},
        ],
    }
    assert device.wrong(boms=[desk_report.Bom(bom, bytes(32))]) == [
        "What runs has the known vulnerability CVE-2026-0001 high."
    ]
    other = json.loads(json.dumps(bom).replace(FACTORY.plan.targets[0].digest.hex(), "00" * 32))
    assert device.wrong(boms=[desk_report.Bom(other, bytes(32))]) == []


@pytest.mark.requirement("SSS07", "ORG06")
def test_a_scan_knows_from_the_report_whose_sbom_counts(
    device: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bill as `release create` writes it: the image among the components, and the release names the bill."""
    image = {"alg": "SHA-256", "content": FACTORY.plan.targets[0].digest.hex()}
    micropython = {"type": "firmware", "name": "micropython", "version": "1.26.1"}
    micropython["purl"] = "pkg:github/micropython/micropython@v1.26.1"
    held = {"type": "firmware", "name": "fw", "hashes": [image], "components": [micropython]}
    (tmp_path / "a.cdx.json").write_text(
        json.dumps({"bomFormat": "CycloneDX", "specVersion": "1.6", "components": [held]})
    )
    bom = desk_report.read_bom(tmp_path / "a.cdx.json")
    package = {"ecosystem": "GitHub", "name": "micropython/micropython"}
    advisory = {"id": "EXAMPLE-7", "affected": [{"package": package, "versions": ["1.26.1"]}]}
    assert device.wrong(boms=[bom]) == []
    (found,) = device.wrong(boms=[bom], known_vulnerabilities=[advisory])
    assert "EXAMPLE-7" in found
    assert device.wrong(boms=[bom], releases=[FACTORY.envelope]) == [
        "An SBOM that lists what runs is none that the known releases name: nobody has signed it."
    ]
    monkeypatch.setattr(desk_report.publish, "sbom_digests", lambda manifest: {bom.digest})
    assert device.wrong(boms=[bom], releases=[FACTORY.envelope]) == []
    held["hashes"] = [{**image, "content": "00" * 32}]
    other = desk_report.Bom({"components": [held]}, bom.digest)
    told = device.verdict(boms=[other], known_vulnerabilities=[advisory]).findings
    assert "None of the SBOMs is about what runs as fw." in [one.text for one in told]
    assert not any("EXAMPLE-7" in one.text for one in told), "what does not run is no finding about this device"
    for broken in ("{}", "[", '{"bomFormat": "CycloneDX", "specVersion": "1.6", "vulnerabilities": [1]}'):
        (tmp_path / "b.cdx.json").write_text(broken)
        with pytest.raises(ToolError, match="SBOM"):
            desk_report.read_bom(tmp_path / "b.cdx.json")


def test_it_is_held_against_the_issuing_record(device: Device) -> None:
    from uuid import UUID

    trust = device.engine.keyset()
    known = issued.IssuingRecord(
        id="5d0be3f0-0000-4000-8000-000000000001",
        physical=None,
        product="lamp",
        vendor="acme.example",
        product_class=str(UUID(bytes=CLASS)),
        environment="release",
        public_key=device.key.public.hex(),
        keyset=trust.digest.hex(),
        keyset_version=1,
        batch="b",
        number=1,
        issued="2026-01-01T00:00:00+00:00",
        firmware=issued.Image(1, FACTORY.plan.targets[0].digest.hex(), len(OLD)),
    )
    assert device.wrong(known=known) == ["The device is in development mode."]
    known = dataclasses.replace(known, environment="development")
    assert device.verdict(known=known).good
    for change, words in (
        ({"physical": "24:0a:c4:00:00:01"}, "another chip"),
        ({"product_class": str(UUID(int=5))}, "product class"),
        ({"keyset": "00" * 32}, "other content"),
        ({"keyset_version": 2}, "older"),
        ({"firmware": issued.Image(1, "00" * 32, 5)}, "other bytes"),
    ):
        wrong = device.wrong(known=dataclasses.replace(known, **change))
        assert len(wrong) == 1, (change, wrong)
        assert words in wrong[0]


def test_the_last_update_and_orders_are_in_it(device: Device) -> None:
    device.engine.ledger.append(15, 0, reasons.HEALTH, 7, 0, bytes(range(32)))
    members = {1: 1, 2: device.up.port.device, 4: ISSUED + YEAR, 5: {"poll": 5}, 6: 1}
    document = cose.sign1(cose.encode(members), signer("operator"), attached=True)
    assert device.orders.obey(document) == reasons.SETTING
    verdict = device.verdict()
    texts = " ".join(one.text for one in verdict.findings)
    assert verdict.good
    assert "release 7, failed: HEALTH" in texts
    assert "could not be done: SETTING" in texts
    suit_report = cbor2.loads(verdict.report.ours[report.SUIT_REPORT])
    assert suit_report[99] == ["", [-16, bytes(range(32))]]
    assert suit_report[4] == {5: reasons.HEALTH, 6: [[], 20, 0, 0, {}], 7: 11}
    assert cbor2.loads(report.suit_report((0, bytes(32), 5)))[4] is True


@pytest.mark.requirement("SSS01")
def test_a_device_with_everything_tells_every_member_and_the_page_has_them_all(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Path(report.__file__).read_text()
    source = source[source.index("# Members of the claim") : source.index("PRIVATE =")]
    members = {int(number) for number in re.findall(r"^[A-Z_]+ = const\((\d+)\)  #?", source, re.MULTILINE)}
    members |= {int(number) for number in re.findall(r"^[A-Z_]+ = const\((\d+)\)$", source, re.MULTILINE)}
    page = (Path(__file__).parents[1] / "docs" / "report.md").read_text()
    table = page[page.index("| member |") :]
    table = table[: table.index("\n\n")]
    assert {int(number) for number in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)} == members
    assert members == set(range(1, 27))

    machine: Any = types.ModuleType("machine")
    machine.mem32 = type("Mem", (), {"__getitem__": lambda self, address: 0})()
    machine.unique_id = lambda: b"\x24\x0a\xc4\x00\x00\x01"
    monkeypatch.setitem(sys.modules, "machine", machine)
    monkeypatch.setattr(report, "_issued_id", lambda: bytes(16))
    device.record.update({record.OWNER: b"new"})
    device.log.append(eventlog.START)
    device.engine.ledger.append(15, 0, reasons.HEALTH, 7, 0, bytes(range(32)))
    with pytest.raises(Refused):
        device.orders.obey(b"junk")
    told = desk_report.parse(device.report())
    assert set(told.ours) == members
    assert set(told.claims) >= {report.IAT, report.NONCE, report.UEID, report.HWMODEL, report.DBGSTAT, report.PROFILE}
    assert told.ours[report.PHASE] == 0
    assert told.ours[report.LIMITS]["fw"][0] == device.engine.keyset().limit("fw")[0]
    assert told.ours[report.COUNTERS] == tuple(device.engine.status()["counters"])
    assert told.ours[report.CLOCK][1] == 1
    assert told.ours[report.ORDER_NONCE] == device.engine.state.nonce
    assert told.ours[report.POLICY] == (True, "automatic", "")


@pytest.mark.requirement("SSS03")
def test_what_is_shown_without_a_login_is_the_documented_minimum(device: Device) -> None:
    assert device.reporter.public() == {"product": "lamp", "well": True, "trial": False}
    page = (Path(__file__).parents[1] / "docs" / "report.md").read_text()
    assert "product, well, trial" in page


@pytest.fixture
def sekisho(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Runner:
    return Runner(capsys, monkeypatch)


def test_the_commands(device: Device, sekisho: Runner, tmp_path: Path) -> None:
    file, release, order = tmp_path / "lamp.report", tmp_path / "one.suit", tmp_path / "order.cose"
    members = {1: 1, 2: device.up.port.device, 4: ISSUED + YEAR, 5: {"poll": 60}, 6: 1}
    order.write_bytes(cose.sign1(cose.encode(members), signer("operator"), attached=True))
    device.orders.obey(order.read_bytes())
    file.write_bytes(device.report(b"\x01\x02"))
    release.write_bytes(FACTORY.envelope)
    key = device.key.public.hex()
    good = sekisho(f"report verify {file} --device-key {key} --nonce 0102 --release {release}")
    assert good.code == 0, good
    assert "Nothing is wrong" in good.out
    assert json.loads(sekisho(f"report verify {file} --device-key {key} --json").out)["good"]
    assert sekisho(f"report verify {file} --device-key {key} --nonce 0103").error == "NONCE"
    assert sekisho(f"report verify {file} --device-key 00").error == "KEY_FORMAT"
    assert sekisho(f"report verify {file}").error == "KEY_UNKNOWN"
    assert "release 1" in sekisho(f"report show {file}").out
    assert "obeyed at" in sekisho(f"order status {order} --report {file}").out
    device.desk.flash.buffer[0x10000 + 9000] ^= 1
    file.write_bytes(device.report())
    assert sekisho(f"report verify {file} --device-key {key}").code == 1


ON_DEVICE = """
import asyncio, gc
import sekisho
from sekisho.record import Record
from sekisho.values import Settings
from sekisho.eventlog import Log
from sekisho.devicekey import DeviceKey
from sekisho.report import Reporter
engine = sekisho.engine()
log = Log(engine.port.device, lambda: (engine.now(), 0))
reporter = Reporter(engine, Record(engine.port.part), Settings(), log, None, sekisho._decision)
key = DeviceKey()
gc.collect()
print("free", gc.mem_free())
document = asyncio.run(reporter.make(key, b"nonce"))
print("report", document.hex(), key.public.hex())
"""


def test_a_simulated_device_makes_a_report_that_the_desk_believes(tmp_path: Path) -> None:
    product = Product(tmp_path, server="http://old")
    product.personalities.default = product.personality(main=ON_DEVICE)
    world = product.factory(image("old", 20_000))
    powercut.settle(world)
    console = powercut.start(world, world.flash_path.read_bytes()).console
    words = next(line for line in console.splitlines() if line.startswith("report")).split()
    verdict = desk_report.verify(bytes.fromhex(words[1]), bytes.fromhex(words[2]), nonce=b"nonce")
    assert verdict.good, verdict.findings
    assert verdict.report.ours[report.HARDWARE] == {1: False, 2: False, 3: False, 4: False}
    assert verdict.report.ours[report.VERSIONS][1].startswith("1.26")


@pytest.mark.parametrize("value", [10**12, -1, "sixteen letters!", None, (1, 2), bytes(15)])
def test_numbers_and_text_where_bytes_belong_are_refused_before_any_memory_is_asked_for(value: object) -> None:
    with pytest.raises(ToolError) as caught:
        desk_report._uuid(value)
    assert caught.value.code == "REPORT"


@pytest.mark.requirement("SSS04", "SSS05")
def test_the_newest_entries_of_the_event_log_come_along_and_must_chain_up_to_the_signed_head(device: Device) -> None:
    for number in range(40):
        device.log.append(eventlog.SETTINGS, 0, number)
    told = desk_report.parse(device.report())
    found = desk_report.entries(told)
    assert [int.from_bytes(one[:4], "little") for one in found] == list(range(1, 33))
    device.reporter.told = 32  # the server has those
    found = desk_report.entries(desk_report.parse(device.report()))
    assert [int.from_bytes(one[:4], "little") for one in found] == list(range(33, 41))
    assert device.verdict().good
    for change, words in (
        (lambda log: log[:64] + log[128:], "removed, changed or moved"),
        (lambda log: log[:70] + b"x" + log[71:], "removed, changed or moved"),
        (lambda log: log[64:128] + log[:64] + log[128:], "removed, changed or moved"),
        (lambda log: log[:-32] + bytes(32), "removed, changed or moved"),
    ):
        device.reporter.events = lambda change=change: change(b"".join(found))  # type: ignore[misc]
        assert any(words in text for text in device.wrong()), words
    device.reporter.events = lambda: found[-1][:-32] + bytes(32)  # type: ignore[method-assign]
    assert any("not the one that it signed for" in text for text in device.wrong())
    device.reporter.events = lambda: b"x" * 63  # type: ignore[method-assign]
    with pytest.raises(ToolError, match="wrong size"):
        device.verdict()
    device.reporter.told = 1000  # the log began anew
    del device.reporter.events
    assert len(desk_report.entries(desk_report.parse(device.report()))) == 32
