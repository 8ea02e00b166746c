"""Every published and synthetic SUIT vector gives its expected outcome, on the desk and in the engine.

The vectors lie in the reference material beside the checkout. `index.json` there says what each one is; the tests below
take all of them from it, so that a vector that is added is tested, or fails for want of an expectation: envelopes in
loops over the index, all others by the tables below (`test_no_vector_is_forgotten` holds the two against the folder).
"""

import hashlib
import json
from types import SimpleNamespace

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.keywrap import aes_key_unwrap
from helpers import release
from helpers.desk import CLASS as OWN_CLASS
from helpers.desk import VENDOR as OWN_VENDOR
from helpers.desk import Desk, fetch, firmware
from sekisho import payload
from sekisho_boot import cbor as boot_cbor
from sekisho_boot import cose as boot_cose
from sekisho_boot import engine as engine_module
from sekisho_boot import suit as boot
from sekisho_boot.ledger import IDLE, READY
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
FIRMWARE = firmware("the firmware that runs")
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
    # The manifests of these are authentic: what is wrong shows when the image comes, in `test_the_engine_takes_no_...`.
    "neg-payload-digest-mismatch": ("IMAGE_DIGEST", "VERSION_TIE"),
    "neg-image-size-mismatch": ("IMAGE_SIZE", "VERSION_TIE"),
    # The engine knows no component `cfg`; `test_the_missing_index_...` has the same manifest for ones that it knows.
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

REAL_IMAGE, CONFIG = "libcsuit-raw-image", "libcsuit-config"

# encryption info -> (ciphertexts it is for, plaintext, what the device says to the info)
ENCRYPTED = {
    "fe25-encinfo-aes-kw-aes-ctr": ("fe25-payload-aes-kw-aes-ctr", REAL_IMAGE, None),
    "fe25-encinfo-aes-kw-aes-gcm": ("fe25-payload-aes-kw-aes-gcm", REAL_IMAGE, "PARAMETER"),
    "fe25-encinfo-es-ecdh-aes-ctr": ("fe25-payload-es-ecdh-aes-ctr", REAL_IMAGE, "PARAMETER"),
    "fe25-encinfo-es-ecdh-aes-gcm": ("fe25-payload-es-ecdh-aes-gcm", REAL_IMAGE, "PARAMETER"),
    "kgen-encryption-info-config-esdh-ctr": ("kgen-encrypted-config-esdh-ctr", CONFIG, "PARAMETER"),
    "libcsuit-encryption-info-aes": ("libcsuit-encrypted-image-aes", REAL_IMAGE, "PARAMETER"),
    "libcsuit-encryption-info-esdh": ("libcsuit-encrypted-image-esdh", REAL_IMAGE, "PARAMETER"),
    "libcsuit-encryption-info-config-aes": ("libcsuit-encrypted-config-aes", CONFIG, "PARAMETER"),
    "libcsuit-encryption-info-config-esdh": ("libcsuit-encrypted-config-esdh", CONFIG, "PARAMETER"),
}

# plaintext image -> envelopes that name its digest
IMAGES = {
    REAL_IMAGE: ["fe25-manifest-es-ecdh-dependency", "libcsuit-expED"],
    CONFIG: ["libcsuit-expD"],
    "libcsuit-8d82573a-926d-4754-9353-32dc29997f74": ["libcsuit-expI", "libcsuit-expU", "teep-suit-integrated"],
    "syn-payload-plain": ["syn-ed25519-integrated", "syn-ed25519-integrated-textsevered"],
    "syn-payload-plain-x8": ["syn-ed25519-a128ctr-aeskw"],
}

# COSE messages that carry what they protect -> how the desk opens them with the ciphertext taken out, as SUIT has it
COSE_ENCRYPTED = {
    "cose-aes-gcm-01": "the content key is the recipient's own: no key to unwrap",
    "cose-aes-gcm-enc-01": "COSE_Encrypt0",
    "cose-aes-wrap-128-01": "COSE_Mac",
    "cose-aes-wrap-128-03": "COSE_Mac",
    "cose-aes-wrap-128-04": "opens",
    "cose-p256-wrap-128-01": "opens",
    "cose-x25519-hkdf-256-direct": "the content key comes from the agreement itself: no key to unwrap",
}

# COSE_Sign1 messages of the COSE working group -> what the engine says
COSE_SIGNED = {
    "cose-eddsa-sig-01": "COSE",  # an attached payload, and a content type
    "cose-sign-pass-01": "COSE",  # the algorithm is not protected
    "cose-sign-pass-02": "ALGORITHM",
    "cose-sign-fail-01": "COSE",  # tag 998
    "cose-sign-fail-02": "ALGORITHM",
    "cose-sign-fail-03": "ALGORITHM",  # -999
    "cose-sign-fail-06": "ALGORITHM",
}
COSE_MANY_SIGNERS = "cose-eddsa-01"
COSE_ED448 = "cose-eddsa-02"


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


class Tied(engine_module.Engine):
    """The engine of a device that has the key and the identity of the vectors, and the firmware they forget to tie."""

    def _check(self, envelope):
        return boot.check(envelope, Keys(), IDENTITY, None, 0)


def given(vector, payload):
    """What the engine says when it gets this update and payload, and the last reason it recorded."""
    made = Desk()
    made.factory(release.make(1, {0: FIRMWARE}, vendor=OWN_VENDOR, product=OWN_CLASS), FIRMWARE)
    engine_ = Tied(made.power_on().port)
    reason = None
    try:
        fetch(engine_, vector, {1: payload})
    except Refused as error:
        reason = name(error.code)
    last = name(engine_.status()["last"][0]) if engine_.state.phase == IDLE else None
    assert (engine_.state.phase == READY) == (reason is None)
    return reason, last


@pytest.mark.requirement("UPE11")
def test_the_engine_takes_no_payload_but_the_one_that_an_authentic_manifest_names(load):
    """The two vectors whose manifests are in order, tie apart: what comes with them is refused for what it is."""
    right = load("syn-payload-plain")
    assert given(suit.strip(load("syn-ed25519-integrated")), right) == (None, None)
    vector = load("neg-payload-digest-mismatch")
    wrong = suit.decode(vector).payloads["#app.py"]
    assert len(wrong) == len(right)
    assert given(suit.strip(vector), wrong) == ("IMAGE_DIGEST", "IMAGE_DIGEST")
    assert given(suit.strip(vector), right) == (None, None)
    vector = load("neg-image-size-mismatch")
    assert suit.decode(vector).payloads["#app.py"] == right
    assert given(suit.strip(vector), right)[0] == "IMAGE_SIZE"
    assert given(suit.strip(vector), right[:-1]) == ("IMAGE_DIGEST", "IMAGE_DIGEST")


def test_the_missing_index_of_two_components_that_the_engine_knows_is_refused(load):
    """`neg-two-components-no-set-index` for `app` and `fw`, signed anew; with the index there is no objection."""
    signer = cose.MemorySigner(bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"))
    assert signer.public_key == RFC8032_1
    manifest = suit.cbor2.loads(suit.cbor2.loads(load("neg-two-components-no-set-index")).value[3])

    def built(*components, **index):
        common = suit.cbor2.loads(manifest[3])
        common[2] = [[component] for component in components]
        shared = [*index.get("first", []), *suit.cbor2.loads(common[4]), *index.get("tie", [])]
        common[4] = suit.dumps(shared)
        made = {**manifest, 3: suit.dumps(common)}
        for member in (7, 20):
            made[member] = suit.dumps([*index.get("first", []), *suit.cbor2.loads(manifest[member])])
        content = suit.dumps(made)
        digest = suit.dumps([-16, hashlib.sha256(suit.dumps(content)).digest()])
        wrapper = suit.dumps([digest, cose.sign1(digest, signer)])
        return suit.dumps(suit.cbor2.CBORTag(107, {2: wrapper, 3: content}))

    tie = {"tie": [12, 1, 20, {28: suit.dumps([2, [1]])}, 28, 15]}
    assert engine(built(b"app", b"fw", **tie)) == "COMPONENT"
    assert engine(built(b"app", b"fw", first=[12, 0], **tie)) is None
    assert engine(built(b"app", b"cfg", first=[12, 0], **tie)) == "COMPONENT"
    assert engine(built(b"app", first=[12, 0])) == "VERSION_TIE"


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


KEK = b"a" * 16
P256_C = ec.derive_private_key(
    int("60fe6dd6d85d5740a5349b6f91267eeac5ba81b8cb53ee249e4b4eb102c476b3", 16), ec.SECP256R1()
)
SUIT_CONTEXT = b"SUIT Payload Encryption"


def _content_key(info, kek=KEK, private=P256_C, purpose=SUIT_CONTEXT):
    """The content key of the first recipient: A128KW, under the published KEK or one agreed on with ECDH-ES."""
    algorithm, _, wrapped = info.recipients[0]
    if algorithm == -3:
        return aes_key_unwrap(kek, wrapped)
    assert algorithm == -29
    protected, unprotected, _ = strict_cbor.loads(info.encoded, ordered=False).value[3][0]
    point = unprotected[-1]
    assert (point[1], point[-1]) == (2, 1)
    secret = private.exchange(ec.ECDH(), _p256(point[-2].hex(), point[-3].hex()))
    nobody = [None, None, None]
    context = suit.dumps([-3, nobody, nobody, [128, protected, *([purpose] if purpose else [])]])
    return aes_key_unwrap(HKDF(hashes.SHA256(), 16, None, context).derive(secret), wrapped)


def _open(algorithm, key, iv, protected, data):
    """A128CTR or A128GCM."""
    if algorithm == -65534:
        return Cipher(algorithms.AES(key), modes.CTR(iv)).decryptor().update(data)
    assert algorithm == 1
    opening = Cipher(algorithms.AES(key), modes.GCM(iv, data[-16:])).decryptor()
    opening.authenticate_additional_data(suit.dumps(["Encrypt", protected, b""]))
    return opening.update(data[:-16]) + opening.finalize()


def _decrypt(info, data):
    return _open(info.algorithm, _content_key(info), info.iv, info.protected, data)


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


def test_the_desk_runs_encrypted_updates_for_a_key_that_is_agreed_on(load):
    for vector in ("fe25-manifest-es-ecdh-content", "libcsuit-expEW"):
        device = suit_run.Device(decrypt=_decrypt)
        suit_run.update(suit.decode(load(vector)), device)
        assert device.storage == {(b"decrypted-firmware",): load(REAL_IMAGE)}


def test_the_desk_runs_an_update_that_is_decrypted_while_it_is_copied(load):
    for vector in ("fe25-manifest-aes-kw", "libcsuit-expAF"):
        device = suit_run.Device(decrypt=_decrypt, fetch=lambda uri: load("fe25-payload-aes-kw-aes-gcm"))
        suit_run.update(suit.decode(load(vector)), device)
        assert device.storage[(b"plaintext-firmware",)] == load(REAL_IMAGE)
        device = suit_run.Device(decrypt=_decrypt, fetch=lambda uri: load("libcsuit-encrypted-image-aes"))
        with pytest.raises(InvalidTag):  # made with another content key
            suit_run.update(suit.decode(load(vector)), device)


@pytest.mark.parametrize("vector", ENCRYPTED)
def test_every_encrypted_payload_opens_with_the_published_keys(vector, load):
    ciphertext, plaintext, _ = ENCRYPTED[vector]
    info, data = suit.encryption_info(load(vector)), load(ciphertext)
    assert info.recipients[0][0] in (-3, -29)
    assert _decrypt(info, data) == load(plaintext)
    if info.algorithm == 1:
        with pytest.raises(InvalidTag):
            _decrypt(info, data[:-1] + bytes([data[-1] ^ 1]))


class Group:
    """The published key-encryption key, as a device of the group holds it."""

    id = b"kid-1"

    @staticmethod
    def unwrap(wrapped):
        return aes_key_unwrap(KEK, wrapped)


@pytest.mark.parametrize("vector", ENCRYPTED)
def test_the_device_takes_counter_mode_for_a_group_and_refuses_the_rest_by_name(vector, load):
    ciphertext, plaintext, reason = ENCRYPTED[vector]
    if reason is None:
        algorithm, (key, counter) = payload._unlock(load(vector), [Group])
        assert _open(algorithm, key, counter, b"", load(ciphertext)) == load(plaintext)
        assert payload._unlock(load(vector), []) == (algorithm, None)
    else:
        with pytest.raises(Refused) as error:
            payload._unlock(load(vector), [Group])
        assert name(error.value.code) == reason


def _images(envelope):
    """(digest, size) of every image that an envelope or a dependency inside it names."""
    for commands in (envelope.manifest.shared, *envelope.manifest.sequences.values()):
        for command in commands:
            if command.code == 20 and 3 in command.argument:
                yield command.argument[3].value, command.argument.get(14)
    for data in envelope.payloads.values():
        if data.startswith(b"\xd8\x6b"):
            yield from _images(suit.decode(data))


@pytest.mark.parametrize("vector", IMAGES)
def test_every_image_is_the_one_its_manifests_name(vector, index, load):
    data = load(vector)
    for envelope in IMAGES[vector]:
        decoded = suit.decode(load(envelope), tagged=index[envelope].get("tagged", True))
        assert (hashlib.sha256(data).digest(), len(data)) in set(_images(decoded)), envelope


CONTENT = b"This is the content."
OUR_SECRET = bytes.fromhex("849b57219dae48de646d07dbb533566e")
MERIADOC = ec.derive_private_key(
    int("aff907c99f9ad3aae6c4cdf21122bce2bd68b5283e6907154ad911840fa208cf", 16), ec.SECP256R1()
)


@pytest.mark.parametrize("vector", COSE_ENCRYPTED)
def test_cose_messages_that_are_no_encryption_info_are_refused(vector, load):
    """Desk and device want the ciphertext elsewhere; with it taken out, the desk opens what SUIT has a profile for."""
    data = load(vector)
    with pytest.raises(ToolError) as error:
        suit.encryption_info(data)
    assert error.value.code == "PARAMETER"
    with pytest.raises(Refused) as refused:
        payload._unlock(data, [Group])
    assert name(refused.value.code) == "PARAMETER"
    message = strict_cbor.loads(data, ordered=False)
    said = COSE_ENCRYPTED[vector]
    if message.number != 96:
        assert said == {16: "COSE_Encrypt0", 97: "COSE_Mac"}[message.number]
        return
    protected, unprotected, ciphertext, recipients = message.value
    info = suit.encryption_info(suit.dumps(suit.cbor2.CBORTag(96, [protected, unprotected, None, recipients])))
    if said == "opens":
        key = _content_key(info, OUR_SECRET, MERIADOC, None)
        assert _open(info.algorithm, key, info.iv, info.protected, ciphertext) == CONTENT
    else:
        assert info.recipients[0][0] in (-6, -25)
        assert info.recipients[0][2] == b""
        assert said.endswith("no key to unwrap")


def test_no_vector_is_forgotten(vectors, index):
    """What the tests of this file use is what the index names, and that is what lies in the folder."""
    used = set(kind(index, "envelope")) | set(NEGATIVE) | set(ENCRYPTED) | set(IMAGES)
    used |= {ciphertext for ciphertext, _, _ in ENCRYPTED.values()} | {plain for _, plain, _ in ENCRYPTED.values()}
    used |= set(COSE_ENCRYPTED) | set(COSE_SIGNED) | {COSE_MANY_SIGNERS, COSE_ED448}
    assert used == set(index)
    assert {entry["file"] for entry in index.values()} == {path.name for path in vectors.glob("*.hex")}
    assert {path.suffix for path in vectors.iterdir()} == {".hex", ".json", ".md"}


@pytest.mark.parametrize("vector", COSE_SIGNED)
def test_the_engine_refuses_every_cose_message_of_the_working_group(vector, load):
    """It wants detached payloads, a protected algorithm, and no content type header."""
    assert why_cose(load(vector)) == COSE_SIGNED[vector]


def test_cose_working_group_vectors(load):
    block = strict_cbor.loads(load("cose-eddsa-sig-01")).value
    data = cose.sign1_input(block[0], block[2])
    assert cose.verify(RFC8032_1, data, block[3])
    body = strict_cbor.loads(load(COSE_MANY_SIGNERS)).value
    signer = body[3][0]
    assert cose.verify(RFC8032_1, cose.sign_input(body[0], signer[0], body[2]), signer[2])
    with pytest.raises(Refused) as error:
        boot_cose.verify_sign(load(COSE_MANY_SIGNERS), [RFC8032_1])
    assert name(error.value.code) == "COSE"


def test_ed448_under_the_old_algorithm_number_is_refused(load):
    body = strict_cbor.loads(load(COSE_ED448)).value
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
