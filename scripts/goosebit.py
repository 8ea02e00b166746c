"""`make test-goosebit`: our device against gooseBit, a DDI server that is none of ours (tests/test_goosebit.py).

``--install`` only makes its environment, which `make test` and `make requirements` do; the tests are part of both.
Where that fails for want of a network, a desk goes on without it and CI stops. It says less about hawkBit than hawkBit
would: see docs/hawkbit.md.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from helpers import goosebit  # noqa: E402


def main() -> int:
    """Install and test."""
    only_install = "--install" in sys.argv
    try:
        goosebit.ENVIRONMENT.install()
    except (OSError, subprocess.CalledProcessError) as error:
        if only_install and not os.environ.get("CI"):
            print("notice: gooseBit cannot be installed here, so the tests with it will be skipped.")
            return 0
        print(f"error[GOOSEBIT]: gooseBit cannot be installed: {error}.", file=sys.stderr)
        return 1
    if only_install:
        return 0
    return subprocess.run([sys.executable, "-m", "pytest", "-q", "tests/test_goosebit.py"], cwd=ROOT).returncode


if __name__ == "__main__":
    sys.exit(main())
