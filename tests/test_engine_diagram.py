"""docs/engine.md draws the engine's states; the drawing and the code must say the same."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from sekisho_boot import engine, ledger

PAGE = Path(__file__).parents[1] / "docs" / "engine.md"
PHASES = ("IDLE", "FETCHING", "READY", "TRYING", "SEALING")
LIMITS = {"ENTER": engine.MAX_FAULTS, "ATTEMPT": engine.MAX_ATTEMPTS, "RUN": engine.MAX_RUNS}
RECORDS = {
    name: getattr(ledger, name)
    for name in re.findall(r"^\| \d+ \| ([A-Z]+) \|", (PAGE.parent / "flash-format.md").read_text(), re.MULTILINE)
}
FIRST = ("FETCH", "STAGED", "TRIAL", "CONFIRMING")
"""The records that lead to FETCHING, READY, TRYING and SEALING, one after the other."""


def edges() -> list[tuple[str, str, str]]:
    found = []
    for start, end, label in re.findall(r"^    (\w+) --> (\w+): (.*)$", PAGE.read_text(), re.MULTILINE):
        found += [(start, end, name) for name in re.findall(r"\b[A-Z]{3,}\b", label) if name in RECORDS]
    return found


def state_in(phase: str) -> ledger.State:
    state = ledger.State()
    for name in FIRST[: PHASES.index(phase)]:
        state.apply(RECORDS[name], 1, 1, 7, 0, b"m" * 32, 1)
    assert state.phase == PHASES.index(phase)
    return state


@pytest.mark.parametrize(("start", "end", "record"), edges())
def test_every_arrow_is_what_the_record_does(start, end, record):
    state = state_in(start)
    state.apply(RECORDS[record], 1, 1, 7, 0, b"m" * 32, 1)
    assert PHASES[state.phase] == end


def test_every_record_that_moves_the_phase_is_drawn():
    drawn = {record for _, _, record in edges()}
    moving = set()
    for name, kind in RECORDS.items():
        for phase in PHASES:
            state = state_in(phase)
            state.apply(kind, 1, 1, 7, 0, b"m" * 32, 1)
            if PHASES[state.phase] != phase:
                moving.add(name)
    assert moving - {"HEADER"} <= drawn, "HEADER only begins a snapshot"


@pytest.mark.parametrize(("record", "limit"), LIMITS.items())
def test_the_limits_in_the_drawing_are_those_of_the_code(record, limit):
    assert re.search(rf"{record} \([^)]*\b{limit}\b", PAGE.read_text())
