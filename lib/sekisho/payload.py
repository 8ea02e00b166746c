"""How the bytes of an image come: as they are, compressed, encrypted, or both (docs/decisions/0007-packed-payloads.md).

The severable install sequence of a manifest says it, and only the agent reads that one. Whatever it says, the engine
judges the image itself, by the digest in the part that it does read; so nothing here can make a wrong image bootable.
Here the packed bytes are judged as well, before anything is staged.

A stream cannot be entered in its middle: after a restart an image is fetched from its beginning again, and the part
that is in flash already is passed over.
"""

from hashlib import sha256
from io import BytesIO

from micropython import const
from sekisho_boot.cbor import ARRAY, NULL, SIMPLE, UINT, Reader
from sekisho_boot.keyset import CONTENT
from sekisho_boot.reasons import (
    ALGORITHM,
    COMMAND,
    CONTENT_KEY,
    ENVELOPE,
    IMAGE_DIGEST,
    IMAGE_SIZE,
    LIMIT,
    MANIFEST,
    PARAMETER,
    SEVERABLE,
    Refused,
)

SECTOR = const(4096)
MAX_WINDOW = const(13)  # bits: 8 KiB of heap; our tools use 12
MAX_FORMS = const(4)  # alternatives of one image
MAX_RECIPIENTS = const(16)
MAX_COMMANDS = const(64)

_IDENTIFIERS = ((b"fw",), (b"app",))  # by component
_MANIFEST = const(3)  # member of the envelope
_COMMON = const(3)  # members of the manifest
_INSTALL = const(20)
_COSE_ENCRYPT = const(96)
_A128CTR = const(-65534)
_A256CTR = const(-65532)
_A128KW = const(-3)
_ZLIB = const(1)  # value of the compression parameter

# Commands and parameters of an install sequence.
_MATCH = const(3)
_DIGEST = const(3)
_SET_INDEX = const(12)
_SIZE = const(14)
_TRY_EACH = const(15)
_ENCRYPTION = const(19)
_OVERRIDE = const(20)
_FETCH = const(21)
_URI = const(21)
_COPY = const(22)
_SOURCE = const(22)
_COMPRESSION = const(-257)  # a custom parameter
_STATE = const(0)  # ours: what has been done with a component
_FETCHED = const(1)
_MATCHED = const(2)

_STEP = const(256)  # bytes inflated at a time
_MARGIN = const(1536)  # input that _STEP bytes can need: 2 a byte, and the tables of two blocks (RFC 1951)
_FEED = const(5632)  # a sector and the margin


class Form:
    """One way to bring an image: *size* bytes from *uri* with the SHA-256 *digest* (None: they are the image)."""

    def __init__(self, uri, size: int, digest=None, encryption=None, compressed: bool = False) -> None:
        self.uri = uri
        self.size = size
        self.digest = digest
        self.encryption = encryption
        self.compressed = compressed
        self.key = None  # (content key, first counter block) once `choose` has opened it


# -- what the manifest offers ------------------------------------------------------------------------


def offers(envelope, plan) -> list:
    """For each target of *plan*, which the engine has made of this envelope: its forms, the best one first.

    Raises Refused(SEVERABLE) where the install sequence is missing or not the signed one; else by what it holds.
    """
    members = _members(envelope)
    components, digest = _manifest(members)
    if digest is None:
        return [[Form(target.uri, target.size)] for target in plan.targets]
    install = members.get(_INSTALL)
    if install is None or sha256(install.buf[install.start : install.end]).digest() != digest:
        raise Refused(SEVERABLE)
    targets = {components.index(_IDENTIFIERS[target.component]): target for target in plan.targets}
    found = {index: [] for index in targets}
    _run(install.reader, {}, 0, targets, found, 1)
    for forms in found.values():
        if not forms:
            raise Refused(COMMAND)
    return [found[components.index(_IDENTIFIERS[target.component])] for target in plan.targets]


class _Member:
    """A byte string of the envelope: where it stands, head included, and a Reader over its content."""

    def __init__(self, reader: Reader) -> None:
        self.start = reader.pos
        self.reader = reader.wrapped()
        self.buf = reader.buf
        self.end = reader.pos


def _members(envelope) -> dict:
    reader = Reader(envelope, wrong=ENVELOPE)
    reader.tag()
    found = {}
    for _ in range(reader.map()):
        key = reader.uint() if reader.peek() == UINT else reader.tstr()
        found[key] = _Member(reader)
    return found


def _manifest(members: dict) -> tuple:
    """(component identifiers, digest of the severed install sequence or None)."""
    reader = members[_MANIFEST].reader
    reader.wrong = MANIFEST
    components = []
    digest = None
    for key in reader.int_keys():
        if key == _COMMON:
            common = reader.wrapped()
            for member in common.int_keys():
                if member == 2:
                    for _ in range(common.array()):
                        components.append(tuple([bytes(common.bstr()) for _ in range(common.array())]))
                else:
                    common.skip()
        elif key == _INSTALL and reader.peek() == ARRAY:
            digest = _read_digest(reader)
        else:
            reader.skip()
    return components, digest


def _read_digest(reader: Reader) -> bytes:
    if reader.array() != 2 or reader.int() != -16:
        raise Refused(reader.wrong)
    return _fixed(reader, 32)


def _fixed(reader: Reader, size: int) -> bytes:
    value = reader.bstr()
    if len(value) != size:
        raise Refused(reader.wrong)
    return bytes(value)


def _run(reader: Reader, values: dict, current: int, targets: dict, found: dict, depth: int) -> None:
    """Follows one command sequence and notes every way to *targets* (index -> Target) that it describes."""
    reader.wrong = COMMAND
    count = reader.array(2 * MAX_COMMANDS)
    if count & 1:
        raise Refused(COMMAND)
    for _ in range(count >> 1):
        command = reader.int()
        own = values.setdefault(current, {})
        if command == _SET_INDEX:
            current = reader.uint()
        elif command == _OVERRIDE:
            _override(reader, own)
        elif command == _TRY_EACH and depth:
            for _ in range(reader.array(MAX_FORMS)):
                copied = {index: dict(held) for index, held in values.items()}
                _run(reader.wrapped(), copied, current, targets, found, depth - 1)
        elif reader.uint() > 15:
            raise Refused(COMMAND)
        elif command == _FETCH:
            if _URI not in own:
                raise Refused(PARAMETER)
            own[_STATE] = _FETCHED
            if current in targets:
                found[current].append(Form(own[_URI], targets[current].size))
        elif command == _MATCH:
            own[_STATE] = own.get(_STATE, 0) and _MATCHED
        elif command == _COPY and current in targets:
            source = values.get(own.get(_SOURCE), {})
            if source.get(_STATE) != _MATCHED or _DIGEST not in source or _SIZE not in source:
                raise Refused(COMMAND)  # what is copied must have been compared with its digest
            compressed = own.get(_COMPRESSION) is not None
            found[current].append(Form(source[_URI], source[_SIZE], source[_DIGEST], own.get(_ENCRYPTION), compressed))
        else:
            raise Refused(COMMAND)
    reader.done()


def _override(reader: Reader, own: dict) -> None:
    reader.wrong = PARAMETER
    for key in reader.int_keys():
        if key == _DIGEST:
            image = reader.wrapped()
            own[key] = _read_digest(image)
            image.done()
        elif key == _SIZE or key == _SOURCE:
            own[key] = reader.uint()
        elif key == _ENCRYPTION:
            own[key] = bytes(reader.bstr())
        elif key == _URI:
            own[key] = reader.tstr()
        elif key == _COMPRESSION:
            own[key] = reader.uint()
            if own[key] != _ZLIB:
                raise Refused(PARAMETER)
        else:
            raise Refused(PARAMETER)
    reader.wrong = COMMAND


# -- what this device can read -----------------------------------------------------------------------


def device_keys() -> list:
    """The key-encryption keys of this device, its own and those of its groups: each has ``id`` and ``unwrap``."""
    try:
        from .secure import component
    except ImportError:  # a small stock image has no other component than this
        from .issued import keks

        return keks()
    return component().keks()


def choose(forms: list, keks, trusted) -> Form:
    """The first of *forms* that this device can read with the key-encryption keys *keks* (`device_keys`) and that the
    key set *trusted* allows (STS09).

    Raises Refused when there is none: ALGORITHM where the key set forbids one, else CONTENT_KEY.
    """
    code = CONTENT_KEY
    for form in forms:
        if form.compressed and not _inflates():
            continue
        if form.encryption is not None:
            algorithm, form.key = _unlock(form.encryption, keks)
            if not trusted.allows(CONTENT, algorithm):
                code = ALGORITHM
                continue
            if form.key is None:
                continue
        return form
    raise Refused(code)


def _inflates() -> bool:
    try:
        import deflate  # noqa: F401
    except ImportError:
        return False
    return True


def _unlock(encryption: bytes, keks):
    """(algorithm, (content key, first counter block)) of a SUIT_Encryption_Info; (algorithm, None) where for others."""
    reader = Reader(encryption, wrong=PARAMETER)
    if reader.tag() != _COSE_ENCRYPT or reader.array() != 4 or len(reader.bstr()):
        raise Refused(PARAMETER)
    algorithm = counter = None
    for label in reader.int_keys():
        if label == 1:
            algorithm = reader.int()
        elif label == 5:
            counter = _fixed(reader, 16)
        else:
            raise Refused(PARAMETER)
    size = 16 if algorithm == _A128CTR else 32 if algorithm == _A256CTR else 0
    content = algorithm
    if not size or counter is None or reader.head() != (SIMPLE, NULL):
        raise Refused(PARAMETER)
    names = {kek.id: kek for kek in keks}
    key = None
    for _ in range(reader.array(MAX_RECIPIENTS)):
        if reader.array() != 3 or len(reader.bstr()):
            raise Refused(PARAMETER)
        algorithm = kid = None
        for label in reader.int_keys():
            if label == 1:
                algorithm = reader.int()
            else:
                kid = bytes(reader.bstr())
        wrapped = bytes(reader.bstr())
        if key is None and algorithm == _A128KW and kid in names:
            key = _unwrap(names[kid], wrapped, size)
    reader.done()
    return content, key and (key, counter)


def _unwrap(kek, wrapped: bytes, size: int):
    key = kek.unwrap(wrapped)
    return key if len(key) == size else None


# -- the bytes ---------------------------------------------------------------------------------------


class Unpacker:
    """Takes the packed bytes in order, in pieces of at most a sector, and hands on the image, sector by sector.

    write(offset, view) gets what lies at or after *start*, a multiple of SECTOR; *size* is that of the image. ``taken``
    counts the packed bytes. Every method raises Refused(IMAGE_DIGEST or IMAGE_SIZE) for bytes that cannot be right.
    """

    def __init__(self, form: Form, size: int, start: int, write) -> None:
        self.form = form
        self.taken = 0
        self._size = size
        self._start = start
        self._write = write
        self._hash = sha256()
        self._at = 0  # offset of the sector that is being filled
        self._fill = 0
        self._sector = memoryview(bytearray(SECTOR))
        self._ctr = _cipher(form.key) if form.key else None
        self._inflater = _Inflater() if form.compressed else None

    def feed(self, view) -> None:
        """Takes the next packed bytes; *view* is overwritten where they are encrypted."""
        self._hash.update(view)
        self.taken += len(view)
        if self.taken > self.form.size:
            raise Refused(IMAGE_SIZE)
        if self._ctr:
            self._ctr.crypt(view)
        if self._inflater:
            self._inflate(self._inflater, view)
        else:
            self._copy(view)

    def done(self) -> None:
        """Judges the packed bytes when all have been fed; before this nothing of them may be staged."""
        if self.taken != self.form.size or self._hash.digest() != self.form.digest:
            raise Refused(IMAGE_DIGEST)
        if self._at + self._fill != self._size:
            raise Refused(IMAGE_SIZE)

    def _copy(self, view) -> None:
        place = 0
        while place < len(view):
            size = min(SECTOR - self._fill, len(view) - place)
            self._sector[self._fill : self._fill + size] = view[place : place + size]
            place += size
            self._filled(size)

    def _filled(self, size: int) -> None:
        self._fill += size
        end = self._at + self._fill
        if end > self._size:
            raise Refused(IMAGE_SIZE)
        if self._fill == SECTOR or end == self._size:
            if self._at >= self._start:
                self._write(self._at, self._sector[: self._fill])
            if end < self._size:
                self._at, self._fill = end, 0

    def _inflate(self, source: "_Inflater", view) -> None:
        last = self.taken == self.form.size
        source.add(view)
        while self._at + self._fill < self._size and (last or source.left() > _MARGIN):
            room = min(_STEP, SECTOR - self._fill, self._size - self._at - self._fill)
            got = source.readinto(self._sector[self._fill : self._fill + room])
            if not got:
                raise Refused(IMAGE_SIZE)
            self._filled(got)
        if last and source.readinto(bytearray(1)):  # its end; the stream's checksum is compared here
            raise Refused(IMAGE_SIZE)


def _cipher(key: tuple):
    from .ciphers import AesCtr

    return AesCtr(key[0], key[1])


class _Inflater:
    """A zlib stream that arrives in pieces: what has not been used yet lies at the end of a buffer of fixed length.

    `deflate` reads from there, byte by byte, and cannot be told to wait; so whoever reads keeps _MARGIN in hand.
    """

    def __init__(self) -> None:
        self._stream = BytesIO()
        self._stream.write(bytes(_FEED))
        self._source = None

    def left(self) -> int:
        return _FEED - self._stream.tell()

    def add(self, view) -> None:
        left = self._stream.read()
        place = _FEED - len(left) - len(view)
        if place < 0:  # the image is complete, and yet more comes
            raise Refused(IMAGE_SIZE)
        self._stream.seek(place)
        self._stream.write(left)
        self._stream.write(view)
        self._stream.seek(place)
        if self._source is None:
            self._source = self._begin(view[0])

    def _begin(self, first: int):
        import deflate

        if first & 15 != 8:
            raise Refused(IMAGE_DIGEST)
        if (first >> 4) + 8 > MAX_WINDOW:
            raise Refused(LIMIT)
        return deflate.DeflateIO(self._stream, deflate.ZLIB, (first >> 4) + 8)

    def readinto(self, view) -> int:
        try:
            return self._source.readinto(view)  # type: ignore[attr-defined]  # set by the first add
        except (OSError, EOFError, ValueError):
            raise Refused(IMAGE_DIGEST)
