"""Every threat of the guideline has something that stops it, and tests that show it."""

import ast
import tomllib
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
THREATS = tomllib.loads((TESTS.parent / "docs" / "threats.toml").read_text())
STAGES = ["manufacturing", "delivery", "development", "operation", "disposal"]


@cache
def names(file: str) -> frozenset[str]:
    """The test functions of a file of tests."""
    path = TESTS / file
    tree = ast.parse(path.read_text()) if path.exists() else ast.Module([], [])
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def unshown(threats: dict[str, dict[str, object]]) -> list[str]:
    """The threats without a test, or with one that does not exist."""
    bad = []
    for name, entry in threats.items():
        tests = entry["tests"]
        assert isinstance(tests, list)
        found = [test for test in tests if test.partition("::")[2] in names(test.partition("::")[0])]
        if not tests or found != tests:
            bad.append(name)
    return bad


@pytest.mark.requirement("ORG02")
def test_every_threat_is_stopped_and_shown_by_tests() -> None:
    assert unshown(THREATS) == []
    for name, entry in THREATS.items():
        assert set(entry) == {"stage", "threat", "stopped", "tests", "left"}, name
        assert entry["threat"], name
        assert entry["stopped"], name


@pytest.mark.requirement("ORG02")
def test_a_threat_without_a_test_fails_the_check() -> None:
    known = next(iter(THREATS.values()))
    assert unshown({"new": {**known, "tests": []}}) == ["new"]
    assert unshown({"new": {**known, "tests": ["test_threats.py::test_that_nobody_wrote"]}}) == ["new"]
    assert unshown({"new": {**known, "tests": ["test_nowhere.py::test_that_nobody_wrote"]}}) == ["new"]


def test_the_stages_of_a_life_come_in_their_order() -> None:
    stages = [entry["stage"] for entry in THREATS.values()]
    assert stages == sorted(stages, key=STAGES.index)
    assert set(stages) == set(STAGES)
