"""Listening: sockets, TLS, bounded HTTP, structured logs, a graceful stop."""

from __future__ import annotations

import asyncio
import json
import logging
import resource
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ..serve import listen
from . import options, tls
from .app import Server
from .store import Store

STOP_SECONDS = 10
"""How long a stop waits for requests that are under way."""
HEADER_SECONDS = 20
"""How long a client may take for the head of a request."""
MAX_HEADER = 16 * 1024
MAX_CONNECTIONS = 4000
WRITE_BUFFER = 16 * 1024
"""Bytes that may wait for a slow client before its answer is held back; a thousand of them download at once."""


class Protocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol, with a bound on the size of a request's head and on the time it may take."""

    _head = 0
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Start the clock."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=WRITE_BUFFER)
        self._timer = self.loop.call_later(HEADER_SECONDS, self._too_slow)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop it."""
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def _too_slow(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()

    def on_message_begin(self) -> None:
        """A request begins (perhaps the next one on this connection)."""
        self._head = 0
        if self._timer is None:
            self._timer = self.loop.call_later(HEADER_SECONDS, self._too_slow)
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Count."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count."""
        self._count(len(name) + len(value) + 4)
        super().on_header(name, value)

    def _count(self, size: int) -> None:
        self._head += size
        if self._head > MAX_HEADER:
            raise ValueError("the head of the request is too large")

    def data_received(self, data: bytes) -> None:
        """Close on anything that cannot be read."""
        try:
            super().data_received(data)
        except Exception:
            self.transport.abort()

    def on_headers_complete(self) -> None:
        """The head is complete: no more hurry."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        super().on_headers_complete()


class JsonLines(logging.Formatter):
    """One JSON object per line."""

    _plain = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        found: dict[str, Any] = {
            "at": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03}Z",
            "level": record.levelname.lower(),
            "event": record.getMessage(),
        }
        found |= {name: value for name, value in vars(record).items() if name not in self._plain}
        if record.exc_info:
            found["traceback"] = self.formatException(record.exc_info)
        return json.dumps(found, ensure_ascii=True, default=str)


def log_lines(level: str = "INFO") -> None:
    """Send the server's log to stderr as JSON lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    for name, least in (("sekisho.server", level), ("uvicorn", "WARNING")):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
        logger.setLevel(least)


class EmbeddedServer:
    """The server of one data directory: ``run()`` blocks until Ctrl-C or SIGTERM; as a context it runs in a thread.

    Attributes ``url`` (known before it runs; *port* 0 takes a free one), ``store``, ``server``. *tls_cert*,
    *tls_key* and *tls_pin_file* are as for `tls.context`. Raises ToolError FILE, DATABASE, DATA_IN_USE, OPTIONS,
    PORT_IN_USE, ADDRESS, TLS.
    """

    def __init__(
        self,
        data: Path,
        host: str = "127.0.0.1",
        port: int = 0,
        tls_cert: Path | None = None,
        tls_key: Path | str | None = None,
        settings: options.Options | None = None,
        clock: Any = None,
        tls_pin_file: Path | None = None,
    ) -> None:
        secure = tls.context(tls_cert, None if tls_key is None else str(tls_key), tls_pin_file)
        found = settings or options.load(data)
        self._socket = listen(host, port)
        try:
            self.store = Store(data, **({"clock": clock} if clock else {}))
        except BaseException:
            self._socket.close()
            raise
        self.server = Server(self.store, found)
        self.port: int = self._socket.getsockname()[1]
        self.url = f"{'https' if secure else 'http'}://{f'[{host}]' if ':' in host else host}:{self.port}"
        config = uvicorn.Config(
            self.server.asgi,
            http=Protocol,
            log_config=None,
            access_log=False,
            lifespan="on",
            timeout_graceful_shutdown=STOP_SECONDS,
            timeout_keep_alive=30,
            server_header=False,
            limit_concurrency=MAX_CONNECTIONS,
            backlog=1024,
            proxy_headers=bool(found.proxies),
            forwarded_allow_ips=list(found.proxies),
        )
        config.load()
        config.ssl = secure
        self._server = uvicorn.Server(config)
        self._thread: threading.Thread | None = None

    def run(self) -> None:
        """Serve until the process is asked to stop; what was accepted is finished and written first."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = 2 * MAX_CONNECTIONS if hard == resource.RLIM_INFINITY else min(hard, 2 * MAX_CONNECTIONS)
        if soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        try:
            self._server.run(sockets=[self._socket])
        finally:
            self._socket.close()
            self.store.close()

    def __enter__(self) -> EmbeddedServer:
        self._thread = threading.Thread(target=self.run, name="sekisho-server", daemon=True)
        self._thread.start()
        for _ in range(2000):
            if self._server.started or not self._thread.is_alive():
                break
            time.sleep(0.005)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.should_exit = True
        if self._thread is not None:
            self._thread.join(STOP_SECONDS + 10)
