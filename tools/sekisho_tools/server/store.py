"""The database: SQLite behind SQLAlchemy, one writing thread that commits many requests with one sync.

What a request was told is done survives a crash of the process and of the machine: the write-ahead log is synced
(``synchronous=FULL``) before any answer. Because a sync costs milliseconds, all writes that wait at that moment share
one transaction, each in a savepoint of its own, so one that fails takes no other with it.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, Table, create_engine, event, insert, inspect, text
from sqlalchemy.exc import DBAPIError

from ..errors import ToolError

T = TypeVar("T")

FILE = "sekisho.db"
ARTIFACTS = "artifacts"
LOCK = "lock"
MAX_BATCH = 200
"""Writes that share one transaction at most."""
MAX_WAITING = 4000
"""Writes that may wait; more are answered with 503."""
READERS = 4
BUSY_SECONDS = 10

MIGRATIONS = Path(__file__).parent / "migrations"


class Busy(Exception):
    """Too many writes wait already."""


def milliseconds() -> int:
    """The time since 1970 in milliseconds."""
    return time.time_ns() // 1_000_000


@dataclass
class Tx:
    """One write in progress: the connection, the time it counts as (ms), and the devices whose view it changes."""

    conn: Connection
    now: int
    touched: set[int] = field(default_factory=set)
    """Ids of targets whose next poll may be answered differently."""

    def add(self, table: Table, **values: Any) -> int:
        """Insert a row and return its id. Raises IntegrityError."""
        key = self.conn.execute(insert(table).values(**values)).inserted_primary_key
        assert key is not None
        return int(key[0])


Job = Callable[[Tx], Any]


def _connect(path: Path, writer: bool) -> Engine:
    engine = create_engine(
        f"sqlite:///{path}",
        connect_args={"timeout": BUSY_SECONDS, "check_same_thread": False},
        pool_size=1 if writer else READERS,
        max_overflow=0,
    )

    @event.listens_for(engine, "connect")
    def _set_up(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # we say BEGIN ourselves (pysqlite's own way breaks savepoints)
        for pragma in (
            *(("journal_mode=WAL", "synchronous=FULL") if writer else ("query_only=1",)),
            *("foreign_keys=1", "cache_size=-8192", "trusted_schema=0"),
        ):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writer else "BEGIN")

    return engine


def _revision(engine: Engine) -> str | None:
    """The migration that the database has had last."""
    with engine.connect() as connection:
        if not inspect(connection).has_table("alembic_version"):
            return None
        return str(connection.scalar(text("SELECT version_num FROM alembic_version")))


def migrate(engine: Engine) -> None:
    """Bring the tables up to date. Raises ToolError DATABASE for a file of a newer Sekisho, or one that is damaged."""
    known = sorted(path.stem.split("_")[0] for path in (MIGRATIONS / "versions").glob("[0-9]*.py"))
    try:
        now = _revision(engine)
        if now == known[-1]:
            return
        if now is not None and now not in known:
            raise ToolError(
                "DATABASE", "The data directory was written by a newer Sekisho; use that version, or restore a backup."
            )
        # Only now: the server of an up-to-date database does without Alembic in its memory.
        from alembic import command
        from alembic.config import Config

        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
        with engine.begin() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    except (DBAPIError, sqlite3.Error) as error:
        words = str(getattr(error, "orig", None) or error)
        raise ToolError("DATABASE", f"The database cannot be opened ({words}); restore a backup.") from error


class Store:
    """The data directory *path*: ``sekisho.db`` and the artifacts. ``clock`` gives ms since 1970.

    Raises ToolError FILE when the directory cannot be made, DATABASE when it cannot be used, DATA_IN_USE when another
    server has it (*exclusive*).
    """

    def __init__(
        self, path: Path, clock: Callable[[], int] = milliseconds, exclusive: bool = True, create: bool = True
    ) -> None:
        self.path = path
        self.clock = clock
        if not create and not (path / FILE).exists():
            raise ToolError("FILE", f"{path} holds no server data; start one with `sekisho serve --data {path}`.")
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            (path / ARTIFACTS).mkdir(mode=0o700, exist_ok=True)
            self._lock = os.open(path / LOCK, os.O_CREAT | os.O_RDWR, 0o600)
            file = path / FILE
            if not file.exists():
                os.close(os.open(file, os.O_CREAT | os.O_RDWR, 0o600))
        except OSError as error:
            raise ToolError("FILE", f"Cannot use {path}: {(error.strerror or str(error)).lower()}.") from error
        if exclusive:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                os.close(self._lock)
                raise ToolError("DATA_IN_USE", f"Another server uses {path}; stop it first.") from error
        self._writer = _connect(file, writer=True)
        migrate(self._writer)
        self._reader = _connect(file, writer=False)
        self._pool = ThreadPoolExecutor(READERS, "sekisho-read")
        self._jobs: queue.Queue[tuple[Job, Future[Any]] | None] = queue.Queue()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="sekisho-write", daemon=True)
        self._thread.start()
        self.listeners: list[Callable[[set[int]], None]] = []
        """Called in the writing thread after each commit with the targets it touched."""
        self.commits = 0
        self.writes = 0

    # -- writing ---------------------------------------------------------------------------------
    def submit(self, job: Callable[[Tx], T]) -> Future[T]:
        """Queue *job*; the future has its result once it is on disk. Raises Busy."""
        future: Future[T] = Future()
        if self._closed or self._jobs.qsize() >= MAX_WAITING:
            raise Busy
        self._jobs.put((job, future))
        return future

    def call(self, job: Callable[[Tx], T]) -> T:
        """Run *job* and wait until its result is on disk (for commands and tests)."""
        return self.submit(job).result()

    async def write(self, job: Callable[[Tx], T]) -> T:
        """Run *job* in the writing thread; returns once its result is on disk. Raises what *job* raises, and Busy."""
        # Shielded: a client that hangs up must not turn a write that is under way into an unknown one.
        return await asyncio.shield(asyncio.wrap_future(self.submit(job)))

    def _take(self) -> list[tuple[Job, Future[Any]]] | None:
        first = self._jobs.get()
        if first is None:
            return None
        batch = [first]
        while len(batch) < MAX_BATCH:
            try:
                item = self._jobs.get_nowait()
            except queue.Empty:
                break
            if item is None:
                self._jobs.put(None)
                break
            batch.append(item)
        return batch

    def _work(self) -> None:
        while (batch := self._take()) is not None:
            done: list[tuple[Future[Any], Any, BaseException | None]] = []
            touched: set[int] = set()
            try:
                with self._writer.begin() as connection:
                    for job, future in batch:
                        done.append((future, *self._one(connection, job, touched)))
            except BaseException as error:
                for _, future in batch:
                    future.set_exception(error)
                continue
            self.commits += 1
            self.writes += len(batch)
            if touched:
                for listener in self.listeners:
                    listener(touched)
            for future, result, failure in done:
                if failure is not None:
                    future.set_exception(failure)
                else:
                    future.set_result(result)

    def _one(self, connection: Connection, job: Job, touched: set[int]) -> tuple[Any, BaseException | None]:
        tx = Tx(connection, self.clock())
        savepoint = connection.begin_nested()
        try:
            result = job(tx)
        except Exception as error:
            savepoint.rollback()
            return None, error
        savepoint.commit()
        touched |= tx.touched
        return result, None

    # -- reading ---------------------------------------------------------------------------------
    def look(self, job: Callable[[Connection], T]) -> T:
        """Run *job* on a reading connection, in this thread."""
        with self._reader.connect() as connection:
            return job(connection)

    async def read(self, job: Callable[[Connection], T]) -> T:
        """Run *job* on a reading connection, in a thread of its own; it sees everything that was acknowledged."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, partial(self.look, job))

    # -- the rest --------------------------------------------------------------------------------
    def artifact(self, sha256: str) -> Path:
        """Where the bytes of an artifact lie."""
        return self.path / ARTIFACTS / sha256

    def alive(self) -> bool:
        """Whether writes are still being done."""
        return self._thread.is_alive() and not self._closed

    def waiting(self) -> int:
        """Writes that wait."""
        return self._jobs.qsize()

    def close(self) -> None:
        """Do what was accepted, then let go of the files."""
        if self._closed:
            return
        self._closed = True
        self._jobs.put(None)
        self._thread.join()
        self._pool.shutdown()
        self._reader.dispose()
        self._writer.dispose()
        os.close(self._lock)

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
