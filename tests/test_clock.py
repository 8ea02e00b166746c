"""The device's clock: what may move it, and what a certificate says of its age."""

from __future__ import annotations

import datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID
from sekisho import clock

FLOOR = 1_700_000_000


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A clock that stands still; returns the times it was set to."""
    sets = [946_684_800]
    monkeypatch.setattr(clock, "now", lambda: sets[-1])
    monkeypatch.setattr(clock, "put", sets.append)
    monkeypatch.setattr(clock, "_told", False)
    monkeypatch.setattr(clock, "_before", 0)
    return sets


def certificate(begin: datetime.datetime, key: object = None, version_3: bool = True) -> bytes:
    key = key or ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x" * 60)])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())  # type: ignore
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(begin)
    made = builder.not_valid_after(begin + datetime.timedelta(days=9000)).sign(key, hashes.SHA256())  # type: ignore
    return made.public_bytes(serialization.Encoding.DER)


@pytest.mark.parametrize("year", [2001, 2026, 2049, 2050, 2073])
def test_the_first_second_of_a_certificate_is_read(year: int) -> None:
    """UTCTime up to 2049, GeneralizedTime from 2050 on (RFC 5280 section 4.1.2.5)."""
    begin = datetime.datetime(year, 3, 1, 23, 59, 58, tzinfo=datetime.UTC)
    for key in (ec.generate_private_key(ec.SECP256R1()), rsa.generate_private_key(65537, 2048)):
        assert clock.born(memoryview(certificate(begin, key))) == int(begin.timestamp())


def test_what_is_no_certificate_has_no_age() -> None:
    good = certificate(datetime.datetime(2026, 3, 1, tzinfo=datetime.UTC))
    assert clock.born(b"") == 0
    assert clock.born(bytes(500)) == 0
    for size in range(150):
        assert clock.born(good[:size]) in (0, clock.born(good))
    for at in range(len(good)):
        for value in (0, 0x7F, 0x84, 0xFF):
            clock.born(good[:at] + bytes([value]) + good[at + 1 :])  # whatever it says, it ends


def test_a_clock_behind_what_is_proved_is_raised_and_one_before_it_left_alone(device: list[int]) -> None:
    clock.raise_to(FLOOR)
    clock.raise_to(FLOOR - 1)
    clock.raise_to(FLOOR)
    assert device[1:] == [FLOOR]


def test_a_certificate_moves_the_clock_on_and_never_back(device: list[int]) -> None:
    assert clock.proved(FLOOR)
    assert device[-1] == FLOOR + 1
    assert not clock.proved(FLOOR - 1)
    assert device[-1] == FLOOR + 1


def test_a_certificate_that_does_not_verify_leaves_the_clock_as_it_was(device: list[int]) -> None:
    clock.raise_to(FLOOR)
    assert clock.proved(FLOOR + 99)
    clock.proved(0)
    assert device[-1] == FLOOR
    clock.proved(0)
    assert device[-1] == FLOOR


def test_a_clock_that_a_verified_server_has_set_is_moved_by_no_certificate(device: list[int]) -> None:
    clock.told("Sun, 01 Mar 2026 00:00:00 GMT", FLOOR)
    before = device[-1]
    assert clock.trusted()
    assert not clock.proved(before + 99)
    assert device[-1] == before


@pytest.mark.parametrize("date", ["Sun, 01 Mar 2020 00:00:00 GMT", "yesterday", "", "Sun, 99 Abc 2026 00:00:00 GMT"])
def test_a_server_cannot_set_the_clock_before_what_is_proved(device: list[int], date: str) -> None:
    clock.raise_to(FLOOR)
    clock.told(date, FLOOR)
    assert device[-1] == FLOOR
    assert not clock.trusted()
