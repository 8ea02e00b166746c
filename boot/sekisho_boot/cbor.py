"""A strict pull reader for deterministic CBOR (RFC 8949 section 4.2.1).

Shortest heads only, definite lengths, sorted unique map keys, no floats. The reader never allocates by
an attacker's number: strings are returned as memoryviews into the buffer.
"""

from micropython import const

from .reasons import CBOR, LIMIT, Refused

UINT = const(0)
NINT = const(1)
BSTR = const(2)
TSTR = const(3)
ARRAY = const(4)
MAP = const(5)
TAG = const(6)
SIMPLE = const(7)

MAX_DEPTH = const(8)  # nesting that skip() follows
MAX_ITEMS = const(256)  # members of one array or map

FALSE = const(20)
TRUE = const(21)
NULL = const(22)


class Reader:
    """Reads one CBOR item after another from ``buf[start:end]``.

    Bytes that are not deterministic CBOR are ``Refused(CBOR)``; good CBOR of a type the caller did not ask for is
    ``Refused(wrong)``, so that a document of the wrong shape is refused in the name of that document.
    """

    def __init__(self, buf, start: int = 0, end: int = -1, wrong: int = CBOR) -> None:
        self.buf = buf if isinstance(buf, memoryview) else memoryview(buf)
        self.pos = start
        self.end = len(self.buf) if end < 0 else end
        self.wrong = wrong

    def head(self) -> tuple:
        """Takes a head; returns (major type, argument). The argument may be a big int of up to 64 bits."""
        pos, buf = self.pos, self.buf
        if pos >= self.end:
            raise Refused(CBOR)
        first = buf[pos]
        info = first & 31
        pos += 1
        if info < 24:
            value = info
        elif info < 28:
            width = 1 << (info - 24)
            if pos + width > self.end:
                raise Refused(CBOR)
            value = int.from_bytes(buf[pos : pos + width], "big")
            # Shortest form: the value must not fit the next smaller width. A one-byte simple value is never needed.
            if value < 24 or value >> (4 * width) == 0 or first >= 0xE0:
                raise Refused(CBOR)
            pos += width
        else:
            raise Refused(CBOR)  # reserved, or an indefinite length
        self.pos = pos
        return first >> 5, value

    def peek(self) -> int:
        """The major type of the next item."""
        if self.pos >= self.end:
            raise Refused(CBOR)
        return self.buf[self.pos] >> 5

    def _expect(self, major: int) -> int:
        got, value = self.head()
        if got != major:
            raise Refused(self.wrong)
        return value

    def uint(self) -> int:
        return self._expect(UINT)

    def int(self) -> int:
        major, value = self.head()
        if major > NINT:
            raise Refused(self.wrong)
        return -1 - value if major else value

    def _take(self, size: int):
        start = self.pos
        if size > self.end - start:
            raise Refused(CBOR)
        self.pos = start + size
        return self.buf[start : start + size]

    def bstr(self):
        """A byte string as a memoryview into the buffer."""
        return self._take(self._expect(BSTR))

    def tstr(self) -> str:
        """A text string of printable ASCII: what UTF-8 checks let through differs between interpreters."""
        text = bytes(self._take(self._expect(TSTR)))
        for char in text:
            if not 32 <= char < 127:
                raise Refused(self.wrong)
        return str(text, "utf-8")

    def wrapped(self) -> "Reader":
        """A Reader over the content of a byte string (``bstr .cbor``); call done() on it when read."""
        size = len(self.bstr())
        return Reader(self.buf, self.pos - size, self.pos, self.wrong)

    def array(self, limit: int = MAX_ITEMS) -> int:
        """The head of an array; returns the number of items."""
        return self._count(ARRAY, limit)

    def map(self, limit: int = MAX_ITEMS) -> int:
        """The head of a map; returns the number of pairs."""
        return self._count(MAP, limit)

    def _count(self, major: int, limit: int) -> int:
        count = self._expect(major)
        if count > limit:
            raise Refused(LIMIT)
        return count

    def tag(self) -> int:
        return self._expect(TAG)

    def int_keys(self, limit: int = MAX_ITEMS):
        """Yields the keys of a map whose keys are integers, in deterministic order and each once.

        The caller reads the value after each key, before it asks for the next one.
        """
        last = -1
        for _ in range(self.map(limit)):
            major, value = self.head()
            if major > NINT:
                raise Refused(self.wrong)
            # Bytewise order of the encodings: 0, 1, ..., then -1, -2, ...
            rank = value + (major << 64)
            if rank <= last:
                raise Refused(CBOR)
            last = rank
            yield -1 - value if major else value

    def skip(self, depth: int = MAX_DEPTH) -> None:
        """Passes over one item of any type and checks its form, map order included; text is for its reader to check."""
        if depth == 0:
            raise Refused(LIMIT)
        major, value = self.head()
        if major in (BSTR, TSTR):
            self._take(value)
        elif major in (ARRAY, MAP):
            if value > MAX_ITEMS:
                raise Refused(LIMIT)
            last = b""
            for _ in range(value):
                start = self.pos
                self.skip(depth - 1)
                if major == MAP:
                    key = bytes(self.buf[start : self.pos])
                    if key <= last:
                        raise Refused(CBOR)
                    last = key
                    self.skip(depth - 1)
        elif major == TAG:
            self.skip(depth - 1)
        elif major == SIMPLE and not FALSE <= value <= NULL:
            raise Refused(CBOR)

    def done(self) -> None:
        """Nothing may follow."""
        if self.pos != self.end:
            raise Refused(CBOR)
