"""Settings on the device: schema, storage, roles, secure defaults, backup."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import powercut
from helpers.claims import both, check
from helpers.cli import Runner
from helpers.site import Product, firmware


@pytest.mark.requirement("STS04", "STS05", "STS06", "STS10", "UPE05", "UPE06", "UPE08")
@both
def test_settings_as_the_device_keeps_them(run: Callable[..., str], tmp_path: Path) -> None:
    check(run, "settings_cases", str(tmp_path))


@pytest.fixture
def sekisho(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Runner:
    return Runner(capsys, monkeypatch)


CHANGES = """
from sekisho.values import Settings
s = Settings()
print("has", s.get("poll"), s.get("notify"), s.get("server", True))
if {go}:
    s.change(dict(poll=1200, notify=["failed"], server="http://new"), 3)
    print("now", s.get("poll"))
"""


def test_a_cut_at_any_flash_state_of_a_change_leaves_the_old_settings_or_the_new_ones(tmp_path: Path) -> None:
    product = Product(tmp_path, server="http://old")
    product.personalities.default = product.personality(main=CHANGES.format(go="False"))
    world = product.factory(firmware("old", 20_000))
    powercut.settle(world)
    change = product.personality(main=CHANGES.format(go="s.get('poll') == 30"))
    product.personalities.default = change
    cases = list(powercut.states(world))
    assert len(cases) > 20
    seen = set()
    for name, flash in cases:
        product.personalities.default = change
        lines = powercut.start(world, flash).console.splitlines()
        assert lines[0] in ("has 30 [] http://old", "has 1200 ['failed'] http://new"), (name, lines)
        seen.add(lines[0])
        product.personalities.default = product.personality(main=CHANGES.format(go="False"))
        lines = powercut.start(world, world.flash_path.read_bytes()).console.splitlines()
        assert lines == ["has 1200 ['failed'] http://new"], (name, lines)
    assert len(seen) == 2


def test_the_desk_checks_files_and_opens_backups_of_devices(sekisho: Runner, tmp_path: Path) -> None:
    good, bad, key = tmp_path / "good.json", tmp_path / "bad.json", tmp_path / "key"
    good.write_text('{"poll": 60, "wifi": [["home", "12345678"]]}')
    bad.write_text('{"poll": 5}')
    key.write_bytes(bytes(32))
    assert sekisho(f"settings check {good}").code == 0
    assert sekisho(f"settings check {bad}").error == "SETTING"
    backup = tmp_path / "lamp.backup"
    assert sekisho(f"settings seal {good} --out {backup} --key {key}").code == 0
    assert b"12345678" not in backup.read_bytes()
    assert json.loads(sekisho(f"settings open {backup} --key {key}").out) == json.loads(good.read_text())
    assert sekisho(f"settings open {backup}", "not this passphrase").error == "BACKUP"
    assert sekisho(f"settings seal {good} --out {backup}", "short").error == "LIMIT"
    names = [one["name"] for one in json.loads(sekisho("settings list --json").out)]
    assert {"server", "wifi", "update_enabled"} < set(names)
    assert sekisho("settings list").code == 0
