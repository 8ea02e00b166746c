"""Documents in sectors of their own, byte for byte: docs/flash-format.md."""

from binascii import crc32
from struct import pack

from sekisho_boot import records
from writer import refusal

SECTOR = 4096


class Part:
    def __init__(self):
        self.content = bytearray(b"\xff" * 12 * SECTOR)
        self.done = []
        self.worn = -1

    def read(self, off, buf):
        assert off + len(buf) <= len(self.content)
        buf[:] = self.content[off : off + len(buf)]

    def program(self, off, buf):
        self.done.append((off, len(buf)))
        for at in range(len(buf)):
            self.content[off + at] &= buf[at]
        if off <= self.worn < off + len(buf):
            self.content[self.worn] |= 1

    def erase(self, sector):
        self.done.append(sector)
        self.content[sector * SECTOR : (sector + 1) * SECTOR] = b"\xff" * SECTOR


class Target:
    size = 0x01020304
    digest = bytes(range(32))


class Plan:
    sequence = 0x0102030405060708
    digest = bytes(range(32, 64))
    key = b"key id 8"


def document(kind, payload, serial=0, version=1, magic=b"SKB1"):
    head = magic + pack("<BBHI", kind, version, len(payload), serial)
    return head + pack("<I", crc32(head + payload)) + payload


def held(content, sector=6):
    part = Part()
    part.content[sector * SECTOR : sector * SECTOR + len(content)] = content
    return part


def test_the_sectors_have_their_numbers_for_ever():
    assert (records.SLOT_RECORDS, records.STAGED, records.HOLDING, records.KEYSETS) == (2, 6, 7, 8)
    assert (records.KIND_SLOT, records.KIND_STAGED, records.KIND_KEYSET, records.PREFIX) == (1, 2, 3, 88)


def test_a_document_is_erased_for_then_written_then_given_its_header():
    part = Part()
    records.save(part, 6, 1, 2, 0x01020304, b"payload")
    assert part.done == [6, (6 * SECTOR + 16, 7), (6 * SECTOR, 16)]
    expected = document(2, b"payload", 0x01020304)
    assert part.content[6 * SECTOR : 6 * SECTOR + len(expected)] == expected
    assert records.load(part, 6, 1, 2) == b"payload"


def test_what_is_there_already_is_not_written_again():
    part = Part()
    records.save(part, 6, 1, 2, 5, b"payload")
    part.done = []
    records.save(part, 6, 1, 2, 5, b"payload")
    assert part.done == []
    for serial, payload in ((6, b"payload"), (6, b"Payload"), (6, b"payload and more")):
        part.done = []
        records.save(part, 6, 1, 2, serial, payload)
        assert part.done[0] == 6
        assert records.load(part, 6, 1, 2) == payload


def test_a_payload_that_changed_in_flash_is_written_again():
    part = Part()
    records.save(part, 6, 1, 2, 5, b"payload")
    part.content[6 * SECTOR + 18] ^= 1
    part.done = []
    records.save(part, 6, 1, 2, 5, b"payload")
    assert len(part.done) == 3
    assert records.load(part, 6, 1, 2) == b"payload"


def test_a_document_may_lie_in_two_sectors():
    part = Part()
    payload = bytes(range(250)) * 30
    records.save(part, 8, 2, 3, 1, payload)
    assert part.done[:2] == [8, 9]
    assert len(part.done) == 4
    assert records.load(part, 8, 2, 3) == payload
    assert records.load(part, 8, 1, 3) is None  # it does not fit one


def test_a_document_fills_its_sectors_to_the_last_byte():
    part = Part()
    records.save(part, 6, 1, 2, 0, bytes(4080))
    assert records.load(part, 6, 1, 2) == bytes(4080)
    part.content[6 * SECTOR : 7 * SECTOR + 1] = document(2, bytes(4081))
    assert records.load(part, 6, 1, 2) is None


def test_what_does_not_read_back_is_refused():
    for worn in (6 * SECTOR + 17, 6 * SECTOR + 7):
        part = Part()
        part.worn = worn
        assert refusal(lambda part=part: records.save(part, 6, 1, 2, 0, bytes(9))) == "FLASH"


def test_only_an_intact_document_of_its_kind_and_version_is_read():
    good = document(2, b"payload")
    assert records.load(held(good), 6, 1, 2) == b"payload"
    assert records.load(held(good), 6, 1, 1) is None
    assert records.load(held(document(2, b"payload", version=2)), 6, 1, 2) is None
    assert records.load(held(document(2, b"payload", magic=b"SKB2")), 6, 1, 2) is None
    assert records.load(Part(), 6, 1, 2) is None
    for at in range(len(good)):
        assert records.load(held(good[:at] + bytes((good[at] ^ 1,)) + good[at + 1 :]), 6, 1, 2) is None
    assert records.load(held(document(2, b"")), 6, 1, 2) == b""


def test_a_slot_record_has_every_field_in_its_place():
    for component, slot, sector in ((0, 0, 2), (0, 1, 3), (1, 0, 4), (1, 1, 5)):
        part = Part()
        records.save_slot(part, component, slot, Target, Plan, b"envelope")
        assert part.done[0] == sector
        assert len(part.done) == 3  # one erase: its neighbour is the record of another slot
        prefix = pack("<BBHIQ", component, slot, 0xFFFF, Target.size, Plan.sequence)
        expected = document(1, prefix + Target.digest + Plan.digest + Plan.key + b"envelope")
        assert part.content[sector * SECTOR : sector * SECTOR + len(expected)] == expected
        found = records.load_slot(part, component, slot)
        assert (found.size, found.sequence, found.digest) == (Target.size, Plan.sequence, Target.digest)
        assert (found.manifest, found.key, found.envelope) == (Plan.digest, Plan.key, b"envelope")


def test_a_slot_record_is_of_its_own_slot_and_complete():
    part = Part()
    records.save_slot(part, 0, 1, Target, Plan, b"")
    assert records.load_slot(part, 0, 1).envelope == b""
    assert records.load_slot(part, 0, 0) is None
    for sector in (2, 4, 5):
        part.content[sector * SECTOR : (sector + 1) * SECTOR] = part.content[3 * SECTOR : 4 * SECTOR]
    assert records.load_slot(part, 0, 0) is None
    assert records.load_slot(part, 1, 0) is None
    assert records.load_slot(part, 1, 1) is None
    records.save(part, 3, 1, 1, 0, bytes((0, 1)) + bytes(85))
    assert records.load_slot(part, 0, 1) is None
    records.save(part, 3, 2, 1, 0, bytes((0, 1)) + bytes(4079))
    assert records.load_slot(part, 0, 1) is None  # it reaches into the next sector
