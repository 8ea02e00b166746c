"""The cryptographic modules of lib/ on hostile input: every refusal has a name."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from helpers import micropython
from sekisho import kdf
from sekisho.crypto_error import CryptoError


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: kdf.hmac_sha256(None, b""), "TYPE"),
        (lambda: kdf.hmac_sha256(b"", "text"), "TYPE"),
        (lambda: kdf.hkdf_sha256("text", 5), "TYPE"),
        (lambda: kdf.hkdf_sha256(b"", "5"), "TYPE"),
        (lambda: kdf.hkdf_sha256(b"", 0), "LENGTH"),
        (lambda: kdf.hkdf_sha256(b"", -1), "LENGTH"),
        (lambda: kdf.hkdf_sha256(b"", 255 * 32 + 1), "LENGTH"),
        (lambda: kdf.hkdf_sha256(b"", 5, info=7), "TYPE"),
    ],
)
def test_bad_arguments_are_refused_by_name(call: Callable[[], bytes], name: str) -> None:
    with pytest.raises(CryptoError) as error:
        call()
    assert error.value.name == name


def test_bad_arguments_of_the_ciphers_are_refused_by_name_on_micropython() -> None:
    cases = {
        "ciphers.wrap(None, bytes(16))": "TYPE",
        "ciphers.wrap('x' * 16, bytes(16))": "TYPE",
        "ciphers.wrap(bytes(24), bytes(16))": "KEY_LENGTH",
        "ciphers.wrap(b'', bytes(16))": "KEY_LENGTH",
        "ciphers.wrap(bytes(16), bytes(8))": "LENGTH",
        "ciphers.wrap(bytes(16), bytes(17))": "LENGTH",
        "ciphers.wrap(bytes(16), 16)": "TYPE",
        "ciphers.unwrap(bytes(16), bytes(16))": "LENGTH",
        "ciphers.unwrap(bytes(16), bytes(25))": "LENGTH",
        "ciphers.unwrap(bytes(16), bytes(24))": "INTEGRITY",
        "ciphers.unwrap(bytes(16), None)": "TYPE",
        "ciphers.AesCtr(bytes(15), bytes(16))": "KEY_LENGTH",
        "ciphers.AesCtr(bytes(16), bytes(12))": "LENGTH",
        "ciphers.AesCtr(bytes(16), None)": "TYPE",
        "ciphers.AesCtr(bytes(16), bytes(16), -1)": "LENGTH",
        "ciphers.AesCtr(bytes(16), bytes(16), None)": "TYPE",
        "ciphers.AesCtr(bytes(16), bytes(16)).crypt(b'read-only')": "TYPE",
        "ciphers.AesCtr(bytes(16), bytes(16)).crypt(None)": "TYPE",
    }
    program = "from sekisho import ciphers\nfrom sekisho.crypto_error import CryptoError\n"
    for call in cases:
        program += f"try:\n    {call}\n    print('accepted')\nexcept CryptoError as error:\n    print(error.name)\n"
    assert micropython.run(program).split() == list(cases.values())


def test_the_counter_wraps_around_128_bits_on_micropython() -> None:
    program = """
import cryptolib
from sekisho.ciphers import AesCtr
buf = bytearray(48)
AesCtr(bytes(16), b"\\xff" * 15 + b"\\xfe").crypt(buf)
aes = cryptolib.aes(bytes(16), 1)
blocks = [b"\\xff" * 15 + b"\\xfe", b"\\xff" * 16, bytes(16)]
print(bytes(buf) == b"".join([aes.encrypt(block) for block in blocks]))
"""
    assert micropython.run(program) == "True\n"
