"""Load on the embedded server, from the same machine: polls, downloads, feedback. `make bench-server` prints a table.

    python bench/bench_server.py --record     also writes docs/evidence/bench-server.json and the page beside it

The server runs as `sekisho serve --data` would, in a process of its own; the generator speaks plain HTTP/1.1 over
asyncio sockets, one per device. Goals (issue D): 1,500 polls/s sustained; p95 under 50 ms at 300 polls/s; 1,000
concurrent downloads without an error; memory under 200 MB; every result counted exactly once.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import hashlib
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sekisho_tools.files import write_atomic
from sekisho_tools.hawkbit import Api
from sekisho_tools.server import operators
from sekisho_tools.server.store import Store

PASSWORD = "correct horse battery"  # noqa: S105
WINDOW = 64 * 1024
"""Bytes of a device's receive window; ESP-IDF's is smaller still."""
ROOT = Path(__file__).parents[1]
EVIDENCE = ROOT / "docs" / "evidence"
NO_LIMITS = "[limits]\naddress_reads=0\naddress_writes=0\ndevice=0\nfailures=0\n"


@dataclass
class Figures:
    """What was measured; times in ms, speeds per second, sizes in MB unless they say otherwise."""

    devices: int
    kib: int
    """Size of the artifact in KiB."""
    polls: float = 0.0
    poll_errors: int = 0
    p95: float = 0.0
    downloads: int = 0
    download_speed: float = 0.0
    results: int = 0
    results_exact: bool = False
    result_requests: float = 0.0
    memory: float = 0.0

    def rows(self) -> list[tuple[str, str, str, bool]]:
        """(what, measured, goal, whether it is reached), in the order of measuring."""
        together = min(1000, self.devices)
        return [
            ("polls per second, flat out", f"{self.polls:.0f}", ">= 1500", self.polls >= 1500 and not self.poll_errors),
            ("p95 of a poll at 300/s", f"{self.p95:.1f} ms", "< 50 ms", self.p95 < 50),
            (
                *(f"downloads at once, {self.kib} KiB each", f"{self.downloads} ({self.download_speed:.0f} MB/s)"),
                *(str(together), self.downloads == together),
            ),
            (
                *(f"results, each sent twice ({self.result_requests:.0f}/s)", str(self.results)),
                *(f"{self.devices} once", self.results_exact),
            ),
            ("memory at its most", f"{self.memory:.0f} MB", "< 200 MB", self.memory < 200),
        ]


PAGE = """# Load on the update server

Written by `python bench/bench_server.py --record`; do not edit. `make bench-server` measures without writing.

Recorded on {date} at commit {commit:.12}{changes}, with {devices:,} devices. Server and generator
shared {cores} cores ({cpu}). Their load average was {load:.2f} beforehand: other work
makes the figures worse.

| | measured | goal |
|---|---|---|
{rows}

Plain HTTP on connections that stay open, without limits for each address. Downloads all begin at once, with receive
windows of 64 KiB. Each result and each repetition of one is a request, answered after a sync to disk.
"""


def page(found: dict[str, Any]) -> str:
    """The page for what was recorded."""
    figures = Figures(**{name: found[name] for name in Figures.__dataclass_fields__})
    rows = "\n".join(f"| {what} | {value} | {goal} |" for what, value, goal, _ in figures.rows())
    return PAGE.format(rows=rows, changes=" with changes" if found["changed"] else "", **found)


def processor() -> str:
    """What Linux calls the processor."""
    names = re.findall(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return names[0].strip() if names else "unknown"


def git(*words: str) -> str:
    """What git says; nothing outside of a checkout."""
    try:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def record(figures: Figures, load: float, directory: Path = EVIDENCE) -> None:
    """Write the figures and their page; *load*: the load average before measuring."""
    found = {
        **{name: round(value, 3) if type(value) is float else value for name, value in asdict(figures).items()},
        "date": datetime.now(UTC).date().isoformat(),
        "commit": git("rev-parse", "HEAD") or "unknown",
        "changed": git("status", "--porcelain", "--", "tools", "bench") != "",
        "cores": os.cpu_count(),
        "cpu": processor(),
        "load": load,
    }
    write_atomic(directory / "bench-server.json", (json.dumps(found, indent=1, sort_keys=True) + "\n").encode())
    write_atomic(directory / "bench-server.md", page(found).encode())


class Connection:
    """One device's connection, kept open."""

    def __init__(self, port: int, name: str, token: str) -> None:
        self.port = port
        self.name = name
        self.head = f"Host: 127.0.0.1:{port}\r\nAuthorization: TargetToken {token}\r\n".encode()
        self.reader: asyncio.StreamReader | None = None
        self.writer: asyncio.StreamWriter | None = None

    async def ask(self, method: str, path: str, body: bytes = b"", read: Callable[[bytes], None] | None = None) -> int:
        if self.reader is None:
            line = socket.socket()
            line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, WINDOW)  # before connecting: it bounds the window
            line.setblocking(False)
            await asyncio.get_running_loop().sock_connect(line, ("127.0.0.1", self.port))
            self.reader, self.writer = await asyncio.open_connection(sock=line, limit=WINDOW)
        assert self.writer is not None
        extra = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n".encode() if body else b""
        line = f"{method} {path} HTTP/1.1\r\n".encode()
        self.writer.write(line + self.head + extra + b"\r\n" + body)
        head = await self.reader.readuntil(b"\r\n\r\n")
        status = int(head[9:12])
        at = head.find(b"content-length: ")
        left = int(head[at + 16 : head.index(b"\r", at)]) if at > 0 else 0
        while left:
            piece = await self.reader.read(min(left, 65536))
            if not piece:
                raise ConnectionError
            left -= len(piece)
            if read:
                read(piece)
        return status

    async def poll(self) -> int:
        return await self.ask("GET", f"/DEFAULT/controller/v1/{self.name}")

    def close(self) -> None:
        if self.writer:
            self.writer.close()


async def flat_out(devices: list[Connection], seconds: float, at_once: int) -> tuple[float, int]:
    """Polls per second with *at_once* connections that never rest; and errors."""
    done = errors = 0
    end = time.perf_counter() + seconds

    async def run(mine: list[Connection]) -> None:
        nonlocal done, errors
        while time.perf_counter() < end:
            for device in mine:
                if await device.poll() == 200:
                    done += 1
                else:
                    errors += 1

    begin = time.perf_counter()
    await asyncio.gather(*(run(devices[at::at_once]) for at in range(at_once)))
    return done / (time.perf_counter() - begin), errors


async def paced(devices: list[Connection], rate: float, seconds: float) -> list[float]:
    """Latencies in ms, sorted, with *rate* polls/s."""
    latencies: list[float] = []

    async def one(device: Connection, due: float) -> None:
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        begin = time.perf_counter()
        await device.poll()
        latencies.append((time.perf_counter() - begin) * 1000)

    begin = time.perf_counter()
    count = min(int(rate * seconds), len(devices) * 1000)
    step = len(devices)
    for at in range(0, count, step):
        batch = [one(devices[n % step], begin + n / rate) for n in range(at, min(count, at + step))]
        await asyncio.gather(*batch)
    return sorted(latencies)


async def together(jobs: list[Awaitable[bool]]) -> tuple[int, float]:
    begin = time.perf_counter()
    good = sum(one is True for one in await asyncio.gather(*jobs, return_exceptions=True))
    return good, time.perf_counter() - begin


def memory(process: int) -> float:
    """Resident memory in MB, the most it has been."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    return 0.0


async def measure(port: int, process: int, tokens: dict[str, str], api: Api, seconds: float, content: bytes) -> Figures:
    """Print the table as it comes."""
    devices = [Connection(port, name, token) for name, token in tokens.items()]
    figures = Figures(len(devices), len(content) >> 10)
    printed = 0

    def show() -> None:
        nonlocal printed
        what, value, goal, good = figures.rows()[printed]
        printed += 1
        print(f"{what:<46} {value:>16}   goal {goal:<12} {'ok' if good else 'MISSED'}", flush=True)

    for at in range(0, len(devices), 200):
        await asyncio.gather(*(device.poll() for device in devices[at : at + 200]))
    gc.freeze()
    figures.polls, figures.poll_errors = await flat_out(devices, seconds, 32)
    show()
    latencies = await paced(devices, 300, seconds)
    figures.p95 = latencies[int(len(latencies) * 0.95)]
    show()
    wanted = hashlib.sha256(content).digest()
    orders = api.call("GET", f"/targets/{devices[0].name}/actions")["content"][0]
    module = api.call("GET", orders["_links"]["distributionset"]["href"].split("/rest/v1")[1])["modules"][0]["id"]

    async def download(device: Connection) -> bool:
        digest = hashlib.sha256()
        path = f"/DEFAULT/controller/v1/{device.name}/softwaremodules/{module}/artifacts/firmware.bin"
        return await device.ask("GET", path, read=digest.update) == 200 and digest.digest() == wanted

    figures.downloads, took = await together([download(device) for device in devices[:1000]])
    figures.download_speed = figures.downloads * len(content) / took / 1e6
    show()
    numbers = {one["_links"]["target"]["name"]: one["id"] for one in api.everything("/actions")}

    async def report(device: Connection) -> bool:
        body = b'{"status":{"execution":"closed","result":{"finished":"success"}}}'
        path = f"/DEFAULT/controller/v1/{device.name}/deploymentBase/{numbers[device.name]}/feedback"
        return [await device.ask("POST", path, body) for _ in range(2)] == [200, 410]

    good, took = await together([report(device) for device in devices])
    figures.result_requests = 2 * len(devices) / took
    figures.results = sum(one["status"] == "finished" for one in api.everything("/actions"))
    figures.results_exact = good == figures.results == len(devices)
    show()
    figures.memory = memory(process)
    show()
    for device in devices:
        device.close()
    return figures


def main() -> int:
    """Set a server up, measure it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--size", type=int, default=1 << 20, help="bytes of the artifact")
    parser.add_argument("--record", action="store_true", help="write docs/evidence/bench-server.json and its page")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        with Store(data) as store:
            operators.create(store, "bench", PASSWORD, "admin")
        (data / "server.toml").write_text(NO_LIMITS)
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-m", "sekisho_tools", "serve", "--data", str(data), "--port", str(port)]
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            api = Api(f"http://127.0.0.1:{port}", "bench", PASSWORD)
            for _ in range(200):
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.05)
            names = [f"device-{number:05}" for number in range(options.devices)]
            tokens: dict[str, str] = {}
            for at in range(0, len(names), 500):
                for one in api.call("POST", "/targets", [{"controllerId": name} for name in names[at : at + 500]]):
                    tokens[one["controllerId"]] = one["securityToken"]
            module = api.call("POST", "/softwaremodules", [{"name": "b", "version": "1", "type": "os"}])[0]["id"]
            content = os.urandom(options.size)
            api.upload(module, "firmware.bin", content, hashlib.sha256(content).hexdigest())
            body = [{"name": "b", "version": "1", "type": "os", "modules": [{"id": module}]}]
            release = api.call("POST", "/distributionsets", body)[0]["id"]
            for at in range(0, len(names), 500):
                chosen = [{"id": name} for name in names[at : at + 500]]
                api.call("POST", f"/distributionsets/{release}/assignedTargets", chosen)
            print(f"{options.devices} devices, generator and server on {os.cpu_count()} cores")
            figures = asyncio.run(measure(port, process.pid, tokens, api, options.seconds, content))
        finally:
            process.terminate()
            process.wait(20)
    if options.record:
        record(figures, load)
    return int(not all(good for *_, good in figures.rows()))


if __name__ == "__main__":
    sys.exit(main())
