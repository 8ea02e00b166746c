"""`sekisho migrate`: devices and releases move to another server that speaks hawkBit's management API."""

from __future__ import annotations

import csv
import hashlib
import json
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hawkbit_manners import in_front_of
from helpers.cli import Runner
from sekisho_tools import migrate
from sekisho_tools.errors import ToolError
from server_fixtures import PASSWORD, Device, Site, ask, basic, running

NASTY = "\"'; DROP TABLE target; -- <b>* 関所"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Three releases, 130 devices; some have installed one, one has failed, some are noted about."""
    with running(tmp_path_factory.mktemp("source")) as site:
        first, second = site.release(b"one", b"more"), site.release(b"two", requiredMigrationStep=True)
        site.release(b"an app", kind="application", description=NASTY)
        module = site.api.call("GET", f"/distributionsets/{first}/assignedSM")["content"][0]["id"]
        pairs = [
            {"key": "sekisho.sequence", "value": "7", "targetVisible": True},
            {"key": "text.ja", "value": "起動が速くなりました。", "targetVisible": False},
        ]
        site.api.call("POST", f"/softwaremodules/{module}/metadata", pairs)
        fleet = [site.device(f"lamp-{number:03}") for number in range(125)]
        for number in range(5):
            site.api.call("POST", "/targets", [{"controllerId": f"odd '\"*;, {number}", "name": NASTY}])
        for device, release in ((fleet[0], first), (fleet[1], first), (fleet[2], second)):
            site.assign(device, release)
            assert device.feedback(device.order()["id"]) == 200
        site.assign(fleet[3], second)
        assert fleet[3].feedback(fleet[3].order()["id"], finished="failure") == 200
        site.api.call("POST", "/targets/lamp-004/metadata", [{"key": "where", "value": NASTY}])
        site.api.call("POST", "/targets/lamp-005/autoConfirm/activate", {})
        site.fleet = fleet  # type: ignore[attr-defined]
        yield site


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Site]:
    with running(tmp_path / "target") as site:
        yield site


def patient(url: str) -> migrate.Patient:
    made = migrate.Patient(url, "admin", PASSWORD)
    made.pause = 0.001
    return made


def move(source: Site, to: str, folder: Path, dry: bool = False, **known: str) -> migrate.Moved:
    tokens = {name.replace("_", "-"): token for name, token in known.items()}
    return migrate.Migration(patient(source.url), patient(to), tokens, folder / "new.csv", dry).run()


def contents(site: Site) -> dict[str, Any]:
    """All that is to be moved, without ids and times."""
    modules = {}
    for one in site.api.everything("/softwaremodules"):
        at = f"/softwaremodules/{one['id']}"
        files = {file["providedFilename"]: file["hashes"]["sha1"] for file in site.api.call("GET", f"{at}/artifacts")}
        notes = site.api.call("GET", f"{at}/metadata")["content"]
        modules[one["name"], one["version"], one["type"]] = (
            one["description"],
            files,
            sorted((note["key"], note["value"], note["targetVisible"]) for note in notes),
        )
    sets = {
        (one["name"], one["version"]): (
            one["type"],
            one["description"],
            one["requiredMigrationStep"],
            sorted(part["name"] for part in one["modules"]),
        )
        for one in site.api.everything("/distributionsets")
    }
    targets = {}
    for one in site.api.everything("/targets"):
        at = f"/targets/{one['_links']['self']['href'].rsplit('/', 1)[1]}"
        installed = site.api.call("GET", f"{at}/installedDS")
        notes = site.api.call("GET", f"{at}/metadata")["content"]
        targets[one["controllerId"]] = (
            one["name"],
            one.get("description") or "",
            one["autoConfirmActive"],
            installed and (installed["name"], installed["version"]),
            sorted((note["key"], note["value"]) for note in notes),
        )
    return {"modules": modules, "sets": sets, "targets": targets}


def test_everything_arrives_and_a_second_run_finds_nothing_to_do(source: Site, target: Site, tmp_path: Path) -> None:
    done = move(source, target.url, tmp_path)
    assert (done.modules, done.artifacts, done.sets, done.devices, done.installed) == (3, 4, 3, 130, 3)
    assert contents(target) == contents(source)
    again = move(source, target.url, tmp_path)
    assert again.changed() == 0
    assert again.there >= 130 + 3 + 4 + 3
    assert contents(target) == contents(source)


def test_a_dry_run_says_the_same_and_changes_nothing(source: Site, target: Site, tmp_path: Path) -> None:
    with in_front_of(target.url) as manners:
        dry = move(source, manners.url, tmp_path, dry=True)
        assert manners.writes == []
        assert not (tmp_path / "new.csv").exists()
        done = move(source, manners.url, tmp_path)
    assert dry.changed() == done.changed() > 130
    assert dry.new_tokens == done.new_tokens


def test_devices_get_in_with_the_tokens_they_have_or_are_told(source: Site, target: Site, tmp_path: Path) -> None:
    fleet: list[Device] = source.fleet  # type: ignore[attr-defined]
    old = fleet[0].headers["Authorization"].split()[1]
    done = move(source, target.url, tmp_path, lamp_000=old)
    assert "lamp-000" not in done.new_tokens
    assert len(done.new_tokens) == 129
    assert Device(target, "lamp-000", fleet[0].headers).poll()
    assert stat.S_IMODE((tmp_path / "new.csv").stat().st_mode) == 0o600
    tokens = migrate.read_tokens(tmp_path / "new.csv")
    assert len(set(tokens.values())) == 129
    assert Device(target, "lamp-001", {"Authorization": f"TargetToken {tokens['lamp-001']}"}).poll()
    assert Device(target, "lamp-001", fleet[1].headers).ask("").status == 401


def outcome(source: Site, to: str, folder: Path) -> str:
    try:
        move(source, to, folder)
    except ToolError as error:
        return error.code
    return "done"


def test_a_run_that_breaks_off_anywhere_is_repeated(source: Site, target: Site, tmp_path: Path) -> None:
    """The line breaks before every single write; what was written is found again, and no token is lost."""
    with in_front_of(target.url) as manners:
        manners.break_after = 0
        while outcome(source, manners.url, tmp_path) == "SERVER":
            manners.break_after += 1  # those of earlier runs count as well: each run makes one thing more
        assert manners.break_after == len(manners.writes) > 10
    assert contents(target) == contents(source)
    tokens = migrate.read_tokens(tmp_path / "new.csv")
    for name in ("lamp-000", "lamp-124"):
        assert Device(target, name, {"Authorization": f"TargetToken {tokens[name]}"}).poll()


def test_hawkbits_manners_are_borne(source: Site, target: Site, tmp_path: Path) -> None:
    """It puts requests off without saying for how long, and has no SHA-256 of artifacts made long ago."""
    with in_front_of(target.url) as manners:
        manners.busy = 3
        move(source, manners.url, tmp_path)
        assert contents(target) == contents(source)
        assert move(source, manners.url, tmp_path).changed() == 0


def test_what_a_device_has_told_the_new_server_stands(source: Site, target: Site, tmp_path: Path) -> None:
    target.count = 50  # names of its own
    move(source, target.url, tmp_path)
    tokens = migrate.read_tokens(tmp_path / "new.csv")
    device = Device(target, "lamp-000", {"Authorization": f"TargetToken {tokens['lamp-000']}"})
    newer = target.release(b"made here")
    target.assign(device, newer)
    assert device.feedback(device.order()["id"]) == 200
    move(source, target.url, tmp_path)
    assert target.api.call("GET", "/targets/lamp-000/installedDS")["id"] == newer


def test_something_else_under_the_same_name_is_a_conflict(source: Site, target: Site, tmp_path: Path) -> None:
    one = source.api.call("GET", "/distributionsets", sort="id:ASC")["content"][0]
    body = {"name": one["modules"][0]["name"], "version": "1.0", "type": "os"}
    module = target.api.call("POST", "/softwaremodules", [body])[0]["id"]
    other = b"something else"
    target.api.upload(module, "file-0.bin", other, hashlib.sha256(other).hexdigest())
    with pytest.raises(ToolError) as caught:
        move(source, target.url, tmp_path)
    assert caught.value.code == "CONFLICT"
    assert target.api.call("GET", "/targets")["total"] == 0  # devices come last


def test_what_is_left_behind_is_said(source: Site, target: Site, tmp_path: Path) -> None:
    target.api.call("PUT", "/system/configs/authentication.targettoken.enabled", {"value": False})
    number = source.api.call("GET", "/distributionsets")["content"][0]["id"]
    body = {"name": "half way", "distributionSetId": number, "targetFilterQuery": "controllerid==lamp-01*"}
    rollout = source.api.call("POST", "/rollouts", body)["id"]
    source.api.call("POST", f"/rollouts/{rollout}/start")
    try:
        words = " ".join(move(source, target.url, tmp_path, dry=True).warnings)
    finally:
        source.api.call("POST", f"/rollouts/{rollout}/stop")
    assert "targettoken" in words
    assert "half way" in words
    assert "10 devices have an open update" in words


def test_the_command(
    source: Site, target: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Runner(capsys, monkeypatch)
    for name, value in (("SERVER", source.url), ("USER", "admin"), ("PASSWORD", PASSWORD), ("TO_PASSWORD", PASSWORD)):
        monkeypatch.setenv(f"SEKISHO_{name}", value)
    there = f"--to {target.url} --to-user admin --new-tokens {tmp_path}/new.csv"
    assert "would be copied: 3 modules" in run(f"migrate {there} --dry-run").out
    done = run(f"migrate {there}")
    assert done.code == 0, done.err
    assert "130 devices have a new token" in done.out
    assert json.loads(run(f"migrate {there} --json").out)["changed"] == 0
    assert ask(f"{target.url}/rest/v1/targets", headers=basic("view")).json["total"] == 130
    assert run(f"migrate --to {source.url} --to-user admin").error == "USAGE"
    with (tmp_path / "new.csv").open() as file:
        assert next(csv.reader(file)) == ["controllerId", "securityToken"]
    for text in ("", "a,b\n", "controllerId,securityToken\nlamp,short\n", "controllerId,securityToken\n,\n"):
        (tmp_path / "bad.csv").write_text(text)
        assert run(f"migrate {there} --tokens {tmp_path}/bad.csv").error == "TOKENS"
    assert run(f"migrate {there} --tokens {tmp_path}/new.csv").error == "USAGE"
