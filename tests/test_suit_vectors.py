"""Every published and synthetic SUIT vector gives its expected outcome, on the desk and in the engine.

The vectors lie in the reference material beside the checkout. `index.json` there says what each one is; the tests below
take all of them from it, so that a vector that is added is tested, or fails for want of an expectation.
"""

import hashlib
import json
from types import SimpleNamespace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.keywrap import aes_key_unwrap
from sekisho_boot import cbor as boot_cbor
from sekisho_boot import cose as boot_cose
from sekisho_boot import suit as boot
from sekisho_boot.reasons import Refused, name
from sekisho_tools import cose, strict_cbor, suit, suit_run, suit_show
from sekisho_tools.errors import ToolError

RFC8032_1 = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")


def _p256(x, y):
    return ec.EllipticCurvePublicNumbers(int(x, 16), int(y, 16), ec.SECP256R1()).public_key()


KEYS = {
    "ED25519-RFC8032-1": Ed25519PublicKey.from_public_bytes(RFC8032_1),
    "HMAC-a32": cose.HmacKey(b"a" * 32),
    "P256-A": _p256(
        "8496811aae0baaabd26157189eecda26beaa8bf11b6f3fe6e2b5659c85dbc0ad",
        "3b1f2a4b6c098131c0a36dacd1d78bd381dcdfb09c052db33991db7338b4a896",
    ),
    "P256-B": _p256(
        "0e908aa8f066db1f084e0c3652c63952bd99f2a5bdb22f9e01367aad03aba68b",
        "77da1bd8ac4f0cb490ba210648bf79ab164d49ad3551d71d314b2749ee42d29a",
    ),
}
VENDOR = bytes.fromhex("cfbff0d1937556 85968c48ce8b15ae17".replace(" ", ""))
CLASS = bytes.fromhex("6de7af117dbe59d29486ff0849b0093f")
IDENTITY = SimpleNamespace(vendor=VENDOR, classes=(CLASS,), device=None)

# negative vector -> (reason on the desk, reason in the engine)
NEGATIVE = {
    "neg-manifest-tampered": ("MANIFEST_DIGEST", "MANIFEST_DIGEST"),
    "neg-version2": ("MANIFEST_VERSION", "MANIFEST_VERSION"),
    "neg-manifest-before-auth": ("ENVELOPE", "ENVELOPE"),
    "neg-alg-unprotected-only": ("COSE", "COSE"),
    "neg-attached-payload": ("COSE", "COSE"),
    "neg-trailing-byte": ("CBOR", "CBOR"),
    "neg-wrong-tag": ("ENVELOPE", "ENVELOPE"),
    "neg-indefinite-envelope": ("CBOR", "CBOR"),
    "neg-nonshortest-key": ("CBOR", "CBOR"),
    "neg-unknown-command": ("COMMAND", "COMMAND"),
    "neg-unknown-parameter": ("PARAMETER", "PARAMETER"),
    # With the text taken off, as the agent does, the engine has nothing to object to but the missing tie.
    "neg-severable-digest-mismatch": ("SEVERABLE", "VERSION_TIE"),
    # The manifests of these are authentic: what is wrong shows when the image is hashed (engine: IMAGE_DIGEST, _SIZE).
    "neg-payload-digest-mismatch": ("IMAGE_DIGEST", "VERSION_TIE"),
    "neg-image-size-mismatch": ("IMAGE_SIZE", "VERSION_TIE"),
    # The engine knows no component `cfg`; the missing index of known ones is refused in tests/pure/test_suit.py.
    "neg-two-components-no-set-index": ("COMPONENT", "COMPONENT"),
}

# What the engine says to manifests that are not made for it, however good their signature is. Those that carry
# payloads or severable members in the envelope are ENVELOPE until `strip` has taken them off.
FOREIGN = {
    "syn-ed25519-ex0-alg19": "MANIFEST",  # it has an invoke sequence
    "syn-ed25519-ex0-alg8": "MANIFEST",
    "syn-ed25519-ex0-alg19-kid-unprot": "MANIFEST",
    "syn-ed25519-ex2-full-alg19": "MANIFEST",  # the same; its install sequence stays with the agent
    "syn-ed25519-integrated": "VERSION_TIE",  # an app without the firmware it needs; all else is in order
    "syn-ed25519-integrated-textsevered": "VERSION_TIE",
    "syn-ed25519-a128ctr-aeskw": "COMPONENT",
}


class Keys:
    """A key set with the one key that the synthetic vectors are signed with."""

    revoked_keys = ()
    revoked_manifests = ()

    def release_keys(self):
        return [RFC8032_1]

    def may(self, index, component, product):
        return True

    def limit(self, component):
        return 0, 2**63 - 1


@pytest.fixture(scope="module")
def vectors(shared_dir):
    """The folder with the vectors."""
    return shared_dir / "spec" / "suit-vectors"


@pytest.fixture(scope="module")
def index(vectors):
    """What `index.json` says."""
    return json.loads((vectors / "index.json").read_text())


@pytest.fixture
def load(vectors, index):
    """Bytes of a vector, checked against the index."""

    def read(name):
        data = bytes.fromhex((vectors / index[name]["file"]).read_text())
        assert hashlib.sha256(data).hexdigest() == index[name]["sha256_of_bytes"]
        return data

    return read


def kind(index, wanted):
    return [name for name, entry in index.items() if entry["kind"] == wanted]


def desk(data, tagged=True):
    """Reason on the desk: decoding, verifying, and running the update with payloads from the envelope."""
    device = suit_run.Device(vendors=(VENDOR,), classes=(CLASS,))
    try:
        envelope = suit.decode(data, tagged=tagged)
        if not suit.verify(envelope, list(KEYS.values())):
            return "SIGNATURE"
        suit_run.update(envelope, device)
    except ToolError as error:
        return error.code
    return None


def engine(data, running=(1, 1)):
    """Reason in the engine."""
    try:
        boot.check(data, Keys(), IDENTITY, SimpleNamespace(counters=(0, 0), running=running), 0)
    except Refused as error:
        return name(error.code)
    return None


def stripped(data):
    try:
        return suit.strip(data)
    except ToolError:
        return data


def test_every_envelope_decodes_or_is_refused_for_its_reason(index, load):
    seen = 0
    for vector in kind(index, "envelope"):
        entry = index[vector]
        if vector in NEGATIVE:
            continue
        assert not vector.startswith("neg-"), f"no expectation for {vector}"
        envelope = suit.decode(load(vector), tagged=entry.get("tagged", True))
        seen += 1
        assert envelope.digest.value.hex() == entry["manifest_digest"]
        assert envelope.manifest.sequence_number == entry["sequence_number"]
        severed = {suit.ENVELOPE_MEMBERS[key] for key in envelope.manifest.severed}
        for member, state in entry["severable"].items():
            assert (member in severed) == (state == "severed"), vector
        shown = suit_show.describe(envelope)
        assert json.loads(json.dumps(shown)) == shown
        assert suit_show.render(envelope).isprintable() or "\n" in suit_show.render(envelope)
    assert seen > 40


def test_every_signature_verifies_with_its_published_key_and_no_other(index, load):
    verified = {}
    for vector in kind(index, "envelope"):
        entry = index[vector]
        if vector in NEGATIVE and NEGATIVE[vector][0] in ("CBOR", "COSE", "ENVELOPE", "MANIFEST_DIGEST"):
            continue
        try:
            envelope = suit.decode(load(vector), tagged=entry.get("tagged", True))
        except ToolError:
            continue
        expected = [auth["verify"][3:] for auth in entry["auth"] if auth["verify"].startswith("OK:")]
        found = [key for key, value in KEYS.items() if suit.verify(envelope, [value])]
        assert found == expected, vector
        assert len(envelope.blocks) == len(entry["auth"])
        for block, auth in zip(envelope.blocks, entry["auth"], strict=True):
            assert block.algorithm == auth["alg"]
            verified[block.algorithm] = verified.get(block.algorithm, 0) + bool(found)
    assert set(verified) == {-19, -8, -7, -9, 5}
    assert all(verified.values())


def test_the_engine_verifies_every_ed25519_signature(index, load):
    count = 0
    for vector in kind(index, "envelope"):
        if not any(auth["verify"] == "OK:ED25519-RFC8032-1" for auth in index[vector]["auth"]):
            continue
        if vector in NEGATIVE and NEGATIVE[vector][0] in ("CBOR", "COSE", "ENVELOPE"):
            continue
        try:
            wrapper = strict_cbor.loads(strict_cbor.loads(load(vector)).value[2])
        except ToolError:
            continue
        assert boot_cose.verify_sign1(wrapper[1], wrapper[0], [bytes(32), RFC8032_1]) == 1
        count += 1
    assert count >= 7


@pytest.mark.requirement("UPE11")
@pytest.mark.parametrize("vector", sorted(NEGATIVE))
def test_every_negative_vector_is_refused_by_desk_and_engine(vector, load):
    data = load(vector)
    on_desk, in_engine = NEGATIVE[vector]
    assert desk(data) == on_desk
    assert engine(stripped(data)) == in_engine
    assert engine(data) is not None


def test_every_negative_vector_is_expected(index):
    assert {vector for vector in index if vector.startswith("neg-")} == set(NEGATIVE)


def test_the_engine_itself_checks_text_that_was_left_in_the_envelope(load):
    members = strict_cbor.loads(load("neg-severable-digest-mismatch")).value
    with_text = {key: value for key, value in members.items() if isinstance(key, int)}
    assert engine(suit.dumps(suit.cbor2.CBORTag(107, with_text))) == "SEVERABLE"


def test_the_engine_refuses_every_foreign_manifest_by_name(index, load):
    for vector in kind(index, "envelope"):
        if vector in NEGATIVE:
            continue
        data = load(vector)
        if vector in FOREIGN:
            assert engine(stripped(data)) == FOREIGN[vector], vector
        elif index[vector].get("tagged", True):
            expected = "ALGORITHM" if index[vector]["auth"] else "KEY_UNKNOWN"  # or no signature at all
            assert engine(stripped(data)) == expected, vector
            more = set(suit.cbor2.loads(data).value) - {2, 3, 23}  # severable members and payloads the agent strips
            assert engine(data) == ("ENVELOPE" if more else expected), vector
        else:
            assert engine(data) == "ENVELOPE", vector
            with pytest.raises(ToolError) as error:
                suit.decode(data)
            assert error.value.code == "ENVELOPE"
    assert set(FOREIGN) == {vector for vector in kind(index, "envelope") if vector.startswith("syn-")}


def test_the_engine_accepts_the_synthetic_application_where_no_tie_is_asked(load):
    data = suit.strip(load("syn-ed25519-integrated"))
    plan = boot.check(data, Keys(), IDENTITY, None, 0)
    payload = load("syn-payload-plain")
    assert [tuple(t) for t in plan.targets] == [(1, hashlib.sha256(payload).digest(), len(payload), "#app.py")]
    assert plan.sequence == 7


def test_the_desk_runs_the_integrated_update(load):
    device = suit_run.Device(vendors=(VENDOR,), classes=(CLASS,))
    suit_run.update(suit.decode(load("syn-ed25519-integrated")), device)
    assert device.storage == {(b"app",): load("syn-payload-plain")}


def _decrypt(info, data):
    """A128KW with the published KEK, then A128CTR or A128GCM."""
    key = aes_key_unwrap(b"a" * 16, info.recipients[0][2])
    if info.algorithm == -65534:
        return Cipher(algorithms.AES(key), modes.CTR(info.iv)).decryptor().update(data)
    opening = Cipher(algorithms.AES(key), modes.GCM(info.iv, data[-16:])).decryptor()
    opening.authenticate_additional_data(suit.dumps(["Encrypt", info.protected, b""]))
    return opening.update(data[:-16]) + opening.finalize()


def test_the_desk_runs_encrypted_updates(load):
    device = suit_run.Device(vendors=(VENDOR,), classes=(CLASS,), decrypt=_decrypt)
    suit_run.update(suit.decode(load("syn-ed25519-a128ctr-aeskw")), device)
    assert device.storage[(b"app",)] == load("syn-payload-plain-x8")
    device = suit_run.Device(decrypt=_decrypt)
    suit_run.update(suit.decode(load("fe25-manifest-aes-kw-content")), device)
    assert device.storage[(b"plaintext-firmware",)] == b"This is a real firmware image."
    device = suit_run.Device(decrypt=_decrypt, fetch=lambda uri: load("fe25-payload-aes-kw-aes-gcm"))
    suit_run.update(suit.decode(load("fe25-manifest-aes-kw-slot")), device)
    assert device.storage[(b"\x00",)] == b"This is a real firmware image."


def test_the_desk_runs_a_dependency(load):
    root, inner = load("td12-example1-process"), load("td12-example0-dependent")
    device = suit_run.Device(
        fetch=lambda uri: inner,
        trusts=lambda envelope: suit.verify(envelope, [KEYS["P256-A"]]) == [0],
    )
    suit_run.update(suit.decode(root), device)
    assert device.storage[(b"dependent.suit",)] == inner
    assert device.storage[(b"10",)] == b" in multiple trust domains"
    with pytest.raises(ToolError):
        suit_run.update(suit.decode(root), suit_run.Device(fetch=lambda uri: inner))


def test_the_desk_chooses_the_slot_as_example_3_says(load):
    arm = bytes.fromhex("fa6b4a53d5ad5fdfbe9de663e4d41ffe"), bytes.fromhex("1492af1425695e48bf429b2d51f2ab45")
    asked = []
    for slot in (0, 1):
        device = suit_run.Device((arm[0],), (arm[1],), slots={(b"\x00",): slot})
        device.fetch = lambda uri: asked.append(uri) or b"not the image"
        with pytest.raises(ToolError) as error:  # the digests in the examples are patterns
            suit_run.update(suit.decode(load("ietf37-ex3-signed")), device)
        assert error.value.code == "IMAGE_SIZE"
    assert asked == ["http://example.com/file1.bin", "http://example.com/file2.bin"]


def test_a_severed_member_that_is_needed_stops_the_desk(load):
    with pytest.raises(ToolError) as error:
        suit_run.update(suit.decode(load("ietf37-ex2-signed-severed")), suit_run.Device())
    assert error.value.code == "SEVERABLE"


def test_encryption_info_vectors_decode(index, load):
    count = 0
    for vector in index:
        if "encinfo" in vector or "encryption-info" in vector:
            info = suit.encryption_info(load(vector))
            assert info.algorithm in (1, -65534)
            assert info.recipients[0][0] in (-3, -29)
            count += 1
    assert count == 9


CONTENT = b"This is the content."


def test_cose_working_group_vectors(load):
    block = strict_cbor.loads(load("cose-eddsa-sig-01")).value
    data = cose.sign1_input(block[0], block[2])
    assert cose.verify(RFC8032_1, data, block[3])
    # The engine wants detached payloads and no content type header.
    assert why_cose(load("cose-eddsa-sig-01")) == "COSE"
    assert why_cose(load("cose-sign-pass-01")) == "COSE"  # algorithm unprotected
    for vector in ("cose-sign-pass-02", "cose-sign-fail-02", "cose-sign-fail-06"):
        assert why_cose(load(vector)) == "ALGORITHM"
    for vector in ("cose-sign-fail-01", "cose-sign-fail-03"):
        assert why_cose(load(vector)) in ("COSE", "ALGORITHM")
    body = strict_cbor.loads(load("cose-eddsa-01")).value
    signer = body[3][0]
    assert cose.verify(RFC8032_1, cose.sign_input(body[0], signer[0], body[2]), signer[2])
    with pytest.raises(Refused) as error:
        boot_cose.verify_sign(load("cose-eddsa-01"), [RFC8032_1])
    assert name(error.value.code) == "COSE"


def test_ed448_under_the_old_algorithm_number_is_refused(load):
    body = strict_cbor.loads(load("cose-eddsa-02")).value
    protected, unprotected, signature = body[3][0]
    assert len(signature) == 114
    detached = suit.dumps(suit.cbor2.CBORTag(18, [protected, dict(unprotected), None, signature]))
    assert why_cose(detached) == "COSE"
    with pytest.raises(ToolError) as error:
        cose.parse_block(detached)
    assert error.value.code == "COSE"


def why_cose(data):
    with pytest.raises(Refused) as error:
        boot_cose.verify_sign1(data, CONTENT, [RFC8032_1])
    return name(error.value.code)


# -- RFC 8949 appendix A ----------------------------------------------------------------------------------------------


def test_rfc_8949_examples(shared_dir):
    """Deterministic items without floats are read by both readers; everything else is refused by both."""
    accepted = refused = 0
    for case in json.loads((shared_dir / "vectors" / "cbor-rfc8949-appendix-a.json").read_text()):
        data = bytes.fromhex(case["hex"])
        reader = boot_cbor.Reader(data)
        try:
            reader.skip()
            reader.done()
            in_engine = True
        except Refused:
            in_engine = False
        try:
            value = strict_cbor.loads(data)
            on_desk = True
        except ToolError:
            on_desk = False
        assert in_engine == on_desk, case["hex"]
        is_float = data[0] in (0xF9, 0xFA, 0xFB)
        wanted = (
            case["roundtrip"] and not is_float and not (data[0] & 0xE0 == 0xE0 and data[0] not in (0xF4, 0xF5, 0xF6))
        )
        if data[0] == 0xC1 and data[1] == 0xFB:
            wanted = False  # an epoch time as a float
        assert on_desk == wanted, case["hex"]
        accepted += on_desk
        refused += not on_desk
        if (
            on_desk
            and isinstance(case.get("decoded"), int)
            and not isinstance(case["decoded"], bool)
            and data[0] < 0x40
        ):
            assert value == case["decoded"] == boot_cbor.Reader(data).int()
    assert (accepted, refused) == (44, 38)
