"""The compression function of SHA-512 as machine code of the chip, through MicroPython's viper emitter.

`sha512` imports it where it can and believes it only after a known answer. A word is two halves of 32 bits, the
high one first; where the machine's word is wider, `& m` cuts off what carries and shifts leave above them.
"""

import micropython

_k = bytearray(640)  # the round constants, in the machine's byte order
_w = bytearray(192)  # 16 words of the message schedule, then the state


@micropython.viper
def constants(table):
    """Take the round constants, 640 bytes, most significant first."""
    k = ptr32(_k)
    p = ptr8(table)
    for i in range(160):
        j = i << 2
        k[i] = p[j] << 24 | p[j + 1] << 16 | p[j + 2] << 8 | p[j + 3]


@micropython.viper
def compress(state, block):
    """*state* (64 bytes) after *block* (128 bytes): FIPS 180-4 section 6.4.2."""
    w = ptr32(_w)
    k = ptr32(_k)
    m = uint(0xFFFF)
    m = m << 16 | m
    p = ptr8(block)
    i = 0
    j = 0
    while i < 48:
        if i == 32:
            p = ptr8(state)
            j = 0
        w[i] = p[j] << 24 | p[j + 1] << 16 | p[j + 2] << 8 | p[j + 3]
        i += 1
        j += 4
    a = uint(w[32])
    al = uint(w[33])
    b = uint(w[34])
    bl = uint(w[35])
    c = uint(w[36])
    cl = uint(w[37])
    d = uint(w[38])
    dl = uint(w[39])
    e = uint(w[40])
    el = uint(w[41])
    f = uint(w[42])
    fl = uint(w[43])
    g = uint(w[44])
    gl = uint(w[45])
    h = uint(w[46])
    hl = uint(w[47])
    t = 0
    while t < 160:
        i = t & 31
        x = uint(w[i])
        xl = uint(w[i + 1])
        if t >= 32:
            # W(t) = s1(W(t-2)) + W(t-7) + s0(W(t-15)) + W(t-16) in a ring of 16.
            j = i + 2 & 31
            y = uint(w[j])
            z = uint(w[j + 1])
            x += (y >> 1 | z << 31) ^ (y >> 8 | z << 24) ^ y >> 7
            z = ((z >> 1 | y << 31) ^ (z >> 8 | y << 24) ^ (z >> 7 | y << 25)) & m
            xl = xl + z & m
            if xl < z:
                x += 1
            j = i + 18 & 31
            x += uint(w[j])
            z = uint(w[j + 1])
            xl = xl + z & m
            if xl < z:
                x += 1
            j = i + 28 & 31
            y = uint(w[j])
            z = uint(w[j + 1])
            x += (y >> 19 | z << 13) ^ (z >> 29 | y << 3) ^ y >> 6
            z = ((z >> 19 | y << 13) ^ (y >> 29 | z << 3) ^ (z >> 6 | y << 26)) & m
            xl = xl + z & m
            if xl < z:
                x += 1
            w[i] = int(x)
            w[i + 1] = int(xl)
        # T1 = h + S1(e) + Ch(e, f, g) + K(t) + W(t)
        x += uint(k[t])
        z = uint(k[t + 1])
        xl = xl + z & m
        if xl < z:
            x += 1
        x += h
        xl = xl + hl & m
        if xl < hl:
            x += 1
        x += (e >> 14 | el << 18) ^ (e >> 18 | el << 14) ^ (el >> 9 | e << 23)
        z = ((el >> 14 | e << 18) ^ (el >> 18 | e << 14) ^ (e >> 9 | el << 23)) & m
        xl = xl + z & m
        if xl < z:
            x += 1
        x += g ^ e & (f ^ g)
        z = gl ^ el & (fl ^ gl)
        xl = xl + z & m
        if xl < z:
            x += 1
        h = g
        hl = gl
        g = f
        gl = fl
        f = e
        fl = el
        e = d + x
        el = dl + xl & m
        if el < xl:
            e += 1
        e &= m
        # T1 + S0(a) + Maj(a, b, c)
        x += (a >> 28 | al << 4) ^ (al >> 2 | a << 30) ^ (al >> 7 | a << 25)
        z = ((al >> 28 | a << 4) ^ (a >> 2 | al << 30) ^ (a >> 7 | al << 25)) & m
        xl = xl + z & m
        if xl < z:
            x += 1
        x += b ^ (a ^ b) & (b ^ c)
        z = bl ^ (al ^ bl) & (bl ^ cl)
        xl = xl + z & m
        if xl < z:
            x += 1
        d = c
        dl = cl
        c = b
        cl = bl
        b = a
        bl = al
        a = x & m
        al = xl
        t += 2
    w[0] = int(a)
    w[1] = int(al)
    w[2] = int(b)
    w[3] = int(bl)
    w[4] = int(c)
    w[5] = int(cl)
    w[6] = int(d)
    w[7] = int(dl)
    w[8] = int(e)
    w[9] = int(el)
    w[10] = int(f)
    w[11] = int(fl)
    w[12] = int(g)
    w[13] = int(gl)
    w[14] = int(h)
    w[15] = int(hl)
    i = 0
    while i < 16:
        x = uint(w[i]) + uint(w[i + 32])
        z = uint(w[i + 1])
        xl = z + uint(w[i + 33]) & m
        if xl < z:
            x += 1
        j = i << 2
        p[j] = int(x >> 24)
        p[j + 1] = int(x >> 16)
        p[j + 2] = int(x >> 8)
        p[j + 3] = int(x)
        p[j + 4] = int(xl >> 24)
        p[j + 5] = int(xl >> 16)
        p[j + 6] = int(xl >> 8)
        p[j + 7] = int(xl)
        i += 2
