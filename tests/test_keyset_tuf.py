"""The root-role cases of the TUF conformance suite, and what TUF leaves to the product, against `keyset.accept`.

Case names are those of theupdateframework/tuf-conformance (test_updater_key_rotations, test_keys, test_basic,
test_expiration, test_rollback), so that the two lists can be held side by side. "root" there is the key set here.
One case ends differently on purpose: `test_custom_fields` (see the end).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, NamedTuple

import cbor2
import pytest
from helpers.keys import CLASS, ISSUED, YEAR, MadeKeySet, make_keyset, signer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sekisho_boot import keyset, reasons
from sekisho_boot import suit as engine_suit
from sekisho_tools import cose, suit
from sekisho_tools import keyset as desk
from sekisho_tools.errors import ToolError


def refusal(old: keyset.KeySet | None, document: bytes) -> str | None:
    """The reason a device that holds *old* refuses *document* with; a new device has none."""
    try:
        keyset.genesis(document) if old is None else keyset.accept(old, document)
    except reasons.Refused as refused:
        return reasons.name(refused.code)
    return None


class Version(NamedTuple):
    """One version: its root keys, how many must sign, who signs; *good* is whether a device takes it."""

    keys: str
    threshold: int
    signers: str
    good: bool = True


def chain(versions: Sequence[Version]) -> list[bytes]:
    documents = []
    for number, version in enumerate(versions, 1):
        content = replace(
            make_keyset().content,
            version=number,
            threshold=version.threshold,
            roots=tuple(signer("root", int(key)).public_key for key in version.keys),
        )
        documents.append(desk.sign(content, [signer("root", int(key)) for key in version.signers]))
    return documents


ROOT_ROTATION = {
    "1-of-1-key-rotation": [Version("1", 1, "1"), Version("2", 1, "21"), Version("2", 1, "2")],
    "1-of-1-key-rotation-unused-signatures": [
        Version("1", 1, "314"),
        Version("2", 1, "3214"),
        Version("2", 1, "324"),
    ],
    "3-of-5-sign-with-different-keycombos": [
        Version("01234", 3, "024"),
        Version("01234", 3, "041"),
        Version("01234", 3, "013"),
        Version("01234", 3, "013"),
    ],
    "3-of-5-one-key-rotated": [Version("01234", 3, "024"), Version("01345", 3, "041")],
    "3-of-5-one-key-rotated-with-intermediate-step": [
        Version("01234", 3, "024"),
        Version("01345", 3, "0245"),
        Version("01345", 3, "045"),
    ],
    "3-of-5-all-keys-rotated-with-intermediate-step": [
        Version("01234", 3, "024"),
        Version("56789", 3, "024567"),
        Version("56789", 3, "567"),
    ],
    "1-of-3-threshold-increase-to-2-of-3": [Version("123", 1, "1"), Version("123", 2, "12")],
    "2-of-3-threshold-decrease-to-1-of-3": [
        Version("123", 2, "12"),
        Version("123", 1, "12"),
        Version("123", 1, "1"),
    ],
    "1-of-2-threshold-increase-to-2-of-2": [Version("1", 1, "1"), Version("12", 2, "12")],
    "1-of-1-key-rotation-fail-not-signed-with-old-key": [Version("1", 1, "1"), Version("2", 1, "234", False)],
    "1-of-1-key-rotation-fail-not-signed-with-new-key": [Version("1", 1, "1"), Version("2", 1, "134", False)],
    "3-of-5-one-key-rotate-fails-not-signed-with-3-new-keys": [
        Version("01234", 3, "024"),
        Version("01345", 3, "024", False),
    ],
    "3-of-5-one-key-rotate-fails-not-signed-with-3-old-keys": [
        Version("01234", 3, "024"),
        Version("01345", 3, "045", False),
    ],
    "1-of-3-threshold-bump-to-2-of-3-fails-new-threshold-not-reached": [
        Version("123", 1, "1"),
        Version("123", 2, "2", False),
    ],
    "2-of-3-threshold-decr-to-1-of-3-fails-old-threshold-not-reached": [
        Version("123", 2, "12"),
        Version("123", 1, "1", False),
    ],
}


@pytest.mark.requirement("UPC06", "UPC07")
@pytest.mark.parametrize("versions", ROOT_ROTATION.values(), ids=ROOT_ROTATION.keys())
def test_root_rotation(versions: list[Version]) -> None:
    held: keyset.KeySet | None = None
    for version, document in zip(versions, chain(versions), strict=True):
        if version.good:
            assert refusal(held, document) is None
            held = keyset.genesis(document) if held is None else keyset.accept(held, document)
        else:
            assert refusal(held, document) == "KEYSET_THRESHOLD"


# -- test_keys ----------------------------------------------------------------------------------------------------


def signed_often(content: desk.KeySet, entries: Sequence[tuple[bytes, Any]]) -> bytes:
    """A document with one signature per (key id claimed, key that signs)."""
    payload = content.encode()
    protected = cose.encode({1: -19})
    signatures = [
        [protected, {4: claimed}, key.sign(cose.sign_input(b"", protected, payload))] for claimed, key in entries
    ]
    return cose.encode(cbor2.CBORTag(98, [b"", {}, payload, signatures]))


@pytest.mark.requirement("UPC07")
def test_duplicate_keys_root() -> None:
    """One key that signs many times, under its own key id or others', is one key."""
    content = make_keyset(roots=3, threshold=2).content
    one, two = signer("root", 0), signer("root", 1)
    assert refusal(None, signed_often(content, [(one.key_id, one)] * 6)) == "KEYSET_THRESHOLD"
    assert refusal(None, signed_often(content, [(one.key_id, one), (two.key_id, one)])) == "KEYSET_THRESHOLD"
    assert refusal(None, signed_often(content, [(one.key_id, one), (one.key_id, one), (two.key_id, two)])) is None


def test_the_same_key_twice_among_the_roots() -> None:
    root = signer("root").public_key
    content = replace(make_keyset().content, roots=(root, root), threshold=2)
    assert refusal(None, desk.sign(content, [signer("root")])) == "KEYSET_KEY_REUSE"


def test_snapshot_threshold() -> None:
    """A threshold that the listed keys can never reach."""
    content = replace(make_keyset(roots=5).content, threshold=6)
    assert refusal(None, desk.sign(content, [signer("root", n) for n in range(6)])) == "KEYSET"


def test_too_many_signatures_are_refused_before_any_is_checked() -> None:
    content = make_keyset().content
    entries = [(signer("root", n).key_id, signer("root", 0)) for n in range(17)]
    assert refusal(None, signed_often(content, entries)) == "LIMIT"


# -- test_basic ---------------------------------------------------------------------------------------------------


def test_basic_init_and_refresh() -> None:
    made = make_keyset()
    held = keyset.genesis(made.document)
    assert keyset.accept(held, made.document) is held
    assert keyset.accept(held, made.next().document).version == 2


def test_invalid_initial_root() -> None:
    members = cbor2.loads(make_keyset().content.encode())
    for number in range(1, 12):
        broken = cose.sign(cose.encode({n: v for n, v in members.items() if n != number}), [signer("root")])
        assert refusal(None, broken) == "KEYSET"


def test_unsigned_initial_root() -> None:
    content = make_keyset().content
    root = signer("root")
    assert refusal(None, desk.sign(content, [])) == "KEYSET_THRESHOLD"
    assert refusal(None, signed_often(content, [(root.key_id, signer("root", 1))])) == "KEYSET_THRESHOLD"


@pytest.mark.requirement("UPC08")
def test_a_key_set_signed_by_another_manufacturers_roots_is_refused() -> None:
    held = keyset.genesis(make_keyset().document)
    foreign = make_keyset().next(roots=(signer("root", 7).public_key,), signed_by=[signer("root", 7)])
    assert refusal(None, foreign.document) is None
    assert refusal(held, foreign.document) == "KEYSET_THRESHOLD"


# -- test_expiration ----------------------------------------------------------------------------------------------


@pytest.mark.requirement("UPC06")
def test_root_expired() -> None:
    """An expired key set is taken, so that the next one can follow; nothing is installed under it."""
    made = make_keyset()
    expired = made.next(expires=ISSUED + 1)
    held = keyset.accept(keyset.genesis(made.document), expired.document)
    assert held.expired(ISSUED + YEAR)
    fresh = keyset.accept(held, expired.next(issued_at=ISSUED + YEAR, expires=ISSUED + 2 * YEAR).document)
    assert not fresh.expired(ISSUED + YEAR)


@pytest.mark.requirement("UPC06")
def test_a_device_that_slept_through_several_versions_walks_the_chain() -> None:
    made = make_keyset()
    held = keyset.genesis(made.document)
    documents = []
    for year in range(1, 6):
        new_root = signer("root", year)
        signed_by = [*made.roots, new_root]
        changes = {"issued_at": ISSUED + year * YEAR, "expires": ISSUED + (year + 1) * YEAR}
        made = replace(
            made.next(roots=(new_root.public_key,), signed_by=signed_by, **changes),
            roots=(new_root,),
        )
        documents.append(made.document)
    assert refusal(held, documents[-1]) == "KEYSET_VERSION"
    for document in documents:
        held = keyset.accept(held, document)
    assert held.version == 6
    assert list(held.roots) == [signer("root", 5).public_key]
    assert not held.expired(ISSUED + 5 * YEAR + 1)


# -- test_rollback and fast-forward -------------------------------------------------------------------------------


@pytest.mark.requirement("UPC05")
def test_root_rollback() -> None:
    made = make_keyset()
    second = made.next()
    third = second.next()
    held = keyset.accept(keyset.accept(keyset.genesis(made.document), second.document), third.document)
    for old in (made, second):
        assert refusal(held, old.document) == "KEYSET_VERSION"


@pytest.mark.parametrize("version", [3, 4, 100, 2**31, 2**63 - 1])
def test_root_version_gap_and_fast_forward(version: int) -> None:
    made = make_keyset()
    assert refusal(keyset.genesis(made.document), made.next(version=version).document) == "KEYSET_VERSION"


def test_root_same_version_other_content() -> None:
    made = make_keyset()
    held = keyset.genesis(made.document)
    assert refusal(held, made.next(version=1, hardware_floor=1).document) == "KEYSET_CONTENT"
    unsigned = made.next(version=1, hardware_floor=1, signed_by=[])
    assert refusal(held, unsigned.document) == "KEYSET_THRESHOLD"


@pytest.mark.requirement("UPC05", "UPC06")
def test_rotated_away_root_key_signs_nothing_any_more() -> None:
    made = make_keyset()
    new_root = signer("root", 1)
    rotated = made.next(roots=(new_root.public_key,), signed_by=[signer("root"), new_root])
    held = keyset.accept(keyset.genesis(made.document), rotated.document)
    assert refusal(held, rotated.next(signed_by=[signer("root")]).document) == "KEYSET_THRESHOLD"
    assert refusal(held, rotated.next(signed_by=[new_root]).document) is None


# -- what TUF leaves to the product -------------------------------------------------------------------------------


@pytest.mark.requirement("UPC03", "UPC04")
def test_environments_are_never_mixed() -> None:
    made = make_keyset(environment="release")
    held = keyset.genesis(made.document)
    assert refusal(held, made.next(environment=keyset.DEVELOPMENT).document) == "KEYSET_ENVIRONMENT"


@pytest.mark.requirement("UPC05")
def test_revoked_release_key_never_returns() -> None:
    made = make_keyset(release=2)
    leaked = made.release[0].key_id
    revoked = made.next(release=made.content.release[1:], revoked_keys=(leaked,))
    held = keyset.accept(keyset.genesis(made.document), revoked.document)
    assert leaked in held.revoked_keys
    assert held.release_keys() == [made.release[1].public_key]
    again = {"release": made.content.release}
    assert refusal(held, revoked.next(**again).document) == "KEYSET_KEY_REUSE"
    assert refusal(held, revoked.next(**again, revoked_keys=()).document) == "KEYSET_KEY_REUSE"
    assert refusal(held, revoked.next(revoked_keys=()).document) == "KEYSET_KEY_REUSE"


def verdict(held: keyset.KeySet, key: cose.MemorySigner, sequence: int, counter: int) -> str | None:
    """How a device with *held* and this firmware counter answers a manifest of *sequence* signed by *key*."""
    component = suit.Component.of("fw", b"firmware", "/payload/fw")
    envelope = suit.strip(suit.encode(suit.Release(bytes(16), CLASS, sequence, (component,)), [key]))
    identity = SimpleNamespace(vendor=bytes(16), classes=(CLASS,), device=None)
    state = SimpleNamespace(counters=(counter, 0), running=(counter, 0))
    try:
        engine_suit.check(envelope, held, identity, state, ISSUED)
    except reasons.Refused as refused:
        return reasons.name(refused.code)
    return None


@pytest.mark.requirement("UPC05")
def test_a_leaked_release_key_that_signed_the_highest_sequence_is_recovered_from() -> None:
    """The ceiling holds the counter down; afterwards the key is revoked, and floor and ceiling move."""
    made = make_keyset(release=2, limits={"fw": (0, 1000)})
    leaked, good = made.release
    held = keyset.genesis(made.document)
    assert verdict(held, leaked, 2**63 - 1, 5) == "CEILING"
    assert verdict(held, leaked, 1000, 5) is None  # the worst that the thief can do
    mended = made.next(release=made.content.release[1:], revoked_keys=(leaked.key_id,), limits={"fw": (1001, 2000)})
    held = keyset.accept(held, mended.document)
    for counter in (5, 1000):  # devices that did not take the thief's image, and those that did
        assert verdict(held, leaked, 1001, counter) == "KEY_REVOKED"
        assert verdict(held, good, 1000, counter) == "FLOOR"
        assert verdict(held, good, 1001, counter) is None


@pytest.mark.requirement("UPC05", "UPE11")
def test_rights_of_a_release_key_hold_per_component_and_class() -> None:
    for grants, expected in (({}, None), ({"components": ("app",)}, "KEY_RIGHTS"), ({"classes": (CLASS,)}, None)):
        assert verdict(keyset.genesis(make_keyset(**grants).document), signer("release"), 2, 1) == expected
    elsewhere = make_keyset(classes=(bytes(16),))
    assert verdict(keyset.genesis(elsewhere.document), signer("release"), 2, 1) == "KEY_RIGHTS"


@pytest.mark.requirement("UPC03", "UPC04")
def test_a_device_of_the_release_environment_takes_no_development_release() -> None:
    held = keyset.genesis(make_keyset(environment="release").document)
    assert verdict(held, signer("development release"), 2, 1) == "KEY_UNKNOWN"


@pytest.mark.requirement("STS09")
def test_the_algorithm_policy_changes_with_the_key_set() -> None:
    made = make_keyset()
    held = keyset.genesis(made.document)
    assert held.allows(keyset.CONTENT, -65534)
    tightened = made.next(algorithms={keyset.CONTENT: (-65532,)})
    held = keyset.accept(held, tightened.document)
    assert not held.allows(keyset.CONTENT, -65534)
    assert held.allows(keyset.CONTENT, -65532)
    assert refusal(held, tightened.next(algorithms={keyset.SIGNATURES: (-9,)}).document) == "ALGORITHM"


def test_custom_fields() -> None:
    """TUF keeps unknown fields; a device refuses them, since one that does not know a rule cannot keep it."""
    made = make_keyset()
    members = {**cbor2.loads(made.next().content.encode()), 14: "value"}
    document = cose.sign(cose.encode(members), [signer("root")])
    assert refusal(keyset.genesis(made.document), document) == "KEYSET"


# -- properties ---------------------------------------------------------------------------------------------------

numbers = st.integers(0, 2**63 - 1)
classes = st.none() | st.lists(st.binary(min_size=16, max_size=16), max_size=4).map(tuple)
names = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=16)
algorithms = st.none() | st.dictionaries(
    st.just(3), st.lists(st.integers(-70_000, 70_000), max_size=4).map(tuple), max_size=1
)
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**64), 2**64 - 1) | st.text(max_size=8) | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def contents(draw: st.DrawFn) -> desk.KeySet:
    roots = draw(st.integers(1, 8))
    issued = draw(st.integers(0, 2**63 - 2))
    limits = draw(st.dictionaries(names, st.tuples(numbers, numbers).map(sorted).map(tuple), max_size=4))
    return desk.KeySet(
        version=draw(st.integers(1, 2**63 - 1)),
        issued_at=issued,
        expires=draw(st.integers(issued + 1, 2**63 - 1)),
        environment=draw(st.sampled_from((1, 2))),
        threshold=draw(st.integers(1, roots)),
        roots=tuple(signer("root", n).public_key for n in range(roots)),
        release=tuple(
            desk.ReleaseKey(
                signer("release", n).public_key,
                tuple(draw(st.lists(names, min_size=1, max_size=3))),
                draw(classes),
            )
            for n in range(draw(st.integers(0, 3)))
        ),
        operators=tuple(
            desk.OperatorKey(
                signer("operator", n).public_key, tuple(draw(st.lists(numbers, min_size=1, max_size=3))), draw(classes)
            )
            for n in range(draw(st.integers(0, 3)))
        ),
        revoked_keys=tuple(draw(st.lists(st.binary(min_size=8, max_size=8), max_size=4))),
        revoked_manifests=tuple(draw(st.lists(st.binary(min_size=32, max_size=32), max_size=4))),
        limits=limits,
        hardware_floor=draw(numbers),
        algorithms=draw(algorithms),
        settings=draw(st.none() | st.dictionaries(st.text(max_size=6), plain, max_size=4)),
    )


@given(contents())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_what_the_desk_encodes_is_what_the_device_reads(content: desk.KeySet) -> None:
    document = desk.sign(content, [])
    found = keyset.parse(document)
    assert desk.decode(document) == content
    assert found.version == content.version
    assert found.issued_at == content.issued_at
    assert found.expires == content.expires
    assert found.environment == content.environment
    assert found.threshold == content.threshold
    assert tuple(found.roots) == content.roots
    assert found.release == [(key.public_key, key.components, key.classes) for key in content.release]
    assert found.operators == [(key.public_key, key.rights, key.classes) for key in content.operators]
    assert tuple(found.revoked_keys) == content.revoked_keys
    assert tuple(found.revoked_manifests) == content.revoked_manifests
    assert found.limits == content.limits
    assert found.hw_floor == content.hardware_floor
    assert found.policy == (content.algorithms or {})
    assert (found.settings is None) == (content.settings is None)
    if found.settings is not None:
        assert cbor2.loads(bytes(found.settings)) == content.settings
    assert bytes(found.payload) == content.encode()


FULL = make_keyset(
    roots=2,
    threshold=2,
    release=2,
    operators=1,
    classes=(bytes(16),),
    revoked_keys=(bytes(8),),
    revoked_manifests=(bytes(32),),
    algorithms={1: (-19,), 2: (-16,), 3: (-65534, -65532)},
    settings={"poll": 3600},
).next()
HELD = keyset.genesis(make_keyset(roots=2, threshold=2, release=2, operators=1, revoked_keys=(bytes(8),)).document)


@st.composite
def mutated(draw: st.DrawFn, original: bytes) -> bytes:
    """*original* with bytes changed, taken out, put in, doubled or cut off."""
    data = bytearray(original)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data) - 1))
        kind = draw(st.sampled_from(("flip", "set", "drop", "insert", "cut", "double")))
        if kind == "flip":
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "set":
            data[at] = draw(st.integers(0, 255))
        elif kind == "drop":
            del data[at : at + draw(st.integers(1, 40))]
        elif kind == "insert":
            data[at:at] = draw(st.binary(max_size=12))
        elif kind == "cut":
            del data[at:]
        else:
            data[at:at] = data[at : at + 40]
        if not data:
            break
    return bytes(data)


def judge(data: bytes) -> None:
    for judged in (keyset.parse, keyset.genesis, lambda document: keyset.accept(HELD, document)):
        try:
            judged(data)
        except reasons.Refused:
            continue
    try:
        desk.diff(None, desk.decode(data))
    except ToolError:
        return


@given(mutated(FULL.document))
@settings(max_examples=500, deadline=None)
def test_a_mutated_document_is_refused_or_means_the_same(data: bytes) -> None:
    judge(data)
    if refusal(HELD, data) is None:
        assert cose.payload_of(data) == FULL.content.encode()


@given(mutated(FULL.content.encode()))
@settings(max_examples=300, deadline=None)
def test_a_mutated_payload_under_valid_signatures_is_judged_without_a_crash(payload: bytes) -> None:
    """Even the roots themselves cannot crash a device with what they sign."""
    judge(cose.sign(payload, FULL.roots))


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_refused(data: bytes) -> None:
    assert refusal(None, data) is not None
    assert refusal(HELD, data) is not None


def test_every_single_bit_of_a_document_matters() -> None:
    made: MadeKeySet = make_keyset()
    second = made.next()
    held = keyset.genesis(made.document)
    for at in range(len(second.document)):
        changed = bytearray(second.document)
        changed[at] ^= 1
        assert refusal(held, bytes(changed)) is not None, at
