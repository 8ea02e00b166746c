"""Ed25519 verification (RFC 8032 section 5.1.7), strict and cofactorless."""

from .sha512 import sha512

P = (1 << 255) - 19
L = (1 << 252) + 27742317777372353535851937790883648493
D = 37095705934669439343138083508754565189542113879843219016388785533085940283555
_SQRT_M1 = 19681161376707505956807079304988542015446066515923890162744021073123829784752
_B = (
    15112221349535400772501151409588531511454012693041857206046113283949847762202,
    46316835694926478169428394003475163141307993866256225615783033603165251855960,
)


def _decompress(data):
    """The affine point of a 32-byte encoding, or None: not canonical, not on the curve, or of small order."""
    y = int.from_bytes(data, "little")
    sign = y >> 255
    y &= (1 << 255) - 1
    if y >= P:
        return None
    u = (y * y - 1) % P
    v = (D * y * y + 1) % P
    x = u * pow(v, 3, P) * pow(u * pow(v, 7, P) % P, (P - 5) // 8, P) % P
    w = v * x * x % P
    if w == P - u:
        x = x * _SQRT_M1 % P
    elif w != u:
        return None
    if x == 0:
        return None  # y = 1 or -1: order 1 or 2 (this also covers "x = 0 with the sign bit set")
    if x & 1 != sign:
        x = P - x
    # Order 4 has y = 0. Order 8 doubles to a point with y = 0: y^2 + x^2 = 0.
    if y == 0 or (x * x + y * y) % P == 0:
        return None
    return x, y


def _add(p, q):
    """Extended coordinates, a = -1 (Hisil, Wong, Carter, Dawson 2008, section 3.1); complete."""
    x1, y1, z1, t1 = p
    x2, y2, z2, t2 = q
    a = (y1 - x1) * (y2 - x2) % P
    b = (y1 + x1) * (y2 + x2) % P
    c = 2 * D * t1 * t2 % P
    d = 2 * z1 * z2 % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % P, g * h % P, f * g % P, e * h % P


def verify(public_key, message, signature) -> bool:
    """True if *signature* (64 bytes) of *message* is by *public_key* (32 bytes); all bytes-like, else False.

    Refused: S >= L, a non-canonical A or R, A or R of small order. Checks [S]B = R + [h]A without the cofactor.
    """
    try:
        message, public_key = memoryview(message), bytes(memoryview(public_key))
        signature = bytes(memoryview(signature))
    except TypeError:
        return False
    if len(public_key) != 32 or len(signature) != 64:
        return False
    s = int.from_bytes(signature[32:], "little")
    if s >= L:
        return False
    key, r = _decompress(public_key), _decompress(signature[:32])
    if key is None or r is None:
        return False
    h = int.from_bytes(sha512(signature[:32], public_key, message), "little") % L
    x, y = key
    minus_a = P - x, y, 1, (P - x) * y % P
    base = _B[0], _B[1], 1, _B[0] * _B[1] % P
    both = _add(minus_a, base)
    acc = 0, 1, 1, 0
    for i in range(252, -1, -1):
        acc = _add(acc, acc)
        pick = (s >> i) & 1 | ((h >> i) & 1) << 1
        if pick:
            acc = _add(acc, (base, minus_a, both)[pick - 1])
    x, y, z, _ = acc
    return (x - r[0] * z) % P == 0 and (y - r[1] * z) % P == 0
