"""What leaves a batch for one device: its NVS image, its issuing record, and the secrets for label and server.

A folder per device, named by its logical id:

* ``record.json`` - who the device is (no secret): the manufacturer keeps it, and holds the first report against it;
* ``nvs.bin`` - the NVS partition with the device's secrets, to be flashed and then deleted;
* ``secrets.json`` - the enrolment token (for the server) and the console secret (for the label), to be used and then
  deleted.
"""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from uuid import UUID

from esp_idf_nvs_partition_gen import nvs_partition_gen

from . import cose, identity, issuing
from .errors import ToolError
from .files import read_file, write_atomic

NAMESPACE = "sekisho"
"""NVS namespace of the identity; `sekisho.issued` reads it on the device."""
NVS_VERSION = 1
RECORD, SECRETS, NVS = "record.json", "secrets.json", "nvs.bin"
FORMAT = "sekisho-issued-1"
NVS_KEY_SIZE = 64
"""Bytes of an NVS encryption key: AES-256-XTS takes two."""
MAX_RECORD = 65_536
MAX_GROUPS = 8
"""Groups of one device: what `sekisho.issued` reads of one entry."""


@dataclass(frozen=True)
class Image:
    """The app image a device leaves the factory with: *sequence* of its release, *digest* SHA-256 in hex, *size*."""

    sequence: int
    digest: str
    size: int


@dataclass(frozen=True)
class IssuingRecord:
    """Who a device is, as issued. *id* is its logical id, *physical* the MAC address once bound; *public_key* in hex,
    None where the device makes its key itself. No secrets."""

    id: str
    physical: str | None
    product: str
    vendor: str
    product_class: str
    environment: str
    public_key: str | None
    keyset: str
    keyset_version: int
    batch: str
    number: int
    issued: str
    chip: str | None = None
    firmware: Image | None = None
    key_type: str = cose.ED25519
    """Of *public_key*: cose.ED25519, or cose.P256 for a device whose secure component has such a key."""

    @property
    def suit_device(self) -> str | None:
        """The device id that a SUIT manifest for this one chip carries; None while the chip is unknown."""
        if self.physical is None:
            return None
        return str(identity.device_id(self.vendor, bytes.fromhex(self.physical.replace(":", ""))))

    def to_json(self) -> str:
        """The text of a ``record.json``."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=2) + "\n"


def record_of(taken: issuing.Taken, chip: str | None = None, firmware: Image | None = None) -> IssuingRecord:
    """The issuing record of a device that was just taken from its batch."""
    header, record = taken.header, taken.record
    return IssuingRecord(
        id=record.id,
        physical=record.physical,
        product=header.product,
        vendor=header.vendor,
        product_class=header.product_class,
        environment=header.environment,
        public_key=record.public_key,
        keyset=header.keyset,
        keyset_version=header.keyset_version,
        batch=header.batch,
        number=record.number,
        issued=record.taken or "",
        chip=chip,
        firmware=firmware,
    )


def read_record(path: Path) -> IssuingRecord:
    """The issuing record in *path* (the file, or the device's folder). Raises ToolError FILE or RECORD."""
    path = path / RECORD if path.is_dir() else path
    raw = _object(path, "issuing record")
    try:
        if raw.pop("format") != FORMAT:
            raise KeyError
        firmware = raw.pop("firmware")
        record = IssuingRecord(**raw, firmware=Image(**firmware) if firmware else None)
        UUID(record.id)
        if record.public_key is not None and cose.device_key_type(bytes.fromhex(record.public_key)) != record.key_type:
            raise ValueError
    except (KeyError, TypeError, ValueError, AttributeError, ToolError) as error:
        raise ToolError("RECORD", f"{path} is no issuing record of this version of Sekisho.") from error
    return record


def read_secrets(folder: Path) -> dict[str, str]:
    """``token`` and ``console`` of the device in *folder*. Raises ToolError FILE (they were deleted) or RECORD."""
    raw = _object(folder / SECRETS, "secrets of the device")
    if not all(isinstance(raw.get(name), str) for name in ("token", "console")):
        raise ToolError("RECORD", f"{folder / SECRETS} holds no secrets of a device.")
    return raw


def _object(path: Path, what: str) -> dict[str, Any]:
    try:
        raw = json.loads(read_file(path, what, MAX_RECORD))
    except (ValueError, RecursionError) as error:
        raise ToolError("RECORD", f"The {what} {path} is damaged.") from error
    if not isinstance(raw, dict):
        raise ToolError("RECORD", f"The {what} {path} is damaged.")
    return raw


def bound(record: IssuingRecord, physical: str) -> IssuingRecord:
    """The record with its chip."""
    return replace(record, physical=issuing.physical_id(physical))


# -- NVS ------------------------------------------------------------------------------------------------------------


def entries(taken: issuing.Taken, groups: Sequence[bytes] = ()) -> dict[str, bytes]:
    """What the device finds in its NVS: names of at most 15 characters, every value a blob (MicroPython reads those).

    ``id`` (16 bytes), ``key`` (the Ed25519 seed; absent where the device makes its own), ``kek``, ``token``,
    ``console``; ``groups``, the key-encryption keys of the device's *groups* (16 bytes each, up to MAX_GROUPS), if any.
    Raises ToolError GROUPS.
    """
    if len(groups) > MAX_GROUPS:
        raise ToolError("GROUPS", f"A device belongs to {MAX_GROUPS} groups at most.")
    kept = taken.secrets
    values = {
        "id": UUID(taken.record.id).bytes,
        "kek": kept.kek,
        "token": kept.token.encode(),
        "console": kept.console.encode(),
    }
    if groups:
        values["groups"] = b"".join(groups)
    return values if kept.seed is None else {**values, "key": kept.seed}


def nvs_image(values: dict[str, bytes], size: int, key: bytes | None = None) -> bytes:
    """An NVS partition of *size* bytes that holds *values*, made by Espressif's own generator.

    *key* (64 bytes, from the operating system's random numbers, never the generator's) encrypts it; see
    `nvs_key_partition`. Raises ToolError NVS when it does not fit.
    """
    if size % 0x1000 or size < 0x3000:
        raise ToolError("NVS", f"An NVS partition has a multiple of 0x1000 bytes, 0x3000 or more, not 0x{size:x}.")
    if key is not None and len(key) != NVS_KEY_SIZE:
        raise ToolError("NVS", f"An NVS encryption key has {NVS_KEY_SIZE} bytes.")
    out = io.BytesIO()
    try:
        # One page stays free for the chip's own housekeeping; the generator counts it separately.
        with nvs_partition_gen.nvs_open(
            out, size - 0x1000, nvs_partition_gen.Page.VERSION2, key is not None, None if key is None else key.hex()
        ) as store:
            nvs_partition_gen.write_entry(store, NAMESPACE, "namespace", "", "")
            nvs_partition_gen.write_entry(store, "version", "data", "i32", str(NVS_VERSION))
            for name, value in values.items():
                nvs_partition_gen.write_entry(store, name, "data", "hex2bin", value.hex())
    except nvs_partition_gen.InsufficientSizeError as error:
        raise ToolError("NVS", f"The identity does not fit into an NVS partition of 0x{size:x} bytes.") from error
    return out.getvalue()


def nvs_key_partition(key: bytes) -> bytes:
    """The `nvs_keys` partition for *key*: the two halves and their CRC. It needs flash encryption to be any use."""
    return (key + struct.pack("<I", zlib.crc32(key, 0xFFFFFFFF))).ljust(0x1000, b"\xff")


# -- the folder -----------------------------------------------------------------------------------------------------


def write(folder: Path, record: IssuingRecord, taken: issuing.Taken, nvs: bytes) -> list[Path]:
    """Write the folder of one device; ToolError FILE_EXISTS where there is one. The record comes last."""
    if folder.exists():
        raise ToolError("FILE_EXISTS", f"{folder} exists already; a device is issued once.")
    secret = {"token": taken.secrets.token, "console": taken.secrets.console}
    return [
        write_atomic(folder / NVS, nvs, mode=0o600),
        write_atomic(folder / SECRETS, json.dumps(secret, indent=2) + "\n", mode=0o600),
        write_atomic(folder / RECORD, record.to_json()),
    ]
