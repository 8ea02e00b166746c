"""`make test-goosebit`: starts gooseBit, a DDI server that is none of ours, and runs tests/test_goosebit.py on it.

gooseBit (PyPI, Apache-2.0) has dependencies of its own, so it gets a virtual environment of its own under build/, made
from requirements/goosebit.txt. It says less about hawkBit than hawkBit would: see docs/hawkbit.md.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
LOCK = ROOT / "requirements" / "goosebit.txt"
PLACE = ROOT / "build" / "goosebit"
PLUGIN = ROOT / "tests" / "goosebit"
START_SECONDS = 120
TABLES = """
import asyncio
from goosebit.db.config import TORTOISE_CONF
from tortoise import Tortoise
async def main():
    await Tortoise.init(config=TORTOISE_CONF)
    await Tortoise.generate_schemas()
    await Tortoise.close_connections()
asyncio.run(main())
"""


def environment() -> Path:
    """The Python of gooseBit's environment, made or brought up to date."""
    python = PLACE / "bin" / "python"
    stamp = PLACE / "installed"
    if not stamp.exists() or stamp.read_text() != LOCK.read_text():
        venv.create(PLACE, with_pip=True, clear=True)
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes"]
        subprocess.run([*install, "-r", str(LOCK)], check=True)
        stamp.write_text(LOCK.read_text())
    return python


def ready(url: str, process: subprocess.Popen[bytes]) -> bool:
    """Wait until it answers."""
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/setup", timeout=5):  # noqa: S310
                return True
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    return False


def main() -> int:
    """Install, start, test, stop."""
    try:
        python = environment()
    except subprocess.CalledProcessError as error:
        print(f"error[GOOSEBIT]: gooseBit cannot be installed: {error}.", file=sys.stderr)
        return 1
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory(prefix="sekisho-goosebit-") as name, (Path(name) / "log").open("wb") as log:
        folder = Path(name)
        plugin = folder / "plugin" / "sekisho_offer-1.dist-info"
        plugin.mkdir(parents=True)
        (plugin / "METADATA").write_text("Metadata-Version: 2.1\nName: sekisho-offer\nVersion: 1\n")
        (plugin / "entry_points.txt").write_text("[goosebit.plugins]\nsekisho_offer = sekisho_offer\n")
        settings = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join((str(plugin.parent), str(PLUGIN))),
            "GOOSEBIT_DB_URI": f"sqlite:///{folder}/db.sqlite3",
            "GOOSEBIT_ARTIFACTS_DIR": str(folder / "artifacts"),
            "GOOSEBIT_DEVICE_AUTH__ENABLE": "true",
            "GOOSEBIT_DEVICE_AUTH__MODE": "strict",
            "GOOSEBIT_PLUGINS": '["sekisho_offer"]',
            "SEKISHO_OFFER": str(folder / "offer.json"),
        }
        subprocess.run([str(python), "-c", TABLES], env=settings, cwd=folder, check=True)
        serve = [str(python), "-m", "uvicorn", "goosebit:app", "--host", "127.0.0.1", "--port", str(port)]
        process = subprocess.Popen(serve, env=settings, cwd=folder, stdout=log, stderr=log)
        try:
            if not ready(url, process):
                print(f"error[GOOSEBIT]: it did not start: {(folder / 'log').read_text()[-2000:]}", file=sys.stderr)
                return 1
            tests = [sys.executable, "-m", "pytest", "-q", "tests/test_goosebit.py"]
            chosen = {"SEKISHO_GOOSEBIT": url, "SEKISHO_OFFER": settings["SEKISHO_OFFER"]}
            return subprocess.run(tests, cwd=ROOT, env=os.environ | chosen, check=False).returncode
        finally:
            process.terminate()
            process.wait(30)


if __name__ == "__main__":
    sys.exit(main())
