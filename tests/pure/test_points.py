"""Encodings of points that Ed25519 may not take, whatever they would be used for (RFC 8032 section 5.1.3)."""

from sekisho_boot.ed25519 import P, decompress


def encoded(y, sign=0):
    return (y | sign << 255).to_bytes(32, "little")


def test_an_encoding_that_is_not_canonical_is_no_point():
    taken = 0
    for y in range(19):
        for sign in (0, 1):
            taken += decompress(encoded(y, sign)) is not None
            assert decompress(encoded(P + y, sign)) is None
    assert taken > 10  # the same numbers, written as they should be, are points


def test_points_of_small_order_are_no_points():
    for y in (0, 1, P - 1):  # orders 4, 1 and 2; those of order 8 are in test_ed25519.py
        for sign in (0, 1):
            assert decompress(encoded(y, sign)) is None
