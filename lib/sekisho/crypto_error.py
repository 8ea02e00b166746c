"""The one exception of the cryptographic modules in lib/."""


class CryptoError(ValueError):
    """``name`` says what is wrong: TYPE, LENGTH, KEY_LENGTH or INTEGRITY. The message holds nothing secret."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


def octets(value, length: int = -1, name: str = "LENGTH") -> bytes:
    """*value* (bytes-like) as bytes; CryptoError TYPE, or *name* if it does not have *length* bytes."""
    if isinstance(value, str):
        raise CryptoError("TYPE")  # MicroPython's memoryview takes text
    try:
        value = bytes(memoryview(value))
    except (TypeError, ValueError):
        raise CryptoError("TYPE")
    if length >= 0 and len(value) != length:
        raise CryptoError(name)
    return value
