"""Runs the tests and writes docs/requirements.md: every requirement of the guideline and whether tests show it.

The same goes to docs/evidence/requirements.json, with commit and date, for auditors (`sekisho audit bundle`).

A requirement is ticked only when at least one test carries its id and every one of them passed; a skipped test is not
a passed one. The exit code is pytest's, so a failing test fails here too, after the page is written.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sekisho_tools import audit, device_code

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "requirements.md"
RECORD = ROOT / "docs" / "evidence" / audit.RECORD
sys.path.insert(0, str(ROOT / "tests"))

from requirements_plugin import load_guideline  # noqa: E402

HEAD = """\
# Requirements

What the CCDS guideline "software update function" 1.0 asks of an IoT device (paraphrased), what answers it here, and
the tests that show it. `make requirements` runs the tests and writes this page; it is not edited by hand.

A tick (✔) means: at least one test carries the id and all of them passed. A row without a tick is not shown by a test
yet, whatever the answer column promises. Level A is nearly always needed, B depends on the use case, C is for higher
security. The simulator stands in for the chip in these tests.

"""

MARKS = {"passed": "✔", "failed": "✘ failed", "skipped": "skipped"}


def ticked(tests: dict[str, str]) -> bool:
    """Whether *tests* (test -> outcome) show their requirement."""
    return bool(tests) and set(tests.values()) == {"passed"}


def render(guideline: dict[str, dict[str, str]], seen: dict[str, dict[str, str]]) -> str:
    """The page as Markdown."""
    rows = []
    count = dict.fromkeys("ABC", 0)
    done = dict.fromkeys("ABC", 0)
    for name, entry in guideline.items():
        tests = seen.get(name, {})
        count[entry["level"]] += 1
        done[entry["level"]] += ticked(tests)
        shown = "<br>".join(
            f"`{test.removeprefix('tests/')}`" + ("" if outcome == "passed" else f" ({MARKS[outcome]})")
            for test, outcome in sorted(tests.items())
        )
        tick = "✔" if ticked(tests) else " "
        rows.append(f"| {tick} | {name} | {entry['level']} | {entry['asked']} | {entry['answer']} | {shown} |")
    total = ", ".join(f"{level}: {done[level]} of {count[level]}" for level in "ABC")
    return (
        HEAD
        + f"Shown by tests: {sum(done.values())} of {len(guideline)} ({total}).\n\n"
        + "| | id | level | asked | answered by | tests |\n|---|---|---|---|---|---|\n"
        + "\n".join(rows)
        + "\n"
    )


def _git(*words: str) -> str | None:
    """What git says of this checkout, or None where it is none."""
    try:
        done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def record(seen: dict[str, dict[str, str]], commit: str | None, changed: str | None) -> dict[str, Any]:
    """The outcomes with what they were found for; *changed*: what git says is not committed."""
    return {
        "format": audit.RECORD_FORMAT,
        "commit": commit or "unknown",
        "changed": changed != "",
        "date": datetime.now(UTC).date().isoformat(),
        "boot": device_code.boot_digest(),
        "requirements": seen,
    }


def main() -> int:
    """Run the tests, write page and record, return pytest's exit code."""
    commit = _git("rev-parse", "HEAD")
    changed = _git("status", "--porcelain", "--", ".", f":!{PAGE.relative_to(ROOT)}", f":!{RECORD.relative_to(ROOT)}")
    with tempfile.TemporaryDirectory() as directory:
        outcome = Path(directory) / "outcome.json"
        code = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-n", "2", "--dist", "worksteal", "--requirements", outcome],
            cwd=ROOT,
            check=False,
        ).returncode
        if not outcome.exists():
            print("error[TESTS]: The tests did not run, so docs/requirements.md is left as it was.", file=sys.stderr)
            return code or 1
        seen = json.loads(outcome.read_text())
    PAGE.write_text(render(load_guideline(), seen))
    RECORD.write_text(json.dumps(record(seen, commit, changed), indent=1, sort_keys=True) + "\n")
    print(f"wrote {PAGE.relative_to(ROOT)} and {RECORD.relative_to(ROOT)}")
    return code


if __name__ == "__main__":
    sys.exit(main())
