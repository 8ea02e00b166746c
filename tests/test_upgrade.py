"""What the engine of version 0.1.0 left in flash, an engine of today takes over: idle, in the middle of anything.

tests/golden/device-v1.json holds whole devices as that engine wrote them (ledger, slot records, envelopes, holding
sector, key sets, otadata, slots). It is never written again: what is out in the field does not change either.
"""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers.desk import CLASS, VENDOR, Desk, fetch, firmware
from helpers.release import make
from sekisho_boot import reasons
from sekisho_boot.reasons import Refused
from sekisho_sim.flash import SECTOR

IMAGES = {
    "old": firmware("old"),
    "new": firmware("new", 24_000),
    "newer": firmware("newer"),
    "a": b"app three" * 700,
    "b": b"app four!" * 600,
}
GOLDEN = json.loads((Path(__file__).parent / "golden" / "device-v1.json").read_text())


def _sector(text: str) -> bytes:
    """One sector as the golden file writes it: ``=NAME:N`` is sector N of an image, all else is packed."""
    if text.startswith("="):
        name, number = text[1:].split(":")
        return IMAGES[name][int(number) * SECTOR :][:SECTOR].ljust(SECTOR, b"\xff")
    return zlib.decompress(base64.b85decode(text))


def device(case: dict[str, Any]) -> Desk:
    """The device of one golden case, switched off."""
    desk = Desk()
    desk.factory(None, b"")
    for label, sectors in case["flash"].items():
        size = desk.layout[label].size
        for at in range(0, size, SECTOR):
            desk.put(label, _sector(sectors[str(at)]) if str(at) in sectors else b"\xff" * SECTOR, at)
    desk.config = SimpleNamespace(**{**vars(desk.config), "KEYSET": base64.b85decode(GOLDEN["keyset"])})
    return desk


def test_the_images_are_those_of_the_golden_devices() -> None:
    assert {name: hashlib.sha256(data).hexdigest() for name, data in IMAGES.items()} == GOLDEN["images"]


@pytest.mark.requirement("UPE10", "UPE14")
@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: case["name"])
@pytest.mark.rule("ledger-foreign")
def test_an_engine_of_today_goes_on_where_version_0_1_0_left_off(case: dict[str, Any]) -> None:
    desk = device(case)
    up = desk.power_on()
    status = up.engine.status()
    app = up.decision.app
    seen = {
        "running": up.running,
        "trial": up.decision.trial,
        "degraded": up.decision.degraded,
        "app": hashlib.sha256(bytes(_read(app))).hexdigest() if app else None,
        "counters": list(status["counters"]),
        "keyset": status["keyset"],
        "locked": status["locked"],
        "phase": status["phase"],
        "last": reasons.name(status["last"][0]) if status["last"][0] else "confirmed" if status["last"][2] else "",
    }
    assert seen == case["then"]
    if up.decision.trial:
        assert up.engine.confirm() == 0
        up = desk.power_on()
    if up.engine.status()["phase"]:
        up.engine.abort(reasons.NETWORK)
    counters = up.engine.status()["counters"]
    for component, counter in enumerate(counters):  # what it knew to be old it still knows
        if counter > 1:
            with pytest.raises(Refused):
                up.engine.accept(make(counter - 1, {component: IMAGES["a"]}, vendor=VENDOR, product=CLASS).envelope)
    both = make(90, {0: firmware("a later one"), 1: b"its application"}, vendor=VENDOR, product=CLASS)
    fetch(up.engine, both.envelope, both.payloads)
    assert desk.power_on().engine.confirm() == 0
    up = desk.power_on()
    assert (up.engine.status()["counters"], up.decision.degraded) == ((90, 90), 0)
    assert bytes(_read(up.decision.app)) == b"its application"


def _read(app: tuple) -> bytearray:
    part, size = app
    data = bytearray(size)
    part.read(0, data)
    return data
