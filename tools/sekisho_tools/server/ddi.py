"""hawkBit's Direct Device Integration API: what devices call. `front` has authenticated the device by then.

Field names, states and status codes are hawkBit's (docs/server.md lists the differences).
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal
from urllib.parse import quote

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse, StreamingResponse
from pydantic import BaseModel, Field
from sqlalchemy import Connection, Row, select

from ..serve import Span, parse_range
from . import actions, releases, reports, targets
from .devices import Devices, Entry
from .errors import Problem, missing, wrong
from .store import Store, Tx
from .tables import action, artifact, dist_set, module, set_module

HUGE = 2**53
"""Numbers in bodies stay below this, so that every JSON reader has them exactly."""
PIECE = 32 * 1024
"""Bytes read from an artifact at a time."""

router = APIRouter(tags=["devices"])

Number = Annotated[int, Path(ge=1, lt=HUGE)]
Detail = Annotated[str, Field(max_length=8192)]


class Result(BaseModel):
    """How it ended, if it ended."""

    finished: Literal["success", "failure", "none"]


class Status(BaseModel):
    """What a device says of an action."""

    execution: Literal["scheduled", "resumed", "proceeding", "download", "downloaded", "rejected", "canceled", "closed"]
    result: Result
    code: Annotated[int, Field(gt=-HUGE, lt=HUGE)] | None = None
    details: Annotated[list[Detail], Field(max_length=actions.MAX_MESSAGES)] | None = None


class Feedback(BaseModel):
    """Body of a feedback."""

    status: Status
    timestamp: Annotated[int, Field(ge=0, lt=HUGE)] | None = None


class Confirmation(BaseModel):
    """Body of the answer to a confirmation request."""

    confirmation: Literal["confirmed", "denied"]
    code: Annotated[int, Field(gt=-HUGE, lt=HUGE)] | None = None
    details: Annotated[list[Detail], Field(max_length=actions.MAX_MESSAGES)] | None = None


class AutoConfirm(BaseModel):
    """Who switches auto-confirm on."""

    initiator: Annotated[str, Field(max_length=64)] | None = None
    remark: Annotated[str, Field(max_length=512)] | None = None


class ConfigData(BaseModel):
    """What a device says of itself."""

    mode: Literal["merge", "replace", "remove"] = "merge"
    data: dict[str, str | None]


class Installed(BaseModel):
    """Which distribution set a device runs already."""

    name: Annotated[str, Field(min_length=1, max_length=128)]
    version: Annotated[str, Field(min_length=1, max_length=64)]


class Enrolment(BaseModel):
    """A one-time token, and the device's public key (64 hex digits) if it will sign its requests."""

    token: Annotated[str, Field(min_length=16, max_length=128)]
    publicKey: Annotated[str, Field(pattern=r"^[0-9a-f]{64}([0-9a-f]{64})?$")] | None = None


Tenant = Annotated[str, Path(description="Always DEFAULT.")]
Controller = Annotated[str, Path(min_length=1, max_length=256)]


def device(request: Request, tenant: Tenant, controller: Controller) -> Entry:
    """The device that makes the request."""
    entry: Entry = request.scope["sekisho.device"]
    return entry


Device = Annotated[Entry, Depends(device)]


def store_of(request: Request) -> Store:
    """The store."""
    found: Store = request.app.state.store
    return found


Data = Annotated[Store, Depends(store_of)]


def devices_of(request: Request) -> Devices:
    """The devices in memory."""
    found: Devices = request.app.state.devices
    return found


def home(request: Request, entry: Entry) -> str:
    """The device's root URL, as the client sees it."""
    return f"{request.scope['sekisho.base']}/{request.path_params['tenant']}/controller/v1/{quote(entry.controller_id)}"


ROOT = "/{tenant}/controller/v1/{controller}"


@router.get(ROOT, summary="Poll: what is there to do?")
async def poll(request: Request, entry: Device) -> Response:
    """Answered by `front` without coming here, unless the path is spelled unusually."""
    devices = devices_of(request)
    body, etag = devices.answer(entry, home(request, entry))
    return Response(body, headers={"etag": etag.decode()}, media_type="application/json")


@router.put(f"{ROOT}/configData", summary="What a device says of itself")
async def config_data(entry: Device, store: Data, body: ConfigData) -> Response:
    """Attributes."""
    await store.write(lambda tx: targets.put_attributes(tx, entry.id, body.mode, body.data))
    return Response()


# -- orders -------------------------------------------------------------------------------------------------------


def artifact_json(root: str, part: Row[Any]) -> dict[str, Any]:
    """One artifact as hawkBit shows it; *root* is the URL of its module's artifacts. ``-http`` marks plain HTTP."""
    href = f"{root}/{quote(part.filename)}"
    mark = "" if root.startswith("https:") else "-http"
    return {
        "filename": part.filename,
        "hashes": {"sha1": part.sha1, "md5": part.md5, "sha256": part.sha256},
        "size": part.size,
        "_links": {f"download{mark}": {"href": href}, f"md5sum{mark}": {"href": f"{href}.MD5SUM"}},
    }


def order_json(conn: Connection, row: Row[Any], now: int, base: str, history: int | None) -> dict[str, Any]:
    """The body of deploymentBase, confirmationBase and installedBase."""
    download, update = actions.handling(row, now)
    window = actions.window(row, now)[0]
    parts = []
    for part, files, pairs in actions.chunks(conn, row.set_id):
        chunk: dict[str, Any] = {
            "part": releases.CHUNK_PARTS.get(part.type, part.type),
            "version": part.version,
            "name": part.name,
            "artifacts": [artifact_json(f"{base}/softwaremodules/{part.id}/artifacts", file) for file in files],
        }
        if pairs:
            chunk["metadata"] = pairs
        parts.append(chunk)
    order: dict[str, Any] = {"download": download, "update": update, "chunks": parts}
    if window is not None:
        order["maintenanceWindow"] = "available" if window == "available" else "unavailable"
    waiting = row.status == "wait_for_confirmation"
    body: dict[str, Any] = {"id": str(row.id), ("confirmation" if waiting else "deployment"): order}
    if history:
        body["actionHistory"] = {"status": row.status.upper(), "messages": actions.messages(conn, row.id, history)}
    return body


History = Annotated[int, Query(alias="actionHistory", ge=-1, le=1000)]


@router.get(f"{ROOT}/deploymentBase/{{number}}", summary="The order")
async def deployment(request: Request, entry: Device, store: Data, number: Number, history: History = 0) -> Response:
    """Marks the action as retrieved."""
    base = home(request, entry)

    def job(conn: Connection) -> tuple[dict[str, Any], bool]:
        row = actions.shown(conn, entry.id, number, exclude=("canceling", "wait_for_confirmation"))
        return order_json(conn, row, store.clock(), base, history), row.retrieved_at is None

    body, first = await store.read(job)
    if first:
        await store.write(lambda tx: actions.retrieved(tx, number))
    return JSONResponse(body)


@router.post(f"{ROOT}/deploymentBase/{{number}}/feedback", summary="How the update goes")
async def feedback(entry: Device, store: Data, number: Number, body: Feedback) -> Response:
    """Progress, or the end."""
    status = body.status
    await store.write(
        lambda tx: actions.feedback(
            tx,
            entry.id,
            number,
            status.execution,
            status.result.finished,
            status.code,
            status.details or (),
            body.timestamp,
        )
    )
    return Response()


@router.get(f"{ROOT}/installedBase/{{number}}", summary="The last order that succeeded")
async def installed(request: Request, entry: Device, store: Data, number: Number, history: History = 0) -> Response:
    """For installing the same again."""
    base = home(request, entry)

    def job(conn: Connection) -> dict[str, Any]:
        row = actions.of_device(conn, entry.id, number)
        if row.active or row.status != "finished":
            raise missing("installed action", number)
        return order_json(conn, row, store.clock(), base, history)

    return JSONResponse(await store.read(job))


@router.put(f"{ROOT}/installedBase", summary="What a device runs already")
async def put_installed(entry: Device, store: Data, body: Installed) -> Response:
    """201 recorded, 200 known already."""

    def job(tx: Tx) -> bool:
        number = tx.conn.scalar(
            select(dist_set.c.id).where(dist_set.c.name == body.name, dist_set.c.version == body.version)
        )
        if number is None:
            raise missing("distribution set", f"{body.name} {body.version}")
        row = targets.need(tx.conn, entry.controller_id)
        if row.installed_set_id == number:
            return False
        targets.note(tx, entry.id, installed_set_id=number, installed_at=tx.now)
        if row.assigned_set_id is None:
            targets.note(tx, entry.id, assigned_set_id=number, update_status="in_sync")
        return True

    return Response(status_code=201 if await store.write(job) else 200)


# -- cancelling ---------------------------------------------------------------------------------------------------


@router.get(f"{ROOT}/cancelAction/{{number}}", summary="What is to be cancelled")
async def cancel(entry: Device, store: Data, number: Number) -> Response:
    """The id again."""
    row = await store.read(lambda conn: actions.shown(conn, entry.id, number, "canceling"))
    return JSONResponse({"id": str(row.id), "cancelAction": {"stopId": str(row.id)}})


@router.post(f"{ROOT}/cancelAction/{{number}}/feedback", summary="Answer to a cancellation")
async def cancel_feedback(entry: Device, store: Data, number: Number, body: Feedback) -> Response:
    """Cancelled, or refused."""
    status = body.status
    await store.write(
        lambda tx: actions.cancel_feedback(
            tx, entry.id, number, status.execution, status.result.finished, status.code, status.details or ()
        )
    )
    return Response()


# -- confirming ---------------------------------------------------------------------------------------------------


@router.get(f"{ROOT}/confirmationBase", summary="State of auto-confirm")
async def confirmation_base(request: Request, entry: Device, store: Data) -> Response:
    """Whether updates are confirmed by themselves."""
    base = home(request, entry) + "/confirmationBase"
    row = await store.read(lambda conn: targets.need(conn, entry.controller_id))
    state: dict[str, Any] = {"active": row.auto_confirm, "activatedAt": row.auto_confirm_at or 0}
    links = {"activateAutoConfirm": {"href": f"{base}/activateAutoConfirm"}}
    if row.auto_confirm:
        state |= {"initiator": row.auto_confirm_initiator, "remark": row.auto_confirm_remark or ""}
        links = {"deactivateAutoConfirm": {"href": f"{base}/deactivateAutoConfirm"}}
    return JSONResponse({"autoConfirm": state, "_links": links})


@router.get(f"{ROOT}/confirmationBase/{{number}}", summary="The order that waits to be confirmed")
async def confirmation(request: Request, entry: Device, store: Data, number: Number, history: History = 0) -> Response:
    """Like deploymentBase."""
    base = home(request, entry)

    def job(conn: Connection) -> dict[str, Any]:
        row = actions.shown(conn, entry.id, number, "wait_for_confirmation")
        return order_json(conn, row, store.clock(), base, history)

    return JSONResponse(await store.read(job))


@router.post(f"{ROOT}/confirmationBase/{{number}}/feedback", summary="Confirm or deny")
async def confirm(entry: Device, store: Data, number: Number, body: Confirmation) -> Response:
    """By the user at the device."""
    agreed = body.confirmation == "confirmed"
    await store.write(
        lambda tx: actions.confirm(tx, "the device", entry.id, number, agreed, body.code, body.details or ())
    )
    return Response()


@router.post(f"{ROOT}/confirmationBase/activateAutoConfirm", summary="Confirm everything from now on")
async def activate(entry: Device, store: Data, body: AutoConfirm | None = None) -> Response:
    """Also what waits now."""
    given = body or AutoConfirm()

    def job(tx: Tx) -> None:
        row = targets.need(tx.conn, entry.controller_id)
        actions.auto_confirm(tx, "the device", row, given.initiator, given.remark)

    await store.write(job)
    return Response()


@router.post(f"{ROOT}/confirmationBase/deactivateAutoConfirm", summary="Ask again for each update")
async def deactivate(entry: Device, store: Data) -> Response:
    """From the next order on."""
    await store.write(lambda tx: actions.no_auto_confirm(tx, targets.need(tx.conn, entry.controller_id)))
    return Response()


# -- artifacts ----------------------------------------------------------------------------------------------------


def _may_fetch(entry: Entry, number: int) -> Any:
    return (
        select(artifact)
        .join(module, module.c.id == artifact.c.module_id)
        .join(set_module, set_module.c.module_id == module.c.id)
        .join(action, action.c.set_id == set_module.c.set_id)
        .where(
            module.c.id == number,
            action.c.target_id == entry.id,
            action.c.active | (action.c.id == (entry.view.installed_id or -1)),
        )
        .distinct()
    )


@router.get(f"{ROOT}/softwaremodules/{{number}}/artifacts", summary="Artifacts of a module of this device's orders")
async def artifacts(request: Request, entry: Device, store: Data, number: Number) -> Response:
    """404 for a module that is none of the device's business."""
    root = f"{home(request, entry)}/softwaremodules/{number}/artifacts"
    rows = await store.read(lambda conn: conn.execute(_may_fetch(entry, number).order_by(artifact.c.id)).all())
    if not rows:
        raise missing("module", number)
    return JSONResponse([artifact_json(root, row) for row in rows])


class Files:
    """Open artifact files, each open once however many devices read it."""

    KEEP = 16

    def __init__(self, store: Store) -> None:
        self.store = store
        self._open: OrderedDict[str, list[int]] = OrderedDict()  # sha256 -> [descriptor, readers]
        self._guard = threading.Lock()

    def take(self, sha256: str) -> int:
        """A descriptor; give it back with `give`. Raises OSError."""
        with self._guard:
            known = self._open.get(sha256)
            if known is None:
                known = [os.open(self.store.artifact(sha256), os.O_RDONLY), 0]
                self._open[sha256] = known
            known[1] += 1
            self._open.move_to_end(sha256)
            return known[0]

    def give(self, sha256: str) -> None:
        """No longer needed."""
        with self._guard:
            self._open[sha256][1] -= 1
            if len(self._open) > self.KEEP:
                for name in [name for name, known in self._open.items() if not known[1]][: len(self._open) - self.KEEP]:
                    os.close(self._open.pop(name)[0])

    def close(self) -> None:
        """Close all."""
        with self._guard:
            while self._open:
                os.close(self._open.popitem()[1][0])


async def _pieces(files: Files, sha256: str, span: Span, count: Any) -> AsyncIterator[bytes]:
    descriptor = files.take(sha256)
    try:
        at = span.start
        while at < span.stop:
            # From the page cache, as nearly always with a fleet that fetches one release: no detour over a thread.
            piece = os.pread(descriptor, min(PIECE, span.stop - at), at)
            if not piece:
                break
            at += len(piece)
            count.sent_bytes += len(piece)
            yield piece
    finally:
        files.give(sha256)


def send_artifact(request: Request, part: Row[Any]) -> Response:
    """The bytes of an artifact, or the range that is asked for."""
    etag = f'"{part.sha256}"'
    headers = {"ETag": etag, "Accept-Ranges": "bytes", "Cache-Control": "private, no-cache"}
    try:
        span = None
        if request.headers.get("if-range", etag) == etag:
            span = parse_range(request.headers.get("range"), part.size)
    except ValueError:
        return PlainTextResponse("", 416, headers | {"Content-Range": f"bytes */{part.size}"})
    status = 200 if span is None else 206
    if span is None:
        span = Span(0, part.size)
    else:
        headers["Content-Range"] = f"bytes {span.start}-{span.stop - 1}/{part.size}"
    headers["Content-Length"] = str(span.stop - span.start)
    headers["Content-Disposition"] = f"attachment; filename*=UTF-8''{quote(part.filename)}"
    state = request.app.state
    if request.method == "HEAD":
        return Response(None, status, headers, "application/octet-stream")
    return StreamingResponse(
        _pieces(state.files, part.sha256, span, state.metrics), status, headers, "application/octet-stream"
    )


FILE_PATH = f"{ROOT}/softwaremodules/{{number}}/artifacts/{{filename}}"


@router.get(FILE_PATH, summary="The bytes, with ranges")
@router.head(FILE_PATH, include_in_schema=False)
async def download(
    request: Request,
    entry: Device,
    store: Data,
    number: Number,
    filename: Annotated[str, Path(min_length=1, max_length=140)],
) -> Response:
    """Only what the device's open or installed actions name. ``NAME.MD5SUM`` gives the MD5 (against line noise)."""
    rows = await store.read(lambda conn: conn.execute(_may_fetch(entry, number)).all())
    for row in rows:
        if row.filename == filename:
            if request.method == "GET" and "range" not in request.headers and entry.view.action_id is not None:
                await store.write(lambda tx: _fetched(tx, entry.id, number, filename))
            return send_artifact(request, row)
        if f"{row.filename}.MD5SUM" == filename:
            return PlainTextResponse(f"{row.md5}  {row.filename}")
    raise missing("artifact", filename)


def _fetched(tx: Tx, target_id: int, module_id: int, filename: str) -> None:
    number = tx.conn.scalar(
        select(action.c.id)
        .join(set_module, set_module.c.set_id == action.c.set_id)
        .where(action.c.target_id == target_id, action.c.active, set_module.c.module_id == module_id)
        .order_by(action.c.id)
    )
    if number is not None:
        actions.fetched(tx, number, filename)


# -- what hawkBit has not -----------------------------------------------------------------------------------------


@router.post(f"{ROOT}/enrol", summary="Enrol with a one-time token", status_code=201)
async def enrol(store: Data, tenant: Tenant, controller: Controller, body: Enrolment) -> Response:
    """Gives the device its token, or records the key with which it signs its requests from now on."""
    key = bytes.fromhex(body.publicKey) if body.publicKey else None
    if key is not None and not reports.usable(key):
        raise wrong("publicKey is no public key of a device (Ed25519, or P-256 as X and Y).")
    token = await store.write(lambda tx: targets.enrol(tx, controller, body.token, key))
    return JSONResponse({"controllerId": controller, **({"securityToken": token} if token else {})}, 201)


@router.post(f"{ROOT}/reports", summary="A report that the device signed", status_code=201)
async def report(request: Request, entry: Device, store: Data) -> Response:
    """Body: a COSE_Sign1 (application/cose). The same report sent twice is kept once."""
    body = await request.body()
    if not body or len(body) > targets.MAX_REPORT:
        raise Problem(413 if body else 400, "report", f"A report has 1 to {targets.MAX_REPORT} bytes.")
    verdict = reports.verdict(body, entry.public_key)
    deed = reports.last_words(body, entry.public_key)

    def job(tx: Tx) -> int:
        number = targets.add_report(tx, entry.id, body, verdict)
        if deed:
            targets.last_words(tx, targets.need(tx.conn, entry.controller_id), deed)
        return number

    return JSONResponse({"id": await store.write(job), "verdict": verdict}, 201)


@router.get(f"{ROOT}/order", summary="The operator order that waits for the device")
async def order(request: Request, entry: Device, store: Data) -> Response:
    """A COSE_Sign1 (docs/orders.md); 304 where the device has it already, 404 where none waits."""
    row = await store.read(lambda conn: targets.waiting_order(conn, entry.id))
    if row is None:
        raise missing("order", entry.controller_id)
    etag = f'"{row.sha256}"'
    if request.headers.get("if-none-match") == etag:
        return Response(status_code=304, headers={"ETag": etag})
    return Response(row.body, headers={"ETag": etag}, media_type="application/cose")
