"""SHA-512 (FIPS 180-4) in portable MicroPython, which has none of its own."""

_M = (1 << 64) - 1


def _primes(count: int) -> list:
    out, n = [], 2
    while len(out) < count:
        for p in out:
            if n % p == 0:
                break
        else:
            out.append(n)
        n += 1
    return out


def _root(n: int, k: int) -> int:
    """The first 64 bits of the fraction of the k-th root of n (k = 2 or 3)."""
    target = n << (64 * k)
    low, high = 0, 1 << 70
    while low < high:
        mid = (low + high + 1) >> 1
        if mid * mid * (mid if k == 3 else 1) <= target:
            low = mid
        else:
            high = mid - 1
    return low & _M


_K = [_root(p, 3) for p in _primes(80)]
_H = [_root(p, 2) for p in _primes(8)]


def sha512(*parts) -> bytes:
    """The SHA-512 digest (64 bytes) of the concatenation of *parts* (bytes-like)."""
    data = b"".join([bytes(part) for part in parts])
    size = len(data)
    data += b"\x80" + bytes((111 - size) % 128) + (size * 8).to_bytes(16, "big")
    state = _H
    for start in range(0, len(data), 128):
        w = [int.from_bytes(data[i : i + 8], "big") for i in range(start, start + 128, 8)]
        a, b, c, d, e, f, g, h = state
        for t in range(80):
            if t >= 16:
                x = w[(t + 1) & 15]
                x |= x << 64
                y = w[(t + 14) & 15]
                y |= y << 64
                x = (((x >> 1) ^ (x >> 8)) & _M) ^ ((x & _M) >> 7)
                y = (((y >> 19) ^ (y >> 61)) & _M) ^ ((y & _M) >> 6)
                w[t & 15] = (w[t & 15] + x + y + w[(t + 9) & 15]) & _M
            x = e | (e << 64)
            h += ((x >> 14) ^ (x >> 18) ^ (x >> 41)) + (g ^ (e & (f ^ g))) + _K[t] + w[t & 15]
            d = (d + h) & _M
            x = a | (a << 64)
            h += ((x >> 28) ^ (x >> 34) ^ (x >> 39)) + ((a & b) | (c & (a | b)))
            a, b, c, d, e, f, g, h = h & _M, a, b, c, d, e, f, g
        new = a, b, c, d, e, f, g, h
        state = [(state[i] + new[i]) & _M for i in range(8)]
    return b"".join([x.to_bytes(8, "big") for x in state])
