"""Notifications as they arise: rows that `notify` delivers, so that a crash or a dead mail server loses none."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Row, insert, select

from .store import Tx
from .tables import action_status, dist_set, notice, rollout

FAILED = "device_failed"
SILENT = "device_silent"
FLOOD = "requests_refused"
ROLLOUT_STOPPED = "rollout_paused_by_itself"
ROLLOUT_FINISHED = "rollout_finished"


def add(tx: Tx, kind: str, subject: str, **detail: Any) -> None:
    """One more thing that somebody should hear of."""
    tx.conn.execute(
        insert(notice).values(
            created_at=tx.now,
            kind=kind,
            subject=subject,
            detail=detail,
            webhook="waiting",
            mail="waiting",
            tries=0,
            next_try_at=tx.now,
        )
    )


def _about(tx: Tx, action: Row[Any], controller_id: str) -> dict[str, Any]:
    name, version = tx.conn.execute(
        select(dist_set.c.name, dist_set.c.version).where(dist_set.c.id == action.set_id)
    ).one()
    detail: dict[str, Any] = {
        "controllerId": controller_id,
        "action": action.id,
        "distributionSet": f"{name} {version}",
    }
    if action.rollout_id:
        detail["rollout"] = tx.conn.scalar(select(rollout.c.name).where(rollout.c.id == action.rollout_id))
    return detail


def flood(tx: Tx, refused: dict[str, int], seconds: int) -> None:
    """Somebody asks for more than they may, or guesses: *refused* says how often, by what was exceeded."""
    total = sum(refused.values())
    add(tx, FLOOD, f"{total} requests were refused in {seconds} seconds", refused=refused, seconds=seconds)


def failed(tx: Tx, action: Row[Any], controller_id: str) -> None:
    """A device reported that its update failed."""
    texts = tx.conn.scalar(
        select(action_status.c.messages)
        .where(action_status.c.action_id == action.id)
        .order_by(action_status.c.id.desc())
    )
    detail = _about(tx, action, controller_id)
    add(tx, FAILED, f"Update failed on {controller_id}", **detail, messages=list(texts or [])[:10])


def silent(tx: Tx, action: Row[Any], controller_id: str, seconds: int) -> None:
    """A device took an update and has not been heard of since."""
    detail = _about(tx, action, controller_id)
    add(tx, SILENT, f"{controller_id} took an update and fell silent", **detail, silentSeconds=seconds)
