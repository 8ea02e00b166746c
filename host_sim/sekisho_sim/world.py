"""Everything about one simulated device that outlives its Python: flash, eFuses, RTC domain, network.

A world is a directory:

* ``flash.bin`` - the flash chip, byte for byte, shared with the device process while it runs;
* ``efuse.bin`` - the eFuses as `espefuse --virt` keeps them;
* ``rtc.bin`` - what survives every reset but power-on: RTC memory, the clock, why the chip stopped;
* ``net.json`` - the one access point in reach, and what names resolve to;
* ``personalities.json`` (optional) - what Python each app image stands for;
* ``ops.bin`` - the flash operations of the last run.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from sekisho_tools.errors import ToolError
from sekisho_tools.files import read_file, write_atomic

from .bootloader import ROLLBACK, RTC_SIZE, Profile
from .efuse import Efuse
from .personality import Personalities

RTC_MEMORY = 2048
HEAP = 100 * 1024
"""Bytes of Python heap a device has; the chip's official build has 160 KB, its objects being half as large."""
MAC = bytes.fromhex("240ac4000001")


@dataclass
class Rtc:
    """The RTC domain. *stopped* is why the device stopped last (`device.CAUSES`), *clock* microseconds since 2000."""

    stopped: str = "power-off"
    clock: int = 0
    memory: bytes = b""
    boot: bytearray = field(default_factory=lambda: bytearray(RTC_SIZE))
    running: int = 0
    cause: int = 1
    watchdog: int = 0

    _HEAD = struct.Struct("<4s16sQHxxIII")

    def encode(self) -> bytes:
        """The content of an rtc.bin."""
        head = self._HEAD.pack(
            b"SRTC", self.stopped.encode(), self.clock, len(self.memory), self.running, self.cause, self.watchdog
        )
        return head + bytes(self.boot) + self.memory

    @classmethod
    def decode(cls, data: bytes) -> Rtc:
        """Read an rtc.bin; ToolError WORLD when it is none."""
        if len(data) < cls._HEAD.size + RTC_SIZE or not data.startswith(b"SRTC"):
            raise ToolError("WORLD", "rtc.bin is no RTC state of this simulator; delete it to start from power-off.")
        _, stopped, clock, length, running, cause, watchdog = cls._HEAD.unpack_from(data)
        at = cls._HEAD.size
        return cls(
            stopped.rstrip(b"\0").decode(),
            clock,
            data[at + RTC_SIZE : at + RTC_SIZE + length],
            bytearray(data[at : at + RTC_SIZE]),
            running,
            cause,
            watchdog,
        )


@dataclass
class Network:
    """The air: one access point (*ap* False: switched off) and the names it resolves, to loopback addresses only.

    *time* False takes the time server away.
    """

    ap: bool = True
    ssid: str = "sekisho"
    key: str = "sekisho-lab"
    connect_ms: int = 50
    ip: str = "192.168.4.2"
    hosts: Mapping[str, str] = field(default_factory=dict)
    time: bool = True

    def encode(self) -> bytes:
        """As the shim reads it (shims/_sim_layout.py, NET); ToolError WORLD when it does not fit."""
        names = [text for pair in self.hosts.items() for text in pair]
        strings = [text.encode() for text in (self.ssid, self.key, self.ip, *names)]
        data = struct.pack("<BH", self.ap, self.connect_ms)
        data += b"".join(bytes((len(text) + 1,)) + text for text in strings if len(text) < 255) + b"\0"
        if len(data) > 512 or any(len(text) > 254 for text in strings):
            raise ToolError("WORLD", "net.json is too long for the simulator; use fewer or shorter host names.")
        return data


class World:
    """One device. *directory* is made when it does not exist; *flash* may lie elsewhere.

    *heap* is the device's Python heap in bytes, *speed* how many of its seconds pass in one of the host's, *profile*
    how its bootloader was built, *personalities* what its app images stand for. A *volatile* world keeps everything but
    the flash in memory, for tests that run it many times.
    """

    def __init__(
        self,
        directory: Path,
        flash: Path | None = None,
        *,
        personalities: Personalities | None = None,
        profile: Profile = ROLLBACK,
        heap: int = HEAP,
        speed: int = 1,
        volatile: bool = False,
    ) -> None:
        self.directory = directory
        self.flash_path = flash or directory / "flash.bin"
        self.profile = profile
        self.heap = heap
        self.speed = speed
        self.volatile = volatile
        directory.mkdir(parents=True, exist_ok=True)
        size = self.flash_path.stat().st_size if self.flash_path.is_file() else -1
        if size < 0:
            read_file(self.flash_path, "flash image")  # says why
        if size < 1 << 16 or size % 4096:
            raise ToolError(
                "FLASH_IMAGE",
                f"{self.flash_path} has {size} bytes; a flash image is whole sectors of 4 KiB, 64 KiB or more.",
            )
        self.personalities = personalities or self._load_personalities()
        self.network = self._load_network()
        try:
            self.efuse = Efuse.open(directory / "efuse.bin")
        except ValueError as error:
            raise ToolError("EFUSE_FILE", f"{directory / 'efuse.bin'}: {error}.") from error
        if not any(self.efuse.fuses[0][1:3]):
            self.efuse.fuses[0][1] = int.from_bytes(MAC[2:], "big")
            self.efuse.fuses[0][2] = int.from_bytes(MAC[:2], "big")
            self.efuse = Efuse(self.efuse.encode())
        rtc = directory / "rtc.bin"
        self.rtc = Rtc.decode(rtc.read_bytes()) if rtc.exists() else Rtc()

    @classmethod
    def create(
        cls,
        directory: Path,
        flash: bytes | Path,
        *,
        personalities: Personalities | None = None,
        network: Network | None = None,
        profile: Profile = ROLLBACK,
        heap: int = HEAP,
        speed: int = 1,
        volatile: bool = False,
    ) -> World:
        """A new device in *directory* whose flash holds *flash* (bytes, or a file to copy), switched off."""
        directory.mkdir(parents=True, exist_ok=True)
        data = flash if isinstance(flash, bytes | bytearray) else read_file(flash, "flash image")
        (directory / "flash.bin").write_bytes(data)
        for name in ("rtc.bin", "efuse.bin", "ops.bin"):
            (directory / name).unlink(missing_ok=True)
        if network is not None:
            write_atomic(directory / "net.json", json.dumps(asdict(network), indent=1) + "\n")
        return cls(directory, personalities=personalities, profile=profile, heap=heap, speed=speed, volatile=volatile)

    def _load_personalities(self) -> Personalities:
        path = self.directory / "personalities.json"
        return Personalities.load(path) if path.exists() else Personalities()

    def _load_network(self) -> Network:
        path = self.directory / "net.json"
        if not path.exists():
            return Network()
        try:
            return Network(**json.loads(path.read_text()))
        except (ValueError, TypeError) as error:
            raise ToolError("WORLD", f"{path} does not describe a network: {error}.") from error

    @property
    def mac(self) -> bytes:
        """The factory MAC address in the eFuses, 6 bytes."""
        low, high = self.efuse.fuses[0][1:3]
        return (high & 0xFFFF).to_bytes(2, "big") + low.to_bytes(4, "big")

    def unplug(self) -> None:
        """Take the power away: the RTC domain is lost."""
        self.rtc = Rtc()

    def save(self, ops: bytes) -> None:
        """Write rtc.bin, efuse.bin and *ops*, the encoded log (flash.bin is written as the device runs)."""
        if self.volatile:
            return
        (self.directory / "rtc.bin").write_bytes(self.rtc.encode())
        (self.directory / "ops.bin").write_bytes(ops)
        path = self.directory / "efuse.bin"
        fuses = self.efuse.encode()
        if not path.exists() or path.read_bytes() != fuses:
            write_atomic(path, fuses)
