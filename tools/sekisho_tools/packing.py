"""How payloads travel: compressed, encrypted, or both (docs/decisions/0007-packed-payloads.md).

Compression is zlib (RFC 1950) with a window that a microcontroller can hold. Encryption is AES in counter
mode under a content key of 128 or 256 bits, which is wrapped for each device group (A128CTR or A256CTR, and A128KW, of
draft-ietf-suit-firmware-encryption). The image is compressed first, since ciphertext does not compress.

The content key and the first counter follow from the group keys and the bytes to be encrypted, through HKDF. So each
plaintext has a key of its own, no pair of key and counter ever meets two plaintexts, and the same inputs give the same
bytes: whoever makes the release again gets what was signed.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cbor2
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap, aes_key_wrap

from . import cose, device_code, suit
from .errors import ToolError
from .files import read_file, write_atomic
from .suit_names import COMPRESSION, ZLIB

assert device_code
from sekisho_boot import keyset as device_keyset  # noqa: E402

A128CTR, A256CTR, A128KW = -65534, -65532, -3
CONTENT_ALGORITHMS = {A128CTR: "A128CTR", A256CTR: "A256CTR"}
"""What devices can decrypt: COSE number -> name."""
CONTENT_NAMES = {name: number for number, name in CONTENT_ALGORITHMS.items()}
WINDOW = 12
"""Bits of the zlib window: 4 KiB. 32 KiB would make firmware 2.5 % smaller and cost the device 28 KiB of heap more."""
MAX_WINDOW = 13
MAX_GROUPS = 16
KEY_SIZE = 16
_CONTENT_SIZES = {A128CTR: 16, A256CTR: 32}
_COUNTER_SIZE = 16
_PURPOSES = {A128CTR: b"sekisho content key 1", A256CTR: b"sekisho content key 1 A256CTR"}
_FORMAT = "sekisho-kek-1"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class GroupKey:
    """The key-encryption key of a device group: 16 bytes that all its devices hold, and nobody else but the desk."""

    name: str
    kek: bytes = field(repr=False)

    @property
    def key_id(self) -> bytes:
        """Eight bytes by which a device finds its key; they tell nothing about it."""
        return hashlib.sha256(b"sekisho kek" + self.kek).digest()[:8]

    def to_json(self) -> str:
        """The text of a key file: a secret."""
        fields = {"format": _FORMAT, "group": self.name, "key_id": self.key_id.hex(), "kek": self.kek.hex()}
        return json.dumps(fields, separators=(",", ":"))


def make_group_key(name: str, path: Path) -> GroupKey:
    """A new group key in the file *path*, readable by its owner only. Raises ToolError KEY_NAME, KEY_EXISTS, FILE."""
    if not _NAME.fullmatch(name):
        raise ToolError("KEY_NAME", f"{name!r} cannot name a group; use letters, digits, dots, dashes, underscores.")
    if path.exists():
        raise ToolError("KEY_EXISTS", f"{path} exists already; a key is never overwritten.")
    key = GroupKey(name, secrets.token_bytes(KEY_SIZE))
    write_atomic(path, key.to_json() + "\n", 0o600)
    return key


def read_group_key(path: Path) -> GroupKey:
    """The group key in the file *path*: one that `release group-key` made, or the 16 bytes of one device's own key.

    Raises ToolError FILE, KEY_FORMAT, KEY_EXPOSED (others can read it).
    """
    data = read_file(path, "group key", 4096)
    if path.stat().st_mode & 0o077:
        raise ToolError("KEY_EXPOSED", f"Other users can read the group key {path}; run chmod 600 {path}.")
    if len(data) == KEY_SIZE:  # `issue kek`
        return GroupKey(path.stem, data)
    try:
        fields = json.loads(data)
        key = GroupKey(str(fields["group"]), bytes.fromhex(fields["kek"]))
        good = fields["format"] == _FORMAT and len(key.kek) == KEY_SIZE and fields["key_id"] == key.key_id.hex()
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ToolError("KEY_FORMAT", f"{path} is no group key, or it is damaged.") from error
    if not good:
        raise ToolError("KEY_FORMAT", f"{path} is no group key, or it is damaged.")
    return key


def compress(data: bytes) -> bytes:
    """*data* as a zlib stream that a device can inflate with a window of 4 KiB; the same bytes every time."""
    packer = zlib.compressobj(9, zlib.DEFLATED, WINDOW, 9)
    return packer.compress(data) + packer.flush()


def _ctr(key: bytes, counter: bytes, data: bytes) -> bytes:
    stream = Cipher(algorithms.AES(key), modes.CTR(counter)).encryptor()
    return stream.update(data) + stream.finalize()


def encrypt(data: bytes, groups: Sequence[GroupKey], content: int = A128CTR) -> tuple[bytes, bytes]:
    """(ciphertext, SUIT_Encryption_Info) of *data* for *groups*, by the COSE algorithm *content*. ToolError GROUPS."""
    keks = sorted({group.kek for group in groups})
    if not 1 <= len(keks) == len(groups) <= MAX_GROUPS:
        raise ToolError("GROUPS", f"A payload is encrypted for 1 to {MAX_GROUPS} device groups, each named once.")
    size = _CONTENT_SIZES[content]
    info = _PURPOSES[content] + hashlib.sha256(data).digest()
    made = HKDF(SHA256(), size + _COUNTER_SIZE, None, info).derive(b"".join(keks))
    key, counter = made[:size], made[size:]
    recipients = [
        [b"", {1: A128KW, 4: group.key_id}, aes_key_wrap(group.kek, key)]
        for group in sorted(groups, key=lambda group: group.key_id)
    ]
    encoded = cose.encode(cbor2.CBORTag(96, [b"", {1: content, 5: counter}, None, recipients]))
    return _ctr(key, counter, data), encoded


def decrypt(data: bytes, encryption: bytes, groups: Sequence[GroupKey]) -> bytes:
    """The plaintext; ToolError CONTENT_KEY when none of *groups* can read it, PARAMETER for another algorithm."""
    info = suit.encryption_info(encryption)
    size = _CONTENT_SIZES.get(info.algorithm)
    if size is None or info.iv is None:
        raise ToolError("PARAMETER", "The payload is encrypted in a way that is not supported.")
    keys = {group.key_id: group.kek for group in groups}
    for algorithm, kid, wrapped in info.recipients:
        if algorithm == A128KW and kid in keys and wrapped is not None:
            try:
                key = aes_key_unwrap(keys[kid], wrapped)
            except InvalidUnwrap as error:
                raise ToolError("CONTENT_KEY", "The wrapped content key was not made with this group key.") from error
            if len(key) != size:
                raise ToolError("PARAMETER", "The content key has another length than its algorithm wants.")
            return _ctr(key, info.iv, data)
    raise ToolError("CONTENT_KEY", "None of the group keys given can read this payload.")


def pack(data: bytes, compressed: bool, groups: Sequence[GroupKey], cipher: int = A128CTR) -> tuple[suit.Packed, bytes]:
    """How *data* travels, and the bytes that do; the URI is ``/payload/<sha256>``."""
    content = compress(data) if compressed else data
    encryption = None
    if groups:
        content, encryption = encrypt(content, groups, cipher)
    digest = hashlib.sha256(content).digest()
    return suit.Packed(digest, len(content), f"/payload/{digest.hex()}", encryption, compressed), content


def unpack(form: suit.Packed, content: bytes, size: int, groups: Sequence[GroupKey] = ()) -> bytes:
    """The image of *size* bytes in *content*. Raises ToolError IMAGE_DIGEST, CONTENT_KEY."""
    if hashlib.sha256(content).digest() != form.digest:
        raise ToolError(
            "IMAGE_DIGEST", "The packed payload is not the one that the release names: its SHA-256 differs."
        )
    if form.encryption is not None:
        content = decrypt(content, form.encryption, groups)
    if form.compressed:
        try:
            unpacker = zlib.decompressobj()
            content = unpacker.decompress(content, size + 1)
        except zlib.error as error:
            raise ToolError("IMAGE_DIGEST", f"The packed payload does not unpack ({error}).") from error
    return content


# -- what an envelope offers ----------------------------------------------------------------------------------------


def packed_forms(envelope: suit.Envelope) -> list[tuple[str, suit.Packed]]:
    """(component name, form) of every packed payload that the install sequence of *envelope* offers, best first."""
    names = [suit.show_id(identifier) for identifier in envelope.manifest.components]
    found: list[tuple[str, suit.Packed]] = []
    _collect(envelope.manifest.sequences.get(20, ()), names, {}, 0, found)
    return found


def _collect(
    commands: suit.Commands,
    names: list[str],
    values: dict[int, Any],
    current: int,
    found: list[tuple[str, suit.Packed]],
) -> None:
    values = {index: dict(own) for index, own in values.items()}
    for command in commands:
        if command.code == 12 and isinstance(command.argument, int):
            current = command.argument
        elif command.code == 20:
            values.setdefault(current, {}).update(command.argument)
        elif command.code == 15:
            for alternative in command.argument:
                _collect(alternative, names, values, current, found)
        elif command.code == 22:
            own = values.get(current, {})
            source = values.get(own.get(22, -1), {})
            if {3, 14, 21} <= set(source):
                encryption = own[19].encoded if 19 in own else None
                form = suit.Packed(source[3].value, source[14], source[21], encryption, own.get(COMPRESSION) == ZLIB)
                found.append((names[current], form))


def check_allowed(envelope: suit.Envelope, keyset: Any) -> None:
    """Refuse packed payloads whose encryption the device's key set *keyset* forbids (STS09): ToolError ALGORITHM."""
    for name, form in packed_forms(envelope):
        if form.encryption is None:
            continue
        algorithm = suit.encryption_info(form.encryption).algorithm
        if not keyset.allows(device_keyset.CONTENT, algorithm):
            called = f"{CONTENT_ALGORITHMS.get(algorithm, 'the encryption')} (COSE {algorithm})"
            raise ToolError(
                "ALGORITHM", f"A device would refuse this release: its key set does not allow {called} for {name}."
            )
