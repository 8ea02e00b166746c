"""What can be installed: software modules with artifacts, and distribution sets made of modules."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from sqlalchemy import Connection, Row, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from .errors import Problem, exists, missing, quota, wrong
from .store import Store, Tx
from .tables import action, artifact, dist_set, module, module_metadata, rollout, set_module, target

MODULE_TYPES = {"os": "OS", "application": "Application", "runtime": "Runtime"}
"""Types of modules: key -> name."""
SET_TYPES = {"os": "OS only", "os_app": "OS with app(s)", "app": "App(s) only"}
CHUNK_PARTS = {"application": "bApp", "runtime": "jvm"}
"""How hawkBit calls these types in an order to a device."""

MAX_ARTIFACTS = 50
"""Artifacts of one module (hawkBit's quota)."""
MAX_MODULES = 100
MAX_METADATA = 50
MAX_ARTIFACT = 64 << 20
"""Bytes of one artifact: four times the largest flash that Sekisho has a layout for."""
MAX_STORAGE = 20 << 30
"""Bytes of all artifacts."""
_PIECE = 1 << 20
_FILENAME = re.compile(r"[^/\\\x00-\x1f\x7f]{1,128}")


def made(tx: Tx, who: str) -> dict[str, Any]:
    """The four columns that say who made a row and when."""
    return {"created_at": tx.now, "created_by": who, "modified_at": tx.now, "modified_by": who}


def row(conn: Connection, table: Any, number: int, what: str) -> Row[Any]:
    """The row with this id; Problem 404 when there is none."""
    found = conn.execute(select(table).where(table.c.id == number)).first()
    if found is None:
        raise missing(what, number)
    return found


# -- modules ------------------------------------------------------------------------------------------------------


def add_module(tx: Tx, who: str, kind: str, name: str, version: str, vendor: str | None, words: str | None) -> int:
    """A new software module; returns its id. Problem 400 (type), 409."""
    if kind not in MODULE_TYPES:
        raise wrong(f"A module's type is one of {', '.join(MODULE_TYPES)}.")
    try:
        made_row = tx.add(
            module, type=kind, name=name, version=version, vendor=vendor, description=words, **made(tx, who)
        )
    except IntegrityError:
        raise exists("software module", f"{name} {version}") from None
    return made_row


def remove_module(tx: Tx, number: int) -> None:
    """Delete a module that no set uses. Problem 404, 409."""
    row(tx.conn, module, number, "software module")
    if tx.conn.execute(select(set_module.c.set_id).where(set_module.c.module_id == number)).first():
        raise Problem(409, "in_use", "The module belongs to a distribution set.")
    tx.conn.execute(delete(module).where(module.c.id == number))


def set_module_metadata(tx: Tx, number: int, pairs: Iterable[tuple[str, str, bool]]) -> None:
    """Add or replace metadata of a module: (key, value, whether devices see it)."""
    row(tx.conn, module, number, "software module")
    for key, value, visible in pairs:
        where = (module_metadata.c.module_id == number) & (module_metadata.c.key == key)
        tx.conn.execute(delete(module_metadata).where(where))
        tx.conn.execute(insert(module_metadata).values(module_id=number, key=key, value=value, target_visible=visible))
    count = tx.conn.scalar(
        select(func.count()).select_from(module_metadata).where(module_metadata.c.module_id == number)
    )
    if (count or 0) > MAX_METADATA:
        raise quota(f"A module has at most {MAX_METADATA} metadata entries.")


# -- artifacts ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Upload:
    """Bytes that have arrived and are on disk, under a temporary name."""

    path: Path
    size: int
    sha256: str
    sha1: str
    md5: str


def receive(store: Store, source: BinaryIO, limit: int = MAX_ARTIFACT) -> Upload:
    """Copy *source* into the artifact directory, synced, hashing on the way. Problem 429 above *limit* bytes."""
    hashes = [hashlib.new(name, usedforsecurity=False) for name in ("sha256", "sha1", "md5")]
    handle, name = tempfile.mkstemp(prefix=".upload.", dir=store.path / "artifacts")
    size = 0
    try:
        with os.fdopen(handle, "wb") as file:
            while piece := source.read(_PIECE):
                size += len(piece)
                if size > limit:
                    raise quota(f"An artifact has at most {limit} bytes.")
                for digest in hashes:
                    digest.update(piece)
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return Upload(Path(name), size, *(digest.hexdigest() for digest in hashes))


def add_artifact(tx: Tx, store: Store, who: str, number: int, filename: str, upload: Upload) -> int:
    """Make *upload* an artifact of a module; returns its id. Problem 400 (name), 404, 409, 429."""
    if not _FILENAME.fullmatch(filename) or filename in (".", ".."):
        raise wrong("An artifact's file name has 1 to 128 characters, without slashes and control characters.")
    row(tx.conn, module, number, "software module")
    count, _ = usage(tx.conn, number)
    if count >= MAX_ARTIFACTS:
        raise quota(f"A module has at most {MAX_ARTIFACTS} artifacts.")
    if usage(tx.conn)[1] + upload.size > MAX_STORAGE:
        raise quota("The artifact storage is full.")
    if tx.conn.execute(
        select(artifact.c.id).where(artifact.c.module_id == number, artifact.c.filename == filename)
    ).first():
        raise exists("artifact", filename)
    upload.path.replace(store.artifact(upload.sha256))
    directory = os.open(store.path / "artifacts", os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
    return tx.add(
        artifact,
        module_id=number,
        filename=filename,
        sha256=upload.sha256,
        sha1=upload.sha1,
        md5=upload.md5,
        size=upload.size,
        **made(tx, who),
    )


def usage(conn: Connection, number: int | None = None) -> tuple[int, int]:
    """Number and bytes of the artifacts of one module, or of all."""
    query = select(func.count(), func.coalesce(func.sum(artifact.c.size), 0))
    if number is not None:
        query = query.where(artifact.c.module_id == number)
    count, size = conn.execute(query).one()
    return int(count), int(size)


def used_by_open_action(conn: Connection, number: int) -> bool:
    """Whether a device may be about to fetch from this module."""
    query = (
        select(action.c.id)
        .join(set_module, set_module.c.set_id == action.c.set_id)
        .where(set_module.c.module_id == number, action.c.active)
    )
    return conn.execute(query).first() is not None


def remove_artifact(tx: Tx, number: int, artifact_id: int) -> str:
    """Delete an artifact; returns its SHA-256. Problem 404, 409."""
    found = one_artifact(tx.conn, number, artifact_id)
    if used_by_open_action(tx.conn, number):
        raise Problem(409, "in_use", "Devices are being updated from this artifact.")
    tx.conn.execute(delete(artifact).where(artifact.c.id == artifact_id))
    return str(found.sha256)


def one_artifact(conn: Connection, number: int, artifact_id: int) -> Row[Any]:
    """One artifact of a module; Problem 404."""
    found = conn.execute(select(artifact).where(artifact.c.id == artifact_id, artifact.c.module_id == number)).first()
    if found is None:
        raise missing("artifact", artifact_id)
    return found


def sweep(store: Store) -> int:
    """Delete files of the artifact directory that nothing refers to; returns how many. Only while nobody uploads."""
    known = set(store.look(lambda conn: conn.scalars(select(artifact.c.sha256)).all()))
    lost = [path for path in (store.path / "artifacts").iterdir() if path.name not in known]
    for path in lost:
        path.unlink()
    return len(lost)


# -- sets ---------------------------------------------------------------------------------------------------------


def add_set(
    tx: Tx, who: str, kind: str, name: str, version: str, words: str | None, modules: Sequence[int], step: bool
) -> int:
    """A new distribution set of *modules*; returns its id. Problem 400 (type), 404 (module), 409."""
    if kind not in SET_TYPES:
        raise wrong(f"A distribution set's type is one of {', '.join(SET_TYPES)}.")
    if len(modules) > MAX_MODULES:
        raise quota(f"A distribution set has at most {MAX_MODULES} modules.")
    try:
        inserted = tx.add(
            dist_set,
            type=kind,
            name=name,
            version=version,
            description=words,
            required_migration_step=step,
            **made(tx, who),
        )
    except IntegrityError:
        raise exists("distribution set", f"{name} {version}") from None
    number = inserted
    for part in dict.fromkeys(modules):
        row(tx.conn, module, part, "software module")
        tx.conn.execute(insert(set_module).values(set_id=number, module_id=part))
    return number


def remove_set(tx: Tx, number: int) -> None:
    """Delete a set that no device and no rollout refers to. Problem 404, 409."""
    row(tx.conn, dist_set, number, "distribution set")
    used = (
        select(action.c.id).where(action.c.set_id == number),
        select(rollout.c.id).where(rollout.c.set_id == number),
        select(target.c.id).where((target.c.assigned_set_id == number) | (target.c.installed_set_id == number)),
    )
    if any(tx.conn.execute(query.limit(1)).first() for query in used):
        raise Problem(409, "in_use", "Devices or rollouts refer to the distribution set.")
    tx.conn.execute(delete(dist_set).where(dist_set.c.id == number))


def modules_of(conn: Connection, number: int) -> Sequence[Row[Any]]:
    """The modules of a set."""
    query = select(module).join(set_module, set_module.c.module_id == module.c.id)
    return conn.execute(query.where(set_module.c.set_id == number).order_by(module.c.id)).all()


def artifacts_of(conn: Connection, number: int) -> Sequence[Row[Any]]:
    """The artifacts of a module."""
    return conn.execute(select(artifact).where(artifact.c.module_id == number).order_by(artifact.c.id)).all()


def complete(conn: Connection, number: int) -> bool:
    """Whether a set can be installed: it has modules, and each has an artifact."""
    parts = modules_of(conn, number)
    return bool(parts) and all(artifacts_of(conn, part.id) for part in parts)


def touch(tx: Tx, table: Any, number: int, who: str, **values: Any) -> None:
    """Change columns of a row and note who did it."""
    tx.conn.execute(update(table).where(table.c.id == number).values(modified_at=tx.now, modified_by=who, **values))
