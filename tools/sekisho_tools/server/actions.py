"""What a device is to do: assignments, what it is shown, what it reports, cancelling and confirming.

The states are hawkBit's. An action is *active* until the device (or an operator who forces it) ends it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, func, insert, select, update

from . import notices, releases, settings, targets, windows
from .errors import Problem, missing, quota, wrong
from .store import Tx
from .tables import action, action_status, dist_set, module_metadata, rollout, target

TYPES = ("forced", "soft", "timeforced", "downloadonly")
MAX_STATUSES = 1000
"""Reports of one action (hawkBit's quota)."""
MAX_MESSAGES = 50
MAX_MESSAGE = 512
MAX_ACTIONS = 2000
"""Actions of one device; closed ones above this number make room, the oldest first."""
FORGET_AT_ONCE = 1000
"""Actions that one round of `forget_old` deletes, so that nothing waits for it."""
HELD = ("paused", "stopping", "stopped", "waiting_for_approval", "approval_denied", "deleting")
"""States of a rollout in which devices that have not yet taken its update are not shown it."""

EXECUTIONS = {
    "scheduled": "running",
    "resumed": "running",
    "proceeding": "running",
    "download": "download",
    "downloaded": "downloaded",
    "rejected": "warning",
    "canceled": "canceled",
}
"""What a device says -> the state that is recorded."""


@dataclass(frozen=True)
class Order:
    """How a set is assigned."""

    type: str = "forced"
    force_time: int | None = None
    weight: int | None = None
    schedule: str | None = None
    duration: str | None = None
    zone: str | None = None
    confirmation_required: bool = True
    rollout_id: int | None = None
    group_id: int | None = None


# -- assigning ----------------------------------------------------------------------------------------------------


def assign(tx: Tx, who: str, device: Row[Any], set_id: int, order: Order) -> int | None:
    """Order the set for a device; returns the action's id, or None when it is assigned already.

    Open orders for other sets are cancelled, as hawkBit does. Problem 404, 400 (incomplete set, bad window).
    """
    releases.row(tx.conn, dist_set, set_id, "distribution set")
    if not releases.complete(tx.conn, set_id):
        raise Problem(400, "incomplete", "The distribution set is incomplete: a module without an artifact, or none.")
    if order.schedule is not None:
        opens = windows.read(order.schedule, order.duration or "", order.zone or "").state(tx.now)[1]
        if opens is None:
            raise wrong("The maintenance window never opens.")
    if order.type == "timeforced" and order.force_time is None:
        raise wrong("A timeforced assignment needs a forcetime.")
    if device.update_status == targets.RETIRED:
        raise Problem(409, "decommissioned", f"{device.controller_id[:100]!r} was decommissioned.")
    mine = tx.conn.execute(select(action).where(action.c.target_id == device.id, action.c.active)).all()
    if any(row.set_id == set_id and row.status != "canceling" for row in mine):
        return None
    steps = set(tx.conn.scalars(select(dist_set.c.id).where(dist_set.c.required_migration_step)))
    for row in mine:
        if row.status != "canceling" and row.set_id not in steps:
            _set(tx, row, "canceling")
            _record(tx, row.id, "canceling", ["Replaced by a newer assignment."])
    waits = (
        order.confirmation_required
        and settings.get(tx.conn, "user.confirmation.flow.enabled")
        and not device.auto_confirm
    )
    status = "wait_for_confirmation" if waits else "running"
    inserted = tx.add(
        action,
        target_id=device.id,
        set_id=set_id,
        rollout_id=order.rollout_id,
        group_id=order.group_id,
        status=status,
        active=True,
        silent=False,
        type=order.type,
        force_time=order.force_time,
        weight=order.weight,
        window_schedule=order.schedule,
        window_duration=order.duration,
        window_timezone=order.zone,
        **releases.made(tx, who),
    )
    number = inserted
    _record(tx, number, status, ["Assigned by a rollout." if order.rollout_id else f"Assigned by {who}."])
    targets.note(tx, device.id, assigned_set_id=set_id, update_status="pending")
    _make_room(tx, device.id)
    return number


def _make_room(tx: Tx, target_id: int) -> None:
    count = tx.conn.scalar(select(func.count()).select_from(action).where(action.c.target_id == target_id)) or 0
    if count > MAX_ACTIONS:
        oldest = (
            select(action.c.id).where(action.c.target_id == target_id, ~action.c.active).order_by(action.c.id).limit(1)
        )
        tx.conn.execute(action.delete().where(action.c.id.in_(oldest.scalar_subquery())))


def _set(tx: Tx, row: Row[Any], status: str, **values: Any) -> None:
    tx.conn.execute(
        update(action)
        .where(action.c.id == row.id)
        .values(status=status, modified_at=tx.now, modified_by="controller", **values)
    )
    tx.touched.add(row.target_id)


def remark(tx: Tx, number: int, kind: str, words: str) -> None:
    """Add to an action's history something that the server noticed itself."""
    _record(tx, number, kind, [words])


def _record(
    tx: Tx, number: int, kind: str, messages: Sequence[str], code: int | None = None, device_time: int | None = None
) -> None:
    pieces = [text[at : at + MAX_MESSAGE] for text in messages for at in range(0, max(len(text), 1), MAX_MESSAGE)]
    tx.conn.execute(
        insert(action_status).values(
            action_id=number,
            type=kind,
            reported_at=tx.now,
            device_time=device_time,
            code=code,
            messages=pieces[: MAX_MESSAGES * 4],
        )
    )


# -- what a device is shown ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class View:
    """What the next poll shows: *kind* deployment, cancel, confirmation or None, of which action, and the rest.

    *mark* changes when the order changes; *until* (ms) is when this view has to be made anew.
    """

    kind: str | None
    action_id: int | None
    mark: int
    installed_id: int | None
    wants_attributes: bool
    sleep: int
    until: int | None
    order: str | None = None
    """SHA-256 of the operator order that waits."""


def current(conn: Connection, target_id: int) -> Row[Any] | None:
    """The action that a device is to deal with now: highest weight, then oldest; held-back ones are passed over."""
    query = (
        select(action)
        .outerjoin(rollout, rollout.c.id == action.c.rollout_id)
        .where(
            action.c.target_id == target_id,
            action.c.active,
            action.c.retrieved_at.is_not(None)
            | (action.c.status == "canceling")
            | rollout.c.status.is_(None)
            | rollout.c.status.not_in(HELD),
        )
        .order_by(func.coalesce(action.c.weight, -1).desc(), action.c.id)
        .limit(1)
    )
    return conn.execute(query).first()


def window(row: Row[Any], now: int) -> tuple[str | None, int | None]:
    """The maintenance window of an action: available, unavailable, passed, None (none), and until when (ms)."""
    if row.window_schedule is None:
        return None, None
    found = windows.read(row.window_schedule, row.window_duration, row.window_timezone)
    is_open, until = found.state(now)
    if until is None:
        return "passed", None
    return ("available" if is_open else "unavailable"), until


def handling(row: Row[Any], now: int) -> tuple[str, str]:
    """The words for `download` and `update`: forced, attempt or skip."""
    if row.type == "downloadonly":
        return "forced", "skip"
    forced = row.type == "forced" or (row.type == "timeforced" and now >= row.force_time)
    word = "forced" if forced else "attempt"
    return word, "skip" if window(row, now)[0] in ("unavailable", "passed") else word


def view(conn: Connection, device: Row[Any], now: int) -> View:
    """What *device* is to be shown at *now* (ms)."""
    sleep = settings.seconds(settings.get(conn, "pollingTime"))
    installed = conn.scalar(
        select(action.c.id)
        .where(action.c.target_id == device.id, action.c.status == "finished", ~action.c.active)
        .order_by(action.c.id.desc())
        .limit(1)
    )
    row = current(conn, device.id)
    kind: str | None = None
    mark = 0
    until: int | None = None
    if row is not None:
        kind = {"canceling": "cancel", "wait_for_confirmation": "confirmation"}.get(row.status, "deployment")
        state, changes = window(row, now)
        words = f"{row.id} {handling(row, now)} {state}"
        mark = int.from_bytes(targets.hashed(words)[:4], "big") & 0x7FFFFFFF
        times = [time for time in (changes, row.force_time) if time is not None and time > now]
        until = min(times, default=None)
        if state == "unavailable" and changes is not None:
            sleep = max(settings.MIN_POLL, min(sleep, (changes - now) // 3000))
            until = min(until or changes, now + sleep * 1000)
    waits = targets.waiting_order(conn, device.id)
    return View(
        kind,
        row.id if row else None,
        mark,
        installed,
        device.request_attributes,
        sleep,
        until,
        waits.sha256 if waits else None,
    )


def of_device(conn: Connection, target_id: int, number: int) -> Row[Any]:
    """An action of this device; Problem 404 for everything else."""
    found = conn.execute(select(action).where(action.c.id == number, action.c.target_id == target_id)).first()
    if found is None:
        raise missing("action", number)
    return found


def shown(conn: Connection, target_id: int, number: int, *statuses: str, exclude: Sequence[str] = ()) -> Row[Any]:
    """An active action of this device in one of *statuses* (any, if none is given) and none of *exclude*; else 404."""
    row = of_device(conn, target_id, number)
    held = conn.scalar(select(rollout.c.status).where(rollout.c.id == row.rollout_id)) if row.rollout_id else None
    if (
        not row.active
        or (statuses and row.status not in statuses)
        or row.status in exclude
        or (row.retrieved_at is None and held in HELD and row.status != "canceling")
    ):
        raise missing("action", number)
    return row


def chunks(conn: Connection, set_id: int) -> list[tuple[Row[Any], Sequence[Row[Any]], list[dict[str, str]]]]:
    """The modules of a set, each with its artifacts and the metadata that devices see."""
    found = []
    for part in releases.modules_of(conn, set_id):
        pairs = conn.execute(
            select(module_metadata.c.key, module_metadata.c.value)
            .where(module_metadata.c.module_id == part.id, module_metadata.c.target_visible)
            .order_by(module_metadata.c.key)
        )
        found.append(
            (part, releases.artifacts_of(conn, part.id), [{"key": key, "value": value} for key, value in pairs])
        )
    return found


def messages(conn: Connection, number: int, limit: int) -> list[str]:
    """The newest *limit* (-1: 100) messages of an action's history, newest first."""
    found: list[str] = []
    limit = 100 if limit < 0 else min(limit, 100)
    query = select(action_status.c.messages).where(action_status.c.action_id == number)
    for (texts,) in conn.execute(query.order_by(action_status.c.id.desc()).limit(limit)):
        found.extend(texts)
    return found[:limit]


def retrieved(tx: Tx, number: int) -> None:
    """Note that the device has read its order."""
    row = tx.conn.execute(select(action).where(action.c.id == number)).first()
    if row is not None and row.active and row.retrieved_at is None:
        _set(tx, row, "retrieved" if row.status == "running" else row.status, retrieved_at=tx.now, heard_at=tx.now)
        _record(tx, number, "retrieved", ["The device read the order."])


def fetched(tx: Tx, number: int, filename: str) -> None:
    """Note that the device asked for a whole artifact."""
    row = tx.conn.execute(select(action).where(action.c.id == number)).first()
    if row is not None and row.active and _status_count(tx, number) < MAX_STATUSES:
        _set(tx, row, row.status, heard_at=tx.now, silent=False)
        _record(tx, number, "download", [f"The device fetches {filename}."])


# -- what a device reports ----------------------------------------------------------------------------------------


def _status_count(tx: Tx, number: int) -> int:
    return (
        tx.conn.scalar(select(func.count()).select_from(action_status).where(action_status.c.action_id == number)) or 0
    )


def _open(tx: Tx, target_id: int, number: int) -> Row[Any]:
    row = of_device(tx.conn, target_id, number)
    if not row.active:
        raise Problem(410, "closed", "The action is closed.")
    if _status_count(tx, number) >= MAX_STATUSES:
        raise quota(f"An action has at most {MAX_STATUSES} reports.")
    return row


def feedback(
    tx: Tx,
    target_id: int,
    number: int,
    execution: str,
    finished: str,
    code: int | None = None,
    details: Sequence[str] = (),
    device_time: int | None = None,
) -> None:
    """What a device says about its update. Problem 404, 410 (closed), 429 (too many reports)."""
    row = _open(tx, target_id, number)
    if row.status == "wait_for_confirmation":
        raise missing("action", number)
    texts = list(details)
    if code is not None:
        texts.append(f"Device reported status code: {code}")
    heard = {"heard_at": tx.now, "silent": False} | ({} if code is None else {"last_code": code})
    if execution == "closed":
        status = "error" if finished == "failure" else "finished"
        _record(tx, number, status, texts, code, device_time)
        _close(tx, row, status, **heard)
        return
    status = EXECUTIONS[execution]
    _record(tx, number, status, texts, code, device_time)
    if execution == "downloaded" and row.type == "downloadonly":
        _close(tx, row, "downloaded", **heard)
        return
    keep = row.status == "canceling" or status == "canceled"
    _set(tx, row, row.status if keep else status, **({"retrieved_at": row.retrieved_at or tx.now} | heard))


def _close(tx: Tx, row: Row[Any], status: str, **values: Any) -> None:
    _set(tx, row, status, active=False, closed_at=tx.now, **values)
    device = tx.conn.execute(select(target).where(target.c.id == row.target_id)).one()
    others = tx.conn.scalar(
        select(func.count()).select_from(action).where(action.c.target_id == row.target_id, action.c.active)
    )
    if status == "error":
        targets.note(tx, row.target_id, update_status="error", assigned_set_id=device.installed_set_id)
        notices.failed(tx, row, device.controller_id)
    elif status == "finished":
        targets.note(
            tx,
            row.target_id,
            update_status="pending" if others else "in_sync",
            installed_set_id=row.set_id,
            installed_at=tx.now,
            request_attributes=True,
            **({} if others else {"assigned_set_id": row.set_id}),
        )
    elif not others:
        same = status == "downloaded"
        targets.note(
            tx,
            row.target_id,
            update_status="in_sync" if same or device.installed_set_id else "registered",
            **({} if same else {"assigned_set_id": device.installed_set_id}),
        )


# -- cancelling ---------------------------------------------------------------------------------------------------


def cancel(tx: Tx, who: str, target_id: int, number: int, force: bool = False) -> None:
    """Ask a device to give up, or (*force*) stop waiting for it. Problem 404, 405."""
    row = of_device(tx.conn, target_id, number)
    if not row.active or (row.status == "canceling") != force:
        words = "only an action that is being cancelled can be forced" if force else "the action cannot be cancelled"
        raise Problem(
            405, "not_cancelable", f"{words.capitalize()} any more." if not force else f"{words.capitalize()}."
        )
    if force:
        _record(tx, number, "canceled", [f"{who} no longer waits for the device."])
        _close(tx, row, "canceled")
    else:
        _record(tx, number, "canceling", [f"Cancelled by {who}."])
        if row.retrieved_at is None and row.rollout_id is not None:
            _close(tx, row, "canceled")  # the device has never seen it
        else:
            _set(tx, row, "canceling")


def cancel_feedback(
    tx: Tx, target_id: int, number: int, execution: str, finished: str, code: int | None, details: Sequence[str]
) -> None:
    """A device's answer to a cancellation. Problem 404, 405 (it is not being cancelled), 410, 429."""
    row = _open(tx, target_id, number)
    if row.status != "canceling":
        raise Problem(405, "not_canceling", "The action is not being cancelled.")
    texts = list(details)
    if execution == "closed" and finished != "failure":
        _record(tx, number, "canceled", texts, code)
        _close(tx, row, "canceled", heard_at=tx.now)
    elif execution == "rejected" or (execution == "closed" and finished == "failure"):
        kind = "cancel_rejected" if execution == "rejected" else "error"
        _record(tx, number, kind, texts, code)
        _set(tx, row, "running", heard_at=tx.now, retrieved_at=row.retrieved_at or tx.now)
        if execution == "rejected":
            targets.note(tx, target_id, assigned_set_id=row.set_id, update_status="pending")
    else:
        _record(tx, number, "warning" if execution == "canceled" else "running", texts, code)
        _set(tx, row, row.status, heard_at=tx.now)


# -- confirming ---------------------------------------------------------------------------------------------------


def confirm(
    tx: Tx, who: str, target_id: int, number: int, confirmed: bool, code: int | None = None, details: Sequence[str] = ()
) -> None:
    """Confirm or deny an update. Problem 404 (not waiting), 410 (closed)."""
    row = _open(tx, target_id, number)
    if row.status != "wait_for_confirmation":
        raise missing("action", number)
    words = f"{'Confirmed' if confirmed else 'Denied'} by {who}."
    _record(tx, number, "running" if confirmed else "wait_for_confirmation", [words, *details], code)
    _set(tx, row, "running" if confirmed else row.status, **({} if code is None else {"last_code": code}))


def auto_confirm(tx: Tx, who: str, device: Row[Any], initiator: str | None, remark: str | None) -> None:
    """Confirm everything from now on, open orders included. Problem 409 when it is so already."""
    if device.auto_confirm:
        raise Problem(409, "auto_confirm", "Auto-confirm is active already.")
    targets.note(
        tx,
        device.id,
        auto_confirm=True,
        auto_confirm_initiator=initiator or who,
        auto_confirm_remark=remark,
        auto_confirm_at=tx.now,
    )
    waiting = select(action.c.id).where(action.c.target_id == device.id, action.c.status == "wait_for_confirmation")
    for number in tx.conn.scalars(waiting).all():
        confirm(tx, f"auto-confirm of {initiator or who}", device.id, number, True)


def no_auto_confirm(tx: Tx, device: Row[Any]) -> None:
    """Ask again for each update."""
    targets.note(tx, device.id, auto_confirm=False, auto_confirm_initiator=None, auto_confirm_remark=None)


def force(tx: Tx, who: str, target_id: int, number: int) -> None:
    """Soft becomes forced. Problem 404, 410."""
    row = of_device(tx.conn, target_id, number)
    if not row.active:
        raise Problem(410, "closed", "The action is closed.")
    tx.conn.execute(
        update(action).where(action.c.id == number).values(type="forced", modified_at=tx.now, modified_by=who)
    )
    tx.touched.add(target_id)


def forget_old(tx: Tx) -> int:
    """Delete rollouts and closed actions that ended longer ago than the setting keeps them; returns how many.

    What a device runs stays known (its last success), and so does all that belongs to a rollout that goes on.
    """
    days = int(settings.get(tx.conn, "sekisho.history.days"))
    if not days:
        return 0
    limit = tx.now - days * 86_400_000
    over = rollout.c.status.in_(("finished", "stopped", "approval_denied")), rollout.c.modified_at < limit
    gone = tx.conn.execute(rollout.delete().where(*over)).rowcount
    latest = select(func.max(action.c.id)).where(action.c.status == "finished").group_by(action.c.target_id)
    old = (
        select(action.c.id)
        .where(~action.c.active, action.c.closed_at < limit, action.c.rollout_id.is_(None), action.c.id.not_in(latest))
        .limit(FORGET_AT_ONCE)
    )
    return gone + tx.conn.execute(action.delete().where(action.c.id.in_(old))).rowcount


def end_passed_windows(tx: Tx) -> int:
    """Cancel open actions whose last maintenance window is over; returns how many."""
    rows = tx.conn.execute(
        select(action).where(action.c.active, action.c.window_schedule.is_not(None), action.c.status != "canceling")
    ).all()
    passed = [row for row in rows if window(row, tx.now)[0] == "passed"]
    for row in passed:
        _record(tx, row.id, "canceling", ["The last maintenance window is over."])
        _set(tx, row, "canceling")
    return len(passed)
