"""The DDI agent against a server that misbehaves, on CPython and on MicroPython with a small heap.

Each expectation (golden/ddi-agent.txt) reads: what one poll came to | what was asked of the engine | what the server
heard.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
from pathlib import Path

import ddi_server
import device_sockets
import pytest
from device import agent_cases, ddi_cases
from helpers import micropython

PAYLOAD = b"".join(hashlib.sha256(bytes([i % 251])).digest() for i in range(313))[: agent_cases.SIZE]
RELEASES = {"good": agent_cases.release(7, PAYLOAD, ""), "running": agent_cases.release(1, PAYLOAD, "")}
RELEASES["big"] = agent_cases.release(7, ddi_server.BIG, "")
KEY_SETS = [agent_cases.key_set(max(number, 1)) for number in range(6)]


def on_cpython(*arguments: str) -> str:
    device_sockets.install()
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        ddi_cases.main(*arguments)
    return out.getvalue()


def on_micropython(*arguments: str) -> str:
    return micropython.run(f"from device import ddi_cases; ddi_cases.main(*{arguments!r})", heap="280k")


@pytest.fixture(scope="module", params=[on_cpython, on_micropython])
def answers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    with ddi_server.DdiServer(PAYLOAD, RELEASES, KEY_SETS) as server:
        text = request.param(server.url, str(tmp_path_factory.mktemp("data")))
    text = re.sub(r"localhost:\d+", "localhost", text)
    text = re.sub(r"\(\[Errno 104\] [^)]*\)", "(reset)", text)  # each interpreter has words of its own
    return {name: rest.rstrip() for name, rest in (line.split(" = ", 1) for line in text.splitlines())}


EXPECTED = Path(__file__).parent / "golden" / "ddi-agent.txt"
CASES = {name: rest for name, _, rest in (line.partition(" = ") for line in EXPECTED.read_text().splitlines())}
SHOWN = {
    "UPE04": ("user not asked yet", "user is not enough", "administrator declines"),
    "UPE05": ("switched off",),
    "UPE06": ("user agrees", "user not asked", "user says yes after all"),
    "UPE08": ("own window shut", "download only", "window opens"),
    "UPD01": ("deployed", "confirmed"),
    "UPD05": ("sleep PT1H30M", "download only", "window shut at the last moment", "application is busy, forced"),
}
"""Guideline id -> the cases that show it."""


@pytest.mark.parametrize("case", CASES)
def test_the_agent_ends_in_an_update_or_a_reason(answers: dict[str, str], case: str) -> None:
    assert answers[case] == CASES[case]


def test_every_case_has_an_expected_end(answers: dict[str, str]) -> None:
    assert set(answers) == set(CASES)


@pytest.mark.parametrize("asked", [pytest.param(SHOWN[id], marks=pytest.mark.requirement(id), id=id) for id in SHOWN])
def test_people_and_the_server_decide_when_an_update_starts(answers: dict[str, str], asked: tuple[str, ...]) -> None:
    assert all(answers[case] == CASES[case] for case in asked)


def test_the_token_goes_to_no_other_origin(answers: dict[str, str]) -> None:
    assert not any("elsewhere with token" in text for text in answers.values())
    assert "elsewhere without token" in answers["from a mirror"]


def test_an_update_takes_at_most_40_kb_beyond_the_imports(tmp_path: Path) -> None:
    """With the objects of a 64-bit build, which are twice as large as a chip's."""
    with ddi_server.DdiServer(PAYLOAD, RELEASES, KEY_SETS) as server:
        program = f"from device import ddi_memory; ddi_memory.main({server.url!r}, {str(tmp_path)!r}, {{}})"
        assert micropython.run(program.format(40 << 10), heap="400k").strip() == "True"
