"""What is fuzzed on the device's side: each target takes any bytes and must return, or be refused by a reason code.

Plain functions that run on CPython (under atheris) and on MicroPython (replay.py). To reach what lies behind a
signature, a checksum or a digest, some targets put a good one around the input.
"""

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
    banks = bytearray(data[1 : 1 + 2 * SECTOR])
    if data[0] & 1:
        for at in range(0, len(banks) - 63, 64):
            if banks[at : at + 64] != b"\xff" * 64:
                banks[at + 60 : at + 64] = crc32(banks[at : at + 60]).to_bytes(4, "little")
    part = Part(banks)
    book = module.Ledger(part)
    if book.lost:
        book.format()
    book.append(module.ATTEMPT)
    again = module.Ledger(Part(part.content))
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


TARGETS = {
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
}


def run(name, data):
    """Runs one target; returns the reason code of a refusal, or 0."""
    try:
        TARGETS[name](data)
    except Refused as error:
        return error.code
    return 0
