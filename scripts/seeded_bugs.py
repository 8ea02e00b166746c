"""Puts each bug of tests/seeded/bugs.py into a copy of the checkout and shows what catches it.

    python scripts/seeded_bugs.py                    all of them; writes docs/evidence/seeded-bugs.md
    python scripts/seeded_bugs.py --only 3,17        some, with what the tests and the campaign printed

Two judges look at each bug, apart from each other: the tests that cover the module, and, where the bug changes what
happens to flash, a reduced power-cut campaign (the scenarios named with the bug; one seed; the first failure ends it).
Exit 1 when a bug is caught by neither.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tools")]

from seeded.bugs import BUGS  # noqa: E402
from sekisho_tools import device_code  # noqa: E402
from sekisho_tools.files import write_atomic  # noqa: E402

EVIDENCE = ROOT / "docs" / "evidence"
LIMIT = 300
"""Seconds until tests or campaign count as failed because they hang."""

_ENGINE_TESTS = (
    "tests/test_engine.py",
    "tests/test_engine_invariants.py",
    "tests/test_engine_promises.py",
    "tests/test_digests.py",
    "tests/test_engine_edges.py",
)
_DOCUMENT_TESTS = ("tests/pure/test_suit.py", "tests/pure/test_cose.py", "tests/pure/test_keyset.py")
TESTS = {
    "flash": ("tests/test_otadata.py", "tests/test_ledger_model.py", *_ENGINE_TESTS),
    "otadata": (*_ENGINE_TESTS, "tests/test_otadata.py"),
    "ledger": (*_ENGINE_TESTS, "tests/test_ledger_model.py"),
    "suit": (*_DOCUMENT_TESTS, *_ENGINE_TESTS),
    "cose": (*_DOCUMENT_TESTS, "tests/test_keyset_tuf.py", *_ENGINE_TESTS),
    "image": ("tests/pure/test_image.py", "tests/test_image_agreement.py", "tests/test_port.py", *_ENGINE_TESTS),
    "port": ("tests/test_port.py",),
    "ed25519": ("tests/pure/test_points.py", "tests/test_ed25519.py", "tests/test_ed25519_native.py"),
    "ed25519_native": ("tests/test_ed25519_native.py",),
    "sha512": ("tests/test_sha512.py", "tests/test_ed25519.py"),
    "sha512_native": ("tests/test_sha512.py",),
    "keyset": (*_DOCUMENT_TESTS, "tests/test_keyset_tuf.py", *_ENGINE_TESTS),
}
"""Tests that cover a module; every other module: `_ENGINE_TESTS`."""


CONTROL = -1
"""No bug at all: must not be caught."""


@dataclass(frozen=True)
class Verdict:
    """What caught a bug: the first failing test and the first failing case, empty where nothing did."""

    number: int
    module: str
    why: str
    test: str
    case: str
    cut: bool
    output: str

    @property
    def caught(self) -> bool:
        """Whether anything did."""
        return bool(self.test or self.case)


def plant(tree: Path, number: int) -> None:
    """Puts bug *number* into the copy of the checkout at *tree*."""
    module, old, new, why, _ = BUGS[number]
    path = tree / "boot" / "sekisho_boot" / f"{module}.py"
    source = path.read_text()
    if source.count(old) != 1:
        raise SystemExit(
            f"error[SEEDED]: bug {number} ({why}): its text occurs {source.count(old)} times in {path.name}."
        )
    path.write_text(source.replace(old, new))


def _run(tree: Path, *command: str) -> tuple[int, str]:
    environment = {
        **os.environ,
        "PYTHONPATH": f"{tree / 'tools'}:{tree / 'host_sim'}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "SEKISHO_SEEDED": "1",
    }
    with subprocess.Popen(
        [sys.executable, *command],
        cwd=tree,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            output, _ = process.communicate(timeout=LIMIT)
            status = process.returncode
        except subprocess.TimeoutExpired:
            status, output = 1, "FAILED test_timeout.py"
        finally:
            with suppress(ProcessLookupError):  # whatever it left behind
                os.killpg(process.pid, signal.SIGKILL)
    return status, output


def recorded() -> dict[str, str]:
    """What caught each bug the last time, by the bug's description: looked at first, which saves most of the time."""
    try:
        rows = json.loads((EVIDENCE / "seeded-bugs.json").read_text())["bugs"]
    except (OSError, KeyError, ValueError):
        return {}
    return {row["bug"]: row["test"] for row in rows if row["test"]}


def _tests(tree: Path, module: str, hint: str) -> tuple[int, str]:
    """Status and output of the tests that cover a module, until the first failure; *hint* is tried first."""
    options = ("-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--no-header", "--hypothesis-seed=1")
    file = hint.partition("::")[0]
    folder = "tests/pure" if (tree / "tests" / "pure" / file).is_file() else "tests"
    if hint and (tree / folder / file).is_file():
        status, output = _run(tree, *options, f"{folder}/{hint}")
        if status == 1:
            return status, output
    return _run(tree, *options, *TESTS.get(module, _ENGINE_TESTS))


def judge(number: int, hint: str = "") -> Verdict:
    """Runs tests and campaign against one bug."""
    module, _, _, why, scenarios = BUGS[number] if number != CONTROL else ("ledger", "", "", "none", "swap")
    with tempfile.TemporaryDirectory(prefix="sekisho-bug-") as name:
        tree = Path(name)
        for room in ("boot", "lib", "tools", "host_sim", "tests", "firmware", "docs"):
            shutil.copytree(ROOT / room, tree / room, ignore=shutil.ignore_patterns("__pycache__", "node_modules"))
        shutil.copy(ROOT / "pyproject.toml", tree)
        if number != CONTROL:
            plant(tree, number)
        status, output = _tests(tree, module, hint)
        found = re.search(r"^(?:FAILED|ERROR) \S*?(test_\w+\.py(?:::\S+)?)", output, re.MULTILINE)
        if status and (status != 1 or not found):
            raise SystemExit(f"error[SEEDED]: the tests did not run with bug {number} ({why}):\n{output[-3000:]}")
        test = found[1] if found else ""
        case = ""
        if scenarios:
            status, printed = _run(
                tree, "-m", "sekisho_sim.campaign", "--smoke", "--first-failure", "--workers", "1", "--only", scenarios
            )
            output += printed
            hit = re.search(r"^FAIL (\S+?):? ", printed, re.MULTILINE)
            case = (hit[1].rstrip(":") if hit else "campaign error") if status else ""
    return Verdict(number, module, why, test, case, bool(scenarios), output)


def table(verdicts: list[Verdict], took: float) -> str:
    """The page in docs/evidence."""
    caught = sum(one.caught for one in verdicts)
    cut = [one for one in verdicts if one.cut]
    rows = "\n".join(
        f"| {one.number} | `{one.module}` | {one.why} | {f'`{one.test}`' if one.test else '-'} "
        f"| {f'`{one.case}`' if one.case else '-' if one.cut else 'not run'} |"
        for one in verdicts
    )
    return f"""# Seeded bugs

Written by `make seeded-bugs`; do not edit. Recorded for boot/ {device_code.boot_digest()[:16]}. Each line of
`tests/seeded/bugs.py` breaks boot/ in one place. *Test*: the first test that fails (one that caught the bug before is
tried first). *Campaign*: the first power-cut case that fails, of the few scenarios that reach the change.

**{caught} of {len(verdicts)} bugs are caught**; the campaign by itself catches {sum(bool(one.case) for one in cut)} of
the {len(cut)} that it was run against. {took:.0f} seconds.

| | module | bug | test | campaign |
|---:|---|---|---|---|
{rows}
"""


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", help="numbers of bugs, comma-separated; prints everything, writes nothing")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    numbers = [int(one) for one in options.only.split(",")] if options.only else list(range(len(BUGS)))
    began = time.monotonic()
    control = judge(CONTROL)
    if control.caught:
        raise SystemExit(
            f"error[SEEDED]: without a bug there are failures: {control.test} {control.case}\n{control.output}"
        )
    hints = recorded()
    with ThreadPoolExecutor(options.workers) as pool:
        verdicts = []
        for one in pool.map(judge, numbers, [hints.get(BUGS[number][3], "") for number in numbers]):
            verdicts.append(one)
            said = "caught" if one.caught else "MISSED"
            print(f"{one.number:3} {said} {one.why}: {one.test or '-'}, {one.case or '-'}", flush=True)
            if options.only:
                print(one.output)
    took = time.monotonic() - began
    missed = [one for one in verdicts if not one.caught]
    print(f"{len(verdicts) - len(missed)} of {len(verdicts)} seeded bugs are caught; {took:.0f} s")
    if not options.only:
        write_atomic(EVIDENCE / "seeded-bugs.md", table(verdicts, took).encode())
        bugs = [{"module": one.module, "bug": one.why, "test": one.test, "case": one.case} for one in verdicts]
        content = {"boot": device_code.boot_digest(), "seconds": round(took), "caught": len(verdicts) - len(missed)}
        content_bytes = json.dumps({**content, "bugs": bugs}, indent=1).encode() + b"\n"
        write_atomic(EVIDENCE / "seeded-bugs.json", content_bytes)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
