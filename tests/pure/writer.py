"""A small CBOR writer and a stand-in for Ed25519, for tests that run on MicroPython too.

The stand-in "signs" with SHA-256(key + message), twice: fast, and anybody can make one on either interpreter. Tests of
the real signature are in test_ed25519.py and in the vector tests.
"""

from hashlib import sha256

from sekisho_boot import cose


class Raw(bytes):
    """Bytes that are CBOR already."""


class Pairs(list):
    """A map as a list of (key, value), written in the order given."""


class Tag:
    def __init__(self, number, value):
        self.number = number
        self.value = value


def head(major, value):
    if value < 24:
        return bytes((major << 5 | value,))
    for info in range(4):
        if value >> (8 << info) == 0:
            return bytes((major << 5 | 24 + info,)) + value.to_bytes(1 << info, "big")
    raise ValueError


def dumps(value):
    """*value* as CBOR; dicts are written in key order, which must be of one type."""
    if isinstance(value, Raw):
        return bytes(value)
    if value is None:
        return b"\xf6"
    if value is True or value is False:
        return b"\xf5" if value else b"\xf4"
    if isinstance(value, int):
        return head(0, value) if value >= 0 else head(1, -1 - value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return head(2, len(value)) + bytes(value)
    if isinstance(value, str):
        return head(3, len(value.encode())) + value.encode()
    if isinstance(value, Pairs):
        return head(5, len(value)) + b"".join(dumps(k) + dumps(v) for k, v in value)
    if isinstance(value, (list, tuple)):
        return head(4, len(value)) + b"".join(dumps(v) for v in value)
    if isinstance(value, dict):
        pairs = sorted((dumps(k), dumps(v)) for k, v in value.items())
        return head(5, len(pairs)) + b"".join(k + v for k, v in pairs)
    return head(6, value.number) + dumps(value.value)


def fake_sign(key, message):
    return sha256(bytes(key) + bytes(message)).digest() * 2


def faked(test):
    """Runs *test* with the stand-in for Ed25519."""

    def run():
        saved = cose.verify
        cose.verify = lambda key, message, signature: bytes(signature) == fake_sign(key, message)
        try:
            test()
        finally:
            cose.verify = saved

    return run


def refusal(function, *arguments):
    """The name of the reason that *function* refuses with, or None."""
    from sekisho_boot import reasons

    try:
        function(*arguments)
    except reasons.Refused as error:
        return reasons.name(error.code)
    return None


def sign1(payload, key, alg=-19, kid=True):
    """A tagged COSE_Sign1 by *key* with the stand-in signature."""
    protected = dumps({1: alg})
    message = dumps(["Signature1", protected, b"", payload])
    headers = {4: cose.key_id(key)} if kid else {}
    return dumps(Tag(18, [protected, headers, None, fake_sign(key, message)]))
