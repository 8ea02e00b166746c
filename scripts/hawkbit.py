"""`make test-hawkbit`: starts the real Eclipse hawkBit on loopback and runs tests/test_ddi_end_to_end.py on it.

The server comes from Maven Central (or from SEKISHO_HAWKBIT_JAR), is kept in $XDG_CACHE_HOME/sekisho, and runs only if
its SHA-256 is the one in requirements/hawkbit.sha256, which ``--record`` writes. It needs Java 17 and Maven.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).parents[1]
VERSION = "1.0.4"  # the last line for Java 17
ARTIFACT = f"org.eclipse.hawkbit:hawkbit-update-server:{VERSION}"
PIN = ROOT / "requirements" / "hawkbit.sha256"
START_SECONDS = 180


def fail(code: str, words: str) -> int:
    """Say what is wrong on stderr; the exit code for it."""
    print(f"error[{code}]: {words}", file=sys.stderr)
    return 1


def fetch() -> Path | str:
    """The jar, or why there is none."""
    given = os.environ.get("SEKISHO_HAWKBIT_JAR")
    if given:
        return Path(given)
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sekisho"
    jar = folder / f"hawkbit-update-server-{VERSION}.jar"
    if not jar.exists():
        folder.mkdir(parents=True, exist_ok=True)
        copy = [
            "mvn",
            "-q",
            "-B",
            "dependency:copy",
            f"-Dartifact={ARTIFACT}",
            f"-DoutputDirectory={folder}",
        ]
        done = subprocess.run(copy, capture_output=True, text=True, check=False)
        if done.returncode or not jar.exists():
            words = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout)  # colours, even into a pipe
            found = re.search(r"(was not found in \S+|[^.:]*(?:Could not|Unknown host|refused)[^.]*)", words)
            return found[1].strip() if found else "Maven brought nothing"
    return jar


def ready(url: str, process: subprocess.Popen[bytes]) -> bool:
    """Wait until the management API answers."""
    request = urllib.request.Request(f"{url}/rest/v1/targets", headers={"Authorization": "Basic YWRtaW46YWRtaW4="})  # noqa: S310
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310
                if answer.status == 200:
                    return True
        except (urllib.error.URLError, OSError):
            time.sleep(1)
    return False


def main() -> int:
    """Fetch, check, start, test, stop."""
    missing = [tool for tool in ("java", "mvn") if shutil.which(tool) is None]
    if missing:
        if os.environ.get("CI"):
            return fail("HAWKBIT", f"CI needs {' and '.join(missing)} for the tests against hawkBit.")
        print(f"notice: no {' and '.join(missing)} here, so the tests against hawkBit are skipped.")
        return 0
    jar = fetch()
    if isinstance(jar, str):
        # Not an error, even in CI: whether a repository carries somebody else's file says nothing about this one.
        print(f"notice: NOT RUN against hawkBit. {ARTIFACT} cannot be had: {jar}. SEKISHO_HAWKBIT_JAR names a copy.")
        print("notice: gooseBit, whose tests are part of `make test`, is the only DDI server of others that was met.")
        return 0
    with jar.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if "--record" in sys.argv:
        PIN.write_text(f"{digest}  hawkbit-update-server-{VERSION}.jar\n")
    if not PIN.exists():
        return fail(
            "HAWKBIT", f"No checksum is pinned in {PIN.name}; compare {digest} with the publisher's, then --record."
        )
    if PIN.read_text().split()[0] != digest:
        return fail("HAWKBIT", f"{jar} is not the pinned one (SHA-256 {digest}).")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory(prefix="sekisho-hawkbit-") as folder, (Path(folder) / "log").open("wb") as log:
        options = {
            "server.address": "127.0.0.1",
            "server.port": str(port),
            "hawkbit.server.ddi.security.authentication.targettoken.enabled": "true",
            "hawkbit.controller.minPollingTime": "00:00:01",
            "hawkbit.controller.pollingTime": "00:00:30",
            "org.eclipse.hawkbit.artifact.fs.path": f"{folder}/artifacts",
        }
        command = ["java", "-Xmx768m", "-jar", str(jar), *(f"--{name}={value}" for name, value in options.items())]
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
        try:
            if not ready(url, process):
                return fail("HAWKBIT", f"hawkBit did not start: {(Path(folder) / 'log').read_text()[-2000:]}")
            tests = [sys.executable, "-m", "pytest", "-q", "tests/test_ddi_end_to_end.py"]
            return subprocess.run(tests, cwd=ROOT, env=os.environ | {"SEKISHO_HAWKBIT": url}, check=False).returncode
        finally:
            process.terminate()
            process.wait(30)


if __name__ == "__main__":
    sys.exit(main())
