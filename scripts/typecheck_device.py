"""Type-checks boot/, lib/ and firmware/ against the MicroPython stubs for ESP32.

The stubs replace typeshed: a module or function that MicroPython lacks is an error. They are copied out of
site-packages (mypy does not take a search path from there) and only our own files are reported on. Generic
arguments are not asked for, because device code annotates with builtin types only.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.metadata import files
from pathlib import Path

ROOT = Path(__file__).parents[1]
STUBS = ROOT / "build" / "typings"
ROOMS = ("boot", "lib")
PACKAGES = ("micropython-esp32-stubs", "micropython-stdlib-stubs")
OPTIONS = (
    "--follow-imports=silent",
    "--no-site-packages",
    "--check-untyped-defs",
    "--allow-redefinition-new",
    "--local-partial-types",
    "--strict-equality",
    "--disable-error-code=valid-type",  # the CBOR reader has methods named int and bytes, which hide the types
    "--disable-error-code=var-annotated",  # an empty list needs no more words on a device
    "--no-strict-bytes",  # on the device `bytes` means anything bytes-like
)


def copy_stubs() -> None:
    """Put the stub files of PACKAGES into STUBS."""
    shutil.rmtree(STUBS, ignore_errors=True)
    for package in PACKAGES:
        for file in files(package) or ():
            if file.suffix == ".pyi" or file.name == "VERSIONS":
                target = STUBS / file
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file.locate(), target)


def main() -> int:
    """Check, print what concerns our own files, return 0 when that is nothing."""
    copy_stubs()
    sources = sorted(str(path.relative_to(ROOT)) for room in ROOMS for path in (ROOT / room).rglob("*.py"))
    done = subprocess.run(
        [
            *(sys.executable, "-m", "mypy", "--config-file=", "--no-error-summary"),
            *OPTIONS,
            f"--custom-typeshed-dir={STUBS}",
            f"--cache-dir={ROOT / 'build' / 'mypy-device'}",
            *sources,
        ],
        env={**os.environ, "MYPYPATH": os.pathsep.join(map(str, (STUBS, *(ROOT / room for room in ROOMS))))},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    # The stubs themselves are not free of errors.
    ours = [line for line in done.stdout.splitlines() if line.startswith(ROOMS)]
    if done.returncode > 1 or done.stderr:
        print(done.stdout, done.stderr)
        return 2
    print("\n".join([*ours, f"{len(sources)} device files checked, {sum(': error:' in line for line in ours)} errors"]))
    return 1 if ours else 0


if __name__ == "__main__":
    sys.exit(main())
