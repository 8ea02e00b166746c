"""Runs the Xtensa machine code that mpy-cross makes of viper functions: the code of a chip, without the chip.

An interpreter for the instructions that MicroPython's emitter uses (windowed ABI), with the entries of `mp_fun_table`
that viper functions call played in Python. It counts instructions, so that costs on ESP32 can be stated.
Sources: Xtensa Instruction Set Architecture reference manual; MicroPython's .mpy format 6 and order of `mp_fun_table`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path

MASK = 0xFFFFFFFF
CODE, OBJECTS, BUFFERS, STACK, SIZE = 0x1000, 0x10000, 0x20000, 0x3F000, 0x40000
CALLS = 0xF0000000  # where the entries of mp_fun_table seem to lie
NONE = 0xF1000000
LIMIT = 5_000_000  # instructions of one call

# Entries of mp_fun_table.
FROM_OBJECT, TO_OBJECT, SWAP_GLOBALS, LOAD_GLOBAL, SUBSCRIPT, ARGUMENTS = 3, 4, 5, 7, 15, 44


TABLE = object()  # mp_fun_table among the constants of a module


class XtensaError(Exception):
    """The code did something that this interpreter does not know."""


def signed(value: int, bits: int) -> int:
    """*value* read as a two's complement number of *bits* bits."""
    return value - (1 << bits) if value >> (bits - 1) & 1 else value


@dataclass
class Mpy:
    """The native functions of a module in the order of their definition, and its tables."""

    names: list[str | int]
    objects: list[object]
    functions: list[bytes]


def read_mpy(path: Path) -> Mpy:
    """Reads a `.mpy` file of format 6 whose functions are viper functions or bytecode."""
    data = path.read_bytes()
    if data[:2] != b"M\x06" or data[2] >> 2 & 15 != 10:
        raise XtensaError("this is no .mpy file of version 6 for xtensawin")
    at = 4

    def number() -> int:
        nonlocal at
        value = 0
        while True:
            at += 1
            value = value << 7 | data[at - 1] & 0x7F
            if data[at - 1] < 0x80:
                return value

    def take(count: int) -> bytes:
        nonlocal at
        at += count
        return data[at - count : at]

    if data[2] & 0x40:
        number()  # architecture flags
    counts = number(), number()
    names: list[str | int] = []
    for _ in range(counts[0]):
        length = number()
        names.append(length >> 1 if length & 1 else take((length >> 1) + 1)[:-1].decode())

    def constant() -> object:
        kind = take(1)[0]
        if kind < 5:
            return TABLE if kind == 0 else None
        if kind == 10:
            return tuple(constant() for _ in range(number()))
        content = take(number() + (kind in (5, 6)))
        return int(content) if kind == 7 else content

    objects = [constant() for _ in range(counts[1])]
    functions: list[bytes] = []

    def code() -> None:
        head = number()
        body = take(head >> 3)
        kind = (head & 3) + 2
        if kind == 4:
            functions.append(body)
            if number() & ~0x0F:
                raise XtensaError("a function with relocations")
        elif kind != 2:
            raise XtensaError("a function that is neither viper nor bytecode")
        for _ in range(number() if head & 4 else 0):
            code()

    code()
    return Mpy(names, objects, functions)


@dataclass
class Chip:
    """One core with a little memory; ``globals`` are the module's: bytearrays, lists and the names of viper's types."""

    module: Mpy
    globals: dict[str, object]
    executed: int = 0
    _memory: bytearray = field(default_factory=lambda: bytearray(SIZE))
    _known: dict[int, object] = field(default_factory=dict)
    _buffers: dict[int, tuple[int, object]] = field(default_factory=dict)
    _next: int = BUFFERS

    def call(self, index: int, *arguments: object) -> object:
        """Calls function number *index* of the module; buffers that are given change as the code changes them."""
        self._known.clear()
        self._buffers.clear()
        self._next = BUFFERS
        code = self.module.functions[index]
        self._memory[CODE : CODE + len(code)] = code
        table = OBJECTS + 0x100
        objects = [OBJECTS + 0x600 if value is TABLE else self._object(value) for value in self.module.objects]
        self._words(OBJECTS + 0x600, [NONE, NONE + 4, NONE + 8, *[CALLS + 4 * i for i in range(3, 80)]])
        self._words(table, objects)
        names = OBJECTS + 0x400
        struct.pack_into(f"<{len(self.module.names)}H", self._memory, names, *range(len(self.module.names)))
        self._words(OBJECTS + 0x40, [0, 0, names, table])  # mp_module_context_t
        self._words(OBJECTS, [0, OBJECTS + 0x40, 0, CODE])  # mp_obj_fun_bc_t
        self._words(OBJECTS + 0x800, [self._object(value) for value in arguments])
        result = self._run(OBJECTS, len(arguments), 0, OBJECTS + 0x800)
        for address, buffer in self._buffers.values():
            if isinstance(buffer, bytearray):
                buffer[:] = self._memory[address : address + len(buffer)]
        return self._value(result)

    # -- objects as the code sees them ----------------------------------------------------------------

    def _words(self, address: int, words: list[int]) -> None:
        struct.pack_into(f"<{len(words)}I", self._memory, address, *words)

    def _object(self, value: object) -> int:
        if value is None:
            return NONE
        if type(value) is int and -(1 << 30) <= value < 1 << 30:
            return (value << 1 | 1) & MASK
        for known, other in self._known.items():
            if other is value:
                return known
        handle = 0xF2000000 + 8 * len(self._known)
        self._known[handle] = value
        return handle

    def _value(self, handle: int) -> object:
        if handle & 1:
            return signed(handle, 32) >> 1
        return None if handle == NONE else self._known[handle]

    def _address(self, buffer: object) -> int:
        if not isinstance(buffer, (bytes, bytearray)):
            raise XtensaError(f"a pointer to {buffer!r}")
        if id(buffer) not in self._buffers:
            address = self._next
            self._next = address + len(buffer) + 15 & ~15
            self._memory[address : address + len(buffer)] = buffer
            self._buffers[id(buffer)] = address, buffer
        return self._buffers[id(buffer)][0]

    def _service(self, entry: int, a: list[int]) -> int:
        """An entry of mp_fun_table, with the arguments from a10 on."""
        if entry == FROM_OBJECT:
            value = self._value(a[10])
            return value & MASK if isinstance(value, int) else self._address(value)
        if entry == TO_OBJECT:
            return self._object(signed(a[10], 32))
        if entry == LOAD_GLOBAL:
            return self._object(self.globals[str(self.module.names[a[10]])])
        if entry == SUBSCRIPT:
            base = self._value(a[10])
            index = self._value(a[11])
            if not isinstance(base, list) or not isinstance(index, int):
                raise XtensaError("a subscript of something else than a list")
            return self._object(base[index])
        if entry in (SWAP_GLOBALS, ARGUMENTS):
            return 0  # the globals were the module's already; the number of arguments is right
        raise XtensaError(f"a call of entry {entry} of mp_fun_table")

    # -- instructions -----------------------------------------------------------------------------------

    def _run(self, *arguments: int) -> int:
        a = [0] * 16
        a[1] = STACK
        a[2 : 2 + len(arguments)] = arguments
        memory = self._memory
        pc, shift = CODE, 0
        start = self.executed
        while True:
            self.executed += 1
            if self.executed - start > LIMIT:
                raise XtensaError("this does not end")
            low = memory[pc] | memory[pc + 1] << 8
            op0, t, s, r = low & 15, low >> 4 & 15, low >> 8 & 15, low >> 12
            if op0 >= 8:  # two bytes
                here, pc = pc, pc + 2
                if op0 == 8:
                    (a[t],) = struct.unpack_from("<I", memory, a[s] + 4 * r)
                elif op0 == 9:
                    struct.pack_into("<I", memory, a[s] + 4 * r, a[t])
                elif op0 == 10:
                    a[r] = a[s] + a[t] & MASK
                elif op0 == 11:
                    a[r] = a[s] + (t or -1) & MASK
                elif op0 == 12 and t < 8:
                    value = (t & 7) << 4 | r
                    a[s] = (value - 128 if value >= 96 else value) & MASK
                elif op0 == 12:
                    if (a[s] == 0) != bool(t & 4):
                        pc = here + 4 + ((t & 3) << 4 | r)
                elif r == 0:
                    a[t] = a[s]
                elif r == 15 and t == 1:
                    return a[2]
                elif not (r == 15 and t == 3):
                    raise XtensaError(f"instruction {low:04x}")
                continue
            high = memory[pc + 2]
            here, pc = pc, pc + 3
            if op0 == 0:
                op1, op2 = high & 15, high >> 4
                if op1 == 0:
                    if op2 == 0 and r == 0 and t == 14:  # CALLX8
                        entry = a[s] - CALLS >> 2
                        if not 0 <= entry < 80:
                            raise XtensaError(f"a call to {a[s]:08x}")
                        a[10] = self._service(entry, a)
                    elif op2 == 0 and r == 0 and t == 10:  # JX
                        pc = a[s]
                    elif op2 == 0 and r == 0 and t == 9:  # RETW
                        return a[2]
                    elif op2 == 1:
                        a[r] = a[s] & a[t]
                    elif op2 == 2:
                        a[r] = a[s] | a[t]
                    elif op2 == 3:
                        a[r] = a[s] ^ a[t]
                    elif op2 == 4 and r == 0:  # SSR
                        shift = a[s] & 31
                    elif op2 == 4 and r == 1:  # SSL
                        shift = 32 - (a[s] & 31)
                    elif op2 == 6 and s == 0:
                        a[r] = -a[t] & MASK
                    elif op2 in (8, 9, 10, 11):  # ADD, ADDX2, ADDX4, ADDX8
                        a[r] = (a[s] << op2 - 8) + a[t] & MASK
                    elif op2 == 12:
                        a[r] = a[s] - a[t] & MASK
                    else:
                        raise XtensaError(f"instruction {high:02x}{low:04x}")
                elif op1 == 1:
                    if op2 < 2:  # SLLI
                        a[r] = a[s] << 32 - (op2 << 4 | t) & MASK
                    elif op2 < 4:  # SRAI
                        a[r] = signed(a[t], 32) >> ((op2 & 1) << 4 | s) & MASK
                    elif op2 == 4:  # SRLI
                        a[r] = a[t] >> s
                    elif op2 == 9:  # SRL
                        a[r] = a[t] >> shift
                    elif op2 == 10:  # SLL
                        a[r] = a[s] << 32 - shift & MASK
                    elif op2 == 11:  # SRA
                        a[r] = signed(a[t], 32) >> shift & MASK
                    else:
                        raise XtensaError(f"instruction {high:02x}{low:04x}")
                elif op1 == 2 and op2 == 8:  # MULL
                    a[r] = a[s] * a[t] & MASK
                elif op1 in (4, 5):  # EXTUI
                    a[r] = a[t] >> ((op1 & 1) << 4 | s) & (2 << op2) - 1
                else:
                    raise XtensaError(f"instruction {high:02x}{low:04x}")
            elif op0 == 1:  # L32R
                (a[t],) = struct.unpack_from("<I", memory, (pc & ~3) + ((low >> 8 | high << 8) - 0x10000) * 4)
            elif op0 == 2:
                if r == 0:
                    a[t] = memory[a[s] + high]
                elif r == 1:
                    (a[t],) = struct.unpack_from("<H", memory, a[s] + 2 * high)
                elif r == 2:
                    (a[t],) = struct.unpack_from("<I", memory, a[s] + 4 * high)
                elif r == 4:
                    memory[a[s] + high] = a[t] & 0xFF
                elif r == 5:
                    struct.pack_into("<H", memory, a[s] + 2 * high, a[t] & 0xFFFF)
                elif r == 6:
                    struct.pack_into("<I", memory, a[s] + 4 * high, a[t])
                elif r == 10:  # MOVI
                    a[t] = signed(s << 8 | high, 12) & MASK
                elif r in (12, 13):  # ADDI, ADDMI
                    a[t] = a[s] + (signed(high, 8) << (r - 12) * 8) & MASK
                else:
                    raise XtensaError(f"instruction {high:02x}{low:04x}")
            elif op0 == 6:
                kind, which = t & 3, t >> 2
                if kind == 0:  # J
                    pc = here + 4 + signed((low | high << 16) >> 6, 18)
                elif kind == 1:  # BEQZ, BNEZ, BLTZ, BGEZ
                    taken = (a[s] == 0, a[s] != 0, a[s] >> 31 == 1, a[s] >> 31 == 0)[which]
                    if taken:
                        pc = here + 4 + signed((low | high << 16) >> 12, 12)
                elif kind == 3 and which == 0:  # ENTRY
                    a[s] -= ((low | high << 16) >> 12) * 8
                else:
                    raise XtensaError(f"instruction {high:02x}{low:04x}")
            elif op0 == 7:
                x, y = a[s], a[t]
                if r & 7 == 1:
                    taken = x == y
                elif r & 7 == 2:
                    taken = signed(x, 32) < signed(y, 32)
                elif r & 7 == 3:
                    taken = x < y
                else:
                    raise XtensaError(f"instruction {high:02x}{low:04x}")
                if taken != bool(r & 8):
                    pc = here + 4 + signed(high, 8)
            else:
                raise XtensaError(f"instruction {high:02x}{low:04x}")
