"""What `bench_crypto` compares with: Ed25519 and SHA-512 as the standards write them, for MicroPython and CPython.

`verify` follows the sample code of RFC 8032 section 6: extended coordinates, one addition formula, double-and-add,
`% p` after every product, `pow` for inversions and square roots, no windows and no tables. `sha512` follows FIPS 180-4
section 6.4 line by line with a rotation function. Not for use: only as the yardstick.
"""

P = 2**255 - 19
Q = 2**252 + 27742317777372353535851937790883648493
D = 37095705934669439343138083508754565189542113879843219016388785533085940283555
SQRT_M1 = 19681161376707505956807079304988542015446066515923890162744021073123829784752

MASK = 0xFFFFFFFFFFFFFFFF


def _primes(count):
    out = []
    n = 2
    while len(out) < count:
        if all(n % p for p in out):
            out.append(n)
        n += 1
    return out


def _root(n, power):
    low, high = 0, 1 << 70
    while low < high:
        mid = (low + high + 1) >> 1
        if mid**power <= n << (64 * power):
            low = mid
        else:
            high = mid - 1
    return low & MASK


K = [_root(p, 3) for p in _primes(80)]
H = [_root(p, 2) for p in _primes(8)]


def rotr(x, n):
    return (x >> n | x << (64 - n)) & MASK


def sha512(message):
    """FIPS 180-4 section 6.4."""
    data = message + b"\x80" + bytes((111 - len(message)) % 128) + (8 * len(message)).to_bytes(16, "big")
    state = list(H)
    for start in range(0, len(data), 128):
        w = [int.from_bytes(data[i : i + 8], "big") for i in range(start, start + 128, 8)]
        for t in range(16, 80):
            s0 = rotr(w[t - 15], 1) ^ rotr(w[t - 15], 8) ^ (w[t - 15] >> 7)
            s1 = rotr(w[t - 2], 19) ^ rotr(w[t - 2], 61) ^ (w[t - 2] >> 6)
            w.append((s1 + w[t - 7] + s0 + w[t - 16]) & MASK)
        a, b, c, d, e, f, g, h = state
        for t in range(80):
            s1 = rotr(e, 14) ^ rotr(e, 18) ^ rotr(e, 41)
            ch = (e & f) ^ (~e & g)
            t1 = (h + s1 + ch + K[t] + w[t]) & MASK
            s0 = rotr(a, 28) ^ rotr(a, 34) ^ rotr(a, 39)
            maj = (a & b) ^ (a & c) ^ (b & c)
            t2 = (s0 + maj) & MASK
            h, g, f, e, d, c, b, a = g, f, e, (d + t1) & MASK, c, b, a, (t1 + t2) & MASK
        new = (a, b, c, d, e, f, g, h)
        state = [(state[i] + new[i]) & MASK for i in range(8)]
    return b"".join([x.to_bytes(8, "big") for x in state])


def modp_inv(x):
    return pow(x, P - 2, P)


def recover_x(y, sign):
    if y >= P:
        return None
    x2 = (y * y - 1) * modp_inv(D * y * y + 1) % P
    if x2 == 0:
        return None if sign else 0
    x = pow(x2, (P + 3) // 8, P)
    if (x * x - x2) % P != 0:
        x = x * SQRT_M1 % P
    if (x * x - x2) % P != 0:
        return None
    if (x & 1) != sign:
        x = P - x
    return x


G_Y = 4 * modp_inv(5) % P
G_X = recover_x(G_Y, 0)
G = (G_X, G_Y, 1, G_X * G_Y % P)


def point_add(p, q):
    a, b = (p[1] - p[0]) * (q[1] - q[0]) % P, (p[1] + p[0]) * (q[1] + q[0]) % P
    c, d = 2 * p[3] * q[3] * D % P, 2 * p[2] * q[2] % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return (e * f % P, g * h % P, f * g % P, e * h % P)


def point_mul(s, p):
    q = (0, 1, 1, 0)
    while s > 0:
        if s & 1:
            q = point_add(q, p)
        p = point_add(p, p)
        s >>= 1
    return q


def point_equal(p, q):
    return (p[0] * q[2] - q[0] * p[2]) % P == 0 and (p[1] * q[2] - q[1] * p[2]) % P == 0


def point_decompress(s):
    y = int.from_bytes(s, "little")
    sign = y >> 255
    y &= (1 << 255) - 1
    x = recover_x(y, sign)
    return None if x is None else (x, y, 1, x * y % P)


def point_compress(p):
    zinv = modp_inv(p[2])
    x, y = p[0] * zinv % P, p[1] * zinv % P
    return (y | (x & 1) << 255).to_bytes(32, "little")


def sign(secret, message):
    """RFC 8032 section 5.1.6."""
    h = sha512(secret)
    a = (int.from_bytes(h[:32], "little") & ((1 << 254) - 8)) | (1 << 254)
    public = point_compress(point_mul(a, G))
    r = int.from_bytes(sha512(h[32:] + message), "little") % Q
    rs = point_compress(point_mul(r, G))
    k = int.from_bytes(sha512(rs + public + message), "little") % Q
    return rs + ((r + k * a) % Q).to_bytes(32, "little")


def verify(public, message, signature):
    """RFC 8032 section 6: [S]B = R + [h]A."""
    a, rs = point_decompress(public), signature[:32]
    r = point_decompress(rs)
    if a is None or r is None:
        return False
    s = int.from_bytes(signature[32:], "little")
    if s >= Q:
        return False
    h = int.from_bytes(sha512(rs + public + message), "little") % Q
    return point_equal(point_mul(s, G), point_add(r, point_mul(h, a)))
