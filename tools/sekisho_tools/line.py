"""The computer's end of the serial line to a device (`sekisho.line`): orders, key sets, releases, and reports back.

A device answers each frame; one that stays without an answer is sent again, which does no harm.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self
from uuid import UUID

from . import device_code, strict_cbor
from .errors import ToolError

assert device_code
from sekisho import line as device  # noqa: E402
from sekisho_boot import reasons  # noqa: E402

BAUD = 115_200
TRIES = 6
PATIENCE = 3.0
"""Seconds after which a frame is sent again."""
LONG = 120.0
"""Seconds that a device may take for what it has to verify: a signature, or a whole image in flash."""


class Port(Protocol):
    """What is needed of `serial.Serial`."""

    timeout: float | None

    def write(self, data: bytes) -> int | None:
        """Send bytes."""

    def read(self, size: int = 1) -> bytes:
        """At most *size* bytes; fewer after the timeout."""

    def close(self) -> None:
        """Give the port back."""


def open_port(name: str, baud: int = BAUD) -> Port:
    """A serial port (`/dev/ttyUSB0`, `COM3`, or a URL of pyserial's). ToolError PORT."""
    import serial  # type: ignore[import-untyped]

    try:
        found: Port = serial.serial_for_url(name, baudrate=baud, timeout=0.2, write_timeout=10)
    except (serial.SerialException, ValueError, OSError) as error:
        raise ToolError("PORT", f"The port {name} cannot be opened: {error}.") from error
    return found


@dataclass(frozen=True)
class Hello:
    """What a device says of itself: id, nonce for an order (0: none was drawn), version of its key set."""

    device: UUID
    nonce: int
    keyset: int


@dataclass(frozen=True)
class Wanted:
    """A payload that a device wants: component, SHA-256 and size of the file."""

    component: int
    digest: bytes
    size: int


class Line:
    """A conversation with one device. *echo* gets the lines that it prints besides."""

    def __init__(self, port: Port, echo: Callable[[str], None] | None = None) -> None:
        self._port = port
        self._echo = echo
        self._number = 0
        self._buffer = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._port.close()

    # -- frames ------------------------------------------------------------------------------------

    def _line(self, deadline: float) -> bytes | None:
        while b"\n" not in self._buffer:
            if time.monotonic() > deadline:
                return None
            self._buffer = (self._buffer + self._port.read(256))[-65536:]
        line, self._buffer = self._buffer.split(b"\n", 1)
        return line.rstrip(b"\r")

    def ask(self, kind: int, data: bytes = b"", patience: float = PATIENCE) -> bytes:
        """Send one frame; the data of its answer. ToolError with the device's reason code, or PORT for silence."""
        self._number = (self._number + 1) % 256
        frame = device.frame(kind, self._number, data)
        for _ in range(TRIES):
            try:
                self._port.write(b"\n" + frame)
            except OSError as error:
                raise ToolError("PORT", f"The line broke: {error}.") from error
            deadline = time.monotonic() + patience
            while (line := self._line(deadline)) is not None:
                found: tuple[int, int, bytes] | None = device.unframe(line)  # type: ignore[no-untyped-call]
                if found is None:
                    if self._echo and line and not line.startswith(b"$"):
                        self._echo(line.decode(errors="replace"))
                elif found[:2] == (kind | device.ANSWER, self._number) and found[2]:
                    if found[2][0]:
                        name = reasons.name(found[2][0])
                        raise ToolError(name, f"The device refused: {name}.")
                    return found[2][1:]
        raise ToolError(
            "PORT", "The device does not answer; is the interface `serial` open, and no other program at the port?"
        )

    def _send(self, data: bytes, progress: Callable[[int], None] | None = None) -> None:
        for at in range(0, len(data), device.MAX_DATA):
            self.ask(device.DATA, data[at : at + device.MAX_DATA])
            if progress:
                progress(min(at + device.MAX_DATA, len(data)))

    def _document(self, kind: int, content: bytes) -> bytes:
        self.ask(device.OPEN, bytes((kind,)) + len(content).to_bytes(4, "big"))
        self._send(content)
        return self.ask(device.CLOSE, patience=LONG)

    # -- what can be asked ---------------------------------------------------------------------------

    def hello(self) -> Hello:
        """Begin. ToolError PORT where nobody answers, PROTOCOL where it is another version."""
        told = strict_cbor.loads(self.ask(device.HELLO))
        if not isinstance(told, (list, tuple)) or len(told) != 4 or told[0] != device.VERSION:
            raise ToolError("PROTOCOL", "The device speaks another version of the serial line.")
        return Hello(UUID(bytes=told[1]), told[2], told[3])

    def nonce(self) -> int:
        """The number that an order to this device may carry, once."""
        return int.from_bytes(self.ask(device.NONCE), "big")

    def order(self, document: bytes) -> None:
        """Give an order. ToolError with the reason where it was refused, ORDER_FAILED where it could not be done."""
        answer = self._document(device.ORDER, document)
        if answer:
            name = reasons.name(answer[1])
            raise ToolError("ORDER_FAILED", f"The order was accepted, and could not be done: {name}.")

    def keyset(self, document: bytes) -> int:
        """Give a key set; the version of the newest that the device has."""
        return int.from_bytes(self._document(device.KEYSET, document), "big")

    def envelope(self, document: bytes) -> list[Wanted]:
        """Offer a release; what the device wants to be brought."""
        answer = strict_cbor.loads(self._document(device.ENVELOPE, document))
        return [Wanted(*one) for one in answer]

    def payload(self, wanted: Wanted, content: bytes, progress: Callable[[int], None] | None = None) -> None:
        """Bring one payload, from where the device has it already."""
        offset = int.from_bytes(self.ask(device.PAYLOAD, bytes((wanted.component,)), LONG), "big")
        self._send(content[offset:], progress and (lambda sent: progress(offset + sent)))

    def stage(self) -> None:
        """All payloads were brought: the device verifies them and restarts into the update."""
        self.ask(device.STAGE, patience=LONG)

    def read(self, what: int, seconds: float = 60.0) -> bytes:
        """The report or the event log, after an order of this line that asked for a report."""
        until = time.monotonic() + seconds
        content = b""
        while True:
            try:
                piece = self.ask(device.READ, bytes((what,)) + len(content).to_bytes(4, "big"))
            except ToolError as error:
                if error.code != "RETRY_LATER" or time.monotonic() > until:
                    raise
                time.sleep(1)
                continue
            if not piece:
                return content
            content += piece


def release(
    line: Line, envelope: bytes, payloads: Iterable[Path], progress: Callable[[int], None] | None = None
) -> int:
    """Bring a whole release; returns the bytes of its payloads. ToolError PAYLOAD where one is not among the files."""
    import hashlib

    wanted = line.envelope(envelope)
    files: Mapping[bytes, bytes] = {hashlib.sha256(data).digest(): data for data in (p.read_bytes() for p in payloads)}
    for one in wanted:
        if one.digest not in files or len(files[one.digest]) != one.size:
            raise ToolError("PAYLOAD", f"The device wants the file with SHA-256 {one.digest.hex()}; give it, too.")
    for one in wanted:
        line.payload(one, files[one.digest], progress)
    line.stage()
    return sum(one.size for one in wanted)


__all__ = ["BAUD", "Hello", "Line", "Port", "Wanted", "device", "open_port", "release"]
