"""Shared fixtures; importing `device_code` first makes the device packages importable on CPython."""

import gc
import os
from pathlib import Path

import pytest
import sekisho_tools.device_code  # noqa: F401

pytest_plugins = ["requirements_plugin"]

REPO = Path(__file__).parents[1]


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
    """Material that lies beside the checkout, not in it; tests that need it are skipped where it is missing."""
    path = Path(os.environ.get("SEKISHO_SHARED") or REPO.parent / "shared")
    if not path.is_dir():
        pytest.skip(f"needs the reference material at {path} (or SEKISHO_SHARED)")
    return path
