"""The first thing every request meets: limits, authentication, the fast answer to polls, headers, metrics, log.

Nobody who has not been authenticated gets past here, except to the pages for logging in; bodies are bounded before
anything reads them.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import logging
import re
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from sqlalchemy import func, select
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .devices import Devices
from .errors import Problem, broken, busy
from .limits import Buckets
from .metrics import Metrics
from .operators import Doorkeeper, Locked, Operator
from .options import Options
from .store import Busy
from .tables import action, target

log = logging.getLogger("sekisho.server")

TENANT = "DEFAULT"
MAX_DEVICE_BODY = 64 * 1024
MAX_API_BODY = 1 << 20
MAX_UPLOAD_BODY = (64 << 20) + 64 * 1024
MAX_PATH = 2048
WRITES_AT_ONCE = 128
"""Reports of devices that are worked on at a time; a thousand at once wait for their turn rather than for memory."""
BODY_SECONDS = 60
"""How long the body of an ordinary request may take to arrive."""
_HOST = re.compile(r"[A-Za-z0-9._-]{1,253}(:\d{1,5})?|\[[0-9a-fA-F:.]{2,45}\](:\d{1,5})?")
_DEVICE = re.compile(r"/([^/]{1,64})/controller/v1/([^/]{1,1024})(/.*)?")
_UPLOAD = re.compile(r"/rest/v1/softwaremodules/\d+/artifacts")

COMMON_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
]
CSP = (
    b"default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; "
    b"form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)


ErrorPage = Callable[[Request, Problem], Response | None]
"""What a person is shown when something is refused here; None where a program asked."""


class Front:
    """An ASGI application in front of *app*."""

    def __init__(
        self, app: ASGIApp, devices: Devices, doorkeeper: Doorkeeper, options: Options, page: ErrorPage | None = None
    ) -> None:
        self.app = app
        self.page = page
        self.devices = devices
        self.doorkeeper = doorkeeper
        self.options = options
        self.metrics = Metrics()
        limits = options.limits
        self.reads = Buckets(limits.address_reads, limits.address_reads * limits.burst)
        self.writes = Buckets(limits.address_writes, limits.address_writes * limits.burst)
        self.device = Buckets(limits.device, limits.device * limits.burst)
        self.failures = Buckets(limits.failures, limits.failures * 100)
        self.gate = asyncio.Semaphore(WRITES_AT_ONCE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request (or the server's start and stop)."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = _Request(self, scope, receive, send)
        try:
            await request.handle()
        except Problem as problem:
            await request.problem(problem)
        except Busy:
            await request.problem(busy())
        except ClientGone:
            pass
        except Exception:
            log.exception("request failed", extra={"path": scope["path"][:200]})
            await request.problem(broken())
        finally:
            request.account()


class ClientGone(Exception):
    """The client hung up before its request was complete."""


class _Request:
    def __init__(self, front: Front, scope: Scope, receive: Receive, send: Send) -> None:
        self.front = front
        self.scope = scope
        self._receive = receive
        self._send = send
        self.began = time.perf_counter()
        self.status = 0
        self.area = "other"
        self.who = ""
        self.address = (scope.get("client") or ("unknown", 0))[0]
        self.headers: dict[bytes, bytes] = {}

    # -- the way in ------------------------------------------------------------------------------
    async def handle(self) -> None:
        front, scope = self.front, self.scope
        path: str = scope["path"]
        method: str = scope["method"]
        for name, value in scope["headers"]:
            if name in self.headers and name in (b"authorization", b"host", b"content-length", b"transfer-encoding"):
                raise Problem(400, "headers", "A header is given twice that must not be.")
            self.headers[name] = value
        if path == "/healthz":
            await self.health()
            return
        kind = front.reads if method in ("GET", "HEAD") else front.writes
        self.limit(kind, self.address, "address")
        if len(scope.get("raw_path") or b"") > MAX_PATH or "\0" in path:
            raise Problem(414 if "\0" not in path else 400, "path", "The path is too long, or odd.")
        match = _DEVICE.fullmatch(path)
        if match:
            await self.from_device(match[1], match[2], match[3] or "")
        elif path.startswith("/rest/"):
            await self.from_operator()
        elif path == "/metrics":
            await self.metrics()
        else:
            self.area = "page"
            self.bound(MAX_API_BODY)
            await self.pass_on(csp=True)

    def limit(self, buckets: Buckets, sender: str, what: str) -> None:
        wait = buckets.take(sender)
        if wait:
            self.front.metrics.limited[what] += 1
            raise Problem(429, "too_many", "Too many requests.", {"Retry-After": str(int(wait) + 1)})

    def failed(self, what: str) -> None:
        self.front.metrics.denied[what] += 1
        self.front.failures.take(self.address)

    def not_guessing(self) -> None:
        wait = self.front.failures.wait(self.address)
        if wait:
            self.front.metrics.limited["failures"] += 1
            raise Problem(429, "too_many", "Too many failed attempts.", {"Retry-After": str(int(wait) + 1)})

    def base(self) -> str:
        """Scheme and host as the client sees them."""
        if self.front.options.url:
            return self.front.options.url
        host = self.headers.get(b"host", b"").decode("latin-1")
        if not _HOST.fullmatch(host):
            raise Problem(400, "host", "The Host header is missing or odd.")
        return f"{self.scope['scheme']}://{host}"

    # -- devices ---------------------------------------------------------------------------------
    async def from_device(self, tenant: str, controller: str, rest: str) -> None:
        self.area = "device" if rest else "poll"
        if "/artifacts/" in rest:
            self.area = "download"
        if tenant != TENANT or len(controller) > 256:
            raise Problem(404, "not_found", "There is no such tenant or target.")
        front, scope = self.front, self.scope
        method: str = scope["method"]
        self.not_guessing()
        body = b"" if method in ("GET", "HEAD") else await self.body(MAX_DEVICE_BODY)
        if rest == "/enrol" and method == "POST":
            self.area = "device"
            await self.pass_on(body)
            if self.status == 401:
                self.failed("enrolment")
            return
        authorization = self.headers.get(b"authorization")
        path = (scope.get("raw_path") or scope["path"].encode()).decode("latin-1")
        if scope["query_string"]:
            path += "?" + scope["query_string"].decode("latin-1")
        try:
            entry = await front.devices.authenticate(
                controller,
                authorization.decode("latin-1") if authorization else None,
                method,
                path,
                body,
                register=not rest and method == "GET",
            )
        except Problem as problem:
            # Who only asks for a challenge, or signs one that is too old, has guessed at nothing.
            if problem.status == 401 and authorization and not authorization.startswith(b"DeviceKey "):
                self.failed("device")
            raise
        self.who = entry.controller_id
        self.limit(front.device, entry.controller_id, "device")
        front.devices.heard(entry, self.address)
        base = self.base()
        if not rest and method == "GET":
            home = f"{base}/{tenant}/controller/v1/{quote(entry.controller_id)}"
            answer, etag = front.devices.answer(entry, home)
            headers = [(b"content-type", b"application/json"), (b"etag", etag)]
            if self.headers.get(b"if-none-match") == etag:
                await self.answer(304, headers, b"")
            else:
                await self.answer(200, headers, answer)
            return
        scope["sekisho.device"] = entry
        scope["sekisho.base"] = base
        if method in ("GET", "HEAD"):
            await self.pass_on(body)
        else:
            async with front.gate:
                await self.pass_on(body)

    # -- operators -------------------------------------------------------------------------------
    async def from_operator(self) -> None:
        self.area = "api"
        self.not_guessing()
        self.scope["sekisho.operator"] = await self.basic()
        upload = self.scope["method"] == "POST" and _UPLOAD.fullmatch(self.scope["path"])
        self.bound(MAX_UPLOAD_BODY if upload else MAX_API_BODY)
        self.scope["sekisho.base"] = self.base()
        await self.pass_on()

    async def basic(self) -> Operator:
        denied = Problem(401, "unauthorized", "", {"WWW-Authenticate": 'Basic realm="sekisho", charset="UTF-8"'})
        scheme, _, rest = self.headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() != b"basic" or len(rest) > 1000:
            raise denied
        try:
            name, colon, password = base64.b64decode(rest, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            raise denied from None
        try:
            found = await asyncio.to_thread(self.front.doorkeeper.password, name, password) if colon else None
        except Locked as locked:
            self.front.metrics.limited["account"] += 1
            raise Problem(
                429, "locked", "The account is locked for a while.", {"Retry-After": str(locked.seconds)}
            ) from None
        if found is None:
            self.failed("operator")
            raise denied
        self.who = found.name
        return found

    # -- bodies ----------------------------------------------------------------------------------
    def declared(self, limit: int) -> None:
        length = self.headers.get(b"content-length")
        if length is not None and (not length.isdigit() or len(length) > 15 or int(length) > limit):
            raise Problem(413, "too_large", f"The body has more than {limit} bytes.", {"Connection": "close"})

    async def body(self, limit: int) -> bytes:
        """The whole body. Problem 413, 408."""
        self.declared(limit)
        pieces: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(BODY_SECONDS):
                more = True
                while more:
                    message = await self._receive()
                    if message["type"] == "http.disconnect":
                        raise ClientGone
                    piece = message.get("body", b"")
                    size += len(piece)
                    if size > limit:
                        raise Problem(
                            413, "too_large", f"The body has more than {limit} bytes.", {"Connection": "close"}
                        )
                    pieces.append(piece)
                    more = message.get("more_body", False)
        except TimeoutError:
            raise Problem(408, "slow", "The body took too long.", {"Connection": "close"}) from None
        return b"".join(pieces)

    def bound(self, limit: int) -> None:
        """Make sure that whoever reads the body gets no more than *limit* bytes of it."""
        self.declared(limit)
        inner = self._receive
        size = 0

        async def receive() -> Message:
            nonlocal size
            try:
                async with asyncio.timeout(BODY_SECONDS):
                    message = await inner()
            except TimeoutError:
                raise Problem(408, "slow", "The body took too long.", {"Connection": "close"}) from None
            size += len(message.get("body", b""))
            if size > limit:
                raise Problem(413, "too_large", f"The body has more than {limit} bytes.", {"Connection": "close"})
            return message

        self._receive = receive

    async def pass_on(self, body: bytes | None = None, csp: bool = False) -> None:
        given = False
        inner = self._receive

        async def receive() -> Message:
            nonlocal given
            if body is None or given:
                return await inner()
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.status = message["status"]
                message["headers"] = [*message["headers"], *self.common(csp)]
            await self._send(message)

        await self.front.app(self.scope, receive, send)

    def common(self, csp: bool) -> list[tuple[bytes, bytes]]:
        found = list(COMMON_HEADERS)
        if csp:
            found += [(b"content-security-policy", CSP), (b"x-frame-options", b"DENY")]
        if self.base_is_https():
            found.append((b"strict-transport-security", b"max-age=31536000"))
        return found

    def base_is_https(self) -> bool:
        return bool(self.scope["scheme"] == "https" or self.front.options.url.startswith("https:"))

    # -- the way out -----------------------------------------------------------------------------
    async def answer(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        self.status = status
        if status != 304:
            headers.append((b"content-length", str(len(body)).encode()))
        await self._send({"type": "http.response.start", "status": status, "headers": headers + self.common(False)})
        await self._send({"type": "http.response.body", "body": b"" if self.scope["method"] == "HEAD" else body})

    async def problem(self, problem: Problem) -> None:
        if self.status:
            return  # it has begun to answer: the connection ends short and the client notices
        if self.front.page and b"text/html" in self.headers.get(b"accept", b""):
            answer = self.front.page(Request({**self.scope, "app": self.front.app}), problem)
            if answer is not None:
                self.status = problem.status
                headers = [*answer.raw_headers, *self.common(csp=True)]
                await self._send({"type": "http.response.start", "status": problem.status, "headers": headers})
                body = b"" if self.scope["method"] == "HEAD" else bytes(answer.body)
                await self._send({"type": "http.response.body", "body": body})
                return
        headers = [(name.lower().encode(), value.encode()) for name, value in problem.headers.items()]
        body = json.dumps(problem.body()).encode() if problem.sentence else b""
        if body:
            headers.append((b"content-type", b"application/json"))
        await self.answer(problem.status, headers, body)

    async def health(self) -> None:
        good = self.front.devices.store.alive()
        body = b'{"status":"up"}' if good else b'{"status":"down"}'
        await self.answer(200 if good else 503, [(b"content-type", b"application/json")], body)

    async def metrics(self) -> None:
        if self.address not in ("127.0.0.1", "::1") or self.front.options.proxies:
            self.not_guessing()
            await self.basic()
        store = self.front.devices.store
        gauges: dict[str, Any] = {
            "sekisho_writes_waiting": store.waiting(),
            "sekisho_commits": store.commits,
            "sekisho_writes": store.writes,
            **await store.read(counts),
        }
        text = self.front.metrics.text(gauges).encode()
        await self.answer(200, [(b"content-type", b"text/plain; version=0.0.4; charset=utf-8")], text)

    def account(self) -> None:
        seconds = time.perf_counter() - self.began
        self.front.metrics.request(self.area, self.status, seconds)
        if self.area == "poll" and self.status in (200, 304):
            return  # they are counted, not written down: thousands a second would drown the rest
        log.info(
            "request",
            extra={
                "method": self.scope["method"],
                "path": self.scope["path"][:300],
                "status": self.status,
                "ms": round(seconds * 1000, 1),
                "who": self.who,
                "address": self.address,
            },
        )


def counts(conn: Any) -> dict[str, float]:
    """Gauges from the tables."""
    found: dict[str, float] = {}
    for status, number in conn.execute(select(target.c.update_status, func.count()).group_by(target.c.update_status)):
        found[f"sekisho_targets_{status}"] = number
    found["sekisho_actions_open"] = conn.scalar(select(func.count()).select_from(action).where(action.c.active))
    found["sekisho_actions_silent"] = conn.scalar(
        select(func.count()).select_from(action).where(action.c.active, action.c.silent)
    )
    return found
