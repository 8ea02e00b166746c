"""Checks what the desk tools run on: known vulnerabilities (pip-audit), their SBOM against the lock, licences.

Says plainly when the advisories cannot be asked. The SBOM and the list of licences are left in build/audit/.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from sekisho_tools import sbom

ROOT = Path(__file__).parents[1]
OUT = ROOT / "build" / "audit"
_LOCKED = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", re.MULTILINE)


def locked() -> dict[str, str]:
    """Name -> version of every locked package."""
    text = (ROOT / "requirements" / "dev.txt").read_text()
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
    """Return 0 when nothing is known, 1 when something is, 2 when the advisories cannot be asked."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pip_audit", "--require-hashes", "--disable-pip", "--progress-spinner", "off"),
            *("-r", ROOT / "requirements" / "dev.txt", "-r", ROOT / "requirements" / "firmware.txt"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 0:
        print("No known vulnerabilities in the locked dependencies.")
        return 0
    if done.stdout.strip():
        print(done.stdout)
        return 1
    reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
    sentence = f"The vulnerability database could not be asked ({reason}); nothing was checked."
    print(f"error[NETWORK]: {sentence}", file=sys.stderr)
    return 2


def main() -> int:
    """Return 0 when all is well, 1 when something is wrong, 2 when the advisories cannot be asked."""
    problems = bill()
    for problem in problems:
        print(f"error[SBOM]: {problem}", file=sys.stderr)
    return max(int(bool(problems)), vulnerabilities())


if __name__ == "__main__":
    sys.exit(main())
