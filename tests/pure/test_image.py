"""The engine's checks of an app image, at each of their borders (esp_image_format.c, esp_app_format.h)."""

from hashlib import sha256
from struct import pack

from sekisho_boot.image import check, check_header, secure_version
from writer import refusal

MAPPED = 0x3F400020  # of an ESP32: here the first segment of an app lies
RAM = 0x3FFB0000
MAGIC = b"\x32\x54\xcd\xab"


def descriptor(size, secure=0):
    return MAGIC + pack("<I", secure) + bytes((7 * at) & 255 for at in range(size - 8))


def image(segments, count=-1, chip=0, least=0, most=0, hashed=1, checksum=0):
    head = bytes((0xE9, len(segments) if count < 0 else count, 0, 0)) + bytes(8)
    head += pack("<HBHH", chip, 0, least, most) + bytes(4) + bytes((hashed,))
    body, xor = head, 0xEF
    for load, data in segments:
        body += pack("<II", load, len(data)) + data
        for byte in data:
            xor ^= byte
    body += bytes(15 - len(body) % 16) + bytes((xor ^ checksum,))
    return body + sha256(body).digest()


def app(size=432, more=(), **options):
    return image([(MAPPED, descriptor(size))] + list(more), **options)


def why(data, size=-1, chip=0, revision=300):
    """The reason of a refusal, "" where the image is taken; nothing beyond the image may be read."""
    size = len(data) if size < 0 else size

    def read(off, buf):
        assert off >= 0
        assert off + len(buf) <= size
        buf[:] = data[off : off + len(buf)]

    return refusal(lambda: check(read, size, chip, revision, sha256)) or ""


def test_an_image_of_512_bytes_is_the_smallest():
    assert len(app(432)) == 512
    assert why(app(432)) == ""
    assert len(app(416)) == 496
    assert why(app(416)) == "IMAGE_FORMAT"
    assert why(app(432), 511) == "IMAGE_FORMAT"


def test_takes_data_of_any_length_that_is_a_multiple_of_four():
    for size in (436, 440, 444, 448, 1020, 1024, 1028, 2044, 2048, 2052, 3000):
        assert why(app(size)) == ""
        assert why(app(size, [(RAM, bytes(range(256)) * 5)])) == ""


def test_refuses_data_of_any_other_length():
    for size in (433, 434, 435):
        assert why(app(size)) == "IMAGE_FORMAT"


def test_one_to_sixteen_segments():
    more = [(RAM + 64 * number, b"1234") for number in range(16)]
    assert why(app(448, more[:15])) == ""
    assert why(app(448, more)) == "IMAGE_FORMAT"
    assert why(app(448, count=0)) == "IMAGE_FORMAT"


def test_an_app_begins_with_the_magic_and_its_descriptor():
    data = app(448)
    for at in (0, 32, 33, 34, 35):
        assert why(data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :]) == "IMAGE_FORMAT"


def test_an_image_is_for_one_chip():
    assert why(app(448, chip=9)) == "IMAGE_CHIP"
    assert why(app(448), chip=9) == "IMAGE_CHIP"
    assert why(image([(0x3C000020, descriptor(448))], chip=9), chip=9) == ""
    assert why(image([(0x3C000020, descriptor(448))], chip=5), chip=5) == ""
    assert why(image([(0x42000020, descriptor(448))], chip=13), chip=13) == ""


def test_the_chips_revision_lies_between_the_least_and_the_most():
    data = app(448, least=100, most=199)
    assert [why(data, revision=one) for one in (0, 99, 100, 199, 200)] == [
        "IMAGE_CHIP",
        "IMAGE_CHIP",
        "",
        "",
        "IMAGE_CHIP",
    ]
    assert why(data, revision=-1) == ""  # not known


def test_no_most_revision_means_any():
    for revision in (1, 399, 65535):
        assert why(app(448, least=1), revision=revision) == ""
    assert why(app(448, least=1), revision=0) == "IMAGE_CHIP"


def test_the_hash_must_be_appended():
    for flag in (0, 2, 255):
        assert why(app(448, hashed=flag)) == "IMAGE_HASH"


def test_checksum_and_hash_are_compared():
    data = app(448)
    assert why(app(448, checksum=1)) == "IMAGE_FORMAT"
    for at in range(len(data) - 32, len(data)):
        assert why(data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :]) == "IMAGE_HASH"
    at = len(data) - 34  # padding counts for the hash
    assert why(data[:at] + b"\x01" + data[at + 1 :]) == "IMAGE_HASH"


def test_a_byte_changed_anywhere_in_a_long_image_is_seen():
    data = app(2600, [(RAM, bytes(1032))])
    for at in range(36, len(data), 97):
        assert why(data[:at] + bytes((data[at] ^ 0x40,)) + data[at + 1 :]) != ""


def test_bytes_are_missing_at_the_end():
    for size in (448, 452, 456, 460):
        data = app(size)
        assert why(data, len(data) - 1) == "IMAGE_SIZE"
        assert why(data + b"more") == ""  # of a slot: what lies behind the image is nobody's


def test_a_segment_ends_within_the_image():
    data = app(960, count=2)  # the second header is padding, checksum and hash: whatever they say
    start = 32 + 960
    for length, reason in ((len(data) - start - 8, "IMAGE_SIZE"), (len(data) - start - 4, "IMAGE_FORMAT")):
        forged = data[:start] + pack("<II", 0, length) + data[start + 8 :]
        assert why(forged) == reason


def test_a_segment_header_lies_within_the_image():
    data = app(512 - 32, count=2) + bytes(16)
    assert why(data, 512) == "IMAGE_FORMAT"  # the header would begin at its end
    assert why(data, 519) == "IMAGE_FORMAT"
    assert why(data[:512] + bytes(8), 520) == "IMAGE_SIZE"  # a header of an empty segment and nothing behind it


def test_a_mapped_segment_lies_at_its_place_in_the_page():
    for load, reason in (
        (0x3F400020, ""),
        (0x3F7F0020, ""),
        (0x3F400024, "IMAGE_FORMAT"),
        (0x3F40001C, "IMAGE_FORMAT"),
    ):
        assert why(image([(load, descriptor(448))])) == reason
    text = 32 + 448 + 8
    assert why(app(448, [(0x400D0000 + text, b"code")])) == ""
    assert why(app(448, [(0x400D0000 + text + 4, b"code")])) == "IMAGE_FORMAT"
    assert why(app(448, [(0x403F0000 + text, b"code")])) == ""
    assert why(app(448, [(0x40400000 + text, b"code")])) == "IMAGE_FORMAT"  # mapped no more


def test_a_loaded_segment_lies_in_memory_that_the_bootloader_leaves_free():
    for first, end in (
        (0x3FFAE000, 0x3FFDBB20),
        (0x40080000, 0x400AA000),
        (0x400C0000, 0x400C2000),
        (0x3FF80000, 0x3FF82000),
        (0x50000000, 0x50002000),
    ):
        assert why(app(448, [(first, bytes(8))])) == ""
        assert why(app(448, [(end - 8, bytes(8))])) == ""
        assert why(app(448, [(first - 4, bytes(8))])) == "IMAGE_FORMAT"
        assert why(app(448, [(end - 4, bytes(8))])) == "IMAGE_FORMAT"
        assert why(app(448, [(end - 4, b"")])) == ""


def test_where_mapped_memory_ends():
    """An empty segment is taken where nothing is mapped; where something is, it has its place in the page."""
    assert why(app(448, [(0x40400000, b"")])) == ""
    assert why(app(448, [(0x403FFFFF, b"")])) == "IMAGE_FORMAT"
    assert why(app(448, [(0x400CFFFF, b"")])) == ""
    assert why(app(448, [(0x400D0000, b"")])) == "IMAGE_FORMAT"


def test_the_checksum_is_that_of_all_bytes_whatever_they_are():
    for number in range(40):
        noise = b"".join([sha256(bytes((number, at))).digest() for at in range(8)])
        assert why(app(432 + 4 * number, [(RAM, noise[: 4 + 4 * number])])) == ""


def test_padding_segments_are_passed_over():
    assert why(app(448, [(0, bytes(64)), (0x0FFFFFFC, bytes(64))])) == ""
    assert why(app(448, [(0x10000000, bytes(64))])) == "IMAGE_FORMAT"
    assert why(app(448, [(0x60000000, b"")])) == ""  # nothing is loaded


def test_the_header_tells_the_number_of_segments():
    data = app(448, [(RAM, b"1234")])
    assert check_header(data, 0, 300) == 2


def test_the_security_version_is_that_of_the_descriptor():
    data = image([(MAPPED, descriptor(448, secure=0x01020304))])

    class Part:
        def read(self, off, buf):
            buf[:] = data[off : off + len(buf)]

    assert secure_version(Part()) == 0x01020304
