"""The embedded server behind a proxy that has the manners of Eclipse hawkBit where those differ (hawkbit-ddi digest).

Puts requests off with a bare 429, has no SHA-256 of old artifacts and no members of ours. It can also break the line
after so many writes.
"""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

OURS = ("publicKey", "statusReason", "silenceTimeout", "silent", "active")


@dataclass
class Manners:
    """*busy*: every so-manieth request is put off (0: none). *break_after*: writes until the line breaks."""

    url: str = ""
    busy: int = 0
    break_after: int | None = None
    count: int = 0
    writes: list[str] = field(default_factory=list)


def _plain(found: Any) -> Any:
    if isinstance(found, list):
        return [_plain(one) for one in found]
    if not isinstance(found, dict):
        return found
    return {name: None if name == "sha256" else _plain(value) for name, value in found.items() if name not in OURS}


@contextmanager
def in_front_of(server: str) -> Iterator[Manners]:
    """A proxy for the server at this address."""
    manners = Manners()
    behind = urlsplit(server)
    guard = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def _answer(self, status: int, data: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def _pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            with guard:
                manners.count += 1
                if manners.busy and manners.count % manners.busy == 0:
                    self._answer(429, b"")
                    return
                if self.command != "GET":
                    if manners.break_after is not None and len(manners.writes) >= manners.break_after:
                        self.close_connection = True
                        return
                    manners.writes.append(f"{self.command} {self.path}")
            line = http.client.HTTPConnection(behind.hostname or "", behind.port, timeout=20)
            kept = {name: self.headers[name] for name in ("Authorization", "Content-Type") if self.headers[name]}
            line.request(self.command, self.path, body or None, kept)
            answer = line.getresponse()
            data = answer.read()
            line.close()
            if data[:1] in (b"{", b"["):
                data = json.dumps(_plain(json.loads(data))).encode()
            self._answer(answer.status, data)

        do_GET = do_POST = do_PUT = do_DELETE = _pass_on

    proxy = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    manners.url = f"http://127.0.0.1:{proxy.server_address[1]}"
    thread = threading.Thread(target=proxy.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield manners
    finally:
        proxy.shutdown()
        proxy.server_close()
        thread.join()
