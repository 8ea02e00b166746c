"""The part of hawkBit's management API (``/rest/v1``) that publishing, rollouts and inventories need.

`front` has authenticated the operator; here their role is checked. Whoever may not do something gets 403.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import Field
from sqlalchemy import Connection, Row, Select, func, select
from starlette.datastructures import UploadFile

from . import actions, models, operators, query, releases, reports, rollouts, settings, targets
from .ddi import HUGE, Data, devices_of, send_artifact
from .devices import Devices
from .errors import Problem, missing, wrong
from .operators import Operator
from .store import Tx
from .tables import (
    action,
    action_status,
    dist_set,
    enrolment,
    module,
    module_metadata,
    rollout,
    rollout_group,
    rollout_target,
    target,
)

MAX_PAGE = 500
MAX_AT_ONCE = 1000
"""Things that one request may create."""

router = APIRouter(prefix="/rest/v1")


def _role(wanted: str) -> Callable[[Request], Operator]:
    def check(request: Request) -> Operator:
        found: Operator = request.scope["sekisho.operator"]
        if not found.may(wanted):
            raise Problem(403, "forbidden", f"This needs the role {wanted}.")
        return found

    return check


Viewer = Annotated[Operator, Depends(_role("viewer"))]
Worker = Annotated[Operator, Depends(_role("operator"))]
Admin = Annotated[Operator, Depends(_role("admin"))]
Controller = Annotated[str, Path(min_length=1, max_length=256)]
Number = Annotated[int, Path(ge=1, lt=HUGE)]
Offset = Annotated[int, Query(ge=0, lt=HUGE)]
Limit = Annotated[int, Query(ge=1, le=MAX_PAGE)]
Filter = Annotated[str | None, Query(max_length=query.MAX_QUERY)]
Sort = Annotated[str | None, Query(max_length=100)]


@dataclass
class Listing:
    """Which part of a list is asked for, in which order."""

    offset: Offset = 0
    limit: Limit = 50
    sort: Sort = None


@dataclass
class Search(Listing):
    """The same, of what fits a filter."""

    q: Filter = None


Part = Annotated[Listing, Depends()]
Found = Annotated[Search, Depends()]


def _base(request: Request) -> str:
    return f"{request.scope['sekisho.base']}/rest/v1"


def _some(values: Sequence[Any]) -> None:
    if not 1 <= len(values) <= MAX_AT_ONCE:
        raise wrong(f"1 to {MAX_AT_ONCE} entries at a time.")


def _page(
    conn: Connection,
    wanted: Select[Any],
    fields: dict[str, Any],
    show: Callable[[Row[Any]], dict[str, Any]],
    part: Listing,
) -> dict[str, Any]:
    total = conn.scalar(select(func.count()).select_from(wanted.order_by(None).subquery())) or 0
    name, _, direction = (part.sort or "id:ASC").partition(":")
    column = fields.get(name.lower())
    if column is None or direction.upper() not in ("", "ASC", "DESC"):
        raise wrong("The sort order does not read NAME:ASC or NAME:DESC.")
    order = column.desc() if direction.upper() == "DESC" else column.asc()
    rows = conn.execute(wanted.order_by(order).offset(part.offset).limit(part.limit)).all()
    content = [show(row) for row in rows]
    return {"content": content, "total": total, "size": len(content)}


def _list(content: list[Any]) -> dict[str, Any]:
    return {"content": content, "total": len(content), "size": len(content)}


def _times(row: Row[Any]) -> dict[str, Any]:
    return {
        "createdBy": row.created_by,
        "createdAt": row.created_at,
        "lastModifiedBy": row.modified_by,
        "lastModifiedAt": row.modified_at,
    }


def _given(body: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if value is not None}


# -- settings -----------------------------------------------------------------------------------------------------

system = APIRouter(prefix="/rest/v1/system/configs", tags=["settings"])


def _setting(conn: Connection, key: str) -> dict[str, Any]:
    kind = settings.SETTINGS.get(key)
    if kind is None:
        raise missing("setting", key)
    value = settings.get(conn, key)
    return {"value": "" if kind.secret else value, "global": settings.is_default(conn, key)}


@system.get("")
async def list_settings(who: Viewer, store: Data) -> Response:
    """All settings; secrets are never shown."""
    return JSONResponse(await store.read(lambda conn: {key: _setting(conn, key) for key in settings.SETTINGS}))


@system.put("", status_code=204)
async def put_settings(who: Admin, store: Data, body: dict[str, Any]) -> Response:
    """Change several at once."""

    def job(tx: Tx) -> None:
        for key, value in body.items():
            settings.put(tx, key, value)
        operators.log(tx, who.name, "settings changed", keys=sorted(body))

    await store.write(job)
    return Response(status_code=204)


@system.get("/{key}")
async def get_setting(who: Viewer, store: Data, key: str) -> Response:
    """One setting."""
    return JSONResponse(await store.read(lambda conn: _setting(conn, key)))


@system.put("/{key}", status_code=204)
async def put_setting(who: Admin, store: Data, key: str, body: models.Value) -> Response:
    """Change one."""

    def job(tx: Tx) -> None:
        settings.put(tx, key, body.value)
        operators.log(tx, who.name, "settings changed", keys=[key])

    await store.write(job)
    return Response(status_code=204)


@system.delete("/{key}", status_code=204)
async def reset_setting(who: Admin, store: Data, key: str) -> Response:
    """Back to the default."""

    def job(tx: Tx) -> None:
        settings.reset(tx, key)
        operators.log(tx, who.name, "settings reset", keys=[key])

    await store.write(job)
    return Response(status_code=204)


# -- targets ------------------------------------------------------------------------------------------------------

target_router = APIRouter(prefix="/rest/v1/targets", tags=["targets"])
TARGET_ORDER = {
    "id": target.c.id,
    "controllerid": target.c.controller_id,
    "name": target.c.name,
    "createdat": target.c.created_at,
    "lastcontrollerrequestat": target.c.last_poll_at,
    "updatestatus": target.c.update_status,
}


def target_json(row: Row[Any], base: str, devices: Devices, sleep: int) -> dict[str, Any]:
    """A target as hawkBit shows it."""
    polled, address = devices.seen.get(row.id, (row.last_poll_at, row.address))
    home = f"{base}/targets/{quote(row.controller_id, safe='')}"
    links = {
        name: {"href": f"{home}/{name}"}
        for name in ("assignedDS", "installedDS", "attributes", "actions", "metadata", "autoConfirm")
    }
    body = {
        **_times(row),
        "name": row.name,
        "description": row.description,
        "controllerId": row.controller_id,
        "updateStatus": "registered" if row.update_status == "unknown" and polled else row.update_status,
        "lastControllerRequestAt": polled,
        "installedAt": row.installed_at,
        "ipAddress": address,
        "address": f"http://{address}" if address else None,
        "requestAttributes": row.request_attributes,
        "autoConfirmActive": row.auto_confirm,
        "publicKey": row.public_key.hex() if row.public_key else None,
        "_links": {"self": {"href": home}, **links},
    }
    if polled is not None:
        due = polled + sleep * 1000
        overdue = devices.store.clock() > due + sleep * 1000
        body["pollStatus"] = {"lastRequestAt": polled, "nextExpectedRequestAt": due, "overdue": overdue}
    return _given(body)


def _sleep(conn: Connection) -> int:
    return settings.seconds(settings.get(conn, "pollingTime"))


@target_router.get("")
async def list_targets(
    request: Request,
    who: Viewer,
    store: Data,
    part: Found,
) -> Response:
    """Targets, filtered and sorted."""
    devices, base = devices_of(request), _base(request)
    await devices.flush()

    def job(conn: Connection) -> dict[str, Any]:
        wanted = select(target).where(query.targets(part.q)) if part.q else select(target)
        sleep = _sleep(conn)
        return _page(conn, wanted, TARGET_ORDER, lambda row: target_json(row, base, devices, sleep), part)

    return JSONResponse(await store.read(job))


def _public_key(text: str | None) -> bytes | None:
    if text is None:
        return None
    key = bytes.fromhex(text)
    if not reports.usable(key):
        raise wrong("publicKey is no public key of a device (Ed25519, or P-256 as X and Y).")
    return key


@target_router.post("", status_code=201)
async def add_targets(request: Request, who: Worker, store: Data, body: list[models.NewTarget]) -> Response:
    """Register devices. The tokens are shown in this answer and never again."""
    _some(body)
    devices, base = devices_of(request), _base(request)

    def job(tx: Tx) -> list[dict[str, Any]]:
        made = []
        for one in body:
            key = _public_key(one.publicKey)
            token = one.securityToken or (None if key else targets.new_token())
            targets.add(tx, who.name, one.controllerId, one.name, one.description, token, key)
            shown = target_json(targets.need(tx.conn, one.controllerId), base, devices, _sleep(tx.conn))
            made.append(shown | ({"securityToken": token} if token else {}))
        operators.log(tx, who.name, "targets created", controllerIds=[one.controllerId for one in body][:100])
        return made

    return JSONResponse(await store.write(job), 201)


@target_router.get("/{controller}")
async def get_target(request: Request, who: Viewer, store: Data, controller: Controller) -> Response:
    """One target."""
    devices, base = devices_of(request), _base(request)
    return JSONResponse(
        await store.read(lambda conn: target_json(targets.need(conn, controller), base, devices, _sleep(conn)))
    )


@target_router.put("/{controller}")
async def put_target(
    request: Request, who: Worker, store: Data, controller: Controller, body: models.ChangeTarget
) -> Response:
    """Change name, words, token or key, or ask for attributes."""
    devices, base = devices_of(request), _base(request)
    if body.securityToken is not None:
        targets.check_token(body.securityToken)
    values = _given(
        {
            "name": body.name,
            "description": body.description,
            "token_hash": targets.hashed(body.securityToken) if body.securityToken else None,
            "public_key": _public_key(body.publicKey),
            "request_attributes": True if body.requestAttributes else None,
        }
    )

    def job(tx: Tx) -> dict[str, Any]:
        targets.change(tx, who.name, targets.need(tx.conn, controller).id, **values)
        operators.log(tx, who.name, "target changed", controllerId=controller, changed=sorted(values))
        return target_json(targets.need(tx.conn, controller), base, devices, _sleep(tx.conn))

    return JSONResponse(await store.write(job))


@target_router.delete("/{controller}")
async def delete_target(who: Admin, store: Data, controller: Controller) -> Response:
    """Delete a device and its history."""

    def job(tx: Tx) -> None:
        targets.remove(tx, targets.need(tx.conn, controller).id)
        operators.log(tx, who.name, "target deleted", controllerId=controller)

    await store.write(job)
    return Response()


@target_router.get("/{controller}/attributes")
async def get_attributes(who: Viewer, store: Data, controller: Controller) -> Response:
    """What the device says of itself; 204 when it has said nothing."""
    found = await store.read(lambda conn: targets.attributes(conn, targets.need(conn, controller).id))
    return JSONResponse(found) if found else Response(status_code=204)


@target_router.get("/{controller}/metadata")
async def get_metadata(who: Viewer, store: Data, controller: Controller) -> Response:
    """What operators noted."""
    found = await store.read(lambda conn: targets.metadata(conn, targets.need(conn, controller).id))
    return JSONResponse(_list([{"key": key, "value": value} for key, value in found.items()]))


@target_router.post("/{controller}/metadata", status_code=201)
async def add_metadata(who: Worker, store: Data, controller: Controller, body: list[models.Pair]) -> Response:
    """Note something."""
    _some(body)
    pairs = [(one.key, one.value) for one in body]
    await store.write(lambda tx: targets.put_metadata(tx, targets.need(tx.conn, controller).id, pairs))
    return JSONResponse([{"key": key, "value": value} for key, value in pairs], 201)


@target_router.post("/{controller}/decommission", status_code=204)
async def decommission(who: Admin, store: Data, controller: Controller, body: models.Farewell) -> Response:
    """Refuse this device's identity for good, even when it is deleted; there is no way back (not in hawkBit)."""

    def job(tx: Tx) -> None:
        if targets.retire(tx, who.name, targets.need(tx.conn, controller), body.why):
            operators.log(tx, who.name, "target decommissioned", controllerId=controller, why=body.why)

    await store.write(job)
    return Response(status_code=204)


_RAW = {"type": "string", "format": "binary"}
_ORDER = {"requestBody": {"required": True, "content": {"application/octet-stream": {"schema": _RAW}}}}


@target_router.put("/{controller}/order", status_code=204, openapi_extra=_ORDER)
async def put_order(request: Request, who: Worker, store: Data, controller: Controller) -> Response:
    """Leave a signed operator order for the device, instead of the one before (not in hawkBit)."""
    body = await request.body()
    if not 1 <= len(body) <= targets.MAX_ORDER:
        raise wrong(f"A signed order has 1 to {targets.MAX_ORDER} bytes.")
    deed = reports.order_in(body)
    if deed is None:
        raise wrong("This is no signed operator order.")

    def job(tx: Tx) -> None:
        device = targets.need(tx.conn, controller)
        targets.not_retired(tx.conn, controller, None)
        digest = targets.put_order(tx, who.name, device.id, body, deed)
        operators.log(tx, who.name, "order left", controllerId=controller, action=deed, sha256=digest)

    await store.write(job)
    return Response(status_code=204)


@target_router.get("/{controller}/order")
async def get_order(who: Worker, store: Data, controller: Controller) -> Response:
    """The order that waits for the device; 204 when none does (not in hawkBit)."""
    row = await store.read(lambda conn: targets.waiting_order(conn, targets.need(conn, controller).id))
    if row is None:
        return Response(status_code=204)
    return JSONResponse({"action": row.action, "sha256": row.sha256, "cose": row.body.hex(), **_times(row)})


@target_router.delete("/{controller}/order")
async def delete_order(who: Worker, store: Data, controller: Controller) -> Response:
    """Take the order away; a device that has read it may still obey it (not in hawkBit)."""

    def job(tx: Tx) -> None:
        targets.take_order(tx, targets.need(tx.conn, controller).id)
        operators.log(tx, who.name, "order taken away", controllerId=controller)

    await store.write(job)
    return Response()


@target_router.get("/{controller}/reports")
async def get_reports(who: Viewer, store: Data, controller: Controller) -> Response:
    """Reports that the device signed, newest first (not in hawkBit)."""
    rows = await store.read(lambda conn: targets.reports(conn, targets.need(conn, controller).id))
    return JSONResponse(
        [{"id": row.id, "receivedAt": row.received_at, "verdict": row.verdict, "cose": row.body.hex()} for row in rows]
    )


def _order(body: models.Assignment) -> actions.Order:
    window = body.maintenanceWindow
    return actions.Order(
        body.type,
        body.forcetime,
        body.weight,
        window.schedule if window else None,
        window.duration if window else None,
        window.timezone if window else None,
        body.confirmationRequired,
    )


def _assign(
    tx: Tx, who: Operator, wanted: Sequence[tuple[str, int, actions.Order]], offline: bool = False
) -> dict[str, Any]:
    made: list[dict[str, Any]] = []
    known = 0
    for controller, set_id, order in wanted:
        device = targets.need(tx.conn, controller)
        if offline:
            _record_installed(tx, device.id, set_id)
            continue
        number = actions.assign(tx, who.name, device, set_id, order)
        known += number is None
        made += [] if number is None else [{"id": number}]
    operators.log(tx, who.name, "assigned", targets=[(one[0], one[1]) for one in wanted][:100], offline=offline)
    assigned = len(wanted) - known
    return {"assigned": assigned, "alreadyAssigned": known, "total": len(wanted), "assignedActions": made}


def _record_installed(tx: Tx, target_id: int, set_id: int) -> None:
    releases.row(tx.conn, dist_set, set_id, "distribution set")
    targets.note(
        tx, target_id, installed_set_id=set_id, assigned_set_id=set_id, installed_at=tx.now, update_status="in_sync"
    )


@target_router.post("/{controller}/assignedDS")
async def assign_set(
    who: Worker,
    store: Data,
    controller: Controller,
    body: models.AssignSet | Annotated[list[models.AssignSet], Field(max_length=10)],
    offline: bool = False,
) -> Response:
    """Assign a distribution set; ``offline=true`` only records that it is installed."""
    sets = body if isinstance(body, list) else [body]
    _some(sets)
    wanted = [(controller, one.id, _order(one)) for one in sets]
    return JSONResponse(await store.write(lambda tx: _assign(tx, who, wanted, offline)))


@target_router.get("/{controller}/assignedDS")
async def assigned_set(request: Request, who: Viewer, store: Data, controller: Controller) -> Response:
    """204 when there is none."""
    return await _set_of(request, store, controller, "assigned_set_id")


@target_router.get("/{controller}/installedDS")
async def installed_set(request: Request, who: Viewer, store: Data, controller: Controller) -> Response:
    """204 when there is none."""
    return await _set_of(request, store, controller, "installed_set_id")


async def _set_of(request: Request, store: Data, controller: str, column: str) -> Response:
    def job(conn: Connection) -> dict[str, Any] | None:
        number = getattr(targets.need(conn, controller), column)
        return None if number is None else set_json(conn, releases.row(conn, dist_set, number, "set"), _base(request))

    found = await store.read(job)
    return Response(status_code=204) if found is None else JSONResponse(found)


@target_router.get("/{controller}/autoConfirm")
async def get_auto_confirm(who: Viewer, store: Data, controller: Controller) -> Response:
    """Whether updates are confirmed by themselves."""
    row = await store.read(lambda conn: targets.need(conn, controller))
    found: dict[str, Any] = {"active": row.auto_confirm}
    if row.auto_confirm:
        found |= {
            "initiator": row.auto_confirm_initiator,
            "remark": row.auto_confirm_remark or "",
            "activatedAt": row.auto_confirm_at,
        }
    return JSONResponse(found)


@target_router.post("/{controller}/autoConfirm/activate")
async def activate(
    who: Worker, store: Data, controller: Controller, body: models.AutoConfirm | None = None
) -> Response:
    """Confirm everything from now on."""
    given = body or models.AutoConfirm()

    def job(tx: Tx) -> None:
        device = targets.need(tx.conn, controller)
        actions.auto_confirm(tx, who.name, device, given.initiator or who.name, given.remark)
        operators.log(tx, who.name, "auto-confirm on", controllerId=controller)

    await store.write(job)
    return Response()


@target_router.post("/{controller}/autoConfirm/deactivate")
async def deactivate(who: Worker, store: Data, controller: Controller) -> Response:
    """Ask again for each update."""

    def job(tx: Tx) -> None:
        actions.no_auto_confirm(tx, targets.need(tx.conn, controller))
        operators.log(tx, who.name, "auto-confirm off", controllerId=controller)

    await store.write(job)
    return Response()


# -- actions ------------------------------------------------------------------------------------------------------


def _dotted(columns: dict[str, Any]) -> query.Field:
    def make(compare: Any, rest: str) -> Any:
        if rest.lower() not in columns:
            raise wrong(f"A filter cannot ask for {rest[:60]!r}.")
        return compare(columns[rest.lower()])

    return make


ACTIONS = query.columns_of(action, status=action.c.status, weight=action.c.weight, active=action.c.active)
ALL_ACTIONS = ACTIONS | {
    "target": _dotted({"controllerid": target.c.controller_id, "name": target.c.name}),
    "rollout": _dotted({"id": action.c.rollout_id}),
    "distributionset": _dotted({"id": action.c.set_id}),
}
ACTION_ORDER = {"id": action.c.id, "status": action.c.status, "createdat": action.c.created_at}


def action_json(row: Row[Any], controller: str, base: str) -> dict[str, Any]:
    """An action as hawkBit shows it; ``active`` and ``silent`` are ours."""
    root = f"{base}/targets/{quote(controller, safe='')}"
    body = {
        **_times(row),
        "id": row.id,
        "type": "cancel" if row.status in ("canceling", "canceled") else "update",
        "status": row.status,
        "active": row.active,
        "silent": row.silent,
        "forceType": row.type,
        "forceTime": row.force_time,
        "weight": row.weight,
        "rollout": row.rollout_id,
        "lastStatusCode": row.last_code,
        "_links": {
            "self": {"href": f"{root}/actions/{row.id}"},
            "target": {"href": root, "name": controller},
            "distributionset": {"href": f"{base}/distributionsets/{row.set_id}"},
            "status": {"href": f"{root}/actions/{row.id}/status?offset=0&limit=50&sort=id%3ADESC"},
        },
    }
    if row.window_schedule is not None:
        body["maintenanceWindow"] = {
            "schedule": row.window_schedule,
            "duration": row.window_duration,
            "timezone": row.window_timezone,
        }
    return _given(body)


@target_router.get("/{controller}/actions", tags=["actions"])
async def list_target_actions(
    request: Request,
    who: Viewer,
    store: Data,
    controller: Controller,
    part: Found,
) -> Response:
    """The actions of a target."""

    def job(conn: Connection) -> dict[str, Any]:
        wanted = select(action).where(action.c.target_id == targets.need(conn, controller).id)
        if part.q:
            wanted = wanted.where(query.condition(part.q, ACTIONS))
        return _page(conn, wanted, ACTION_ORDER, lambda row: action_json(row, controller, _base(request)), part)

    return JSONResponse(await store.read(job))


def _one_action(conn: Connection, controller: str, number: int) -> Row[Any]:
    return actions.of_device(conn, targets.need(conn, controller).id, number)


@target_router.get("/{controller}/actions/{number}", tags=["actions"])
async def get_action(request: Request, who: Viewer, store: Data, controller: Controller, number: Number) -> Response:
    """One action."""
    row = await store.read(lambda conn: _one_action(conn, controller, number))
    return JSONResponse(action_json(row, controller, _base(request)))


@target_router.put("/{controller}/actions/{number}", tags=["actions"])
async def put_action(
    request: Request, who: Worker, store: Data, controller: Controller, number: Number, body: models.ForceType
) -> Response:
    """Soft becomes forced."""

    def job(tx: Tx) -> Row[Any]:
        actions.force(tx, who.name, targets.need(tx.conn, controller).id, number)
        operators.log(tx, who.name, "action forced", controllerId=controller, action=number)
        return _one_action(tx.conn, controller, number)

    return JSONResponse(action_json(await store.write(job), controller, _base(request)))


@target_router.delete("/{controller}/actions/{number}", status_code=204, tags=["actions"])
async def cancel_action(
    who: Worker, store: Data, controller: Controller, number: Number, force: bool = False
) -> Response:
    """Cancel; with ``force=true`` no longer wait for the device."""

    def job(tx: Tx) -> None:
        actions.cancel(tx, who.name, targets.need(tx.conn, controller).id, number, force)
        operators.log(tx, who.name, "action cancelled", controllerId=controller, action=number, force=force)

    await store.write(job)
    return Response(status_code=204)


@target_router.put("/{controller}/actions/{number}/confirmation", tags=["actions"])
async def confirm_action(
    who: Worker, store: Data, controller: Controller, number: Number, body: models.Confirmation
) -> Response:
    """Confirm or deny for the device."""

    def job(tx: Tx) -> None:
        device = targets.need(tx.conn, controller)
        agreed = body.confirmation == "confirmed"
        actions.confirm(tx, who.name, device.id, number, agreed, body.code, body.details)
        operators.log(tx, who.name, body.confirmation, controllerId=controller, action=number)

    await store.write(job)
    return Response()


def _status_json(row: Row[Any]) -> dict[str, Any]:
    body = {
        "id": row.id,
        "type": row.type,
        "messages": row.messages,
        "reportedAt": row.reported_at,
        "timestamp": row.reported_at if row.device_time is None else row.device_time,
        "code": row.code,
    }
    return _given(body)


@target_router.get("/{controller}/actions/{number}/status", tags=["actions"])
async def action_history(
    who: Viewer,
    store: Data,
    controller: Controller,
    number: Number,
    part: Part,
) -> Response:
    """What was reported."""

    def job(conn: Connection) -> dict[str, Any]:
        _one_action(conn, controller, number)
        wanted = select(action_status).where(action_status.c.action_id == number)
        order = {"id": action_status.c.id, "reportedat": action_status.c.reported_at}
        return _page(conn, wanted, order, _status_json, replace(part, sort=part.sort or "id:DESC"))

    return JSONResponse(await store.read(job))


@router.get("/actions", tags=["actions"])
async def list_actions(
    request: Request,
    who: Viewer,
    store: Data,
    part: Found,
) -> Response:
    """All actions. The filter knows id, status, active, weight, target.controllerId, rollout.id, distributionSet.id."""
    base = _base(request)

    def job(conn: Connection) -> dict[str, Any]:
        wanted = select(action, target.c.controller_id).join(target, target.c.id == action.c.target_id)
        if part.q:
            wanted = wanted.where(query.condition(part.q, ALL_ACTIONS))
        return _page(conn, wanted, ACTION_ORDER, lambda row: action_json(row, row.controller_id, base), part)

    return JSONResponse(await store.read(job))


@router.get("/actions/{number}", tags=["actions"])
async def get_any_action(request: Request, who: Viewer, store: Data, number: Number) -> Response:
    """One action."""

    def job(conn: Connection) -> dict[str, Any]:
        row = releases.row(conn, action, number, "action")
        controller = conn.scalar(select(target.c.controller_id).where(target.c.id == row.target_id))
        return action_json(row, str(controller), _base(request))

    return JSONResponse(await store.read(job))


# -- modules ------------------------------------------------------------------------------------------------------

module_router = APIRouter(prefix="/rest/v1/softwaremodules", tags=["software modules"])


def module_json(row: Row[Any], base: str) -> dict[str, Any]:
    """A module as hawkBit shows it."""
    home = f"{base}/softwaremodules/{row.id}"
    return {
        **_times(row),
        "id": row.id,
        "name": row.name,
        "version": row.version,
        "type": row.type,
        "typeName": releases.MODULE_TYPES[row.type],
        "vendor": row.vendor or "",
        "description": row.description or "",
        "deleted": False,
        "encrypted": False,
        "_links": {
            "self": {"href": home},
            "artifacts": {"href": f"{home}/artifacts"},
            "metadata": {"href": f"{home}/metadata?offset=0&limit=50"},
        },
    }


def stored_artifact_json(row: Row[Any], base: str) -> dict[str, Any]:
    """An artifact as the management API shows it."""
    home = f"{base}/softwaremodules/{row.module_id}/artifacts/{row.id}"
    return {
        **_times(row),
        "id": row.id,
        "providedFilename": row.filename,
        "size": row.size,
        "hashes": {"sha1": row.sha1, "md5": row.md5, "sha256": row.sha256},
        "_links": {"self": {"href": home}, "download": {"href": f"{home}/download"}},
    }


@module_router.get("")
async def list_modules(
    request: Request,
    who: Viewer,
    store: Data,
    part: Found,
) -> Response:
    """Modules."""
    order = {"id": module.c.id, "name": module.c.name, "version": module.c.version, "type": module.c.type}
    fields = query.columns_of(module, name=module.c.name, version=module.c.version, type=module.c.type)

    def job(conn: Connection) -> dict[str, Any]:
        wanted = select(module).where(query.condition(part.q, fields)) if part.q else select(module)
        return _page(conn, wanted, order, lambda row: module_json(row, _base(request)), part)

    return JSONResponse(await store.read(job))


@module_router.post("", status_code=201)
async def add_modules(request: Request, who: Worker, store: Data, body: list[models.NewModule]) -> Response:
    """New modules."""
    _some(body)

    def job(tx: Tx) -> list[dict[str, Any]]:
        made = []
        for one in body:
            number = releases.add_module(tx, who.name, one.type, one.name, one.version, one.vendor, one.description)
            made.append(module_json(releases.row(tx.conn, module, number, "software module"), _base(request)))
        operators.log(tx, who.name, "modules created", ids=[one["id"] for one in made])
        return made

    return JSONResponse(await store.write(job), 201)


@module_router.get("/{number}")
async def get_module(request: Request, who: Viewer, store: Data, number: Number) -> Response:
    """One module."""
    row = await store.read(lambda conn: releases.row(conn, module, number, "software module"))
    return JSONResponse(module_json(row, _base(request)))


@module_router.delete("/{number}")
async def delete_module(who: Worker, store: Data, number: Number) -> Response:
    """Delete a module that no set uses."""

    def job(tx: Tx) -> None:
        releases.remove_module(tx, number)
        operators.log(tx, who.name, "module deleted", id=number)

    await store.write(job)
    return Response()


@module_router.get("/{number}/metadata")
async def list_module_metadata(who: Viewer, store: Data, number: Number) -> Response:
    """Metadata of a module."""

    def job(conn: Connection) -> list[dict[str, Any]]:
        releases.row(conn, module, number, "software module")
        rows = conn.execute(select(module_metadata).where(module_metadata.c.module_id == number))
        return [{"key": row.key, "value": row.value, "targetVisible": row.target_visible} for row in rows]

    return JSONResponse(_list(await store.read(job)))


@module_router.post("/{number}/metadata", status_code=201)
async def add_module_metadata(who: Worker, store: Data, number: Number, body: list[models.Pair]) -> Response:
    """Note something; with ``targetVisible`` devices see it in their orders."""
    _some(body)
    pairs = [(one.key, one.value, one.targetVisible) for one in body]
    await store.write(lambda tx: releases.set_module_metadata(tx, number, pairs))
    return JSONResponse([one.model_dump() for one in body], 201)


@module_router.get("/{number}/artifacts")
async def list_artifacts(request: Request, who: Viewer, store: Data, number: Number) -> Response:
    """The artifacts of a module."""

    def job(conn: Connection) -> list[dict[str, Any]]:
        releases.row(conn, module, number, "software module")
        return [stored_artifact_json(row, _base(request)) for row in releases.artifacts_of(conn, number)]

    return JSONResponse(await store.read(job))


_FILE_PART = {"type": "object", "required": ["file"], "properties": {"file": {"type": "string", "format": "binary"}}}
_UPLOAD = {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _FILE_PART}}}}


@module_router.post("/{number}/artifacts", status_code=201, openapi_extra=_UPLOAD)
async def add_artifact(
    request: Request,
    who: Worker,
    store: Data,
    number: Number,
    filename: Annotated[str | None, Query(max_length=128)] = None,
    md5sum: Annotated[str | None, Query(max_length=32)] = None,
    sha1sum: Annotated[str | None, Query(max_length=40)] = None,
    sha256sum: Annotated[str | None, Query(max_length=64)] = None,
) -> Response:
    """Upload the part ``file``; hashes that are given are checked."""
    await store.read(lambda conn: releases.row(conn, module, number, "software module"))
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise Problem(415, "media_type", "An artifact comes as multipart/form-data.")
    async with request.form(max_files=1, max_fields=10) as form:
        part = form.get("file")
        if not isinstance(part, UploadFile):
            raise wrong("The part `file` is missing.")
        name = filename or part.filename or ""
        upload = await asyncio.to_thread(releases.receive, store, part.file)
    try:
        for kind, digest in (("md5", md5sum), ("sha1", sha1sum), ("sha256", sha256sum)):
            if digest and digest.lower() != getattr(upload, kind):
                raise wrong(f"The {kind} of what arrived is another one.")

        def job(tx: Tx) -> dict[str, Any]:
            made = releases.add_artifact(tx, store, who.name, number, name, upload)
            operators.log(tx, who.name, "artifact uploaded", module=number, filename=name, sha256=upload.sha256)
            return stored_artifact_json(releases.one_artifact(tx.conn, number, made), _base(request))

        return JSONResponse(await store.write(job), 201)
    finally:
        upload.path.unlink(missing_ok=True)


@module_router.get("/{number}/artifacts/{artifact_id}")
async def get_artifact(request: Request, who: Viewer, store: Data, number: Number, artifact_id: Number) -> Response:
    """One artifact."""
    row = await store.read(lambda conn: releases.one_artifact(conn, number, artifact_id))
    return JSONResponse(stored_artifact_json(row, _base(request)))


@module_router.get("/{number}/artifacts/{artifact_id}/download")
async def download(request: Request, who: Viewer, store: Data, number: Number, artifact_id: Number) -> Response:
    """Its bytes."""
    return send_artifact(request, await store.read(lambda conn: releases.one_artifact(conn, number, artifact_id)))


@module_router.delete("/{number}/artifacts/{artifact_id}")
async def delete_artifact(who: Worker, store: Data, number: Number, artifact_id: Number) -> Response:
    """Delete it; not while devices are being updated from it. The file goes at the next start (`releases.sweep`)."""

    def job(tx: Tx) -> None:
        sha256 = releases.remove_artifact(tx, number, artifact_id)
        operators.log(tx, who.name, "artifact deleted", module=number, sha256=sha256)

    await store.write(job)
    return Response()


# -- sets ---------------------------------------------------------------------------------------------------------

set_router = APIRouter(prefix="/rest/v1/distributionsets", tags=["distribution sets"])


def set_json(conn: Connection, row: Row[Any], base: str) -> dict[str, Any]:
    """A distribution set as hawkBit shows it."""
    home = f"{base}/distributionsets/{row.id}"
    return {
        **_times(row),
        "id": row.id,
        "name": row.name,
        "version": row.version,
        "type": row.type,
        "typeName": releases.SET_TYPES[row.type],
        "description": row.description or "",
        "requiredMigrationStep": row.required_migration_step,
        "complete": releases.complete(conn, row.id),
        "valid": True,
        "locked": False,
        "deleted": False,
        "modules": [module_json(part, base) for part in releases.modules_of(conn, row.id)],
        "_links": {"self": {"href": home}, "modules": {"href": f"{home}/assignedSM"}},
    }


@set_router.get("")
async def list_sets(
    request: Request,
    who: Viewer,
    store: Data,
    part: Found,
) -> Response:
    """Distribution sets."""
    order = {"id": dist_set.c.id, "name": dist_set.c.name, "version": dist_set.c.version}
    fields = query.columns_of(dist_set, name=dist_set.c.name, version=dist_set.c.version, type=dist_set.c.type)

    def job(conn: Connection) -> dict[str, Any]:
        wanted = select(dist_set).where(query.condition(part.q, fields)) if part.q else select(dist_set)
        return _page(conn, wanted, order, lambda row: set_json(conn, row, _base(request)), part)

    return JSONResponse(await store.read(job))


@set_router.post("", status_code=201)
async def add_sets(request: Request, who: Worker, store: Data, body: list[models.NewSet]) -> Response:
    """New distribution sets."""
    _some(body)

    def job(tx: Tx) -> list[dict[str, Any]]:
        made = []
        for one in body:
            parts = [part.id for part in one.modules]
            number = releases.add_set(
                tx, who.name, one.type, one.name, one.version, one.description, parts, one.requiredMigrationStep
            )
            made.append(set_json(tx.conn, releases.row(tx.conn, dist_set, number, "set"), _base(request)))
        operators.log(tx, who.name, "distribution sets created", ids=[one["id"] for one in made])
        return made

    return JSONResponse(await store.write(job), 201)


@set_router.get("/{number}")
async def get_set(request: Request, who: Viewer, store: Data, number: Number) -> Response:
    """One distribution set."""
    return JSONResponse(
        await store.read(
            lambda conn: set_json(conn, releases.row(conn, dist_set, number, "distribution set"), _base(request))
        )
    )


@set_router.delete("/{number}")
async def delete_set(who: Worker, store: Data, number: Number) -> Response:
    """Delete one that nothing refers to."""

    def job(tx: Tx) -> None:
        releases.remove_set(tx, number)
        operators.log(tx, who.name, "distribution set deleted", id=number)

    await store.write(job)
    return Response()


@set_router.get("/{number}/assignedSM")
async def set_modules(request: Request, who: Viewer, store: Data, number: Number) -> Response:
    """Its modules."""

    def job(conn: Connection) -> list[dict[str, Any]]:
        releases.row(conn, dist_set, number, "distribution set")
        return [module_json(row, _base(request)) for row in releases.modules_of(conn, number)]

    return JSONResponse(_list(await store.read(job)))


@set_router.post("/{number}/assignedTargets")
async def assign_targets(
    who: Worker, store: Data, number: Number, body: list[models.AssignTarget], offline: bool = False
) -> Response:
    """Assign it to many targets."""
    _some(body)
    wanted = [(one.id, number, _order(one)) for one in body]
    return JSONResponse(await store.write(lambda tx: _assign(tx, who, wanted, offline)))


def _types(kinds: dict[str, str], path: str) -> None:
    @router.get(path, tags=["types"], name=path)
    async def list_types(who: Viewer) -> Response:
        """The types there are."""
        return JSONResponse(
            _list(
                [
                    {"id": number, "key": key, "name": name, "deleted": False}
                    for number, (key, name) in enumerate(kinds.items(), 1)
                ]
            )
        )


_types(releases.MODULE_TYPES, "/softwaremoduletypes")
_types(releases.SET_TYPES, "/distributionsettypes")


# -- rollouts -----------------------------------------------------------------------------------------------------

rollout_router = APIRouter(prefix="/rest/v1/rollouts", tags=["rollouts"])
DEEDS: dict[str, Callable[[Tx, str, int], object]] = {
    "start": rollouts.start,
    "pause": rollouts.pause,
    "resume": rollouts.resume,
    "stop": rollouts.stop,
    "triggerNextGroup": rollouts.next_group,
}
"""What an operator may do with a rollout: the last part of the path -> how."""


def rollout_json(conn: Connection, row: Row[Any], base: str) -> dict[str, Any]:
    """A rollout as hawkBit shows it; ``statusReason`` and ``silenceTimeout`` are ours."""
    home = f"{base}/rollouts/{row.id}"
    total = rollouts.overall(conn, row.id)
    links = {name: {"href": f"{home}/{name}"} for name in (*DEEDS, "retry", "approve", "deny")}
    return _given(
        {
            **_times(row),
            "id": row.id,
            "name": row.name,
            "description": row.description,
            "targetFilterQuery": row.query,
            "distributionSetId": row.set_id,
            "status": row.status,
            "statusReason": row.why,
            "type": row.type,
            "forcetime": row.force_time,
            "weight": row.weight,
            "startAt": row.start_at,
            "silenceTimeout": rollouts.silence_of(conn, row),
            "totalTargets": total.pop("total"),
            "totalTargetsPerStatus": total,
            "totalGroups": len(rollouts.groups(conn, row.id)),
            "approveDecidedBy": row.decided_by,
            "approvalRemark": row.remark,
            "deleted": False,
            "_links": {
                "self": {"href": home},
                "groups": {"href": f"{home}/deploygroups?offset=0&limit=50"},
                **links,
            },
        }
    )


def group_json(row: Row[Any], counts: dict[str, int], base: str) -> dict[str, Any]:
    """A group as hawkBit shows it."""
    home = f"{base}/rollouts/{row.rollout_id}/deploygroups/{row.id}"
    return {
        **_times(row),
        "id": row.id,
        "name": row.name,
        "description": row.description or "",
        "status": row.status,
        "targetFilterQuery": row.query or "",
        "targetPercentage": row.percentage_e3 / 1000,
        "successCondition": {"condition": "THRESHOLD", "expression": str(row.success_threshold)},
        "successAction": {"action": row.success_action, "expression": ""},
        "errorCondition": {"condition": "THRESHOLD", "expression": str(row.error_threshold)},
        "errorAction": {"action": "PAUSE", "expression": ""},
        "confirmationRequired": row.confirmation_required,
        "totalTargets": sum(counts.values()),
        "totalTargetsPerStatus": counts,
        "_links": {"self": {"href": home}, "targets": {"href": f"{home}/targets"}},
    }


def plan_of(body: models.NewRollout) -> rollouts.Plan:
    """What a request for a rollout means. Problem 400."""

    def group(one: models.NewGroup, name: str) -> rollouts.Group:
        success = one.successCondition or body.successCondition or models.Condition()
        error = one.errorCondition or body.errorCondition or models.Condition()
        then = one.successAction or body.successAction or models.SuccessAction()
        confirm = body.confirmationRequired if one.confirmationRequired is None else one.confirmationRequired
        return rollouts.Group(
            one.name or name,
            one.targetPercentage,
            one.targetFilterQuery or None,
            one.description,
            int(success.expression),
            then.action,
            int(error.expression),
            confirmation_required=confirm is not False,
        )

    if body.groups and body.amountGroups:
        raise wrong("Give groups or amountGroups, not both.")
    amount = body.amountGroups or 1
    wanted = body.groups or [models.NewGroup(targetPercentage=100 / (amount - at)) for at in range(amount)]
    return rollouts.Plan(
        body.name,
        body.distributionSetId,
        body.targetFilterQuery,
        [group(one, f"group-{at}") for at, one in enumerate(wanted, 1)],
        body.description,
        body.type,
        body.forcetime,
        body.weight,
        body.startAt,
        body.silenceTimeout,
    )


@rollout_router.get("")
async def list_rollouts(
    request: Request,
    who: Viewer,
    store: Data,
    part: Found,
) -> Response:
    """Rollouts."""
    order = {"id": rollout.c.id, "name": rollout.c.name, "status": rollout.c.status}

    def job(conn: Connection) -> dict[str, Any]:
        wanted = select(rollout).where(query.condition(part.q, query.ROLLOUTS)) if part.q else select(rollout)
        return _page(conn, wanted, order, lambda row: rollout_json(conn, row, _base(request)), part)

    return JSONResponse(await store.read(job))


@rollout_router.post("", status_code=201)
async def add_rollout(request: Request, who: Worker, store: Data, body: models.NewRollout) -> Response:
    """A new rollout; it begins when it is started."""
    plan = plan_of(body)

    def job(tx: Tx) -> dict[str, Any]:
        number = rollouts.create(tx, who.name, plan)
        operators.log(tx, who.name, "rollout created", id=number, name=plan.name)
        return rollout_json(tx.conn, rollouts.need(tx.conn, number), _base(request))

    return JSONResponse(await store.write(job), 201)


@rollout_router.get("/{number}")
async def get_rollout(request: Request, who: Viewer, store: Data, number: Number) -> Response:
    """One rollout."""
    return JSONResponse(await store.read(lambda conn: rollout_json(conn, rollouts.need(conn, number), _base(request))))


@rollout_router.delete("/{number}")
async def delete_rollout(who: Worker, store: Data, number: Number) -> Response:
    """Delete one that has ended or never begun."""

    def job(tx: Tx) -> None:
        rollouts.remove(tx, number)
        operators.log(tx, who.name, "rollout deleted", id=number)

    await store.write(job)
    return Response()


def _deed(name: str) -> None:
    @rollout_router.post(f"/{{number}}/{name}", status_code=204, name=name)
    async def deed(who: Worker, store: Data, number: Number) -> Response:
        """Do it."""

        def job(tx: Tx) -> None:
            DEEDS[name](tx, who.name, number)
            operators.log(tx, who.name, f"rollout {name}", id=number)

        await store.write(job)
        return Response(status_code=204)


for _name in DEEDS:
    _deed(_name)


@rollout_router.post("/{number}/retry", status_code=201)
async def retry(request: Request, who: Worker, store: Data, number: Number) -> Response:
    """A new rollout for the devices that failed."""

    def job(tx: Tx) -> dict[str, Any]:
        made = rollouts.retry(tx, who.name, number)
        operators.log(tx, who.name, "rollout retried", id=number, made=made)
        return rollout_json(tx.conn, rollouts.need(tx.conn, made), _base(request))

    return JSONResponse(await store.write(job), 201)


Remark = Annotated[str | None, Query(max_length=255)]


def _decision(name: str, approved: bool) -> None:
    @rollout_router.post(f"/{{number}}/{name}", status_code=204, name=name)
    async def decide(who: Worker, store: Data, number: Number, remark: Remark = None) -> Response:
        """Never one's own rollout."""

        def job(tx: Tx) -> None:
            rollouts.decide(tx, who.name, number, approved, remark)
            operators.log(tx, who.name, f"rollout {name}", id=number, remark=remark)

        await store.write(job)
        return Response(status_code=204)


_decision("approve", True)
_decision("deny", False)


@rollout_router.get("/{number}/deploygroups")
async def list_groups(request: Request, who: Viewer, store: Data, number: Number, part: Part) -> Response:
    """Its groups, in order."""

    def job(conn: Connection) -> dict[str, Any]:
        rollouts.need(conn, number)
        found = rollouts.groups(conn, number)
        counts = rollouts.totals(conn, [row.id for row in found])
        content = [
            group_json(row, counts[row.id], _base(request)) for row in found[part.offset : part.offset + part.limit]
        ]
        return {"content": content, "total": len(found), "size": len(content)}

    return JSONResponse(await store.read(job))


def _group(conn: Connection, number: int, group: int) -> Row[Any]:
    row = releases.row(conn, rollout_group, group, "group")
    if row.rollout_id != number:
        raise missing("group", group)
    return row


@rollout_router.get("/{number}/deploygroups/{group}")
async def get_group(request: Request, who: Viewer, store: Data, number: Number, group: Number) -> Response:
    """One group."""

    def job(conn: Connection) -> dict[str, Any]:
        row = _group(conn, number, group)
        return group_json(row, rollouts.totals(conn, [group])[group], _base(request))

    return JSONResponse(await store.read(job))


@rollout_router.get("/{number}/deploygroups/{group}/targets")
async def group_targets(
    request: Request,
    who: Viewer,
    store: Data,
    number: Number,
    group: Number,
    part: Part,
) -> Response:
    """The targets of a group."""
    devices, base = devices_of(request), _base(request)

    def job(conn: Connection) -> dict[str, Any]:
        _group(conn, number, group)
        members = select(rollout_target.c.target_id).where(rollout_target.c.group_id == group)
        sleep = _sleep(conn)
        return _page(
            conn,
            select(target).where(target.c.id.in_(members)),
            TARGET_ORDER,
            lambda row: target_json(row, base, devices, sleep),
            part,
        )

    return JSONResponse(await store.read(job))


# -- enrolment (ours) ---------------------------------------------------------------------------------------------

enrolment_router = APIRouter(prefix="/rest/v1/sekisho/enrolments", tags=["enrolment"])


def _enrolment_json(row: Row[Any]) -> dict[str, Any]:
    return _given(
        {
            "id": row.id,
            "controllerId": row.controller_id,
            "note": row.note,
            "expiresAt": row.expires_at,
            "usedAt": row.used_at,
            "usedBy": row.used_by,
            "createdAt": row.created_at,
            "createdBy": row.created_by,
        }
    )


@enrolment_router.get("")
async def list_enrolments(who: Viewer, store: Data, part: Part) -> Response:
    """One-time tokens, used and open; the tokens themselves are not kept."""

    def job(conn: Connection) -> dict[str, Any]:
        return _page(conn, select(enrolment), {"id": enrolment.c.id}, _enrolment_json, replace(part, sort="id:DESC"))

    return JSONResponse(await store.read(job))


@enrolment_router.post("", status_code=201)
async def add_enrolment(who: Worker, store: Data, body: models.NewEnrolment) -> Response:
    """A one-time token; it is shown in this answer and never again."""

    def job(tx: Tx) -> dict[str, Any]:
        number, token = targets.invite(tx, who.name, body.controllerId, body.note, body.seconds)
        operators.log(tx, who.name, "enrolment token made", id=number, controllerId=body.controllerId)
        return _enrolment_json(releases.row(tx.conn, enrolment, number, "enrolment")) | {"token": token}

    return JSONResponse(await store.write(job), 201)


@enrolment_router.delete("/{number}")
async def delete_enrolment(who: Worker, store: Data, number: Number) -> Response:
    """Take a one-time token back."""

    def job(tx: Tx) -> None:
        releases.row(tx.conn, enrolment, number, "enrolment")
        tx.conn.execute(enrolment.delete().where(enrolment.c.id == number))
        operators.log(tx, who.name, "enrolment token withdrawn", id=number)

    await store.write(job)
    return Response()


ROUTERS = (system, target_router, module_router, set_router, rollout_router, enrolment_router, router)
