"""The serial line: frames, a release and orders through it, on a pseudo terminal and into the simulated device."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import re
import select
import socket
import threading
import tty
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import release, site
from helpers.cli import Runner
from helpers.desk import CLASS, VENDOR
from helpers.keys import ISSUED, YEAR, make_keyset, signer
from helpers.site import Product, consoles
from sekisho import interfaces, line, orders, values
from sekisho_boot.ledger import READY
from sekisho_sim.device import Limits, power_cycle
from sekisho_tools import cose, events, imagefile
from sekisho_tools import line as desk
from sekisho_tools import report as desk_report
from sekisho_tools.errors import ToolError
from test_door import NEW, UPDATE, Device, _folder, device

assert _folder
assert device


def test_a_frame_survives_and_nothing_else_does() -> None:
    for data in (b"", b"\x00", bytes(range(168))):
        sent = line.frame(7, 200, data)
        assert len(sent) <= line.MAX_LINE + 1
        assert sent.count(b"\n") == 1
        assert line.unframe(sent[:-1]) == (7, 200, data)
        for at in range(len(sent) - 1):
            for bit in (1, 16):
                changed = bytearray(sent[:-1])
                changed[at] ^= bit
                assert line.unframe(bytes(changed)) is None
    for junk in (b"", b"$", b"hello", b"$AAAA", b"$" + b"A" * 240, b"$\xff", sent[:-5]):
        assert line.unframe(junk) is None


class Cable:
    """A device behind a pseudo terminal: `Line` answers in a thread, as it does on a chip under asyncio."""

    def __init__(self, device: Device) -> None:
        self.device = device
        master, self.slave = pty.openpty()
        tty.setraw(self.slave)
        self.name = os.ttyname(self.slave)
        self.master = os.fdopen(master, "r+b", 0)
        self.line = line.Line(device.door, self.master, self)
        self.loop = asyncio.new_event_loop()
        self.drop = 0  # answers to be lost
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def write(self, data: bytes) -> None:
        if self.drop:
            self.drop -= 1
            return
        self.master.write(b"what the application prints\n" + bytes(data))

    def _serve(self) -> None:
        self.task = self.loop.create_task(self.line.serve())
        with contextlib.suppress(asyncio.CancelledError):
            self.loop.run_until_complete(self.task)

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.task.cancel)
        self.thread.join(5)
        self.loop.close()
        self.master.close()
        os.close(self.slave)


@pytest.fixture
def cable(device: Device, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cable]:
    monkeypatch.setattr(desk, "PATIENCE", 0.5)
    made = Cable(device)
    yield made
    made.close()


def ask(cable: Cable) -> desk.Line:
    found = desk.Line(desk.open_port(cable.name))
    found.hello()
    return found


def code_of(call: Any, *arguments: Any) -> str:
    with pytest.raises(ToolError) as caught:
        call(*arguments)
    return caught.value.code


def test_orders_are_given_over_a_terminal_and_answered_by_name(cable: Cable) -> None:
    with ask(cable) as talk:
        document = cable.device.order("settings", _5={"poll": 600})
        talk.order(document)
        assert values.Settings().get("poll") == 600
        assert code_of(talk.order, document) == "ORDER_REPLAY"
        assert code_of(talk.order, cable.device.order("settings", 2, _5={"poll": 1})) == "ORDER_FAILED"
        assert code_of(talk.order, bytes(9000)) == "LIMIT"
        nonce = talk.nonce()
        assert nonce == cable.device.engine.state.nonce == talk.hello().nonce
        talk.order(cable.device.order("settings", _3=nonce, _6=None, _5={"poll": 700}))
        assert values.Settings().get("poll") == 700


def test_a_release_goes_over_a_terminal_with_frames_lost_and_doubled(cable: Cable, tmp_path: Path) -> None:
    payload = tmp_path / "payload.bin"
    payload.write_bytes(NEW)
    with ask(cable) as talk:
        assert code_of(desk.release, talk, UPDATE.envelope, []) == "PAYLOAD"
        wanted = talk.envelope(UPDATE.envelope)[0]
        talk.payload(desk.Wanted(wanted.component, wanted.digest, wanted.size), NEW[:9000])
        cable.drop = 1  # the answer is lost: the frame comes again and must not be written twice
        assert desk.release(talk, UPDATE.envelope, [payload]) == len(NEW)
    assert cable.device.phase() == READY
    cable.device.start()
    assert cable.device.engine.confirm() == 0


def test_what_cannot_be_is_answered_with_a_reason(cable: Cable) -> None:
    before = cable.device.desk.snapshot()
    with ask(cable) as talk:
        for kind, data, reason in (
            (line.DATA, b"x", "NOTHING"),
            (line.CLOSE, b"", "NOTHING"),
            (line.PAYLOAD, b"\x00", "NOTHING"),
            (line.STAGE, b"", "NOTHING"),
            (line.OPEN, b"\x01\x00\x00\x00\x00", "LIMIT"),
            (line.OPEN, b"\x09\x00\x00\x00\x01", "LIMIT"),
            (line.OPEN, b"\x03\x00\x10\x00\x00", "LIMIT"),
            (line.OPEN, b"", "PERMIT"),
            (99, b"", "PERMIT"),
            (line.READ, b"\x01\x00\x00\x00\x00", "KEY_RIGHTS"),
            (line.READ, b"\x02\x00\x00\x00\x00", "KEY_RIGHTS"),
        ):
            assert code_of(talk.ask, kind, data) == reason
        assert code_of(talk.envelope, release.make(2, {0: NEW}, vendor=VENDOR, product=bytes(16)).envelope) == "CLASS"
        assert code_of(talk.keyset, b"junk") in ("COSE", "KEYSET", "CBOR")
        talk.ask(line.OPEN, b"\x01\x00\x00\x00\x02")
        talk.ask(line.DATA, b"12")
        assert code_of(talk.ask, line.DATA, b"3") == "LIMIT"
        talk._port.write(b"\n" + b"x" * 5000 + b"\n$" + b"A" * 300 + b"\n")
        assert talk.hello().device.bytes == bytes(15) + b"\x07"
    assert cable.device.desk.snapshot() == before
    assert CLASS


def test_nobody_answers_is_said(tmp_path: Path) -> None:
    master, slave = pty.openpty()
    tty.setraw(slave)
    desk_line = desk.Line(desk.open_port(os.ttyname(slave)))
    desk.PATIENCE, kept = 0.05, desk.PATIENCE
    try:
        with pytest.raises(ToolError, match="does not answer"):
            desk_line.ask(line.HELLO, patience=0.05)
    finally:
        desk.PATIENCE = kept
    assert code_of(desk.open_port, str(tmp_path / "no-port")) == "PORT"
    os.close(master)
    os.close(slave)


@pytest.mark.requirement("STS11", "STS12")
def test_the_line_is_open_only_where_product_and_setting_say_so() -> None:
    assert "serial" not in interfaces.wanted(True, (), ["serial"])
    assert "serial" not in interfaces.wanted(True, ("serial",), [])
    assert interfaces.wanted(True, ("serial",), ["serial"]) == ["serial"]
    assert "serial" not in interfaces.wanted(False, ("serial",), [])
    assert "serial" in interfaces.wanted(False, (), ["serial"])


# -- into the simulated device -----------------------------------------------------------------------------------------

APPLICATION = """
import asyncio
import gc
import socket
import sekisho
async def main():
    from sekisho import wifi
    await wifi.up([["sekisho", "sekisho-lab"]])  # only for the socket that stands for the cable
    stream = socket.socket()
    stream.connect(socket.getaddrinfo("127.0.0.1", {port})[0][-1])
    try:
        sekisho.serial(stream)
        print("line open")
    except OSError as error:
        print("line", error)
    gc.collect()
    print("free", gc.mem_free())
"""


class Wire:
    """A pseudo terminal for the computer, whose other end the simulated device has as a socket."""

    def __init__(self) -> None:
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port = self.server.getsockname()[1]
        self.master, self.slave = pty.openpty()
        tty.setraw(self.slave)
        self.name = os.ttyname(self.slave)
        self.up = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                stream, _ = self.server.accept()
            except OSError:
                return
            self.up.set()
            threading.Thread(target=self._down, args=(stream,), daemon=True).start()
            self._up(stream)

    def _down(self, stream: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                if select.select([self.master], [], [], 1)[0]:
                    stream.sendall(os.read(self.master, 4096))
                elif stream.fileno() < 0:
                    return

    def _up(self, stream: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := stream.recv(4096):
                os.write(self.master, data)
        stream.close()

    def close(self) -> None:
        self.server.close()
        os.close(self.slave)
        os.close(self.master)


@pytest.mark.requirement("UPE01", "STS05", "SSS05")
def test_a_simulated_device_without_network_is_updated_and_ordered_over_its_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    product = Product(
        tmp_path, settings={"wifi": [], "server": "", "interfaces": ["serial"]}, keys=make_keyset(operators=1)
    )
    wire = Wire()
    product.personalities.default = product.personality(application=APPLICATION.format(port=wire.port))
    new = site.firmware("new", 12_000)
    product.personalities.images[imagefile.parse(new).digest.hex()] = product.personality("new")
    world = product.factory(site.firmware("old", 20_000))
    (tmp_path / "lamp.suit").write_bytes(product.release(2, new))
    (tmp_path / "lamp.bin").write_bytes(new)
    members = {1: orders.REPORT, 2: [1, product.device.classes[0]], 4: ISSUED + YEAR, 5: b"\x09", 6: 1}
    (tmp_path / "report.cose").write_bytes(cose.sign1(cose.encode(members), signer("operator"), attached=True))
    results: list[Any] = []
    limits = Limits(60, "sekisho: confirmed")
    running = threading.Thread(target=lambda: results.extend(power_cycle(world, limits=limits)))
    running.start()
    sekisho = Runner(capsys, monkeypatch)
    try:
        assert wire.up.wait(50)
        told = sekisho(f"order send {tmp_path}/report.cose --port {wire.name} --report {tmp_path}/r --log {tmp_path}/l")
        if told.code == 0:
            told = sekisho(f"update send {tmp_path}/lamp.suit {tmp_path}/lamp.bin --port {wire.name}")
        limits.stop = told.code != 0
    finally:
        running.join(100)
        wire.close()
    console = consoles(results)
    assert told.code == 0, (told, console)
    assert "sekisho: confirmed" in console
    assert int(re.findall(r"free (\d+)", console)[-1]) > 30_000
    assert desk_report.parse((tmp_path / "r").read_bytes()).ours
    assert events.verify((tmp_path / "l").read_bytes())
