"""Runs every bench_*.py beside it, each in its own process; the exit code is 1 if one fails."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def main() -> int:
    """Run them all, in the order of their names."""
    benches = sorted(Path(__file__).parent.glob("bench_*.py"))
    return max(subprocess.run([sys.executable, str(bench)], check=False).returncode for bench in benches)


if __name__ == "__main__":
    sys.exit(main())
