"""Devices that stand in for each other never restart together: they ask over UDP. On CPython and on MicroPython."""

from __future__ import annotations

import contextlib
import io
import socket

import device_sockets
import pytest
from device import peer_cases
from helpers import micropython


def on_cpython(*ports: int) -> str:
    device_sockets.install()
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        peer_cases.main(*ports)
    return out.getvalue()


def on_micropython(*ports: int) -> str:
    return micropython.run(f"from device import peer_cases; peer_cases.main(*{ports!r})", heap="160k")


def free_ports(count: int) -> list[int]:
    """UDP ports of the machine that nobody uses just now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@pytest.fixture(scope="module", params=[on_cpython, on_micropython])
def answers(request: pytest.FixtureRequest) -> dict[str, str]:
    return dict(line.split(" = ", 1) for line in request.param(*free_ports(3)).splitlines())


SILENT = "BUSY peer 127.0.0.1 does not answer"
CASES = {
    "peer stays": "yes",
    "the other waits meanwhile": "BUSY peer 127.0.0.1 restarts first",
    "promise stands": "BUSY peer 127.0.0.1 restarts first",
    "and may when it is back": "yes",
    "a promise ends by itself": "b''",
    "both at once": "yes | BUSY peer 127.0.0.1",
    "the earlier one keeps its promise": "BUSY peer 127.0.0.1 restarts first",
    "peer is on trial": "BUSY peer 127.0.0.1 says not now",
    "peer restarts": "BUSY peer 127.0.0.1 says not now",
    **{f"two datagrams lost, kind {kind}": "yes" for kind in (1, 2, 3, 5)},
    **{f"all lost, kind {kind}": SILENT for kind in (1, 2, 3, 5)},
    "silent peer": SILENT,
    "a question to another device": "b''",
    "a second one asks": "True True",
    "the first one again": "True",
    "another one is back": "True",
    "it is back itself": "b''",
    "a yes of another one": "2",
    "promised while it asked": "BUSY peer 127.0.0.1 restarts first False",
    "ticks that came round": "True False",
    "another key": SILENT,
    "not a peer of the other": SILENT,
    "a recorded question binds nobody": "b''",
    "nor keeps the other": "yes",
    "a recorded return ends no promise": "True",
    "a recorded yes is no answer": "BUSY peer 127.0.0.1 says not now",
    "a question held back is too late": "b''",
    "another peer's answer is none": SILENT,
    "genuine": "5",
    "taken of 75 others": "0",
    f"setting 'short' {'ab' * 16}@h": "SETTING",
    f"setting '' {'ab' * 16}@h": "SETTING",
    f"setting {peer_cases.SECRET!r} h:1": "SETTING",
    f"setting {peer_cases.SECRET!r} ab@h": "SETTING",
}


@pytest.mark.requirement("UPE09")
@pytest.mark.parametrize("case", CASES)
def test_a_device_restarts_only_when_every_peer_stays(answers: dict[str, str], case: str) -> None:
    assert answers[case].startswith(CASES[case])


def test_every_case_has_an_expected_end(answers: dict[str, str]) -> None:
    assert set(answers) == set(CASES)
