"""What is fuzzed on the device's side: each target takes any bytes and must return, or be refused by a reason code.

Plain functions that run on CPython (under atheris) and on MicroPython (replay.py). To reach what lies behind a
signature, a checksum or a digest, some targets put a good one around the input.
"""

import sys
from binascii import crc32
from hashlib import sha256

from sekisho_boot.reasons import Refused

SECTOR = 4096


class Part:
    """Flash that holds its first sectors; the rest reads as erased."""

    def __init__(self, content):
        self.content = bytearray(content)
        self.size = 65536

    def read(self, off, buf):
        self._grow(off + len(buf))
        buf[:] = self.content[off : off + len(buf)]

    def _grow(self, end):
        if end > len(self.content):
            self.content.extend(b"\xff" * (end - len(self.content)))

    def program(self, off, buf):
        self._grow(off + len(buf))
        for at in range(len(buf)):
            self.content[off + at] &= buf[at]

    def erase(self, sector):
        self._grow((sector + 1) * SECTOR)
        self.content[sector * SECTOR : (sector + 1) * SECTOR] = b"\xff" * SECTOR


class Identity:
    """The identity of the synthetic SUIT vectors."""

    vendor = b"\xcf\xbf\xf0\xd1\x93uV\x85\x96\x8cH\xce\x8b\x15\xae\x17"
    classes = (b"m\xe7\xaf\x11}\xbeY\xd2\x94\x86\xff\x08I\xb0\t?",)
    device = b"D" * 16


class State:
    counters = (5, 3)
    running = (5, 3)


KEYS = [  # of the private keys 01.. and 02.., which the seeds are signed with
    b"\x8a\x88\xe3\xdd\x74\x09\xf1\x95\xfd\x52\xdb\x2d\x3c\xba\x5d\x72\xca\x67\x09\xbf\x1d\x94\x12\x1b\xf3\x74\x88\x01\xb4\x0f\x6f\x5c",
    b"\x81\x39\x77\x0e\xa8\x7d\x17\x5f\x56\xa3\x54\x66\xc3\x4c\x7e\xcc\xcb\x8d\x8a\x91\xb4\xee\x37\xa2\x5d\xf6\x0f\x5b\x8f\xc9\xb3\x94",
]


class Keys:
    revoked_keys = (b"revoked!",)
    revoked_manifests = (b"\x01" * 32,)

    def release_keys(self):
        return KEYS

    def may(self, index, component, product):
        return component == "fw" or index == 0

    def limit(self, component):
        return 1, 1 << 40


def head(major, size):
    if size < 24:
        return bytes((major << 5 | size,))
    if size < 256:
        return bytes((major << 5 | 24, size))
    return bytes((major << 5 | 25, size >> 8, size & 255))


def bstr(data):
    return head(2, len(data)) + data


def envelope_around(manifest):
    """An envelope that is right in everything but the manifest; its signature is good where signatures are faked."""
    digest = b"\x82\x2f" + bstr(sha256(bstr(manifest)).digest())
    block = b"\xd2\x84\x43\xa1\x01\x32\xa0\xf6" + bstr(bytes(64))
    return b"\xd8\x6b\xa2\x02" + bstr(b"\x82" + bstr(digest) + bstr(block)) + b"\x03" + bstr(manifest)


def manifest_around(shared):
    common = b"\xa2\x02\x82\x81\x42fw\x81\x43app\x04" + bstr(shared)
    return b"\xa4\x01\x01\x02\x07\x03" + bstr(common) + b"\x07" + bstr(b"\x84\x0c\x00\x03\x0f")


def _world(answer, function, *arguments):
    """Calls *function* in a world where every signature verifies, or none does."""
    from sekisho_boot import cose

    saved = cose.verify
    cose.verify = lambda key, message, signature: answer
    try:
        return function(*arguments)
    finally:
        cose.verify = saved


def _faked(function, *arguments):
    return _world(True, function, *arguments)


def cbor(data):
    from sekisho_boot.cbor import Reader

    reader = Reader(data)
    reader.skip()
    reader.done()
    for method in ("uint", "int", "tstr", "bstr", "wrapped", "array", "map", "tag", "peek"):
        try:
            getattr(Reader(data), method)()
        except Refused:
            pass
    try:
        for _ in Reader(data).int_keys():
            pass
    except Refused:
        pass


def cose(data):
    from sekisho_boot import cose as module

    for function, payload in ((module.verify_sign1, (b"payload",)), (module.open_sign1, ())):
        for answer in (False, True):
            try:
                _world(answer, function, data, *payload, KEYS, (b"revoked!",))
                assert answer  # nothing is accepted where no signature verifies
            except Refused:
                pass


def cose_sign(data):
    from sekisho_boot import cose as module

    payload, found = _faked(module.verify_sign, data, [b"\x0a" * 32, b"\x0b" * 32, b"\x0a" * 32])
    assert len(payload) <= len(data)
    assert found in ([], [0], [1], [0, 1], [1, 0])


def suit(data):
    from sekisho_boot import suit as module

    return _faked(module.check, data, Keys(), Identity, State, 1800000000)


def manifest(data):
    """The input is a manifest whose signature is good."""
    return suit(envelope_around(bytes(data)))


def sequence(data):
    """The input is a shared sequence."""
    return manifest(manifest_around(bytes(data)))


def keyset(data):
    from sekisho_boot import keyset as module

    found = module.parse(data)
    assert found.threshold <= len(found.roots)
    try:
        _faked(module.genesis, data)
    except Refused:
        pass


def keyset_content(data):
    """The input is what the roots would have signed."""
    keyset(b"\xd8\x62\x84\x40\xa0" + bstr(bytes(data)) + b"\x80")


def ledger(data):
    """The input is the two banks; where its first bit is set, every record gets a right checksum."""
    from sekisho_boot import ledger as module

    if not data:
        return
    part = Small(memoryview(data)[1 : 1 + 2 * SECTOR], 65536)
    if data[0] & 1:
        _mend(part)
    book = module.Ledger(part)
    if book.lost:
        book.format()
    book.append(module.ATTEMPT)
    again = module.Ledger(part)
    assert again.state.counters == book.state.counters
    assert not again.lost


def document(data):
    """The input is a sector document; where its first bit is set, it gets a right header."""
    from sekisho_boot import records

    if not data:
        return
    content = bytearray(data[1 : 1 + SECTOR])
    if data[0] & 1 and len(content) >= 16:
        content[:6] = b"SKB1" + bytes((records.KIND_SLOT, 1))
        content[6:8] = (len(content) - 16).to_bytes(2, "little")
        content[12:16] = crc32(content[16:], crc32(content[:12])).to_bytes(4, "little")
    part = Part(b"\xff" * (records.SLOT_RECORDS * SECTOR) + content)
    found = records.load_slot(part, 0, 0)
    assert found is None or len(found.envelope) <= SECTOR
    records.load(Part(content), 0, 2, records.KIND_KEYSET)


def otadata(data):
    from sekisho_boot import otadata as module

    part = Part(data[: 2 * SECTOR])
    module.selected(part)
    module.normalise(part, data[0] & 1 if data else 0)
    assert module.selected(part) == (data[0] & 1 if data else 0, module.VALID)


def image(data):
    """The input is an application image; where its first byte is odd, the magic bytes are put right."""
    from sekisho_boot import image as module

    content = bytearray(data[1:])
    if data and data[0] & 1 and len(content) >= 36:
        content[0] = 0xE9
        content[12:14] = b"\x00\x00"
        content[23] = 1
        content[32:36] = b"\x32\x54\xcd\xab"

    def read(off, buf):
        assert 0 <= off
        assert off + len(buf) <= len(content)  # never beyond the image
        buf[:] = content[off : off + len(buf)]

    module.check(read, len(content), 0, 300, sha256)


class ResetError(Exception):
    """The device resets."""


class Small:
    """Flash in pieces of 256 bytes, of which only those that are not erased take heap."""

    encrypted = False

    def __init__(self, content, size):
        self.size = size
        self.pieces = {}
        self.writes = 0
        self.fill(0, content)

    def fill(self, off, content):
        """Puts *content* there, as the factory would."""
        view = memoryview(content)
        at = 0
        while at < len(view):
            number, start = divmod(off + at, 256)
            piece = self.pieces.get(number)
            if piece is None:
                piece = self.pieces[number] = bytearray(BLANK)
            count = min(256 - start, len(view) - at)
            piece[start : start + count] = view[at : at + count]
            at += count

    def read(self, off, buf):
        assert 0 <= off <= off + len(buf) <= self.size
        at = 0
        while at < len(buf):
            number, start = divmod(off + at, 256)
            count = min(256 - start, len(buf) - at)
            buf[at : at + count] = self.pieces.get(number, BLANK)[start : start + count]
            at += count

    def program(self, off, buf):
        assert 0 <= off <= off + len(buf) <= self.size
        self.writes += 1
        old = bytearray(64)
        for at in range(0, len(buf), 64):
            new = memoryview(buf)[at : at + 64]
            held = memoryview(old)[: len(new)]
            self.read(off + at, held)
            for place in range(len(new)):
                held[place] &= new[place]
            self.fill(off + at, held)

    def erase(self, sector):
        assert 0 <= sector < self.size // SECTOR
        self.writes += 1
        for number in range(sector * 16, sector * 16 + 16):
            self.pieces.pop(number, None)


BLANK = b"\xff" * 256


class Config:
    """KEYSET: version 1 by key 01.., release key 02.. (seeds.py makes it, a test compares)."""

    KEYSET = bytes.fromhex(
        "d8628440a05870ab01010201031b000001000000000004010582018158208a88e3dd7409f195fd52db2d3cba5d72ca6709bf"
        "1d94121bf3748801b40f6f5c0681a20158208139770ea87d175f56a35466c34c7ecccb8d8a91b4ee37a25df60f5b8fc9b394"
        "0282626677636170700780088009800aa00b00818343a10132a1044834750f98bd59fcfc58404ac03ba19ffc6cbff8090000"
        "35c369904053e956e2517f4ea4dbe9bb6f2651c60f4179976bab7377da6c701930be417b7f73ddaf10749ea3cde499f21808"
        "9601"
    )
    BUILD_TIME = 1800000000
    FLOOR_FW = FLOOR_APP = 0
    CHIP = 0
    TRIAL_SECONDS = 300


class Port(Identity):
    config = Config
    running = 0
    revision = 300

    def __init__(self, part, otadata):
        self.part, self.otadata = part, otadata
        self.fw = [Small(b"firmware", 2 * SECTOR), Small(b"firmware", 2 * SECTOR)]
        self.app = [Small(b"application", SECTOR), Small(b"", SECTOR)]

    def now(self):
        return 0

    def hardware_floor(self):
        return 0

    def watchdog(self, seconds):
        assert seconds == 300

    def reset(self):
        raise ResetError


def _mend(part):
    """Right checksums for all that stands in the `sekisho` partition."""
    for number in range(2 * SECTOR // 256):
        for at in range(0, 256 if number in part.pieces else 0, 64):
            record = memoryview(part.pieces[number])[at : at + 64]
            if record != BLANK[:64]:
                record[60:64] = crc32(record[:60]).to_bytes(4, "little")
    head = bytearray(64)
    for sector in range(2, 16):
        view = memoryview(head)[:16]
        part.read(sector * SECTOR, view)
        size = int.from_bytes(head[6:8], "little")
        if head[:4] == b"SKB1" and size <= 2 * SECTOR - 16 and (sector < 15 or size <= SECTOR - 16):
            crc, off = crc32(head[:12]), sector * SECTOR + 16
            for at in range(0, size, 64):
                view = memoryview(head)[: min(64, size - at)]
                part.read(off + at, view)
                crc = crc32(view, crc)
            part.fill(sector * SECTOR + 12, crc.to_bytes(4, "little"))


def boot(data):
    """The input is what lies in flash: pieces of (sector, offset and length in two bytes each, bytes). Sectors 16 and
    17 are otadata. Where its first bit is set, every checksum is right.

    However often the bootloader falls back to slot 0, the device must come to rest with its own slot untouched.
    """
    from sekisho_boot import engine

    port = Port(Small(b"", 65536), Small(b"", 2 * SECTOR))
    at = 1
    while at + 5 <= len(data):
        sector, off, size = data[at] % 18, (data[at + 1] | data[at + 2] << 8) % SECTOR, data[at + 3] | data[at + 4] << 8
        piece = memoryview(data)[at + 5 : at + 5 + min(size, SECTOR - off)]
        at += 5 + size
        where, place = (port.part, sector * SECTOR) if sector < 16 else (port.otadata, (sector - 16) * SECTOR)
        where.fill(place + off, piece)
    if data and data[0] & 1:
        _mend(port.part)

    def again():
        for _ in range(24):
            try:
                return engine.boot(port)
            except ResetError:
                pass
        raise AssertionError("it resets for ever")

    try:
        _faked(again)
    finally:
        assert port.fw[0].writes == 0


class Target:
    component, size = 0, 8


class Plan:
    targets = (Target,)


class GroupKey:
    """The key-encryption key of the seeds (16 zeros), without the cipher: what is fuzzed is what stands around it."""

    id = sha256(b"sekisho kek" + bytes(16)).digest()[:8]

    @staticmethod
    def unwrap(wrapped):
        return wrapped[8:]


def severed(data):
    """The agent: the input is what a server calls an envelope, or a key set."""
    from sekisho import envelope

    for function in (envelope.tells_how, envelope.keyset_version, envelope.sever):
        try:
            function(data)
        except Refused:
            pass
    assert len(envelope.sever(data)) <= len(data)


def install(data):
    """The agent: the input is an install sequence that the manifest names by its digest."""
    from sekisho import payload

    data = bytes(data)
    digest = b"\x82\x2f" + bstr(sha256(bstr(data)).digest())
    common = b"\xa1\x02\x82\x81\x42fw\x82\x42fw\x46packed"
    manifest = b"\xa4\x01\x01\x02\x07\x03" + bstr(common) + b"\x14" + digest
    forms = payload.offers(b"\xd8\x6b\xa2\x03" + bstr(manifest) + b"\x14" + bstr(data), Plan)
    assert len(forms) == 1
    assert forms[0]


def encryption(data):
    """The agent: the input says how a payload is encrypted, and for whom."""
    from sekisho import payload

    algorithm, key = payload._unlock(data, [GroupKey])
    assert key is None or len(key[0]) == (16 if algorithm == -65534 else 32)


class Rights:
    """All that orders take from the engine, which a device has in its flash and not on the heap (a test compares)."""

    RIGHT_ROLLBACK, RIGHT_UNLOCK = 3, 7


def order(data):
    """The agent: the input is the file of an order, then its payload."""
    if sys.implementation.name == "micropython":
        sys.modules["sekisho_boot.engine"] = Rights
    from sekisho import orders

    try:
        document, attached = orders.split(data)
        assert len(document) + len(attached) == len(data)
        orders.payload(document)
    except Refused:
        pass
    assert 1 in orders.members(data)


TARGETS = {
    "boot": boot,
    "cbor": cbor,
    "cose": cose,
    "cose_sign": cose_sign,
    "suit": suit,
    "manifest": manifest,
    "sequence": sequence,
    "keyset": keyset,
    "keyset_content": keyset_content,
    "ledger": ledger,
    "document": document,
    "otadata": otadata,
    "image": image,
    "severed": severed,
    "install": install,
    "encryption": encryption,
    "order": order,
}


def run(name, data):
    """Runs one target; returns the reason code of a refusal, or 0."""
    try:
        TARGETS[name](data)
    except Refused as error:
        return error.code
    return 0
