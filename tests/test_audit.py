"""`make audit`: what the tools run on is what is locked, named in an SBOM, with its licence."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from sekisho_tools import sbom


@pytest.fixture(scope="module")
def audit(repo: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("audit", repo / "scripts" / "audit.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.requirement("ORG03", "ORG06")
def test_the_tools_run_on_what_is_locked(audit: ModuleType) -> None:
    lock = audit.locked()
    document = sbom.for_host()
    assert len(sbom.components(sbom.parse(document))) > 20
    assert audit.compare(document, lock) == []
    assert "cryptography" in audit.compare(document, lock | {"cryptography": "0"})[0]
    assert "not locked" in audit.compare(document, {n: v for n, v in lock.items() if n != "cbor2"})[0]


@pytest.mark.requirement("ORG01")
def test_the_security_policy_answers_what_makers_are_asked(repo: Path) -> None:
    """Each document and command that the policy names is there; `test_docs` follows the links."""
    policy = (repo / "SECURITY.md").read_text()
    for name in (
        "docs/requirements.md",
        "docs/release.md",
        "docs/report.md",
        "docs/runbooks/README.md",
        "docs/keys.md",
    ):
        assert f"({name})" in policy
        assert (repo / name).exists()
    makefile = (repo / "Makefile").read_text()
    for target in re.findall(r"`make ([a-z-]+)`", policy):
        assert f"\n{target}:" in makefile, target
    helped = subprocess.run(
        [sys.executable, "-m", "sekisho_tools", "release", "create", "--help"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "COLUMNS": "200"},
    ).stdout
    for option in re.findall(r"`(--[a-z-]+)`", policy):
        assert option in helped


@pytest.mark.requirement("ORG03", "UPC09")
def test_every_locked_package_is_pinned_by_its_hash(repo: Path) -> None:
    locks = list((repo / "requirements").glob("*.txt"))
    assert len(locks) == 4
    for lock in locks:
        text = lock.read_text()
        packages = [block for block in text.split("\n") if "==" in block and not block.startswith((" ", "#"))]
        assert packages
        for line in packages:
            following = text.split(line, 1)[1].lstrip("\n")
            assert line.endswith("\\"), line
            assert following.startswith("    --hash=sha256:"), line


def test_the_locks_stand_as_the_resolver_writes_them(repo: Path) -> None:
    """A line put in by hand elsewhere than `make lock` puts it would be moved by the next `make lock`."""
    for lock in (repo / "requirements").glob("*.txt"):
        text = lock.read_text()
        names = re.findall(r"^([\w.-]+)==", text, re.MULTILINE)
        assert names == sorted(names)
        for block in re.findall(r"    # via\n((?:    #   .+\n)+)", text):
            users = [line.removeprefix("    #   ") for line in block.splitlines()]
            assert users == sorted(users, key=lambda user: (not user.startswith("sekisho ("), user)), lock.name


def test_licences_are_listed_for_everything_in_the_sbom() -> None:
    listed = sbom.licences()
    named = {one["name"] for one in sbom.components(sbom.parse(sbom.for_host()))}
    assert named <= {name for name, _, _ in listed}
    assert {name: licence for name, _, licence in listed}["cryptography"] == "Apache-2.0 OR BSD-3-Clause"
