"""What most tests of the engine begin with: a few releases, and the steps of an update on a `Desk`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sekisho_boot import reasons
from sekisho_boot.reasons import Refused

from helpers import release
from helpers.desk import CLASS, VENDOR, Desk, Up, fetch, firmware

FW, APP = 0, 1


def make(sequence: int, payloads: dict[int, bytes], **options: Any) -> release.Release:
    """A release for the desk's product; *options* as of `release.make`."""
    return release.make(sequence, payloads, **{"vendor": VENDOR, "product": CLASS, **options})


OLD, NEW, NEWER = firmware("old"), firmware("new", 24_000), firmware("newer")
APP_A, APP_B = b"app three" * 700, b"app four!" * 600
FACTORY = make(1, {FW: OLD})
UPDATE = make(2, {FW: NEW})
BOTH = make(3, {FW: NEWER, APP: APP_A})
APP_ONLY = make(4, {APP: APP_B}, ties={FW: 3})


def refusal(call: Callable[..., object], *arguments: object) -> str:
    """The name of the reason for which *call* refuses; it must."""
    with pytest.raises(Refused) as caught:
        call(*arguments)
    return reasons.name(caught.value.code)


def stage(desk: Desk, made: release.Release = UPDATE) -> None:
    """Fetch *made* and stage it."""
    fetch(desk.power_on().engine, made.envelope, made.payloads)


def update(desk: Desk, made: release.Release = UPDATE) -> Up:
    """The device in the trial of *made*."""
    stage(desk, made)
    return desk.power_on()


def confirmed(desk: Desk, made: release.Release = UPDATE) -> Up:
    """The device after *made* was confirmed, started once more."""
    assert update(desk, made).engine.confirm() == 0
    return desk.power_on()


def last(up: Up) -> str:
    """The name of the last result's reason."""
    return reasons.name(up.engine.status()["last"][0])


def degraded(up: Up) -> str:
    """The name of the reason why the device is degraded; empty where it is not."""
    return reasons.name(up.decision.degraded) if up.decision.degraded else ""
