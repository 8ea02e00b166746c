"""Ed25519 signatures by the device key (RFC 8032 sections 5.1.5 and 5.1.6).

The sequence of big-integer operations is the same for every key and message; what each of them costs still depends on
its operands, and table entries are picked by index. docs/crypto.md says how far that protects.
"""

from sekisho_boot.ed25519 import BASE, L, P, euclid, joint
from sekisho_boot.sha512 import sha512

from .crypto_error import octets


def _times_base(k: int, blind: int) -> bytes:
    """The encoding of [k]B for 0 <= k < L; *blind* (below P, not 0) hides the divisor from Euclid's algorithm."""
    k += L * (~k & 1)  # B has order L, and only odd numbers have the regular form below
    todo = [1] * 61
    data = (k >> 1).to_bytes(32, "little")
    for i in range(64):
        # Digits to the base 16, all odd: -15, -13, ... 15. Every position is used, so none shows.
        d = (data[i >> 1] >> (i << 2 & 4) << 1 & 30 | 1) - (16 if i < 63 else 0)
        at = i % 16 * 4
        todo[at] = todo[at] << 7 | i // 16 << 4 | (abs(d) & -2) | (d < 0)
    x, y, z = joint(todo, (BASE,) * 4)
    z = euclid(P, z * blind % P, 0)[1] * blind
    return (y * z % P | (x * z % P & 1) << 255).to_bytes(32, "little")


def _expand(seed) -> tuple:
    """(scalar, prefix) of a 32-byte seed."""
    h = sha512(octets(seed, 32, "KEY_LENGTH"))
    return (int.from_bytes(h[:32], "little") & ((1 << 254) - 8)) | 1 << 254, h[32:]


def _blind(prefix: bytes) -> int:
    return int.from_bytes(prefix[:31], "little") | 1


def public_key(seed) -> bytes:
    """The 32-byte public key of a 32-byte secret seed. CryptoError TYPE or KEY_LENGTH."""
    scalar, prefix = _expand(seed)
    return _times_base(scalar % L, _blind(prefix))


def sign(seed, message, public=None) -> bytes:
    """The 64-byte signature of *message* (bytes-like); *public* saves time and must be ``public_key(seed)``.

    A wrong *public* would give signatures that reveal the secret, so keep both together. CryptoError TYPE, KEY_LENGTH.
    """
    scalar, prefix = _expand(seed)
    message = octets(message)
    public = public_key(seed) if public is None else octets(public, 32, "KEY_LENGTH")
    nonce = sha512(prefix, message)
    r = int.from_bytes(nonce, "little") % L
    start = _times_base(r, _blind(nonce))
    k = int.from_bytes(sha512(start, public, message), "little") % L
    return start + ((r + k * scalar) % L).to_bytes(32, "little")
