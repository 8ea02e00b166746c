"""The command line against an update server: publish, assign, rollout, devices; accounts and backup."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
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


@pytest.mark.requirement("UPC05")
def test_key_sets_are_published_alone_and_given_to_every_device(run, site, tmp_path):
    second = KEY_SET.replace(b"\xa1\x01\x01", b"\xa1\x01\x02")
    (tmp_path / "old.cose").write_bytes(KEY_SET)
    (tmp_path / "new.cose").write_bytes(second)
    done = run(f"publish {tmp_path}/old.cose {tmp_path}/new.cose")
    assert done.out.startswith("keyset 2 is on the server"), done.err
    fleet = [site.device(f"key-{n}") for n in range(3)]
    assert run("assign keyset:2 --filter controllerid==key-*").out.startswith("assigned to 3 devices")
    files = {one["filename"]: one for one in fleet[2].order()["deployment"]["chunks"][0]["artifacts"]}
    assert set(files) == {"keyset-1.cose", "keyset-2.cose"}
    (tmp_path / "new.cose").write_bytes(second[:-1] + b"\x81")
    assert run(f"publish {tmp_path}/new.cose").error == "CONFLICT"
    assert run(f"publish {tmp_path}/new.cose --name other").code == 0
    assert run("assign keyset:2").error == "USAGE"
    assert run("assign keyset:2 --filter controllerid==none-*").error == "NOT_FOUND", "a revocation that reaches nobody"
    assert run("assign keyset:2 key-1 --filter name==x").error == "USAGE"
    (tmp_path / "payload").write_bytes(b"of no release")
    assert run(f"publish {tmp_path}/new.cose {tmp_path}/payload").error == "ENVELOPE"


@pytest.mark.requirement("UPC05")
def test_a_release_is_taken_back_from_devices_that_do_not_have_it_yet(run, site, tmp_path):
    run(f"publish {release(tmp_path, 7, b'seventh')}")
    fleet = [site.device(f"back-{n}") for n in range(5)]
    run("assign lamp:1.7 back-0 back-1")
    run(
        "rollout start seven --release lamp:1.7 --devices controllerid=in=(back-2,back-3,back-4) --canary 30 --groups 1"
    )
    fleet[0].feedback(fleet[0].order()["id"], finished="success")
    done = run("withdraw lamp:1.7")
    assert done.code == 0, done.err
    assert "1 rollouts stopped" in done.out
    site.work()
    assert "stopp" in run("rollout status seven").out
    assert not any(device.link("deploymentBase") for device in fleet)
    assert "installed lamp 1.7" in run("devices show back-0").out
    assert json.loads(run("withdraw lamp:1.7 --json").out)["devices"] == 0, "again: nothing is left to do"
    assert run("withdraw no-such").error == "NOT_FOUND"
    assert [one["version"] for one in site.api.everything("/distributionsets") if one["name"] == "lamp"].count("1.7")


@pytest.mark.requirement("UPC06")
def test_a_key_set_signed_beforehand_is_given_out_at_its_time(run, site, tmp_path):
    (tmp_path / "next.cose").write_bytes(KEY_SET.replace(b"\xa1\x01\x01", b"\xa1\x01\x05"))
    run(f"publish {tmp_path}/next.cose")
    device = site.device("later-1")
    moment = max(site.clock.now / 1000, time.time()) + 3600
    when = datetime.fromtimestamp(moment, UTC).isoformat()
    start = "rollout start later --release keyset:5 --devices controllerid==later-*"
    assert run(f"{start} --at 2020-01-01T00:00").error == "USAGE"
    assert run(f"{start} --at tomorrow").error == "USAGE"
    done = run(f"{start} --at {when}")
    assert "ready" in done.out, done.err
    assert "starts 2" in done.out
    site.work()
    assert not device.link("deploymentBase"), "not before"
    site.clock.pass_seconds(moment - site.clock.now / 1000 + 1)
    site.work()
    assert device.link("deploymentBase")


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
    assert run(f"publish x.suit --password-file {tmp_path}/password").error == "FILE"
    monkeypatch.delenv("SEKISHO_SERVER")
    assert run("publish x.suit").error == "USAGE"
    assert run(f"publish x.suit --to {tmp_path} --server {site.url}").error == "USAGE"


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
