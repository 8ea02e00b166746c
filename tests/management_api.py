"""A stand-in for the part of hawkBit's management API that registering devices needs."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

USER, PASSWORD = "factory", "line 1"


@dataclass
class Api:
    """*targets* by controllerId; *broken* answers everything with this status and body instead."""

    targets: dict[str, dict[str, Any]] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    broken: tuple[int, bytes] | None = None
    url: str = ""


@contextmanager
def management_api() -> Iterator[Api]:
    """The API, served on a free port of this computer."""
    api = Api()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def _answer(self, status: int, body: object = None) -> None:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def _allowed(self) -> bool:
            api.requests.append(f"{self.command} {self.path}")
            login = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
            if api.broken:
                self._answer(*api.broken)
            elif self.headers["Authorization"] != f"Basic {login}":
                self._answer(401, {"message": "no"})
            else:
                return True
            return False

        def do_GET(self) -> None:
            if not self._allowed():
                return
            found = api.targets.get(self.path.removeprefix("/rest/v1/targets/"))
            self._answer(200 if found else 404, found or {"message": "not found"})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if not self._allowed():
                return
            if any(one["controllerId"] in api.targets for one in body):
                self._answer(409, {"message": "exists"})
                return
            api.targets.update({one["controllerId"]: one for one in body})
            self._answer(201, body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    api.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield api
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
