"""First contact: is the device that reports in the one that left the factory?

Between factory and customer a box can be opened, a board swapped, firmware changed. So the first report of a device is
held against its issuing record more strictly than any later one: it must answer a nonce, be signed by the issued key,
come from the issued chip, and run what the factory flashed (or a known release that came after it).

What it shows is what the device's software says. Without secure boot, software that was replaced could say anything
that the key it found lets it sign; with secure boot and flash encryption, the key is out of its reach.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from . import cose, device_code, report, suit
from .errors import ToolError
from .issued import IssuingRecord
from .report import Verdict

assert device_code
from sekisho import report as device  # noqa: E402

MIN_NONCE = 8
"""Fewest bytes of a nonce; a shorter one could have been seen before."""


def attest(
    document: bytes,
    record: IssuingRecord,
    nonce: bytes,
    releases: Sequence[bytes] = (),
    device_key: bytes | None = None,
) -> tuple[Verdict, IssuingRecord]:
    """(verdict, record) of the first report *document* of the device that *record* is about.

    *releases* are envelopes of releases that it may have updated to by itself. A device that made its key itself is
    asked for *device_key* (see `cose.device_key_type`); the record returned has it, so that from now on no other key
    will do.

    Raises ToolError: NONCE (too short, or not answered), KEY_UNKNOWN, SIGNATURE, REPORT, RECORD (the record says too
    little to hold anything against it).
    """
    if len(nonce) < MIN_NONCE:
        raise ToolError("NONCE", f"A first contact needs a fresh nonce of {MIN_NONCE} bytes or more.")
    if record.physical is None or record.firmware is None:
        missing = (
            "chip (sekisho issue bind)" if record.physical is None else "firmware (sekisho factory image or flash)"
        )
        raise ToolError("RECORD", f"The issuing record of {record.id} does not say which {missing} it left with.")
    if record.public_key is not None:
        key = bytes.fromhex(record.public_key)
        if device_key is not None and device_key != key:
            raise ToolError("KEY_UNKNOWN", f"Device {record.id} was issued with another key than the one given.")
    elif device_key is not None:
        key = device_key
    else:
        raise ToolError("KEY_UNKNOWN", f"Device {record.id} made its key itself; its public key is needed.")
    verdict = report.verify(document, key, nonce=nonce, known=record)
    _hold(verdict, record, releases)
    return verdict, replace(record, public_key=key.hex(), key_type=cose.device_key_type(key))


def _hold(verdict: Verdict, record: IssuingRecord, releases: Sequence[bytes]) -> None:
    """What an ordinary report may leave open, a first one may not."""
    assert record.firmware is not None
    ours = verdict.report.ours
    named = ours.get(device.ID)
    if named is None:
        verdict.add("It does not say which identity it has; it was never issued, or its NVS was erased.")
    chip = ours.get(device.CHIP)
    if chip is not None and (not isinstance(chip, bytes) or chip.hex(":") != record.physical):
        shown = chip.hex(":") if isinstance(chip, bytes) else "?"
        verdict.add(f"It runs on the chip {shown}, but {record.physical} was issued.")
    allowed = {(record.firmware.sequence, record.firmware.digest), *_images(releases)}
    running = verdict.report.running()
    sequence, _, measured = running.get("fw", (0, b"", b""))
    if (sequence, measured.hex()) not in allowed:
        verdict.add(
            f"It runs firmware {sequence} ({measured.hex()[:16]}), which is neither what left nor a known release."
        )
    for component in sorted(set(running) - {"fw"}):
        if (running[component][0], running[component][2].hex()) not in allowed:
            verdict.add(f"It runs an unknown {component}.")
    if record.environment == "release" and ours[device.MODE] != 2:
        text = "It is in development mode, though it was issued for the release environment."
        if all(one.text != "The device is in development mode." for one in verdict.findings):
            verdict.add(text)


def _images(releases: Sequence[bytes]) -> set[tuple[int, str]]:
    found = set()
    for envelope in releases:
        manifest = suit.decode(envelope).manifest
        for parameters in manifest.parameters():
            if 3 in parameters:
                found.add((manifest.sequence_number, parameters[3].value.hex()))
    return found
