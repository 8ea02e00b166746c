"""The one thin layer over flash. The only module of the engine that imports `esp32`, and only inside `find`.

A part has ``size`` (bytes), ``read(off, buf)`` (fills buf), ``program(off, buf)`` (clears bits, never sets one) and
``erase(sector)`` (one 4 KiB sector to all ones). The simulator's `MemPart` is its twin in memory.
"""

from micropython import const

from .reasons import FLASH, Refused

SECTOR = const(4096)
PAGE = const(256)


class Part:
    """A partition of the chip (`esp32.Partition`, 4 KiB blocks)."""

    def __init__(self, partition) -> None:
        self._partition = partition
        _, _, self.address, self.size, _, self.encrypted = partition.info()

    def read(self, off: int, buf) -> None:
        self._partition.readblocks(off >> 12, buf, off & 0xFFF)

    def program(self, off: int, buf) -> None:
        self._partition.writeblocks(off >> 12, buf, off & 0xFFF)  # with an offset it programs and does not erase

    def erase(self, sector: int) -> None:
        if self._partition.ioctl(6, sector) != 0:
            raise Refused(FLASH)


def find(kind: int, subtype: int, label=None):
    """The first partition of this type and subtype as a Part, or None."""
    from esp32 import Partition

    found = Partition.find(kind, subtype, label)
    return Part(found[0]) if found else None


def same(part, off: int, data) -> bool:
    """True if flash at *off* holds exactly *data*."""
    view, buf = memoryview(data), bytearray(PAGE)
    for start in range(0, len(view), PAGE):
        chunk = view[start : start + PAGE]
        got = memoryview(buf)[: len(chunk)]
        part.read(off + start, got)
        if got != chunk:
            return False
    return True


def put(part, off: int, data) -> None:
    """Programs *data* and reads it back; ``Refused(FLASH)`` if flash then holds anything else."""
    part.program(off, data)
    if not same(part, off, data):
        raise Refused(FLASH)


def is_blank(part, sector: int) -> bool:
    """True if the sector reads as all ones. A hint only: a torn erase can read so and still be unstable."""
    blank = b"\xff" * PAGE
    return all(same(part, off, blank) for off in range(sector * SECTOR, (sector + 1) * SECTOR, PAGE))


def feed(hasher, part, off: int, end: int, buf) -> None:
    """Updates *hasher* with flash from *off* to *end*, through the caller's buffer."""
    view = memoryview(buf)
    while off < end:
        chunk = view[: min(len(view), end - off)]
        part.read(off, chunk)
        hasher.update(chunk)
        off += len(chunk)
