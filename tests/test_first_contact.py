"""The first report of a device against its issuing record: a box that was opened on its way is noticed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest
import test_report
from helpers.cli import Runner
from helpers.desk import CLASS, VENDOR, firmware
from helpers.release import make
from sekisho import devicekey, eventlog, values
from sekisho import issued as device_issued
from sekisho_tools import first_contact, issued
from sekisho_tools.errors import ToolError

LOGICAL = UUID("1492af14-2569-4e48-bf42-9b2d51f2ab45")
NONCE = b"eight or more"
SEED = bytes(range(32))


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> test_report.Device:
    monkeypatch.setattr(values, "KEPT", str(tmp_path / "settings"))
    monkeypatch.setattr(eventlog, "PATH", str(tmp_path / "events"))
    monkeypatch.setattr(devicekey, "PATH", str(tmp_path / "device"))
    monkeypatch.setattr(device_issued, "load", lambda: {"id": LOGICAL.bytes, "key": SEED})
    found = test_report.Device()
    found.up.port.device = UUID(record(found).suit_device or "").bytes
    return found


def record(device: test_report.Device) -> issued.IssuingRecord:
    """What the factory noted of *device*."""
    target = test_report.FACTORY.plan.targets[0]
    keyset = device.engine.keyset()
    return issued.IssuingRecord(
        id=str(LOGICAL),
        physical="24:0a:c4:00:00:01",
        product="lamp",
        vendor=str(UUID(bytes=VENDOR)),
        product_class=str(UUID(bytes=CLASS)),
        environment="development",
        public_key=device.key.public.hex(),
        keyset=keyset.digest.hex(),
        keyset_version=keyset.version,
        batch="b",
        number=1,
        issued="2026-01-01",
        chip="esp32",
        firmware=issued.Image(1, bytes(target.digest).hex(), target.size),
    )


def first_report(device: test_report.Device) -> bytes:
    return asyncio.run(device.reporter.make(device.key, NONCE))


def wrong(device: test_report.Device, known: issued.IssuingRecord, releases: tuple[bytes, ...] = ()) -> list[str]:
    verdict, _ = first_contact.attest(first_report(device), known, NONCE, releases)
    return [one.text for one in verdict.findings if one.bad]


@pytest.mark.requirement("HLC03", "STS01", "STS02")
def test_the_device_that_left_the_factory_is_recognised(device: test_report.Device) -> None:
    assert wrong(device, record(device)) == []


@pytest.mark.requirement("HLC03")
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda r: replace(r, physical="24:0a:c4:00:00:02"), "another chip"),
        (lambda r: replace(r, id=str(UUID(int=7))), "but the record is for"),
        (lambda r: replace(r, product_class=str(UUID(int=8))), "product class"),
        (lambda r: replace(r, keyset="00" * 32), "key set"),
        (lambda r: replace(r, firmware=issued.Image(1, "00" * 32, 5)), "neither what left"),
        (lambda r: replace(r, firmware=issued.Image(9, "00" * 32, 5)), "neither what left"),
        (lambda r: replace(r, environment="release"), "development mode"),
    ],
)
def test_a_swapped_or_changed_device_is_noticed(
    device: test_report.Device, change: Callable[[issued.IssuingRecord], issued.IssuingRecord], said: str
) -> None:
    assert any(said in text for text in wrong(device, change(record(device))))


@pytest.mark.requirement("HLC03")
def test_another_key_an_old_report_and_a_record_that_says_nothing_are_refused(device: test_report.Device) -> None:
    known = record(device)
    document = first_report(device)
    cases = [
        (replace(known, public_key="11" * 32), NONCE, None, "KEY_UNKNOWN"),
        (known, b"another nonce", None, "NONCE"),
        (known, b"short", None, "NONCE"),
        (replace(known, physical=None), NONCE, None, "RECORD"),
        (replace(known, firmware=None), NONCE, None, "RECORD"),
        (replace(known, public_key=None), NONCE, None, "KEY_UNKNOWN"),
        (known, NONCE, bytes(32), "KEY_UNKNOWN"),
    ]
    for one, nonce, key, code in cases:
        with pytest.raises(ToolError) as caught:
            first_contact.attest(document, one, nonce, (), key)
        assert caught.value.code == code


@pytest.mark.requirement("HLC03")
def test_a_device_without_identity_is_noticed(device: test_report.Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_issued, "load", dict)
    assert any("never issued" in text for text in wrong(device, record(device)))


def test_an_update_on_the_way_is_fine_if_the_release_is_known(device: test_report.Device) -> None:
    before = replace(record(device), firmware=issued.Image(0, "00" * 32, 5))
    assert any("neither" in text for text in wrong(device, before))
    assert wrong(device, before, (test_report.FACTORY.envelope,)) == []
    other = make(1, {0: firmware("other")}, vendor=VENDOR, product=CLASS)
    assert any("neither" in text for text in wrong(device, before, (other.envelope,)))


@pytest.mark.requirement("HLC03")
def test_a_key_made_on_the_device_is_noted_at_first_contact(
    device: test_report.Device, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Runner(capsys, monkeypatch)
    folder = tmp_path / str(LOGICAL)
    folder.mkdir()
    (folder / "record.json").write_text(replace(record(device), public_key=None).to_json())
    (tmp_path / "r").write_bytes(first_report(device))
    line = f"factory attest {folder} {tmp_path}/r --nonce {NONCE.hex()}"
    assert run(line).error == "KEY_UNKNOWN"
    done = run(f"{line} --device-key {device.key.public.hex()}")
    assert done.code == 0, done.out + done.err
    assert issued.read_record(folder).public_key == device.key.public.hex()
    assert run(line).code == 0
    assert run(f"{line} --device-key {'22' * 32}").error == "KEY_UNKNOWN"
