"""Checks the locked dependencies against known vulnerabilities with pip-audit; says plainly when it cannot."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def main() -> int:
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


if __name__ == "__main__":
    sys.exit(main())
