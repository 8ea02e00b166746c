"""Known answers for the cryptographic modules: ``run(file)`` on CPython, the Unix port and the 32-bit npm build.

The file holds cases one after the other: kind (one character), number of fields, then each field as a 16-bit length
(big-endian) and its bytes. tests/crypto_vectors.py writes it.
"""


def _named(function, *arguments):
    """The name of the CryptoError that a call raises, else None."""
    from sekisho.crypto_error import CryptoError

    try:
        function(*arguments)
    except CryptoError as error:
        return error.name.encode()
    return None


def accepted(public, message, signature):
    from sekisho_boot import ed25519

    return ed25519.verify(public, message, signature) is True


def refused(public, message, signature):
    from sekisho_boot import ed25519

    return ed25519.verify(public, message, signature) is False


def signed(seed, public, message, signature):
    from sekisho import signing

    return signing.sign(seed, message, public) == signature


def public(seed, public):
    from sekisho import signing

    return signing.public_key(seed) == public


def digest(message, expected):
    from sekisho_boot.sha512 import sha512

    half = len(message) // 2 if len(message) < 300 else 0
    return expected == sha512(memoryview(message)[:half], bytearray(message[half:]))


def wrapped(kek, key, expected):
    from sekisho import ciphers

    return ciphers.wrap(kek, key) == expected


def unwrapped(kek, wrapped, expected):
    from sekisho import ciphers

    return ciphers.unwrap(kek, wrapped) == expected


def not_wrapped(kek, key, name):
    from sekisho import ciphers

    return _named(ciphers.wrap, kek, key) == name


def not_unwrapped(kek, wrapped, name):
    from sekisho import ciphers

    return _named(ciphers.unwrap, kek, wrapped) == name


def counter(key, iv, text, expected):
    from sekisho import ciphers

    whole = bytearray(text)
    ciphers.AesCtr(key, iv).crypt(whole)
    middle = len(text) // 3
    rest = bytearray(text[middle:])
    cipher = ciphers.AesCtr(key, iv, middle)
    for at in range(0, len(rest), 7):
        cipher.crypt(memoryview(rest)[at : at + 7])
    return whole == expected and rest == expected[middle:]


def code(key, message, expected):
    from sekisho import kdf

    return kdf.hmac_sha256(key, message) == expected == kdf.hmac_sha256(key, message[:3], message[3:])


def derived(secret, salt, info, expected):
    from sekisho import kdf

    return kdf.hkdf_sha256(secret, len(expected), salt, info) == expected


def not_derived(secret, size, name):
    from sekisho import kdf

    return _named(kdf.hkdf_sha256, secret, int.from_bytes(size, "big")) == name


CHECKS = {
    "V": accepted,
    "v": refused,
    "S": signed,
    "P": public,
    "D": digest,
    "W": wrapped,
    "U": unwrapped,
    "w": not_wrapped,
    "u": not_unwrapped,
    "C": counter,
    "H": code,
    "K": derived,
    "k": not_derived,
}


class Cases:
    """The cases of a file, checked a few at a time."""

    def __init__(self, path):
        self.file = open(path, "rb")
        self.done = 0

    def step(self, count):
        """Check up to *count* cases; False at the end. AssertionError names the first case that does not hold."""
        while count:
            head = self.file.read(2)
            if not head:
                self.file.close()
                print(self.done, "cases hold")
                return False
            fields = [self.file.read(int.from_bytes(self.file.read(2), "big")) for _ in range(head[1])]
            if not CHECKS[chr(head[0])](*fields):
                raise AssertionError("case %d (%s): %r" % (self.done, chr(head[0]), fields[0]))
            self.done += 1
            count -= 1
        return True


def run(path):
    """Check every case of a file."""
    Cases(path).step(-1)
