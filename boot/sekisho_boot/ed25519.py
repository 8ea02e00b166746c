"""Ed25519 verification (RFC 8032 section 5.1.7), strict and cofactorless.

docs/decisions/0003-ed25519-acceptance.md says what is accepted, docs/crypto.md explains the arithmetic and proves its
bounds. What is portable folds, x = (x & M) + 19 (x >> 255), where the textbook divides by P. Where MicroPython can make
machine code, `ed25519_native` takes the place of `portable_joint` and `portable_power`.
"""

from .ed25519_table import BASE
from .sha512 import sha512

P = (1 << 255) - 19
L = (1 << 252) + 27742317777372353535851937790883648493
_M = (1 << 255) - 1
_D = 37095705934669439343138083508754565189542113879843219016388785533085940283555
_D2 = 16295367250680780974490674513165176452449235426866156013048779062215315747161
_SQRT_M1 = 19681161376707505956807079304988542015446066515923890162744021073123829784752

# z^(2^252 - 3): square number a n times, multiply by number b, gives number c; four bytes a step, number 0 is z.
_POWER = (
    b"\x00\x01\x00\x01\x01\x02\x01\x01\x01\x01\x00\x01\x01\x05\x01\x01\x01\x0a\x01\x02\x02\x14\x02\x02"
    b"\x02\x0a\x01\x01\x01\x32\x01\x02\x02\x64\x02\x02\x02\x32\x01\x02\x02\x02\x00\x02"
)
_RIGHT = 237404112368964814161216039124228351951081479480848243432042791122950925425402  # from `_answer`
_recent = []  # up to two (public key, multiples): keys come back


def _mul(x, y):
    """x y, in 0..P-1."""
    x *= y
    return ((x & _M) + (x >> 255) * 19) % P


def portable_power(z: int, chain: bytes) -> int:
    """z to the power that *chain* describes, in 0..P-1."""
    p = P
    m = _M
    number = [z, 0, 0]
    for i in range(0, len(chain), 4):
        a, n, b, c = chain[i : i + 4]
        x = number[a]
        for _ in range(n >> 1):
            x *= x
            x = (x & m) + (x >> 255) * 19
            x *= x
            x = ((x & m) + (x >> 255) * 19) % p
        if n & 1:
            x = _mul(x, x)
        number[c] = _mul(x, number[b])
    return number[2]


def decompress(data: bytes):
    """The affine point of a 32-byte encoding, or None: not canonical, not on the curve, or of small order."""
    y = int.from_bytes(data, "little") & _M
    yy = y * y % P
    u = yy - 1
    v = (_D * yy + 1) % P
    # Orders 1 and 2 have y^2 = 1, order 4 has y = 0, order 8 has x^2 = -y^2.
    if y >= P or u == 0 or yy == 0 or (u + yy * v) % P == 0:
        return None
    x = _mul(_mul(v, v), v)
    x = _mul(_mul(u, x), power(_mul(_mul(x, x), _mul(u, v)), _POWER))
    w = _mul(_mul(x, x), v)
    if w + u == P:
        x = _mul(x, _SQRT_M1)
    elif w != u:
        return None
    return (x if x & 1 == data[31] >> 7 else P - x), y


def _multiples(point):
    """1, 3, 5 and 7 times an affine point, each as (y - x, y + x, 2dt, 2z); 0 stands for 2z = 2."""
    x, y = point
    t = _mul(x, y)
    z = 1
    m2, p2, d2, z2 = y - x, y + x, _mul(t, _D2), 0
    out = [(m2, p2, d2, z2)]
    a, b = _mul(x, x), _mul(y, y)
    e, f, g, h = t + t, 2 + a - b, b - a, b + a  # doubling, as in joint
    while True:
        x, y, z, t = _mul(e, f), _mul(g, h), _mul(f, g), _mul(e, h)
        q = y - x, y + x, _mul(t, _D2), z + z
        if len(out) == 1 and z2 == 0:
            m2, p2, d2, z2 = q
            x, y = point
            t = _mul(x, y)
            z = 1
        else:
            out.append(q)
            if len(out) == 4:
                return out
        a, b, c, d = _mul(y - x, m2), _mul(y + x, p2), _mul(t, d2), _mul(z, z2)
        e, f, g, h = b - a, d - c, d + c, b + a


def euclid(a: int, b: int, size: int) -> tuple:
    """Extended Euclid until b < 2^size: (a, s, b, t) with a = s b0 and b = t b0 modulo a0; s or t is negative."""
    s = 0
    t = 1
    while b >> size:
        q, r = divmod(a, b)
        a, b, s, t = b, r, t, s - q * t
    return a, s, b, t


def _recode(todo, k, bits, width, code):
    """Writes k into *todo*: every *bits* bits in non-adjacent form, odd digits below 2^(width-1), with their own table.

    todo[i] grows by seven bits for a digit of weight 2^i: table (3, from *code* on), half the digit (3), sign (1).
    """
    if k < 0:
        k = -k
        code ^= 1
    full = 1 << width
    if not k >> 136:
        bits = min(bits, 136)
    while k:
        data = (k & (1 << bits) - 1).to_bytes(bits // 8 + 4, "little")
        k >>= bits
        i = carry = 0
        while i <= bits:
            d = (data[i >> 3] | data[(i >> 3) + 1] << 8 | data[(i >> 3) + 2] << 16) >> (i & 7)
            skip = d ^ -carry | 4096  # bits equal to the carry are skipped, twelve at most
            while not skip & 1:
                skip >>= 1
                d >>= 1
                i += 1
            if d & 1 == carry:
                continue
            d = (d & full - 1) + carry
            carry = d >> width - 1
            while len(todo) <= i:
                todo.append(1)
            todo[i] = todo[i] << 7 | (full - d & -2 | code ^ 1 if carry else d & -2 | code)
            i += width
        code += 16


def portable_joint(todo: list, tables: tuple) -> tuple:
    """The point (x, y, z) that *todo* describes: a sum of table entries times powers of two.

    Straus: one doubling a bit, and an addition for each digit. Doubling and addition as in Hisil, Wong, Carter, Dawson
    2008, sections 3.1 and 3.3, with a = -1; both are complete on this curve.
    """
    p = P
    m = _M
    x = 0
    y = z = 1
    for i in range(len(todo) - 1, -1, -1):
        a = x * x
        a = (a & m) + (a >> 255) * 19
        b = y * y
        b = (b & m) + (b >> 255) * 19
        c = z * z
        c = (c & m) + (c >> 255) * 19
        e = x * y
        e = (e & m) + (e >> 255) * 19
        e += e
        g = b - a
        h = b + a
        f = c + c - g
        x = e * f
        x = (x & m) + (x >> 255) * 19
        y = g * h
        y = (y & m) + (y >> 255) * 19
        z = f * g
        z = (z & m) + (z >> 255) * 19
        n = todo[i]
        if n == 1:
            x %= p
            y %= p
            z %= p
        while n > 1:
            t = e * h
            t = (t & m) + (t >> 255) * 19
            q = tables[n >> 4 & 7]
            if type(q) is list:
                a, b, c, d = q[n >> 1 & 7]
            else:
                d = (n >> 1 & 31) * 96
                a = int.from_bytes(q[d : d + 32], "little")
                b = int.from_bytes(q[d + 32 : d + 64], "little")
                c = int.from_bytes(q[d + 64 : d + 96], "little")
                d = 0
            if n & 1:
                a, b = b, a
            a *= y - x
            a = (a & m) + (a >> 255) * 19
            b *= y + x
            b = (b & m) + (b >> 255) * 19
            c *= t
            c = (c & m) + (c >> 255) * 19
            if d:
                d *= z
                d = (d & m) + (d >> 255) * 19
            else:
                d = z + z
            e = b - a
            h = b + a
            f = d - c
            g = d + c
            if n & 1:
                f, g = g, f
            x = e * f
            x = ((x & m) + (x >> 255) * 19) % p
            y = g * h
            y = ((y & m) + (y >> 255) * 19) % p
            z = f * g
            z = ((z & m) + (z >> 255) * 19) % p
            n >>= 7
    return x, y, z


def _answer(joint):
    """What *joint* makes of an entry of each kind; a number instead of a second calculation, since every start asks."""
    table = [(P - 1, P >> 1, _D2, _D), (_M ^ 1, _D, P - 2, 0)] * 2
    todo = [1 << 28 | 69 << 21 | 66 << 14 | 81 << 7 | 70, 17 << 7 | 2]
    x, y, z = joint(todo, (BASE, BASE, BASE, BASE, table, table))
    return x + 3 * y + 5 * z


def _fastest():
    """The native `joint` and `power`, if there are any and `joint` gives the right answer; else the portable ones."""
    try:
        from .ed25519_native import joint, power

        if _answer(joint) == _RIGHT:
            return joint, power
    except Exception:
        pass  # as in `sha512`
    return portable_joint, portable_power


joint, power = _fastest()


def _key(data):
    """The multiples of a public key, remembered for the last two; None for a bad key."""
    for key in _recent:
        if key[0] == data:
            return key[1]
    point = decompress(data)
    if not point:
        return None
    if len(_recent) > 1:
        _recent.pop(0)
    _recent.append((data, _multiples(point)))
    return _recent[-1][1]


def verify(public_key, message, signature) -> bool:
    """True if *signature* (64 bytes) over *message* is by *public_key* (32 bytes); False for everything else.

    All bytes-like; other types and lengths are False too. S >= L, non-canonical and small-order A and R are refused.
    """
    if str in (type(public_key), type(message), type(signature)):
        return False  # MicroPython's memoryview takes text
    try:
        public_key = bytes(memoryview(public_key))
        signature = bytes(memoryview(signature))
        message = memoryview(message)
    except TypeError:
        return False
    s = int.from_bytes(signature[32:], "little")
    if len(public_key) != 32 or len(signature) != 64 or s >= L:
        return False
    r = signature[:32]
    h = int.from_bytes(sha512(r, public_key, message), "little") % L
    todo = []
    key = _key(public_key)
    r = key and decompress(r)
    if not r:
        return False
    # [S]B - [h]A - R = 0 times v, which is coprime to 8 L: [v S]B - [u]A - [v]R = 0 with u = v h modulo 8 L.
    u, w, t, v = euclid(8 * L, h, 128)
    if v & 1:
        u = t
    else:
        v = w
    _recode(todo, s * v % L, 64, 5, 0)
    _recode(todo, u, 264, 4, 65)
    _recode(todo, v, 264, 4, 81)
    x, y, z = joint(todo, (BASE, BASE, BASE, BASE, key, _multiples(r)))
    return x % P == 0 and (y - z) % P == 0
