"""Reports that nobody asked for: after updates, when the verdict changes, once per interval; never in vain."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from helpers.desk import ResetError
from helpers.keys import ISSUED
from sekisho import courier, duties, http, record, report, settings, values
from sekisho_boot import reasons
from sekisho_tools import report as desk
from test_door import UPDATE, Device, _folder, device

assert _folder
assert device

DAY = 86_400


class Server:
    """An agent that has the way to a server which takes reports, or answers *status*."""

    def __init__(self, device: Device, status: int = 0, url: str = "/reports") -> None:
        self.device, self.status = device, status
        self.duties, self.takes, self.reports = device.duties, True, url
        self.server, self.ca = "https://updates.example", b"a certificate"
        self.options = settings.load()
        self.got: list[bytes] = []
        self.calls = 0
        self.say = device.said.append

    def call(self) -> None:
        self.calls += 1

    async def send(self, method: str, url: str, body: bytes = b"", kind: str = "") -> bytes:
        if self.status:
            raise http.Failed(reasons.SERVER, "no", 0, self.status)
        self.got.append(body)
        return b""

    def look(self) -> int:
        """One look at the server; how many reports it got by it, the next look included that a report calls for."""
        before = len(self.got)
        for _ in range(2):
            asyncio.run(courier.hand_in(self))
            asyncio.run(self.duties.looked(self, reasons.NOTHING))
        asyncio.run(courier.hand_in(self))
        return len(self.got) - before


@pytest.fixture
def server(device: Device) -> Server:
    found = Server(device)
    assert found.look() == 1, "the first contact"
    return found


def again(server: Server) -> Server:
    """After a restart."""
    server.device.start()
    server.duties = server.device.duties
    return server


@pytest.mark.requirement("SSS01")
def test_the_first_look_brings_one_report_and_the_next_ones_none(server: Server) -> None:
    (document,) = server.got
    told = desk.verify(document, server.duties._key().public)
    assert told.report.device.bytes == server.device.engine.port.device
    assert report.NONCE not in told.report.claims
    assert [server.look() for _ in range(3)] == [0, 0, 0]
    assert [again(server).look() for _ in range(2)] == [0, 0], "nor a restart"


@pytest.mark.requirement("SSS01", "SSS02")
@pytest.mark.parametrize("good", [True, False])
def test_an_update_that_ended_brings_one_whether_it_worked_or_not(server: Server, good: bool) -> None:
    device = server.device
    device.bring(UPDATE)
    device.start()
    if good:
        assert device.engine.confirm() == 0
    else:
        with pytest.raises(ResetError):
            device.engine.fail(reasons.HEALTH)
        device.start()
    server.duties = device.duties
    assert server.look() == 1
    told = desk.parse(server.got[-1])
    assert told.ours[report.LAST][0] == (0 if good else reasons.HEALTH)
    assert server.look() == 0


@pytest.mark.requirement("SSS02")
def test_another_verdict_brings_one_and_so_does_its_end(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.duties.log.kept = False
    monkeypatch.setattr(server.duties.log, "append", lambda *_: False)
    assert server.look() == 1
    assert tuple(desk.parse(server.got[-1]).ours[report.VERDICT]) == ("log-lost",)
    assert server.look() == 0
    server.duties.log.kept = True
    assert server.look() == 1
    assert desk.parse(server.got[-1]).ours[report.VERDICT] == ()


@pytest.mark.requirement("SSS01")
def test_the_interval_of_the_settings_brings_one_and_0_none(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    moment = [ISSUED + 10]
    monkeypatch.setattr(type(server.duties.engine), "now", lambda _: moment[0])
    server.duties._marks["report-at"] = moment[0]
    assert server.look() == 0
    moment[0] += DAY - 1
    assert server.look() == 0
    moment[0] += 1
    assert server.look() == 1
    server.duties.settings.change({"report_every": 1}, values.ORDER)
    moment[0] += 3600
    assert again(server).look() == 1, "the time counts across a restart"
    server.duties.settings.change({"report_every": 0}, values.ORDER)
    moment[0] += 400 * DAY
    assert server.look() == 0


def test_without_a_clock_the_hours_since_the_start_count(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(server.duties.engine), "now", lambda _: ISSUED)
    server.duties._marks["report-at"] = ISSUED
    server.duties._since -= DAY - 5
    assert server.look() == 0
    server.duties._since -= 5
    assert server.look() == 1
    assert server.look() == 0


def test_what_an_order_asked_for_is_not_replaced_by_one_that_nobody_asked_for(server: Server) -> None:
    server.status = 500
    server.device.agent.call = server.call  # type: ignore[method-assign]
    assert server.device.door.order(server.device.order("report", _5=b"\x07")) == 0
    asyncio.run(server.duties.looked(server, reasons.NOTHING))
    server.duties.log.kept = False  # another verdict
    asyncio.run(server.duties.looked(server, reasons.NOTHING))
    assert desk.parse(server.duties.made(server)).claims[report.NONCE] == b"\x07"
    assert server.duties.record.get(record.WANTED) is None


@pytest.mark.parametrize("status", [404, 405])
def test_a_server_that_takes_none_gets_one_try_and_is_remembered(device: Device, status: int) -> None:
    server = Server(device, status)
    assert server.look() == 0
    server.takes = True  # as after a restart
    again(server)
    server.duties._marks["report"] = server.duties._marks["state"] = 0  # nothing waits, and one would be due
    calls = server.calls
    assert server.look() == 0
    assert server.calls == calls, "none was made"
    assert again(Server(device, url="/other")).look() == 1, "another server is another matter"


def test_a_static_server_costs_nothing(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    def slots(*_: Any) -> Any:
        raise AssertionError("the slots were looked at")

    monkeypatch.setattr(duties, "slots", slots)
    asyncio.run(device.duties.looked(device.agent, reasons.NOTHING))
    assert not Path(duties.REPORT).exists()


def test_looking_whether_the_verdict_changed_reads_no_image(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    async def measure(*_: Any) -> bytes:
        raise AssertionError("an image was hashed")

    monkeypatch.setattr(report, "measure", measure)
    assert server.look() == 0


def test_a_report_is_bounded(server: Server) -> None:
    for number in range(100):
        server.duties.log.append(2, 0, number)
    server.duties._marks["state"] = 0
    assert server.look() == 1
    told = desk.parse(server.got[-1])
    assert len(desk.entries(told)) == report.MAX_EVENTS
    assert len(server.got[-1]) < 4096


@pytest.mark.requirement("SSS05")
@pytest.mark.parametrize("server", ["http://updates.example", "https://updates.example"])
def test_what_is_private_goes_only_to_a_server_that_a_certificate_vouches_for(device: Device, server: str) -> None:
    def told(document: bytes) -> set[int]:
        return set(desk.verify(document, device.duties._key().public).report.ours) & set(report.PRIVATE)

    way = Server(device)
    way.server = server
    device.duties.record.update({record.OWNER: b"somebody"})
    before = device.duties.reporter.told
    assert way.look() == 1
    private = server.startswith("https")
    assert told(way.got[-1]) == ({report.OWNER, report.POLICY, report.PENDING, report.EVENTS} if private else set())
    assert (device.duties.reporter.told > before) == private, "entries that were not told are still to be told"
    # An order that came by hand has its report brought by hand, whole; the plain server does not get that one.
    assert device.door.order(device.order("report", _5=b"\x07")) == 0
    asyncio.run(device.duties.looked(way, reasons.NOTHING))
    assert {report.OWNER, report.POLICY} < told(device.duties.report_document())
    assert bool(device.duties.made(way)) == private
