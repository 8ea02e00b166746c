"""What tests need from the machine: on a desk they are skipped without it; in CI, which installs it, they fail."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NoReturn

import pytest


def lacking(what: str) -> NoReturn:
    """Skip the test because of *what*, or fail it where CI is set."""
    if os.environ.get("CI", "").lower() not in ("", "0", "false"):
        pytest.fail(f"CI must have what this test needs: {what}", pytrace=False)
    pytest.skip(what)


def shared(checkout: Path) -> Path:
    """The reference material beside *checkout*, or where SEKISHO_SHARED says."""
    path = Path(os.environ.get("SEKISHO_SHARED") or checkout.parent / "shared")
    if not path.is_dir():
        lacking(f"needs the reference material at {path} (or SEKISHO_SHARED)")
    return path
