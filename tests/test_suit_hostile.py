"""Vectors of our own, beside the published ones: what a hostile reader of the SUIT drafts would try.

Each is an envelope with one thing wrong, and everything around it right: digests are over what stands there, signatures
are real. The engine and the desk must refuse it for the same reason. Where they differ, the table says why; the engine
is the stricter one, but for one case that makes no difference. `test_every_item_...` does the same to every item of an
envelope by rule. docs/suit-profile.md has the profile.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from helpers import release
from helpers.desk import CLASS, VENDOR, Desk, firmware
from helpers.desk import fetch as download
from helpers.keys import make_keyset
from sekisho.envelope import sever
from sekisho_boot import ledger
from sekisho_boot import suit as boot
from sekisho_boot.reasons import Refused, name
from sekisho_tools import cose, keyset, suit, suit_run
from sekisho_tools.errors import ToolError
from suit_tree import SIGNER, Envelope, Map, Raw, Tag, Wrap, content, head, parts, plain

DEVICE = bytes(15) + b"\x07"  # vendor, class and device are those of tests/helpers/desk.py
IMAGE = b"image" * 100
NOW = 1_800_000_000
SHA384 = [-43, hashlib.sha384(IMAGE).digest()]

Build = Callable[[], bytes]


class Keys:
    """One release key, for everything."""

    revoked_keys = ()
    revoked_manifests = ()

    def release_keys(self):
        return [SIGNER.public_key]

    def may(self, index, component, product):
        return True

    def limit(self, component):
        return 0, 2**63 - 1


def engine(data: bytes) -> str | None:
    """Reason in the engine."""
    state = SimpleNamespace(counters=(5, 3), running=(5, 3))
    identity = SimpleNamespace(vendor=VENDOR, classes=(CLASS,), device=DEVICE)
    try:
        boot.check(data, Keys(), identity, state, NOW)
    except Refused as error:
        return name(error.code)
    return None


def device(data: bytes) -> str | None:
    """Reason on the device: the agent cuts off what the engine does not keep."""
    try:
        kept = sever(data)
    except Refused as error:
        return name(error.code)
    return engine(kept)


def desk(data: bytes, storage: dict[tuple[bytes, ...], bytes] | None = None) -> str | None:
    """Reason on the desk: read, verify, run the update on a device that is the engine's and holds *storage*."""
    device = suit_run.Device(
        (VENDOR,),
        (CLASS,),
        (DEVICE,),
        sequence_number=5,
        versions={(b"fw",): (5,), (b"app",): (3,)},
        now=NOW,
        fetch=lambda uri: IMAGE,
        storage=storage or {},
    )
    try:
        envelope = suit.decode(data)
        if not suit.verify(envelope, [SIGNER.public_key]):
            ours = [block for block in envelope.blocks if block.tag == 18 and block.algorithm in (-19, -8)]
            if not envelope.blocks or any(block.kid not in (None, SIGNER.key_id) for block in ours):
                return "KEY_UNKNOWN"
            return "SIGNATURE" if ours else "ALGORITHM"
        suit_run.update(envelope, device)
    except ToolError as error:
        return error.code
    return None


# -- the envelope that is changed: firmware for a device that runs an application -------------------------------------

OVERRIDE, TIED = 3, 15
"""Places in the shared sequence: parameters of the firmware, first ones of the tie."""


def shared() -> list[Any]:
    """The shared sequence, with every parameter and condition that the profile has."""
    image = Map(
        [(1, VENDOR), (2, CLASS), (3, Wrap(plain(IMAGE))), (4, NOW + 1), (14, len(IMAGE)), (24, DEVICE)],
    )
    judged = [12, 0, 20, image, 1, 15, 2, 15, 24, 15, 4, 15]
    return [*judged, 12, 1, 20, Map([(28, Wrap([2, [3]]))]), 28, 15, 20, Map([(28, Wrap([4, [9]]))]), 28, 15]


class Change:
    """The envelope with some things changed; `bytes` builds it."""

    def __init__(self) -> None:
        self.components: Any = [[b"fw"], [b"app"]]
        self.shared: Any = shared()
        self.fetch: Any = [12, 0, 20, Map([(21, "fw.bin")]), 21, 2, 3, 15]
        self.install: Any = [12, 0, 3, 15]
        self.validate: Any = [12, 0, 3, 15]
        self.manifest: dict[Any, Any] = {1: 1, 2: 7, 3: None, 4: "https://example.com/", 7: None, 16: None, 20: None}
        self.common: dict[Any, Any] = {}
        self.members: dict[Any, Any] = {}

    def tree(self) -> Envelope:
        """As a tree."""
        common = {2: self.components, 4: Wrap(self.shared), **self.common}
        made = {3: Wrap(Map(_pairs(common))), 7: Wrap(self.validate), 16: Wrap(self.fetch), 20: Wrap(self.install)}
        whole = {key: made[key] if value is None and key in made else value for key, value in self.manifest.items()}
        return Envelope(Map(_pairs(whole)), self.members)


GONE = object()


def _pairs(items: dict[Any, Any]) -> list[tuple[Any, Any]]:
    kept = [(key, value) for key, value in items.items() if value is not GONE]
    return sorted(kept, key=lambda pair: (head(*parts(pair[0])), str(pair[0])))


def changed(change: Callable[[Change], Any]) -> Build:
    def build() -> bytes:
        one = Change()
        change(one)
        return one.tree().build()

    return build


def member(key: Any, value: Any) -> Build:
    """A manifest member that is set, or `GONE`."""
    return changed(lambda one: one.manifest.update({key: value}))


def common(key: Any, value: Any) -> Build:
    return changed(lambda one: one.common.update({key: value}))


def components(*identifiers: Any) -> Build:
    return changed(lambda one: setattr(one, "components", list(identifiers)))


def sequence(where: str, *commands: Any) -> Build:
    return changed(lambda one: setattr(one, where, list(commands)))


def command(code: Any, argument: Any, where: str = "shared") -> Build:
    """One more command for the firmware, after those that are there."""

    def change(one: Change) -> None:
        setattr(one, where, [*getattr(one, where), 12, 0, code, argument])

    return changed(change)


def parameter(key: Any, value: Any, place: int = OVERRIDE) -> Build:
    """A parameter of the firmware that is set, or `GONE`."""

    def change(one: Change) -> None:
        items = {**dict(one.shared[place].pairs), key: value}
        one.shared[place] = Map(_pairs(items))

    return changed(change)


def wrapper(make: Callable[[bytes, bytes], list[Any]]) -> Build:
    """The authentication wrapper that *make* gives of (signed digest, block)."""
    return lambda: Change().tree().build(wrapper=make)


def top(make: Callable[[Any, Any], Any]) -> Build:
    """The whole that *make* gives of wrapper and manifest."""
    return lambda: Change().tree().build(top=make)


def block(number: int = 18, **change: Any) -> Callable[[bytes], bytes]:
    """An authentication block, signed, with some of its parts changed."""

    def make(payload: bytes) -> bytes:
        protected = change.get("protected", Map([(1, -19)]))
        encoded = Envelope.plain_bytes(Wrap(protected))
        signature = SIGNER.sign(cose.sign1_input(content(encoded), payload))
        made = [
            Raw(encoded) if "bare" not in change else change["bare"],
            change.get("unprotected", Map([(4, SIGNER.key_id)])),
            change.get("payload"),
            change.get("signature", signature),
            *change.get("more", []),
        ]
        whole = made if number < 0 else Tag(number, made)
        return Envelope.plain_bytes(whole)

    return make


def signed(*blocks: Callable[[bytes], bytes]) -> Build:
    """The wrapper with these blocks."""
    return wrapper(lambda digest, _block: [digest, *[make(digest) for make in blocks]])


GOOD = block()
FOREIGN = block(protected=Map([(1, -7)]))


def flipped(payload: bytes) -> bytes:
    data = bytearray(GOOD(payload))
    data[-1] ^= 1
    return bytes(data)


def digest(*parts_of_it: Any) -> Build:
    """The signed digest is this array."""
    return lambda: Change().tree().build(digest=list(parts_of_it))


ACTUAL = "actual"
FW, APP, PACKED = [b"fw"], [b"app"], [b"fw", b"packed"]

# what is wrong -> (reason, envelope)
SAME: dict[str, tuple[str, Build]] = {
    # the whole
    "a byte follows the envelope": ("CBOR", lambda: Change().tree().build() + b"\0"),
    "the last byte is missing": ("CBOR", lambda: Change().tree().build()[:-1]),
    "nothing at all": ("CBOR", lambda: b""),
    "tag 106": ("ENVELOPE", top(lambda two, three: Tag(106, Map([(2, two), (3, three)])))),
    "tag 107 in two bytes too many": ("CBOR", lambda: b"\xd9\x00\x6b" + Change().tree().build()[2:]),
    "tag 107 twice": ("ENVELOPE", top(lambda two, three: Tag(107, Tag(107, Map([(2, two), (3, three)]))))),
    "tag 55799 in front": ("ENVELOPE", top(lambda two, three: Tag(55799, Tag(107, Map([(2, two), (3, three)]))))),
    "no tag": ("ENVELOPE", top(lambda two, three: Map([(2, two), (3, three)]))),
    "an array instead of the map": ("ENVELOPE", top(lambda two, three: Tag(107, [2, two, 3, three]))),
    "the manifest first": ("ENVELOPE", top(lambda two, three: Tag(107, Map([(3, three), (2, two)])))),
    "no wrapper": ("ENVELOPE", top(lambda two, three: Tag(107, Map([(3, three)])))),
    "no manifest": ("ENVELOPE", top(lambda two, three: Tag(107, Map([(2, two)])))),
    "an unknown member 1": ("ENVELOPE", top(lambda two, three: Tag(107, Map([(1, b""), (2, two), (3, three)])))),
    "an unknown member 24": ("ENVELOPE", top(lambda two, three: Tag(107, Map([(2, two), (3, three), (24, b"")])))),
    "a member -1": ("ENVELOPE", top(lambda two, three: Tag(107, Map([(2, two), (3, three), (-1, b"")])))),
    "text that is no byte string": (
        "ENVELOPE",
        top(lambda two, three: Tag(107, Map([(2, two), (3, three), (23, "")]))),
    ),
    "the manifest wrapped twice": ("MANIFEST", lambda: Change().tree().build(again=True)),
    # authentication
    "an empty wrapper": ("ENVELOPE", wrapper(lambda digest, block: [])),
    "no block": ("KEY_UNKNOWN", signed()),
    "a block that is no byte string": ("ENVELOPE", wrapper(lambda digest, block: [digest, [1]])),
    "a digest that is no byte string": ("ENVELOPE", wrapper(lambda digest, block: [plain(b""), block])),
    "SHA-384": ("ENVELOPE", digest(-43, bytes(48))),
    "SHA-384 of 32 bytes": ("ENVELOPE", digest(-43, ACTUAL)),
    "SHA-512": ("ENVELOPE", digest(-44, bytes(64))),
    "SHAKE128": ("ENVELOPE", digest(-18, ACTUAL)),
    "SHA-256/64": ("ENVELOPE", digest(-15, bytes(8))),
    "algorithm 16": ("ENVELOPE", digest(16, ACTUAL)),
    "an algorithm by name": ("ENVELOPE", digest("sha-256", ACTUAL)),
    "a digest of 31 bytes": ("ENVELOPE", digest(-16, bytes(31))),
    "a digest of 33 bytes": ("ENVELOPE", digest(-16, bytes(33))),
    "a digest of three parts": ("ENVELOPE", digest(-16, ACTUAL, b"")),
    "a digest of one part": ("ENVELOPE", digest(-16)),
    "a digest the other way round": ("ENVELOPE", digest(ACTUAL, -16)),
    "another manifest's digest": ("MANIFEST_DIGEST", digest(-16, bytes(32))),
    "the digest without the string's head": ("MANIFEST_DIGEST", digest(-16, "bare")),
    "a bit of the signature": ("SIGNATURE", signed(flipped)),
    "a signature of 63 bytes": ("COSE", signed(block(signature=bytes(63)))),
    "a signature of 65 bytes": ("COSE", signed(block(signature=bytes(65)))),
    "a signature of Ed448's size": ("COSE", signed(block(protected=Map([(1, -8)]), signature=bytes(114)))),
    "a signature that is text": ("COSE", signed(block(signature="x" * 64))),
    "a stranger's key id": ("KEY_UNKNOWN", signed(block(unprotected=Map([(4, bytes(8))])))),
    "a block without tag": ("COSE", signed(block(-1))),
    "a block with tag 19": ("COSE", signed(block(19))),
    "a block of three parts": ("COSE", wrapper(lambda digest, _block: [digest, b"\xd2\x83\x40\xa0\xf6"])),
    "a block of five parts": ("COSE", signed(block(more=[b""]))),
    "an attached payload": ("COSE", signed(block(payload=b"payload"))),
    "an empty payload": ("COSE", signed(block(payload=b""))),
    "crit": ("COSE", signed(block(protected=Map([(1, -19), (2, [1])])))),
    "a content type": ("COSE", signed(block(protected=Map([(1, -19), (3, 0)])))),
    "an unprotected crit": ("COSE", signed(block(unprotected=Map([(2, [1])])))),
    "the key id in both headers": ("COSE", signed(block(protected=Map([(1, -19), (4, SIGNER.key_id)])))),
    "a key id that is text": ("COSE", signed(block(unprotected=Map([(4, "12345678")])))),
    "a key id that is null": ("COSE", signed(block(unprotected=Map([(4, None)])))),
    "the algorithm unprotected": ("COSE", signed(block(protected=Map([]), unprotected=Map([(1, -19)])))),
    "the algorithm in both headers": ("COSE", signed(block(unprotected=Map([(1, -19)])))),
    "an algorithm under true": ("COSE", signed(block(protected=Map([(True, -19)])))),
    "an algorithm that is true": ("ALGORITHM", signed(block(protected=Map([(1, True)])))),
    "an algorithm that is bytes": ("ALGORITHM", signed(block(protected=Map([(1, b"")])))),
    "no protected header": ("COSE", signed(block(bare=b""))),
    "a protected header without bytes": ("COSE", signed(block(bare=Map([(1, -19)])))),
    "a protected header and a byte": ("CBOR", signed(block(bare=b"\xa1\x01\x32\x00"))),
    "a protected header that is an array": ("COSE", signed(block(bare=b"\x82\x01\x32"))),
    "the algorithm twice": ("CBOR", signed(block(bare=b"\xa2\x01\x32\x01\x32"))),
    "unprotected headers in an array": ("COSE", signed(block(unprotected=[4, SIGNER.key_id]))),
    "an unprotected header twice": ("CBOR", signed(block(unprotected=Map([(4, b"x"), (4, b"y")])))),
    "ES256 alone": ("ALGORITHM", signed(FOREIGN)),
    "Ed448": ("ALGORITHM", signed(block(protected=Map([(1, -53)]), signature=bytes(114)))),
    "one bad signature, one foreign": ("SIGNATURE", signed(FOREIGN, flipped)),
    "a block and a byte": ("CBOR", signed(lambda payload: GOOD(payload) + b"\0")),
    "an empty block": ("CBOR", signed(lambda _payload: b"")),
    "a good block and a malformed one": ("COSE", signed(GOOD, block(payload=b""))),
    "a malformed block and a good one": ("COSE", signed(block(payload=b""), GOOD)),
    # the manifest
    **{f"version {version}": ("MANIFEST_VERSION", member(1, version)) for version in (0, 2, 255, 2**64 - 1)},
    "version -1": ("MANIFEST", member(1, -1)),
    "version true": ("MANIFEST", member(1, True)),
    "no version": ("MANIFEST", member(1, GONE)),
    "no sequence number": ("MANIFEST", member(2, GONE)),
    "no common section": ("MANIFEST", member(3, GONE)),
    "sequence number 0": ("SEQUENCE", member(2, 0)),
    "the sequence number before": ("SEQUENCE", member(2, 4)),
    "sequence number -1": ("MANIFEST", member(2, -1)),
    **{f"member {key}": ("MANIFEST", member(key, b"")) for key in (0, 10, 11, 12, 13, 17, 19, 21, 22, 26, 255, -1)},
    "a member by name": ("MANIFEST", member("1", b"")),
    "a reference that is null": ("MANIFEST", member(4, Raw(b"\xf6"))),
    "a reference in bytes": ("MANIFEST", member(4, b"https://example.com/")),
    "an install sequence that is no byte string": ("MANIFEST", member(20, 1)),
    "payload-fetch cut off": ("SEVERABLE", member(16, plain(b""))),
    **{
        f"{what} with a digest of {why}": (reason, member(key, wrong))
        for key, what, reason in ((20, "install", "MANIFEST"), (23, "text", "MANIFEST"))
        for why, wrong in (
            ("SHA-384", SHA384),
            ("SHA-384 of 32 bytes", [-43, bytes(32)]),
            ("31 bytes", [-16, bytes(31)]),
            ("one part", [-16]),
            ("three parts", [-16, bytes(32), 0]),
            ("text", [-16, "x" * 32]),
        )
    },
    "text that is not the signed one": ("SEVERABLE", lambda: _with_text(plain(b"another"))),
    "text that nobody signed": ("SEVERABLE", lambda: _with_text(GONE)),
    # common
    "common in an array": ("MANIFEST", member(3, Wrap([1]))),
    **{f"member {key} of common": ("MANIFEST", common(key, b"")) for key in (0, 3, 5, -1)},
    "components in a map": ("MANIFEST", common(2, Map([]))),
    "a component that is its name": ("MANIFEST", components(b"fw", b"app")),
    "a component that is text": ("MANIFEST", components(["fw"], APP)),
    "the firmware twice": ("COMPONENT", components(FW, FW)),
    "a component without a name": ("COMPONENT", components(FW, [])),
    "a shared sequence that is null": ("MANIFEST", common(4, Raw(b"\xf6"))),
    "a shared sequence that is an array": ("MANIFEST", common(4, [12, 0])),
    # commands
    **{f"command {code}": ("COMMAND", command(code, 15)) for code in (0, 9, 10, 13, 16, 17, 30, 36, 255, -1, -256)},
    **{f"command {code} in install": ("COMMAND", command(code, 15, "install")) for code in (0, 9, 13, 36, -1, -256)},
    "a command by name": ("COMMAND", command("3", 15)),
    "parameters of which there are none": ("PARAMETER", command(20, Map([]))),
    "a command true": ("COMMAND", command(True, 15)),
    **{
        f"side effect {code} in the shared sequence": ("COMMAND", command(code, 2)) for code in (18, 21, 22, 23, 31, 33)
    },
    **{
        f"policy {policy}": ("COMMAND", command(1, policy))
        for policy in (16, 255, 2**32, -1, True, None, "15", b"\x0f")
    },
    **{
        f"{where} that is {what}": ("COMMAND", sequence(where, *commands))
        for where in ("shared", "fetch", "install", "validate")
        for what, commands in (("empty", ()), ("odd", (12, 0, 3)), ("half a command", (12,)))
    },
    **{
        f"{where} without index": ("COMPONENT", sequence(where, *commands))
        for where, commands in (
            ("shared", shared()[2:]),
            ("fetch", (20, Map([(21, "x")]), 21, 2)),
            ("install", (3, 15)),
            ("validate", (3, 15)),
        )
    },
    "a sequence in a map": ("COMMAND", changed(lambda one: setattr(one, "validate", Map([(3, 15), (12, 0)])))),
    "a sequence of arrays": ("COMMAND", sequence("validate", [12, 0], [3, 15])),
    **{f"index {index}": ("COMPONENT", sequence("validate", 12, index, 3, 15)) for index in (2, 3, 255, 2**64 - 1)},
    **{
        f"index {index!r}": ("COMMAND", sequence("validate", 12, index, 3, 15))
        for index in (-1, False, None, "0", b"\0", [])
    },
    # parameters
    **{
        f"parameter {key}": ("PARAMETER", parameter(key, 1)) for key in (0, 6, 7, 8, 9, 10, 11, 15, 16, 17, 20, 31, 255)
    },
    **{f"parameter {key}": ("PARAMETER", parameter(key, 1)) for key in (-1, -256)},
    "a parameter by name": ("PARAMETER", parameter("uri", "x")),
    "a parameter under true": ("PARAMETER", sequence("shared", 12, 0, 20, Map([(True, VENDOR)]), 1, 15)),
    **{
        f"{what} of {why}": ("PARAMETER", parameter(key, wrong))
        for key, what in ((1, "a vendor"), (2, "a class"), (24, "a device"))
        for why, wrong in (("15 bytes", b"x" * 15), ("17 bytes", b"x" * 17), ("text", "x" * 16), ("an array", [VENDOR]))
    },
    "an image digest that is not wrapped": ("PARAMETER", parameter(3, plain(IMAGE))),
    "an image digest wrapped twice": ("PARAMETER", parameter(3, Wrap(Wrap(plain(IMAGE))))),
    "an image digest of SHA-384": ("PARAMETER", parameter(3, Wrap(SHA384))),
    "an image digest of 31 bytes": ("PARAMETER", parameter(3, Wrap([-16, bytes(31)]))),
    "an image digest of three parts": ("PARAMETER", parameter(3, Wrap([*plain(IMAGE), 0]))),
    "an image digest and a byte": (
        "CBOR",
        parameter(3, content(Envelope.plain_bytes(Wrap(plain(IMAGE)))) + b"\0"),
    ),
    "size 0": ("IMAGE_SIZE", parameter(14, 0)),
    "size 16 MiB and a byte": ("IMAGE_SIZE", parameter(14, 0x1000001)),
    "size 2^64-1": ("IMAGE_SIZE", parameter(14, 2**64 - 1)),
    "size -1": ("PARAMETER", parameter(14, -1)),
    "a size that is text": ("PARAMETER", parameter(14, "500")),
    "use before -1": ("PARAMETER", parameter(4, -1)),
    "use before now": ("EXPIRED_MANIFEST", parameter(4, NOW)),
    "another vendor": ("VENDOR", parameter(1, CLASS)),
    "another class": ("CLASS", parameter(2, VENDOR)),
    "another device": ("DEVICE", parameter(24, VENDOR)),
    "no vendor for its condition": ("PARAMETER", parameter(1, GONE)),
    "no class for its condition": ("PARAMETER", parameter(2, GONE)),
    "no digest for its condition": ("PARAMETER", parameter(3, GONE)),
    "no use-before for its condition": ("PARAMETER", parameter(4, GONE)),
    "no device for its condition": ("PARAMETER", parameter(24, GONE)),
    "no URI for fetch": ("PARAMETER", sequence("fetch", 12, 0, 21, 2)),
    "a condition before its parameter": ("PARAMETER", sequence("shared", 12, 0, 1, 15, *shared()[2:])),
    "a parameter of the other component": ("PARAMETER", sequence("install", 12, 1, 3, 15)),
    "a URI in bytes": ("PARAMETER", sequence("fetch", 12, 0, 20, Map([(21, b"fw.bin")]), 21, 2)),
    **{
        f"a version {why}": (reason, parameter(28, wrong, TIED))
        for why, reason, wrong in (
            ("that is not wrapped", "PARAMETER", [2, [3]]),
            ("wrapped twice", "PARAMETER", Wrap(Wrap([2, [3]]))),
            ("without numbers", "PARAMETER", Wrap([2, []])),
            ("without comparison", "PARAMETER", Wrap([[3]])),
            ("of a number alone", "PARAMETER", Wrap([2, 3])),
            ("and more", "PARAMETER", Wrap([2, [3], 0])),
            ("compared by 0", "PARAMETER", Wrap([0, [3]])),
            ("compared by 6", "PARAMETER", Wrap([6, [3]])),
            ("compared by true", "PARAMETER", Wrap([True, [3]])),
            ("of text", "PARAMETER", Wrap([2, ["3"]])),
            ("below 0", "PARAMETER", Wrap([2, [-1]])),
            ("that the device has not", "VERSION_TIE", Wrap([2, [4]])),
        )
    },
    "parameters in an array": ("PARAMETER", sequence("shared", 12, 0, 20, [1, VENDOR], 1, 15)),
    "a parameter twice": ("CBOR", sequence("shared", 12, 0, 20, Map([(1, VENDOR), (1, VENDOR)]), 1, 15)),
    "parameters out of order": ("CBOR", sequence("shared", 12, 0, 20, Map([(2, CLASS), (1, VENDOR)]), 1, 15)),
}


def _with_text(signed_digest: Any) -> bytes:
    one = Change()
    one.manifest[23] = signed_digest
    one.members[23] = Map([("en", Map([(1, "text")]))])
    tree = one.tree()
    return tree.build(text=False)


# what is special -> (reason on the desk, reason in the engine, envelope); the engine takes less
PROFILE = "the draft has it, the engine's profile has not"
LATER = "the desk reads foreign manifests, too; the limit is that of the engine"
ORDER = "both are wrong with it; they look in another order"
DIFFERENT: dict[str, tuple[str | None, str | None, str, Build]] = {
    **{
        f"manifest member {key}": (None, "MANIFEST", PROFILE, member(key, value))
        for key, value in (
            (5, [b"id"]),
            (6, Wrap([1, 0])),
            (8, Wrap([12, 0, 3, 15])),
            (9, Wrap([12, 0, 3, 15])),
            (14, b"\xa0"),
            (18, Wrap([12, 0, 1, 15])),
            (24, Wrap([12, 0, 3, 15])),
            (25, "https://example.com/mud"),
        )
    },
    "dependency-resolution": (None, "MANIFEST", PROFILE, member(15, Wrap([12, 0, 1, 15]))),
    "a dependency": (None, "MANIFEST", PROFILE, common(1, Map([(2, Map([(1, [b"sub"])]))]))),
    "text in the manifest": (None, "MANIFEST", PROFILE, member(23, Wrap(Map([("en", Map([(1, "x")]))])))),
    "no validate": (None, "MANIFEST", PROFILE, member(7, GONE)),
    "no shared sequence": ("PARAMETER", "MANIFEST", PROFILE, common(4, GONE)),
    "a common section without anything": ("COMPONENT", "MANIFEST", PROFILE, member(3, Wrap(Map([])))),
    "another component": (None, "COMPONENT", PROFILE, components(FW, APP, [b"cfg"])),
    "a payload before its component": (None, "COMPONENT", PROFILE, components(PACKED, FW)),
    "a name of three parts": (None, "LIMIT", PROFILE, components(FW, APP, [b"a", b"b", b"c"])),
    "a command for the packed payload": (
        None,
        "COMPONENT",
        PROFILE,
        changed(lambda one: (one.components.append(PACKED), one.install.extend([12, 2, 33, 2]))),
    ),
    "five blocks": (None, "LIMIT", LATER, signed(*[GOOD] * 5)),
    "sequence number 2^63": (None, "LIMIT", LATER, member(2, 1 << 63)),
    "use before 2^63": (None, "LIMIT", LATER, parameter(4, 1 << 63)),
    "65 commands": (None, "LIMIT", LATER, sequence("validate", 12, 0, *[3, 15] * 64)),
    "a URI of 256 characters": (None, "LIMIT", LATER, sequence("fetch", 12, 0, 20, Map([(21, "x" * 256)]), 21, 2)),
    "an empty URI": (None, "LIMIT", LATER, sequence("fetch", 12, 0, 20, Map([(21, "")]), 21, 2)),
    "a URI with a line end": (None, "PARAMETER", PROFILE, sequence("fetch", 12, 0, 20, Map([(21, "a\n")]), 21, 2)),
    "an envelope of 4 KiB": (None, "LIMIT", LATER, member(4, "x" * 4000)),
    "a list of indices": (None, "COMMAND", PROFILE, sequence("validate", 12, [0], 3, 15)),
    "try-each": (
        None,
        "COMMAND",
        PROFILE,
        sequence("install", 12, 0, 15, [Wrap([3, 15]), Wrap([3, 15])]),
    ),
    "run-sequence": (None, "COMMAND", PROFILE, sequence("install", 12, 0, 32, Wrap([3, 15]))),
    "a custom command": ("COMMAND", "COMMAND", PROFILE, command(-257, 0, "install")),
    "a custom parameter": (None, "PARAMETER", PROFILE, sequence("install", 12, 0, 20, Map([(-257, 1)]), 3, 15)),
    "set-parameters": ("COMMAND", "COMMAND", PROFILE, command(19, Map([(21, "x")]))),
    "override-multiple": (
        None,
        "COMMAND",
        PROFILE,
        sequence("install", 12, 0, 34, Map([(0, Map([(21, "x")]))]), 3, 15),
    ),
    **{
        f"parameter {key} ({suit.PARAMETERS[key]})": (None, "PARAMETER", PROFILE, parameter(key, value))
        for key, value in (
            (5, 0),
            (12, True),
            (18, b"content"),
            (22, 1),
            (23, b"arguments"),
            (25, b"arguments"),
            (26, 1),
            (27, 1),
        )
    },
    "a parameter that nothing asks for": (None, "PARAMETER", PROFILE, parameter(21, "x", TIED)),
    "a parameter with a second value": (
        None,
        "PARAMETER",
        PROFILE,
        sequence("validate", 12, 0, 20, Map([(24, VENDOR)]), 3, 15),
    ),
    "a version of two numbers": (None, "PARAMETER", PROFILE, parameter(28, Wrap([2, [3, 0]]), TIED)),
    "fetch in validate": (None, "COMMAND", PROFILE, command(21, 2, "validate")),
    "validate without image-match": (None, "COMMAND", PROFILE, sequence("validate", 12, 0, 1, 15)),
    "a member of the envelope twice": (
        "CBOR",
        "ENVELOPE",
        ORDER,
        top(lambda two, three: Tag(107, Map([(2, two), (2, two), (3, three)]))),
    ),
    "validate that is an array": ("MANIFEST", "SEVERABLE", ORDER, member(7, [12, 0, 3, 15])),
    "payload-fetch that is an array": ("MANIFEST", "SEVERABLE", ORDER, member(16, [12, 0, 3, 15])),
    "components that are missing": ("COMPONENT", "COMPONENT", ORDER, common(2, GONE)),
    "a payload in the envelope": (
        None,
        "ENVELOPE",
        PROFILE,
        changed(lambda one: one.members.update({"#fw": Raw(b"\x41x")})),
    ),
    "a severed sequence in the envelope": (
        None,
        "ENVELOPE",
        PROFILE,
        changed(lambda one: (one.manifest.pop(20), one.members.update({20: [12, 0, 3, 15]}))),
    ),
}


def test_the_envelope_itself_is_right() -> None:
    data = Change().tree().build()
    assert engine(data) is None
    assert desk(data) is None
    assert sever(data) == suit.strip(data) == data


@pytest.mark.requirement("UPE11")
@pytest.mark.parametrize("vector", SAME)
@pytest.mark.invariant(6)
def test_desk_and_engine_refuse_for_the_same_reason(vector: str) -> None:
    reason, build = SAME[vector]
    data = build()
    assert (desk(data), engine(data)) == (reason, reason)


@pytest.mark.parametrize("vector", DIFFERENT)
def test_where_desk_and_engine_differ_the_engine_takes_less(vector: str) -> None:
    on_desk, in_engine, why, build = DIFFERENT[vector]
    data = build()
    assert (desk(data), engine(data)) == (on_desk, in_engine)
    assert in_engine is not None, why


@pytest.fixture(scope="module")
def waiting() -> Desk:
    """A device that runs firmware 5 with application 3, as the table wants it, and has nothing to do."""
    base = make_keyset()
    content = replace(base.content, release=(keyset.ReleaseKey(SIGNER.public_key),))
    keys = replace(base, content=content, document=keyset.sign(content, base.roots), release=(SIGNER,))

    def make(sequence: int, payloads: dict[int, bytes], **options: Any) -> release.Release:
        return release.make(sequence, payloads, key=SIGNER, vendor=VENDOR, product=CLASS, **options)

    made = Desk(keys=keys, clock=NOW)
    old = firmware("old")
    made.factory(make(1, {0: old}), old)
    updates = make(3, {0: firmware("third"), 1: b"app" * 99}), make(5, {0: firmware("fifth")}, ties={1: 3})
    for update in updates:
        download(made.power_on().engine, update.envelope, update.payloads)
        assert made.power_on().engine.confirm() == 0
    return made


@pytest.fixture(scope="module")
def fetching(waiting: Desk) -> Desk:
    """The same device in the middle of a download."""
    made = copy.deepcopy(waiting)
    assert made.snapshot() == waiting.snapshot()
    engine = made.power_on().engine
    engine.accept(Change().tree().build())
    engine.begin()
    return made


def asked(device: Desk, data: bytes) -> str | None:
    """The reason of `accept` on a device. It leaves flash and state as they were, and nothing to go on with."""
    up = device.power_on()
    engine = up.engine
    held, known = device.snapshot(), copy.deepcopy(vars(engine.state))
    device.flash.log.clear()
    reason = None
    try:
        engine.accept(data)
    except Refused as error:
        reason = name(error.code)
    assert device.ops() == []
    assert device.snapshot() == held
    assert vars(engine.state) == known == vars(up.engine.state)
    assert (engine.plan is None) == (reason is not None)
    return reason


def test_the_device_takes_the_envelope_itself(waiting: Desk, fetching: Desk) -> None:
    up = waiting.power_on()
    assert up.port.device == DEVICE
    assert tuple(up.engine._view().counters) == tuple(up.engine._view().running) == (5, 3)
    assert fetching.power_on().engine.state.phase == ledger.FETCHING
    for device in (waiting, fetching):
        assert asked(device, Change().tree().build()) is None


@pytest.mark.requirement("UPE11")
@pytest.mark.parametrize("vector", [*SAME, *DIFFERENT])
def test_the_device_refuses_in_a_dry_run_before_any_flash_operation(vector: str, waiting: Desk, fetching: Desk) -> None:
    data = SAME[vector][1]() if vector in SAME else DIFFERENT[vector][3]()
    reason = SAME[vector][0] if vector in SAME else DIFFERENT[vector][1]
    assert (asked(waiting, data), asked(fetching, data)) == (reason, reason)


NOT_SIGNED = (
    "an unknown member 1",
    "an unknown member 24",
    "text that is not the signed one",
    "text that nobody signed",
)
"""What the agent cuts off, so that the engine has nothing to object to. The desk refuses it all the same."""


@pytest.mark.parametrize("vector", SAME)
def test_what_the_agent_cuts_off_changes_no_verdict(vector: str) -> None:
    reason, build = SAME[vector]
    assert device(build()) == (None if vector in NOT_SIGNED else reason)


def test_there_are_many_vectors() -> None:
    assert len(SAME) > 250
    assert len(DIFFERENT) > 50


# -- every way to sever a member ---------------------------------------------------------------------------------------

MEMBERS = {
    16: [12, 0, 20, Map([(21, "fw.bin")]), 21, 2, 3, 15],
    20: [12, 0, 3, 15],
    23: Map([("en", Map([(1, "text")]))]),
}
WAYS = ("inline", "severed", "cut off", "not the signed one", "inline and enclosed", "not there", "enclosed alone")
ENCLOSED = ("severed", "not the signed one", "inline and enclosed", "enclosed alone")


def severing(ways: dict[int, str]) -> bytes:
    """The envelope with members 16, 20 and 23 as *ways* says."""
    one = Change()
    for key, way in ways.items():
        item = Wrap(MEMBERS[key])
        signed_digest = plain(b"another" if way == "not the signed one" else Envelope.plain_bytes(item))
        there = {"inline": item, "inline and enclosed": item, "not there": GONE, "enclosed alone": GONE}
        one.manifest[key] = there.get(way, signed_digest)
        if way in ENCLOSED:
            one.members[key] = MEMBERS[key]
    return one.tree().build(text=False)


@pytest.mark.parametrize("text", WAYS)
def test_every_way_to_sever_is_judged_alike(text: str) -> None:
    accepted = 0
    for fetch in WAYS:
        for install in WAYS:
            ways = {16: fetch, 20: install, 23: text}
            data = severing(ways)
            wrong = {"not the signed one", "inline and enclosed", "enclosed alone"} & set(ways.values())
            on_desk = "SEVERABLE" if wrong or "cut off" in (fetch, install) else None
            assert desk(data, {(b"fw",): IMAGE}) == on_desk, ways
            # The engine keeps the manifest alone: what is enclosed is the agent's to check, install its to need.
            severed = fetch not in ("inline", "inline and enclosed", "not there", "enclosed alone")
            kept = "SEVERABLE" if severed else "MANIFEST" if text in ("inline", "inline and enclosed") else None
            assert sever(data) == suit.strip(data)
            assert engine(sever(data)) == kept, ways
            given = kept or ("SEVERABLE" if text in ("not the signed one", "enclosed alone") else None)
            if {fetch, install} & set(ENCLOSED):
                given = "ENVELOPE"
            assert engine(data) == given, ways
            accepted += given is None
    assert accepted == (0 if text not in ("severed", "cut off", "not there") else 6)


# -- every item by rule ------------------------------------------------------------------------------------------------


def longer(wider: int) -> Callable[[Any, bytes], bytes]:
    def spoil(item: Any, right: bytes) -> bytes:
        major, value = right[0] >> 5, len(content(right)) if isinstance(item, Wrap) else parts(item)[1]
        if major == 7:
            return bytes([0xF8, value])
        return head(major, value, wider) + right[len(head(major, value)) :]

    return spoil


def indefinite(item: Any, right: bytes) -> bytes:
    major = right[0] >> 5
    if major in (2, 3):
        return bytes([major << 5 | 31]) + right + b"\xff"
    if major in (4, 5):
        return bytes([major << 5 | 31]) + right[len(head(*parts(item))) :] + b"\xff"
    return bytes([major << 5 | 31])


def reserved(_item: Any, right: bytes) -> bytes:
    return bytes([right[0] & 0xE0 | 28]) + right[1:]


def huge(width: int) -> Callable[[Any, bytes], bytes]:
    """A count of which nothing is there."""
    return lambda _item, right: bytes([right[0] & 0xE0 | 23 + width]) + b"\xff" * (1 << width - 1) + right[1:]


def inside(change: Callable[[bytes], bytes]) -> Callable[[Any, bytes], bytes]:
    """What is wrapped is changed."""

    def spoil(_item: Any, right: bytes) -> bytes:
        inner = change(content(right))
        return head(2, len(inner)) + inner

    return spoil


ENCODINGS: dict[str, tuple[tuple[int, ...], Callable[[Any, bytes], bytes]]] = {
    "one width too wide": ((0, 1, 2, 3, 4, 5, 6, 7), longer(1)),
    "eight bytes wide": ((0, 1, 2, 3, 4, 5, 6), longer(4)),
    "indefinite": ((0, 1, 2, 3, 4, 5, 6, 7), indefinite),
    "reserved": ((0, 1, 2, 3, 4, 5, 6, 7), reserved),
    "2^32-1 of them": ((2, 3, 4, 5), huge(3)),
    "2^64-1 of them": ((2, 3, 4, 5), huge(4)),
}
WRAPPED: dict[str, Callable[[Any, bytes], bytes]] = {
    "and a byte": inside(lambda inner: inner + b"\0"),
    "and an item": inside(lambda inner: inner + b"\xa0"),
    "less a byte": inside(lambda inner: inner[:-1]),
    "empty": inside(lambda _inner: b""),
}
TYPES = {
    "0": b"\x00",
    "-1": b"\x20",
    "bytes": b"\x40",
    "text": b"\x60",
    "array": b"\x80",
    "map": b"\xa0",
    "false": b"\xf4",
    "true": b"\xf5",
    "null": b"\xf6",
    "undefined": b"\xf7",
    "float": b"\xf9\x3c\x00",
    "simple": b"\xe0",
    "tag": b"\xc1\x00",
    "bignum": b"\xc2\x41\x01",
    "2^64-1": b"\x1b" + b"\xff" * 8,
    "-2^64": b"\x3b" + b"\xff" * 8,
}

TREE = Change().tree()
ITEMS = TREE.items()


@pytest.mark.requirement("UPE11")
@pytest.mark.parametrize("how", ENCODINGS)
def test_every_item_in_another_encoding_is_refused_by_both(how: str) -> None:
    majors, spoil = ENCODINGS[how]
    count = 0
    for path, item in ITEMS:
        if (2 if isinstance(item, Wrap) else parts(item)[0]) in majors:
            data = TREE.build(path, spoil)
            wanted = "LIMIT" if "of them" in how and isinstance(item, list | Map) else "CBOR"
            assert (desk(data), engine(data)) == (wanted, wanted), path
            count += 1
    assert count > 20


@pytest.mark.parametrize("how", WRAPPED)
def test_every_wrapped_item_has_exactly_its_bytes(how: str) -> None:
    wrapped = [path for path, item in ITEMS if isinstance(item, Wrap)]
    assert len(wrapped) == 12
    for path in wrapped:
        data = TREE.build(path, WRAPPED[how])
        # A protected header may be empty, but then the algorithm is not in it.
        wanted = "COSE" if how == "empty" and path == ("block", 0) else "CBOR"
        assert (desk(data), engine(data)) == (wanted, wanted), path


FITS = [
    *(("0", number) for number in (2, 3, 15)),
    ("text", "https://example.com/"),
    ("map", Map([(4, SIGNER.key_id)])),
    ("bytes", SIGNER.key_id),
]
"""What may as well stand there: another reporting policy or tie, no reference, no key id or a foreign one."""


def may_differ(path: tuple[Any, ...], what: str, on_desk: str | None, in_engine: str | None) -> bool:
    """Whether it is known why the two reasons differ. Both refuse, or the engine does."""
    last = path[-1] if path else "tag"
    if in_engine is None:
        return False
    if on_desk == "CBOR":  # the desk decodes the whole before it asks what is what: order of keys, kinds of items
        return str(last).startswith("key ") or what in ("undefined", "float", "simple")
    if on_desk is None:  # the profile is narrower
        return in_engine in ("LIMIT", "COMMAND", "COMPONENT", "PARAMETER")
    if in_engine == "LIMIT":  # a version beyond 63 bits, which the device cannot have either
        return (what, on_desk) == ("2^64-1", "VERSION_TIE")
    if last in (3, 7, 16) and what == "array":
        return in_engine == "SEVERABLE"
    return (on_desk, in_engine) in (("COMPONENT", "MANIFEST"), ("VERSION_TIE", "COMPONENT"))


def test_every_item_of_another_type_is_refused_by_both() -> None:
    same = different = 0
    for path, item in ITEMS:
        for what, data in TYPES.items():
            envelope = TREE.build(path, lambda _item, right, data=data: right if data == right else data)
            if envelope == TREE.build():
                continue
            on_desk, in_engine = desk(envelope), engine(envelope)
            if on_desk == in_engine:
                assert on_desk is not None or (what, item) in FITS, (path, what)
                same += 1
            else:
                assert may_differ(path, what, on_desk, in_engine), (path, item, what, on_desk, in_engine)
                different += 1
    assert same > 1000
    assert different < same // 3
