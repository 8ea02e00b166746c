"""`esp32` as on the chip: partitions, NVS, heap figures. Errors as `check_esp_err` raises them."""

import struct

from _sim_dev import call, erase, port, program
from _sim_layout import (
    RPC_BOOT_PARTITION,
    RPC_MARK_VALID,
    RPC_NEXT_UPDATE,
    RPC_NVS,
    RPC_SET_BOOT,
    RUNNING,
    TABLE,
    TABLE_COUNT,
)

__name__ = "esp32"

HEAP_DATA = 4
HEAP_EXEC = 1
WAKEUP_ALL_LOW = False
WAKEUP_ANY_HIGH = True


def _fail(code, name):
    raise OSError(-code, name)


def _int(value):
    """As `mp_obj_get_int`: no floats."""
    if not isinstance(value, (int, bool)):
        raise TypeError("can't convert %s to int" % type(value).__name__)
    return value


def _records():
    for i in range(port.get(TABLE_COUNT)):
        yield struct.unpack("<HBBII16sI", port.peek(TABLE + 32 * i, 32))


def _at(address):
    for record in _records():
        if record[1] == 0 and record[4 - 1] == address:
            return record
    return None


class _Record:
    def __init__(self, fields):
        self.fields = fields


class Partition:
    BOOT = 0
    RUNNING = 1
    TYPE_APP = 0
    TYPE_DATA = 1

    def __init__(self, *args):
        if not 1 <= len(args) <= 2:
            raise TypeError
        id, block_size = args if len(args) == 2 else (args[0], 4096)
        _int(block_size)
        record = None
        if isinstance(id, int):
            if id == 0:
                record = _at(struct.unpack("<I", call(RPC_BOOT_PARTITION))[0])
            elif id == 1:
                record = _at(port.get(RUNNING))
            else:
                raise ValueError
        elif isinstance(id, str):
            label = id.encode()
            for kind in (0, 1):
                for r in _records():
                    if record is None and r[1] == kind and r[5].rstrip(b"\0") == label:
                        record = r
        elif isinstance(id, _Record):  # only this module passes one
            record = id.fields
        else:
            raise TypeError("can't convert %s to str" % type(id).__name__)
        if record is None:
            raise OSError(2)
        _, self._type, self._subtype, self._address, self._size, label, self._flags = record
        self._label = str(label.rstrip(b"\0")[:16], "utf-8")
        self._block = block_size & 0xFFFF
        self._cache = bytearray(4096) if self._block < 4096 else None

    @staticmethod
    def find(type=0, subtype=0xFF, label=None, block_size=4096):
        found = []
        for r in _records():
            if (
                (type == 0xFF or r[1] == type)
                and (subtype == 0xFF or r[2] == subtype)
                and (label is None or r[5].rstrip(b"\0") == label.encode())
            ):
                found.append(Partition(_Record(r), block_size))
        return found

    def __repr__(self):
        return "<Partition type=%d, subtype=%d, address=%d, size=%d, label=%s, encrypted=%d>" % self.info()

    def info(self):
        return (self._type, self._subtype, self._address, self._size, self._label, bool(self._flags & 1))

    def _span(self, off, length):
        if off > self._size:
            _fail(0x102, "ESP_ERR_INVALID_ARG")
        if off + length > self._size:
            _fail(0x104, "ESP_ERR_INVALID_SIZE")

    def _write(self, off, view):
        if self._flags & 2:
            _fail(0x10D, "ESP_ERR_NOT_ALLOWED")
        self._span(off, len(view))
        if self._flags & 1:
            if off % 16:
                _fail(0x102, "ESP_ERR_INVALID_ARG")
            if len(view) % 16:
                _fail(0x104, "ESP_ERR_INVALID_SIZE")
        program(self._address + off, view)

    def _erase(self, off, length):
        if self._flags & 2:
            _fail(0x10D, "ESP_ERR_NOT_ALLOWED")
        self._span(off, length)
        if length % 4096:
            _fail(0x104, "ESP_ERR_INVALID_SIZE")
        if off % 4096:
            _fail(0x102, "ESP_ERR_INVALID_ARG")
        for at in range(off, off + length, 4096):
            erase(self._address + at)

    # No keywords here, as in C: MicroPython takes those arguments by position only.
    def readblocks(self, n, buf, *off):
        at = (_int(n) * self._block + (_int(*off) if off else 0)) & 0xFFFFFFFF
        view = memoryview(buf)
        view[:0] = b""  # TypeError for a read-only one, before anything else is looked at
        self._span(at, len(view))
        port.load(self._address + at, view)

    def writeblocks(self, n, buf, *off):
        view = memoryview(buf)
        if off:
            self._write((_int(n) * self._block + _int(*off)) & 0xFFFFFFFF, view)
            return
        at = _int(n) * self._block & 0xFFFFFFFF
        if self._cache is None:
            self._erase(at, len(view))
            self._write(at, view)
            return
        done = 0
        while done < len(view):
            sector = (at + done) & ~4095
            skip = at + done - sector
            k = min(4096 - skip, len(view) - done)
            self._span(sector, 4096)
            port.load(self._address + sector, memoryview(self._cache))
            self._cache[skip : skip + k] = view[done : done + k]
            self._erase(sector, 4096)
            self._write(sector, memoryview(self._cache))
            done += k

    def ioctl(self, op, arg):
        op = _int(op)
        if op in (1, 2, 3):
            return 0
        if op == 4:
            return self._size // self._block
        if op == 5:
            return self._block
        if op == 6:
            if self._block != 4096:
                return -22
            self._erase(_int(arg) * 4096 & 0xFFFFFFFF, 4096)
            return 0
        return None

    def set_boot(self):
        call(RPC_SET_BOOT, struct.pack("<I", self._address))

    def get_next_update(self):
        record = _at(struct.unpack("<I", call(RPC_NEXT_UPDATE, struct.pack("<I", self._address)))[0])
        if record is None:
            raise OSError(2)
        return Partition(_Record(record))

    @staticmethod
    def mark_app_valid_cancel_rollback():
        call(RPC_MARK_VALID)


class NVS:
    """Every call is a call to the host, which keeps the real on-flash format."""

    def __init__(self, namespace):
        self._handle = call(RPC_NVS, b"open\0" + namespace.encode())

    def _call(self, verb, key, data=b""):
        return call(RPC_NVS, verb + b"\0" + self._handle + b"\0" + key.encode() + b"\0" + data)

    def set_i32(self, key, value):
        value = _int(value)
        if not -0x80000000 <= value <= 0x7FFFFFFF:
            raise OverflowError("overflow converting long int to machine word")
        self._call(b"set_i32", key, struct.pack("<i", value))

    def get_i32(self, key):
        return struct.unpack("<i", self._call(b"get_i32", key))[0]

    def set_blob(self, key, value):
        self._call(b"set_blob", key, bytes(memoryview(value)))

    def get_blob(self, key, buf):
        memoryview(buf)[:0] = b""
        blob = self._call(b"get_blob", key)
        if len(blob) > len(buf):
            _fail(0x110C, "ESP_ERR_NVS_INVALID_LENGTH")
        memoryview(buf)[: len(blob)] = blob
        return len(blob)

    def erase_key(self, key):
        self._call(b"erase_key", key)

    def commit(self):
        pass


def idf_heap_info(kind):
    return [(7288, 0, 0, 0), (15056, 9000, 9000, 8600), (112488, 62000, 61000, 60000)] if kind == HEAP_DATA else []


def mcu_temperature():
    return 40
