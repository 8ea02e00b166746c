"""NOR flash as the chip has it: erase by sector, program from 1 to 0, every operation counted, any of them torn.

Sources: docs/flash-format.md for what lies in it; the model is that of a serial NOR flash behind ESP-IDF's driver:

* an erase sets a 4 KiB sector to FF;
* a program ANDs bytes into what is there, at any address and length, page by page (256 bytes), and never complains
  about a bit it cannot set;
* power that goes away during a program leaves the pages before as they should be, the current one with any part of
  its bits cleared, the rest untouched; during an erase it leaves the sector in any state.

Each operation is an `Op`. A log of them, replayed onto the bytes of before, gives the flash at any instant: that is how
power-cut tests make their cases (`cut_states`), without running the device again for each.
"""

from __future__ import annotations

import hashlib
import itertools
import mmap
import random
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

SECTOR = 4096
"""Bytes that one erase sets to FF."""
PAGE = 256
"""Bytes that the chip programs at once; a longer program is a row of these."""

Buffer = bytearray | memoryview | mmap.mmap

ERASE, PROGRAM = "erase", "program"
INVALID_ARG, INVALID_SIZE = 0x102, 0x104
"""ESP-IDF's error numbers; MicroPython raises them as negative errno."""


@dataclass(frozen=True)
class Op:
    """One flash operation: *kind* ``erase`` or ``program``, absolute *address*, *length* and *data* programmed."""

    kind: str
    address: int
    length: int
    data: bytes = b""

    def apply(self, flash: Buffer) -> None:
        """Do this operation, whole, on the bytes of a flash."""
        old = bytes(flash[self.address : self.address + self.length])
        flash[self.address : self.address + self.length] = self.result(old)

    def result(self, old: bytes) -> bytes:
        """What the cells under this operation hold when it is complete, given what they held."""
        return b"\xff" * self.length if self.kind == ERASE else _and(old, self.data)


class PowerCutError(Exception):
    """The power went away at the operation where the test wanted it; the flash holds what was left."""


class Flash:
    """A whole flash chip over *buffer* (a bytearray, or shared memory), with a log of its operations.

    ``log`` is the list of operations so far (set ``keep_log`` to False to only count them), ``erases``, ``programs``
    and ``programmed`` (bytes) are the counts. ``cut_at`` is the number of the operation (0 = the first) at which the
    power goes: the operation is left in the state that shape ``torn`` says (default: not begun) and `PowerCutError`
    is raised. It serves models that run inside the host, such as the bootloader; device code is killed instead.
    """

    def __init__(self, buffer: Buffer, *, keep_log: bool = True) -> None:
        self.buffer = buffer
        self.size = len(buffer)
        self.keep_log = keep_log
        self.log: list[Op] = []
        self.erases = self.programs = self.programmed = 0
        self.cut_at: int | None = None
        self.torn: str | None = None
        self.seed = 0

    @classmethod
    def blank(cls, size: int = 4 << 20) -> Flash:
        """A flash of *size* bytes as it comes from the factory, all FF."""
        return cls(bytearray(b"\xff" * size))

    @classmethod
    def open(cls, path: Path) -> Flash:
        """A flash whose bytes are the file *path*, shared with every process that maps it."""
        with path.open("r+b") as file:
            return cls(mmap.mmap(file.fileno(), 0))

    @property
    def count(self) -> int:
        """Operations so far, erases and programs together."""
        return self.erases + self.programs

    def read(self, address: int, length: int) -> bytes:
        """The *length* bytes at *address*."""
        self._check(address, length)
        return bytes(self.buffer[address : address + length])

    def program(self, address: int, data: bytes | bytearray | memoryview) -> None:
        """AND *data* into the flash at *address*; any alignment, any length."""
        self._check(address, len(data))
        self._do(Op(PROGRAM, address, len(data), bytes(data)))

    def erase(self, address: int, length: int = SECTOR) -> None:
        """Set *length* bytes at *address* to FF, one operation a sector; both must be multiples of 4096."""
        if length % SECTOR:
            raise OSError(-INVALID_SIZE, "ESP_ERR_INVALID_SIZE")
        if address % SECTOR:
            raise OSError(-INVALID_ARG, "ESP_ERR_INVALID_ARG")
        self._check(address, length)
        for at in range(address, address + length, SECTOR):
            self._do(Op(ERASE, at, SECTOR))

    def _check(self, address: int, length: int) -> None:
        if address < 0 or address > self.size:
            raise OSError(-INVALID_ARG, "ESP_ERR_INVALID_ARG")
        if address + length > self.size:
            raise OSError(-INVALID_SIZE, "ESP_ERR_INVALID_SIZE")

    def _do(self, op: Op) -> None:
        if self.cut_at is not None and self.count == self.cut_at:
            if self.torn:
                tear(self.buffer, op, self.torn, self.seed)
            raise PowerCutError(f"power lost at flash operation {self.cut_at}: {op.kind} 0x{op.address:x}")
        op.apply(self.buffer)
        if op.kind == ERASE:
            self.erases += 1
        else:
            self.programs += 1
            self.programmed += op.length
        if self.keep_log:
            self.log.append(op)


class MemPart:
    """The in-memory twin of `sekisho_boot.flash.Part`: one partition, of its own or a window into a `Flash`.

    Has ``size``, ``read(off, buf)``, ``program(off, buf)`` and ``erase(sector)`` with the errors of the real one.
    """

    def __init__(self, size: int, flash: Flash | None = None, offset: int = 0) -> None:
        self.flash = Flash.blank(size) if flash is None else flash
        self.offset = offset
        self.size = size

    def read(self, off: int, buf: bytearray | memoryview) -> None:
        """Fill *buf* with the bytes at *off*."""
        self._check(off, len(buf))
        buf[:] = self.flash.read(self.offset + off, len(buf))

    def program(self, off: int, buf: bytes | bytearray | memoryview) -> None:
        """AND *buf* into the bytes at *off*."""
        self._check(off, len(buf))
        self.flash.program(self.offset + off, buf)

    def erase(self, sector: int) -> None:
        """Erase 4 KiB *sector* of the partition."""
        self._check(sector * SECTOR, SECTOR)
        self.flash.erase(self.offset + sector * SECTOR)

    def _check(self, off: int, length: int) -> None:
        if off < 0 or off > self.size:
            raise OSError(-INVALID_ARG, "ESP_ERR_INVALID_ARG")
        if off + length > self.size:
            raise OSError(-INVALID_SIZE, "ESP_ERR_INVALID_SIZE")


# -- torn operations ------------------------------------------------------------------------------------------------
# A shape is a pure function (old bytes, new bytes, random) -> bytes left. For a program it sees the page that was being
# written when the power went (the caller completes the pages before), for an erase the whole sector.

Shape = Callable[[bytes, bytes, random.Random], bytes]


def _and(old: bytes, data: bytes) -> bytes:
    width = len(old)
    return (int.from_bytes(old, "little") & int.from_bytes(data, "little")).to_bytes(width, "little")


def _or(old: bytes, mask: bytes) -> bytes:
    width = len(old)
    return (int.from_bytes(old, "little") | int.from_bytes(mask, "little")).to_bytes(width, "little")


def _random_bits(old: bytes, new: bytes, rng: random.Random) -> bytes:
    """Each changing bit has changed or not, by chance."""
    mask = rng.randbytes(len(old))
    return bytes((o & m) | (n & ~m & 0xFF) for o, n, m in zip(old, new, mask, strict=True))


def _changing(old: bytes, new: bytes) -> list[int]:
    """Numbers of the bits (8 * byte + bit) that the operation changes."""
    return [8 * i + b for i, (o, n) in enumerate(zip(old, new, strict=True)) for b in range(8) if (o ^ n) >> b & 1]


def _flip(data: bytes, bits: Iterable[int]) -> bytes:
    out = bytearray(data)
    for bit in bits:
        out[bit >> 3] ^= 1 << (bit & 7)
    return bytes(out)


def _few(old: bytes, new: bytes, rng: random.Random, most: int) -> list[int]:
    bits = _changing(old, new)
    return rng.sample(bits, min(len(bits), rng.randint(1, most)))


PROGRAM_SHAPES: dict[str, Shape] = {
    "program-none": lambda old, _new, _rng: old,
    "program-low-half": lambda old, new, _rng: new[: len(old) // 2] + old[len(old) // 2 :],
    "program-high-half": lambda old, new, _rng: old[: len(old) // 2] + new[len(old) // 2 :],
    "program-first-word": lambda old, new, _rng: new[:4] + old[4:],
    "program-last-word": lambda old, new, _rng: old[: max(0, len(old) - 4)] + new[max(0, len(old) - 4) :],
    "program-all-but-last-word": lambda old, new, _rng: new[: max(0, len(old) - 4)] + old[max(0, len(old) - 4) :],
    "program-random-bits": _random_bits,
    "program-one-bit": lambda old, new, rng: _flip(old, _few(old, new, rng, 1)),
    "program-all-but-few-bits": lambda old, new, rng: _flip(new, _few(old, new, rng, 3)),
    "program-done": lambda _old, new, _rng: new,
}
"""What a program may have done to the page it was at. ``page-boundary`` is `program-none` with a page before it."""

ERASE_SHAPES: dict[str, Shape] = {
    "erase-untouched": lambda old, _new, _rng: old,
    "erase-first-half": lambda old, new, _rng: new[: len(old) // 2] + old[len(old) // 2 :],
    "erase-second-half": lambda old, new, _rng: old[: len(old) // 2] + new[len(old) // 2 :],
    "erase-random-bits": _random_bits,
    "erase-few-bits-set": lambda old, new, rng: _flip(old, _few(old, new, rng, 8)),
    "erase-few-zero-bits-left": lambda old, new, rng: _flip(new, _few(old, new, rng, 8)),
    "erase-all-zero": lambda old, _new, _rng: bytes(len(old)),
    "erase-noise": lambda old, _new, rng: rng.randbytes(len(old)),
    "erase-done": lambda _old, new, _rng: new,
}
"""What an erase may leave in its sector; some chips program all cells to 0 before they erase (``erase-all-zero``)."""

SHAPES = {**PROGRAM_SHAPES, **ERASE_SHAPES}


def shapes_for(op: Op) -> tuple[str, ...]:
    """Names of the shapes that fit *op*."""
    return tuple(ERASE_SHAPES if op.kind == ERASE else PROGRAM_SHAPES)


def pages_of(op: Op) -> list[tuple[int, int]]:
    """The pieces that a program is made of: (start, end) offsets within the operation, cut at page boundaries."""
    cuts = [0, *range(PAGE - op.address % PAGE, op.length, PAGE), op.length]
    return list(itertools.pairwise(cuts))


def torn(old: bytes, op: Op, shape: str, seed: int = 0) -> bytes:
    """What the cells under *op* hold when the power goes during it: *old* bytes, torn as *shape* says.

    *seed* fixes everything that is left to chance, among it the page of a long program at which the power went: with
    seed 0 the last page, so that ``program-none`` is then a cut at the page boundary. Raises ValueError when the
    shape is unknown or fits only the other kind of operation.
    """
    if shape not in shapes_for(op):
        raise ValueError(f"shape {shape!r} does not fit {op.kind}; known: {', '.join(shapes_for(op))}")
    rng = random.Random(f"{seed}:{shape}:{op.address}")  # noqa: S311 (a reproducible test, no secret)
    new = op.result(old)
    if op.kind == ERASE:
        return ERASE_SHAPES[shape](old, new, rng)
    pages = pages_of(op)
    start, end = pages[-1] if seed == 0 else rng.choice(pages)
    return new[:start] + PROGRAM_SHAPES[shape](old[start:end], new[start:end], rng) + old[end:]


def tear(flash: Buffer, op: Op, shape: str, seed: int = 0) -> None:
    """Do *op* on the bytes of a flash, torn as *shape* says (see `torn`)."""
    span = slice(op.address, op.address + op.length)
    flash[span] = torn(bytes(flash[span]), op, shape, seed)


# -- logs of operations ---------------------------------------------------------------------------------------------


def replay(base: bytes, ops: Iterable[Op]) -> bytearray:
    """The flash that held *base* after *ops*."""
    flash = bytearray(base)
    for op in ops:
        op.apply(flash)
    return flash


def cut_states(
    base: bytes, ops: Iterable[Op], seeds: Iterable[int] = (0,), *, unique: bool = True
) -> Iterator[tuple[str, bytes]]:
    """Every flash that a power cut during *ops* can leave: (id, bytes), boundaries and torn operations.

    The id names the case for good: ``"17"`` is a cut before operation 17, ``"17:erase-first-half:3"`` one inside it
    with that shape and seed. With *unique* a state that was already given is not given again.
    """
    flash = bytearray(base)
    seeds = tuple(seeds)
    known: set[bytes] = set()

    def new(state: bytes | bytearray) -> bool:
        if not unique:
            return True
        digest = hashlib.sha256(state).digest()
        if digest in known:
            return False
        known.add(digest)
        return True

    number = -1
    for number, op in enumerate(ops):
        if new(flash):
            yield str(number), bytes(flash)
        span = slice(op.address, op.address + op.length)
        old = bytes(flash[span])
        for shape in shapes_for(op):
            for seed in seeds:
                flash[span] = torn(old, op, shape, seed)
                if new(flash):
                    yield f"{number}:{shape}:{seed}", bytes(flash)
        flash[span] = op.result(old)
    if new(flash):
        yield str(number + 1), bytes(flash)


_RECORD = struct.Struct("<BII")
_KINDS = (ERASE, PROGRAM)


def encode_ops(ops: Iterable[Op]) -> bytes:
    """The bytes of an ``ops.bin``: per operation u8 kind (0 erase, 1 program), u32 address, u32 length, then the data
    of a program; little-endian."""
    return b"".join(_RECORD.pack(_KINDS.index(op.kind), op.address, op.length) + op.data for op in ops)


def decode_ops(data: bytes) -> list[Op]:
    """The operations of an ``ops.bin``; a record cut off at the end is left out."""
    ops, at = [], 0
    while at + _RECORD.size <= len(data):
        kind, address, length = _RECORD.unpack_from(data, at)
        at += _RECORD.size
        size = length if kind else 0
        if at + size > len(data):
            break
        ops.append(Op(_KINDS[kind], address, length, data[at : at + size]))
        at += size
    return ops
