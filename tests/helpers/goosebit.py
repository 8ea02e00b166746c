"""gooseBit, a DDI server that is none of ours, in an environment of its own: its dependencies are not ours either.

The environment lies under build/, made from the hash-locked requirements/goosebit.txt (`make test` makes it).
"""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .environment import ROOT, Environment

ENVIRONMENT = Environment("goosebit")
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


def _ready(url: str, process: subprocess.Popen[bytes]) -> bool:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/setup", timeout=5):
                return True
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    return False


@contextmanager
def running() -> Iterator[tuple[str, Path]]:
    """A gooseBit on loopback: its URL, and the file in which tests/goosebit looks for what it offers."""
    python = ENVIRONMENT.python
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
            if not _ready(url, process):
                raise RuntimeError(f"gooseBit did not start: {(folder / 'log').read_text()[-2000:]}")
            yield url, folder / "offer.json"
        finally:
            process.terminate()
            process.wait(30)
