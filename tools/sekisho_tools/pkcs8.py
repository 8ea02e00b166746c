"""Ed25519 private keys as encrypted PKCS#8 with scrypt (RFC 5958, RFC 8018 section 6.2, RFC 7914 section 7).

`cryptography` reads such files but writes PKCS#8 with PBKDF2 and 2,048 rounds only, far too few for a passphrase. So
this module writes the envelope, around `cryptography`'s own scrypt and AES-256-CBC. OpenSSL reads the result.
"""

from __future__ import annotations

import os

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from cryptography.hazmat.primitives.padding import PKCS7
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)

SCRYPT_N, SCRYPT_R, SCRYPT_P = 1 << 14, 8, 5
"""16 MiB and about 0.2 s: the strongest memory cost that OpenSSL's own limit (32 MiB) still opens, in OWASP's set."""

_PBES2 = bytes.fromhex("06092a864886f70d01050d")
_SCRYPT = bytes.fromhex("06092b06010401da47040b")
_AES256_CBC = bytes.fromhex("060960864801650304012a")


def _der(tag: int, *parts: bytes) -> bytes:
    content = b"".join(parts)
    size = len(content)
    if size < 128:
        return bytes((tag, size)) + content
    width = (size.bit_length() + 7) // 8
    return bytes((tag, 0x80 | width)) + size.to_bytes(width, "big") + content


def _sequence(*parts: bytes) -> bytes:
    return _der(0x30, *parts)


def _octets(data: bytes) -> bytes:
    return _der(0x04, data)


def _integer(value: int) -> bytes:
    return _der(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def dump(key: Ed25519PrivateKey, passphrase: bytes | None) -> bytes:
    """*key* as PKCS#8 in DER, encrypted with *passphrase* unless that is None."""
    plain = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    if passphrase is None:
        return plain
    salt, iv = os.urandom(16), os.urandom(16)
    derived = Scrypt(salt, 32, SCRYPT_N, SCRYPT_R, SCRYPT_P).derive(passphrase)
    padder = PKCS7(128).padder()
    encryptor = Cipher(AES256(derived), CBC(iv)).encryptor()
    encrypted = encryptor.update(padder.update(plain) + padder.finalize()) + encryptor.finalize()
    costs = _octets(salt) + b"".join(map(_integer, (SCRYPT_N, SCRYPT_R, SCRYPT_P)))
    scheme = _sequence(_sequence(_SCRYPT, _sequence(costs)), _sequence(_AES256_CBC, _octets(iv)))
    return _sequence(_sequence(_PBES2, scheme), _octets(encrypted))


def load(data: bytes, passphrase: bytes | None) -> Ed25519PrivateKey:
    """The key in PKCS#8 *data* (DER). Raises ValueError: wrong passphrase, damaged, or no Ed25519 key."""
    try:
        key = load_der_private_key(data, passphrase)
    except (TypeError, UnsupportedAlgorithm) as error:
        raise ValueError(str(error)) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError("not an Ed25519 key")
    return key
