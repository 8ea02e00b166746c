"""Documents kept in sectors of their own: slot records, the staged envelope, key set copies (docs/flash-format.md).

A document has a 16-byte header with a CRC over header and payload; the header is programmed last, so a document that
a cut left unfinished has none.
"""

from binascii import crc32
from struct import pack, unpack_from

from micropython import const

from .flash import SECTOR, put, same

# Sectors of the `sekisho` partition (0 and 1 are the ledger's banks, 12 to 15 are reserved).
SLOT_RECORDS = const(2)  # ota_0, ota_1, app_0, app_1
STAGED = const(6)  # the envelope of the staged update
HOLDING = const(7)  # first 4 KiB of the staged firmware
KEYSETS = const(8)  # two copies of two sectors

KIND_SLOT = const(1)
KIND_STAGED = const(2)
KIND_KEYSET = const(3)

_MAGIC = b"SKB1"
_VERSION = const(1)
_HEADER = const(16)
_PREFIX = "<BBHIQ32s32s8s"  # component, slot, unused, size, sequence, image digest, manifest digest, key id
PREFIX = const(88)


def load(part, sector: int, sectors: int, kind: int):
    """The payload of a document as bytes, or None where there is no intact one of this kind."""
    head = bytearray(_HEADER)
    part.read(sector * SECTOR, head)
    magic, found, version, size, _, crc = unpack_from("<4sBBHII", head)
    if magic != _MAGIC or found != kind or version != _VERSION or size > sectors * SECTOR - _HEADER:
        return None
    payload = bytearray(size)
    part.read(sector * SECTOR + _HEADER, payload)
    return bytes(payload) if crc32(payload, crc32(head[:12])) == crc else None


def save(part, sector: int, sectors: int, kind: int, serial: int, payload: bytes) -> None:
    """Writes a document and reads it back; what is already there, byte for byte, is not written again."""
    head = _MAGIC + pack("<BBHI", kind, _VERSION, len(payload), serial)
    head += pack("<I", crc32(payload, crc32(head)))
    start = sector * SECTOR
    if same(part, start, head) and same(part, start + _HEADER, payload):
        return
    for index in range(sectors):
        part.erase(sector + index)
    put(part, start + _HEADER, payload)
    put(part, start, head)


class SlotRecord:
    """What a slot holds: ``size`` bytes with SHA-256 ``digest``, proved by ``envelope`` (verified when written)."""

    def __init__(self, payload: bytes) -> None:
        _, _, _, self.size, self.sequence, self.digest, self.manifest, self.key = unpack_from(_PREFIX, payload)
        self.envelope = payload[PREFIX:]


def load_slot(part, component: int, slot: int):
    """The SlotRecord of a slot, or None."""
    payload = load(part, SLOT_RECORDS + 2 * component + slot, 1, KIND_SLOT)
    return (
        SlotRecord(payload) if payload and len(payload) >= PREFIX and payload[0:2] == bytes((component, slot)) else None
    )


def save_slot(part, component: int, slot: int, target, plan, envelope: bytes) -> None:
    """Writes the record of a slot for one verified target of a plan."""
    prefix = pack(_PREFIX, component, slot, 0xFFFF, target.size, plan.sequence, target.digest, plan.digest, plan.key)
    save(part, SLOT_RECORDS + 2 * component + slot, 1, KIND_SLOT, 0, prefix + envelope)
