"""CBOR for orders, reports and records: a deterministic writer and a reader of small whole values (RFC 8949 4.2.1).

The engine's pull reader does the strict part; here whole values are built, for documents whose shape is open (settings)
or which this device writes itself. Limits of `value`: depth, and 256 members per array or map.
"""

from micropython import const
from sekisho_boot.cbor import ARRAY, BSTR, FALSE, MAP, MAX_ITEMS, NINT, NULL, SIMPLE, TRUE, TSTR, Reader
from sekisho_boot.reasons import CBOR, LIMIT, Refused

MAX_DEPTH = const(6)
_SIMPLE = {FALSE: False, TRUE: True, NULL: None}


def head(major: int, number: int) -> bytes:
    """The shortest head of a major type with its argument (0 to 2^64 - 1)."""
    if number < 24:
        return bytes((major << 5 | number,))
    for info, width in ((24, 1), (25, 2), (26, 4), (27, 8)):
        if number >> 8 * width == 0:
            return bytes((major << 5 | info,)) + number.to_bytes(width, "big")
    raise ValueError("number too large for CBOR")


def encode(value) -> bytes:
    """Integers, bytes, text, booleans, None, and lists and dicts of them."""
    if value is None or value is True or value is False:
        return b"\xf6" if value is None else b"\xf5" if value else b"\xf4"
    if isinstance(value, int):
        return head(0, value) if value >= 0 else head(NINT, -1 - value)
    if isinstance(value, str):
        text = value.encode()
        return head(TSTR, len(text)) + text
    if isinstance(value, (list, tuple)):
        return head(ARRAY, len(value)) + b"".join([encode(item) for item in value])
    if isinstance(value, dict):
        pairs = sorted([(encode(key), encode(value[key])) for key in value])
        return head(MAP, len(pairs)) + b"".join([key + item for key, item in pairs])
    return head(BSTR, len(value)) + bytes(value)


def value(reader: Reader, depth: int = MAX_DEPTH):
    """The next item as a Python value; strings are copied. Raises Refused: CBOR, LIMIT, or what the reader was told."""
    if depth == 0:
        raise Refused(LIMIT)
    kind = reader.peek()
    if kind <= NINT:
        return reader.int()
    if kind == BSTR:
        return bytes(reader.bstr())
    if kind == TSTR:
        return _text(reader)
    if kind == ARRAY:
        return [value(reader, depth - 1) for _ in range(reader.array())]
    if kind == MAP:
        return _map(reader, depth)
    major, number = reader.head()
    if major != SIMPLE or number not in _SIMPLE:
        raise Refused(CBOR)
    return _SIMPLE[number]


def _text(reader: Reader) -> str:
    """Text that may be in any language, such as the name of a network."""
    _, size = reader.head()
    start = reader.pos
    if size > reader.end - start:
        raise Refused(CBOR)
    reader.pos = start + size
    try:
        return str(bytes(reader.buf[start : start + size]), "utf-8")
    except (UnicodeError, ValueError):
        raise Refused(CBOR)


def _map(reader: Reader, depth: int) -> dict:
    found: dict = {}
    last = b""
    for _ in range(reader.map(MAX_ITEMS)):
        start = reader.pos
        key = value(reader, 1)
        encoded = bytes(reader.buf[start : reader.pos])
        if encoded <= last or isinstance(key, bool) or not isinstance(key, (int, str, bytes)):
            raise Refused(CBOR)
        last = encoded
        found[key] = value(reader, depth - 1)
    return found


def decode(data):
    """The one item that *data* is."""
    reader = Reader(data)
    item = value(reader)
    reader.done()
    return item
