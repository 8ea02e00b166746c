"""The update agent against servers that misbehave, on CPython and on MicroPython with a small heap."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import socket
from pathlib import Path

import bad_server
import device_sockets
import pytest
from device import agent_cases
from helpers import micropython
from sekisho import agent, settings

PAYLOAD = b"".join(hashlib.sha256(bytes([i % 251])).digest() for i in range(313))[: agent_cases.SIZE]


class Server(bad_server.BadServer):
    """A bad server that is told over HTTP what to offer next."""

    def sin_serve(self, sock: socket.socket, headers: dict[str, str], path: str) -> None:
        _, _, file, what = path.split("/", 3)
        self.count.clear()
        if file == "keys":
            self.serve_keys(what)
        else:
            self.documents.pop(file, None)
            special = {
                "nothing": None,
                "html": b"<html>not a release</html>",
                "huge": bytes(20000),
                "running": agent_cases.release(1, PAYLOAD, "/good"),
            }
            document = special.get(what, agent_cases.release(7, PAYLOAD, "/" + what))
            if document is not None:
                self.documents[file] = document
        self.head(sock, 200, "Content-Length: 0")

    def serve_keys(self, what: str) -> None:
        for name in [name for name in self.documents if name.startswith("keyset")]:
            del self.documents[name]
        if what == "broken":
            self.documents["keyset.cose"] = b"\xd8\x62\x84\x40"
        elif what != "nothing":
            last = 5 if what == "gap" else int(what)
            links = {f"keyset-{n}.cose": agent_cases.key_set(n) for n in range(1, last + 1)}
            if what == "gap":
                del links["keyset-4.cose"]
            self.documents |= links | {"keyset.cose": agent_cases.key_set(last)}


def on_cpython(*arguments: str) -> str:
    device_sockets.install()
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        agent_cases.main(*arguments)
    return out.getvalue()


def on_micropython(*arguments: str) -> str:
    return micropython.run(f"from device import agent_cases; agent_cases.main(*{arguments!r})", heap="240k")


@pytest.fixture(scope="module", params=[on_cpython, on_micropython])
def answers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        dead = f"http://127.0.0.1:{unused.getsockname()[1]}"
    with Server(PAYLOAD) as server:
        text = request.param(server.url, dead, str(tmp_path_factory.mktemp("data") / "state.json"))
    return dict(line.split(" = ", 1) for line in text.splitlines())


STAGED = "staged: begin 0, stage"
CASES = {
    "payload good": STAGED,
    "payload truncates": STAGED,
    "payload truncates-once": STAGED,
    "payload changes-midway": "staged: begin 0, abort SERVER, begin 0, stage",
    "payload always-changes": "SERVER: begin 0, abort SERVER, begin 0, abort SERVER, begin 0, abort SERVER",
    "payload ignores-range": STAGED,
    "payload no-etag": STAGED,
    "payload loses-the-file": "staged: begin 0, abort SERVER, begin 0, stage",
    "payload wrong-bytes": "IMAGE_DIGEST: begin 0, abort IMAGE_DIGEST",
    "payload says-longer": "SERVER: begin 0",
    "payload says-shorter": "SERVER: begin 0",
    "payload wrong-range": "SERVER: begin 0",
    "payload status/401": "SERVER: begin 0",
    "payload status/404": "SERVER: begin 0",
    "payload status/410": "SERVER: begin 0",
    "payload status/416": "SERVER: begin 0, abort SERVER, begin 0, abort SERVER, begin 0, abort SERVER",
    "payload status/429": "RETRY_LATER: begin 0",
    "payload status/500": "SERVER: begin 0",
    "payload status/503": "RETRY_LATER: begin 0",
    "payload busy-midway": "RETRY_LATER: begin 0",
    "payload chunked": "SERVER: begin 0",
    "payload closes": "NETWORK: begin 0",
    "payload resets": "SERVER: begin 0",
    "payload silent": "NETWORK: begin 0",
    "payload stalls": "NETWORK: begin 0",
    "payload drips": "NETWORK: begin 0",
    "payload redirect": STAGED,
    "payload redirect-away": "SERVER: begin 0",
    "cut truncates": "NETWORK: begin 0",
    "rebooted truncates": "staged: begin 4096, stage",
    "cut ignores-range": "NETWORK: begin 0",
    "rebooted ignores-range": "staged: begin 4096, stage",
    "cut changes-midway": "NETWORK: begin 0",
    "rebooted changes-midway": "staged: begin 4096, abort SERVER, begin 0, stage",
    "connections that bring a sector each": STAGED,
    "no release": "NOTHING: ",
    "not a release": "CBOR: ",
    "too large": "SERVER: ",
    "runs already": "NOTHING: ",
    "asked again": "NOTHING: ",
    "refused": "CLASS: ",
    "not fetched again": "NOTHING: ",
    "engine refuses the bytes, IMAGE_FORMAT": "IMAGE_FORMAT: begin 0, abort IMAGE_FORMAT",
    "engine refuses the bytes, FLASH": "FLASH: begin 0",
    "declined while it is fetched": "DECLINED: begin 0",
    "superseded": "staged: abort NOTHING, begin 0, stage",
    "failed lately": "RETRY_LATER:  True",
    "failed long ago": STAGED,
    "failed before the ticks came round": "86400",
    "a download fails again and again": "[('SERVER', 3, 0, 'RETRY_LATER: ', 2400), "
    "('SERVER', 6, 0, 'RETRY_LATER: ', 19200), ('SERVER', 9, 0, 'RETRY_LATER: ', 86400)]",
    "a trial fails again and again": "[600, 1200, 2400, 38400, 76800, 86400, 86400, 86400]",
    "asked again meanwhile": "[('RETRY_LATER', True), ('RETRY_LATER', True), ('RETRY_LATER', True)]",
    "staged already": "staged:  0",
    "one of two runs already": "[None, None, 'NOTHING']",
    "no server": "NETWORK: ",
    "peers agree": "staged: begin 0, stage",
    "peers agree later": "BUSY: begin 0; BUSY: begin 8192; staged: begin 8192, stage ['stay', 'stay', 'leave']",
    "peers never agree": "BUSY: begin 0; BUSY: begin 8192; BUSY: begin 8192 ['stay', 'stay', 'stay']",
    "peers are dead": "BUSY: begin 0; BUSY: begin 8192; BUSY: begin 8192 ['stay', 'stay', 'stay']",
    "peers, days without a look": "[('BUSY', 3600), ('BUSY', 3600)]",
    "peers are dead, in the end": "24",
    "peers, lock not up": "BUSY: begin 0",
    "peers, staging fails": "FLASH: begin 0 ['leave', 'stay']",
    "restart by order, 3 times no": "3 ['leave']",
    "restart by order, 99 times no": "8 []",
    "delay, always on": "24 0",
    "delay, restarted each minute": "23",
    "delay, restarted, asks once a day": "23",
    "delay, wakes every ten minutes": "143",
    "delay, half of it": "True 36",
    "delay, put off again": "True 0 25",
    "delay, nothing can be kept": "True",
    "delay, and after a restart": "False False",
    "chain": "NOTHING: keyset 2, keyset 3, keyset 4",
    "chain again": "NOTHING: ",
    "next link": "NOTHING: keyset 5",
    "gap": "NOTHING: keyset 2, keyset 3 sekisho: key set 3 accepted",
    "broken": "NOTHING:  sekisho: key set refused: CBOR",
    "sixteen links": "16 NOTHING: keyset 2 keyset 17",
    "and the rest": "1 NOTHING: keyset 18 NOTHING: keyset 18",
    "lost key set": "NO_KEYSET:  staged: keyset 2, keyset 3, begin 0, stage",
    "lost key set, a long way": "[(1, 'NO_KEYSET: '), (16, 'NO_KEYSET: keyset 2'), (3, 'staged: keyset 18')]",
    "lost key set, broken off on the way": "['NO_KEYSET: ', 'NETWORK: keyset 2', "
    "'staged: keyset 3, keyset 4, begin 0, stage']",
    "update all the same": STAGED,
    "no checks": "0 ['confirm']",
    "all agree": "0 ['confirm']",
    "one says no": "193 ['fail HEALTH']",
    "one raises": "193 ['fail HEALTH']",
    "unreachable": "never confirmed [] NETWORK",
    "pauses": "[30, 60, 120, 240, 480, 960, 1920, 3600, 3600] 1",
    "pauses, of a device that asks once a day": "[30, 15360, 30720, 61440, 86400, 86400]",
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.invariant(6)
def test_the_agent_ends_in_an_update_or_a_reason(answers: dict[str, str], case: str) -> None:
    assert answers[case].startswith(CASES[case])


@pytest.mark.requirement("UPD02")
@pytest.mark.rule("retries")
def test_failures_make_the_pauses_longer_and_longer(answers: dict[str, str]) -> None:
    assert answers["pauses"].startswith(CASES["pauses"])


@pytest.mark.requirement("UPD02")
def test_pauses_are_spread_by_an_eighth_so_that_a_fleet_does_not_ask_all_at_once() -> None:
    drawn = [agent.jitter(3600) for _ in range(500)]
    assert all(3150 <= pause < 4050 for pause in drawn)
    assert len({pause // 90 for pause in drawn}) == 10, "every tenth of the range is met"


@pytest.mark.requirement("UPD02")
def test_a_payload_comes_in_one_request_on_one_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device_sockets.install()
    monkeypatch.setattr(settings, "STATE", str(tmp_path / "state.json"))
    with Server(PAYLOAD) as server:
        server.documents["latest.suit"] = agent_cases.release(7, PAYLOAD, "/good")
        updater, _ = agent_cases.device(server.url)
        assert asyncio.run(agent_cases.update(updater)) == STAGED
        asked = [headers for path, headers in server.requests if path == "/good"]
    assert len(asked) == 1
    assert "range" not in asked[0]


def test_every_case_has_an_expected_end(answers: dict[str, str]) -> None:
    assert set(answers) - {"HEALTH, NOTHING"} == set(CASES)
