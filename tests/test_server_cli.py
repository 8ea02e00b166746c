"""The command line against an update server: publish, assign, rollout, devices; accounts and backup."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
from helpers.cli import Runner
from helpers.keys import signer
from sekisho_tools import suit
from server_fixtures import PASSWORD, Site, ask, basic, running

CLASS = UUID("1492af14-2569-5e48-bf42-9b2d51f2ab45")
KEY_SET = b"\xd8\x62\x84\x40\xa0\x43\xa1\x01\x01\x80"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running(tmp_path_factory.mktemp("server")) as found:
        yield found


@pytest.fixture
def run(capsys, monkeypatch, site) -> Runner:
    monkeypatch.setenv("SEKISHO_SERVER", site.url)
    monkeypatch.setenv("SEKISHO_USER", "op")
    monkeypatch.setenv("SEKISHO_PASSWORD", PASSWORD)
    return Runner(capsys, monkeypatch)


def release(folder: Path, sequence: int, payload: bytes) -> Path:
    """A release on disk as `release create` writes it."""
    digest = hashlib.sha256(payload).hexdigest()
    text = suit.Text(manifest=f"Change {sequence}.", components={"fw": {"component-version": f"1.{sequence}"}})
    content = suit.Release(
        bytes(16), CLASS.bytes, sequence, (suit.Component.of("fw", payload, f"/payload/{digest}"),), text={"en": text}
    )
    (folder / "payload").mkdir(exist_ok=True)
    (folder / "payload" / digest).write_bytes(payload)
    (folder / "keyset.cose").write_bytes(KEY_SET)
    path = folder / f"lamp-1.{sequence}.suit"
    path.write_bytes(suit.encode(content, [signer("release")]))
    return path


def test_a_release_is_published_assigned_and_fetched(run, site, tmp_path):
    path = release(tmp_path, 1, b"first firmware")
    site.api.call("GET", "/targets")
    done = run(f"publish {path} {tmp_path}/keyset.cose --server {site.url} --json")
    assert done.code == 0, done.err
    made = json.loads(done.out)
    assert (made["name"], made["version"]) == ("lamp", "1.1")
    again = json.loads(run(f"publish {path} {tmp_path}/keyset.cose --server {site.url} --json").out)
    assert again == made  # nothing twice
    device = site.device("cli-1")
    assert run("assign lamp:1.1 cli-1").out == "assigned to 1 devices, 0 had it already\n"
    assert run("assign lamp cli-1").out == "assigned to 0 devices, 1 had it already\n"
    chunk = device.order()["deployment"]["chunks"][0]
    files = {one["filename"]: one["_links"]["download-http"]["href"] for one in chunk["artifacts"]}
    assert set(files) == {path.name, hashlib.sha256(b"first firmware").hexdigest(), "keyset-1.cose"}
    assert device.ask(files[path.name]).body == path.read_bytes()
    assert {one["key"]: one["value"] for one in chunk["metadata"]} == {
        "sekisho.sequence": "1",
        "sekisho.manifest": suit.decode(path.read_bytes()).digest.value.hex(),
    }


def test_another_content_under_the_same_name_is_refused(run, site, tmp_path):
    assert run(f"publish {release(tmp_path, 2, b'one')} --server {site.url}").code == 0
    assert run(f"publish {release(tmp_path, 2, b'two')} --server {site.url}").error == "CONFLICT"


def test_a_rollout_by_command_line(run, site, tmp_path):
    run(f"publish {release(tmp_path, 3, b'third')} --server {site.url}")
    fleet = [site.device(f"bulb-{n}") for n in range(10)]
    started = run(
        "rollout start bulbs --release lamp:1.3 --devices controllerid==bulb-* --canary 10 --groups 3 --silence 60"
    )
    assert started.code == 0, started.err
    assert started.out.startswith("bulbs (1): running, 9 notstarted, 1 running")
    offered = [device for device in fleet if device.link("deploymentBase")]
    assert len(offered) == 1
    offered[0].feedback(offered[0].order()["id"], finished="failure")
    site.work()
    shown = run("rollout status bulbs").out.splitlines()
    assert shown[0] == "bulbs (1): paused, 9 notstarted, 1 error"
    assert shown[1] == "  1 of 1 devices of group canary failed or fell silent"
    assert [line.split(":")[0].strip() for line in shown[2:]] == ["canary", "group-1", "group-2", "group-3"]
    assert json.loads(run("rollout resume bulbs --json").out)["status"] == "running"
    assert "paused" in run("rollout pause bulbs").out
    assert "stopp" in run("rollout stop 1").out
    again = run("rollout retry bulbs")
    assert again.out.startswith("bulbs_retry (2): running"), again.err
    assert offered[0].link("deploymentBase")  # the one that failed, and no other
    assert not fleet[5].link("deploymentBase")
    assert run("rollout status none").error == "NOT_FOUND"


@pytest.mark.requirement("STS03")
def test_devices_are_listed_shown_and_exported(run, site, tmp_path):
    device = site.device("inventory-1")
    device.ask("/configData", "PUT", {"data": {"chip": "esp32", "note": "=HYPERLINK(1)"}})
    assert run("devices list --filter controllerid==inventory-*").out.startswith("inventory-1  ")
    shown = run("devices show inventory-1").out
    assert "chip = esp32" in shown
    assert run("devices show nobody").error == "NOT_FOUND"
    assert run(f"devices export {tmp_path}/a.csv --filter controllerid==inventory-*").code == 0
    lines = (tmp_path / "a.csv").read_text().splitlines()
    assert lines[0].endswith("attribute.chip,attribute.note")
    assert lines[1].endswith("esp32,'=HYPERLINK(1)")  # a text, not a formula
    run(f"devices export {tmp_path}/a.json")
    rows = json.loads((tmp_path / "a.json").read_text())
    assert "inventory-1" in [row["controllerId"] for row in rows]


def test_what_goes_wrong_is_one_clear_sentence(run, site, monkeypatch, tmp_path):
    assert run("rollout status x --server http://127.0.0.1:1").error == "SERVER"
    assert run("rollout status x --server nonsense").error == "SERVER"
    assert run("assign lamp x --how maybe").error == "USAGE"
    monkeypatch.setenv("SEKISHO_USER", "view")
    assert run("assign nothing-of-the-kind x").error == "NOT_FOUND"
    number = site.release()
    assert run(f"assign {number} x").error == "RIGHTS"
    monkeypatch.setenv("SEKISHO_PASSWORD", "wrong")
    assert run("devices list").error == "LOGIN"
    monkeypatch.delenv("SEKISHO_PASSWORD")
    assert run("devices list").error == "LOGIN"
    (tmp_path / "password").write_text(PASSWORD + "\n")
    assert run(f"devices list --password-file {tmp_path}/password").code == 0
    assert run("publish x.suit").error == "USAGE"


def test_accounts_and_backup_by_command_line(run, site, tmp_path):
    data = site.server.store.path
    (tmp_path / "password").write_text(PASSWORD)
    (tmp_path / "weak").write_text("admin")
    assert run(f"admin create bob --role viewer --data {data} --password-file {tmp_path}/weak").error == "PASSWORD"
    assert run(f"admin create bob --role boss --data {data} --password-file {tmp_path}/password").error == "OPERATOR"
    assert run(f"admin create bob --role viewer --data {data} --password-file {tmp_path}/password").code == 0
    assert run(f"admin create bob --data {data} --password-file {tmp_path}/password").error == "OPERATOR"
    assert run(f"admin create eve --data {data}").error == "PASSWORD"  # never read from a pipe by accident
    url = f"{site.url}/rest/v1/targets"
    assert ask(url, "POST", [{"controllerId": "b"}], basic("bob")).status == 403
    assert run(f"admin role bob operator --data {data}").code == 0
    assert ask(url, "POST", [{"controllerId": "b"}], basic("bob")).status == 201
    assert "bob  operator" in run(f"admin list --data {data}").out
    assert run(f"admin backup {tmp_path}/copy --data {data}").code == 0
    assert run(f"admin list --data {tmp_path}/copy --json").out == run(f"admin list --data {data} --json").out
    assert run(f"admin remove bob --data {data}").code == 0
    assert ask(url, headers=basic("bob")).status == 401
    assert run(f"admin list --data {tmp_path}/none").error == "FILE"
    assert run(f"serve {tmp_path} --data {tmp_path}").error == "USAGE"
    assert run(f"serve --data {data} --port 0").error == "DATA_IN_USE"
