"""SHA-512 (FIPS 180-4) in portable MicroPython, which has none of its own.

A 64-bit word is three small integers: 22, 22 and 20 bits, low limb first. Small integers cost a tenth of big ones and
make no garbage; 22 bits leave room below 2^30 (the least a small integer holds) for sums and for rotation windows.
docs/crypto.md explains the windows.
"""

import struct


def _limbs(words):
    """Cuts big-endian 64-bit words into limbs: low, middle, top of each in turn."""
    out = []
    for at in range(0, len(words), 8):
        d, c, b, a = struct.unpack_from(">HHHH", words, at)
        out.append(a | (b & 63) << 16)
        out.append(b >> 6 | (c & 4095) << 10)
        out.append(c >> 12 | d << 4)
    return out


# Fractions of the cube roots of the first 80 primes, and of the square roots of the first 8 (FIPS 180-4, 4.2.3, 5.3.5).
_K = _limbs(
    b"\x42\x8a\x2f\x98\xd7\x28\xae\x22\x71\x37\x44\x91\x23\xef\x65\xcd\xb5\xc0\xfb\xcf\xec\x4d\x3b\x2f\xe9\xb5\xdb\xa5\x81\x89\xdb\xbc"
    b"\x39\x56\xc2\x5b\xf3\x48\xb5\x38\x59\xf1\x11\xf1\xb6\x05\xd0\x19\x92\x3f\x82\xa4\xaf\x19\x4f\x9b\xab\x1c\x5e\xd5\xda\x6d\x81\x18"
    b"\xd8\x07\xaa\x98\xa3\x03\x02\x42\x12\x83\x5b\x01\x45\x70\x6f\xbe\x24\x31\x85\xbe\x4e\xe4\xb2\x8c\x55\x0c\x7d\xc3\xd5\xff\xb4\xe2"
    b"\x72\xbe\x5d\x74\xf2\x7b\x89\x6f\x80\xde\xb1\xfe\x3b\x16\x96\xb1\x9b\xdc\x06\xa7\x25\xc7\x12\x35\xc1\x9b\xf1\x74\xcf\x69\x26\x94"
    b"\xe4\x9b\x69\xc1\x9e\xf1\x4a\xd2\xef\xbe\x47\x86\x38\x4f\x25\xe3\x0f\xc1\x9d\xc6\x8b\x8c\xd5\xb5\x24\x0c\xa1\xcc\x77\xac\x9c\x65"
    b"\x2d\xe9\x2c\x6f\x59\x2b\x02\x75\x4a\x74\x84\xaa\x6e\xa6\xe4\x83\x5c\xb0\xa9\xdc\xbd\x41\xfb\xd4\x76\xf9\x88\xda\x83\x11\x53\xb5"
    b"\x98\x3e\x51\x52\xee\x66\xdf\xab\xa8\x31\xc6\x6d\x2d\xb4\x32\x10\xb0\x03\x27\xc8\x98\xfb\x21\x3f\xbf\x59\x7f\xc7\xbe\xef\x0e\xe4"
    b"\xc6\xe0\x0b\xf3\x3d\xa8\x8f\xc2\xd5\xa7\x91\x47\x93\x0a\xa7\x25\x06\xca\x63\x51\xe0\x03\x82\x6f\x14\x29\x29\x67\x0a\x0e\x6e\x70"
    b"\x27\xb7\x0a\x85\x46\xd2\x2f\xfc\x2e\x1b\x21\x38\x5c\x26\xc9\x26\x4d\x2c\x6d\xfc\x5a\xc4\x2a\xed\x53\x38\x0d\x13\x9d\x95\xb3\xdf"
    b"\x65\x0a\x73\x54\x8b\xaf\x63\xde\x76\x6a\x0a\xbb\x3c\x77\xb2\xa8\x81\xc2\xc9\x2e\x47\xed\xae\xe6\x92\x72\x2c\x85\x14\x82\x35\x3b"
    b"\xa2\xbf\xe8\xa1\x4c\xf1\x03\x64\xa8\x1a\x66\x4b\xbc\x42\x30\x01\xc2\x4b\x8b\x70\xd0\xf8\x97\x91\xc7\x6c\x51\xa3\x06\x54\xbe\x30"
    b"\xd1\x92\xe8\x19\xd6\xef\x52\x18\xd6\x99\x06\x24\x55\x65\xa9\x10\xf4\x0e\x35\x85\x57\x71\x20\x2a\x10\x6a\xa0\x70\x32\xbb\xd1\xb8"
    b"\x19\xa4\xc1\x16\xb8\xd2\xd0\xc8\x1e\x37\x6c\x08\x51\x41\xab\x53\x27\x48\x77\x4c\xdf\x8e\xeb\x99\x34\xb0\xbc\xb5\xe1\x9b\x48\xa8"
    b"\x39\x1c\x0c\xb3\xc5\xc9\x5a\x63\x4e\xd8\xaa\x4a\xe3\x41\x8a\xcb\x5b\x9c\xca\x4f\x77\x63\xe3\x73\x68\x2e\x6f\xf3\xd6\xb2\xb8\xa3"
    b"\x74\x8f\x82\xee\x5d\xef\xb2\xfc\x78\xa5\x63\x6f\x43\x17\x2f\x60\x84\xc8\x78\x14\xa1\xf0\xab\x72\x8c\xc7\x02\x08\x1a\x64\x39\xec"
    b"\x90\xbe\xff\xfa\x23\x63\x1e\x28\xa4\x50\x6c\xeb\xde\x82\xbd\xe9\xbe\xf9\xa3\xf7\xb2\xc6\x79\x15\xc6\x71\x78\xf2\xe3\x72\x53\x2b"
    b"\xca\x27\x3e\xce\xea\x26\x61\x9c\xd1\x86\xb8\xc7\x21\xc0\xc2\x07\xea\xda\x7d\xd6\xcd\xe0\xeb\x1e\xf5\x7d\x4f\x7f\xee\x6e\xd1\x78"
    b"\x06\xf0\x67\xaa\x72\x17\x6f\xba\x0a\x63\x7d\xc5\xa2\xc8\x98\xa6\x11\x3f\x98\x04\xbe\xf9\x0d\xae\x1b\x71\x0b\x35\x13\x1c\x47\x1b"
    b"\x28\xdb\x77\xf5\x23\x04\x7d\x84\x32\xca\xab\x7b\x40\xc7\x24\x93\x3c\x9e\xbe\x0a\x15\xc9\xbe\xbc\x43\x1d\x67\xc4\x9c\x10\x0d\x4c"
    b"\x4c\xc5\xd4\xbe\xcb\x3e\x42\xb6\x59\x7f\x29\x9c\xfc\x65\x7e\x2a\x5f\xcb\x6f\xab\x3a\xd6\xfa\xec\x6c\x44\x19\x8c\x4a\x47\x58\x17"
)
_H = _limbs(
    b"\x6a\x09\xe6\x67\xf3\xbc\xc9\x08\xbb\x67\xae\x85\x84\xca\xa7\x3b\x3c\x6e\xf3\x72\xfe\x94\xf8\x2b\xa5\x4f\xf5\x3a\x5f\x1d\x36\xf1"
    b"\x51\x0e\x52\x7f\xad\xe6\x82\xd1\x9b\x05\x68\x8c\x2b\x3e\x6c\x1f\x1f\x83\xd9\xab\xfb\x41\xbd\x6b\x5b\xe0\xcd\x19\x13\x7e\x21\x79"
)


def _compress(state, block):
    """One block of 128 bytes into *state* (24 limbs), FIPS 180-4 section 6.4.2."""
    m = 0x3FFFFF
    q = 0xFFFFF
    k = _K
    w = _limbs(block)
    a0, a1, a2, b0, b1, b2, c0, c1, c2, d0, d1, d2, e0, e1, e2, f0, f1, f2, g0, g1, g2, h0, h1, h2 = state
    p0 = b0 ^ c0
    p1 = b1 ^ c1
    p2 = b2 ^ c2
    n = 0
    while True:
        for j in range(0, 48, 3):
            # T1 = h + S1(e) + Ch(e, f, g) + K + W, left in x0..x2 without carries. u, v, r: e from bits 14, 36, 58 on.
            u = e0 >> 14 | e1 << 8
            v = e1 >> 14 | e2 << 8
            r = e2 >> 14 | e0 << 6
            x0 = h0 + (g0 ^ e0 & (f0 ^ g0)) + ((u ^ u >> 4 ^ v >> 5) & m) + k[n] + w[j]
            x1 = h1 + (g1 ^ e1 & (f1 ^ g1)) + ((v ^ v >> 4 ^ r >> 5) & m) + k[n + 1] + w[j + 1]
            x2 = h2 + (g2 ^ e2 & (f2 ^ g2)) + ((r ^ r >> 4 ^ u >> 7) & q) + k[n + 2] + w[j + 2]
            n += 3
            h0 = g0
            h1 = g1
            h2 = g2
            g0 = f0
            g1 = f1
            g2 = f2
            f0 = e0
            f1 = e1
            f2 = e2
            e0 = d0 + x0
            e1 = d1 + x1 + (e0 >> 22)
            e2 = d2 + x2 + (e1 >> 22) & q
            e0 &= m
            e1 &= m
            # T2 = S0(a) + Maj(a, b, c); Maj = b ^ ((a ^ b) & (b ^ c)). u, v, r: a from bits 34, 56, 14 on.
            u = a1 >> 12 | a2 << 10
            v = a2 >> 12 | a0 << 8
            r = a0 >> 14 | a1 << 8
            d0 = c0
            d1 = c1
            d2 = c2
            c0 = b0
            c1 = b1
            c2 = b2
            b0 = a0
            b1 = a1
            b2 = a2
            y = b0 ^ c0
            x0 += (c0 ^ y & p0) + ((u ^ u >> 5 ^ b1 >> 6 ^ (b2 & 63) << 16) & m)
            p0 = y
            y = b1 ^ c1
            x1 += (c1 ^ y & p1) + ((v ^ v >> 5 ^ b2 >> 6 ^ (b0 & 255) << 14) & m) + (x0 >> 22)
            p1 = y
            y = b2 ^ c2
            a2 = x2 + (c2 ^ y & p2) + ((r ^ r >> 5 ^ b0 >> 8 ^ (b1 & 63) << 14) & q) + (x1 >> 22) & q
            p2 = y
            a0 = x0 & m
            a1 = x1 & m
        if n == 240:
            break
        for j in range(0, 48, 3):
            # W(t) = s1(W(t-2)) + W(t-7) + s0(W(t-15)) + W(t-16); negative indices wrap around the 16 words.
            u = w[j - 45]
            v = w[j - 44]
            r = w[j - 43]
            x0 = u >> 7 | (v & 255) << 15
            x1 = v >> 7 | (r & 255) << 15
            x2 = r >> 7
            x0 = ((x0 ^ x0 >> 1 ^ u >> 1 ^ (v & 1) << 21) & m) + w[j] + w[j - 21]
            x1 = ((x1 ^ x1 >> 1 ^ v >> 1 ^ (r & 1) << 21) & m) + w[j + 1] + w[j - 20]
            x2 = (x2 ^ x2 >> 1 ^ (u & 255) << 12 ^ r >> 1 ^ (u & 1) << 19) + w[j + 2] + w[j - 19]
            u = w[j - 6]
            v = w[j - 5]
            r = w[j - 4]
            y = u >> 19 | v << 3
            s = v >> 19 | r << 3
            z = r >> 17 | u << 3
            x0 += (y ^ z ^ u >> 6 ^ (v & 63) << 16) & m
            x1 += ((s ^ y ^ v >> 6 ^ (r & 63) << 16) & m) + (x0 >> 22)
            w[j] = x0 & m
            w[j + 1] = x1 & m
            w[j + 2] = x2 + ((z >> 2 ^ s ^ r >> 6) & q) + (x1 >> 22) & q
    new = a0, a1, a2, b0, b1, b2, c0, c1, c2, d0, d1, d2, e0, e1, e2, f0, f1, f2, g0, g1, g2, h0, h1, h2
    for j in range(0, 24, 3):
        x0 = state[j] + new[j]
        x1 = state[j + 1] + new[j + 1] + (x0 >> 22)
        state[j] = x0 & m
        state[j + 1] = x1 & m
        state[j + 2] = state[j + 2] + new[j + 2] + (x1 >> 22) & q


def sha512(*parts) -> bytes:
    """The SHA-512 digest (64 bytes) of the concatenation of *parts* (bytes-like)."""
    state = list(_H)
    block = bytearray(128)
    fill = size = 0
    for part in parts:
        part = memoryview(part)
        size += len(part)
        at = 0
        while at < len(part):
            take = min(128 - fill, len(part) - at)
            block[fill : fill + take] = part[at : at + take]
            at += take
            fill += take
            if fill == 128:
                _compress(state, block)
                fill = 0
    tail = b"\x80" + bytes((111 - fill) % 128) + (size * 8).to_bytes(16, "big")
    for _ in range(0, fill + len(tail), 128):
        block[fill:] = tail[: 128 - fill]
        _compress(state, block)
        tail = tail[128 - fill :]
        fill = 0
    out = bytearray(64)
    for j in range(8):
        low, mid, top = state[3 * j : 3 * j + 3]
        struct.pack_into(
            ">HHHH", out, 8 * j, top >> 4, (top & 15) << 12 | mid >> 10, (mid & 1023) << 6 | low >> 16, low & 65535
        )
    return bytes(out)
