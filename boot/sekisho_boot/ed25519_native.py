"""Arithmetic modulo 2^255 - 19 as machine code of the chip, through MicroPython's viper emitter.

`ed25519` imports it where it can and believes it only after a known answer. A number is 20 limbs of 13 bits in 16-bit
slots of one array; 2^260 = 608. docs/crypto.md has the bounds: no limb, sum or product ever needs more than 32 bits.
The array is one for all, so this is for one thread.
"""

import struct

import micropython

P = (1 << 255) - 19

# Numbers: X 0, Y 1, Z 2, T 3, A to H 4 to 11, a table entry of the base point 14 to 16, other tables from 18 on.
_room = bytearray(50 * 40)
_low = bytearray(40)
_job: list = [b"", 0, 0]

# Doubling and addition as in `ed25519.portable_joint`; 128 to 131 are the numbers of the table entry.
_DOUBLE = (
    b"\x00\x04\x00\x00\x00\x05\x01\x01\x00\x06\x02\x02\x00\x08\x00\x01\x01\x08\x08\x08"  # A, B, C, E = XY, 2E
    b"\x02\x0a\x05\x04\x01\x0b\x05\x04\x01\x09\x06\x06\x02\x09\x09\x0a"  # G = B - A, H = B + A, F = 2C - G
)
_LAST = b"\x00\x00\x08\x09\x00\x01\x0a\x0b\x00\x02\x09\x0a"  # X = EF, Y = GH, Z = FG
_FIRST = b"\x00\x03\x08\x0b\x02\x04\x01\x00\x01\x05\x01\x00"  # T = EH, A = Y - X, B = Y + X
_PLUS = b"\x00\x04\x04\x80\x00\x05\x05\x81", b"\x02\x09\x07\x06\x01\x0a\x07\x06"  # F = D - C, G = D + C
_MINUS = b"\x00\x04\x04\x81\x00\x05\x05\x80", b"\x02\x0a\x07\x06\x01\x09\x07\x06"
_C = b"\x00\x06\x03\x82"
_D = b"\x00\x07\x02\x83", b"\x01\x07\x02\x02"  # Z (2 z2), 2Z
_E = b"\x02\x08\x05\x04\x01\x0b\x05\x04"  # E = B - A, H = B + A
_ADD = [_FIRST + sign[0] + _C + d + _E + sign[1] + _LAST for d in _D for sign in (_PLUS, _MINUS)]


@micropython.viper
def load(number: int, data, at: int, count: int):
    """Take *count* numbers of 32 bytes, least significant first, out of *data* from *at* on."""
    o = ptr16(uint(ptr8(_room)) + number * 40)
    p = ptr8(uint(ptr8(data)) + at)
    while count > 0:
        i = 0
        at = 0
        while i < 19:
            j = at >> 3
            o[i] = (p[j] | p[j + 1] << 8 | p[j + 2] << 16) >> (at & 7) & 8191
            at += 13
            i += 1
        o[19] = (p[30] | p[31] << 8) >> 7
        o = ptr16(uint(o) + 40)
        p = ptr8(uint(p) + 32)
        count -= 1


@micropython.viper
def _run():
    x = uint(0)  # the first three get registers
    y = uint(0)
    i = 0
    room = uint(ptr8(_room))
    low = ptr16(_low)
    p = ptr8(_job[0])
    n = int(_job[1])
    entry = int(_job[2])
    while n > 0:
        n -= 4
        o = ptr16(room + p[1] * 40)
        i = p[2]
        if i & 128:
            i += entry - 128
        a = ptr16(room + i * 40)
        i = p[3]
        if i & 128:
            i += entry - 128
        b = ptr16(room + i * 40)
        y = uint(0)
        i = 0
        if p[0]:
            if p[0] == 2:
                # a - b + 64 P; the limbs of 64 P are 15168 and nineteen times 16382.
                x = uint(15168)
                while i < 20:
                    y = (y >> 13) + x + uint(a[i]) - uint(b[i])
                    o[i] = int(y & 8191)
                    x = uint(16382)
                    i += 1
            else:
                while i < 20:
                    y = (y >> 13) + uint(a[i]) + uint(b[i])
                    o[i] = int(y & 8191)
                    i += 1
        else:
            b0 = uint(b[0])
            b1 = uint(b[1])
            b2 = uint(b[2])
            b3 = uint(b[3])
            b4 = uint(b[4])
            b5 = uint(b[5])
            b6 = uint(b[6])
            b7 = uint(b[7])
            b8 = uint(b[8])
            b9 = uint(b[9])
            b10 = uint(b[10])
            b11 = uint(b[11])
            b12 = uint(b[12])
            b13 = uint(b[13])
            b14 = uint(b[14])
            b15 = uint(b[15])
            b16 = uint(b[16])
            b17 = uint(b[17])
            b18 = uint(b[18])
            b19 = uint(b[19])
            c0 = uint(0)
            c1 = uint(0)
            c2 = uint(0)
            c3 = uint(0)
            c4 = uint(0)
            c5 = uint(0)
            c6 = uint(0)
            c7 = uint(0)
            c8 = uint(0)
            c9 = uint(0)
            c10 = uint(0)
            c11 = uint(0)
            c12 = uint(0)
            c13 = uint(0)
            c14 = uint(0)
            c15 = uint(0)
            c16 = uint(0)
            c17 = uint(0)
            c18 = uint(0)
            while i < 20:
                x = uint(a[i])
                y = b0 * x + c0
                low[i] = int(y & 8191)
                c0 = b1 * x + c1 + (y >> 13)
                c1 = b2 * x + c2
                c2 = b3 * x + c3
                c3 = b4 * x + c4
                c4 = b5 * x + c5
                c5 = b6 * x + c6
                c6 = b7 * x + c7
                c7 = b8 * x + c8
                c8 = b9 * x + c9
                c9 = b10 * x + c10
                c10 = b11 * x + c11
                c11 = b12 * x + c12
                c12 = b13 * x + c13
                c13 = b14 * x + c14
                c14 = b15 * x + c15
                c15 = b16 * x + c16
                c16 = b17 * x + c17
                c17 = b18 * x + c18
                c18 = b19 * x
                i += 1
            y = uint(0)
            y = (c0 & 8191) * 608 + uint(low[0]) + (y >> 13)
            o[0] = int(y & 8191)
            c1 += c0 >> 13
            y = (c1 & 8191) * 608 + uint(low[1]) + (y >> 13)
            o[1] = int(y & 8191)
            c2 += c1 >> 13
            y = (c2 & 8191) * 608 + uint(low[2]) + (y >> 13)
            o[2] = int(y & 8191)
            c3 += c2 >> 13
            y = (c3 & 8191) * 608 + uint(low[3]) + (y >> 13)
            o[3] = int(y & 8191)
            c4 += c3 >> 13
            y = (c4 & 8191) * 608 + uint(low[4]) + (y >> 13)
            o[4] = int(y & 8191)
            c5 += c4 >> 13
            y = (c5 & 8191) * 608 + uint(low[5]) + (y >> 13)
            o[5] = int(y & 8191)
            c6 += c5 >> 13
            y = (c6 & 8191) * 608 + uint(low[6]) + (y >> 13)
            o[6] = int(y & 8191)
            c7 += c6 >> 13
            y = (c7 & 8191) * 608 + uint(low[7]) + (y >> 13)
            o[7] = int(y & 8191)
            c8 += c7 >> 13
            y = (c8 & 8191) * 608 + uint(low[8]) + (y >> 13)
            o[8] = int(y & 8191)
            c9 += c8 >> 13
            y = (c9 & 8191) * 608 + uint(low[9]) + (y >> 13)
            o[9] = int(y & 8191)
            c10 += c9 >> 13
            y = (c10 & 8191) * 608 + uint(low[10]) + (y >> 13)
            o[10] = int(y & 8191)
            c11 += c10 >> 13
            y = (c11 & 8191) * 608 + uint(low[11]) + (y >> 13)
            o[11] = int(y & 8191)
            c12 += c11 >> 13
            y = (c12 & 8191) * 608 + uint(low[12]) + (y >> 13)
            o[12] = int(y & 8191)
            c13 += c12 >> 13
            y = (c13 & 8191) * 608 + uint(low[13]) + (y >> 13)
            o[13] = int(y & 8191)
            c14 += c13 >> 13
            y = (c14 & 8191) * 608 + uint(low[14]) + (y >> 13)
            o[14] = int(y & 8191)
            c15 += c14 >> 13
            y = (c15 & 8191) * 608 + uint(low[15]) + (y >> 13)
            o[15] = int(y & 8191)
            c16 += c15 >> 13
            y = (c16 & 8191) * 608 + uint(low[16]) + (y >> 13)
            o[16] = int(y & 8191)
            c17 += c16 >> 13
            y = (c17 & 8191) * 608 + uint(low[17]) + (y >> 13)
            o[17] = int(y & 8191)
            c18 += c17 >> 13
            y = (c18 & 8191) * 608 + uint(low[18]) + (y >> 13)
            o[18] = int(y & 8191)
            y = (c18 >> 13) * 608 + uint(low[19]) + (y >> 13)
            o[19] = int(y & 8191)
        # What is above 2^260 comes back in at the bottom.
        y = (y >> 13) * 608 + uint(o[0])
        o[0] = int(y & 8191)
        o[1] += int(y >> 13)
        p = ptr8(uint(p) + 4)


def run(program, entry: int) -> None:
    """Execute *program*, four bytes an operation: which (0 product, 1 sum, 2 difference), result, left, right.

    Operands are numbers in the array; from 128 on they count from *entry*.
    """
    _job[:] = program, len(program), entry
    _run()


def _number(number: int) -> int:
    """Its value; below 2^261."""
    x = 0
    for limb in reversed(struct.unpack_from("20H", _room, number * 40)):
        x = (x << 13) + limb
    return x


def power(z: int, chain: bytes) -> int:
    """As `ed25519.portable_power`."""
    load(0, z.to_bytes(32, "little"), 0, 1)
    for i in range(0, len(chain), 4):
        a, n, b, c = chain[i : i + 4]
        run(bytes((0, 3, a, a)) + b"\x00\x03\x03\x03" * (n - 1) + bytes((0, c, 3, b)), 0)
    return _number(2) % P


def joint(todo: list, tables: tuple) -> tuple:
    """As `ed25519.portable_joint`."""
    at = 18
    for table in tables[4:]:
        for a, b, c, d in table:
            for value in (a, b, c, d or 2):
                load(at, (value % P).to_bytes(32, "little"), 0, 1)
                at += 1
    for at, value in enumerate((0, 1, 1)):
        load(at, value.to_bytes(32, "little"), 0, 1)
    double = _DOUBLE + _LAST
    for i in range(len(todo) - 1, -1, -1):
        run(double, 0)
        n = todo[i]
        while n > 1:
            table = n >> 4 & 7
            if table > 3:
                run(_ADD[n & 1], 16 * table - 46 + 4 * (n >> 1 & 7))
            else:
                load(14, tables[0], (n >> 1 & 31) * 96, 3)
                run(_ADD[n & 1 | 2], 14)
            n >>= 7
    return _number(0) % P, _number(1) % P, _number(2) % P
