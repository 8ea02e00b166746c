"""ESP-IDF's otadata partition, read and written by the engine itself.

Two entries of 32 bytes, one a sector: u32 seq, 20 unused bytes, u32 state, u32 CRC of the seq bytes only. The
bootloader runs slot (seq - 1) % 2 of the active entry: the valid one with the larger seq, entry 0 on a tie.
`set_boot` and `mark_app_valid` act on the *active* entry, which after a fallback is not that of the running slot,
so they are never used (docs/flash-format.md, "otadata"; ESP-IDF bootloader_utility.c).
"""

from binascii import crc32
from struct import pack, unpack

from micropython import const

from .flash import SECTOR, is_blank, put
from .reasons import NOT_SELECTED, Refused

NEW = const(0)
PENDING = const(1)
VALID = const(2)
INVALID = const(3)
ABORTED = const(4)

_SIZE = const(32)


def entries(part) -> list:
    """Both entries as (seq, state), None where the bootloader would not count the entry as valid."""
    found = []
    buf = bytearray(_SIZE)
    for index in (0, 1):
        part.read(index * SECTOR, buf)
        seq, state, crc = unpack("<I20xII", buf)
        # seq 0 would select slot -1; it and all ones are "empty"
        bad = seq in (0, 0xFFFFFFFF) or state in (INVALID, ABORTED) or crc != crc32(buf[:4], 0xFFFFFFFF)
        found.append(None if bad else (seq, state))
    return found


def active(found: list) -> int:
    """The index of the active entry, or -1."""
    first, second = found
    if first and second:
        return 1 if second[0] > first[0] else 0
    return 0 if first else 1 if second else -1


def selected(part) -> tuple:
    """(slot, state) of the active entry; (-1, -1) where there is none."""
    found = entries(part)
    index = active(found)
    return (_slot(found[index]), found[index][1]) if index >= 0 else (-1, -1)


def write(part, index: int, seq: int, state: int) -> None:
    """Writes one entry and reads it back. A cut after the erase leaves it empty: the other entry counts then."""
    part.erase(index)
    head = pack("<I", seq)
    put(part, index * SECTOR, head + b"\xff" * 20 + pack("<II", state, crc32(head, 0xFFFFFFFF)))


def select(part, slot: int, state: int) -> None:
    """Makes *slot* the selected one, through the entry that is not active, so that a cut keeps the old choice."""
    found = entries(part)
    index = active(found)
    seq = found[index][0] if index >= 0 else 0
    if seq > 0xFFFFFFF0:  # only a hostile or broken writer gets here: start again from an empty table
        part.erase(0)
        part.erase(1)
        index, seq = 1, 0
    seq += 1 if seq & 1 == slot else 2
    write(part, 1 - index if index >= 0 else 0, seq, state)


def mark_valid(part, slot: int) -> None:
    """Rewrites the active entry as VALID; ``Refused(NOT_SELECTED)`` unless it selects *slot*."""
    found = entries(part)
    index = active(found)
    if index < 0 or _slot(found[index]) != slot:
        raise Refused(NOT_SELECTED)
    if found[index][1] != VALID:
        write(part, index, found[index][0], VALID)


def normalise(part, slot: int) -> None:
    """One entry selects *slot* as VALID, the other is erased."""
    found = entries(part)
    index = active(found)
    if index >= 0 and _slot(found[index]) == slot:
        mark_valid(part, slot)
    elif index >= 0 and found[1 - index] and _slot(found[1 - index]) == slot and found[1 - index][1] == VALID:
        part.erase(index)  # the older entry already says what is wanted
    else:
        select(part, slot, VALID)
    other = 1 - active(entries(part))
    if not is_blank(part, other):
        part.erase(other)


def _slot(entry: tuple) -> int:
    return (entry[0] - 1) & 1
