"""Where fuzzing starts: product manifests, key sets and flash content made by the tools, and the published vectors."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import targets
from sekisho_tools import cose, keyset, strict_cbor, suit

HERE = Path(__file__).parent
REGRESSIONS = HERE / "regressions"
_SIGNERS = [cose.MemorySigner(bytes([n]) * 32) for n in (1, 2)]


def _releases() -> Iterator[bytes]:
    fw = suit.Component.of("fw", b"firmware", "https://example.com/payload/fw")
    app = suit.Component.of("app", b"application", "/payload/app")
    text = {"en": suit.Text("A release", "Mends things", {"fw": {"component-version": "1.0"}})}
    vendor, product = targets.Identity.vendor, targets.Identity.classes[0]
    for components, ties in (
        ((fw,), ()),
        ((fw,), (suit.Tie("app", 2, 9),)),
        ((app,), (suit.Tie("fw", 5),)),
        ((fw, app), ()),
    ):
        release = suit.Release(vendor, product, 7, components, ties)
        yield suit.encode(release, _SIGNERS[:1])
        full = suit.Release(vendor, product, 7, components, ties, b"D" * 16, 1 << 40, "https://example.com", {})
        yield suit.encode(full, _SIGNERS)
    yield suit.encode(suit.Release(vendor, product, 7, (fw,), (), text=text), _SIGNERS[:1], {fw.uri or "": b"firmware"})


def _key_sets() -> Iterator[bytes]:
    keys = [signer.public_key for signer in _SIGNERS]
    content = keyset.KeySet(
        version=1,
        issued_at=1,
        expires=1 << 40,
        environment=1,
        threshold=1,
        roots=tuple(keys[:1]),
        release=(keyset.ReleaseKey(keys[1]),),
    )
    yield keyset.sign(content, _SIGNERS[:1])


def vectors(pattern: str = "*") -> list[bytes]:
    """The published vectors of these names; none where the reference material is missing, and `make fuzz` says so."""
    shared = Path(os.environ.get("SEKISHO_SHARED") or HERE.parents[2] / "shared")
    return [bytes.fromhex(path.read_text()) for path in sorted((shared / "spec/suit-vectors").glob(f"{pattern}.hex"))]


def _ledger() -> bytes:
    from sekisho_boot import ledger

    part = targets.Small(b"", 65536)
    book = ledger.Ledger(part)
    book.format()
    book.append(ledger.FETCH, 0, 0, 7, 0, bytes(32), 100)
    content = bytearray(8192)
    part.read(0, content)
    return bytes(content)


def _boots() -> Iterator[bytes]:
    """Flash of a device: new, with an update staged, on trial, being confirmed, with a ledger that is lost."""
    from sekisho_boot import ledger, otadata, records
    from sekisho_boot import suit as device_suit

    release = suit.Release(
        targets.Identity.vendor, targets.Identity.classes[0], 7, (suit.Component.of("fw", b"firmware", "/fw"),)
    )
    envelope = suit.strip(suit.encode(release, _SIGNERS[1:]))
    plan = targets._faked(device_suit.check, envelope, targets.Keys(), targets.Identity, None, 0)
    (document,) = _key_sets()
    for stage in ("new", "staged", "trial", "sealing", "lost", "keyset"):
        part, choice = targets.Small(b"", 65536), targets.Small(b"", 8192)
        records.save_slot(part, 0, 0, plan.targets[0], plan, envelope)
        book = ledger.Ledger(part)
        book.state.chosen, book.state.probe = 0, 2
        book.state.counters[0] = 6
        otadata.normalise(choice, 0)
        book.format()
        if stage in ("staged", "trial", "sealing"):
            records.save(part, records.STAGED, 1, records.KIND_STAGED, 0, envelope)
            book.append(ledger.FETCH, 1, 1 | 1 << 4, 7, 0, plan.digest, 1)
            book.append(ledger.STAGED, 1, 1 | 1 << 4, 7, 0, plan.digest)
        if stage in ("trial", "sealing"):
            records.save_slot(part, 0, 1, plan.targets[0], plan, envelope)
            book.append(ledger.PAIR, 1, ledger.NO_APP, 7)
            book.append(ledger.TRIAL, 1, 1 | 1 << 4, 7, 0, plan.digest)
            book.append(ledger.ATTEMPT, 0, 1)
        if stage == "sealing":
            book.append(ledger.CONFIRMING)
        if stage == "lost":
            part.erase(0)
            part.erase(1)
        if stage == "keyset":
            records.save(part, records.KEYSETS, 2, records.KIND_KEYSET, 2, document)
            book.append(ledger.KEYSET, 0, 0, 2, 1, bytes(32))
        yield b"\x01" + b"".join(_pieces(part, 0)) + b"".join(_pieces(choice, 16))


def _pieces(part: targets.Small, first: int) -> Iterator[bytes]:
    """The written parts of flash as `targets.boot` takes them."""
    content = bytearray(4096)
    for sector in range(part.size // 4096):
        part.read(sector * 4096, content)
        used = bytes(content).rstrip(b"\xff")
        if used:
            yield bytes((first + sector, 0, 0)) + len(used).to_bytes(2, "little") + used


def _image() -> bytes:
    import struct
    from hashlib import sha256

    head = (
        bytes((0xE9, 1, 0, 0))
        + struct.pack("<I", 0)
        + bytes(4)
        + struct.pack("<HBHH", 0, 0, 0, 399)
        + bytes(4)
        + b"\x01"
    )
    data = b"\x32\x54\xcd\xab" + bytes(508)
    body = head + struct.pack("<II", 0x3F400018 + 8, len(data)) + data
    xor = 0xEF
    for byte in data:
        xor ^= byte
    body += bytes(15 - len(body) % 16) + bytes((xor,))
    return body + sha256(body).digest()


def _packed(part: str) -> Iterator[bytes]:
    """Install sequences of packed payloads, or what they say of the encryption."""
    from sekisho_tools import packing

    group = packing.GroupKey("seeds", bytes(16))
    vendor, product = targets.Identity.vendor, targets.Identity.classes[0]
    for compressed, groups, cipher in (
        (True, (), packing.A128CTR),
        (False, (group,), packing.A128CTR),
        (True, (group,), packing.A256CTR),
    ):
        form, _ = packing.pack(b"firmware", compressed, groups, cipher)
        fw = suit.Component("fw", bytes(32), 8, None if groups else "/payload/fw", (form,))
        envelope = suit.encode(suit.Release(vendor, product, 7, (fw,)), _SIGNERS[:1])
        if part == "install":
            yield strict_cbor.loads(envelope).value[20]
        elif form.encryption is not None:
            yield form.encryption


def _orders() -> Iterator[bytes]:
    for content in ({1: 1, 4: 1 << 33, 5: {"poll": 600}, 6: 1}, {1: 4, 2: [1, bytes(16)], 3: 5, 4: 9, 5: bytes(32)}):
        payload = cose.encode(content)
        yield payload
        yield cose.sign1(payload, _SIGNERS[0], attached=True) + b"attached"


def seeds(name: str) -> list[bytes]:
    """The inputs that fuzzing of target *name* starts from, regressions included."""
    found: list[bytes] = [path.read_bytes() for path in sorted((REGRESSIONS / name).glob("*"))]
    envelopes = [*_releases(), *vectors()]
    if name in ("suit", "cbor", "desk"):
        found += envelopes + [suit.strip(envelope) for envelope in _releases()]
    for envelope in envelopes if name in ("cose", "manifest", "sequence", "cbor") else ():
        try:
            members = strict_cbor.loads(envelope).value
            blocks = strict_cbor.loads(members[2])
            common = strict_cbor.loads(strict_cbor.loads(members[3])[3])
        except Exception:  # a vector that is no envelope
            continue
        if name == "cose":
            found += [block for block in blocks[1:] if isinstance(block, bytes)]
        elif name in ("manifest", "cbor"):
            found.append(members[3])
        elif 4 in common:
            found.append(common[4])
    if name in ("cose_sign", "keyset"):
        found += [*_key_sets(), *vectors()]
    if name == "boot":
        found += _boots()
    if name == "keyset_content":
        found += [cose.payload_of(document) for document in _key_sets()]
    if name == "ledger":
        found += [b"\x01" + _ledger(), b"\x00" + _ledger()]
    if name == "document":
        found.append(b"\x01" + bytes(16 + 88) + next(_releases()))
    if name == "otadata":
        entry = bytes.fromhex("01000000") + b"\xff" * 20 + bytes.fromhex("020000009a984347")
        found.append(entry + b"\xff" * (4096 - 32) + entry)
    if name == "image":
        found.append(b"\x01" + _image())
    if name == "severed":
        found += [*envelopes, *_key_sets()]
    if name in ("install", "encryption"):
        found += _packed(name)
    if name == "encryption":
        found += [*vectors("*encinfo*"), *vectors("*encryption-info*"), *vectors("cose-*")]
    if name == "order":
        found += _orders()
    if name == "table":
        from sekisho_tools import layout

        found += [layout.load(size).encode() for size in ("4MiB", "8MiB", "16MiB")]
    return found or [b""]
