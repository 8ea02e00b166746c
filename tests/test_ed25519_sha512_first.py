"""A first check of `ed25519.verify` and `sha512` against `cryptography` and `hashlib`."""

import hashlib
import os

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sekisho_boot.ed25519 import L, verify
from sekisho_boot.sha512 import sha512


def test_sha512_agrees_with_hashlib():
    for size in (0, 1, 111, 112, 127, 128, 300):
        assert sha512(bytes(size)) == hashlib.sha512(bytes(size)).digest()


def test_verify_accepts_good_and_refuses_changed_signatures():
    key = Ed25519PrivateKey.generate()
    public = key.public_key().public_bytes_raw()
    message = os.urandom(100)
    signature = key.sign(message)
    assert verify(public, message, signature)
    assert not verify(public, message + b"x", signature)
    for bit in range(0, 512, 37):
        changed = bytearray(signature)
        changed[bit // 8] ^= 1 << bit % 8
        assert not verify(public, message, bytes(changed))
    s = int.from_bytes(signature[32:], "little") + L
    assert not verify(public, message, signature[:32] + s.to_bytes(32, "little"))
