"""Rollouts: group after group, stopped by failures and by silence.

A worker looks at the running rollouts every second or so (`step`). A device that took an update (read the order) and is
not heard of for ``silence`` seconds counts as failed until it is heard of again: hawkBit waits for it for ever.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, case, delete, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from . import actions, notices, query, releases, settings, targets
from .errors import Problem, exists, quota, wrong
from .store import Tx
from .tables import action, dist_set, rollout, rollout_group, rollout_target, target

MAX_GROUPS = 500
MAX_GROUP_TARGETS = 20_000
FAILED_OF = "failedrollout=="
"""Filter of a retry: the devices on which rollout N failed (`failedrollout==N`)."""


@dataclass(frozen=True)
class Group:
    """One group as it is asked for; thresholds are whole percent of the group."""

    name: str
    percentage: float = 100.0
    query: str | None = None
    words: str | None = None
    success: int = 50
    success_action: str = "NEXTGROUP"
    error: int = 50
    stops: bool = True
    confirmation_required: bool = True


@dataclass(frozen=True)
class Plan:
    """A rollout as it is asked for. ``silence``: seconds, None for the setting."""

    name: str
    set_id: int
    query: str
    groups: Sequence[Group]
    words: str | None = None
    type: str = "forced"
    force_time: int | None = None
    weight: int | None = None
    start_at: int | None = None
    silence: int | None = None


def _matching(conn: Connection, text: str) -> list[int]:
    number = text.removeprefix(FAILED_OF)
    if text.startswith(FAILED_OF) and number.isdigit() and len(number) < 16:
        where = action.c.rollout_id == int(number), or_(action.c.status == "error", action.c.silent)
        found = conn.scalars(select(action.c.target_id).where(*where).distinct().order_by(action.c.target_id))
    else:
        in_use = target.c.update_status != targets.RETIRED
        found = conn.scalars(select(target.c.id).where(query.targets(text), in_use).order_by(target.c.id))
    return list(found)


def create(tx: Tx, who: str, plan: Plan) -> int:
    """A new rollout with its groups filled; returns its id. Problem 400, 404, 409, 429."""
    releases.row(tx.conn, dist_set, plan.set_id, "distribution set")
    if not releases.complete(tx.conn, plan.set_id):
        raise wrong("The distribution set is incomplete: a module without an artifact, or none.")
    if not 1 <= len(plan.groups) <= MAX_GROUPS:
        raise quota(f"A rollout has 1 to {MAX_GROUPS} groups.")
    if plan.type == "timeforced" and plan.force_time is None:
        raise wrong("A timeforced rollout needs a forcetime.")
    left = _matching(tx.conn, plan.query)
    if not left:
        raise wrong("The filter matches no target.")
    approval = settings.get(tx.conn, "rollout.approval.enabled")
    try:
        inserted = tx.add(
            rollout,
            name=plan.name,
            description=plan.words,
            set_id=plan.set_id,
            query=plan.query,
            status="waiting_for_approval" if approval else "ready",
            type=plan.type,
            force_time=plan.force_time,
            weight=plan.weight,
            confirmation_required=all(group.confirmation_required for group in plan.groups),
            start_at=plan.start_at,
            silence=plan.silence,
            **releases.made(tx, who),
        )
    except IntegrityError:
        raise exists("rollout", plan.name) from None
    number = inserted
    for position, group in enumerate(plan.groups):
        left = _fill(tx, who, number, position, group, left)
    if left and all(group.query is None for group in plan.groups):
        raise wrong("The groups do not add up to all targets; the last one should take 100 percent of what is left.")
    return number


def _fill(tx: Tx, who: str, number: int, position: int, group: Group, left: list[int]) -> list[int]:
    fitting = left
    if group.query:
        allowed = set(_matching(tx.conn, group.query))
        fitting = [one for one in left if one in allowed]
    count = -(-len(fitting) * round(group.percentage * 1000) // 100_000)
    chosen = fitting[:count]
    if len(chosen) > MAX_GROUP_TARGETS:
        raise quota(f"A group has at most {MAX_GROUP_TARGETS} targets; make more groups.")
    inserted = tx.add(
        rollout_group,
        rollout_id=number,
        position=position,
        name=group.name,
        description=group.words,
        status="ready",
        query=group.query,
        percentage_e3=round(group.percentage * 1000),
        success_threshold=group.success,
        success_action=group.success_action,
        error_threshold=group.error,
        stops_on_error=group.stops,
        confirmation_required=group.confirmation_required,
        **releases.made(tx, who),
    )
    group_id = inserted
    if chosen:
        tx.conn.execute(insert(rollout_target), [{"group_id": group_id, "target_id": one} for one in chosen])
    taken = set(chosen)
    return [one for one in left if one not in taken]


# -- counting -----------------------------------------------------------------------------------------------------


def groups(conn: Connection, number: int) -> Sequence[Row[Any]]:
    """The groups of a rollout in order."""
    wanted = select(rollout_group).where(rollout_group.c.rollout_id == number)
    return conn.execute(wanted.order_by(rollout_group.c.position)).all()


def totals(conn: Connection, group_ids: Sequence[int]) -> dict[int, dict[str, int]]:
    """Per group: how many targets are notstarted, scheduled, running, finished, error (silent ones too), cancelled."""
    found = {
        one: dict.fromkeys(("notstarted", "scheduled", "running", "finished", "error", "cancelled"), 0)
        for one in group_ids
    }
    sizes = conn.execute(
        select(rollout_target.c.group_id, func.count())
        .where(rollout_target.c.group_id.in_(group_ids))
        .group_by(rollout_target.c.group_id)
    )
    for group_id, count in sizes:
        found[group_id]["notstarted"] = count
    state = case(
        (action.c.status == "error", "error"),
        (action.c.active & action.c.silent, "error"),
        (action.c.active, "running"),
        (action.c.status.in_(("finished", "downloaded")), "finished"),
        else_="cancelled",
    )
    rows = conn.execute(
        select(action.c.group_id, state, func.count())
        .where(action.c.group_id.in_(group_ids))
        .group_by(action.c.group_id, state)
    )
    for group_id, word, count in rows:
        found[group_id][word] += count
        found[group_id]["notstarted"] = max(0, found[group_id]["notstarted"] - count)
    return found


# -- what operators do --------------------------------------------------------------------------------------------


def need(conn: Connection, number: int) -> Row[Any]:
    """The rollout; Problem 404."""
    return releases.row(conn, rollout, number, "rollout")


def _move(tx: Tx, number: int, *allowed: str, to: str, **values: Any) -> Row[Any]:
    row = need(tx.conn, number)
    if row.status not in allowed:
        raise Problem(400, "rollout_state", f"The rollout is {row.status.replace('_', ' ')}, so this cannot be done.")
    tx.conn.execute(update(rollout).where(rollout.c.id == number).values(status=to, modified_at=tx.now, **values))
    touch_targets(tx, number)
    return row


def touch_targets(tx: Tx, number: int) -> None:
    """What devices with open orders of this rollout are shown may have changed."""
    tx.touched.update(tx.conn.scalars(select(action.c.target_id).where(action.c.rollout_id == number, action.c.active)))


def start(tx: Tx, who: str, number: int) -> None:
    """Begin with the first group."""
    _move(tx, number, "ready", to="running", started_at=tx.now, modified_by=who)
    _begin_next(tx, number)


def pause(tx: Tx, who: str, number: int, why: str | None = None) -> None:
    """No further device is given the update, not even in the groups that have begun."""
    _move(tx, number, "running", to="paused", why=why or f"paused by {who}", modified_by=who)


def resume(tx: Tx, who: str, number: int) -> None:
    """Go on. A group that was stopped by its errors goes on, too: the operator has looked at it."""
    _move(tx, number, "paused", to="running", why=None, modified_by=who)
    stopped = rollout_group.c.rollout_id == number, rollout_group.c.status == "error"
    tx.conn.execute(
        update(rollout_group).where(*stopped).values(status="running", stops_on_error=False, modified_at=tx.now)
    )
    running = [group.id for group in groups(tx.conn, number) if group.status == "running"]
    counts = totals(tx.conn, running)
    if not any(counts[one]["running"] or counts[one]["notstarted"] for one in running):
        _begin_next(tx, number)  # there is nothing left in them that could decide otherwise


def stop(tx: Tx, who: str, number: int) -> None:
    """End it: open orders are cancelled, groups that have not begun never will."""
    _move(
        tx,
        number,
        "ready",
        "running",
        "paused",
        "waiting_for_approval",
        to="stopping",
        why=f"stopped by {who}",
        modified_by=who,
    )
    open_ones = tx.conn.execute(
        select(action).where(action.c.rollout_id == number, action.c.active, action.c.status != "canceling")
    ).all()
    for row in open_ones:
        actions.cancel(tx, who, row.target_id, row.id)
    _settle(tx, number)


def _settle(tx: Tx, number: int) -> None:
    if not tx.conn.execute(select(action.c.id).where(action.c.rollout_id == number, action.c.active).limit(1)).first():
        tx.conn.execute(update(rollout).where(rollout.c.id == number).values(status="stopped", modified_at=tx.now))
        waiting = rollout_group.c.rollout_id == number, rollout_group.c.status != "finished"
        tx.conn.execute(update(rollout_group).where(*waiting).values(status="finished", modified_at=tx.now))


def decide(tx: Tx, who: str, number: int, approved: bool, remark: str | None) -> None:
    """Approve or deny. Problem 400 (not waiting), 403 (one's own rollout)."""
    if need(tx.conn, number).created_by == who:
        raise Problem(403, "own_rollout", "Somebody else must approve this rollout.")
    to = "ready" if approved else "approval_denied"
    _move(tx, number, "waiting_for_approval", "approval_denied", to=to, decided_by=who, remark=remark, modified_by=who)


def next_group(tx: Tx, who: str, number: int) -> None:
    """Begin the next group without waiting for the threshold."""
    row = need(tx.conn, number)
    if row.status != "running" or not _begin_next(tx, number):
        raise Problem(400, "rollout_state", "There is no group that could begin.")
    releases.touch(tx, rollout, number, who)


def retry(tx: Tx, who: str, number: int) -> int:
    """A new rollout, in one group, for the devices on which this one failed; returns its id."""
    row = need(tx.conn, number)
    if row.status not in ("finished", "stopped"):
        raise Problem(400, "rollout_state", "Only a rollout that has ended can be retried.")
    last = groups(tx.conn, number)[-1]
    for attempt in range(1, 100):
        name = f"{row.name}_retry" + ("" if attempt == 1 else f"_{attempt}")
        if not tx.conn.execute(select(rollout.c.id).where(rollout.c.name == name)).first():
            break
    group = Group("retry", 100.0, None, None, last.success_threshold, last.success_action, last.error_threshold)
    return create(
        tx,
        who,
        Plan(
            name,
            row.set_id,
            f"{FAILED_OF}{number}",
            [group],
            row.description,
            row.type,
            row.force_time,
            row.weight,
            silence=row.silence,
        ),
    )


def remove(tx: Tx, number: int) -> None:
    """Delete a rollout that has ended or never begun. Problem 404, 409."""
    row = need(tx.conn, number)
    if row.status in ("running", "paused", "stopping"):
        raise Problem(409, "in_use", "Stop the rollout first.")
    tx.conn.execute(delete(rollout).where(rollout.c.id == number))


# -- what the worker does -----------------------------------------------------------------------------------------


def _begin_next(tx: Tx, number: int) -> bool:
    row = need(tx.conn, number)
    for group in groups(tx.conn, number):
        if group.status != "ready":
            continue
        order = actions.Order(
            row.type,
            row.force_time,
            row.weight,
            confirmation_required=group.confirmation_required,
            rollout_id=number,
            group_id=group.id,
        )
        members = tx.conn.execute(
            select(target)
            .join(rollout_target, rollout_target.c.target_id == target.c.id)
            .where(rollout_target.c.group_id == group.id)
            .order_by(target.c.id)
        ).all()
        given = 0
        for device in members:
            if actions.assign(tx, f"rollout {row.name}", device, row.set_id, order) is None:
                # An open order for the same set: it counts for this group from now on.
                tx.conn.execute(
                    update(action)
                    .where(action.c.target_id == device.id, action.c.set_id == row.set_id, action.c.active)
                    .values(rollout_id=number, group_id=group.id)
                )
            given += 1
        tx.conn.execute(
            update(rollout_group)
            .where(rollout_group.c.id == group.id)
            .values(status="running" if given else "finished", modified_at=tx.now)
        )
        if given:
            return True
    return False


def silence_of(conn: Connection, row: Row[Any] | None) -> int:
    """Seconds after which a device counts as silent."""
    if row is not None and row.silence is not None:
        return int(row.silence)
    return int(settings.get(conn, "sekisho.silence"))


def watch(tx: Tx, seen: dict[int, tuple[int, str]]) -> int:
    """Mark devices that took an update and have not been heard of for too long; returns how many are new.

    *seen*: polls that are not written yet (target id -> (ms, address)). An action is no longer silent once the device
    polls or reports again.
    """
    default = int(settings.get(tx.conn, "sekisho.silence"))
    rows = tx.conn.execute(
        select(
            action,
            target.c.controller_id,
            target.c.last_poll_at,
            rollout.c.silence.label("limit"),
            rollout.c.started_at,
        )
        .join(target, target.c.id == action.c.target_id)
        .outerjoin(rollout, rollout.c.id == action.c.rollout_id)
        .where(action.c.active, action.c.retrieved_at.is_not(None))
    ).all()
    new = 0
    for row in rows:
        limit = row.limit if row.limit is not None else default
        polled = seen.get(row.target_id, (row.last_poll_at or 0, ""))[0]
        heard = max(polled, row.heard_at or 0, row.retrieved_at)
        is_silent = tx.now - heard > limit * 1000
        if is_silent == row.silent:
            continue
        tx.conn.execute(update(action).where(action.c.id == row.id).values(silent=is_silent))
        if is_silent:
            new += 1
            words = f"Nothing heard for {limit} seconds after the device took the update."
            actions.remark(tx, row.id, "warning", words)
            notices.silent(tx, row, row.controller_id, limit)
        else:
            actions.remark(tx, row.id, "running", "The device is heard of again.")
    return new


def step(tx: Tx) -> int:
    """Look at every rollout that may go on; returns how many changed."""
    changed = 0
    due = rollout.c.status == "ready", rollout.c.start_at.is_not(None), rollout.c.start_at <= tx.now
    for number in tx.conn.scalars(select(rollout.c.id).where(*due)).all():
        start(tx, "the start time", number)
        changed += 1
    for number in tx.conn.scalars(select(rollout.c.id).where(rollout.c.status == "stopping")).all():
        _settle(tx, number)
    for row in tx.conn.execute(select(rollout).where(rollout.c.status == "running")).all():
        changed += _step_one(tx, row)
    return changed


def _step_one(tx: Tx, row: Row[Any]) -> int:
    all_groups = groups(tx.conn, row.id)
    counts = totals(tx.conn, [group.id for group in all_groups])
    begun = [group for group in all_groups if group.status != "ready"]
    for group in begun:
        count = counts[group.id]
        size = sum(count.values())
        if group.status == "running" and group.stops_on_error and count["error"] * 100 > group.error_threshold * size:
            words = f"{count['error']} of {size} devices of group {group.name} failed or fell silent"
            _stop_itself(tx, row, group, count, words, "error")
            return 1
    changed = 0
    for group in begun:
        if group.status == "running" and not counts[group.id]["running"] and not counts[group.id]["notstarted"]:
            _set_group(tx, group.id, status="finished")
            changed += 1
    if begun and len(begun) < len(all_groups):
        return changed + _after(tx, row, begun[-1], counts[begun[-1].id])
    if not any(group.status in ("running", "ready") for group in groups(tx.conn, row.id)):
        tx.conn.execute(update(rollout).where(rollout.c.id == row.id).values(status="finished", modified_at=tx.now))
        detail = {"rollout": row.name, "totals": _sum(counts.values())}
        notices.add(tx, notices.ROLLOUT_FINISHED, f"Rollout {row.name} is finished", **detail)
        return changed + 1
    return changed


def _after(tx: Tx, row: Row[Any], last: Row[Any], count: dict[str, int]) -> int:
    """What follows the group that began last, while others wait: the next one, a pause, or nothing yet."""
    size = sum(count.values())
    ended = not count["running"] and not count["notstarted"]
    if count["finished"] * 100 >= last.success_threshold * size:
        if last.success_action == "PAUSE":
            _set_group(tx, last.id, success_action="NEXTGROUP")  # once
            pause(tx, "the rollout", row.id, f"after group {last.name}, as planned")
        else:
            _begin_next(tx, row.id)
        return 1
    if ended:
        words = f"group {last.name} ended with {count['finished']} of {size} devices updated"
        _stop_itself(tx, row, last, count, words, "finished")
        return 1
    return 0


def _set_group(tx: Tx, number: int, **values: Any) -> None:
    tx.conn.execute(update(rollout_group).where(rollout_group.c.id == number).values(modified_at=tx.now, **values))


def _sum(counts: Any) -> dict[str, int]:
    total: dict[str, int] = {}
    for count in counts:
        for word, number in count.items():
            total[word] = total.get(word, 0) + number
    return total


def _stop_itself(tx: Tx, row: Row[Any], group: Row[Any], count: dict[str, int], why: str, status: str) -> None:
    pause(tx, "the rollout", row.id, why)
    _set_group(tx, group.id, status=status)
    detail = {"rollout": row.name, "group": group.name, "totals": count, "reason": why}
    notices.add(tx, notices.ROLLOUT_STOPPED, f"Rollout {row.name} has stopped itself: {why}", **detail)


def overall(conn: Connection, number: int) -> dict[str, int]:
    """Totals over all groups of a rollout, with their sum as ``total``."""
    counts = totals(conn, [group.id for group in groups(conn, number)])
    total = _sum(counts.values())
    return total | {"total": sum(total.values())}
