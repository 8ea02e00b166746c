"""What the server keeps: SQLite tables. Times are milliseconds since 1970, as hawkBit's API has them.

A change here needs a migration in `migrations/versions`; a test compares the two.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    UniqueConstraint,
)
from sqlalchemy.sql.schema import SchemaItem

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _id() -> Column[int]:
    return Column("id", Integer, primary_key=True)


def _ref(name: str, to: str, null: bool = False, delete: str | None = "CASCADE") -> Column[int]:
    return Column(name, Integer, ForeignKey(f"{to}.id", ondelete=delete), nullable=null, index=True)


def _table(name: str, *parts: SchemaItem) -> Table:
    # Numbers are never used twice, so an id in an old log or on a device cannot come to mean something else.
    return Table(name, metadata, *parts, sqlite_autoincrement=any(getattr(part, "name", "") == "id" for part in parts))


def _text(name: str, null: bool = False) -> Column[str]:
    return Column(name, String, nullable=null)


def _int(name: str, null: bool = False) -> Column[int]:
    return Column(name, Integer, nullable=null)


def _bool(name: str) -> Column[bool]:
    return Column(name, Boolean, nullable=False)


def _made() -> tuple[Column[int], Column[str], Column[int], Column[str]]:
    return _int("created_at"), _text("created_by"), _int("modified_at"), _text("modified_by")


setting = Table("setting", metadata, Column("key", String, primary_key=True), Column("value", JSON, nullable=False))
"""Settings that management calls change (hawkBit's "system configuration"), and the server's own secrets."""

module = _table(
    "module",
    _id(),
    _text("type"),
    _text("name"),
    _text("version"),
    _text("vendor", null=True),
    _text("description", null=True),
    *_made(),
    UniqueConstraint("type", "name", "version"),
)

module_metadata = Table(
    "module_metadata",
    metadata,
    Column("module_id", Integer, ForeignKey("module.id", ondelete="CASCADE"), primary_key=True),
    Column("key", String, primary_key=True),
    _text("value"),
    _bool("target_visible"),
)

artifact = _table(
    "artifact",
    _id(),
    _ref("module_id", "module"),
    _text("filename"),
    Column("sha256", String, nullable=False, index=True),
    _text("sha1"),
    _text("md5"),
    _int("size"),
    *_made(),
    UniqueConstraint("module_id", "filename"),
)
"""Artifacts; the bytes are files named by their SHA-256."""

dist_set = _table(
    "dist_set",
    _id(),
    _text("type"),
    _text("name"),
    _text("version"),
    _text("description", null=True),
    _bool("required_migration_step"),
    *_made(),
    UniqueConstraint("name", "version"),
)

set_module = Table(
    "set_module",
    metadata,
    Column("set_id", Integer, ForeignKey("dist_set.id", ondelete="CASCADE"), primary_key=True),
    Column("module_id", Integer, ForeignKey("module.id", ondelete="RESTRICT"), primary_key=True, index=True),
)

target = _table(
    "target",
    _id(),
    Column("controller_id", String, nullable=False, unique=True),
    _text("name"),
    _text("description", null=True),
    Column("token_hash", LargeBinary, nullable=True),
    Column("public_key", LargeBinary, nullable=True),
    _text("update_status"),
    _ref("installed_set_id", "dist_set", null=True, delete="RESTRICT"),
    _ref("assigned_set_id", "dist_set", null=True, delete="RESTRICT"),
    _int("installed_at", null=True),
    _int("last_poll_at", null=True),
    _text("address", null=True),
    _bool("request_attributes"),
    _bool("auto_confirm"),
    _text("auto_confirm_initiator", null=True),
    _text("auto_confirm_remark", null=True),
    _int("auto_confirm_at", null=True),
    *_made(),
)
"""Devices. Of a token only its SHA-256 is kept."""

attribute = Table(
    "attribute",
    metadata,
    Column("target_id", Integer, ForeignKey("target.id", ondelete="CASCADE"), primary_key=True),
    Column("key", String, primary_key=True),
    _text("value"),
)

target_metadata = Table(
    "target_metadata",
    metadata,
    Column("target_id", Integer, ForeignKey("target.id", ondelete="CASCADE"), primary_key=True),
    Column("key", String, primary_key=True),
    _text("value"),
)

rollout = _table(
    "rollout",
    _id(),
    Column("name", String, nullable=False, unique=True),
    _text("description", null=True),
    _ref("set_id", "dist_set", delete="RESTRICT"),
    _text("query"),
    _text("status"),
    _text("why", null=True),
    _text("type"),
    _int("force_time", null=True),
    _int("weight", null=True),
    _bool("confirmation_required"),
    _int("start_at", null=True),
    _int("started_at", null=True),
    _int("silence", null=True),
    _text("decided_by", null=True),
    _text("remark", null=True),
    *_made(),
)
"""Rollouts. ``silence`` is in seconds: how long a device that took the update may be unheard of."""

rollout_group = _table(
    "rollout_group",
    _id(),
    _ref("rollout_id", "rollout"),
    _int("position"),
    _text("name"),
    _text("description", null=True),
    _text("status"),
    _text("query", null=True),
    _int("percentage_e3"),
    _int("success_threshold"),
    _text("success_action"),
    _int("error_threshold"),
    _bool("stops_on_error"),
    _bool("confirmation_required"),
    *_made(),
    UniqueConstraint("rollout_id", "position"),
)

rollout_target = Table(
    "rollout_target",
    metadata,
    Column("group_id", Integer, ForeignKey("rollout_group.id", ondelete="CASCADE"), primary_key=True),
    Column("target_id", Integer, ForeignKey("target.id", ondelete="CASCADE"), primary_key=True, index=True),
)

action = _table(
    "action",
    _id(),
    _ref("target_id", "target"),
    _ref("set_id", "dist_set", delete="RESTRICT"),
    _ref("rollout_id", "rollout", null=True, delete="SET NULL"),
    _ref("group_id", "rollout_group", null=True, delete="SET NULL"),
    _text("status"),
    _bool("active"),
    _bool("silent"),
    _text("type"),
    _int("force_time", null=True),
    _int("weight", null=True),
    _text("window_schedule", null=True),
    _text("window_duration", null=True),
    _text("window_timezone", null=True),
    _int("retrieved_at", null=True),
    _int("heard_at", null=True),
    _int("closed_at", null=True),
    _int("last_code", null=True),
    *_made(),
    Index("ix_action_open", "target_id", "active"),
    Index("ix_action_group", "group_id", "status"),
)
"""One set for one device. ``silent``: it was taken and the device has not been heard of for too long."""

action_status = _table(
    "action_status",
    _id(),
    _ref("action_id", "action"),
    _text("type"),
    _int("reported_at"),
    _int("device_time", null=True),
    _int("code", null=True),
    Column("messages", JSON, nullable=False),
)

operator = _table(
    "operator",
    _id(),
    Column("name", String, nullable=False, unique=True),
    _text("password"),
    _text("role"),
    _int("created_at"),
    _int("failures"),
    _int("locked_until"),
)
"""People and programs that manage. ``password`` is an argon2id string."""

session = Table(
    "session",
    metadata,
    Column("token_hash", LargeBinary, primary_key=True),
    _ref("operator_id", "operator"),
    _text("csrf"),
    _int("created_at"),
    _int("seen_at"),
)

enrolment = _table(
    "enrolment",
    _id(),
    Column("token_hash", LargeBinary, nullable=False, unique=True),
    _text("controller_id", null=True),
    _text("note", null=True),
    _int("expires_at"),
    _int("used_at", null=True),
    _text("used_by", null=True),
    _int("created_at"),
    _text("created_by"),
)
"""One-time tokens with which devices enrol."""

report = _table(
    "report",
    _id(),
    _ref("target_id", "target"),
    _int("received_at"),
    _text("verdict"),
    Column("sha256", LargeBinary, nullable=False),
    Column("body", LargeBinary, nullable=False),
    UniqueConstraint("target_id", "sha256"),
)
"""Reports as devices signed them. ``verdict``: verified, unverified (no key known), invalid."""

device_order = Table(
    "device_order",
    metadata,
    Column("target_id", Integer, ForeignKey("target.id", ondelete="CASCADE"), primary_key=True),
    Column("body", LargeBinary, nullable=False),
    _text("sha256"),
    _text("action"),
    *_made(),
)
"""The operator order (docs/orders.md) that waits for a device: one at a time, as in a static directory."""

retired = Table(
    "retired",
    metadata,
    Column("controller_id", String, primary_key=True),
    Column("public_key", LargeBinary, nullable=True, index=True),
    _int("at"),
    _text("by"),
    _text("why"),
)
"""Identities of decommissioned devices. They outlive the devices' own rows, so that no identity comes back."""

notice = _table(
    "notice",
    _id(),
    _int("created_at"),
    _text("kind"),
    _text("subject"),
    Column("detail", JSON, nullable=False),
    _text("webhook"),
    _text("mail"),
    _int("tries"),
    _int("next_try_at"),
)
"""Notifications, kept until they are delivered. ``webhook``, ``mail``: off, waiting, sent, failed."""

audit = _table(
    "audit",
    _id(),
    _int("at"),
    _text("who"),
    _text("what"),
    Column("detail", JSON, nullable=False),
)
"""What operators changed, and when."""
