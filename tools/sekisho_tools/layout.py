"""Partition tables: read and write ESP-IDF's CSV and its binary form, and check them as bootloader and Sekisho need.

Source of the format: ESP-IDF `esp_flash_partitions.h` and the partition-table documentation. A record is 32 bytes, an
MD5 record covers all before it, the table is padded with FF to 0xC00 bytes.
"""

from __future__ import annotations

import csv
import hashlib
import itertools
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .device_code import FIRMWARE
from .errors import ToolError
from .files import read_file

TABLE_OFFSET = 0x8000
"""Where ESP-IDF and MicroPython put the table in flash."""
TABLE_SIZE = 0xC00
"""Bytes of the table that are read: 96 records."""
SECTOR = 0x1000
APP_ALIGN = 0x10000
MAX_APP = 16 << 20

APP, DATA = 0, 1
TYPES = {"app": APP, "data": DATA}
OTA_0 = 0x10
SUBTYPES: dict[int, dict[str, int]] = {
    APP: {"factory": 0x00, "test": 0x20, **{f"ota_{i}": OTA_0 + i for i in range(16)}},
    DATA: {
        "ota": 0x00,
        "phy": 0x01,
        "nvs": 0x02,
        "coredump": 0x03,
        "nvs_keys": 0x04,
        "efuse": 0x05,
        "undefined": 0x06,
        "fat": 0x81,
        "spiffs": 0x82,
        "littlefs": 0x83,
    },
}
FACTORY, TEST = SUBTYPES[APP]["factory"], SUBTYPES[APP]["test"]
DATA_OTA = SUBTYPES[DATA]["ota"]
SEKISHO_SUBTYPE, APP_SLOT_SUBTYPE = 0x40, 0x41
"""Subtypes of data partitions that are Sekisho's own: engine records, application slots."""
FLAGS = {"encrypted": 1, "readonly": 2}

_RECORD = struct.Struct("<2sBBII16sI")
_MAGIC, _MD5_MAGIC = b"\xaa\x50", b"\xeb\xeb"


@dataclass(frozen=True)
class Partition:
    """One row of the table. *offset* and *size* are bytes in flash, *type* and *subtype* ESP-IDF's numbers."""

    label: str
    type: int
    subtype: int
    offset: int
    size: int
    flags: int = 0

    @property
    def end(self) -> int:
        """First byte after the partition."""
        return self.offset + self.size

    @property
    def type_name(self) -> str:
        """``app``, ``data`` or the number."""
        return next((name for name, value in TYPES.items() if value == self.type), f"0x{self.type:02x}")

    @property
    def subtype_name(self) -> str:
        """ESP-IDF's name of the subtype, or the number."""
        known = SUBTYPES.get(self.type, {})
        return next((name for name, value in known.items() if value == self.subtype), f"0x{self.subtype:02x}")

    def encode(self) -> bytes:
        """The 32 bytes of this record."""
        label = self.label.encode()
        return _RECORD.pack(_MAGIC, self.type, self.subtype, self.offset, self.size, label, self.flags)


@dataclass(frozen=True)
class Layout:
    """A partition table: *partitions* in table order, for a flash of *flash_size* bytes."""

    partitions: tuple[Partition, ...]
    flash_size: int

    def __iter__(self) -> Iterator[Partition]:
        return iter(self.partitions)

    def get(self, label: str) -> Partition | None:
        """The partition called *label*, or None."""
        return next((p for p in self.partitions if p.label == label), None)

    def __getitem__(self, label: str) -> Partition:
        """The partition called *label*; ToolError LAYOUT when there is none."""
        found = self.get(label)
        if found is None:
            names = ", ".join(p.label for p in self.partitions)
            raise ToolError("LAYOUT", f"The partition table has no partition {label!r}; it has {names}.")
        return found

    @property
    def ota(self) -> tuple[Partition, ...]:
        """The ota slots in order of their number."""
        slots = [p for p in self.partitions if p.type == APP and p.subtype & ~0xF == OTA_0]
        return tuple(sorted(slots, key=lambda p: p.subtype))

    @property
    def otadata(self) -> Partition | None:
        """The partition that says which slot to boot, or None."""
        return next((p for p in self.partitions if (p.type, p.subtype) == (DATA, DATA_OTA)), None)

    def app(self, subtype: int) -> Partition | None:
        """The app partition with *subtype*, or None."""
        return next((p for p in self.partitions if (p.type, p.subtype) == (APP, subtype)), None)

    def encode(self) -> bytes:
        """The binary table, 0xC00 bytes with its MD5 record, as it goes to 0x8000."""
        records = b"".join(p.encode() for p in self.partitions)
        table = records + _MD5_MAGIC + b"\xff" * 14 + hashlib.md5(records).digest()  # noqa: S324 (the format says so)
        if len(table) > TABLE_SIZE - 32:
            raise ToolError("LAYOUT", f"The partition table has {len(self.partitions)} rows; at most 94 fit.")
        return table.ljust(TABLE_SIZE, b"\xff")


def _refuse(sentence: str) -> ToolError:
    return ToolError("LAYOUT", sentence)


def check(layout: Layout) -> Layout:
    """Return *layout* if it can be used; otherwise ToolError LAYOUT says what is wrong.

    Checked: labels (1 to 16 bytes, unique), alignment (apps 64 KiB, all else 4 KiB), sizes, nothing below the end of
    the table, no overlap, nothing beyond the flash, at most one otadata (of 8 KiB or more), ota slots without a gap.
    """
    if not layout.partitions:
        raise _refuse("The partition table is empty.")
    labels: set[str] = set()
    for p in layout.partitions:
        if not p.label or len(p.label.encode()) > 16:
            raise _refuse(f"The label {p.label!r} must have 1 to 16 bytes.")
        if p.label in labels:
            raise _refuse(f"The label {p.label!r} is used twice.")
        labels.add(p.label)
        align = APP_ALIGN if p.type == APP else SECTOR
        if p.offset % align:
            raise _refuse(f"Partition {p.label} starts at 0x{p.offset:x}, which is no multiple of 0x{align:x}.")
        if p.size <= 0 or p.size % SECTOR:
            raise _refuse(f"Partition {p.label} has 0x{p.size:x} bytes, which is no multiple of 0x1000.")
        if p.offset < TABLE_OFFSET + SECTOR:
            raise _refuse(f"Partition {p.label} at 0x{p.offset:x} overlaps the bootloader or the table itself.")
        if p.end > layout.flash_size:
            raise _refuse(
                f"Partition {p.label} ends at 0x{p.end:x}, beyond the flash of 0x{layout.flash_size:x} bytes."
            )
        if p.type == APP and p.size > MAX_APP:
            raise _refuse(f"App partition {p.label} is larger than 16 MiB, which the bootloader refuses.")
    ordered = sorted(layout.partitions, key=lambda p: p.offset)
    for before, after in itertools.pairwise(ordered):
        if before.end > after.offset:
            raise _refuse(f"Partitions {before.label} and {after.label} overlap.")
    otadata = [p for p in layout.partitions if (p.type, p.subtype) == (DATA, DATA_OTA)]
    if len(otadata) > 1 or (otadata and otadata[0].size < 2 * SECTOR):
        raise _refuse("There must be one otadata partition of at least 0x2000 bytes.")
    if [p.subtype for p in layout.ota] != [OTA_0 + i for i in range(len(layout.ota))]:
        raise _refuse("The ota slots must be ota_0, ota_1, ... without a gap.")
    return layout


def check_sekisho(layout: Layout) -> Layout:
    """Return *layout* if Sekisho can live in it; otherwise ToolError LAYOUT.

    Needed: exactly ota_0 and ota_1, no factory and no test slot, otadata, `sekisho` (data/0x40, 64 KiB or more, not
    encrypted), `vfs` and `data`; app slots, where there are any, in pairs of equal size.
    """
    check(layout)
    if len(layout.ota) != 2 or layout.otadata is None:
        raise _refuse("Sekisho needs exactly the slots ota_0 and ota_1, and an otadata partition.")
    if layout.ota[0].size != layout.ota[1].size:
        raise _refuse("The slots ota_0 and ota_1 must have the same size.")
    if layout.app(FACTORY) or layout.app(TEST):
        raise _refuse("Sekisho needs a table without factory and test slots: the bootloader would fall back to them.")
    state = layout["sekisho"]
    if (state.type, state.subtype) != (DATA, SEKISHO_SUBTYPE) or state.size < 16 * SECTOR:
        raise _refuse("The partition sekisho must be data, 0x40, of at least 0x10000 bytes.")
    if state.flags & FLAGS["encrypted"]:
        raise _refuse("The partition sekisho must not be flagged encrypted: its records are programmed bit by bit.")
    slots = (layout.get("app_0"), layout.get("app_1"))
    sizes = {(p.type, p.subtype, p.size) for p in slots if p}
    if any(slots) and (None in slots or len(sizes) != 1 or next(iter(sizes))[:2] != (DATA, APP_SLOT_SUBTYPE)):
        raise _refuse("The partitions app_0 and app_1 must both be data, 0x41, and have the same size.")
    for label in ("vfs", "data"):
        if layout[label].type != DATA:
            raise _refuse(f"The partition {label} must be a data partition.")
    return layout


def flash_size_for(partitions: tuple[Partition, ...]) -> int:
    """The smallest usual flash size, in bytes, that holds *partitions*."""
    end = max((p.end for p in partitions), default=0)
    return next((1 << n for n in range(20, 28) if 1 << n >= end), end)


def _number(text: str, what: str, names: dict[str, int] | None = None) -> int:
    text = text.strip()
    if names and text.lower() in names:
        return names[text.lower()]
    factor = {"k": 1 << 10, "m": 1 << 20}.get(text[-1:].lower(), 1)
    try:
        return int(text[:-1] if factor > 1 else text, 0) * factor
    except ValueError:
        raise _refuse(f"{what} {text!r} is neither a number nor a known name.") from None


def parse_csv(text: str, flash_size: int | None = None) -> Layout:
    """Read ESP-IDF's partition CSV (Name, Type, SubType, Offset, Size, Flags; empty offset = next aligned; K and M).

    *flash_size* in bytes; None takes the smallest usual size that holds everything. Raises ToolError LAYOUT.
    """
    rows: list[Partition] = []
    at = TABLE_OFFSET + SECTOR
    for number, row in enumerate(csv.reader(text.splitlines()), 1):
        cells = [cell.strip() for cell in row]
        if not any(cells) or cells[0].startswith("#"):
            continue
        if len(cells) < 5:
            raise _refuse(f"Line {number} has {len(cells)} columns; Name, Type, SubType, Offset, Size are needed.")
        kind = _number(cells[1], f"Line {number}: the type", TYPES)
        subtype = _number(cells[2], f"Line {number}: the subtype", SUBTYPES.get(kind))
        align = APP_ALIGN if kind == APP else SECTOR
        offset = _number(cells[3], f"Line {number}: the offset") if cells[3] else -(-at // align) * align
        size = _number(cells[4], f"Line {number}: the size")
        names = [name for name in (cells[5].split(":") if len(cells) > 5 else []) if name.strip()]
        flags = sum(_number(name, f"Line {number}: the flag", FLAGS) for name in names)
        if not (0 <= kind <= 0xFE and 0 <= subtype <= 0xFE and offset >= 0):
            raise _refuse(f"Line {number} has a number that does not fit its field.")
        rows.append(Partition(cells[0], kind, subtype, offset, size, flags))
        at = offset + size
    return check(Layout(tuple(rows), flash_size or flash_size_for(tuple(rows))))


def load(source: str | Path) -> Layout:
    """Load a layout: a CSV file, or the name of one that Sekisho brings (``4MiB``, ``8MiB``, ``16MiB``).

    Raises ToolError FILE or LAYOUT.
    """
    path = Path(source)
    shipped = FIRMWARE / "partitions" / f"{source}.csv"
    if not path.exists() and path.name == str(source):
        if shipped.is_file():
            path = shipped
        elif not path.suffix:
            names = ", ".join(
                sorted((f.stem for f in shipped.parent.glob("*.csv")), key=lambda name: (len(name), name))
            )
            raise _refuse(f"There is no layout {source!r}; take {names}, or name a CSV file.")
    try:
        text = read_file(path, "partition layout", 1 << 20).decode()
    except UnicodeDecodeError:
        raise _refuse(f"The partition layout {path} is no text file.") from None
    return parse_csv(text)


def decode(table: bytes, flash_size: int) -> Layout:
    """Read a binary table as the bootloader does; ToolError LAYOUT where it would refuse.

    The table ends at its terminator; a missing MD5 record is accepted, a wrong or second one is not.
    """
    rows: list[Partition] = []
    with_md5 = False
    for at in range(0, min(len(table), TABLE_SIZE) - 31, 32):
        record = bytes(table[at : at + 32])
        magic = record[:2]
        if magic == _MAGIC:
            _, kind, subtype, offset, size, label, flags = _RECORD.unpack(record)
            if offset > flash_size or offset + size > flash_size:
                raise _refuse(f"Record {at // 32} of the partition table reaches beyond the flash.")
            name = label.split(b"\0")[0].decode(errors="replace")
            rows.append(Partition(name, kind, subtype, offset, size, flags))
        elif magic == _MD5_MAGIC:
            if with_md5 or hashlib.md5(table[:at]).digest() != record[16:]:  # noqa: S324 (the format says so)
                raise _refuse("The MD5 of the partition table is wrong.")
            with_md5 = True
        elif magic == b"\xff\xff" and record[2:4] == b"\xff\xff":
            return Layout(tuple(rows), flash_size)
        else:
            raise _refuse(f"Record {at // 32} of the partition table has no known mark (0x{magic.hex()}).")
    raise _refuse("The partition table has no end.")
