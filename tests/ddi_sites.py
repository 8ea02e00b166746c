"""Servers that speak DDI and hawkBit's management API: ours, and the real hawkBit where one is named.

SEKISHO_HAWKBIT is the address of a running hawkBit with its default account (`make test-hawkbit` starts one).
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from sekisho_tools.hawkbit import Api
from sekisho_tools.server import operators, run
from sekisho_tools.server.options import Limits, Options

HAWKBIT = os.environ.get("SEKISHO_HAWKBIT", "")
SITES = ("embedded", "hawkbit") if HAWKBIT else ("embedded",)
PASSWORD = "correct horse battery"


@dataclass
class Fleet:
    """A server, seen through its management API."""

    url: str
    api: Api

    def call(self, method: str, path: str, body: Any = None, **query: Any) -> Any:
        """One request."""
        return self.api.call(method, path, body, **query)

    def device(self) -> dict[str, object]:
        """A new target; returns what its device has to be set to."""
        name = f"lamp-{uuid4().hex[:8]}"
        made = self.call("POST", "/targets", [{"controllerId": name, "name": name}])
        return {"protocol": "ddi", "controller": name, "token": made[0]["securityToken"]}

    def release(self, *files: tuple[str, bytes]) -> int:
        """A distribution set of one module with the named files; returns its id."""
        name = f"release-{uuid4().hex[:8]}"
        module = self.call("POST", "/softwaremodules", [{"name": name, "version": "1", "type": "os"}])[0]["id"]
        for filename, content in files:
            self.api.upload(module, filename, content, hashlib.sha256(content).hexdigest())
        body = {"name": name, "version": "1", "type": "os", "modules": [{"id": module}]}
        return int(self.call("POST", "/distributionsets", [body])[0]["id"])

    def assign(self, target: object, release: int, **how: Any) -> int:
        """Order it; returns the action's id."""
        done = self.call("POST", f"/targets/{target}/assignedDS", {"id": release, "type": "forced"} | how)
        return int(done["assignedActions"][0]["id"])

    def action(self, target: object, number: int) -> dict[str, Any]:
        """An action as it stands."""
        return dict(self.call("GET", f"/targets/{target}/actions/{number}"))

    def ended(self, target: object, number: int, seconds: float = 20) -> str:
        """How an action ended, as its detailed state; waits for a device that is just telling."""
        deadline = time.monotonic() + seconds
        while True:
            found = self.action(target, number)
            state = str(found.get("detailStatus") or found["status"])
            if (
                found["status"] == "finished"
                or state in ("finished", "error", "canceled")
                or time.monotonic() > deadline
            ):
                return state
            time.sleep(0.1)

    def history(self, target: object, number: int) -> list[tuple[str, str]]:
        """(type, messages) of what was recorded, the oldest first."""
        found = self.call("GET", f"/targets/{target}/actions/{number}/status", limit=200, sort="id:ASC")["content"]
        return [(entry["type"], "; ".join(entry.get("messages") or ())) for entry in found]

    def signed(self, target: object) -> list[bytes]:
        """The signed documents that a device sent, newest first; each verified by the server as far as it could."""
        found = self.call("GET", f"/targets/{target}/reports")
        assert all(one["verdict"] != "invalid" for one in found), found
        return [bytes.fromhex(one["cose"]) for one in found]

    def setting(self, name: str, value: object) -> None:
        """Sets a setting of the tenant."""
        self.call("PUT", f"/system/configs/{name}", {"value": value})


@contextmanager
def running(kind: str, folder: Path) -> Iterator[Fleet]:
    """One of SITES."""
    if kind == "hawkbit":
        api = Api(HAWKBIT, "admin", "admin")
        fleet = Fleet(HAWKBIT, api)
        fleet.setting("authentication.targettoken.enabled", True)
        yield fleet
        api.close()
        return
    free = Limits(address_reads=0, address_writes=0, device=0, failures=0)
    server = run.EmbeddedServer(folder, settings=Options(limits=free))
    operators.create(server.store, "admin", PASSWORD, "admin")
    with server:
        api = Api(server.url, "admin", PASSWORD)
        try:
            yield Fleet(server.url, api)
        finally:
            api.close()
