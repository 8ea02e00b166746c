"""Rollouts of the embedded server: groups, thresholds, silence, and who is told."""

from __future__ import annotations

import hashlib
import hmac
import json
import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from sekisho_tools.errors import ToolError
from sekisho_tools.server.options import Limits, Mail, Webhook
from sekisho_tools.server.tables import notice
from server_fixtures import Device, Site, ask, basic, running
from sqlalchemy import select


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running(tmp_path_factory.mktemp("server")) as found:
        yield found


class Rollout:
    """A rollout over devices of its own."""

    def __init__(self, site: Site, size: int, **body: object) -> None:
        site.count += 1
        self.site = site
        self.name = f"r{site.count}"
        self.devices = [site.device(f"{self.name}-{n}") for n in range(size)]
        given = {
            "name": self.name,
            "distributionSetId": site.release(),
            "targetFilterQuery": f"controllerid=={self.name}-*",
            "silenceTimeout": 600,
        }
        self.id = site.api.call("POST", "/rollouts", given | body)["id"]

    def do(self, deed: str) -> None:
        self.site.api.call("POST", f"/rollouts/{self.id}/{deed}")

    def start(self) -> Rollout:
        self.do("start")
        return self

    def work(self) -> None:
        for _ in range(4):
            self.site.work()

    @property
    def state(self) -> dict:
        return self.site.api.call("GET", f"/rollouts/{self.id}")

    @property
    def totals(self) -> dict[str, int]:
        return {name: count for name, count in self.state["totalTargetsPerStatus"].items() if count}

    @property
    def groups(self) -> list[str]:
        content = self.site.api.call("GET", f"/rollouts/{self.id}/deploygroups")["content"]
        return [group["status"] for group in content]

    def offered(self) -> list[Device]:
        return [device for device in self.devices if device.link("deploymentBase")]

    def finish(self, *devices: Device, finished: str = "success") -> None:
        for device in devices:
            assert device.feedback(device.order()["id"], finished=finished) == 200


CANARY = {
    "groups": [
        {"name": "canary", "targetPercentage": 20},
        {"name": "half", "targetPercentage": 50},
        {"name": "rest", "targetPercentage": 100},
    ],
    "successCondition": {"condition": "THRESHOLD", "expression": "100"},
    "errorCondition": {"condition": "THRESHOLD", "expression": "0"},
}


@pytest.mark.requirement("UPD02")
def test_group_follows_group_as_each_succeeds(site):
    rollout = Rollout(site, 10, **CANARY)
    assert (rollout.state["status"], rollout.totals, rollout.offered()) == ("ready", {"notstarted": 10}, [])
    rollout.start()
    rollout.work()
    canary = rollout.offered()
    assert len(canary) == 2
    rollout.finish(canary[0])
    rollout.work()
    assert len(rollout.offered()) == 1
    rollout.finish(canary[1])
    rollout.work()
    assert rollout.groups == ["finished", "running", "ready"]
    assert len(rollout.offered()) == 4
    rollout.finish(*rollout.offered())
    rollout.work()
    rollout.finish(*rollout.offered())
    rollout.work()
    assert (rollout.state["status"], rollout.totals) == ("finished", {"finished": 10})
    assert all(device.state()["updateStatus"] == "in_sync" for device in rollout.devices)


def test_a_rollout_stops_itself_when_the_canary_fails(site):
    rollout = Rollout(site, 10, **CANARY).start()
    canary = rollout.offered()
    rollout.finish(canary[0], finished="failure")
    rollout.work()
    state = rollout.state
    assert state["status"] == "paused"
    assert state["statusReason"] == "1 of 2 devices of group canary failed or fell silent"
    assert rollout.groups == ["error", "ready", "ready"]
    assert rollout.offered() == []  # not even the other canary, which had not taken it yet
    rollout.work()
    assert rollout.state["status"] == "paused"


def test_a_device_that_has_begun_is_not_left_hanging_by_a_pause(site):
    rollout = Rollout(site, 4, amountGroups=1).start()
    begun = rollout.devices[0]
    number = begun.order()["id"]
    rollout.do("pause")
    assert rollout.offered() == [begun]
    assert begun.feedback(number) == 200
    rollout.do("resume")
    assert len(rollout.offered()) == 3


def test_resuming_goes_on_past_the_errors(site):
    rollout = Rollout(site, 10, **CANARY).start()
    canary = rollout.offered()
    rollout.finish(canary[0], finished="failure")
    rollout.work()
    rollout.do("resume")
    rollout.work()
    rollout.finish(canary[1])
    rollout.work()
    assert rollout.state["status"] == "paused"  # the group ended below its threshold: somebody must decide
    rollout.do("resume")
    rollout.work()
    assert rollout.groups == ["finished", "running", "ready"]


@pytest.mark.requirement("UPD10")
def test_devices_that_took_the_update_and_fell_silent_stop_the_rollout(site):
    rollout = Rollout(site, 10, **CANARY).start()
    canary = rollout.offered()
    canary[0].order()  # takes it, and is never heard of again
    site.clock.pass_seconds(599)
    rollout.work()
    assert rollout.state["status"] == "running"
    site.clock.pass_seconds(2)
    rollout.work()
    assert (rollout.state["status"], rollout.totals["error"]) == ("paused", 1)
    action = site.api.call("GET", f"/targets/{canary[0].name}/actions")["content"][0]
    assert (action["silent"], action["active"]) == (True, True)
    found = site.server.store.look(
        lambda conn: conn.execute(
            select(notice).where(notice.c.kind == "device_silent").order_by(notice.c.id.desc())
        ).first()
    )
    assert found.detail["controllerId"] == canary[0].name
    # It comes back: then it counts as what it says, and its word is taken.
    assert canary[0].feedback(action["id"]) == 200
    rollout.work()
    assert rollout.totals == {"finished": 1, "running": 1, "notstarted": 8}


def test_a_device_that_never_came_for_the_update_is_not_silent(site):
    rollout = Rollout(site, 2, amountGroups=1).start()
    site.clock.pass_seconds(100_000)
    rollout.work()
    assert (rollout.state["status"], rollout.totals) == ("running", {"running": 2})


def test_a_device_that_keeps_polling_is_not_silent(site):
    rollout = Rollout(site, 1, amountGroups=1).start()
    rollout.devices[0].order()
    for _ in range(4):
        site.clock.pass_seconds(400)
        rollout.devices[0].poll()
        rollout.work()
    assert rollout.totals == {"running": 1}


def test_silence_does_not_keep_a_rollout_open_for_ever(site):
    rollout = Rollout(site, 2, amountGroups=1, errorCondition={"expression": "90"}).start()
    rollout.devices[0].order()
    rollout.finish(rollout.devices[1])
    site.clock.pass_seconds(601)
    rollout.work()
    assert (rollout.state["status"], rollout.totals) == ("finished", {"finished": 1, "error": 1})
    site.api.call("POST", f"/rollouts/{rollout.id}/retry")


def test_stopping_cancels_what_is_open(site):
    rollout = Rollout(site, 3, amountGroups=1).start()
    taken = rollout.devices[0]
    taken.order()
    rollout.do("stop")
    assert rollout.state["status"] == "stopping"
    assert [bool(device.link("cancelAction")) for device in rollout.devices] == [True, False, False]
    body = {"status": {"execution": "closed", "result": {"finished": "success"}}}
    assert taken.ask(taken.link("cancelAction") + "/feedback", "POST", body).status == 200
    rollout.work()
    assert (rollout.state["status"], rollout.totals) == ("stopped", {"cancelled": 3})
    with pytest.raises(ToolError):
        rollout.do("resume")


def test_retrying_takes_the_devices_that_failed_and_no_others(site):
    rollout = Rollout(site, 4, amountGroups=1, errorCondition={"expression": "100"}).start()
    with pytest.raises(ToolError):
        rollout.do("retry")  # not while it runs
    rollout.finish(*rollout.devices[:3])
    rollout.finish(rollout.devices[3], finished="failure")
    rollout.work()
    again = site.api.call("POST", f"/rollouts/{rollout.id}/retry")
    assert (again["name"], again["totalTargets"], again["status"]) == (f"{rollout.name}_retry", 1, "ready")
    site.api.call("POST", f"/rollouts/{again['id']}/start")
    assert rollout.offered() == [rollout.devices[3]]


def test_a_group_can_be_made_to_pause_after_success(site):
    rollout = Rollout(
        site,
        4,
        groups=[
            {"name": "canary", "targetPercentage": 25, "successAction": {"action": "PAUSE"}},
            {"name": "rest"},
        ],
    ).start()
    rollout.finish(*rollout.offered())
    rollout.work()
    assert (rollout.state["status"], rollout.state["statusReason"]) == ("paused", "after group canary, as planned")
    rollout.do("resume")
    rollout.work()
    assert len(rollout.offered()) == 3


def test_the_next_group_can_be_begun_by_hand(site):
    rollout = Rollout(site, 4, amountGroups=2).start()
    rollout.do("triggerNextGroup")
    assert len(rollout.offered()) == 4
    with pytest.raises(ToolError):
        rollout.do("triggerNextGroup")


def test_a_rollout_begins_at_its_time(site):
    rollout = Rollout(site, 1, startAt=site.clock.now + 60_000)
    rollout.work()
    assert rollout.state["status"] == "ready"
    site.clock.pass_seconds(61)
    rollout.work()
    assert rollout.state["status"] == "running"


def test_groups_by_filter(site):
    rollout = Rollout(
        site,
        3,
        groups=[{"name": "one", "targetFilterQuery": "controllerid==*-2"}, {"name": "rest"}],
    ).start()
    assert [device.name[-1] for device in rollout.offered()] == ["2"]


@pytest.mark.parametrize(
    "body",
    [
        {"targetFilterQuery": "controllerid==nobody-at-all"},
        {"targetFilterQuery": "nonsense"},
        {"distributionSetId": 10**9},
        {"groups": []},
        {"groups": [{"targetPercentage": 0}]},
        {"groups": [{"targetPercentage": 50}]},
        {"groups": [{}], "amountGroups": 2},
        {"errorCondition": {"expression": "-1"}},
        {"errorCondition": {"expression": "101"}},
        {"type": "timeforced"},
        {"type": "maybe"},
        {"silenceTimeout": 1},
    ],
)
def test_odd_rollouts_are_refused(site, body):
    with pytest.raises(ToolError):
        Rollout(site, 3, **body)


def test_somebody_else_must_approve(site):
    site.api.call("PUT", "/system/configs/rollout.approval.enabled", {"value": True})
    try:
        rollout = Rollout(site, 1)
    finally:
        site.api.call("PUT", "/system/configs/rollout.approval.enabled", {"value": False})
    assert rollout.state["status"] == "waiting_for_approval"
    with pytest.raises(ToolError):
        rollout.do("start")
    with pytest.raises(ToolError) as caught:
        rollout.do("approve")
    assert caught.value.code == "RIGHTS"
    url = f"{site.url}/rest/v1/rollouts/{rollout.id}"
    assert ask(f"{url}/deny?remark=why", "POST", None, basic("op")).status == 204
    assert rollout.state["approvalRemark"] == "why"
    assert ask(f"{url}/approve", "POST", None, basic("op")).status == 204
    rollout.start()
    assert rollout.offered()


def test_a_running_rollout_survives_a_restart(tmp_path):
    with running(tmp_path) as site:
        rollout = Rollout(site, 10, **CANARY).start()
        rollout.finish(*rollout.offered())
    from sekisho_tools.server.run import EmbeddedServer

    with EmbeddedServer(tmp_path, clock=site.clock) as server:
        for _ in range(100):
            if (
                ask(f"{server.url}/rest/v1/rollouts/{rollout.id}/deploygroups", headers=basic("admin")).json["content"][
                    1
                ]["status"]
                == "running"
            ):
                break
            time.sleep(0.1)
        else:
            raise AssertionError


# -- notifications ------------------------------------------------------------------------------------------------


@contextmanager
def hook(statuses: list[int]) -> Iterator[tuple[str, list[tuple[dict, bytes]]]]:
    """A receiver of webhooks that answers *statuses* one after the other, the last one for ever."""
    taken: list[tuple[dict, bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            taken.append((dict(self.headers), body))
            self.send_response(statuses.pop(0) if len(statuses) > 1 else statuses[0])
            self.send_header("Location", "http://127.0.0.1:1/elsewhere")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/hook", taken
        server.shutdown()


@contextmanager
def mailbox() -> Iterator[tuple[int, list[str]]]:
    """A mail server that takes everything."""
    taken: list[str] = []

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(b"220 test\r\n")
            while line := self.rfile.readline().decode().strip():
                word = line.split()[0].upper()
                if word == "DATA":
                    self.wfile.write(b"354 go on\r\n")
                    lines = []
                    while (text := self.rfile.readline().decode().rstrip("\r\n")) != ".":
                        lines.append(text)
                    taken.append("\n".join(lines))
                self.wfile.write(b"221 bye\r\n" if word == "QUIT" else b"250 ok\r\n")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1], taken
        server.shutdown()


def until(condition, seconds: float = 15) -> None:
    for _ in range(int(seconds * 20)):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError


@pytest.mark.requirement("UPD10")
def test_failures_and_endings_are_told_by_webhook_and_mail(tmp_path):
    with hook([204]) as (url, posts), mailbox() as (port, mails):
        mail = Mail("127.0.0.1", port, "none", sender="fleet@example.com", to=("ops@example.com", "boss@example.com"))
        with running(tmp_path, webhook=Webhook(url, "shared secret"), mail=mail) as site:
            rollout = Rollout(site, 2, amountGroups=1).start()
            rollout.finish(rollout.devices[0], finished="failure")
            rollout.finish(rollout.devices[1])
            rollout.work()
            until(lambda: len(posts) == 2 and len(mails) == 2)
        kinds = [json.loads(body)["kind"] for _, body in posts]
        assert kinds == ["device_failed", "rollout_finished"]
        detail = json.loads(posts[0][1])["detail"]
        assert (detail["controllerId"], detail["rollout"]) == (rollout.devices[0].name, rollout.name)
        seal = hmac.new(b"shared secret", posts[0][1], hashlib.sha256).hexdigest()
        assert posts[0][0]["X-Sekisho-Signature"] == f"sha256={seal}"
        assert "To: ops@example.com, boss@example.com" in mails[0]
        assert f"Subject: [sekisho] Update failed on {rollout.devices[0].name}" in mails[0]


@pytest.mark.requirement("UPD10")
def test_silence_and_a_rollout_that_stopped_itself_are_told_by_webhook_and_mail(tmp_path):
    with hook([204]) as (url, posts), mailbox() as (port, mails):
        mail = Mail("127.0.0.1", port, "none", sender="fleet@example.com", to=("ops@example.com",))
        with running(tmp_path, webhook=Webhook(url), mail=mail) as site:
            rollout = Rollout(site, 10, **CANARY).start()
            silent = rollout.offered()[0]
            silent.order()
            site.clock.pass_seconds(601)
            rollout.work()
            until(lambda: len(posts) == 2 and len(mails) == 2)
        told = [json.loads(body) for _, body in posts]
        assert [one["kind"] for one in told] == ["device_silent", "rollout_paused_by_itself"]
        assert told[0]["detail"]["controllerId"] == silent.name
        assert told[1]["detail"]["reason"] == "1 of 2 devices of group canary failed or fell silent"
        assert f"Subject: [sekisho] {silent.name} took an update and fell silent" in mails[0]
        assert f"Subject: [sekisho] Rollout {rollout.name} has stopped itself" in mails[1]


def test_a_receiver_that_speaks_no_http_keeps_no_other_notification_back(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as listener, mailbox() as (port, mails):

        def babble() -> None:
            while True:
                try:
                    line, _ = listener.accept()
                except OSError:
                    return
                with line:
                    line.recv(65536)
                    line.sendall(b"this is no HTTP at all\r\n\r\n")

        threading.Thread(target=babble, daemon=True).start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        mail = Mail("127.0.0.1", port, "none", sender="fleet@example.com", to=("ops@example.com",))
        with running(tmp_path, webhook=Webhook(url), mail=mail) as site:
            for _ in range(2):
                device = site.device()
                device.feedback(site.assign(device, site.release()), finished="failure")
            until(lambda: len(mails) == 2)
            look = select(notice.c.tries, notice.c.webhook, notice.c.mail)
            until(
                lambda: (
                    [tuple(row) for row in site.server.store.look(lambda conn: conn.execute(look).all())]
                    == [(1, "waiting", "sent")] * 2
                )
            )
        listener.shutdown(socket.SHUT_RDWR)


@pytest.mark.requirement("UPD10")
def test_a_receiver_that_is_down_is_told_later_and_once(tmp_path):
    with hook([500, 302, 204]) as (url, posts), running(tmp_path, webhook=Webhook(url)) as site:
        device = site.device()
        number = site.assign(device, site.release())
        device.feedback(number, finished="failure", details=["<b>bold</b>"])
        until(lambda: len(posts) == 1)
        for count in (2, 3):
            site.clock.pass_seconds(100)
            until(lambda count=count: len(posts) == count)
        until(
            lambda: (
                site.server.store.look(lambda conn: conn.execute(select(notice.c.webhook, notice.c.mail)).one())
                == ("sent", "off")
            )
        )
        site.clock.pass_seconds(10_000)
        site.work()
        time.sleep(0.3)
        assert len(posts) == 3


def test_resuming_once_is_enough_when_the_whole_canary_failed(site):
    release = site.release()
    fleet = [site.device() for _ in range(4)]
    query = "controllerid=in=(" + ",".join(device.name for device in fleet) + ")"
    strict = {"successCondition": {"expression": "90"}, "errorCondition": {"expression": "0"}}
    groups = [{"name": "canary", "targetPercentage": 25} | strict, {"name": "rest", "targetPercentage": 100} | strict]
    body = {"name": "once", "distributionSetId": release, "targetFilterQuery": query, "groups": groups}
    number = site.api.call("POST", "/rollouts", body)["id"]
    site.api.call("POST", f"/rollouts/{number}/start")
    first = next(device for device in fleet if device.link("deploymentBase"))
    first.feedback(first.order()["id"], finished="failure")
    site.work()
    assert site.api.call("GET", f"/rollouts/{number}")["status"] == "paused"
    site.api.call("POST", f"/rollouts/{number}/resume")
    site.work()
    assert site.api.call("GET", f"/rollouts/{number}")["status"] == "running"
    assert sum(device.link("deploymentBase") is not None for device in fleet) == 3


@pytest.mark.requirement("UPD06")
def test_a_flood_is_told_once(tmp_path):
    with running(tmp_path, limits=Limits(address_reads=0, address_writes=0, device=0, failures=0, alarm=20)) as site:
        url = f"{site.url}/DEFAULT/controller/v1/nobody"

        def told() -> list[str]:
            site.work()
            return site.server.store.look(
                lambda conn: conn.execute(select(notice.c.subject).where(notice.c.kind == "requests_refused")).scalars()
            ).all()

        assert told() == []
        for _ in range(25):
            ask(url, headers={"Authorization": "TargetToken guessed-guessed-guessed"})
        assert told() == told() == ["25 requests were refused in 60 seconds"]
        for _ in range(25):
            ask(url, headers={"Authorization": "TargetToken guessed-guessed-guessed"})
        assert len(told()) == 1  # not again within the hour
        for _ in range(20):
            site.clock.pass_seconds(400)
            for _ in range(2):
                ask(url, headers={"Authorization": "TargetToken guessed-guessed-guessed"})
            site.work()
        assert len(told()) == 1  # spread over hours it is no flood
