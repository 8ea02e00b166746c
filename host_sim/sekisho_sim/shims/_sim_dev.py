"""What the shims share: flash operations that are counted, recorded and can be cut short, and calls to the host.

A power cut is never an exception, because code can catch those: the process writes why it stops and then touches
address 0, which no handler and no ``finally`` survives. The host does to the flash what the cut leaves of the
operation that was about to start.
"""

import struct

import uctypes
from _sim_layout import (
    CAPACITY,
    COUNT,
    CUT,
    LOG,
    PENDING,
    RUNNING,
    RUNNING_SIZE,
    STOP,
    STOP_CUT,
    STOP_LOG_FULL,
    STOP_PANIC,
    USED,
)

port = None  # _sim_mem or _sim_file
host = None  # the host's file system, mounted nowhere
rpc_path = None
_request = _answer = None


def die(why, arg=0):
    port.put(STOP, why)
    port.put(STOP + 4, arg)
    while True:
        uctypes.bytearray_at(0, 1)[0] = 1


def panic(text):
    print("Guru Meditation Error:", text)
    die(STOP_PANIC)


def _guard(at, length):
    # The driver aborts on writes to the table, the bootloader and the running app (DANGEROUS_WRITE_ABORTS).
    start = port.get(RUNNING)
    if at < 0x8C00 or (at < start + port.get(RUNNING_SIZE) and at + length > start):
        panic("abort() was called: dangerous flash write at 0x%x" % at)


def _begin(kind, at, length, data):
    used = port.get(USED)
    need = 9 + len(data)
    if used + need > port.get(CAPACITY):
        die(STOP_LOG_FULL)
    port.poke(LOG + used, struct.pack("<BII", kind, at, length))
    if need > 9:
        port.poke(LOG + used + 9, data)
    port.put(PENDING, used + 1)
    if port.get(COUNT) == port.get(CUT):
        die(STOP_CUT)
    return used + need


def _end(used):
    port.put(USED, used)
    port.put(COUNT, port.get(COUNT) + 1)
    port.put(PENDING, 0)


def erase(at):
    _guard(at, 4096)
    used = _begin(0, at, 4096, b"")
    port.fill(at)
    _end(used)


def program(at, view):
    if not len(view):
        return
    _guard(at, len(view))
    used = _begin(1, at, len(view), view)
    port.clear_bits(at, view)
    _end(used)


def call(what, payload=b""):
    """Asks the host; returns its answer or raises the OSError it names."""
    global _request, _answer
    if _request is None:
        _request = host.open(rpc_path + ".ask", "wb")
        _answer = host.open(rpc_path + ".answer", "rb")
    _request.write(struct.pack("<HB", len(payload), what) + payload)
    status, length = struct.unpack("<iI", _answer.read(8))
    answer = _answer.read(length) if length else b""
    if status:
        if answer:
            raise OSError(status, str(answer, "utf-8"))
        raise OSError(status)
    return answer
