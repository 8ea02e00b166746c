"""The event log: chained, bounded, cut-safe, sent to a log server, checked at the desk."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import device_sockets
import pytest
from helpers import powercut
from helpers.claims import both, check
from helpers.cli import Runner
from helpers.site import Product
from sekisho import eventlog, syslog, values
from sekisho_tools import events
from sekisho_tools.errors import ToolError

DEVICE = UUID(bytes=bytes(range(16)))


@pytest.mark.requirement("SSS04")
@both
def test_the_log_as_the_device_keeps_it(run: Callable[..., str], tmp_path: Path) -> None:
    check(run, "eventlog_cases", str(tmp_path))


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> eventlog.Log:
    monkeypatch.setattr(eventlog, "PATH", str(tmp_path / "events"))
    monkeypatch.setattr(syslog, "_SENT", str(tmp_path / "sent"))
    monkeypatch.setattr(values, "KEPT", str(tmp_path / "settings"))
    made = eventlog.Log(DEVICE.bytes, lambda: (1767265200, 1))
    for number in range(200):
        made.append(eventlog.SETTINGS if number % 3 else eventlog.INSTALLED, 0, number)
    return made


def test_the_desk_reads_a_whole_export(log: eventlog.Log) -> None:
    found = events.verify(log.export(), DEVICE, (log.number, log.hash))
    assert [one.number for one in found] == list(range(1, 201))
    assert {one.event for one in found} == {"SETTINGS", "INSTALLED"}


@pytest.mark.requirement("SSS04")
def test_the_desk_finds_every_change(log: eventlog.Log) -> None:
    data = log.export()
    blocks = [data[at : at + 64] for at in range(0, len(data), 64)]

    def wrong(changed: list[bytes], head: tuple[int, bytes] | None = None) -> None:
        with pytest.raises(ToolError, match=r"ntr|log"):
            events.verify(b"".join(changed), DEVICE, head)

    for at in (1, 2, 50, 128, 130, 150):
        wrong(blocks[:at] + blocks[at + 1 :])  # removed
        wrong(blocks[:at] + [blocks[at + 1], blocks[at]] + blocks[at + 2 :])  # moved
        wrong(blocks[:at] + [blocks[at], blocks[at]] + blocks[at + 1 :])  # doubled
        for byte in (0, 5, 9, 20, 40):
            changed = bytearray(blocks[at])
            changed[byte] ^= 1
            wrong(blocks[:at] + [bytes(changed)] + blocks[at + 1 :])
    wrong(blocks[:-1], (log.number, log.hash))  # the end cut off
    wrong(blocks, (log.number, bytes(32)))
    wrong([blocks[0][:-1]])
    wrong([b"x" * 64])
    forged = bytearray(blocks[2][:32])
    forged[8] ^= 1  # changed and chained again: only the signed head shows it
    rest = [blocks[0], blocks[1]]
    before = blocks[1][32:]
    for body in [bytes(forged), *(block[:32] for block in blocks[3:129])]:
        before = eventlog.chain(before, body)
        rest.append(body + before)
    assert events.verify(b"".join(rest))
    wrong(rest, (log.number, log.hash))
    with pytest.raises(ToolError, match="not the log of device"):
        events.verify(data, UUID(int=1))


@pytest.fixture
def sekisho(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Runner:
    return Runner(capsys, monkeypatch)


def test_the_command_shows_a_log_and_its_head(log: eventlog.Log, sekisho: Runner, tmp_path: Path) -> None:
    file = tmp_path / "lamp.events"
    file.write_bytes(log.export())
    head = f"{log.number}:{log.hash.hex()}"
    assert head in sekisho(f"events verify {file}").out
    assert sekisho(f"events verify {file} --device {DEVICE} --head {head}").code == 0
    assert sekisho(f"events verify {file} --head 200:00").error == "LOG"
    assert sekisho(f"events verify {file} --head what").error == "LOG"


@pytest.mark.requirement("SSS04")
def test_log_verify_knows_an_event_log_and_finds_what_was_removed_changed_or_moved(
    log: eventlog.Log, sekisho: Runner, tmp_path: Path
) -> None:
    file, data = tmp_path / "lamp.log", log.export()
    head = f"{log.number}:{log.hash.hex()}"
    blocks = [data[at : at + 64] for at in range(0, len(data), 64)]
    changed = bytearray(data)
    changed[64 * 5 + 20] ^= 1
    file.write_bytes(data)
    assert head in sekisho(f"log verify {file} --device {DEVICE} --head {head}").out
    assert sekisho(f"log verify {file} --device {UUID(int=1)}").error == "LOG"
    for wrong in (b"".join(blocks[:7] + blocks[8:]), bytes(changed), b"".join([*blocks[:7], blocks[8], blocks[7]])):
        file.write_bytes(wrong)
        assert sekisho(f"log verify {file}").error == "LOG"
    file.write_bytes(b"".join(blocks[:-1]))
    assert sekisho(f"log verify {file}").code == 0, "only a head shows that the end was cut off"
    assert sekisho(f"log verify {file} --head {head}").error == "LOG"
    assert "ORDER_REFUSED" in sekisho("events list").out
    assert set(events.catalogue()) == set(range(1, 28))


def serve(kind: int) -> tuple[socket.socket, int]:
    server = socket.socket(socket.AF_INET, kind)
    server.bind(("127.0.0.1", 0))
    server.settimeout(10)
    return server, server.getsockname()[1]


@pytest.mark.requirement("SSS05", "UPE07")
def test_a_log_server_gets_each_entry_once_and_update_events_as_the_settings_say(log: eventlog.Log) -> None:
    device_sockets.install()
    server, port = serve(socket.SOCK_DGRAM)
    settings = values.Settings()
    settings.change({"syslog": f"udp://127.0.0.1:{port}"}, values.ORDER)
    with server:
        assert asyncio.run(syslog.forward(log, settings, "lamp")) == 133
        lines = [server.recv(2048).decode() for _ in range(133)]
        assert all(" SETTINGS " in line for line in lines)
        assert asyncio.run(syslog.forward(log, settings, "lamp")) == 0
        settings.change({"notify": ["installed"], "notify_to": ["syslog"]}, values.ORDER)
        log.append(eventlog.INSTALLED, 0, 9)
        log.append(eventlog.FAILED, 193, 10)
        assert asyncio.run(syslog.forward(log, settings, "lamp")) == 1
        assert "INSTALLED" in server.recv(2048).decode()


def test_over_tcp_messages_are_counted_and_a_dead_server_leaves_them_for_later(log: eventlog.Log) -> None:
    device_sockets.install()
    server, port = serve(socket.SOCK_STREAM)
    server.listen()
    got: list[bytes] = []

    def take() -> None:
        connection, _ = server.accept()
        with connection:
            while data := connection.recv(4096):
                got.append(data)

    taker = threading.Thread(target=take)
    taker.start()
    settings = values.Settings()
    settings.change({"syslog": f"tcp://127.0.0.1:{port}"}, values.ORDER)
    assert asyncio.run(syslog.forward(log, settings, "lamp")) == 133
    taker.join(10)
    server.close()
    data, count = b"".join(got), 0
    while data:
        size, _, data = data.partition(b" ")
        assert data[:5] == b"<109>"
        data = data[int(size) :]
        count += 1
    assert count == 133
    log.append(eventlog.DEGRADED, 21)
    with pytest.raises(Exception, match=str(140)):
        asyncio.run(syslog.forward(log, settings, "lamp"))
    assert syslog.sent() == 200


APPEND = """
import sekisho
from sekisho import eventlog
log = eventlog.Log(bytes(16), lambda: (1767265200, 1))
print("had", log.number)
for value in range({count}):
    log.append(eventlog.SETTINGS, 0, value)
before = None
for entry in log.entries():
    if before is not None and eventlog.chain(before, entry[:32]) != entry[32:]:
        print("broken")
    before = entry[32:]
print("has", log.number, before == log.hash)
"""


def test_a_cut_at_any_flash_state_loses_at_most_the_entry_being_written(tmp_path: Path) -> None:
    """The file is full in the middle of it, so the change to the other one is cut as well."""
    product = Product(tmp_path, server="http://old")
    full = APPEND.format(count=eventlog.ENTRIES - 2)
    seen = set()
    for name, console in powercut.consoles(product, APPEND.format(count=4), of=100, before=full):
        had = int(console.split()[1])
        assert eventlog.ENTRIES - 2 <= had <= eventlog.ENTRIES + 2, name
        assert console.endswith(f"has {had + 4} True\n"), (name, console)
        assert "broken" not in console
        seen.add(had)
    assert len(seen) >= 4
