"""Checks what the desk tools run on: known vulnerabilities (pip-audit), their SBOM against the lock, licences.

Advisories are asked about every file of requirements/, those for tests alone included (goosebit.txt, chip.txt); SBOM
and licences are about dev.txt, which the tools run on. tests/npm locks one package, a MicroPython for tests that runs
inside node; nobody is asked about it. Says plainly when the advisories cannot be asked. The SBOM and the list of
licences are left in build/audit/.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from sekisho_tools import sbom

ROOT = Path(__file__).parents[1]
OUT = ROOT / "build" / "audit"
_LOCKED = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", re.MULTILINE)


def locked(name: str = "dev.txt") -> dict[str, str]:
    """Name -> version of every package that requirements/*name* locks."""
    text = (ROOT / "requirements" / name).read_text()
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in _LOCKED.findall(text)}


def compare(document: bytes, lock: dict[str, str]) -> list[str]:
    """What the SBOM *document* says otherwise than *lock*, one sentence each."""
    problems = []
    for one in sbom.components(sbom.parse(document)):
        name, version = one["name"], one["version"]
        if name not in lock:
            problems.append(f"{name} {version} is installed but not locked; run make lock.")
        elif lock[name] != version:
            problems.append(f"{name} {version} is installed, {lock[name]} is locked; remove .venv and run make setup.")
    return problems


def bill() -> list[str]:
    """Write SBOM and licences of the installed tools; return what is wrong with them."""
    OUT.mkdir(parents=True, exist_ok=True)
    document = sbom.for_host()
    (OUT / "sekisho.cdx.json").write_bytes(document)
    lines = [f"{name} {version}: {licence}" for name, version, licence in sbom.licences()]
    (OUT / "licences.txt").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    print(f"Wrote {OUT.relative_to(ROOT)}/sekisho.cdx.json and licences.txt.")
    return compare(document, locked())


def vulnerabilities() -> int:
    """Return 0 when nothing is known, 1 when something is, 2 when the advisories cannot be asked about all of them."""
    codes = {ask(lock) for lock in sorted((ROOT / "requirements").glob("*.txt"))}
    return 1 if 1 in codes else max(codes)


def ask(lock: Path) -> int:
    """`vulnerabilities` of one file; on its own, since two of them may lock one package in two versions."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pip_audit", "--require-hashes", "--disable-pip", "--progress-spinner", "off"),
            *("--format", "json", "--desc", "off", "-r", str(lock)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if not done.stdout.strip():
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        return unasked(f"The vulnerability database could not be asked about {lock.name} ({reason}).")
    answers = json.loads(done.stdout)["dependencies"]
    known = [one for one in answers if one.get("vulns")]
    for one in known:
        print(f"{lock.name}: {finding(one)}")
    skipped = [one["name"] for one in answers if "skip_reason" in one]
    if len(skipped) == len(answers):
        return unasked(
            f"The vulnerability database knows nothing that {lock.name} locks (a mirror without advisories?)."
        )
    if skipped:
        unasked(f"The vulnerability database does not know these of {lock.name}: {', '.join(skipped)}.")
    if known or skipped:
        return 1 if known else 2
    print(f"No known vulnerabilities in what {lock.name} locks ({len(answers)}).")
    return 0


def finding(one: dict[str, Any]) -> str:
    """One line for what pip-audit says of a package."""
    ids = ", ".join(" = ".join([found["id"], *found.get("aliases", [])]) for found in one["vulns"])
    fixes = sorted({version for found in one["vulns"] for version in found["fix_versions"]})
    return f"{one['name']} {one['version']}: {ids}; fixed in {', '.join(fixes) or 'no version'}"


def unasked(sentence: str) -> int:
    """Say which advisories were not asked; return 2."""
    print(f"error[NETWORK]: {sentence} These were not checked.", file=sys.stderr)
    return 2


def main() -> int:
    """Return 0 when all is well, 1 when something is wrong, 2 when the advisories cannot be asked."""
    problems = bill()
    for problem in problems:
        print(f"error[SBOM]: {problem}", file=sys.stderr)
    return max(int(bool(problems)), vulnerabilities())


if __name__ == "__main__":
    sys.exit(main())
