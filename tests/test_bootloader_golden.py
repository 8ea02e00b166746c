"""The bootloader model does what the real bootloader of MicroPython v1.26.1 did, case by case."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from helpers import images
from sekisho_sim import bootloader
from sekisho_sim.bootloader import Entry

CASES = json.loads((Path(__file__).parent / "golden" / "bootloader-otadata.json").read_text())["cases"]
STATES = {name: number for number, name in bootloader.STATES.items()}


def entry(case: dict[str, Any] | None) -> Entry | None:
    if case is None:
        return None
    made = Entry.make(case["seq"], STATES[case["state"]])
    return made if case["crc_ok"] else Entry(made.seq, made.state, made.crc ^ 0x55)


def describe(found: Entry) -> dict[str, Any] | None:
    if found.encode() == b"\xff" * 32:
        return None
    return {"seq": found.seq, "state": bootloader.STATES[found.state], "crc_ok": found.crc_ok}


def name(case: dict[str, Any]) -> str:
    return "+".join("blank" if e is None else f"{e['seq']}{e['state']}" for e in case["before"])


def test_all_24_recorded_cases_are_here() -> None:
    assert len(CASES) == 24


@pytest.mark.parametrize("case", CASES, ids=[f"{number}-{name(case)}" for number, case in enumerate(CASES)])
@pytest.mark.requirement("UPE14")
def test_bootloader_does_what_the_real_one_did(case: dict[str, Any]) -> None:
    app = images.app()
    flash = images.flash_with({"ota_0": app, "ota_1": app}, tuple(entry(e) for e in case["before"]))
    table = images.golden_layout()
    for slot in case["corrupt_slots"]:
        at = table[f"ota_{slot}"].offset + 0x60
        flash.buffer[at : at + 4] = bytes(b ^ 0xFF for b in flash.buffer[at : at + 4])

    result = bootloader.power_on(flash)

    assert result.running == case["running"]
    assert result.boot_partition == case["boot_partition"]
    after = bootloader.read_entries(flash, table["otadata"])
    assert [describe(e) for e in after] == case["after"]
    # Whatever it wrote, it wrote as an erase and a 32-byte program of the same sector.
    kinds = [(op.kind, op.length) for op in flash.log]
    assert kinds == [("erase", 4096), ("program", 32)] * (len(kinds) // 2)
