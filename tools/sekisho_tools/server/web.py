"""The web page: devices, releases, rollouts, approvals. Made on the server; one small script refreshes progress.

Every string from a device goes through the templates' escaping. There is no inline script or style, so the strict
content security policy of `front` holds, and nothing is fetched from elsewhere.
"""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote, urlencode

import jinja2
from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from sqlalchemy import Connection, Row, func, select

from . import actions, management, operators, query, releases, reports, rollouts, settings, targets
from .ddi import Data, devices_of
from .errors import Problem, missing
from .operators import Locked, Operator
from .store import Tx
from .tables import action, action_status, audit, dist_set, module_metadata, rollout, target
from .words import JAPANESE, japanese, reported

HERE = Path(__file__).parent
PAGE = 50
MAX_FORM = 16 * 1024
LANGUAGES = {"en": "English", "ja": "日本語"}
STATIC = {
    "style.css": "text/css; charset=utf-8",
    "live.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}

router = APIRouter(include_in_schema=False)
_templates = jinja2.Environment(
    loader=jinja2.FileSystemLoader(HERE / "templates"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


class Leave(Exception):  # noqa: N818
    """Go to another page."""

    def __init__(self, where: str) -> None:
        super().__init__(where)
        self.where = where


# -- words and times ----------------------------------------------------------------------------------------------


def language(request: Request) -> str:
    """The language of the page: what was chosen, else what the browser likes."""
    chosen = request.cookies.get("language", "")
    if chosen in LANGUAGES:
        return chosen
    for part in request.headers.get("accept-language", "").split(",")[:10]:
        code = part.split(";")[0].strip()[:2].lower()
        if code in LANGUAGES:
            return code
    return "en"


def translate(code: str, text: str) -> str:
    """*text* (English) in the language *code*."""
    return JAPANESE.get(text, text) if code == "ja" else text.replace("_", " ")


def moment(milliseconds: int | None) -> str:
    """A time for people, in UTC."""
    if milliseconds is None:
        return ""
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")


def ago(code: str, now: int, milliseconds: int | None) -> str:
    """How long ago something was."""
    if milliseconds is None:
        return translate(code, "never")
    seconds = max(0, (now - milliseconds) // 1000)
    spans = {86400: "{} days ago", 3600: "{} hours ago", 60: "{} minutes ago", 1: "{} seconds ago"}
    size = next((one for one in spans if seconds >= 2 * one), 1)
    return translate(code, spans[size]).format(seconds // size)


def page(request: Request, name: str, status: int = 200, **values: Any) -> Response:
    """Render a template."""
    code = language(request)
    store = request.app.state.store
    who, csrf = getattr(request.state, "session", (None, ""))
    shared = {
        "t": lambda text: translate(code, text),
        "said": japanese if code == "ja" else str,
        "reported": reported if code == "ja" else lambda name, value: (name, value),
        "moment": moment,
        "ago": lambda time: ago(code, store.clock(), time),
        "lang": code,
        "languages": LANGUAGES,
        "who": who,
        "csrf": csrf,
        "may_work": bool(who and who.may("operator")),
        "may_all": bool(who and who.may("admin")),
        "path": request.url.path,
        "home": lambda controller: f"/devices/{quote(controller, safe='')}",
    }
    html = _templates.get_template(name).render(shared | values)
    return HTMLResponse(html, status, {"Cache-Control": "no-store"})


def error_page(request: Request, problem: Problem) -> Response:
    """What a person sees when something cannot be done."""
    answer = page(request, "error.html", problem.status, problem=problem)
    answer.headers.update(problem.headers)
    return answer


def is_page(request: Request) -> bool:
    """Whether an answer goes to a person rather than to a program."""
    path = request.url.path
    return not path.startswith("/rest/") and "/controller/v1/" not in path and path not in ("/healthz", "/metrics")


# -- sessions -----------------------------------------------------------------------------------------------------


def _cookie(request: Request) -> str:
    return "__Host-sekisho" if request.url.scheme == "https" else "sekisho"


async def session(request: Request) -> Operator:
    """The operator who is logged in; else off to the login page."""
    keeper = request.app.state.server.doorkeeper
    value = request.cookies.get(_cookie(request), "")
    found = await asyncio.to_thread(keeper.session, value) if value else None
    if found is None:
        raise Leave("/login?" + urlencode({"next": request.url.path}))
    request.state.session = found
    who: Operator = found[0]
    return who


Who = Annotated[Operator, Depends(session)]


def _same_site(request: Request) -> None:
    """Problem 403 for a form that another site sent."""
    origin = request.headers.get("origin")
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none") or (
        origin not in (None, "null") and origin.partition("://")[2] != request.headers.get("host")
    ):
        raise Problem(403, "origin", "This form came from another site.")


async def _form(request: Request) -> Mapping[str, str]:
    _same_site(request)
    if int(request.headers.get("content-length") or 0) > MAX_FORM:
        raise Problem(413, "too_large", "The form is too large.")
    kind = request.headers.get("content-type", "")
    if not kind.startswith("application/x-www-form-urlencoded"):
        raise Problem(415, "media_type", "This is no form.")
    async with request.form(max_fields=20) as form:
        return {name: value for name, value in form.items() if isinstance(value, str)}


async def form(request: Request) -> Mapping[str, str]:
    """A form sent by an operator who may change things. Problem 403."""
    who = await session(request)
    values = await _form(request)
    if not hmac.compare_digest(values.get("csrf", "").encode(), request.state.session[1].encode()):
        raise Problem(403, "csrf", "The form is out of date; load the page again.")
    if not who.may("operator"):
        raise Problem(403, "forbidden", "This needs the role operator.")
    return values


Form = Annotated[Mapping[str, str], Depends(form)]


def _to(where: str) -> Response:
    return RedirectResponse(where, 303)


def _inside(where: str) -> str:
    """A path of ours to go on to, never another site."""
    return (
        where if where.startswith("/") and not where.startswith(("//", "/\\")) and where.isprintable() else "/devices"
    )


@router.get("/login")
async def login_page(request: Request, next: str = "/devices") -> Response:
    """The form."""
    return page(request, "login.html", problem="", next=next)


@router.post("/login")
async def login(request: Request) -> Response:
    """Check name and password."""
    values = await _form(request)
    front = request.app.state.server.asgi
    address = request.client.host if request.client else ""
    keeper = request.app.state.server.doorkeeper
    after = values.get("next", "/devices")
    if front.failures.wait(address):
        return page(request, "login.html", 429, problem="Too many failed attempts; wait a while.", next=after)
    try:
        who = await asyncio.to_thread(keeper.password, values.get("name", ""), values.get("password", ""))
    except Locked:
        return page(request, "login.html", 429, problem="The account is locked for a while.", next=after)
    if who is None:
        front.failures.take(address)
        front.metrics.denied["operator"] += 1
        return page(request, "login.html", 401, problem="Wrong name or password.", next=after)
    value, _ = await asyncio.to_thread(keeper.begin, who)
    answer = _to(_inside(after))
    answer.set_cookie(
        _cookie(request), value, path="/", secure=request.url.scheme == "https", httponly=True, samesite="strict"
    )
    return answer


@router.post("/logout")
async def logout(request: Request) -> Response:
    """End the session."""
    await session(request)
    values = await _form(request)
    if hmac.compare_digest(values.get("csrf", "").encode(), request.state.session[1].encode()):
        keeper = request.app.state.server.doorkeeper
        await asyncio.to_thread(keeper.end, request.cookies.get(_cookie(request), ""))
    return _to("/login")


@router.post("/language")
async def choose_language(request: Request) -> Response:
    """Remember the language."""
    values = await _form(request)
    answer = _to(_inside(values.get("next", "/")))
    if values.get("language") in LANGUAGES:
        answer.set_cookie("language", values["language"], max_age=365 * 86400, path="/", httponly=True, samesite="lax")
    return answer


@router.get("/static/{name}")
async def static(name: str) -> Response:
    """Style and script."""
    if name not in STATIC:
        raise missing("page", name)
    body = (HERE / "static" / name).read_bytes()
    return Response(body, headers={"Content-Type": STATIC[name], "Cache-Control": "max-age=300"})


@router.get("/")
async def root(request: Request, who: Who) -> Response:
    """The devices are the first page."""
    return _to("/devices")


# -- devices ------------------------------------------------------------------------------------------------------


def _set_name(conn: Connection, number: int | None) -> str:
    if number is None:
        return ""
    row = conn.execute(select(dist_set.c.name, dist_set.c.version).where(dist_set.c.id == number)).first()
    return f"{row[0]} {row[1]}" if row else ""


def _versions(attributes: Mapping[str, str]) -> str:
    shown = [f"{key} {value}" for key, value in attributes.items() if "version" in key.lower() or key in ("fw", "app")]
    return ", ".join(shown)[:160]


def _device(conn: Connection, row: Row[Any], now: int, sleep: int) -> dict[str, Any]:
    last = row.last_poll_at
    open_action = actions.current(conn, row.id)
    problems = []
    if row.update_status == "error":
        problems.append("update failed")
    if open_action is not None and open_action.silent:
        problems.append("silent since it took the update")
    elif last is not None and now - last > 3 * sleep * 1000:
        problems.append("not heard of for long")
    return {
        "controller": row.controller_id,
        "name": row.name,
        "state": "registered" if row.update_status == "unknown" and last else row.update_status,
        "installed": _set_name(conn, row.installed_set_id),
        "assigned": _set_name(conn, row.assigned_set_id),
        "versions": _versions(targets.attributes(conn, row.id)),
        "last": last,
        "address": row.address,
        "problems": problems,
    }


Text = Annotated[str, Query(max_length=query.MAX_QUERY)]
Number = Annotated[int, Query(ge=1, le=100_000)]


@router.get("/devices")
async def device_list(
    request: Request, who: Who, store: Data, search: Text = "", state: Text = "", number: Number = 1
) -> Response:
    """Devices with state, versions, last seen, problems."""
    devices = devices_of(request)
    await devices.flush()

    def job(conn: Connection) -> dict[str, Any]:
        wanted = select(target)
        if search:
            wanted = wanted.where(
                target.c.controller_id.icontains(search, autoescape=True)
                | target.c.name.icontains(search, autoescape=True)
            )
        if state == "problem":
            silent = select(action.c.target_id).where(action.c.active, action.c.silent)
            wanted = wanted.where((target.c.update_status == "error") | target.c.id.in_(silent))
        elif state:
            wanted = wanted.where(target.c.update_status == state)
        total = conn.scalar(select(func.count()).select_from(wanted.subquery())) or 0
        rows = conn.execute(wanted.order_by(target.c.controller_id).offset((number - 1) * PAGE).limit(PAGE)).all()
        sleep = settings.seconds(settings.get(conn, "pollingTime"))
        now = store.clock()
        states = select(target.c.update_status, func.count()).group_by(target.c.update_status)
        counts = {str(row[0]): int(row[1]) for row in conn.execute(states)}
        return {
            "devices": [_device(conn, row, now, sleep) for row in rows],
            "total": total,
            "counts": counts,
        }

    found = await store.read(job)
    pages = max(1, -(-found["total"] // PAGE))
    return page(
        request,
        "devices.html",
        search=search,
        state=state,
        number=number,
        pages=pages,
        link=lambda at: "/devices?" + urlencode({"search": search, "state": state, "number": at}),
        states=("", "problem", "in_sync", "pending", "error", "registered", "unknown", targets.RETIRED),
        **found,
    )


@router.get("/devices/{controller}")
async def device_page(request: Request, who: Who, store: Data, controller: str) -> Response:
    """One device: attributes, history, reports."""
    devices = devices_of(request)
    await devices.flush()

    def job(conn: Connection) -> dict[str, Any]:
        row = targets.need(conn, controller)
        sleep = settings.seconds(settings.get(conn, "pollingTime"))
        history = []
        rows = conn.execute(
            select(action).where(action.c.target_id == row.id).order_by(action.c.id.desc()).limit(30)
        ).all()
        for one in rows:
            told = conn.execute(
                select(action_status)
                .where(action_status.c.action_id == one.id)
                .order_by(action_status.c.id.desc())
                .limit(50)
            ).all()
            name = conn.scalar(select(rollout.c.name).where(rollout.c.id == one.rollout_id)) if one.rollout_id else None
            history.append({"action": one, "set": _set_name(conn, one.set_id), "told": told, "rollout": name})
        signed = [
            {"row": one, "said": said, "wrong": wrong}
            for one in targets.reports(conn, row.id, 10)
            for said, wrong in (reports.shown(one.body, row.public_key),)
        ]
        return {
            "device": _device(conn, row, store.clock(), sleep),
            "row": row,
            "attributes": targets.attributes(conn, row.id),
            "notes": targets.metadata(conn, row.id),
            "history": history,
            "reports": signed,
            "order": targets.waiting_order(conn, row.id),
            "retired": targets.retirement(conn, controller),
        }

    return page(request, "device.html", **await store.read(job))


@router.post("/devices/{controller}/actions/{number}/{deed}")
async def device_deed(request: Request, store: Data, values: Form, controller: str, number: int, deed: str) -> Response:
    """Cancel, stop waiting, confirm or deny an update of one device."""
    who = request.state.session[0].name

    def job(tx: Tx) -> None:
        device = targets.need(tx.conn, controller)
        if deed in ("cancel", "force"):
            actions.cancel(tx, who, device.id, number, deed == "force")
        elif deed in ("confirm", "deny"):
            actions.confirm(tx, who, device.id, number, deed == "confirm")
        else:
            raise missing("deed", deed)
        operators.log(tx, who, f"action {deed}", controllerId=controller, action=number)

    await store.write(job)
    return _to(_inside(values.get("next", "/devices")))


@router.post("/devices/{controller}/decommission")
async def device_farewell(request: Request, store: Data, values: Form, controller: str) -> Response:
    """Refuse a device's identity for good."""
    who = request.state.session[0]
    if not who.may("admin"):
        raise Problem(403, "forbidden", "This needs the role admin.")
    why = values.get("why", "").strip()
    if not why:
        raise Problem(400, "bad_request", "Say why.")

    def job(tx: Tx) -> None:
        if targets.retire(tx, who.name, targets.need(tx.conn, controller), why):
            operators.log(tx, who.name, "target decommissioned", controllerId=controller, why=why[:512])

    await store.write(job)
    return _to(f"/devices/{quote(controller, safe='')}")


# -- releases -----------------------------------------------------------------------------------------------------


@router.get("/releases")
async def release_page(request: Request, who: Who, store: Data) -> Response:
    """Distribution sets with their text."""
    code = language(request)

    def job(conn: Connection) -> list[dict[str, Any]]:
        found = []
        for row in conn.execute(select(dist_set).order_by(dist_set.c.id.desc()).limit(100)).all():
            parts = releases.modules_of(conn, row.id)
            numbers = [part.id for part in parts]
            texts = conn.execute(
                select(module_metadata.c.key, module_metadata.c.value).where(
                    module_metadata.c.module_id.in_(numbers), module_metadata.c.key.startswith("text.")
                )
            ).all()
            words = {key[5:]: value for key, value in texts}
            runs = conn.scalar(select(func.count()).select_from(target).where(target.c.installed_set_id == row.id))
            found.append(
                {
                    "row": row,
                    "text": words.get(code) or words.get("en") or row.description or "",
                    "parts": [(part, releases.artifacts_of(conn, part.id)) for part in parts],
                    "runs": runs,
                }
            )
        return found

    return page(request, "releases.html", releases=await store.read(job))


# -- rollouts -----------------------------------------------------------------------------------------------------


def _progress(conn: Connection, row: Row[Any]) -> dict[str, Any]:
    groups = rollouts.groups(conn, row.id)
    counts = rollouts.totals(conn, [group.id for group in groups])
    return {
        "rollout": row,
        "set": _set_name(conn, row.set_id),
        "groups": [(group, counts[group.id], sum(counts[group.id].values())) for group in groups],
        "total": rollouts.overall(conn, row.id),
        "silence": rollouts.silence_of(conn, row),
    }


@router.get("/rollouts")
async def rollout_list(request: Request, who: Who, store: Data) -> Response:
    """All rollouts, the newest first."""

    def job(conn: Connection) -> list[dict[str, Any]]:
        rows = conn.execute(select(rollout).order_by(rollout.c.id.desc()).limit(100)).all()
        return [_progress(conn, row) for row in rows]

    return page(request, "rollouts.html", rollouts=await store.read(job))


@router.get("/rollouts/{number}")
async def rollout_page(request: Request, who: Who, store: Data, number: int) -> Response:
    """One rollout, its progress live."""
    found = await store.read(lambda conn: _progress(conn, rollouts.need(conn, number)))
    return page(request, "rollout.html", **found)


@router.get("/rollouts/{number}/progress")
async def rollout_progress(request: Request, who: Who, store: Data, number: int) -> Response:
    """The part of that page that changes."""
    found = await store.read(lambda conn: _progress(conn, rollouts.need(conn, number)))
    return page(request, "progress.html", **found)


WEB_DEEDS: dict[str, Callable[[Tx, str, int], object]] = {
    **management.DEEDS,
    "retry": rollouts.retry,
    "approve": lambda tx, who, number: rollouts.decide(tx, who, number, True, None),
    "deny": lambda tx, who, number: rollouts.decide(tx, who, number, False, None),
}


@router.post("/rollouts/{number}/{deed}")
async def rollout_deed(request: Request, store: Data, values: Form, number: int, deed: str) -> Response:
    """Start, pause, resume, stop, retry, approve, deny."""
    if deed not in WEB_DEEDS:
        raise missing("deed", deed)
    who = request.state.session[0].name

    def job(tx: Tx) -> object:
        done = WEB_DEEDS[deed](tx, who, number)
        operators.log(tx, who, f"rollout {deed}", id=number)
        return done

    done = await store.write(job)
    return _to(f"/rollouts/{done if deed == 'retry' else number}")


# -- approvals ----------------------------------------------------------------------------------------------------


def _plain(detail: Mapping[str, Any]) -> str:
    """What is noted of a deed, for people."""
    parts = ((name, value) for name, value in detail.items() if value not in (None, False))
    return ", ".join(f"{name}: {_value(value)}" for name, value in parts)[:300]


def _value(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(_value(one) for one in value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


@router.get("/approvals")
async def approvals(request: Request, who: Who, store: Data) -> Response:
    """What waits for a decision."""

    def job(conn: Connection) -> dict[str, Any]:
        waiting = conn.execute(select(rollout).where(rollout.c.status == "waiting_for_approval")).all()
        rows = conn.execute(
            select(action, target.c.controller_id)
            .join(target, target.c.id == action.c.target_id)
            .where(action.c.active, action.c.status == "wait_for_confirmation")
            .order_by(action.c.id)
            .limit(200)
        ).all()
        log = conn.execute(select(audit).order_by(audit.c.id.desc()).limit(30)).all()
        return {
            "rollouts": [_progress(conn, row) for row in waiting],
            "confirmations": [(row, _set_name(conn, row.set_id)) for row in rows],
            "log": [(row, _plain(row.detail)) for row in log],
        }

    return page(request, "approvals.html", **await store.read(job))
