"""What the server keeps: migrations, group commit, locks, backup, options, filters, windows."""

from __future__ import annotations

import sqlite3
import threading
from datetime import UTC, datetime

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sekisho_tools.errors import ToolError
from sekisho_tools.server import backups, operators, options, query, tables, windows
from sekisho_tools.server.errors import Problem
from sekisho_tools.server.limits import Buckets
from sekisho_tools.server.store import FILE, Store
from server_fixtures import PASSWORD, running
from sqlalchemy import insert, select


def note(tx, who: str) -> int:
    return tx.add(tables.audit, at=tx.now, who=who, what="test", detail={})


def names(store: Store) -> list[str]:
    return store.look(lambda conn: list(conn.scalars(select(tables.audit.c.who).order_by(tables.audit.c.id))))


def test_the_migrations_make_the_tables_that_the_code_means(tmp_path):
    with Store(tmp_path) as store:
        differences = store.look(lambda conn: compare_metadata(MigrationContext.configure(conn), tables.metadata))
    assert differences == []


def test_a_fleet_of_an_older_sekisho_goes_on_with_its_devices(tmp_path):
    with running(tmp_path) as site:
        device = site.device("old-timer")
        device.poll()
    with sqlite3.connect(tmp_path / FILE) as raw:  # as the first version left it
        raw.executescript(
            "DROP TABLE device_order; DROP TABLE retired; UPDATE alembic_version SET version_num = '0001'; "
            "DELETE FROM operator;"
        )
    raw.close()
    with running(tmp_path) as site:
        device.site = site
        assert device.poll()
        site.api.call("POST", "/targets/old-timer/decommission", {"why": "old"})
        assert device.ask("").status == 401


def test_a_database_of_a_newer_sekisho_is_refused(tmp_path):
    Store(tmp_path).close()
    with sqlite3.connect(tmp_path / FILE) as raw:
        raw.execute("UPDATE alembic_version SET version_num = '9999'")
    raw.close()
    with pytest.raises(ToolError) as caught:
        Store(tmp_path)
    assert caught.value.code == "DATABASE"


def test_a_damaged_database_is_one_clear_sentence(tmp_path):
    Store(tmp_path).close()
    (tmp_path / FILE).write_bytes(b"this is no database, not at all" * 1000)
    with pytest.raises(ToolError) as caught:
        Store(tmp_path)
    assert caught.value.code == "DATABASE"


def test_two_servers_cannot_have_the_same_data(tmp_path):
    with Store(tmp_path):
        with pytest.raises(ToolError) as caught:
            Store(tmp_path)
        assert caught.value.code == "DATA_IN_USE"
        Store(tmp_path, exclusive=False).close()  # commands may, while it runs


def test_only_the_owner_may_read_the_data(tmp_path):
    path = tmp_path / "fleet"
    Store(path).close()
    assert path.stat().st_mode & 0o077 == 0
    assert (path / FILE).stat().st_mode & 0o077 == 0


def test_a_write_that_fails_takes_no_other_with_it(tmp_path):
    with Store(tmp_path) as store:
        gate = threading.Event()
        held = store.submit(lambda _tx: gate.wait(10))

        def bad(tx):
            note(tx, "bad")
            raise ValueError("no")

        futures = [
            store.submit(lambda tx: note(tx, "first")),
            store.submit(bad),
            store.submit(lambda tx: note(tx, "last")),
        ]
        gate.set()
        assert held.result(10)
        assert futures[0].result(10) < futures[2].result(10)
        with pytest.raises(ValueError, match="no"):
            futures[1].result(10)
        assert names(store) == ["first", "last"]


def test_writes_that_wait_share_one_commit(tmp_path):
    with Store(tmp_path) as store:
        gate = threading.Event()
        store.submit(lambda _tx: gate.wait(10))
        futures = [store.submit(lambda tx, n=n: note(tx, str(n))) for n in range(100)]
        before = store.commits
        gate.set()
        for future in futures:
            future.result(10)
        assert store.commits - before <= 3
        assert names(store) == [str(n) for n in range(100)]


def test_closing_does_what_was_accepted(tmp_path):
    store = Store(tmp_path)
    futures = [store.submit(lambda tx, n=n: note(tx, str(n))) for n in range(50)]
    store.close()
    assert all(future.done() for future in futures)
    with Store(tmp_path) as again:
        assert len(names(again)) == 50


def test_a_reader_cannot_write(tmp_path):
    with Store(tmp_path) as store, pytest.raises(Exception, match="readonly"):
        store.look(lambda conn: conn.execute(insert(tables.setting).values(key="a", value=1)))


# -- backup -------------------------------------------------------------------------------------------------------


def test_a_backup_made_while_the_server_runs_is_a_whole_server(tmp_path):
    with running(tmp_path / "data") as site:
        device = site.device("kept")
        number = site.assign(device, site.release(b"content of the release"))
        backups.copy(tmp_path / "data", tmp_path / "copy")
        assert device.feedback(number) == 200
    store = Store(tmp_path / "copy")
    assert [row["name"] for row in store.look(operators.everybody)] == ["admin", "op", "view"]
    status = store.look(lambda conn: conn.scalar(select(tables.action.c.status)))
    sha256 = store.look(lambda conn: conn.scalar(select(tables.artifact.c.sha256)))
    assert (status, store.artifact(sha256).read_bytes()) == ("running", b"content of the release")
    store.close()
    with pytest.raises(ToolError):
        backups.copy(tmp_path / "data", tmp_path / "copy")


# -- options ------------------------------------------------------------------------------------------------------


def test_options_are_read(tmp_path):
    (tmp_path / "server.toml").write_text(
        'url = "https://u.example.com"\n[limits]\ndevice = 2\n[mail]\nhost = "m"\nsender = "a@b"\nto = ["c@d"]\n'
    )
    found = options.load(tmp_path)
    assert (found.url, found.limits.device, found.mail.to) == ("https://u.example.com", 2, ("c@d",))


@pytest.mark.parametrize(
    "text",
    [
        "nonsense",
        "[limits]\ndevices = 2",
        "limits = 2",
        '[limits]\ndevice = "2"',
        "[limits]\ndevice = -1",
        'url = "ftp://x"',
        'url = "https://x/"',
        '[mail]\nsecurity = "maybe"',
        '[mail]\nhost = "x"',
        "[webhook]\nurl = 5",
        "proxies = 5",
        "limits = true",
        "[limits]\ndevice = true",
    ],
)
def test_wrong_options_are_named(tmp_path, text):
    (tmp_path / "server.toml").write_text(text)
    with pytest.raises(ToolError) as caught:
        options.load(tmp_path)
    assert caught.value.code == "OPTIONS"


# -- limits, filters, windows, passwords --------------------------------------------------------------------------


@pytest.mark.requirement("UPD06")
def test_a_bucket_fills_at_its_rate():
    now = [0.0]
    bucket = Buckets(2, 3, clock=lambda: now[0])
    assert [bucket.take("a") for _ in range(3)] == [0, 0, 0]
    assert bucket.take("a") == 0.5
    assert bucket.take("b") == 0
    now[0] = 0.5
    assert bucket.take("a") == 0
    assert bucket.take("a") > 0
    now[0] = -100  # a clock that jumps back gives nobody anything
    assert bucket.take("a") > 0


def test_a_bucket_remembers_a_bounded_number_of_senders():
    bucket = Buckets(1, 1, senders=100)
    for number in range(1000):
        bucket.take(str(number))
    assert len(bucket._level) == 100


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("name==a*", {"a1", "a2"}),
        ("name==A1", {"a1"}),
        ("name==a1,name==b1", {"a1", "b1"}),
        ("name==a1 or name==b1", {"a1", "b1"}),
        ("name==a*;attribute.chip==esp32", {"a1"}),
        ("name==a* and not==x", None),
        (
            "(name==a1,name==a2);attribute.chip!=esp32",
            {
                "a2",
            },
        ),
        ("attribute.chip!=esp32", {"a2", "b1"}),
        ("name=in=(a1,b1)", {"a1", "b1"}),
        ("name=out=(a1,b1)", {"a2"}),
        ("controllerid=='a1'", {"a1"}),
        ('name=="a 1"', set()),
        ("name==%", set()),
        ("name==a_", set()),
        ("updatestatus==unknown", {"a1", "a2", "b1"}),
        ("createdat=gt=5", {"a1", "a2", "b1"}),
        ("createdat<5", set()),
        ("createdat==x", None),
        ("metadata.room==x", set()),
        ("name=='a1' or 1==1", None),
        ("name==a1; DROP TABLE target", None),
        ("name", None),
        ("name==", None),
        ("==x", None),
        ("(name==a1", None),
        ("name==a1)", None),
        ("password==x", None),
        ("attribute==x", None),
        ("name.x==y", None),
        ("", None),
        ("(" * 300 + "name==a" + ")" * 300, None),
        ("name==a1," * 60 + "name==a1", None),
        ("name==" + "x" * 2000, None),
    ],
)
def test_filters_find_what_hawkbits_would(tmp_path, text, found):
    with Store(tmp_path) as store:

        def fill(tx):
            for name in ("a1", "a2", "b1"):
                from sekisho_tools.server import targets

                number = targets.add(tx, "test", name)
                if name != "b1":
                    targets.put_attributes(tx, number, "merge", {"chip": "esp32" if name == "a1" else "esp32s3"})

        store.call(fill)
        wanted = tables.target.c.controller_id
        if found is None:
            with pytest.raises(Problem) as caught:
                store.look(lambda conn: conn.scalars(select(wanted).where(query.targets(text))).all())
            assert caught.value.status == 400
        else:
            assert set(store.look(lambda conn: conn.scalars(select(wanted).where(query.targets(text))).all())) == found


@pytest.mark.parametrize(
    ("schedule", "after", "begins"),
    [
        ("0 15 10 * * ? *", "2027-01-15 08:00:00", "2027-01-15 10:15:00"),
        ("0 15 10 * * ? *", "2027-01-15 10:15:00", "2027-01-16 10:15:00"),
        ("0 0/20 1 * * ?", "2027-01-15 01:20:00", "2027-01-15 01:40:00"),
        ("0 0 2 ? * SUN", "2027-01-15 00:00:00", "2027-01-17 02:00:00"),
        ("0 0 2 ? * MON-FRI", "2027-01-16 00:00:00", "2027-01-18 02:00:00"),
        ("0 0 0 29 FEB ?", "2027-01-01 00:00:00", "2028-02-29 00:00:00"),
        ("30 5 4 1,15 * ? 2027", "2027-01-02 00:00:00", "2027-01-15 04:05:30"),
        ("0 0 0 1 1 ? 2027", "2027-06-01 00:00:00", None),
    ],
)
def test_windows_begin_when_quartz_says(schedule, after, begins):
    window = windows.read(schedule, "01:00:00", "+00:00")
    found = window.begins_after(datetime.fromisoformat(after).replace(tzinfo=UTC))
    assert found == (datetime.fromisoformat(begins).replace(tzinfo=UTC) if begins else None)


@pytest.mark.requirement("STS15")
@pytest.mark.parametrize("password", ["short", "aaaaaaaaaaaaaa", "my-password-2026", "alice and the rabbit", "x" * 200])
def test_weak_passwords_are_refused(tmp_path, password):
    with Store(tmp_path) as store:
        with pytest.raises(ToolError) as caught:
            operators.create(store, "alice", password, "admin")
        assert caught.value.code == "PASSWORD"
        assert store.look(operators.everybody) == []
        operators.create(store, "alice", PASSWORD, "admin")
        stored = store.look(lambda conn: conn.scalar(select(tables.operator.c.password)))
        assert stored.startswith("$argon2id$")
