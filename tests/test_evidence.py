"""Evidence says for which boot/ it was recorded, and whoever asks learns when that is another one."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from sekisho_tools import device_code

ROOT = Path(__file__).parents[1]


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


evidence = load("evidence")


def record(directory: Path, boot: str) -> None:
    for name in evidence.MADE_BY:
        (directory / f"{name}.json").write_text(json.dumps({"boot": boot}))


def test_evidence_for_this_boot_is_not_mentioned(tmp_path: Path) -> None:
    record(tmp_path, device_code.boot_digest())
    assert evidence.stale(tmp_path) == []


def test_evidence_for_another_boot_is_named_with_the_command_that_renews_it(tmp_path: Path) -> None:
    record(tmp_path, "0" * 64)
    said = evidence.stale(tmp_path)
    assert len(said) == len(evidence.MADE_BY)
    assert said[0].startswith("docs/evidence/powercut.json was recorded for boot/ 0000000000000000")
    assert said[0].endswith("make powercut")


def test_a_campaign_that_was_stopped_is_said_to_be_a_part(tmp_path: Path) -> None:
    record(tmp_path, device_code.boot_digest())
    content = {"boot": device_code.boot_digest(), "missing": ["swap", "download"]}
    (tmp_path / "powercut-full.json").write_text(json.dumps(content))
    (said,) = evidence.stale(tmp_path)
    assert "powercut-full.json" in said
    assert "swap, download" in said


def test_missing_evidence_is_named(tmp_path: Path) -> None:
    assert len(evidence.stale(tmp_path)) == len(evidence.MADE_BY)


def test_the_digest_of_boot_changes_with_every_byte_and_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = device_code.boot_digest()
    shutil.copytree(device_code.BOOT / "sekisho_boot", tmp_path / "sekisho_boot")
    monkeypatch.setattr(device_code, "BOOT", tmp_path)
    assert device_code.boot_digest() == before
    path = tmp_path / "sekisho_boot" / "otadata.py"
    path.write_bytes(path.read_bytes() + b"\n")
    changed = device_code.boot_digest()
    path.rename(path.with_name("other.py"))
    assert len({before, changed, device_code.boot_digest()}) == 3


def test_every_target_that_makes_evidence_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for command in evidence.MADE_BY.values():
        assert f"\n{command.removeprefix('make ')}: " in makefile


def test_every_seeded_bug_still_finds_the_text_that_it_changes() -> None:
    from seeded.bugs import BUGS

    assert len(BUGS) >= 85
    assert len({why for _, _, _, why, _ in BUGS}) == len(BUGS)
    for module, old, new, why, _ in BUGS:
        assert old != new
        source = (device_code.BOOT / "sekisho_boot" / f"{module}.py").read_text()
        assert source.count(old) == 1, why


def test_what_all_tests_share_imports_nothing_of_boot() -> None:
    """Else a seeded bug that breaks an import keeps every test from running, which is no verdict."""
    ask = "import conftest, sys; print([name for name in sys.modules if name.startswith('sekisho_boot')])"
    path = [str(ROOT / room) for room in ("tests", "tools", "host_sim")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout == "[]\n"


def test_the_text_that_a_seeded_bug_leaves_is_python() -> None:
    from seeded.bugs import BUGS

    for module, old, new, why, _ in BUGS:
        source = (device_code.BOOT / "sekisho_boot" / f"{module}.py").read_text()
        compile(source.replace(old, new), why, "exec")


def test_mutants_change_one_thing_each_and_keep_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    mutation = load("mutation")
    found = mutation.mutants("otadata")
    assert len(found) > 80
    assert len({one.name for one in found}) == len(found)
    assert [one.name for one in found] == [one.name for one in mutation.mutants("otadata", sources=False)]
    original = (device_code.BOOT / "sekisho_boot" / "otadata.py").read_text()
    for one in found:
        assert one.constant or one.source != original


def test_mutants_without_effect_are_still_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    mutation = load("mutation")
    names = {one.name for module in mutation.PURE for one in mutation.mutants(module, sources=False)}
    assert set(mutation.EQUIVALENT) <= names
    assert all(mutation.EQUIVALENT.values())
