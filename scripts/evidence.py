"""Says which evidence was recorded for another boot/ than the one that is here: ``python scripts/evidence.py``.

Every run whose numbers lie in docs/evidence writes the digest of boot/ it was made with into its JSON. A developer who
changes boot/ need not repeat them all, so this is a notice and never a failure; who releases boot/ repeats them.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from sekisho_tools import device_code

EVIDENCE = Path(__file__).parents[1] / "docs" / "evidence"
MADE_BY = {
    "powercut": "make powercut",
    "powercut-full": "make powercut-full",
    "seeded-bugs": "make seeded-bugs",
    "mutation": "make mutation",
    "fuzz": "make fuzz",
}


def stale(directory: Path = EVIDENCE) -> list[str]:
    """One sentence for each page that is missing, is a part, or was recorded for another boot/."""
    here, said = device_code.boot_digest(), []
    for name, command in MADE_BY.items():
        path = directory / f"{name}.json"
        try:
            content = json.loads(path.read_text())
            boot = content["boot"]
        except (OSError, ValueError, KeyError):
            said.append(f"docs/evidence/{name}.json is missing or says for no boot/: {command}")
            continue
        if boot != here:
            said.append(f"docs/evidence/{name}.json was recorded for boot/ {boot[:16]}, this is {here[:16]}: {command}")
        if content.get("missing"):
            said.append(
                f"docs/evidence/{name}.json is a part of what it could be, without {', '.join(content['missing'])}"
            )
    return said


def main() -> int:
    """The command; always 0."""
    for sentence in stale():
        print(f"notice: {sentence}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
