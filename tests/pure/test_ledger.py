"""The ledger's bytes and the order in which they come: docs/flash-format.md, record by record."""

from binascii import crc32
from struct import pack, unpack_from

from sekisho_boot import ledger as log
from sekisho_boot.ledger import Ledger
from writer import refusal

SECTOR = 4096
MANIFEST = bytes(range(32))
OTHER = bytes(range(32, 64))
THIRD = bytes(range(64, 96))
NONE = bytes(32)


class Part:
    """Two sectors; notes what is done, and keeps what it is told in places that are *worn* (offset -> bit)."""

    def __init__(self):
        self.content = bytearray(b"\xff" * 2 * SECTOR)
        self.done = []
        self.worn = set()

    def read(self, off, buf):
        buf[:] = self.content[off : off + len(buf)]

    def program(self, off, buf):
        self.done.append(off)
        for at in range(len(buf)):
            self.content[off + at] &= buf[at]
        if off in self.worn:
            self.content[off + 5] ^= 16

    def erase(self, sector):
        self.done.append(("erase", sector))
        self.content[sector * SECTOR : (sector + 1) * SECTOR] = b"\xff" * SECTOR

    def kinds(self, bank=0):
        return [self.content[at + 1] for at in self.places(bank)]

    def places(self, bank=0):
        found = range(bank * SECTOR, (bank + 1) * SECTOR, 64)
        return [at for at in found if self.content[at : at + 64] != b"\xff" * 64]


def record(kind, n, a=0, b=0, x=0, y=0, digest=NONE, z=0, version=1):
    body = pack("<BBBBIQQ32sI", version, kind, a, b, n, x, y, digest, z)
    return body + pack("<I", crc32(body))


def new():
    part = Part()
    book = Ledger(part)
    assert book.lost
    book.format()
    assert not book.lost
    part.done = []
    return part, book


def put(part, bank, records):
    """Puts *records* where a ledger would have them."""
    for number, one in enumerate(records):
        part.content[bank * SECTOR + 64 * number : bank * SECTOR + 64 * number + 64] = one


FIELDS = (
    "counters chosen degraded locked probe keyset pairs retries abandoned nonce last phase mask slots sequence "
    "manifest permit progress attempts runs faults"
).split()


def plain(state):
    values = {name: getattr(state, name) for name in FIELDS}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def again(part):
    return plain(Ledger(part).state)


def test_the_types_have_their_numbers_for_ever():
    names = (
        "HEADER END COUNTERS PAIR KEYSET FETCH PROGRESS STAGED ENTER TRIAL ATTEMPT RUN CONFIRMING CONFIRMED FAILED "
        "RETRY ROLLBACK ABANDONED LOCK PROBE NONCE DEGRADED"
    ).split()
    assert [getattr(log, name) for name in names] == list(range(1, 23))
    assert (log.IDLE, log.FETCHING, log.READY, log.TRYING, log.SEALING) == (0, 1, 2, 3, 4)
    assert (log.VERSION, log.RECORD, log.NO_APP, log.MAX_RETRIES) == (1, 64, 255, 4)


def test_a_new_ledger_is_header_counters_and_end_in_both_banks():
    part, _ = new()
    for bank in (0, 1):
        expected = record(1, 1) + record(3, 2, a=255) + record(2, 3)
        assert part.content[bank * SECTOR : bank * SECTOR + 192] == expected
        assert part.content[bank * SECTOR + 192 : (bank + 1) * SECTOR] == b"\xff" * (SECTOR - 192)


def test_every_field_of_a_record_has_its_place():
    part, book = new()
    book.append(log.FETCH, 1, 2, 3, 4, MANIFEST, 5)
    assert part.content[192:256] == record(6, 4, 1, 2, 3, 4, MANIFEST, 5)
    assert part.content[SECTOR + 192 : SECTOR + 256] == part.content[192:256]


def test_a_record_goes_to_bank_0_and_then_to_bank_1():
    part, book = new()
    book.append(log.NONCE, 0, 0, 7)
    assert part.done == [192, SECTOR + 192]


def test_records_are_numbered_on_after_a_restart():
    part, book = new()
    book.append(log.NONCE, 0, 0, 7)
    Ledger(part).append(log.NONCE, 0, 0, 8)
    assert [unpack_from("<I", part.content, at + 4)[0] for at in part.places()] == [1, 2, 3, 4, 5]


def test_a_bank_is_rewritten_when_three_places_are_left():
    part, book = new()
    for number in range(58):
        book.append(log.NONCE, 0, 0, number + 1)
    assert len(part.places()) == len(part.places(1)) == 61
    assert ("erase", 0) not in part.done
    assert ("erase", 1) not in part.done
    part.done = []
    book.append(log.NONCE, 0, 0, 100)
    assert part.done[0] == ("erase", 1)
    assert part.done[1:5] == [SECTOR + 64 * at for at in range(4)]
    assert part.done[5] == ("erase", 0)
    assert part.done[6:10] == [64 * at for at in range(4)]
    assert part.kinds() == part.kinds(1) == [1, 3, 21, 2, 21]
    assert again(part)["nonce"] == 100


def test_a_place_that_does_not_read_back_is_skipped():
    part, book = new()
    part.worn = {192, 256, SECTOR + 192}
    book.append(log.NONCE, 0, 0, 7)
    assert part.done == [192, 256, 320, SECTOR + 192, SECTOR + 256]
    assert again(part)["nonce"] == 7


def test_a_bank_without_a_place_that_takes_the_record_says_so():
    part, book = new()
    part.worn = set(range(192, SECTOR, 64))
    assert refusal(lambda: book.append(log.NONCE, 0, 0, 7)) == "FLASH"
    assert len(part.done) == 61


def test_numbers_end_before_they_wrap():
    part = Part()
    for bank in (0, 1):
        put(part, bank, [record(1, 0xFFFFFFFD), record(2, 0xFFFFFFFE)])
    book = Ledger(part)
    book.append(log.NONCE, 0, 0, 7)
    assert unpack_from("<I", part.content, 128 + 4)[0] == 0xFFFFFFFF
    part.done = []
    assert refusal(lambda: book.append(log.NONCE, 0, 0, 8)) == "FLASH"
    assert part.done == []


def test_a_bank_counts_from_its_header_to_an_end():
    for records, lost in (
        ([record(1, 1), record(2, 2)], False),
        ([record(1, 1), record(21, 2, x=9), record(2, 3)], False),
        ([record(1, 1)], True),
        ([record(2, 1)], True),
        ([record(2, 1), record(1, 2)], True),
        ([record(21, 1), record(1, 2), record(2, 3)], True),
        ([], True),
    ):
        for bank in (0, 1):
            part = Part()
            put(part, bank, records)
            assert Ledger(part).lost == lost


def test_the_newer_header_wins_in_either_bank():
    for newer in (0, 1):
        part = Part()
        put(part, newer, [record(1, 11), record(3, 12, x=1, y=1), record(21, 13, x=7), record(2, 14)])
        put(part, 1 - newer, [record(1, 1), record(3, 2, x=5, y=6), record(21, 3, x=8), record(2, 4)])
        state = Ledger(part).state
        assert state.nonce == 7
        assert state.counters == [5, 6]  # the maximum, wherever it is readable
        assert part.kinds(newer) == [1, 3, 21, 2, 2]  # one more END before the other bank is erased
        assert part.kinds(1 - newer) == [1, 3, 21, 2, 2]
        assert part.done[0] == newer * SECTOR + 256
        assert part.done[1] == ("erase", 1 - newer)


def test_what_one_bank_lacks_is_written_into_it_before_anything_is_acted_upon():
    for short in (0, 1):
        part, book = new()
        book.append(log.NONCE, 0, 0, 7)
        part.content[short * SECTOR + 192 : short * SECTOR + 256] = b"\xff" * 64
        part.done = []
        assert Ledger(part).state.nonce == 7
        assert part.done == [short * SECTOR + 192]
        part.done = []
        assert Ledger(part).state.nonce == 7
        assert part.done == []


def test_banks_that_are_level_are_read_without_a_write():
    part, book = new()
    for number in range(20):
        book.append(log.NONCE, 0, 0, number + 1)
    part.done = []
    Ledger(part)
    assert part.done == []


def test_of_a_full_bank_the_other_is_rewritten_to_make_them_level():
    part, book = new()
    for number in range(58):
        book.append(log.NONCE, 0, 0, number + 1)
    part.content[SECTOR : 2 * SECTOR] = b"\xff" * SECTOR
    put(part, 0, [record(1, 1), record(3, 2, a=255), record(2, 3)] + [record(21, 4 + n, x=n + 1) for n in range(61)])
    part.done = []
    assert Ledger(part).state.nonce == 61
    assert part.done[0] == ("erase", 1)
    assert part.kinds() == part.kinds(1) == [1, 3, 21, 2]


def test_a_bad_record_is_skipped_and_reading_goes_on():
    part, book = new()
    for number in (7, 8, 9):
        book.append(log.NONCE, 0, 0, number)
    part.content[256 + 20] ^= 1
    part.content[SECTOR + 256 + 20] ^= 1
    assert again(part)["nonce"] == 9


def test_a_record_of_another_format_makes_the_ledger_read_only():
    for version in (0, 2, 255):
        part, _ = new()
        put(part, 1, [record(1, 1), record(3, 2, a=255), record(2, 3), record(3, 4, x=9, version=version)])
        part.done = []
        book = Ledger(part)
        assert book.foreign
        assert book.state.counters == [0, 0]
        assert refusal(lambda book=book: book.append(log.NONCE, 0, 0, 1)) == "LEDGER_VERSION"
        assert refusal(book.format) == "LEDGER_VERSION"
        assert part.done == []


def test_a_ledger_of_another_format_is_not_even_made_level():
    part, _ = new()
    put(part, 1, [record(1, 1), record(3, 2, a=255), record(2, 3), record(21, 4, x=9), record(21, 5, x=7, version=2)])
    part.done = []
    book = Ledger(part)
    assert book.foreign
    assert book.state.nonce == 9
    assert part.done == []


def test_the_newest_record_does_not_count_where_it_is_bad_in_both_banks():
    part, book = new()
    for number in (7, 8):
        book.append(log.NONCE, 0, 0, number)
    part.content[256 + 20] ^= 1
    part.content[SECTOR + 256 + 20] ^= 1
    assert again(part)["nonce"] == 7


def test_of_two_records_with_one_number_that_of_the_base_counts():
    """No engine writes such; bank 0 is the base where both count."""
    part, _ = new()
    put(part, 0, [record(1, 1), record(3, 2, a=255), record(2, 3), record(21, 4, x=8)])
    put(part, 1, [record(1, 1), record(3, 2, a=255), record(2, 3), record(21, 4, x=9)])
    assert Ledger(part).state.nonce == 8


def test_level_banks_cost_one_reading_of_one_and_one_of_both_in_pieces():
    part, book = new()
    for number in range(20):
        book.append(log.NONCE, 0, 0, number + 1)
    reads = []
    real = part.read
    part.read = lambda off, buf: (reads.append((off, len(buf))), real(off, buf))
    Ledger(part)
    records = [(at, 1024) for at in range(0, SECTOR, 1024)]
    pieces = [(off + at, 1024) for at in range(0, SECTOR, 1024) for off in (0, SECTOR)]
    assert reads == records + pieces


def test_banks_that_differ_in_a_later_page_are_made_level():
    part, book = new()
    for number in range(20):
        book.append(log.NONCE, 0, 0, number + 1)
    for room, place in ((23, 5), (24, 11), (25, 22)):
        part.content[SECTOR + 64 * place : SECTOR + 64 * place + 64] = b"\xff" * 64
        part.done = []
        Ledger(part)
        assert part.done == [SECTOR + 64 * room]


def test_the_further_end_says_nothing_but_its_number():
    for newer in (0, 1):
        part = Part()
        put(part, newer, [record(1, 11), record(3, 12, x=1, y=1), record(2, 13)])
        put(part, 1 - newer, [record(1, 1), record(3, 2), record(2, 3)])
        Ledger(part)
        for bank in (0, 1):
            assert part.content[bank * SECTOR + 192 : bank * SECTOR + 256] == record(2, 14)


def test_a_full_base_is_rewritten_beginning_with_the_other_bank():
    for newer in (0, 1):
        part = Part()
        full = [record(1, 11), record(3, 12, a=1), record(2, 13)] + [record(21, 14 + n, x=n + 1) for n in range(61)]
        put(part, newer, full)
        put(part, 1 - newer, [record(1, 1), record(3, 2), record(2, 3)])
        assert Ledger(part).state.nonce == 61
        assert [one for one in part.done if isinstance(one, tuple)] == [("erase", 1 - newer), ("erase", newer)]
        assert part.kinds() == part.kinds(1) == [1, 3, 21, 2]


def test_a_bank_without_room_for_what_it_lacks_is_rewritten():
    same = [record(1, 1), record(3, 2, a=1), record(2, 3)]
    for short in (0, 1):
        part = Part()
        put(part, short, same + [record(21, 4 + n, x=n + 1) for n in range(60)] + [b"\x00" * 64])
        put(part, 1 - short, same + [record(21, 4 + n, x=n + 1) for n in range(61)])
        assert Ledger(part).state.nonce == 61
        assert [one for one in part.done if isinstance(one, tuple)] == [("erase", 1), ("erase", 0)]
        assert part.kinds() == part.kinds(1) == [1, 3, 21, 2]


def test_a_new_state_is_nothing_and_an_update_that_failed_is_over():
    nothing = {
        "counters": (0, 0),
        "chosen": -1,
        "degraded": 0,
        "locked": False,
        "probe": 0,
        "keyset": (0, 0, NONE),
        "pairs": (None, None),
        "retries": (),
        "abandoned": (NONE, 0),
        "nonce": 0,
        "last": (0, NONE, 0),
        "phase": log.IDLE,
        "mask": 0,
        "slots": 0,
        "sequence": 0,
        "manifest": NONE,
        "permit": False,
        "progress": (0, 0),
        "attempts": 0,
        "runs": 0,
        "faults": 0,
    }
    state = log.State()
    assert plain(state) == nothing
    for kind in (log.FETCH, log.STAGED, log.TRIAL, log.ROLLBACK):
        state.apply(kind, 3, 17, 12, 0, MANIFEST, 0)
    state.apply(log.ENTER, 0, 1, 0, 0, NONE, 0)
    state.apply(log.ATTEMPT, 0, 1, 0, 0, NONE, 0)
    state.apply(log.RUN, 0, 1, 0, 0, NONE, 0)
    state.apply(log.PROGRESS, 0, 0, 1, 0, NONE, 0)
    state.apply(log.FAILED, 0, 20, 12, 0, MANIFEST, 0)
    nothing["last"] = (20, MANIFEST, 12)
    assert plain(state) == nothing


def test_a_lost_ledger_takes_no_records():
    part = Part()
    book = Ledger(part)
    assert refusal(lambda: book.append(log.NONCE, 0, 0, 1)) == "LEDGER_VERSION"
    assert part.done == []


def test_a_new_ledger_begins_with_the_bank_that_proves_less():
    for fuller in (0, 1):
        part = Part()
        put(part, fuller, [record(3, 5, x=4, y=2), record(14, 6, x=9)])
        put(part, 1 - fuller, [record(3, 5, x=4, y=2)])
        book = Ledger(part)
        assert book.lost
        assert book.state.counters == [9, 2]
        part.done = []
        book.format()
        assert part.done[0] == ("erase", 1 - fuller)
        assert book.state.counters == Ledger(part).state.counters == [9, 2]
        assert unpack_from("<I", part.content, 4)[0] == 7  # numbers go on
    part = Part()
    Ledger(part).format()
    assert part.done[0] == ("erase", 1)


def filled():
    """A ledger with everything a state can hold, in the phase FETCHING."""
    part, book = new()
    book.append(log.COUNTERS, 1, 0, 1 << 40, 1 << 33)
    book.append(log.KEYSET, 0, 0, 5, 1700000000, OTHER)
    book.append(log.PAIR, 0, 1, 3, 4, MANIFEST)
    book.append(log.PAIR, 1, 255, 5, 0, NONE)
    book.append(log.ABANDONED, 0, 0, 9, 0, OTHER)
    book.append(log.LOCK, 1)
    book.append(log.PROBE, 2)
    book.append(log.NONCE, 0, 0, 77)
    book.append(log.DEGRADED, 0, 33)
    book.append(log.FETCH, 3, 17, 12, 0, OTHER, 1)
    book.append(log.FAILED, 0, 20, 12, 0, OTHER)
    book.append(log.FETCH, 3, 17, 12, 0, MANIFEST, 2)
    book.append(log.PROGRESS, 0, 0, 65536)
    book.append(log.PROGRESS, 1, 0, 4096)
    return part, book


def test_a_state_is_what_its_records_add_up_to():
    _, book = filled()
    assert plain(book.state) == {
        "counters": (1 << 40, 1 << 33),
        "chosen": 1,
        "degraded": 33,
        "locked": True,
        "probe": 2,
        "keyset": (5, 1700000000, OTHER),
        "pairs": ((1, 3, 4, MANIFEST), (255, 5, 0, NONE)),
        "retries": ((MANIFEST, 2), (OTHER, 1)),
        "abandoned": (OTHER, 9),
        "nonce": 77,
        "last": (20, OTHER, 12),
        "phase": log.FETCHING,
        "mask": 3,
        "slots": 17,
        "sequence": 12,
        "manifest": MANIFEST,
        "permit": False,
        "progress": (65536, 4096),
        "attempts": 0,
        "runs": 0,
        "faults": 0,
    }


def test_a_snapshot_has_its_records_in_this_order_and_nothing_in_fields_without_use():
    _, book = filled()
    state = book.state
    kept = [
        (log.COUNTERS, 1, 0, 1 << 40, 1 << 33, NONE, 0),
        (log.KEYSET, 0, 0, 5, 1700000000, OTHER, 0),
        (log.PAIR, 0, 1, 3, 4, MANIFEST, 0),
        (log.PAIR, 1, 255, 5, 0, NONE, 0),
        (log.RETRY, 0, 0, 0, 0, OTHER, 1),
        (log.RETRY, 0, 0, 0, 0, MANIFEST, 2),
        (log.ABANDONED, 0, 0, 9, 0, OTHER, 0),
        (log.FAILED, 0, 20, 12, 0, OTHER, 0),
    ]
    known = [
        (log.PROBE, 2, 0, 0, 0, NONE, 0),
        (log.LOCK, 1, 0, 0, 0, NONE, 0),
        (log.NONCE, 0, 0, 77, 0, NONE, 0),
        (log.DEGRADED, 0, 33, 0, 0, NONE, 0),
    ]
    fetching = [
        (log.FETCH, 3, 17, 12, 0, MANIFEST, 2),
        (log.PROGRESS, 0, 0, 65536, 0, NONE, 0),
        (log.PROGRESS, 1, 0, 4096, 0, NONE, 0),
    ]
    assert state.snapshot() == kept + fetching + known
    state.apply(log.STAGED, 3, 17, 12, 0, MANIFEST, 0)
    state.apply(log.ENTER, 0, 1, 0, 0, NONE, 0)
    entered = [(log.ENTER, 0, 1, 0, 0, NONE, 0)]
    assert state.snapshot() == kept + [(log.STAGED, 3, 17, 12, 0, MANIFEST, 0)] + entered + known
    state.apply(log.TRIAL, 3, 17, 12, 0, MANIFEST, 0)
    state.apply(log.ATTEMPT, 0, 1, 0, 0, NONE, 0)
    state.apply(log.RUN, 0, 1, 0, 0, NONE, 0)
    tried = [(log.ATTEMPT, 0, 1, 0, 0, NONE, 0), (log.RUN, 0, 1, 0, 0, NONE, 0)]
    trial = [(log.TRIAL, 3, 17, 12, 0, MANIFEST, 0)]
    assert state.snapshot() == kept + trial + entered + tried + known
    state.apply(log.CONFIRMING, 0, 0, 0, 0, NONE, 0)
    sealing = [(log.CONFIRMING, 0, 0, 0, 0, NONE, 0)]
    assert state.snapshot() == kept + trial + sealing + entered + tried + known


def test_a_snapshot_leaves_out_what_there_is_none_of_and_nothing_else():
    state = log.State()
    first = (log.COUNTERS, 255, 0, 0, 0, NONE, 0)
    assert state.snapshot() == [first]
    state.apply(log.KEYSET, 0, 0, 1, 0, OTHER, 0)  # issued in 1970
    assert state.snapshot() == [first, (log.KEYSET, 0, 0, 1, 0, OTHER, 0)]
    state = log.State()
    state.apply(log.ABANDONED, 0, 0, 1, 0, OTHER, 0)
    assert state.snapshot() == [first, (log.ABANDONED, 0, 0, 1, 0, OTHER, 0)]
    state = log.State()
    state.apply(log.FAILED, 0, 0, 1, 0, OTHER, 0)
    assert state.snapshot() == [first, (log.FAILED, 0, 0, 1, 0, OTHER, 0)]
    state = log.State()
    state.apply(log.FETCH, 1, 0, 1, 0, OTHER, 0)
    state.apply(log.PROGRESS, 1, 0, 1, 0, NONE, 0)
    records = [first, (log.FETCH, 1, 0, 1, 0, OTHER, 0), (log.PROGRESS, 1, 0, 1, 0, NONE, 0)]
    assert state.snapshot() == records


def test_rewriting_loses_nothing_in_any_phase():
    steps = [
        [],
        [(log.STAGED, 3, 17, 12, 0, MANIFEST), (log.ENTER, 0, 2)],
        [(log.TRIAL, 3, 17, 12, 0, MANIFEST), (log.ATTEMPT, 0, 2), (log.RUN, 0, 5)],
        [(log.CONFIRMING,)],
        [(log.CONFIRMED, 1, 0, 1 << 41, 1 << 34, MANIFEST)],
        [(log.NONCE, 0, 0, 5), (log.ROLLBACK, 1, 0, 2, 0, OTHER), (log.ATTEMPT, 0, 1)],
        [(log.CONFIRMING,)],
        [(log.FAILED, 0, 21, 2, 0, OTHER)],
    ]
    part, book = filled()
    for step in steps:
        for one in step:
            book.append(*one)
        if book.state.phase != log.FETCHING:
            book.state.progress = [0, 0]  # what is complete needs no offsets; a snapshot leaves them out
        said = plain(book.state)
        while max(book._room) <= 60:
            book.append(log.PROBE, 2)
        book.append(log.PROBE, 2)
        assert len(part.places()) < 30
        assert again(part) == said


def test_a_confirmed_update_is_forgotten_but_for_its_result():
    _, book = filled()
    book.append(log.CONFIRMED, 0, 0, 3, 1 << 60, MANIFEST)
    state = book.state
    assert state.counters == [1 << 40, 1 << 60]  # never down
    assert (state.chosen, state.degraded, state.phase, state.last) == (0, 0, log.IDLE, (0, MANIFEST, 12))
    assert (state.mask, state.slots, state.sequence, state.manifest) == (0, 0, 0, NONE)
    assert state.retries == [(OTHER, 1)]
    assert state.progress == [0, 0]


def test_the_tries_of_four_manifests_are_remembered():
    _, book = new()
    digests = [bytes((number,)) * 32 for number in range(1, 7)]
    for number, digest in enumerate(digests):
        book.append(log.FETCH, 1, 0, 1, 0, digest, number + 1)
        book.append(log.FAILED, 0, 1, 1, 0, digest)
    assert [book.state.tries(digest) for digest in digests] == [0, 0, 3, 4, 5, 6]
    book.append(log.RETRY, 0, 0, 0, 0, digests[3], 9)
    assert book.state.tries(digests[3]) == 9
    assert len(book.state.retries) == 4
    book.append(log.RETRY, 0, 0, 0, 0, digests[4], 0)
    assert [tries for _, tries in book.state.retries] == [9, 6, 3]


def test_another_manifest_begins_at_nothing_and_the_same_goes_on():
    _, book = filled()
    book.append(log.FETCH, 3, 17, 12, 0, MANIFEST, 3)
    assert book.state.progress == [65536, 4096]
    book.append(log.FETCH, 3, 17, 13, 0, OTHER, 1)
    assert book.state.progress == [0, 0]


def test_a_trial_begins_with_no_attempt_and_an_attempt_with_no_run():
    _, book = filled()
    book.append(log.ATTEMPT, 0, 2)
    book.append(log.RUN, 0, 3)
    book.append(log.TRIAL, 3, 17, 12, 0, MANIFEST)
    assert (book.state.attempts, book.state.runs) == (0, 0)
    book.append(log.RUN, 0, 3)
    book.append(log.ATTEMPT, 0, 1)
    assert (book.state.attempts, book.state.runs) == (1, 0)


def test_a_rollback_spends_the_nonce_and_forgets_what_was_fetched():
    _, book = filled()
    book.append(log.ROLLBACK, 1, 0, 2, 0, MANIFEST)
    state = book.state
    assert (state.phase, state.mask, state.slots, state.sequence, state.manifest) == (log.TRYING, 1, 0, 2, MANIFEST)
    assert (state.permit, state.nonce, state.progress) == (True, 0, [0, 0])


def test_a_lock_and_an_order_to_unlock_spend_the_nonce():
    for a, locked in ((1, True), (0, False)):
        _, book = filled()
        book.append(log.LOCK, a)
        assert (book.state.locked, book.state.nonce) == (locked, 0)


def test_an_older_key_set_does_not_take_the_place_of_a_newer_one():
    _, book = filled()
    book.append(log.KEYSET, 0, 0, 4, 1, THIRD)
    assert book.state.keyset == (5, 1700000000, OTHER)
    book.append(log.KEYSET, 0, 0, 5, 2, THIRD)
    assert book.state.keyset == (5, 2, THIRD)


def test_no_slot_is_chosen_where_the_record_names_none():
    _, book = filled()
    for a, chosen in ((0, 0), (1, 1), (2, -1), (255, -1)):
        book.append(log.COUNTERS, a, 0, 1, 1)
        assert book.state.chosen == chosen


def test_a_header_forgets_all_but_the_counters():
    _, book = filled()
    book.state.apply(log.HEADER, 0, 0, 0, 0, NONE, 0)
    fresh = log.State()
    fresh.counters = [1 << 40, 1 << 33]
    assert plain(book.state) == plain(fresh)


def test_unknown_types_change_nothing():
    _, book = filled()
    before = plain(book.state)
    for kind in (0, 23, 100, 255):
        book.state.apply(kind, 1, 1, 1, 1, OTHER, 1)
    assert plain(book.state) == before
