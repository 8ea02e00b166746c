"""What the desk writes, the engine accepts and means the same by; and what it must not write, it refuses to."""

import hashlib
from contextlib import suppress
from dataclasses import replace
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sekisho_boot import suit as boot
from sekisho_boot.reasons import Refused, name
from sekisho_tools import cose, suit, suit_show
from sekisho_tools.errors import ToolError

VENDOR, CLASS, DEVICE = b"v" * 16, b"c" * 16, b"d" * 16
SIGNERS = [cose.MemorySigner(bytes([n]) * 32) for n in range(1, 4)]
IDENTITY = SimpleNamespace(vendor=VENDOR, classes=(CLASS,), device=DEVICE)
NOW = 1_800_000_000


class Keys:
    """A key set in which every signer may sign everything."""

    revoked_keys = ()
    revoked_manifests = ()

    def release_keys(self):
        return [signer.public_key for signer in SIGNERS]

    def may(self, index, component, product):
        return True

    def limit(self, component):
        return 0, 2**63 - 1


def check(envelope, counters=(0, 0), running=(1, 1), now=NOW):
    return boot.check(suit.strip(envelope), Keys(), IDENTITY, SimpleNamespace(counters=counters, running=running), now)


def code(function, *arguments, **named):
    with pytest.raises((ToolError, Refused)) as error:
        function(*arguments, **named)
    return error.value.code if isinstance(error.value, ToolError) else name(error.value.code)


FW = suit.Component.of("fw", b"firmware", "https://example.com/payload/fw")
APP = suit.Component.of("app", b"application", "/payload/app")
RELEASE = suit.Release(VENDOR, CLASS, 7, (FW,))

numbers = st.integers(0, 2**63 - 1)
uris = st.none() | st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=255)
sentences = st.text(st.characters(exclude_categories=("C", "Z")), max_size=40)


@st.composite
def releases(draw):
    names = draw(st.sampled_from((("fw",), ("app",), ("fw", "app"), ("app", "fw"))))
    components = tuple(
        suit.Component(
            component, draw(st.binary(min_size=32, max_size=32)), draw(st.integers(1, boot.MAX_IMAGE)), draw(uris)
        )
        for component in names
    )
    ties = []
    for other in {"fw", "app"} - set(names):
        if other == "fw" or draw(st.booleans()):
            low = draw(numbers)
            ties.append(suit.Tie(other, low, draw(st.none() | st.integers(low, 2**63 - 1))))
    languages = st.sampled_from(("en", "de", "ja", "zh-Hant", "de-CH-1996"))
    texts = st.builds(
        suit.Text,
        sentences,
        sentences,
        st.just({names[0]: {"component-version": "1.2.3", "vendor-name": "Example"}}),
    )
    return suit.Release(
        VENDOR,
        CLASS,
        draw(st.integers(1, 2**63 - 1)),
        components,
        tuple(ties),
        draw(st.sampled_from((None, DEVICE))),
        draw(st.none() | st.integers(1, 2**63 - 1)),
        draw(uris),
        draw(st.dictionaries(languages, texts, max_size=3)),
    )


@settings(deadline=None, max_examples=150)
@given(releases(), st.sets(st.sampled_from(range(3)), min_size=1))
def test_the_engine_reads_what_the_desk_wrote(release, chosen):
    signers = [SIGNERS[index] for index in sorted(chosen)]
    envelope = suit.encode(release, signers)
    running = [1, 0]
    for tie in release.ties:
        running[boot.NAMES.index(tie.name)] = tie.minimum
    now = 0 if release.use_before is None else release.use_before - 1
    plan = check(envelope, running=tuple(running), now=now)
    assert plan.sequence == release.sequence
    assert plan.digest == suit.decode(envelope).digest.value
    assert plan.use_before == release.use_before
    assert plan.key == SIGNERS[min(chosen)].key_id
    assert [tuple(target) for target in plan.targets] == [
        (boot.NAMES.index(c.name), c.digest, c.size, c.uri) for c in release.components
    ]
    assert suit.verify(suit.decode(envelope), [signer.public_key for signer in SIGNERS]) == sorted(chosen)
    assert suit_show.render(suit.decode(envelope))


@pytest.mark.requirement("UPE11", "UPC01")
@settings(deadline=None, max_examples=60)
@given(releases(), st.data())
def test_no_changed_byte_gets_past_either_reader(release, data):
    envelope = bytearray(suit.strip(suit.encode(release, SIGNERS[:1])))
    place = data.draw(st.integers(0, len(envelope) - 1))
    envelope[place] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(Refused):
        boot.check(bytes(envelope), Keys(), IDENTITY, None, NOW)
    with suppress(ToolError):
        assert suit.verify(suit.decode(bytes(envelope)), [SIGNERS[0].public_key]) == []


def test_encoding_is_the_same_every_time():
    assert suit.encode(RELEASE, SIGNERS) == suit.encode(RELEASE, SIGNERS)


def test_a_firmware_manifest_is_short():
    assert len(suit.encode(RELEASE, SIGNERS[:1])) < 400


def test_text_is_severable_and_stripped_for_the_device():
    text = suit.Text("Firmware 7", "Mends the clock", {"fw": {"component-version": "1.2.0"}})
    envelope = suit.encode(replace(RELEASE, text={"en": text, "de": text}), SIGNERS[:1])
    decoded = suit.decode(envelope)
    assert decoded.manifest.text["de"]["fw"] == {"component-version": "1.2.0"}
    assert decoded.manifest.severed == ()
    kept = suit.decode(suit.strip(envelope))
    assert kept.manifest.text is None
    assert kept.manifest.severed == (23,)
    assert kept.digest == decoded.digest


def test_payloads_can_travel_in_the_envelope():
    envelope = suit.encode(RELEASE, SIGNERS[:1], {FW.uri: b"firmware"})
    assert suit.decode(envelope).payloads == {FW.uri: b"firmware"}
    assert suit.decode(suit.strip(envelope)).payloads == {}
    assert code(suit.encode, RELEASE, SIGNERS[:1], {FW.uri: b"firmwarf"}) == "IMAGE_DIGEST"
    assert code(suit.encode, RELEASE, SIGNERS[:1], {"#other": b"firmware"}) == "ENVELOPE"


def test_a_second_signature_is_added_without_touching_the_manifest():
    envelope = suit.encode(RELEASE, SIGNERS[:1])
    twice = suit.add_signature(envelope, SIGNERS[1])
    assert suit.verify(suit.decode(twice), [signer.public_key for signer in SIGNERS]) == [0, 1]
    assert suit.decode(twice).digest == suit.decode(envelope).digest
    assert suit.add_signature(twice, SIGNERS[1]) == twice
    full = suit.add_signature(suit.add_signature(twice, SIGNERS[2]), cose.MemorySigner(b"4" * 32))
    assert code(suit.add_signature, full, cose.MemorySigner(b"5" * 32)) == "LIMIT"


class BadSigner(cose.MemorySigner):
    """A token that signs wrongly."""

    def sign(self, data):
        return bytes(64)


@pytest.mark.requirement("UPC01")
def test_a_signature_that_does_not_verify_never_leaves_the_desk():
    assert code(suit.encode, RELEASE, [BadSigner(b"b" * 32)]) == "SIGNATURE"
    wrong = cose.MemorySigner(b"w" * 32)
    wrong.key_id = bytes(8)
    assert code(suit.encode, RELEASE, [wrong]) == "KEY_UNKNOWN"
    assert code(suit.encode, RELEASE, []) == "KEY_UNKNOWN"


TIE = suit.Tie("fw", 5)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"sequence": 0}, "SEQUENCE"),
        ({"sequence": 2**63}, "SEQUENCE"),
        ({"components": ()}, "COMPONENT"),
        ({"components": (FW, FW)}, "COMPONENT"),
        ({"components": (replace(FW, name="cfg"),)}, "COMPONENT"),
        ({"ties": (TIE,)}, "COMPONENT"),
        ({"components": (APP,)}, "VERSION_TIE"),
        ({"components": (APP,), "ties": (replace(TIE, maximum=4),)}, "VERSION_TIE"),
        ({"components": (APP,), "ties": (replace(TIE, minimum=-1),)}, "VERSION_TIE"),
        ({"components": (replace(FW, size=0),)}, "IMAGE_SIZE"),
        ({"components": (replace(FW, size=boot.MAX_IMAGE + 1),)}, "IMAGE_SIZE"),
        ({"components": (replace(FW, digest=b"short"),)}, "PARAMETER"),
        ({"components": (replace(FW, uri="ü"),)}, "PARAMETER"),
        ({"components": (replace(FW, uri="a b"),)}, "PARAMETER"),
        ({"components": (replace(FW, uri=""),)}, "PARAMETER"),
        ({"components": (replace(FW, uri="u" * 256),)}, "PARAMETER"),
        ({"reference_uri": "\n"}, "PARAMETER"),
        ({"vendor": b"short"}, "PARAMETER"),
        ({"product": b""}, "PARAMETER"),
        ({"device": b"x"}, "PARAMETER"),
        ({"use_before": 0}, "PARAMETER"),
        ({"text": {"not a tag": suit.Text()}}, "PARAMETER"),
        ({"text": {"en": suit.Text("\x1b[2J")}}, "PARAMETER"),
        ({"text": {"en": suit.Text(components={"fw": {"colour": "red"}})}}, "PARAMETER"),
        ({"text": {"en": suit.Text(components={"app": {}})}}, "COMPONENT"),
    ],
)
def test_refuses_to_write_what_the_engine_would_refuse(change, reason):
    assert code(suit.encode, replace(RELEASE, **change), SIGNERS[:1]) == reason


@pytest.mark.requirement("UPE11", "UPC02")
def test_the_engine_refuses_what_does_not_fit_the_device():
    app = suit.Release(VENDOR, CLASS, 7, (APP,), (suit.Tie("fw", 5, 9),))
    envelope = suit.encode(app, SIGNERS[:1])
    assert check(envelope, running=(5, 1)).targets[0].component == boot.APP
    assert code(check, envelope, running=(4, 1)) == "VERSION_TIE"
    assert code(check, envelope, running=(10, 1)) == "VERSION_TIE"
    assert code(check, suit.encode(RELEASE, SIGNERS[:1]), running=(1, 1)) == "VERSION_TIE"
    assert code(check, envelope, counters=(0, 8), running=(5, 1)) == "SEQUENCE"


def test_digests_and_sizes_come_from_the_image():
    assert FW.digest == hashlib.sha256(b"firmware").digest()
    assert FW.size == 8
