"""Shared fixtures; importing `device_code` first makes the device packages importable on CPython.

Nothing of boot/ is imported here: a bug that was seeded into it is for the tests to find.
"""

from __future__ import annotations

import gc
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import sekisho_tools.device_code  # noqa: F401
from helpers import needs
from sekisho_tools import leftovers

if TYPE_CHECKING:
    from helpers.company import Company

pytest_plugins = ["requirements_plugin"]

REPO = Path(__file__).parents[1]


def pytest_sessionstart() -> None:
    """Test runs that were killed leave 64 MiB in memory with each simulator."""
    leftovers.sweep(leftovers.place())


def pytest_collection_finish() -> None:
    """Device code collects garbage often, which is cheap on a chip: what is here already is not looked at again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def repo() -> Path:
    """The root of the checkout."""
    return REPO


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """Material that lies beside the checkout, not in it; where it is missing, tests that need it are skipped, in CI
    they fail."""
    return needs.shared(REPO)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A headless Chromium (playwright's Browser), Debian's or that of SEKISHO_CHROMIUM."""
    path = os.environ.get("SEKISHO_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if not path:
        needs.lacking("needs Chromium (Debian: apt-get install chromium), or its path in SEKISHO_CHROMIUM")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture
def company(
    tmp_path_factory: pytest.TempPathFactory,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Company:
    """A desk with keys, key sets and releases, in the working directory."""
    from helpers import company as companies

    return companies.open_company(tmp_path_factory, tmp_path, capsys, monkeypatch)
