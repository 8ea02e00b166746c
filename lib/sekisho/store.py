"""Two-copy files on the `data` file system: a cut leaves the old or the new content, never a half of one.

A file NAME is kept as NAME.0 and NAME.1. Each copy is complete in itself: magic `SKF1`, u32 serial, u32 length, u32 CRC
(zlib, over the 12 bytes before and the content), content. The newest intact copy counts, and the other one is
overwritten next. littlefs makes each single write atomic; the second copy is for the day it is itself damaged.
"""

import os
from binascii import crc32
from struct import pack, unpack_from

from micropython import const
from sekisho_boot.reasons import FLASH, Refused

MAX_CONTENT = const(8192)  # bytes
_HEADER = const(16)
_MAGIC = b"SKF1"


def _copy(path: str):
    """(serial, content) of one copy, or None where it is missing, damaged or too large."""
    try:
        size = os.stat(path)[6] - _HEADER
        if not 0 <= size <= MAX_CONTENT:
            return None
        with open(path, "rb") as file:
            head = file.read(_HEADER)
            content = file.read(size)
    except (OSError, MemoryError):
        return None
    if len(head) != _HEADER or len(content) != size:
        return None
    magic, serial, length, crc = unpack_from("<4sIII", head)
    if magic != _MAGIC or length != size or crc32(content, crc32(head[:12])) != crc:
        return None
    return serial, content


def _newest(path: str) -> tuple:
    """(serial, content or None, number of the copy to write next)."""
    best = (0, None, 0)
    for number in (0, 1):
        found = _copy("%s.%d" % (path, number))
        if found and found[0] > best[0]:
            best = (found[0], found[1], 1 - number)
    return best


def load(path: str):
    """The content of the file as bytes, or None where no intact copy is left."""
    return _newest(path)[1]


def save(path: str, content: bytes) -> None:
    """Replaces the content and reads it back. Raises Refused(FLASH) where the file system is absent, full or bad."""
    serial, _, number = _newest(path)
    name = "%s.%d" % (path, number)
    head = _MAGIC + pack("<II", serial + 1, len(content))
    try:
        with open(name, "wb") as file:
            file.write(head + pack("<I", crc32(content, crc32(head))))
            file.write(content)
    except OSError:
        raise Refused(FLASH)
    if _copy(name) != (serial + 1, content):
        raise Refused(FLASH)


def remove(path: str) -> None:
    """Forgets both copies; only an erase of the flash destroys them."""
    for number in (0, 1):
        try:
            os.remove("%s.%d" % (path, number))
        except OSError:
            pass
