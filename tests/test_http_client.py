"""The device's HTTP client against servers that misbehave, on CPython and on MicroPython with a small heap."""

from __future__ import annotations

import contextlib
import hashlib
import io
import socket

import bad_server
import device_sockets
import pytest
from device import http_cases
from helpers import micropython

PAYLOAD = b"".join(hashlib.sha256(bytes([i % 251])).digest() for i in range(313))[:10000]
CHECK = sum(PAYLOAD) & 0xFFFF
TAIL = sum(PAYLOAD[4096:]) & 0xFFFF


def on_cpython(base: str, dead: str) -> str:
    device_sockets.install()
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        http_cases.main(base, dead)
    return out.getvalue()


def on_micropython(base: str, dead: str) -> str:
    return micropython.run(f"from device import http_cases; http_cases.main({base!r}, {dead!r})", heap="100k")


@pytest.fixture(scope="module", params=[on_cpython, on_micropython])
def answers(request: pytest.FixtureRequest) -> dict[str, str]:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        dead = f"http://127.0.0.1:{unused.getsockname()[1]}"
    with bad_server.BadServer(PAYLOAD) as server:
        text = request.param(server.url, dead)
    return dict(line.split(" = ", 1) for line in text.splitlines())


CASES = {
    "good": f"200 0+10000/10000 {CHECK}",
    "truncates": "NETWORK 0 the server closed the connection",
    "says-longer": "NETWORK 0 the server closed the connection",
    "says-shorter": "200 0+100/100 ",
    "status/204": "SERVER 70 the server answered HTTP 204",
    "status/400": "SERVER 70 ",
    "status/401": "SERVER 70 ",
    "status/403": "SERVER 70 ",
    "status/404": "NOTHING 0 ",
    "status/410": "NOTHING 0 ",
    "status/429": "RETRY_LATER 70 ",
    "status/500": "SERVER 70 ",
    "status/503": "RETRY_LATER 70 ",
    "status/999": "SERVER 70 ",
    "retry-after-years": "RETRY_LATER 86400 ",
    "retry-after/1": "RETRY_LATER 30 ",
    "retry-after/31": "RETRY_LATER 31 ",
    "retry-after/0": "RETRY_LATER 0 ",
    "retry-after/-5": "RETRY_LATER 0 ",
    "retry-after/soon": "RETRY_LATER 0 ",
    "retry-after/Wed,%2021%20Oct%202015%2007:28:00%20GMT": "RETRY_LATER 0 ",
    "no-length": "SERVER 0 the answer has no Content-Length",
    "two-lengths": "SERVER 0 the answer's Content-Length makes no sense",
    "negative-length": "SERVER 0 the answer's Content-Length makes no sense",
    "enormous-length": "SERVER 0 the answer's Content-Length makes no sense",
    "chunked": "SERVER 0 the answer's encoding is not supported",
    "gzip": "SERVER 0 the answer's encoding is not supported",
    "big-head": "SERVER 0 the answer's headers are over 2048 bytes",
    "endless-head": "SERVER 0 the answer's headers are over 2048 bytes",
    "not-http": "SERVER 0 the server does not speak HTTP/1.1",
    "binary": "SERVER 0 the server does not speak HTTP/1.1",
    "odd-headers": f"200 0+4/4 {sum(b'text')}",
    "closes": "NETWORK 0 the server closed the connection without an answer",
    "resets": "NETWORK 0 connection lost",
    "silent": "NETWORK 0 the server stalled or was too slow",
    "stalls": "NETWORK 0 the server stalled or was too slow",
    "drips": "NETWORK 0 the server stalled or was too slow",
    "drips-head": "NETWORK 0 the server stalled or was too slow",
    "redirect": f"200 0+10000/10000 {CHECK}",
    "redirect-loop": "SERVER 0 too many redirects",
    "redirect-away": "SERVER 0 redirect to another server refused",
    "redirect-nowhere": "SERVER 0 not a usable URL",
    "resumed good": f"206 4096+5904/10000 {TAIL}",
    "resumed wrong-range": "SERVER 0 the server sent a range that was not asked for",
    "resumed range-length-differs": "SERVER 0 the answer's Content-Range makes no sense",
    "resumed range-without-header": "SERVER 0 the answer's Content-Range makes no sense",
    "resumed ignores-range": "NETWORK 0 the server closed the connection",
    "resumed status/416": "416 0+0/0 0",
    "resumed changed": f"200 0+10000/10000 {CHECK}",
    "resumed weak": f"206 4096+5904/10000 {TAIL}",
    "unchanged": "304 0+0/0 0",
    "nobody listens": "NETWORK 0 no connection",
    "fetch 9999": "SERVER 10000 bytes where at most 9999 are taken",
    "fetch 10000": "10000",
}


@pytest.mark.parametrize("path", CASES)
def test_answers_every_server_with_a_reason_or_the_right_bytes(answers: dict[str, str], path: str) -> None:
    assert answers[path].startswith(CASES[path])


def test_refuses_urls_it_cannot_use_before_connecting(answers: dict[str, str]) -> None:
    refused = {name: text for name, text in answers.items() if name.startswith("url ")}
    assert len(refused) == len(http_cases.URLS)
    assert all(text.startswith("SERVER 0 ") for text in refused.values()), refused


def test_every_request_has_an_expected_answer(answers: dict[str, str]) -> None:
    assert {name for name in answers if not name.startswith("url ")} == set(CASES)
