"""A running embedded server for tests, and a device that speaks DDI with it, over real connections."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import http.client
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sekisho_tools.hawkbit import Api
from sekisho_tools.server import operators, run
from sekisho_tools.server.options import Limits, Login, Options

PASSWORD = "correct horse battery"
FREE = Limits(address_reads=0, address_writes=0, device=0, failures=0)
"""No limits: all tests come from one address."""


class Clock:
    """A clock that stands still until it is told otherwise. Milliseconds since 1970."""

    def __init__(self) -> None:
        self.now = 1_800_000_000_000

    def __call__(self) -> int:
        return self.now

    def pass_seconds(self, seconds: float) -> None:
        self.now += int(seconds * 1000)


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def ask(url: str, method: str = "GET", body: Any = None, headers: dict[str, str] | None = None, **more: str) -> Answer:
    """One request on a connection of its own."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=20)
    path = parts.path + (f"?{parts.query}" if parts.query else "")
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    given = dict(headers or {}) | {name.replace("_", "-"): value for name, value in more.items()}
    if body is not None and not isinstance(body, bytes):
        given.setdefault("Content-Type", "application/json")
    connection.request(method, path, data, given)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, content)


def basic(name: str, password: str = PASSWORD) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()}


@dataclass
class Site:
    """A server under test. `api` is logged in as an admin."""

    server: run.EmbeddedServer
    clock: Clock
    api: Api
    count: int = 0
    contents: dict[str, bytes] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return self.server.url

    def device(self, name: str | None = None) -> Device:
        """A new device with a token of its own."""
        self.count += 1
        name = name or f"device-{self.count}"
        made = self.api.call("POST", "/targets", [{"controllerId": name}])
        return Device(self, name, {"Authorization": f"TargetToken {made[0]['securityToken']}"})

    def release(self, *files: bytes, kind: str = "os", **more: Any) -> int:
        """A new distribution set of one module with *files*; returns its id."""
        self.count += 1
        name = f"release-{self.count}"
        module = self.api.call("POST", "/softwaremodules", [{"name": name, "version": "1.0", "type": kind}])[0]["id"]
        for number, content in enumerate(files or (b"firmware",)):
            filename = f"file-{number}.bin"
            self.contents[filename] = content
            self.api.upload(module, filename, content, hashlib.sha256(content).hexdigest())
        body = {"name": name, "version": "1.0", "type": "os" if kind == "os" else "app", "modules": [{"id": module}]}
        return int(self.api.call("POST", "/distributionsets", [body | more])[0]["id"])

    def assign(self, device: Device, release: int, **how: Any) -> int:
        """Assign it; returns the action's id."""
        done = self.api.call("POST", f"/targets/{device.name}/assignedDS", {"id": release, "type": "forced"} | how)
        return int(done["assignedActions"][0]["id"])

    def work(self) -> None:
        """One round of the worker, at once."""
        loop = self.server.server.loop
        assert loop is not None
        asyncio.run_coroutine_threadsafe(self.server.server.work_once(), loop).result(20)


@dataclass
class Device:
    """A device as the server sees it."""

    site: Site
    name: str
    headers: dict[str, str]

    @property
    def home(self) -> str:
        return f"{self.site.url}/DEFAULT/controller/v1/{self.name}"

    def ask(self, href: str, method: str = "GET", body: Any = None, **headers: str) -> Answer:
        url = href if href.startswith("http") else self.home + href
        return ask(url, method, body, self.headers, **headers)

    def poll(self) -> dict[str, Any]:
        answer = self.ask("")
        assert answer.status == 200, answer
        return dict(answer.json)

    def link(self, name: str) -> str | None:
        found = self.poll()["_links"].get(name)
        return found["href"] if found else None

    def order(self) -> dict[str, Any]:
        """What it is to install."""
        href = self.link("deploymentBase")
        assert href
        answer = self.ask(href)
        assert answer.status == 200, answer
        return dict(answer.json)

    def feedback(self, number: object, execution: str = "closed", finished: str = "success", **more: Any) -> int:
        body = {"status": {"execution": execution, "result": {"finished": finished}} | more}
        return self.ask(f"/deploymentBase/{number}/feedback", "POST", body).status

    def state(self) -> dict[str, Any]:
        return dict(self.site.api.call("GET", f"/targets/{self.name}"))


@contextmanager
def running(path: Path, **options: Any) -> Iterator[Site]:
    """A server with the operators admin, op and view, without limits unless *options* say so."""
    clock = Clock()
    chosen = Options(**({"limits": FREE, "login": Login()} | options))
    server = run.EmbeddedServer(path, settings=chosen, clock=clock)
    for name, role in (("admin", "admin"), ("op", "operator"), ("view", "viewer")):
        operators.create(server.store, name, PASSWORD, role)
    with server:
        api = Api(server.url, "admin", PASSWORD)
        try:
            yield Site(server, clock, api)
        finally:
            api.close()
