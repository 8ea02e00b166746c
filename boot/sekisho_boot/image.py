"""Will the bootloader take this app image? The checks of ESP-IDF's `image_load`, before anything is made bootable.

`set_boot` accepts images that the bootloader then refuses (a combined firmware.bin, an image for another chip), so the
engine asks the bootloader's own questions: esp_image_format.c, esp_app_format.h.
"""

from struct import unpack

from micropython import const

from .reasons import IMAGE_CHIP, IMAGE_FORMAT, IMAGE_HASH, IMAGE_SIZE, Refused

_MAX_SEGMENTS = const(16)
_HASH_SIZE = const(32)
_PIECE = const(1024)  # bytes read at a time
_NO_LIMIT = const(65535)

_NOT_LOADED = const(0x10000000)  # segments for addresses below are padding: the bootloader passes over them

# Per chip_id, as (first, past the last) address: what the flash MMU maps, where a segment must lie at the same place
# within its 64 KiB page as in flash; and what the bootloader loads to, less what it occupies itself ("overlaps
# bootloader stack/data") and "bad load address range". ESP-IDF soc.h and bootloader.ld of each chip.
_MEMORY = {
    0: (  # ESP32
        ((0x3F400000, 0x3F800000), (0x400D0000, 0x40400000)),
        (
            (0x3FFAE000, 0x3FFDBB20),
            (0x40080000, 0x400AA000),
            (0x400C0000, 0x400C2000),
            (0x3FF80000, 0x3FF82000),
            (0x50000000, 0x50002000),
        ),
    ),
    9: (  # ESP32-S3
        ((0x3C000000, 0x3E000000), (0x42000000, 0x44000000)),
        ((0x3FC88000, 0x3FCDB700), (0x40370000, 0x403CB700), (0x600FE000, 0x60100000), (0x50000000, 0x50002000)),
    ),
    5: (  # ESP32-C3
        ((0x3C000000, 0x3C800000), (0x42000000, 0x42800000)),
        ((0x3FC80000, 0x3FCCE710), (0x4037C000, 0x403CE710), (0x50000000, 0x50002000)),
    ),
    13: (((0x42000000, 0x43000000),), ((0x40800000, 0x4086E610), (0x50000000, 0x50004000))),  # ESP32-C6
}


def _inside(first: int, end: int, areas: tuple) -> bool:
    return any(low <= first and end <= high for low, high in areas)


def check_header(head, chip: int, revision: int) -> int:
    """Checks the first bytes of an image (at least 288); returns its number of segments.

    *chip* is the chip_id; *revision* is major * 100 + minor, negative where it is not known.
    """
    if head[0] != 0xE9 or not 0 < head[1] <= _MAX_SEGMENTS or head[32:36] != b"\x32\x54\xcd\xab":
        raise Refused(IMAGE_FORMAT)  # the last is the app descriptor: a bootloader image has none there
    chip_id, _, least, most = unpack("<HBHH", head[12:19])
    if chip_id != chip or (revision >= 0 and not least <= revision <= (most or _NO_LIMIT)):
        raise Refused(IMAGE_CHIP)
    if head[23] != 1:
        raise Refused(IMAGE_HASH)  # without it only a one-byte XOR would protect the image at boot
    return head[1]


def secure_version(part) -> int:
    """The security version in the app descriptor of an image, which the eFuse floor is held against."""
    field = bytearray(4)
    part.read(36, field)
    return unpack("<I", field)[0]


def check(read, size: int, chip: int, revision: int, sha256) -> None:
    """Checks a whole image of *size* bytes; ``read(off, buf)`` gives its bytes."""
    buf = bytearray(_PIECE)
    view = memoryview(buf)
    if size < 512:
        raise Refused(IMAGE_FORMAT)
    read(0, view[:288])
    segments = check_header(view, chip, revision)
    mapped, loaded = _MEMORY[chip]
    hasher = sha256()
    hasher.update(view[:24])
    off, xor = 24, 0xEF
    for _ in range(segments):
        if off + 8 > size:
            raise Refused(IMAGE_FORMAT)
        read(off, view[:8])
        load, length = unpack("<II", view[:8])
        hasher.update(view[:8])
        off += 8
        if length & 3 or length > size - off:
            raise Refused(IMAGE_FORMAT)
        if _inside(load, load + 1, mapped):
            if (load - off) & 0xFFFF:
                raise Refused(IMAGE_FORMAT)
        elif length and load >= _NOT_LOADED and not _inside(load, load + length, loaded):
            raise Refused(IMAGE_FORMAT)
        end = off + length
        while off < end:
            chunk = view[: min(_PIECE, end - off)]
            read(off, chunk)
            hasher.update(chunk)
            xor ^= _fold(chunk)
            off += len(chunk)
    pad = 16 - off % 16  # zero padding, then the checksum as the last byte of a 16-byte block
    if off + pad + _HASH_SIZE > size:
        raise Refused(IMAGE_SIZE)
    read(off, view[: pad + _HASH_SIZE])
    hasher.update(view[:pad])
    if view[pad - 1] != xor:
        raise Refused(IMAGE_FORMAT)
    if hasher.digest() != bytes(view[pad : pad + _HASH_SIZE]):
        raise Refused(IMAGE_HASH)


def _fold(chunk) -> int:
    """XOR of all bytes (the length is a multiple of 4), by halving big integers instead of a byte loop."""
    value, size = int.from_bytes(chunk, "little"), len(chunk) * 8
    while size > 8:
        if size & 8:  # an odd number of bytes: split off the last one
            size -= 8
            value = (value & ((1 << size) - 1)) ^ (value >> size)
        else:
            size >>= 1
            value = (value & ((1 << size) - 1)) ^ (value >> size)
    return value
