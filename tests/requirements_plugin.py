"""Collects which tests show which requirement of the guideline, and whether they passed.

A test names the ids it shows with ``@pytest.mark.requirement("UPE11", ...)``. Tests in tests/pure, which cannot import
pytest, say it in a module dictionary instead: ``REQUIREMENTS = {"test_name": ("UPE11",)}``. An id that is not in
docs/guideline.toml is an error. With ``--requirements FILE`` the outcomes are written there as JSON:
``{id: {test: "passed" | "failed" | "skipped"}}``, parametrised cases of one function counted together.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable
from pathlib import Path

import pytest

GUIDELINE = Path(__file__).parents[1] / "docs" / "guideline.toml"
WORST_FIRST = ("failed", "skipped", "passed")


def load_guideline() -> dict[str, dict[str, str]]:
    """The requirements by id, in the guideline's order, each with level, asked and answer."""
    return tomllib.loads(GUIDELINE.read_text())


def ids_of(item: pytest.Item) -> list[str]:
    """The requirement ids that *item* carries."""
    marked = [str(name) for mark in item.iter_markers("requirement") for name in mark.args]
    function = getattr(item, "originalname", None) or item.name
    listed = getattr(getattr(item, "module", None), "REQUIREMENTS", {}).get(function, ())
    return sorted({*marked, *listed})


def pytest_addoption(parser: pytest.Parser) -> None:
    """The option that asks for the outcomes."""
    parser.addoption("--requirements", metavar="FILE", help="write which requirement is shown by which test, as JSON")


def pytest_configure(config: pytest.Config) -> None:
    """Collect outcomes where they all arrive: in the one process, or in xdist's controller."""
    if config.getoption("--requirements") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Outcomes(Path(config.getoption("--requirements"))), "requirement-outcomes")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse ids that the guideline does not have, and hand the ids on to the reports."""
    known = load_guideline()
    for item in items:
        ids = ids_of(item)
        unknown = [name for name in ids if name not in known]
        if unknown:
            raise pytest.UsageError(f"{item.nodeid} names requirements that do not exist: {', '.join(unknown)}")
        item.user_properties += [("requirement", name) for name in ids]


class Outcomes:
    """Keeps the worst outcome of each test for each id, and writes them at the end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seen: dict[str, dict[str, str]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note one phase of one test; set-up and tear-down count only when something is wrong with them."""
        if report.when != "call" and report.passed:
            return
        test = report.nodeid.partition("[")[0]
        for kind, name in report.user_properties:
            if kind == "requirement":
                tests = self.seen.setdefault(str(name), {})
                tests[test] = worst((tests.get(test, "passed"), report.outcome))

    def pytest_sessionfinish(self) -> None:
        """Write what was seen."""
        self.path.write_text(json.dumps(self.seen, indent=1, sort_keys=True))


def worst(outcomes: Iterable[str]) -> str:
    """The outcome that decides: failed before skipped before passed."""
    return min(outcomes, key=WORST_FIRST.index)
