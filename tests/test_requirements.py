"""The requirement table: complete, honest about what no test shows, deaf to ids that do not exist."""

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType

import pytest
from requirements_plugin import load_guideline
from sekisho_tools import device_code

pytest_plugins = ["pytester"]

GROUPS = {"ORG": 8, "STS": 16, "UPE": 17, "UPC": 11, "UPD": 11, "SSS": 7, "HLC": 7}


@pytest.fixture
def script(repo: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("requirements_script", repo / "scripts" / "requirements.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def load_the_plugin(pytester: pytest.Pytester, repo: Path) -> None:
    pytester.makeini(f"[pytest]\nmarkers = requirement(*ids): ids\npythonpath = {repo / 'tests'}")
    pytester.makeconftest("pytest_plugins = ['requirements_plugin']")


def test_the_guideline_has_its_77_requirements() -> None:
    expected = [f"{group}{number:02}" for group, size in GROUPS.items() for number in range(1, size + 1)]
    guideline = load_guideline()
    assert len(expected) == 77
    assert list(guideline) == expected
    assert all(set(entry) == {"level", "asked", "answer"} for entry in guideline.values())
    assert {entry["level"] for entry in guideline.values()} == set("ABC")


def test_the_guideline_agrees_with_the_reference(shared_dir: Path) -> None:
    rows = re.findall(r"^\| ([A-Z]{3}\d\d) \| ([ABC]) \|", (shared_dir / "guideline.md").read_text(), re.MULTILINE)
    assert [(name, entry["level"]) for name, entry in load_guideline().items()] == rows


def test_a_row_is_ticked_only_when_all_its_tests_passed(script: ModuleType) -> None:
    assert script.ticked({"a": "passed", "b": "passed"})
    assert not script.ticked({})
    assert not script.ticked({"a": "passed", "b": "failed"})
    assert not script.ticked({"a": "passed", "b": "skipped"})


def test_unticked_rows_stay_visible(script: ModuleType) -> None:
    page = script.render(load_guideline(), {"UPE01": {"tests/test_a.py::test_b": "passed"}})
    rows = re.findall(r"^\| (.) \| ([A-Z]{3}\d\d) \|", page, re.MULTILINE)
    assert len(rows) == 77
    assert [name for tick, name in rows if tick == "✔"] == ["UPE01"]
    assert "1 of 77" in page


def test_the_record_says_for_which_commit_and_engine_it_is(script: ModuleType) -> None:
    seen = {"UPE01": {"tests/test_a.py::test_b": "passed"}}
    clean = script.record(seen, "c0ffee", "")
    assert (clean["commit"], clean["changed"], clean["requirements"]) == ("c0ffee", False, seen)
    assert clean["boot"] == device_code.boot_digest()
    assert script.record(seen, "c0ffee", " M boot/x.py")["changed"]
    unknown = script.record(seen, None, None)  # no git here: nobody can say that nothing was changed
    assert (unknown["commit"], unknown["changed"]) == ("unknown", True)


def test_the_written_page_has_every_requirement(repo: Path) -> None:
    page = (repo / "docs" / "requirements.md").read_text()
    assert re.findall(r"^\| . \| ([A-Z]{3}\d\d) \|", page, re.MULTILINE) == list(load_guideline())


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["alone", "xdist"])
def test_outcomes_are_collected(pytester: pytest.Pytester, repo: Path, workers: tuple[str, ...]) -> None:
    load_the_plugin(pytester, repo)
    pytester.makepyfile(
        """
        import pytest
        REQUIREMENTS = {"test_listed": ("UPE03",)}
        @pytest.mark.requirement("UPE01")
        @pytest.mark.parametrize("n", [1, 2])
        def test_cases(n): assert n == 1
        @pytest.mark.requirement("UPE01", "UPE02")
        def test_good(): pass
        @pytest.mark.requirement("UPE04")
        def test_skipped(): pytest.skip("no")
        @pytest.fixture
        def broken(): raise RuntimeError
        @pytest.mark.requirement("UPE05")
        def test_broken(broken): pass
        def test_listed(): pass
        """
    )
    pytester.runpytest_subprocess("--requirements", "out.json", *workers)
    file = "test_outcomes_are_collected.py"
    assert json.loads((pytester.path / "out.json").read_text()) == {
        "UPE01": {f"{file}::test_cases": "failed", f"{file}::test_good": "passed"},
        "UPE02": {f"{file}::test_good": "passed"},
        "UPE03": {f"{file}::test_listed": "passed"},
        "UPE04": {f"{file}::test_skipped": "skipped"},
        "UPE05": {f"{file}::test_broken": "failed"},
    }


def test_an_unknown_id_stops_the_run(pytester: pytest.Pytester, repo: Path) -> None:
    load_the_plugin(pytester, repo)
    pytester.makepyfile("import pytest\n@pytest.mark.requirement('UPE99')\ndef test_a(): pass\n")
    result = pytester.runpytest_subprocess()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*UPE99*"])
