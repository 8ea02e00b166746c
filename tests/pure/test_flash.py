"""The layer over flash: what it asks of a partition, what it reads back, and where it stops."""

import sys

from sekisho_boot import flash
from sekisho_boot.flash import Part
from writer import refusal

SECTOR = 4096


class Partition:
    """As `esp32.Partition`; notes what it is asked."""

    found = ()

    def __init__(self, result=0):
        self.asked = []
        self.result = result

    def info(self):
        return 1, 0x40, 0x10000, 0x20000, "sekisho", True

    def readblocks(self, block, buf, offset):
        self.asked.append(("read", block, len(buf), offset))

    def writeblocks(self, block, buf, offset):
        self.asked.append(("write", block, bytes(buf), offset))

    def ioctl(self, operation, argument):
        self.asked.append((operation, argument))
        return self.result

    @classmethod
    def find(cls, kind, subtype, label):
        return [one for one in cls.found if one[:3] == (kind, subtype, label)] and [Partition()]


class Memory:
    """A part in memory; *worn* is an offset whose lowest bit cannot be cleared."""

    def __init__(self, size=2 * SECTOR):
        self.content = bytearray(b"\xff" * size)
        self.worn = -1
        self.reads = []

    def read(self, off, buf):
        self.reads.append((off, len(buf)))
        buf[:] = self.content[off : off + len(buf)]

    def program(self, off, buf):
        for at in range(len(buf)):
            self.content[off + at] &= buf[at]
        if off <= self.worn < off + len(buf):
            self.content[self.worn] |= 1


class Hasher:
    def __init__(self):
        self.data = b""

    def update(self, data):
        self.data += bytes(data)


def test_a_part_speaks_in_blocks_of_a_sector_and_offsets_in_them():
    partition = Partition()
    part = Part(partition)
    assert (part.address, part.size, part.encrypted) == (0x10000, 0x20000, True)
    part.read(0x2FFF, bytearray(3))
    part.program(0x3000, b"ab")
    part.program(0x3ABC, b"c")
    part.erase(7)
    assert partition.asked == [
        ("read", 2, 3, 0xFFF),
        ("write", 3, b"ab", 0),
        ("write", 3, b"c", 0xABC),
        (6, 7),
    ]


def test_an_erase_that_fails_is_refused():
    for result in (-1, 1, None):
        assert refusal(lambda result=result: Part(Partition(result)).erase(1)) == "FLASH"


def test_a_partition_is_found_or_it_is_none():
    saved = sys.modules.get("esp32")

    class Module:
        pass

    Module.Partition = Partition
    sys.modules["esp32"] = Module
    try:
        Partition.found = (1, 0x40, None), (1, 0x41, "app_0")
        assert isinstance(flash.find(1, 0x40), Part)
        assert isinstance(flash.find(1, 0x41, "app_0"), Part)
        assert flash.find(1, 0x41, "app_1") is None
        assert flash.find(1, 0x42) is None
    finally:
        Partition.found = ()
        if saved is None:
            del sys.modules["esp32"]
        else:
            sys.modules["esp32"] = saved


def test_same_compares_every_byte_a_page_at_a_time():
    part = Memory()
    data = bytes([at & 255 for at in range(600)])
    part.content[100:700] = data
    assert flash.same(part, 100, data)
    assert part.reads == [(100, 256), (356, 256), (612, 88)]
    for place in (100, 355, 356, 611, 612, 699):
        part.content[place] ^= 1
        assert not flash.same(part, 100, data)
        part.content[place] ^= 1
    part.content[99] = part.content[700] = 0
    assert flash.same(part, 100, memoryview(data))
    assert flash.same(part, 5, b"")


def test_what_does_not_read_back_is_refused():
    part = Memory()
    flash.put(part, 16, b"abcd")
    assert part.content[14:22] == b"\xff\xffabcd\xff\xff"
    part.worn = 40
    assert refusal(lambda: flash.put(part, 30, bytes(20))) == "FLASH"
    flash.put(part, 50, bytes(20))


def test_a_sector_is_blank_where_every_byte_of_it_is():
    part = Memory(3 * SECTOR)
    assert flash.is_blank(part, 1)
    assert part.reads == [(SECTOR + at, 256) for at in range(0, SECTOR, 256)]
    for place in (SECTOR, SECTOR + 255, SECTOR + 256, 2 * SECTOR - 1):
        part.content[place] = 0xFE
        assert not flash.is_blank(part, 1)
        part.content[place] = 0xFF
    part.content[SECTOR - 1] = part.content[2 * SECTOR] = 0
    assert flash.is_blank(part, 1)


def test_a_hash_is_fed_with_what_lies_between_and_nothing_else():
    part = Memory()
    part.content[:] = bytes([at % 251 for at in range(len(part.content))])
    for off, end in ((0, 1000), (7, 7), (100, 164), (100, 165), (4000, 5000)):
        hasher = Hasher()
        flash.feed(hasher, part, off, end, bytearray(64))
        assert hasher.data == bytes(part.content[off:end])
    part.reads = []
    flash.feed(Hasher(), part, 10, 150, bytearray(64))
    assert part.reads == [(10, 64), (74, 64), (138, 12)]
