"""The strict CBOR reader against RFC 8949 section 4.2.1."""

from sekisho_boot.cbor import ARRAY, BSTR, MAP, NINT, SIMPLE, TAG, TSTR, UINT, Reader
from sekisho_boot.reasons import MANIFEST
from writer import Pairs, Raw, Tag, dumps, refusal


def read(method, data):
    reader = Reader(data)
    value = getattr(reader, method)()
    reader.done()
    return value


def why(method, data, wrong=1):
    return refusal(lambda: getattr(Reader(data, wrong=wrong), method)())


def why_skip(data):
    def run():
        reader = Reader(data)
        reader.skip()
        reader.done()

    return refusal(run)


BOUNDS = (0, 1, 23, 24, 255, 256, 65535, 65536, (1 << 30) - 1, 1 << 30, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 32)


def test_reads_unsigned_numbers_of_every_width():
    for value in BOUNDS + ((1 << 63) - 1, 1 << 63, (1 << 64) - 1):
        assert read("uint", dumps(value)) == value
        assert read("int", dumps(value)) == value


def test_reads_negative_numbers_of_every_width():
    for value in BOUNDS + ((1 << 64) - 1,):
        assert read("int", dumps(-1 - value)) == -1 - value
        assert why("uint", dumps(-1 - value)) == "CBOR"


def test_refuses_heads_that_are_not_the_shortest():
    for major in range(7):
        for width in range(4):
            size = 1 << width
            lead = bytes((major << 5 | 24 + width,))
            highest = 23 if width == 0 else (1 << 4 * size) - 1  # the highest that fits the next smaller head
            assert why("head", lead + highest.to_bytes(size, "big")) == "CBOR"
            assert why("head", lead + bytes(size)) == "CBOR"
            assert why("head", lead + (highest + 1).to_bytes(size, "big")) is None


def test_refuses_reserved_and_indefinite_heads():
    for major in range(8):
        for info in (28, 29, 30, 31):
            assert why("head", bytes((major << 5 | info,)) + b"\xff" * 128) == "CBOR"


def test_refuses_truncated_heads():
    for major in range(8):
        assert why("head", b"") == "CBOR"
        for width in range(4):
            assert why("head", bytes((major << 5 | 24 + width,)) + b"\xff" * ((1 << width) - 1)) == "CBOR"


def test_refuses_floats_and_simple_values_of_a_byte():
    for data in (b"\xf9\x3c\x00", b"\xfa\x47\xc3\x50\x00", b"\xfb" + b"\x3f" * 8, b"\xf8\x18", b"\xf8\xff"):
        assert why("head", data) == "CBOR"
        assert why_skip(data) == "CBOR"


def test_strings_are_views_into_the_buffer():
    data = bytearray(dumps(b"abc"))
    view = Reader(data).bstr()
    assert bytes(view) == b"abc"
    data[1] = 0x7A
    assert bytes(view) == b"zbc"


def test_refuses_strings_longer_than_the_buffer():
    for data in (b"\x41", b"\x58\x18" + b"x" * 23, b"\x5a\xff\xff\xff\xff", b"\x5b" + b"\xff" * 8):
        assert why("bstr", data) == "CBOR"
        assert why("wrapped", data) == "CBOR"
        assert why_skip(data) == "CBOR"


def test_a_wrapped_item_ends_where_its_string_ends():
    reader = Reader(dumps(b"\x42\x01\x02") + b"\x07")
    inner = reader.wrapped()
    assert bytes(inner.bstr()) == b"\x01\x02"
    inner.done()
    assert reader.uint() == 7
    reader.done()
    reader = Reader(b"\x42\x42\x01\x02")  # the inner string would reach past the outer one
    inner = reader.wrapped()
    assert refusal(inner.bstr) == "CBOR"
    assert refusal(Reader(b"\x41\x18\x20").wrapped().uint) == "CBOR"


def test_text_is_printable_ascii():
    assert read("tstr", dumps("a-Z 0~")) == "a-Z 0~"
    assert read("tstr", dumps("")) == ""
    for data in (b"\x61\x1f", b"\x61\x7f", b"\x62\xc3\xbc", b"\x61\xff", b"\x62\xc0\x80", b"\x61\n"):
        assert why("tstr", data) == "CBOR"


def test_a_type_not_asked_for_is_refused_in_the_name_of_the_document():
    items = {UINT: 1, NINT: -1, BSTR: b"", TSTR: "", ARRAY: [], MAP: Pairs(), TAG: Tag(1, 1), SIMPLE: None}
    wants = {"uint": UINT, "bstr": BSTR, "tstr": TSTR, "array": ARRAY, "map": MAP, "tag": TAG, "wrapped": BSTR}
    for method, major in wants.items():
        for got, item in items.items():
            expected = None if got == major else "MANIFEST"
            assert why(method, dumps(item), MANIFEST) == expected, (method, got)
    assert why("int", dumps(b""), MANIFEST) == "MANIFEST"
    assert why("uint", b"\x18\x01", MANIFEST) == "CBOR"
    reader = Reader(dumps(b"\x01"), wrong=MANIFEST).wrapped()
    assert refusal(reader.bstr) == "MANIFEST"


def test_peek_does_not_move():
    reader = Reader(b"\x81\x00")
    assert reader.peek() == ARRAY
    assert reader.array() == 1
    assert reader.peek() == UINT
    assert reader.uint() == 0
    assert refusal(reader.peek) == "CBOR"


def test_counts_are_limited():
    assert refusal(Reader(dumps([0] * 4)).array, 4) is None
    assert refusal(Reader(dumps([0] * 5)).array, 4) == "LIMIT"
    assert refusal(Reader(b"\x9b" + b"\xff" * 8).array) == "LIMIT"
    assert refusal(Reader(b"\xbb" + b"\xff" * 8).map) == "LIMIT"


def keys_of(data):
    reader = Reader(data)
    keys = []
    for key in reader.int_keys():
        keys.append(key)
        reader.uint()
    reader.done()
    return keys


def test_int_keys_come_in_the_order_of_their_encoding():
    order = [0, 1, 23, 24, 255, 256, 1 << 32, (1 << 64) - 1, -1, -24, -25, -256, -257, -(1 << 64)]
    assert keys_of(dumps(Pairs([(key, 0) for key in order]))) == order
    for place in range(len(order) - 1):
        swapped = order[:place] + [order[place + 1], order[place]] + order[place + 2 :]
        assert refusal(keys_of, dumps(Pairs([(key, 0) for key in swapped]))) == "CBOR"
        doubled = order[: place + 1] + order[place:]
        assert refusal(keys_of, dumps(Pairs([(key, 0) for key in doubled]))) == "CBOR"


def test_int_keys_refuse_other_keys():
    for key in ("a", b"a", None, [1], Tag(1, 1)):
        assert refusal(keys_of, dumps(Pairs([(key, 0)]))) == "CBOR"


def test_skip_passes_over_well_formed_items():
    items = (0, -1, b"abc", "\u6c34", [], [1, [2, [3]]], Pairs(), Tag(107, b""), None, True, False)
    for item in items:
        assert why_skip(dumps(item)) is None
    mixed = Pairs([(10, 1), (100, 2), (-1, 3), (b"z", 9), ("aa", 4), ([100], 5), ([-1], 6), (False, 7)])
    assert why_skip(dumps(mixed)) is None


def test_skip_insists_on_key_order_across_types():
    order = [(10, 1), (100, 2), (-1, 3), ("z", 4), ("aa", 5), ([100], 6), ([-1], 7), (False, 8)]
    for place in range(len(order) - 1):
        swapped = order[:place] + [order[place + 1], order[place]] + order[place + 2 :]
        assert why_skip(dumps(Pairs(swapped))) == "CBOR"
        assert why_skip(dumps(Pairs(order[: place + 1] + order[place:]))) == "CBOR"


def test_skip_refuses_every_truncation():
    data = dumps([1, b"abc", Pairs([(1, "text"), (500, [Tag(5, None), -7000])]), 1 << 40])
    assert why_skip(data) is None
    for end in range(len(data)):
        assert why_skip(data[:end]) == "CBOR"


def test_skip_refuses_unassigned_simple_values():
    for value in list(range(20)) + [23]:
        assert why_skip(bytes((0xE0 | value,))) == "CBOR"


def test_skip_follows_eight_levels_and_no_more():
    for opening in (b"\x81", b"\xa1\x00", b"\xc1"):
        assert why_skip(opening * 7 + b"\x00") is None
        assert why_skip(opening * 8 + b"\x00") == "LIMIT"
        assert why_skip(opening * 500) == "LIMIT"
    assert why_skip(dumps(Raw(b"\xa1" * 9))) == "LIMIT"  # maps as keys


def test_skip_counts_members():
    assert why_skip(dumps([0] * 256)) is None
    assert why_skip(dumps([0] * 257)) == "LIMIT"
    assert why_skip(b"\x9a\xff\xff\xff\xff") == "LIMIT"
    assert why_skip(b"\xbb" + b"\xff" * 8) == "LIMIT"


def test_nothing_may_follow():
    assert refusal(read, "uint", b"\x00\x00") == "CBOR"


def test_a_window_at_the_start_may_be_empty():
    empty = Reader(b"\x01\x02", 0, 0)
    empty.done()
    assert refusal(empty.peek) == "CBOR"
    assert refusal(lambda: Reader(b"\x01\x02", 0, 0).uint()) == "CBOR"
