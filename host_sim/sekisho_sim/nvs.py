"""ESP-IDF's NVS as it lies in flash: read and written entry by entry, with the crash points of the original.

Runs on CPython and on MicroPython (the simulator's `esp32.NVS` uses it inside the device process). *part* is anything
with ``size``, ``read(off, buf)``, ``program(off, buf)`` and ``erase(sector)``: every program is one flash operation, in
the order in which ESP-IDF makes them, so that power can be cut between any two.

Sources: ESP-IDF `nvs_page.cpp`, `nvs_pagemanager.cpp`, `nvs_storage.cpp` (2025), the NVS documentation. Not modelled:
encryption, version-1 blobs (they are read, not written), the cleaning of orphaned blob chunks at start.
"""

import struct
from binascii import crc32

PAGE = 4096
ENTRY = 32
ENTRIES = 126
_BITMAP = 32
_FIRST = 64
CHUNK_MAX = ENTRY * (ENTRIES - 1)
"""Most bytes of a string or of one blob chunk."""
MIN_PAGES = 3

# Page states; each clears one more bit.
UNINITIALIZED = 0xFFFFFFFF
ACTIVE = 0xFFFFFFFE
FULL = 0xFFFFFFFC
FREEING = 0xFFFFFFF8
CORRUPT = 0xFFFFFFF0
VERSION = 0xFE

# Entry states, two bits each.
EMPTY, WRITTEN, ERASED = 3, 2, 0

U8, I8, U16, I16, U32, I32, U64, I64 = 0x01, 0x11, 0x02, 0x12, 0x04, 0x14, 0x08, 0x18
STRING, BLOB, BLOB_DATA, BLOB_INDEX = 0x21, 0x41, 0x42, 0x48
_CODES = {U8: "<B", I8: "<b", U16: "<H", I16: "<h", U32: "<I", I32: "<i", U64: "<Q", I64: "<q"}
NAMES = {
    U8: "u8",
    I8: "i8",
    U16: "u16",
    I16: "i16",
    U32: "u32",
    I32: "i32",
    U64: "u64",
    I64: "i64",
    STRING: "string",
    BLOB: "blob",
    BLOB_INDEX: "blob",
}
_NO_CHUNK = 0xFF
_STARTS = (0x00, 0x80)
"""The two chunk numberings of a blob; each rewrite takes the other, so that old and new can coexist."""

# esp_err numbers; MicroPython raises them as negative errno.
NOT_FOUND = 0x1102
NOT_ENOUGH_SPACE = 0x1105
INVALID_NAME = 0x1106
KEY_TOO_LONG = 0x1109
INVALID_STATE = 0x110B
INVALID_LENGTH = 0x110C
NO_FREE_PAGES = 0x110D
VALUE_TOO_LONG = 0x110E
NEW_VERSION_FOUND = 0x1110
_ERRORS = {
    NOT_FOUND: "NOT_FOUND",
    NOT_ENOUGH_SPACE: "NOT_ENOUGH_SPACE",
    INVALID_NAME: "INVALID_NAME",
    KEY_TOO_LONG: "KEY_TOO_LONG",
    INVALID_STATE: "INVALID_STATE",
    INVALID_LENGTH: "INVALID_LENGTH",
    NO_FREE_PAGES: "NO_FREE_PAGES",
    VALUE_TOO_LONG: "VALUE_TOO_LONG",
    NEW_VERSION_FOUND: "NEW_VERSION_FOUND",
}


def error(number: int) -> OSError:
    """The OSError that MicroPython raises for an NVS error number."""
    return OSError(-number, "ESP_ERR_NVS_" + _ERRORS[number])


def _crc(data: bytes) -> int:
    return crc32(data, 0xFFFFFFFF) & 0xFFFFFFFF


class Item:
    """The first entry of a value: namespace index, type, span (entries), chunk, key, and its 8 data bytes."""

    def __init__(self, raw: bytes) -> None:
        self.ns, self.type, self.span, self.chunk, self.crc = struct.unpack("<BBBBI", raw[:8])
        self.raw_key = bytes(raw[8:24])
        self.data = bytes(raw[24:32])
        self.good = self.crc == _crc(bytes(raw[:4]) + bytes(raw[8:32])) and 1 <= self.span <= ENTRIES

    @property
    def key(self) -> str:
        """The key as text."""
        return str(self.raw_key.split(b"\0")[0], "utf-8")

    @property
    def size(self) -> int:
        """Bytes of a string, blob or chunk."""
        return int(struct.unpack("<H", self.data[:2])[0])

    @staticmethod
    def encode(ns: int, kind: int, span: int, chunk: int, key: bytes, data: bytes) -> bytes:
        """The 32 bytes of an entry."""
        head = bytes((ns, kind, span, chunk))
        rest = key + b"\0" * (16 - len(key)) + data + b"\xff" * (8 - len(data))
        return head + struct.pack("<I", _crc(head + rest)) + rest


class Page:
    """One sector. Nothing is cached but the header and the place of the next free entry."""

    def __init__(self, part, sector: int) -> None:  # type: ignore[no-untyped-def]
        self.part = part
        self.sector = sector
        self.base = sector * PAGE
        self.seq = 0
        self.next = 0
        self.state = UNINITIALIZED

    def _read(self, off: int, size: int) -> bytes:
        buf = bytearray(size)
        self.part.read(self.base + off, buf)
        return bytes(buf)

    def states(self) -> list[int]:
        """The states of all entries, from the bitmap."""
        bitmap = self._read(_BITMAP, 32)
        return [bitmap[i >> 2] >> 2 * (i & 3) & 3 for i in range(ENTRIES)]

    def raw(self, index: int, count: int = 1) -> bytes:
        """The bytes of *count* entries."""
        return self._read(_FIRST + ENTRY * index, ENTRY * count)

    def items(self) -> list[tuple[int, Item]]:
        """(index, Item) of every value whose first entry is written and good."""
        out, states, index = [], self.states(), 0
        while index < ENTRIES:
            if states[index] != WRITTEN:
                index += 1
                continue
            item = Item(self.raw(index))
            if item.good:
                out.append((index, item))
                index += item.span
            else:
                index += 1
        return out

    def used(self) -> int:
        """Entries that are written."""
        return self.states().count(WRITTEN)

    # -- start-up -----------------------------------------------------------------------------------------------------

    def load(self) -> None:
        """Reads the header and repairs what a cut left; raises NEW_VERSION_FOUND."""
        header = self._read(0, 32)
        self.state, self.seq, version = struct.unpack("<IIB", header[:9])
        if self.state == UNINITIALIZED:
            if self._read(0, PAGE) != b"\xff" * PAGE:
                self.state = CORRUPT
            return
        if struct.unpack("<I", header[28:])[0] != _crc(header[4:28]):
            self.state = CORRUPT
            return
        if version < VERSION:
            raise error(NEW_VERSION_FOUND)
        if self.state not in (ACTIVE, FULL, FREEING):
            self.state = CORRUPT
            return
        self._repair()

    def _repair(self) -> None:
        if self.state == ACTIVE:
            states = self.states()
            self.next = next((i for i in range(ENTRIES) if states[i] == EMPTY), ENTRIES)
            # An entry that was programmed but not yet marked: half-written, skipped for good.
            while self.next < ENTRIES and self.raw(self.next)[:4] != b"\xff\xff\xff\xff":
                self._mark(self.next, 1, ERASED)
                self.next += 1
        else:
            self.next = ENTRIES
        states, index = self.states(), 0
        seen: dict[tuple[int, int, int, bytes], tuple[int, int]] = {}
        while index < ENTRIES:
            if states[index] != WRITTEN:
                index += 1
                continue
            item = Item(self.raw(index))
            whole = item.good and index + item.span <= ENTRIES
            if not whole:
                self._mark(index, 1, ERASED)
                index += 1
                continue
            if any(states[i] != WRITTEN for i in range(index, index + item.span)):
                self._mark(index, item.span, ERASED)
                if index + item.span > self.next:
                    self.next = index + item.span
            elif self.state == ACTIVE:
                known = (item.ns, item.type, item.chunk, item.raw_key)
                if known in seen:
                    self._mark(seen[known][0], seen[known][1], ERASED)
                seen[known] = (index, item.span)
            index += item.span

    # -- writing ------------------------------------------------------------------------------------------------------

    def _program(self, off: int, data: bytes) -> None:
        self.part.program(self.base + off, data)

    def _mark(self, index: int, count: int, state: int) -> None:
        """Sets the state of entries; bitmap words are programmed from high to low, each once."""
        words: dict[int, int] = {}
        for i in range(index, index + count):
            word = i >> 4
            mask = words.get(word, 0xFFFFFFFF)
            words[word] = mask & ~((3 ^ state) << 2 * (i & 15)) & 0xFFFFFFFF
        for word in sorted(words, reverse=True):
            self._program(_BITMAP + 4 * word, struct.pack("<I", words[word]))

    def set_state(self, state: int) -> None:
        """Programs the page state."""
        self._program(0, struct.pack("<I", state))
        self.state = state

    def initialise(self) -> None:
        """Programs the header of a fresh page."""
        body = struct.pack("<IB", self.seq, VERSION) + b"\xff" * 19
        self._program(0, struct.pack("<I", ACTIVE) + body + struct.pack("<I", _crc(body)))
        self.state, self.next = ACTIVE, 0

    def erase(self) -> None:
        """Erases the sector; the page is free then."""
        self.part.erase(self.sector)
        self.state, self.seq, self.next = UNINITIALIZED, 0, 0

    def room(self) -> int:
        """Bytes of data that one string or chunk could have here."""
        if self.state == UNINITIALIZED:
            return CHUNK_MAX
        return max(0, ENTRIES - self.next - 1) * ENTRY if self.state == ACTIVE else 0

    def write(self, ns: int, kind: int, key: bytes, data: bytes, chunk: int = _NO_CHUNK) -> bool:
        """Writes one item; False when the page has no room for it."""
        variable = kind in (STRING, BLOB, BLOB_DATA)
        span = 1 + (-(-len(data) // ENTRY) if variable else 0)
        if self.state == UNINITIALIZED:
            self.initialise()
        if self.state != ACTIVE or self.next + span > ENTRIES:
            return False
        head = struct.pack("<HHI", len(data), 0xFFFF, _crc(data)) if variable else data
        self._entry(Item.encode(ns, kind, span, chunk, key, head))
        whole = len(data) // ENTRY if variable else 0
        if whole:
            self._program(_FIRST + ENTRY * self.next, data[: whole * ENTRY])
            self._mark(self.next, whole, WRITTEN)
            self.next += whole
        if variable and len(data) % ENTRY:
            tail = data[whole * ENTRY :]
            self._entry(tail + b"\xff" * (ENTRY - len(tail)))
        return True

    def _entry(self, raw: bytes) -> None:
        self._program(_FIRST + ENTRY * self.next, raw)
        self._mark(self.next, 1, WRITTEN)
        self.next += 1

    def drop(self, index: int, item: Item) -> None:
        """Marks an item and its span erased."""
        self._mark(index, item.span, ERASED)

    def copy_to(self, other: "Page") -> None:
        """Copies every written item to *other*, entry by entry."""
        if other.state == UNINITIALIZED:
            other.initialise()
        for index, item in self.items():
            for i in range(item.span):
                other._entry(self.raw(index + i))


class Nvs:
    """An NVS partition. Mounting it repairs what a cut left; raises NO_FREE_PAGES or NEW_VERSION_FOUND as OSError."""

    def __init__(self, part) -> None:  # type: ignore[no-untyped-def]
        if part.size < MIN_PAGES * PAGE or part.size % PAGE:
            raise ValueError("an NVS partition has a multiple of 4096 bytes, 12288 or more")
        self.part = part
        self.pages: list[Page] = []  # in use, oldest first
        self.free: list[Page] = []
        self.seq = 0
        self._load()

    # -- pages --------------------------------------------------------------------------------------------------------

    def _load(self) -> None:
        pages = [Page(self.part, sector) for sector in range(self.part.size // PAGE)]
        for page in pages:
            page.load()
        self.free = [page for page in pages if page.state in (UNINITIALIZED, CORRUPT)]
        self.pages = sorted((page for page in pages if page not in self.free), key=lambda page: page.seq)
        if not self.pages:
            self._activate()
        else:
            self.seq = self.pages[-1].seq + 1
            self._forget_duplicate()
            self._finish_freeing()
        if not self.free:
            raise error(NO_FREE_PAGES)

    def _forget_duplicate(self) -> None:
        """The last item written may still have its older copy on an earlier page."""
        items = self.pages[-1].items()
        if not items:
            return
        last = items[-1][1]
        for page in self.pages[:-1]:
            if page.state == FREEING:
                continue
            for index, item in page.items():
                if _same(item, last):
                    page.drop(index, item)
                    return

    def _finish_freeing(self) -> None:
        for page in list(self.pages):
            if page.state != FREEING:
                continue
            newest = self.pages[-1]
            if newest.state == ACTIVE:
                newest.erase()
                self.pages.remove(newest)
                self.free.append(newest)
            self._activate()
            page.copy_to(self.pages[-1])
            page.erase()
            self.pages.remove(page)
            self.free.append(page)
            return

    def _activate(self) -> None:
        if not self.free:
            raise error(NOT_ENOUGH_SPACE)
        page = self.free.pop(0)
        if page.state == CORRUPT:
            page.erase()
        page.seq = self.seq
        self.seq += 1
        self.pages.append(page)

    def _new_page(self) -> None:
        """Another page to write to; at least one stays free. With one left, the page with most waste is copied."""
        if not self.free:
            raise error(INVALID_STATE)
        if len(self.free) >= 2:
            self._activate()
            return
        worst, unused = None, 0
        for page in self.pages:
            if ENTRIES - page.used() > unused:
                worst, unused = page, ENTRIES - page.used()
        if worst is None:
            raise error(NOT_ENOUGH_SPACE)
        worst.set_state(FREEING)
        self._activate()
        worst.copy_to(self.pages[-1])
        worst.erase()
        self.pages.remove(worst)
        self.free.append(worst)

    def _turn(self) -> None:
        page = self.pages[-1]
        if page.state == UNINITIALIZED:
            page.initialise()
        if page.state != FULL:
            page.set_state(FULL)
        self._new_page()

    def _put(self, ns: int, kind: int, key: bytes, data: bytes, chunk: int = _NO_CHUNK) -> None:
        if not self.pages[-1].write(ns, kind, key, data, chunk):
            self._turn()
            if not self.pages[-1].write(ns, kind, key, data, chunk):
                raise error(NOT_ENOUGH_SPACE)

    # -- items --------------------------------------------------------------------------------------------------------

    def _find(self, ns: int, key: bytes, kinds: tuple[int, ...], chunk: int = -1) -> tuple[Page, int, Item] | None:
        for page in self.pages:
            for index, item in page.items():
                if (
                    item.ns == ns
                    and item.type in kinds
                    and item.raw_key.split(b"\0")[0] == key
                    and chunk in (-1, item.chunk)
                ):
                    return page, index, item
        return None

    @staticmethod
    def _payload(page: Page, index: int, item: Item) -> bytes | None:
        data = page.raw(index + 1, item.span - 1)[: item.size] if item.span > 1 else b""
        return data if _crc(data) == struct.unpack("<I", item.data[4:8])[0] else None

    def _value(self, page: Page, index: int, item: Item) -> bytes | None:
        """The bytes of a value as stored (integers in their own size), or None when it does not hold together."""
        if item.type in _CODES:
            return item.data[: item.type & 0x0F]
        if item.type in (STRING, BLOB):
            return self._payload(page, index, item)
        total, count, start = struct.unpack("<IBB", item.data[:6])
        out = b""
        for number in range(count):
            found = self._find(item.ns, item.raw_key.split(b"\0")[0], (BLOB_DATA,), start + number)
            chunk = self._payload(*found) if found else None
            if chunk is None:
                return None
            out += chunk
        return out if len(out) == total else None

    _KINDS = tuple(_CODES) + (STRING, BLOB, BLOB_INDEX)  # noqa: RUF005 (MicroPython has no star here)

    def namespaces(self) -> dict[str, int]:
        """Name -> index of every namespace."""
        return {item.key: item.data[0] for page in self.pages for _, item in page.items() if item.ns == 0}

    def open(self, name: str) -> int:
        """The index of namespace *name*, made when it does not exist."""
        _check_key(name, INVALID_NAME)
        known = self.namespaces()
        if name in known:
            return known[name]
        taken = set(known.values())
        index = next((i for i in range(1, 255) if i not in taken), 0)
        if not index:
            raise error(NOT_ENOUGH_SPACE)
        self._put(0, U8, name.encode(), bytes((index,)))
        return index

    def set(self, ns: int, key: str, kind: int, data: bytes) -> None:
        """Stores *data* (integers in their own size, strings with their NUL); the same value writes nothing.

        Raises OSError KEY_TOO_LONG, VALUE_TOO_LONG, NOT_ENOUGH_SPACE.
        """
        _check_key(key, KEY_TOO_LONG)
        name, data = key.encode(), bytes(data)
        old = self._find(ns, name, self._KINDS)
        if old and old[2].type in (kind, BLOB if kind == BLOB_INDEX else kind) and self._value(*old) == data:
            return
        if kind == BLOB_INDEX:
            self._write_blob(ns, name, data, old)
        else:
            if kind == STRING and len(data) > CHUNK_MAX:
                raise error(VALUE_TOO_LONG)
            self._put(ns, kind, name, data)
        if old:
            # Pages may have been copied meanwhile: look again for the older copy, the first in page order.
            older = self._older(ns, name, old[2])
            if older:
                self._drop(*older)

    def _older(self, ns: int, key: bytes, old: Item) -> tuple[Page, int, Item] | None:
        """The replaced copy: of another type, with another blob numbering, or the first of two equal ones."""
        found = [
            (page, index, item)
            for page in self.pages
            for index, item in page.items()
            if item.ns == ns and item.type in self._KINDS and item.raw_key.split(b"\0")[0] == key
        ]
        if len(found) < 2:
            return None
        return next((entry for entry in found if entry[2].type == old.type and entry[2].data == old.data), None)

    def _write_blob(self, ns: int, key: bytes, data: bytes, old: tuple[Page, int, Item] | None) -> None:
        start = _STARTS[0]
        if old and old[2].type == BLOB_INDEX and old[2].data[5] == start:
            start = _STARTS[1]
        if len(data) > (len(self.pages) + len(self.free) - 1) * CHUNK_MAX:
            raise error(VALUE_TOO_LONG)
        count, at = 0, 0
        try:
            while True:
                room = self.pages[-1].room()
                if count == 0 and room < len(data) and room < CHUNK_MAX // 10:
                    self._turn()
                    if self.pages[-1].room() == room:
                        raise error(NOT_ENOUGH_SPACE)
                    continue
                if not room:
                    raise error(NOT_ENOUGH_SPACE)
                size = min(len(data) - at, room)
                self._put(ns, BLOB_DATA, key, data[at : at + size], start + count)
                count += 1
                at += size
                if at < len(data) or room - size < ENTRY:
                    self._turn()
                if at == len(data):
                    break
            self._put(ns, BLOB_INDEX, key, struct.pack("<IBBH", len(data), count, start, 0xFFFF))
        except OSError:
            self._drop_chunks(ns, key, start, count)
            raise

    def _drop_chunks(self, ns: int, key: bytes, start: int, count: int) -> None:
        for number in range(count):
            found = self._find(ns, key, (BLOB_DATA,), start + number)
            if found:
                found[0].drop(found[1], found[2])

    def _drop(self, page: Page, index: int, item: Item) -> None:
        page.drop(index, item)
        if item.type == BLOB_INDEX:
            self._drop_chunks(item.ns, item.raw_key.split(b"\0")[0], item.data[5], item.data[4])

    def get(self, ns: int, key: str, kind: int) -> bytes:
        """The bytes stored under *key* with this type; raises OSError NOT_FOUND."""
        _check_key(key, KEY_TOO_LONG)
        found = self._find(ns, key.encode(), (BLOB_INDEX, BLOB) if kind == BLOB_INDEX else (kind,))
        value = self._value(*found) if found else None
        if value is None:
            raise error(NOT_FOUND)
        return value

    def erase_key(self, ns: int, key: str) -> None:
        """Removes a key; raises OSError NOT_FOUND."""
        _check_key(key, KEY_TOO_LONG)
        found = self._find(ns, key.encode(), self._KINDS)
        if not found:
            raise error(NOT_FOUND)
        self._drop(*found)

    def get_int(self, ns: int, key: str, kind: int = I32) -> int:
        """An integer value."""
        return int(struct.unpack(_CODES[kind], self.get(ns, key, kind))[0])

    def set_int(self, ns: int, key: str, value: int, kind: int = I32) -> None:
        """Stores an integer; OverflowError when it does not fit its type, as on the 32-bit chip."""
        size, signed = 8 * (kind & 0x0F), kind & 0x10
        low, high = (-(1 << size - 1), 1 << size - 1) if signed else (0, 1 << size)
        if not low <= value < high:
            raise OverflowError("overflow converting long int to machine word")
        self.set(ns, key, kind, struct.pack(_CODES[kind], value))

    def dump(self) -> dict[str, dict[str, object]]:
        """Everything that can be read: namespace -> key -> int, str or bytes."""
        names = {index: name for name, index in self.namespaces().items()}
        out: dict[str, dict[str, object]] = {name: {} for name in names.values()}
        for page in self.pages:
            for index, item in page.items():
                if item.ns == 0 or item.ns not in names or item.type not in self._KINDS:
                    continue
                value = self._value(page, index, item)
                if value is None:
                    continue
                if item.type in _CODES:
                    out[names[item.ns]][item.key] = struct.unpack(_CODES[item.type], value)[0]
                elif item.type == STRING:
                    out[names[item.ns]][item.key] = str(value[:-1], "utf-8")
                else:
                    out[names[item.ns]][item.key] = value
        return out


def _same(a: Item, b: Item) -> bool:
    return (a.ns, a.type, a.chunk, a.raw_key) == (b.ns, b.type, b.chunk, b.raw_key)


def _check_key(key: str, number: int) -> None:
    if not key:
        raise error(INVALID_NAME)
    if len(key.encode()) > 15:
        raise error(number)


def mount(part) -> tuple[Nvs, bool]:  # type: ignore[no-untyped-def]
    """What MicroPython does with the `nvs` partition at start: mount it, or erase all of it when it is full or newer.

    Returns (Nvs, whether everything was erased). That is why counters and keys must not live there.
    """
    try:
        return Nvs(part), False
    except OSError as refused:
        if refused.args[0] not in (-NO_FREE_PAGES, -NEW_VERSION_FOUND):
            raise
    for sector in range(part.size // PAGE):
        part.erase(sector)
    return Nvs(part), True
