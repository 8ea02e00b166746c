"""The embedded server against hostile input: every field, every JSON body, every quota."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from sekisho_tools.errors import ToolError
from sekisho_tools.server import releases, rollouts, targets
from sekisho_tools.server.app import openapi
from server_fixtures import Device, Site, ask, basic, running
from test_server_page import Browser

NASTY = [
    "'; DROP TABLE target; --",
    "\"><script>document.title='owned'</script>",
    "1' OR '1'='1",
    "{{7*7}}${7*7}<%=7*7%>",
    "a\r\nX-Injected: yes\r\n\r\n",
    "\0",
    "../../../etc/passwd",
    "=cmd|' /C calc'!A0",
    "\u202e\u0000\ufeff\U0001f4a9",
    "x" * 5000,
]
BROKEN = [b"", b"{", b"\xff\xfe", b"null", b"7", b'"text"', b"[" * 20_000, b'{"a":' * 20_000, b"1" * 5000, b"NaN"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running(tmp_path_factory.mktemp("server")) as found:
        yield found


def fields(site: Site, device: Device, number: int) -> list[tuple[str, str, str, Any]]:
    """(method, path, where the answer shows it, body) for every text that somebody may give; `@` is the text."""
    release, rollout = site.release(), "/rest/v1/rollouts"
    home = f"/DEFAULT/controller/v1/{device.name}"
    plan = {"distributionSetId": release, "targetFilterQuery": "controllerid==*", "amountGroups": 1}
    status = {"execution": "proceeding", "result": {"finished": "none"}}
    return [
        ("POST", "/rest/v1/targets", "controllerId", [{"controllerId": "@"}]),
        ("POST", "/rest/v1/targets", "name", [{"controllerId": f"n-{number}", "name": "@"}]),
        ("POST", "/rest/v1/targets", "description", [{"controllerId": f"d-{number}", "description": "@"}]),
        ("POST", "/rest/v1/targets", "", [{"controllerId": f"s-{number}", "securityToken": "@"}]),
        ("PUT", f"/rest/v1/targets/{device.name}", "name", {"name": "@"}),
        ("POST", f"/rest/v1/targets/{device.name}/metadata", "value", [{"key": f"k-{number}", "value": "@"}]),
        ("POST", f"/rest/v1/targets/{device.name}/metadata", "key", [{"key": "@", "value": "v"}]),
        ("POST", f"/rest/v1/targets/{device.name}/autoConfirm/activate", "", {"initiator": "@", "remark": "@"}),
        ("POST", "/rest/v1/softwaremodules", "name", [{"name": "@", "version": "1", "type": "os"}]),
        ("POST", "/rest/v1/softwaremodules", "version", [{"name": f"v-{number}", "version": "@", "type": "os"}]),
        ("POST", "/rest/v1/softwaremodules", "", [{"name": f"t-{number}", "version": "1", "type": "@"}]),
        ("POST", "/rest/v1/distributionsets", "name", [{"name": "@", "version": "1", "type": "os", "modules": []}]),
        ("POST", rollout, "name", plan | {"name": "@"}),
        ("POST", rollout, "description", plan | {"name": f"r-{number}", "description": "@"}),
        ("POST", rollout, "", plan | {"name": f"q-{number}", "targetFilterQuery": "@"}),
        ("PUT", f"{home}/configData", "", {"data": {f"key-{number}": "@"}}),
        ("PUT", f"{home}/configData", "", {"data": {"@": "value"}}),
        ("POST", f"{home}/deploymentBase/ACTION/feedback", "", {"status": status | {"details": ["@"]}}),
        ("POST", f"{home}/enrol", "", {"token": "@"}),
    ]


def put(thing: Any, text: str) -> Any:
    if isinstance(thing, dict):
        return {put(key, text): put(value, text) for key, value in thing.items()}
    if isinstance(thing, list):
        return [put(one, text) for one in thing]
    return text if thing == "@" else thing


@pytest.mark.parametrize("number", range(len(NASTY)), ids=[repr(text)[:20] for text in NASTY])
def test_a_hostile_text_in_any_field_is_refused_or_stays_a_text(site: Site, number: int) -> None:
    text = NASTY[number]
    device = site.device(f"victim-{number}")
    action = site.assign(device, site.release())
    taken = 0
    for method, path, where, body in fields(site, device, number):
        path = path.replace("ACTION", str(action))
        headers = basic("admin") if path.startswith("/rest/") else device.headers
        answer = ask(site.url + path, method, put(body, text), headers)
        assert answer.status < 500, (path, where, answer)
        assert "x-injected" not in answer.headers
        taken += answer.status in (200, 201)
        if answer.status in (200, 201) and where:
            shown = answer.json[0] if isinstance(answer.json, list) else answer.json
            assert shown[where] == text, (path, where)
    assert taken >= 5 or not text.isprintable() or len(text) > 1000, taken
    for path in (
        f"/rest/v1/targets?q={quote(text)}",
        f"/rest/v1/targets?q=name=={quote(text)}",
        f"/rest/v1/targets?sort={quote(text)}",
        f"/rest/v1/targets/{quote(text, safe='')}",
        f"/DEFAULT/controller/v1/{quote(text, safe='')}",
        f"/rest/v1/softwaremodules/1/artifacts/{quote(text, safe='')}/download",
    ):
        assert ask(site.url + path, headers=basic("admin")).status < 500, path
    browser = Browser(site, "admin")
    for path in (f"/devices?search={quote(text)}", f"/devices?state={quote(text)}", f"/devices/{quote(text, safe='')}"):
        answer = browser.get(path)
        assert answer.status < 500, path
        assert b"<script>document" not in answer.body
    assert Browser(site, None).post("/login", name=text, password=text, next=text).status in (400, 401, 403, 413, 429)
    for path in ("/devices", f"/devices/{device.name}", "/releases", "/rollouts", "/approvals"):
        shown = browser.get(path)
        assert shown.status == 200
        assert b"<script>document" not in shown.body
    assert site.api.call("GET", f"/targets/victim-{number}")["controllerId"] == f"victim-{number}"
    assert device.poll()


def bodies() -> list[tuple[str, str]]:
    """(method, path) of every operation that takes JSON."""
    found = []
    for path, methods in openapi()["paths"].items():
        for method, operation in methods.items():
            if "application/json" in operation.get("requestBody", {}).get("content", {}):
                found.append((method.upper(), path))
    return found


@pytest.mark.parametrize(("method", "path"), bodies(), ids=lambda one: str(one)[-60:])
def test_a_body_that_is_no_json_of_ours_is_refused(site: Site, method: str, path: str) -> None:
    device = site.device()
    number = site.assign(device, site.release())
    where = path.replace("{tenant}", "DEFAULT").replace("{controller}", device.name).replace("{controllerId}", "none")
    while "{" in where:
        start, end = where.index("{"), where.index("}")
        where = where[:start] + str(number) + where[end + 1 :]
    headers = device.headers if "/controller/v1/" in where else basic("admin")
    for body in BROKEN:
        answer = ask(site.url + where, method, body, headers, Content_Type="application/json")
        assert 400 <= answer.status < 500 or (answer.status in (200, 201, 204) and body in (b"", b"null")), (
            body,
            answer,
        )
    assert ask(f"{site.url}/healthz").status == 200


def refused(site: Site, method: str, path: str, body: Any) -> None:
    answer = ask(f"{site.url}/rest/v1{path}", method, body, basic("admin"))
    assert (answer.status, answer.json["errorCode"]) == (429, "sekisho.quota"), answer


def test_every_quota_is_429_and_nothing_comes_of_what_is_over_it(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    release = site.release()
    module = site.api.call("GET", f"/distributionsets/{release}/assignedSM")["content"][0]["id"]
    device = site.device("quota")
    folder = site.server.store.path / "artifacts"

    def counted() -> tuple[int, ...]:
        lists = ("/targets", "/softwaremodules", "/distributionsets", "/rollouts")
        return (*(site.api.call("GET", path)["total"] for path in lists), len(list(folder.iterdir())))

    before = counted()
    group = [{"name": "a", "targetPercentage": 50}, {"name": "b", "targetPercentage": 100}]
    plan = {"name": "quota", "distributionSetId": release, "targetFilterQuery": "controllerid==*"}
    pairs = [{"key": f"{n}", "value": "x"} for n in range(3)]
    shown = [pair | {"targetVisible": True} for pair in pairs]
    cases: list[tuple[Any, str, int, str, Any]] = [
        (targets, "MAX_TARGETS", before[0], "/targets", [{"controllerId": "one-too-many"}]),
        (targets, "MAX_METADATA", 2, f"/targets/{device.name}/metadata", pairs),
        (releases, "MAX_METADATA", 2, f"/softwaremodules/{module}/metadata", shown),
        (releases, "MAX_MODULES", 0, "/distributionsets",
         [{"name": "many", "version": "1", "type": "os", "modules": [{"id": module}]}]),
        (rollouts, "MAX_GROUPS", 1, "/rollouts", plan | {"groups": group}),
        (rollouts, "MAX_GROUP_TARGETS", 0, "/rollouts", plan | {"amountGroups": 1}),
    ]  # fmt: skip
    for where, name, value, path, body in cases:
        with monkeypatch.context() as patch:
            patch.setattr(where, name, value)
            refused(site, "POST", path, body)
    assert counted() == before
    for name, value in (("MAX_ARTIFACTS", 1), ("MAX_STORAGE", 10)):
        with monkeypatch.context() as patch:
            patch.setattr(releases, name, value)
            content = name.encode()
            with pytest.raises(ToolError) as caught:
                site.api.upload(module, name, content, hashlib.sha256(content).hexdigest())
            assert "at most 1 artifacts" in str(caught.value) or "storage is full" in str(caught.value)
    assert counted() == before
    assert site.api.call("GET", f"/targets/{device.name}/metadata")["total"] == 0


def test_of_a_devices_reports_the_newest_are_kept(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "MAX_REPORTS", 3)
    device = site.device("talker")
    for number in range(6):
        assert device.ask("/reports", "POST", b"report %d" % number, Content_Type="application/cose").status < 300
    kept = site.api.call("GET", "/targets/talker/reports")
    assert {bytes.fromhex(one["cose"]) for one in kept} == {b"report 3", b"report 4", b"report 5"}


def test_feedback_that_is_replayed_over_and_over_changes_nothing(site: Site) -> None:
    device = site.device()
    number = site.assign(device, site.release())
    assert device.feedback(number) == 200
    before = site.api.call("GET", f"/targets/{device.name}/actions/{number}/status")["total"]
    assert [device.feedback(number, finished=how) for how in ("success", "failure", "success", "failure")] == [410] * 4
    assert site.api.call("GET", f"/targets/{device.name}/actions/{number}/status")["total"] == before
    assert device.state()["updateStatus"] == "in_sync"
