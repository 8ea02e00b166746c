"""The server put together: store, devices, faces, worker."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, RedirectResponse, Response

from . import actions, ddi, management, notices, notify, releases, rollouts, web
from .devices import Devices
from .errors import Problem, broken, busy
from .front import Front
from .metrics import Metrics
from .operators import Doorkeeper
from .options import Options
from .store import Busy, Store, Tx

log = logging.getLogger("sekisho.server")

WORK_SECONDS = 1.0
"""How often rollouts and silence are looked at."""
PAGE_WORDS = {
    400: "The request cannot be read.",
    404: "There is no such page.",
    405: "This page cannot be used in this way.",
}
"""What people are told where the framework refuses."""
FORGET_MS = 3_600_000
"""How often old history is looked for."""
ALARM_MS = 60_000
ALARM_REST_MS = 3_600_000
TITLE = "Sekisho update server"


async def _problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    if web.is_page(request):
        return web.error_page(request, error)
    if not error.sentence:
        return Response(status_code=error.status, headers=error.headers)
    return JSONResponse(error.body(), error.status, error.headers)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    if web.is_page(request):
        return web.error_page(request, Problem(400, "badrequest", "The address cannot be read."))
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"][:6])
    return JSONResponse(Problem(400, "badrequest", f"{where}: {first['msg']}"[:300]).body(), 400)


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if web.is_page(request):
        words = PAGE_WORDS.get(error.status_code, PAGE_WORDS[400])
        return web.error_page(request, Problem(error.status_code, "http", words, dict(error.headers or {})))
    body = Problem(error.status_code, "http", str(error.detail)).body()
    return JSONResponse(body, error.status_code, error.headers)


async def _leave(_request: Request, error: Exception) -> Response:
    assert isinstance(error, web.Leave)
    return RedirectResponse(error.where, 303)


async def _busy(request: Request, _error: Exception) -> Response:
    return await _problem(request, busy())


async def _broken(request: Request, _error: Exception) -> Response:
    return await _problem(request, broken())  # who catches the error after this writes it down


class Alarm:
    """Notices when more than *limit* requests are refused in ALARM_MS (UPD06); tells of it once in ALARM_REST_MS."""

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self._since = 0
        self._quiet_until = 0
        self._before: dict[str, int] = {}

    def look(self, now: int, metrics: Metrics) -> dict[str, int]:
        """What was refused since the last minute began, if that is worth an alarm; else nothing."""
        counts = {name: metrics.limited[name] + metrics.denied[name] for name in {*metrics.limited, *metrics.denied}}
        more = {name: count - self._before.get(name, 0) for name, count in counts.items()}
        loud = bool(self.limit) and sum(more.values()) > self.limit and now >= self._quiet_until
        if loud:
            self._quiet_until = now + ALARM_REST_MS
        if loud or not 0 <= now - self._since < ALARM_MS:
            self._since, self._before = now, counts
        return {name: count for name, count in sorted(more.items()) if count} if loud else {}


class Server:
    """Everything that belongs to one data directory. ``asgi`` is the application to serve."""

    def __init__(self, store: Store, options: Options) -> None:
        self.store = store
        self.options = options
        self.devices = Devices(store)
        self.doorkeeper = Doorkeeper(store, options.login)
        self.files = ddi.Files(store)
        self.notifier = notify.Notifier(store, options)
        self.loop: asyncio.AbstractEventLoop | None = None
        self._forget_next = 0
        self._alarm = Alarm(options.limits.alarm)
        self._tasks: list[asyncio.Task[None]] = []
        app = FastAPI(
            title=TITLE,
            version="1",
            docs_url=None,  # its pages come from a CDN
            redoc_url=None,
            lifespan=self._life,
            exception_handlers={
                Problem: _problem,
                RequestValidationError: _invalid,
                HTTPException: _http,
                Busy: _busy,
                Exception: _broken,
                web.Leave: _leave,
            },
        )
        _mount(app)
        app.state.store = store
        app.state.devices = self.devices
        app.state.files = self.files
        app.state.server = self
        self.asgi = Front(app, self.devices, self.doorkeeper, options, self._page)
        app.state.metrics = self.asgi.metrics

    @staticmethod
    def _page(request: Request, problem: Problem) -> Response | None:
        return web.error_page(request, problem) if web.is_page(request) else None

    @contextlib.asynccontextmanager
    async def _life(self, _app: FastAPI) -> AsyncIterator[None]:
        self.loop = asyncio.get_running_loop()
        await asyncio.to_thread(releases.sweep, self.store)
        self._tasks = [asyncio.create_task(work) for work in (self._work(), self.notifier.forever())]
        try:
            yield
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await self.devices.flush()
            await asyncio.to_thread(self.store.close)
            self.files.close()

    async def work_once(self) -> None:
        """Write what polls said, look for silence, move rollouts on."""
        await self.devices.flush()
        events = self.asgi.metrics.events
        refused = self._alarm.look(self.store.clock(), self.asgi.metrics)
        if refused:
            events["floods"] += 1
            log.warning("many requests are refused", extra={"refused": refused})

        def job(tx: Tx) -> tuple[int, int]:
            actions.end_passed_windows(tx)
            if refused:
                notices.flood(tx, refused, ALARM_MS // 1000)
            if tx.now >= self._forget_next:
                more = actions.forget_old(tx) >= actions.FORGET_AT_ONCE
                self._forget_next = tx.now + (0 if more else FORGET_MS)
            return rollouts.watch(tx, dict(self.devices.seen)), rollouts.step(tx)

        silent, steps = await self.store.write(job)
        if silent:
            events["silent"] += silent
            log.warning("devices fell silent", extra={"count": silent})
        if steps:
            events["rollout_steps"] += steps
        self.notifier.wake()

    async def _work(self) -> None:
        while True:
            try:
                await self.work_once()
            except Exception:
                log.exception("the worker failed; it tries again")
            await asyncio.sleep(WORK_SECONDS)


def _mount(app: FastAPI) -> None:
    app.include_router(ddi.router)
    for router in management.ROUTERS:
        app.include_router(router)
    app.include_router(web.router)


def openapi() -> dict[str, Any]:
    """The description of both APIs, without a database."""
    app = FastAPI(title=TITLE, version="1")
    _mount(app)
    return app.openapi()
