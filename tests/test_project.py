"""The project itself: what is locked, what is built, what the Makefile offers, what is said about security."""

import hashlib
import importlib.util
import json
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from helpers import needs

REPO = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((REPO / "pyproject.toml").read_text())


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"script_{name}", REPO / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.requirement("ORG03")
@pytest.mark.parametrize("name", ["chip.txt", "dev.txt", "firmware.txt", "goosebit.txt"])
def test_every_dependency_is_pinned_and_hashed(name: str) -> None:
    text = re.sub(r"^\s*#.*$", "", (REPO / "requirements" / name).read_text(), flags=re.MULTILINE)
    entries = [entry for entry in re.split(r"\n(?=\S)", text.strip()) if entry.strip()]
    assert entries
    for entry in entries:
        assert re.match(r"[A-Za-z0-9._-]+(\[[a-z,]+\])?==\S+", entry), entry[:60]
        assert "--hash=sha256:" in entry, entry[:60]


@pytest.mark.requirement("ORG03")
def test_what_the_project_asks_for_is_what_is_locked() -> None:
    wanted = [*PYPROJECT["project"]["dependencies"], *PYPROJECT["dependency-groups"]["dev"]]
    names = {re.split(r"[^A-Za-z0-9._-]", entry)[0].lower() for entry in wanted}
    locked = set(re.findall(r"^([a-z0-9._-]+)==", (REPO / "requirements" / "dev.txt").read_text(), re.MULTILINE))
    assert names <= locked


@pytest.mark.requirement("ORG03")
def test_every_dependency_has_a_reason_and_a_licence_on_the_page() -> None:
    page = (REPO / "docs" / "decisions" / "0002-dependencies.md").read_text()
    optional = [entry for group in PYPROJECT["project"]["optional-dependencies"].values() for entry in group]
    for entry in [*PYPROJECT["project"]["dependencies"], *PYPROJECT["dependency-groups"]["dev"], *optional]:
        name = re.split(r"[^A-Za-z0-9._-]", entry)[0]
        assert f"`{name}`" in page, f"docs/decisions/0002-dependencies.md does not name {name}"


@pytest.mark.requirement("ORG03", "UPC09")
def test_the_package_is_reproducible_and_holds_the_device_code(tmp_path: Path) -> None:
    digests = []
    for name in ("a", "b"):
        subprocess.run(
            [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path / name],
            cwd=REPO,
            check=True,
            capture_output=True,
        )
        wheel = next((tmp_path / name).glob("*.whl"))
        digests.append(hashlib.sha256(wheel.read_bytes()).hexdigest())
    assert digests[0] == digests[1]
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    for path in (
        "boot/sekisho_boot/engine.py",
        "lib/sekisho/agent.py",
        "firmware/_boot.py",
        "docs/threat-model.md",
        "LICENSE",
    ):
        assert f"sekisho_tools/_device/{path}" in names


def test_make_help_lists_every_target() -> None:
    done = subprocess.run(["make", "help"], cwd=REPO, capture_output=True, text=True, check=True)
    makefile = (REPO / "Makefile").read_text()
    phony = next(line for line in makefile.splitlines() if line.startswith(".PHONY:")).split()[1:]
    assert set(re.findall(r"^  make ([a-z-]+)", done.stdout, re.MULTILINE)) == set(phony)


def test_ci_runs_what_the_readme_says() -> None:
    lines = (REPO / ".ci" / "run").read_text().splitlines()
    assert [line for line in lines if line.startswith("make ")][:2] == ["make lint", "make test"]
    assert "$ make test" in (REPO / "README.md").read_text()


@pytest.mark.parametrize(
    ("ci", "outcome"), [("true", pytest.fail), ("1", pytest.fail), ("", pytest.skip), ("0", pytest.skip)]
)
def test_ci_fails_where_a_desk_may_skip(ci: str, outcome: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The vectors and the guideline lie beside the checkout: without them CI would be green for nothing."""
    monkeypatch.setenv("CI", ci)
    monkeypatch.setenv("SEKISHO_SHARED", str(tmp_path))
    assert needs.shared(REPO) == tmp_path
    monkeypatch.delenv("SEKISHO_SHARED")
    (tmp_path / "checkout").mkdir()
    with pytest.raises(outcome.Exception, match=r"needs the reference material at .*shared"):
        needs.shared(tmp_path / "checkout")


@pytest.mark.requirement("ORG07", "UPC09")
def test_ci_analyses_all_code_and_leaves_nothing_out_of_the_strict_rules() -> None:
    """Types of desk and device code, security rules of ruff (bandit's), tests with every fuzz finding, power cuts."""
    ran = {line.split()[1] for line in (REPO / ".ci" / "run").read_text().splitlines() if line.startswith("make ")}
    assert {"lint", "test", "powercut", "bench-check"} <= ran
    makefile = (REPO / "Makefile").read_text()
    assert re.search(r"^lint:.*\n(\t.*\n)*\t\$\(BIN\)/ruff check", makefile, re.MULTILINE)
    assert re.search(r"^lint:.*\n(\t.*\n)*.*typecheck", makefile, re.MULTILINE)
    assert {"S", "B", "F"} <= set(PYPROJECT["tool"]["ruff"]["lint"]["select"])
    assert PYPROJECT["tool"]["mypy"]["strict"] is True
    assert "tools/sekisho_tools" in PYPROJECT["tool"]["mypy"]["files"]
    device = (REPO / "scripts" / "typecheck_device.py").read_text()
    assert "boot" in device
    assert "lib" in device


@pytest.mark.requirement("ORG07")
def test_every_module_of_the_engine_that_reads_bytes_from_outside_has_a_fuzz_target() -> None:
    source = (REPO / "tests" / "fuzz" / "targets.py").read_text()
    fuzzed = set(re.findall(r"from sekisho_boot import (\w+)", source)) | set(
        re.findall(r"from sekisho_boot\.(\w+) import", source)
    )
    nothing_read = {
        *("__init__", "flash", "port", "reasons"),  # hardware and names
        *("ed25519", "ed25519_native", "ed25519_table", "sha512", "sha512_native"),  # fixed sizes; vectors instead
    }
    modules = {path.stem for path in (REPO / "boot" / "sekisho_boot").glob("*.py")}
    assert nothing_read <= modules
    assert modules - nothing_read <= fuzzed


@pytest.mark.requirement("ORG01")
def test_the_security_policy_names_this_version() -> None:
    minor = ".".join(PYPROJECT["project"]["version"].split(".")[:2])
    assert f"| {minor}.x | yes" in (REPO / "SECURITY.md").read_text()


FINE = {"name": "typer", "version": "0.29.2", "vulns": []}
BROKEN = {
    "name": "uvicorn",
    "version": "0",
    "vulns": [{"id": "PYSEC-1", "aliases": ["CVE-2"], "fix_versions": ["1.2"]}],
}
UNKNOWN = {"name": "goosebit", "skip_reason": "Dependency not found on PyPI"}


def pip_audit(*dependencies: dict[str, object]) -> SimpleNamespace:
    """What pip-audit says of *dependencies*."""
    code = int(any(one.get("vulns") for one in dependencies))
    return SimpleNamespace(returncode=code, stdout=json.dumps({"dependencies": dependencies, "fixes": []}), stderr="")


@pytest.mark.requirement("ORG01")
@pytest.mark.parametrize(
    ("answer", "code", "told"),
    [
        (pip_audit(FINE), 0, "No known vulnerabilities in what goosebit.txt locks (1)."),
        (pip_audit(FINE, BROKEN, UNKNOWN), 1, "goosebit.txt: uvicorn 0: PYSEC-1 = CVE-2; fixed in 1.2"),
        (SimpleNamespace(returncode=1, stdout="", stderr="ConnectionError: refused"), 2, "not checked"),
        (pip_audit(UNKNOWN), 2, "knows nothing that goosebit.txt locks"),
        (pip_audit(FINE, UNKNOWN), 2, "does not know these of goosebit.txt: goosebit. These were not checked."),
    ],
    ids=["clean", "vulnerable", "offline", "mirror", "partly"],
)
def test_the_audit_tells_clean_from_vulnerable_from_offline(
    answer: SimpleNamespace,
    code: int,
    told: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Whichever of the locked files it is; a finding outranks what cannot be asked about others."""
    audit = script("audit")
    asked: dict[str, list[str]] = {}

    def run(command: list[str], **_: object) -> SimpleNamespace:
        name = Path(command[-1]).name
        asked[name] = command
        return answer if name == "goosebit.txt" else pip_audit(FINE, *[UNKNOWN] * (code == 1))

    monkeypatch.setattr(audit.subprocess, "run", run)
    assert audit.main() == code
    assert told in "".join(capsys.readouterr())
    assert set(asked) == set(script("lock").FILES)
    assert all("--require-hashes" in command for command in asked.values())
