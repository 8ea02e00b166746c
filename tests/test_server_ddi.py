"""The embedded server's device API, as hawkBit has it (digest of its sources: the sections named in the tests)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sekisho_tools.errors import ToolError
from server_fixtures import Site, ask, running


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running(tmp_path_factory.mktemp("server")) as found:
        yield found


# -- polling ------------------------------------------------------------------------------------------------------


@pytest.mark.requirement("UPD08")
def test_a_device_without_its_token_learns_nothing(site):
    device = site.device()
    for headers in (
        {},
        {"Authorization": "TargetToken wrong-wrong-wrong-wrong"},
        {"Authorization": "TargetToken "},
        {"Authorization": "GatewayToken "},
        {"Authorization": "Basic YWRtaW46YWRtaW4="},
    ):
        answer = ask(device.home, headers=headers)
        assert (answer.status, answer.body) == (401, b"")
    assert ask(device.home.replace(device.name, "never-registered"), headers=device.headers).status == 401


def test_another_devices_token_does_not_open_mine(site):
    mine, other = site.device(), site.device()
    assert ask(mine.home, headers=other.headers).status == 401


def test_a_new_device_is_asked_for_its_attributes(site):
    device = site.device()
    assert device.poll() == {
        "config": {"polling": {"sleep": "00:05:00"}},
        "_links": {"configData": {"href": f"{device.home}/configData"}},
    }
    assert device.ask("/configData", "PUT", {"mode": "merge", "data": {"chip": "esp32", "fw": "1.2"}}).status == 200
    assert device.poll()["_links"] == {}
    assert site.api.call("GET", f"/targets/{device.name}/attributes") == {"chip": "esp32", "fw": "1.2"}
    device.ask("/configData", "PUT", {"data": {"fw": None, "new": "x"}})
    assert site.api.call("GET", f"/targets/{device.name}/attributes") == {"chip": "esp32", "new": "x"}
    device.ask("/configData", "PUT", {"mode": "replace", "data": {"only": "1"}})
    assert site.api.call("GET", f"/targets/{device.name}/attributes") == {"only": "1"}


@pytest.mark.parametrize("data", [{}, {"k": "ü"}, {"k": "x" * 129}, {"~": "x"}, {"": "x"}, {"k" * 129: "v"}, {"k": 1}])
def test_attributes_outside_hawkbits_alphabet_are_refused(site, data):
    assert site.device().ask("/configData", "PUT", {"data": data}).status == 400


def test_a_device_has_at_most_a_hundred_attributes(site):
    device = site.device()
    assert device.ask("/configData", "PUT", {"data": {f"k{n}": "v" for n in range(100)}}).status == 200
    assert device.ask("/configData", "PUT", {"data": {"one-more": "v"}}).status == 429


def test_an_unchanged_poll_is_304(site):
    device = site.device()
    etag = device.ask("").headers["etag"]
    assert device.ask("", If_None_Match=etag).status == 304
    site.assign(device, site.release())
    assert device.ask("", If_None_Match=etag).status == 200


def test_links_carry_the_host_that_the_device_asked(site):
    device = site.device()
    href = device.ask("", Host="updates.example.com").json["_links"]["configData"]["href"]
    assert href == f"http://updates.example.com/DEFAULT/controller/v1/{device.name}/configData"
    assert device.ask("", Host="evil/../x").status == 400


def test_a_poll_is_noted(site):
    device = site.device()
    assert device.state()["updateStatus"] == "unknown"
    device.poll()
    state = device.state()
    assert (state["updateStatus"], state["lastControllerRequestAt"]) == ("registered", site.clock.now)
    assert (state["ipAddress"], state["pollStatus"]["overdue"]) == ("127.0.0.1", False)


def test_the_polling_time_is_a_setting(site):
    device = site.device()
    device.poll()
    site.api.call("PUT", "/system/configs/pollingTime", {"value": "01:00:30"})
    assert device.poll()["config"]["polling"]["sleep"] == "01:00:30"
    site.api.call("DELETE", "/system/configs/pollingTime")
    assert device.poll()["config"]["polling"]["sleep"] == "00:05:00"


def test_a_gateway_token_registers_devices_and_speaks_for_them(site):
    gateway = {"Authorization": "GatewayToken gateway-token-of-tests"}
    home = f"{site.url}/DEFAULT/controller/v1/behind-gateway"
    assert ask(home, headers=gateway).status == 401
    site.api.call(
        "PUT",
        "/system/configs",
        {"authentication.gatewaytoken.enabled": True, "authentication.gatewaytoken.key": "gateway-token-of-tests"},
    )
    assert ask(f"{home}/configData", "PUT", {"data": {"a": "b"}}, gateway).status == 404
    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(lambda _: ask(home, headers=gateway).status, range(16)))
    assert statuses == [200] * 16
    assert site.api.call("GET", "/targets", q="controllerid==behind-gateway")["total"] == 1
    site.api.call("DELETE", "/system/configs/authentication.gatewaytoken.enabled")
    assert ask(home, headers=gateway).status == 401


@pytest.mark.parametrize("tenant", ["default", "OTHER", ".."])
def test_there_is_one_tenant(site, tenant):
    device = site.device()
    assert ask(device.home.replace("DEFAULT", tenant), headers=device.headers).status == 404


# -- orders -------------------------------------------------------------------------------------------------------


def test_an_order_reads_like_hawkbits(site):
    device = site.device()
    content = b"the new firmware"
    number = site.assign(device, site.release(content))
    order = device.order()
    chunk = order["deployment"]["chunks"][0]
    artifact = chunk["artifacts"][0]
    assert order["id"] == str(number)
    assert set(order["deployment"]) == {"download", "update", "chunks"}
    assert (order["deployment"]["download"], order["deployment"]["update"]) == ("forced", "forced")
    assert (chunk["part"], chunk["version"]) == ("os", "1.0")
    assert artifact["size"] == len(content)
    assert artifact["hashes"] == {name: hashlib.new(name, content).hexdigest() for name in ("sha1", "md5", "sha256")}
    assert set(artifact["_links"]) == {"download-http", "md5sum-http"}
    assert device.ask(artifact["_links"]["download-http"]["href"]).body == content
    md5 = device.ask(artifact["_links"]["md5sum-http"]["href"]).body
    assert md5 == f"{artifact['hashes']['md5']}  {artifact['filename']}".encode()


def test_application_modules_are_called_bapp(site):
    device = site.device()
    site.assign(device, site.release(kind="application"))
    assert device.order()["deployment"]["chunks"][0]["part"] == "bApp"


def test_metadata_reaches_the_device_only_when_it_is_meant_to(site):
    device = site.device()
    release = site.release()
    module = site.api.call("GET", f"/distributionsets/{release}/assignedSM")["content"][0]["id"]
    pairs = [{"key": "shown", "value": "1", "targetVisible": True}, {"key": "hidden", "value": "2"}]
    site.api.call("POST", f"/softwaremodules/{module}/metadata", pairs)
    site.assign(device, release)
    assert device.order()["deployment"]["chunks"][0]["metadata"] == [{"key": "shown", "value": "1"}]


@pytest.mark.requirement("UPD05")
@pytest.mark.parametrize(
    ("how", "download", "update"),
    [
        ({"type": "forced"}, "forced", "forced"),
        ({"type": "soft"}, "attempt", "attempt"),
        ({"type": "timeforced", "forcetime": 1}, "forced", "forced"),
        ({"type": "timeforced", "forcetime": 2**45}, "attempt", "attempt"),
        ({"type": "downloadonly"}, "forced", "skip"),
    ],
)
def test_the_operators_choice_is_put_into_hawkbits_words(site, how, download, update):
    device = site.device()
    site.assign(device, site.release(), **how)
    order = device.order()["deployment"]
    assert (order["download"], order["update"]) == (download, update)


@pytest.mark.requirement("UPD05")
def test_soft_becomes_forced_when_its_time_comes_and_the_link_shows_it(site):
    device = site.device()
    site.assign(device, site.release(), type="timeforced", forcetime=site.clock.now + 60_000)
    before = device.link("deploymentBase")
    site.clock.pass_seconds(61)
    after = device.link("deploymentBase")
    assert before != after
    assert device.order()["deployment"]["update"] == "forced"


@pytest.mark.requirement("UPD05")
def test_a_maintenance_window_holds_the_installation_back(site):
    device = site.device()
    # 2027-01-15 08:00:00 UTC is the clock of the tests; the window opens daily at 10:15 in +01:00, for two hours.
    window = {"schedule": "0 15 10 * * ? *", "duration": "02:00:00", "timezone": "+01:00"}
    number = site.assign(device, site.release(), maintenanceWindow=window)
    begun = site.clock.now
    site.clock.now = 1_800_000_000_000 - 1_800_000_000_000 % 86_400_000 + 8 * 3_600_000
    try:
        order = device.order()["deployment"]
        assert (order["download"], order["update"], order["maintenanceWindow"]) == ("forced", "skip", "unavailable")
        before = device.link("deploymentBase")
        site.clock.pass_seconds(76 * 60)
        assert device.link("deploymentBase") != before
        order = device.order()["deployment"]
        assert (order["update"], order["maintenanceWindow"]) == ("forced", "available")
        site.clock.pass_seconds(2 * 3600)
        assert device.order()["deployment"]["update"] == "skip"
        assert device.feedback(number) == 200
    finally:
        site.clock.now = begun


def test_the_poll_comes_sooner_before_a_window(site):
    device = site.device()
    start = site.clock.now // 1000 + 300
    window = {
        "schedule": f"{start % 60} {start // 60 % 60} {start // 3600 % 24} * * ?",
        "duration": "01:00:00",
        "timezone": "+00:00",
    }
    site.assign(device, site.release(), maintenanceWindow=window)
    assert device.poll()["config"]["polling"]["sleep"] == "00:01:40"


def test_a_window_that_never_opens_is_refused(site):
    device = site.device()
    release = site.release()
    for window in (
        {"schedule": "0 0 0 30 2 ? *", "duration": "01:00:00", "timezone": "+00:00"},
        {"schedule": "0 0 0 1 1 ? 2020", "duration": "01:00:00", "timezone": "+00:00"},
        {"schedule": "nonsense", "duration": "01:00:00", "timezone": "+00:00"},
        {"schedule": "0 0 0 * * ? *", "duration": "1 h", "timezone": "+00:00"},
        {"schedule": "0 0 0 * * ? *", "duration": "01:00:00", "timezone": "JST"},
    ):
        with pytest.raises(ToolError) as caught:
            site.assign(device, release, maintenanceWindow=window)
        assert caught.value.code == "REQUEST"
    assert device.link("deploymentBase") is None


# -- feedback -----------------------------------------------------------------------------------------------------


def test_success_closes_the_action_and_shows_what_is_installed(site):
    device = site.device()
    device.ask("/configData", "PUT", {"data": {"a": "b"}})
    release = site.release()
    number = site.assign(device, release)
    assert device.state()["updateStatus"] == "pending"
    device.order()
    for execution in ("download", "downloaded", "proceeding"):
        assert device.feedback(number, execution, "none", details=["so far"]) == 200
    assert device.feedback(number, details=["done"], code=200) == 200
    links = device.poll()["_links"]
    assert set(links) == {"installedBase", "configData"}
    assert device.ask(links["installedBase"]["href"]).json["deployment"]["chunks"]
    assert device.state()["updateStatus"] == "in_sync"
    assert site.api.call("GET", f"/targets/{device.name}/installedDS")["id"] == release
    action = site.api.call("GET", f"/targets/{device.name}/actions/{number}")
    assert (action["status"], action["lastStatusCode"]) == ("finished", 200)
    history = site.api.call("GET", f"/targets/{device.name}/actions/{number}/status")["content"]
    assert [entry["type"] for entry in history] == [
        "finished",
        "running",
        "downloaded",
        "download",
        "retrieved",
        "running",
    ]
    assert history[0]["messages"] == ["done", "Device reported status code: 200"]


@pytest.mark.requirement("UPD09")
def test_failure_is_kept_with_its_words_and_a_new_assignment_starts_anew(site):
    device = site.device()
    release = site.release()
    number = site.assign(device, release)
    assert device.feedback(number, finished="failure", details=["IMAGE_DIGEST"]) == 200
    assert device.state()["updateStatus"] == "error"
    assert device.link("deploymentBase") is None
    with pytest.raises(ToolError):
        site.api.call("GET", f"/targets/{device.name}/actions/{number + 1000}")
    again = site.assign(device, release)
    assert again != number


def test_a_closed_action_takes_no_more_feedback(site):
    device = site.device()
    number = site.assign(device, site.release())
    assert device.feedback(number) == 200
    assert device.feedback(number) == 410
    assert device.feedback(number, finished="failure") == 410
    assert device.state()["updateStatus"] == "in_sync"


def test_parallel_final_feedback_counts_once(site):
    device = site.device()
    number = site.assign(device, site.release())
    with ThreadPoolExecutor(16) as pool:
        statuses = sorted(pool.map(lambda _: device.feedback(number), range(16)))
    assert statuses == [200] + [410] * 15
    history = site.api.call("GET", f"/targets/{device.name}/actions/{number}/status")["content"]
    assert [entry["type"] for entry in history].count("finished") == 1


def test_other_peoples_actions_are_not_found(site):
    mine, other = site.device(), site.device()
    number = site.assign(mine, site.release())
    for path in (f"/deploymentBase/{number}", f"/cancelAction/{number}", f"/confirmationBase/{number}"):
        assert other.ask(path).status == 404
    assert other.feedback(number) == 404
    assert mine.feedback(10**9) == 404
    assert mine.feedback(10**30) == 400
    assert mine.feedback("x") == 400
    artifact = mine.order()["deployment"]["chunks"][0]["artifacts"][0]["_links"]["download-http"]["href"]
    assert other.ask(artifact.replace(mine.name, other.name)).status == 404
    assert mine.ask(artifact).status == 200


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe",
        b'{"status":{"execution":"closed"}}',
        b'{"status":{"execution":"closed","result":{"finished":"maybe"}}}',
        b'{"status":{"execution":"odd","result":{"finished":"none"}}}',
        b'{"status":{"execution":"closed","result":{"finished":"success"},"code":1e400}}',
        b'{"status":{"execution":"closed","result":{"finished":"success"},"code":99999999999999999999}}',
        b'{"status":{"execution":"closed","result":{"finished":"success"},"details":["\\ud800"]}}',
        b'{"status":{"execution":"closed","result":{"finished":"success"},"details":"text"}}',
        b'{"a":' * 3000 + b"1" + b"}" * 3000,
    ],
)
def test_malformed_feedback_is_400_and_changes_nothing(site, body):
    device = site.device()
    number = site.assign(device, site.release())
    answer = device.ask(f"/deploymentBase/{number}/feedback", "POST", body, Content_Type="application/json")
    assert answer.status == 400
    assert device.state()["updateStatus"] == "pending"


def test_long_words_are_cut_into_pieces(site):
    device = site.device()
    number = site.assign(device, site.release())
    device.feedback(number, "proceeding", "none", details=["x" * 1000])
    entry = site.api.call("GET", f"/targets/{device.name}/actions/{number}/status")["content"][0]
    assert [len(text) for text in entry["messages"]] == [512, 488]


def test_an_action_takes_a_thousand_reports(site):
    device = site.device()
    number = site.assign(device, site.release())
    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(lambda _: device.feedback(number, "proceeding", "none"), range(1010)))
    assert set(statuses) == {200, 429}
    assert statuses.count(200) == 999


def test_download_only_is_done_when_it_is_downloaded(site):
    device = site.device()
    number = site.assign(device, site.release(), type="downloadonly")
    assert device.feedback(number, "downloaded", "none") == 200
    assert device.link("deploymentBase") is None
    assert device.feedback(number) == 410


def test_history_is_shown_to_the_device_when_it_asks(site):
    device = site.device()
    number = site.assign(device, site.release())
    device.feedback(number, "proceeding", "none", details=["first"])
    device.feedback(number, "proceeding", "none", details=["second"])
    href = device.link("deploymentBase")
    assert "actionHistory" not in device.ask(href).json
    history = device.ask(f"{href}&actionHistory=2").json["actionHistory"]
    assert history == {"status": "RUNNING", "messages": ["second", "first"]}


def test_a_device_tells_what_the_factory_installed(site):
    device = site.device()
    release = site.release()
    name = site.api.call("GET", f"/distributionsets/{release}")["name"]
    body = {"name": name, "version": "1.0"}
    assert device.ask("/installedBase", "PUT", body).status == 201
    assert device.ask("/installedBase", "PUT", body).status == 200
    assert device.ask("/installedBase", "PUT", body | {"version": "9"}).status == 404
    assert site.api.call("GET", f"/targets/{device.name}/installedDS")["id"] == release


# -- cancelling ---------------------------------------------------------------------------------------------------


def cancel_feedback(device, number, execution, finished="success"):
    body = {"status": {"execution": execution, "result": {"finished": finished}}}
    return device.ask(f"/cancelAction/{number}/feedback", "POST", body).status


def test_cancelling_goes_by_way_of_the_device(site):
    device = site.device()
    number = site.assign(device, site.release())
    device.order()
    site.api.call("DELETE", f"/targets/{device.name}/actions/{number}")
    href = device.link("cancelAction")
    assert device.ask(href).json == {"id": str(number), "cancelAction": {"stopId": str(number)}}
    assert device.ask(f"/deploymentBase/{number}").status == 404
    assert cancel_feedback(device, number, "canceled") == 200  # hawkBit's trap: nothing happens
    assert device.link("cancelAction")
    assert cancel_feedback(device, number, "closed") == 200
    assert device.poll()["_links"].keys() <= {"configData"}
    assert cancel_feedback(device, number, "closed") == 410
    assert site.api.call("GET", f"/actions/{number}")["status"] == "canceled"


def test_a_device_may_refuse_to_cancel(site):
    device = site.device()
    number = site.assign(device, site.release())
    device.order()
    site.api.call("DELETE", f"/targets/{device.name}/actions/{number}")
    assert cancel_feedback(device, number, "rejected") == 200
    assert device.link("deploymentBase")
    assert cancel_feedback(device, number, "closed") == 405
    assert device.feedback(number) == 200


def test_a_cancelled_update_that_had_happened_all_the_same_counts(site):
    device = site.device()
    number = site.assign(device, site.release())
    device.order()
    site.api.call("DELETE", f"/targets/{device.name}/actions/{number}")
    assert device.feedback(number) == 200
    assert device.state()["updateStatus"] == "in_sync"


def test_a_newer_assignment_cancels_the_older_one_first(site):
    device = site.device()
    first = site.assign(device, site.release())
    second = site.assign(device, site.release())
    assert device.link("cancelAction").endswith(f"/{first}")
    cancel_feedback(device, first, "closed")
    assert f"/deploymentBase/{second}?" in device.link("deploymentBase")


def test_a_required_migration_step_is_never_passed_over(site):
    device = site.device()
    first = site.assign(device, site.release(requiredMigrationStep=True))
    second = site.assign(device, site.release())
    assert f"/deploymentBase/{first}?" in device.link("deploymentBase")
    device.feedback(first)
    assert f"/deploymentBase/{second}?" in device.link("deploymentBase")


def test_the_same_set_is_assigned_once(site):
    device = site.device()
    release = site.release()
    site.assign(device, release)
    done = site.api.call("POST", f"/targets/{device.name}/assignedDS", {"id": release})
    assert (done["assigned"], done["alreadyAssigned"]) == (0, 1)


def test_an_operator_may_stop_waiting(site):
    device = site.device()
    number = site.assign(device, site.release())
    with pytest.raises(ToolError):
        site.api.call("DELETE", f"/targets/{device.name}/actions/{number}", force="true")
    site.api.call("DELETE", f"/targets/{device.name}/actions/{number}")
    site.api.call("DELETE", f"/targets/{device.name}/actions/{number}", force="true")
    assert device.link("cancelAction") is None
    assert cancel_feedback(device, number, "closed") == 410


# -- confirming ---------------------------------------------------------------------------------------------------


@pytest.fixture
def confirming(site):
    site.api.call("PUT", "/system/configs/user.confirmation.flow.enabled", {"value": True})
    yield site
    site.api.call("PUT", "/system/configs/user.confirmation.flow.enabled", {"value": False})


def test_an_update_waits_until_it_is_confirmed(confirming):
    site = confirming
    device = site.device()
    number = site.assign(device, site.release())
    href = device.link("confirmationBase")
    assert device.link("deploymentBase") is None
    assert device.ask(f"/deploymentBase/{number}").status == 404
    assert device.feedback(number) == 404
    asked = device.ask(f"{href}&actionHistory=1").json
    assert set(asked) == {"id", "confirmation", "actionHistory"}
    assert asked["actionHistory"]["status"] == "WAIT_FOR_CONFIRMATION"
    answer = f"/confirmationBase/{number}/feedback"
    assert device.ask(answer, "POST", {"confirmation": "denied", "details": ["not now"]}).status == 200
    assert device.link("confirmationBase")
    assert device.ask(answer, "POST", {"confirmation": "confirmed"}).status == 200
    assert device.ask(answer, "POST", {"confirmation": "confirmed"}).status == 404
    assert device.link("deploymentBase")


def test_an_operator_may_confirm_for_the_device(confirming):
    site = confirming
    device = site.device()
    number = site.assign(device, site.release())
    site.api.call("PUT", f"/targets/{device.name}/actions/{number}/confirmation", {"confirmation": "confirmed"})
    assert device.link("deploymentBase")
    other = site.assign(site.device(), site.release(), confirmationRequired=False)
    assert site.api.call("GET", f"/actions/{other}")["status"] == "running"


def test_auto_confirm_confirms_what_waits_and_what_comes(confirming):
    site = confirming
    device = site.device()
    site.assign(device, site.release())
    state = device.ask("/confirmationBase").json
    assert state["autoConfirm"] == {"active": False, "activatedAt": 0}
    on = state["_links"]["activateAutoConfirm"]["href"]
    assert device.ask(on, "POST", {"initiator": "me", "remark": "why not"}).status == 200
    assert device.ask(on, "POST").status == 409
    assert device.link("deploymentBase")
    state = device.ask("/confirmationBase").json
    assert (state["autoConfirm"]["active"], state["autoConfirm"]["initiator"]) == (True, "me")
    assert device.ask(state["_links"]["deactivateAutoConfirm"]["href"], "POST").status == 200
    assert site.api.call("GET", f"/targets/{device.name}/autoConfirm") == {"active": False}


# -- downloading --------------------------------------------------------------------------------------------------


def test_downloads_resume(site):
    device = site.device()
    content = bytes(range(256)) * 1000
    site.assign(device, site.release(content))
    href = device.order()["deployment"]["chunks"][0]["artifacts"][0]["_links"]["download-http"]["href"]
    whole = device.ask(href)
    etag = whole.headers["etag"]
    assert (whole.status, whole.body, whole.headers["accept-ranges"]) == (200, content, "bytes")
    part = device.ask(href, Range="bytes=100000-", If_Range=etag)
    assert (part.status, part.body) == (206, content[100_000:])
    assert part.headers["content-range"] == f"bytes 100000-{len(content) - 1}/{len(content)}"
    assert device.ask(href, Range="bytes=5-", If_Range='"another"').status == 200
    beyond = device.ask(href, Range=f"bytes={len(content)}-")
    assert (beyond.status, beyond.headers["content-range"]) == (416, f"bytes */{len(content)}")
    head = device.ask(href, "HEAD")
    assert (head.status, head.headers["content-length"], head.body) == (200, str(len(content)), b"")
    history = site.api.call("GET", f"/targets/{device.name}/actions")["content"][0]["id"]
    kinds = site.api.call("GET", f"/targets/{device.name}/actions/{history}/status")["content"]
    assert sum("fetches" in entry["messages"][0] for entry in kinds) == 1  # whole ones only


@pytest.mark.parametrize("name", ["../../sekisho.db", "..%2f..%2fsekisho.db", "%2e%2e/sekisho.db", "nul%00", "x" * 300])
def test_artifact_names_lead_nowhere_else(site, name):
    device = site.device()
    site.assign(device, site.release())
    href = device.order()["deployment"]["chunks"][0]["artifacts"][0]["_links"]["download-http"]["href"]
    assert device.ask(href.rsplit("/", 1)[0] + "/" + name).status in (400, 404)
