"""What the second-stage bootloader does at power-on, on the bytes of a flash.

A model of ESP-IDF's bootloader as MicroPython v1.26 configures it, written from the sources (`bootloader_utility.c`,
`bootloader_common_loader.c`, `esp_image_format.c`, `esp_ota_ops.c`) and held to what the real one did on 24 otadata
situations (tests/golden/bootloader-otadata.json). It reads the partition table and otadata, verifies app images,
writes otadata where the real one writes it - an erase and a 32-byte program, each a logged flash operation that power
can cut - and says which slot runs.

Quirks kept on purpose, since they decide what is safe: the fallback order ignores otadata states and does not change
otadata; a wrong CRC does not stop PENDING_VERIFY -> ABORTED; waking from deep sleep checks nothing.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

from sekisho_tools import imagefile, layout
from sekisho_tools.errors import ToolError
from sekisho_tools.imagefile import CHIPS, Chip
from sekisho_tools.layout import Layout, Partition

from .flash import SECTOR, Flash

ENTRY = struct.Struct("<I20sII")
"""One otadata entry: seq, label (unused), state, CRC of seq."""
NEW, PENDING, VALID, INVALID, ABORTED, UNDEFINED = 0, 1, 2, 3, 4, 0xFFFFFFFF
STATES = {
    NEW: "NEW",
    PENDING: "PENDING",
    VALID: "VALID",
    INVALID: "INVALID",
    ABORTED: "ABORTED",
    UNDEFINED: "UNDEFINED",
}
EMPTY = 0xFFFFFFFF
FACTORY, TEST = -1, -2
"""Slot indices beside 0..15."""

Cause = Literal["power-on", "reset", "watchdog", "deep-sleep"]
CAUSES: tuple[Cause, ...] = ("power-on", "reset", "watchdog", "deep-sleep")

RTC_SIZE = 16
"""Bytes of RTC memory in which the bootloader keeps the partition it started, for the way back from deep sleep."""
_RTC = struct.Struct("<IIHHI")


class SecureVersion(Protocol):
    """The eFuse field that anti-rollback counts in (see `sekisho_sim.efuse.Efuse`)."""

    @property
    def secure_version(self) -> int:
        """Ones in the field."""

    def raise_secure_version(self, version: int) -> bool:
        """Burn the field up to *version*; whether anything was burnt."""


@dataclass(frozen=True)
class Profile:
    """How the bootloader was built. *chip* None: told from the bootloader image in the flash, else ESP32."""

    name: str
    rollback: bool = True
    anti_rollback: bool = False
    skip_validate_in_deep_sleep: bool = True
    version_bits: int = 32
    chip: str | None = None
    revision: int = 300


ROLLBACK = Profile("rollback")
"""MicroPython's own configuration, as in v1.26: rollback on, anti-rollback off."""
NO_ROLLBACK = Profile("no-rollback", rollback=False)
"""A bootloader without rollback support, as on devices first flashed with an old MicroPython."""
ANTI_ROLLBACK = Profile("anti-rollback", anti_rollback=True)
"""Rollback, and no app whose secure version is below the eFuse field."""
PROFILES = {profile.name: profile for profile in (ROLLBACK, NO_ROLLBACK, ANTI_ROLLBACK)}


def seq_crc(seq: int) -> int:
    """The CRC that guards *seq* (and nothing else) in an otadata entry: ROM crc32_le with seed FFFFFFFF."""
    return zlib.crc32(seq.to_bytes(4, "little"), 0xFFFFFFFF)


@dataclass(frozen=True)
class Entry:
    """One otadata entry as read from flash."""

    seq: int
    state: int
    crc: int
    label: bytes = b"\xff" * 20

    @classmethod
    def make(cls, seq: int, state: int) -> Entry:
        """An entry with a good CRC."""
        return cls(seq, state, seq_crc(seq))

    @classmethod
    def decode(cls, data: bytes) -> Entry:
        """The entry in the first 32 bytes of *data*."""
        seq, label, state, crc = ENTRY.unpack_from(data)
        return cls(seq, state, crc, label)

    def encode(self) -> bytes:
        """The 32 bytes of the entry."""
        return ENTRY.pack(self.seq, self.label, self.state, self.crc)

    @property
    def crc_ok(self) -> bool:
        """Whether the CRC fits seq."""
        return self.crc == seq_crc(self.seq)

    @property
    def dismissed(self) -> bool:
        """ESP-IDF's "invalid entry": empty, INVALID or ABORTED; the CRC is not looked at."""
        return self.seq == EMPTY or self.state in (INVALID, ABORTED)

    @property
    def valid(self) -> bool:
        """Not dismissed, and with a good CRC."""
        return not self.dismissed and self.crc_ok

    def __str__(self) -> str:
        if self.seq == EMPTY and self.state == UNDEFINED:
            return "empty"
        state = STATES.get(self.state, hex(self.state))
        return f"seq {self.seq} {state}{'' if self.crc_ok else ' (bad crc)'}"


def active_entry(entries: tuple[Entry, Entry]) -> int:
    """Number of the entry that selects: the valid one, of two the larger seq, on a tie 0; -1 when none is valid."""
    first, second = entries
    if first.valid and second.valid:
        return 1 if second.seq > first.seq else 0
    return 0 if first.valid else 1 if second.valid else -1


def read_entries(flash: Flash, otadata: Partition) -> tuple[Entry, Entry]:
    """Both otadata entries; *otadata* must have two sectors."""
    return (
        Entry.decode(flash.read(otadata.offset, ENTRY.size)),
        Entry.decode(flash.read(otadata.offset + SECTOR, ENTRY.size)),
    )


def boot_partition(flash: Flash, table: Layout) -> Partition | None:
    """What `esp_ota_get_boot_partition` says, and `esp32.Partition(Partition.BOOT)`: selection without side effects.

    Without a usable entry it is the factory app, else the first ota slot, else the test app.
    """
    slots, otadata = table.ota, table.otadata
    if slots and otadata and otadata.size >= 2 * SECTOR:
        entries = read_entries(flash, otadata)
        active = active_entry(entries)
        if active >= 0:
            return slots[(entries[active].seq - 1) % len(slots)]
    return table.app(layout.FACTORY) or (slots[0] if slots else table.app(layout.TEST))


@dataclass(frozen=True)
class BootResult:
    """One power-on. *running* and *boot_partition* are labels, both None where nothing boots: it resets for ever.

    *slot* is the partition that runs, *table* the partition table (None when it could not be read), *log* what the
    bootloader said.
    """

    running: str | None
    boot_partition: str | None
    log: list[str] = field(default_factory=list)
    slot: Partition | None = None
    table: Layout | None = None


class _ResetError(Exception):
    """The bootloader gives up and resets."""


def read_table(flash: Flash) -> Layout:
    """The partition table in *flash*; ToolError LAYOUT when the bootloader would refuse it.

    The bootloader takes the size of the flash from its own image header, not from the chip.
    """
    found = imagefile.find_bootloader(flash.read(0, min(flash.size, layout.TABLE_OFFSET)))
    told = imagefile.flash_size(found[1]) if found else None
    return layout.decode(flash.read(layout.TABLE_OFFSET, layout.TABLE_SIZE), min(flash.size, told or flash.size))


class _Bootloader:
    def __init__(self, flash: Flash, efuse: SecureVersion | None, profile: Profile, rtc: bytearray | None) -> None:
        self.flash = flash
        self.efuse = efuse
        self.profile = profile
        self.rtc = rtc
        self.log: list[str] = []
        self.initial_contents = False
        self.table = Layout((), flash.size)
        self.chip = CHIPS["esp32"]

    def find_chip(self) -> Chip:
        """The chip, and the ROM's part: is there a bootloader? The model runs without one, since it stands for it."""
        found = imagefile.find_bootloader(self.flash.read(0, min(self.flash.size, layout.TABLE_OFFSET)))
        if found is None:
            self.log.append("rom: no bootloader image in flash; the simulator's own runs")
        wanted = self.profile.chip
        if wanted is None:
            return found[0] if found else CHIPS["esp32"]
        if found and found[0].name != wanted:
            self.log.append(f"rom: the bootloader in flash is for {found[0].name}, this chip is {wanted}")
            raise _ResetError
        return CHIPS[wanted]

    # -- selection ----------------------------------------------------------------------------------------------------

    def read_table(self) -> None:
        try:
            self.table = read_table(self.flash)
        except ToolError as error:
            self.log.append(f"partition table: {error.sentence}")
            raise _ResetError from None

    def write_entry(self, number: int, entry: Entry) -> None:
        """Erase the sector of the entry, then program it: two operations, between which it is gone."""
        otadata = self.table.otadata
        assert otadata is not None
        self.log.append(f"otadata: entry {number} := {entry}")
        self.flash.erase(otadata.offset + number * SECTOR)
        self.flash.program(otadata.offset + number * SECTOR, entry.encode())

    def select(self) -> int:
        """Index to start from (section "selection" of the platform notes), with the writes that go with it."""
        otadata = self.table.otadata
        if otadata is None:
            return FACTORY
        if otadata.size < 2 * SECTOR:
            self.log.append("otadata: partition too small")
            raise _ResetError
        entries = read_entries(self.flash, otadata)
        self.log.append(f"otadata: [{entries[0]}] [{entries[1]}]")
        if self.profile.rollback:
            entries = self._abort_pending(entries)
        if self.profile.anti_rollback:
            return self._select_with_versions(entries)
        count = len(self.table.ota)
        if all(entry.dismissed for entry in entries) or count == 0:
            if self.table.app(layout.FACTORY):
                return FACTORY
            self.initial_contents = all(entry.seq == EMPTY or not entry.crc_ok for entry in entries)
            return 0
        active = active_entry(entries)
        if active < 0:
            self.log.append("otadata: no valid entry")
            return FACTORY
        return self._take(active, entries[active])

    def _abort_pending(self, entries: tuple[Entry, Entry]) -> tuple[Entry, Entry]:
        """What was on trial and did not confirm is ABORTED; the CRC is neither checked nor made anew."""
        after = []
        for number, entry in enumerate(entries):
            if entry.state == PENDING:
                entry = replace(entry, state=ABORTED)
                self.write_entry(number, entry)
            after.append(entry)
        return after[0], after[1]

    def _take(self, active: int, entry: Entry) -> int:
        if self.profile.rollback and entry.state == NEW:
            self.write_entry(active, replace(entry, state=PENDING))
        return (entry.seq - 1) % len(self.table.ota)

    def _select_with_versions(self, entries: tuple[Entry, Entry]) -> int:
        """Anti-rollback: an entry counts only if its app's secure version passes; there is no factory."""
        if all(entry.seq == EMPTY or not entry.crc_ok for entry in entries):
            self.initial_contents = True
            return FACTORY
        slots = self.table.ota
        usable = tuple(
            entry if entry.valid and slots and self._version_passes(slots[(entry.seq - 1) % len(slots)]) else None
            for entry in entries
        )
        empty = Entry(EMPTY, UNDEFINED, 0)
        active = active_entry((usable[0] or empty, usable[1] or empty))
        if active < 0:
            return FACTORY
        entry = entries[active]
        index = self._take(active, entry)
        if entry.state == VALID:
            self._burn(slots[index])
        return index

    # -- secure version -----------------------------------------------------------------------------------------------

    def _slot_bytes(self, part: Partition) -> memoryview:
        return memoryview(self.flash.buffer)[part.offset : part.end]

    def _device_version(self) -> int:
        return min(self.efuse.secure_version if self.efuse else 0, self.profile.version_bits)

    def _version_passes(self, part: Partition) -> bool:
        with self._slot_bytes(part) as data:
            version = imagefile.secure_version(data)
        if version is None or version < self._device_version():
            self.log.append(f"{part.label}: secure version {version} is below {self._device_version()}")
            return False
        return True

    def _burn(self, part: Partition) -> None:
        with self._slot_bytes(part) as data:
            version = imagefile.secure_version(data) or 0
        if self.efuse and version <= self.profile.version_bits and self.efuse.raise_secure_version(version):
            self.log.append(f"eFuse: secure version raised to {version}")

    # -- loading ------------------------------------------------------------------------------------------------------

    def candidates(self, start: int) -> Iterator[tuple[int, Partition]]:
        """Slots in the order in which the bootloader tries them: down from *start*, then up, then test."""
        slots = self.table.ota
        order = [*range(start, FACTORY - 1, -1), *range(start + 1, len(slots)), TEST]
        for index in order:
            if index >= 0:
                if index < len(slots):
                    yield index, slots[index]
            else:
                part = self.table.app(layout.FACTORY if index == FACTORY else layout.TEST)
                if part and part.size:
                    yield index, part

    def load(self, start: int) -> Partition:
        """The first candidate whose image verifies; with the otadata entry of a first boot."""
        for index, part in self.candidates(start):
            if self.profile.anti_rollback and not self._version_passes(part):
                continue
            try:
                with self._slot_bytes(part) as data:
                    imagefile.verify(data, self.chip, revision=self.profile.revision, address=part.offset)
            except ToolError as error:
                self.log.append(f"{part.label} at 0x{part.offset:x}: {error.sentence} Not bootable.")
                continue
            if index >= 0 and self.initial_contents:
                self.write_entry(0, Entry.make(index + 1, VALID))
                if self.profile.anti_rollback:
                    self._burn(part)
            self._remember(part)
            self.log.append(f"{part.label} at 0x{part.offset:x}: started")
            return part
        self.log.append("no bootable app partition")
        raise _ResetError

    def _remember(self, part: Partition) -> None:
        if self.rtc is not None and self.profile.skip_validate_in_deep_sleep:
            body = _RTC.pack(part.offset, part.size, 0, 0, 0)[:-4]
            self.rtc[:RTC_SIZE] = body + zlib.crc32(body).to_bytes(4, "little")

    def remembered(self) -> Partition | None:
        """The partition in RTC memory, or None when its CRC does not fit."""
        if self.rtc is None:
            return None
        offset, size, _, _, crc = _RTC.unpack_from(self.rtc)
        if zlib.crc32(self.rtc[: RTC_SIZE - 4]) != crc:
            return None
        return next((p for p in self.table if (p.offset, p.size) == (offset, size)), None)


def power_on(
    flash: Flash,
    efuse: SecureVersion | None = None,
    cause: Cause = "power-on",
    profile: Profile = ROLLBACK,
    rtc: bytearray | None = None,
) -> BootResult:
    """Do what ROM and bootloader do after a reset of the given *cause*, on *flash*, and say what runs.

    *efuse* is needed for anti-rollback only. *rtc* is the RTC memory (its first 16 bytes are the bootloader's; they are
    lost at power-on): with ``deep-sleep`` the partition recorded there runs, unverified, otadata untouched; a record
    that does not verify leads to an ordinary boot. `PowerCutError` passes through where ``flash.cut_at`` asks for it.
    """
    if rtc is not None and cause == "power-on":
        rtc[:RTC_SIZE] = bytes(RTC_SIZE)
    table: Layout | None = None
    boot = _Bootloader(flash, efuse, profile, rtc)
    try:
        boot.chip = boot.find_chip()
        boot.read_table()
        table = boot.table
        if cause == "deep-sleep" and profile.skip_validate_in_deep_sleep:
            part = boot.remembered()
            if part:
                boot.log.append(f"{part.label} at 0x{part.offset:x}: woken from deep sleep, nothing checked")
                selected = boot_partition(flash, table)
                return BootResult(part.label, selected.label if selected else None, boot.log, part, table)
            boot.log.append("deep sleep: no partition recorded; ordinary boot")
        part = boot.load(boot.select())
    except _ResetError:
        return BootResult(None, None, boot.log, None, table)
    selected = boot_partition(flash, table)
    return BootResult(part.label, selected.label if selected else None, boot.log, part, table)
