"""Payloads that travel compressed and encrypted: what the desk packs, the device unpacks while it streams."""

from __future__ import annotations

import contextlib
import hashlib
import io
import zlib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cbor2
import pytest
from cryptography.hazmat.primitives import keywrap
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from device import payload_cases
from helpers import deflate, firmware, images, micropython
from helpers.keys import ISSUED, make_keyset
from sekisho import payload
from sekisho.issued import Kek
from sekisho_boot import keyset
from sekisho_boot import suit as boot
from sekisho_boot.reasons import Refused
from sekisho_boot.reasons import name as reason
from sekisho_tools import cose, layout, packing, release, suit, suit_run
from sekisho_tools.errors import ToolError
from sekisho_tools.identity import Identity

VENDOR, CLASS = "example.com", "my-board"
IDENTITY = Identity.of(VENDOR, CLASS)
GROUP = packing.GroupKey("line-a", bytes(range(16)))
OTHER = packing.GroupKey("line-b", bytes(range(16, 32)))
IMAGE = images.app() + b"".join(hashlib.sha256(bytes([n % 7])).digest() for n in range(1500))
ANY = payload_cases.Anything()
STRONGER = {3: (-65532,)}
"""An algorithm policy that no longer has A128CTR."""


def made(
    image: bytes = IMAGE, *, compress: bool = False, groups: tuple[packing.GroupKey, ...] = (), **more: Any
) -> release.Made:
    request = release.Request(
        VENDOR, CLASS, "1.0", 2, (release.Component("fw", image),), compress=compress, groups=groups, **more
    )
    keyset = make_keyset()
    return release.create(request, keyset.release[0], keyset.document)


def lay_out(folder: Path, what: release.Made, image: bytes = IMAGE) -> str:
    (folder / "envelope").write_bytes(what.envelope)
    (folder / "image").write_bytes(image)
    (folder / "kek").write_bytes(GROUP.kek)
    for digest, data in what.packed.items():
        (folder / digest.hex()).write_bytes(data)
    return str(folder)


Run = Any


@pytest.fixture(params=["cpython", "micropython"])
def on_device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Run:
    if request.param == "micropython":
        return lambda *arguments: micropython.run(
            f"from device import payload_cases; payload_cases.main(*{arguments!r})", heap="1m"
        )
    deflate.install(monkeypatch)

    def run(*arguments: str) -> str:
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            payload_cases.main(*arguments)
        return out.getvalue()

    return run


KINDS = {
    "compressed": {"compress": True},
    "encrypted": {"groups": (OTHER, GROUP)},
    "both": {"compress": True, "groups": (GROUP,)},
    "both, with a long key": {"compress": True, "groups": (OTHER, GROUP), "cipher": packing.A256CTR},
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_device_unpacks_what_the_desk_packed(on_device: Run, tmp_path: Path, kind: str) -> None:
    what = made(**KINDS[kind])
    said = on_device(lay_out(tmp_path, what), "good").splitlines()
    assert said[0].count("/payload/") == (2 if kind == "compressed" else 1)
    assert len(said) == 6
    assert all(line.endswith(" True") for line in said[1:])


@pytest.mark.requirement("UPE11")
@pytest.mark.parametrize("kind", KINDS)
def test_packed_bytes_that_are_not_the_signed_ones_are_refused(on_device: Run, tmp_path: Path, kind: str) -> None:
    said = on_device(lay_out(tmp_path, made(**KINDS[kind])), "bad").splitlines()
    told = dict(line.rsplit(" ", 1) for line in said[1:])
    assert told.pop("short") == "IMAGE_DIGEST"
    assert told.pop("long") == "IMAGE_SIZE"
    assert told.pop("doubled") == "IMAGE_SIZE"
    assert told.pop("smaller") == "IMAGE_SIZE"
    assert told.pop("larger") in ("IMAGE_SIZE", "IMAGE_DIGEST")
    assert set(told.values()) == {"True"}


def test_hostile_streams_end_in_a_refusal(on_device: Run, tmp_path: Path) -> None:
    """Signed by mistake, so that only unpacking can notice: no exception but a refusal, and never a wrong image."""
    image = b"".join(hashlib.sha256(bytes([n % 256, n % 13])).digest()[: 5 + n % 20] * 2 for n in range(4000))
    said = on_device(lay_out(tmp_path, made(image, compress=True), image), "noise")
    assert set(eval(said.splitlines()[-1][6:])) <= {"IMAGE_DIGEST", "IMAGE_SIZE", "LIMIT"}


def test_a_genuine_firmware_unpacks_within_its_memory(tmp_path: Path) -> None:
    """Figures of a 64-bit interpreter; buffers are as large on a chip, the few objects half as large."""
    table = layout.load("4MiB")
    image = release.firmware(firmware.read("v1.16"), table, "esp32", payload_only=True).data
    what = made(image, compress=True, groups=(GROUP,))
    assert len(next(iter(what.packed.values()))) < 0.68 * len(image)
    folder = lay_out(tmp_path, what, image)
    program = f"from device import payload_cases; payload_cases.main({folder!r}, 'memory')"
    said = micropython.run(program, heap="4m")
    memory = int(said.rsplit(" ", 1)[1])
    assert memory < 28_000, memory


def test_random_and_incompressible_images_survive_the_window(on_device: Run, tmp_path: Path) -> None:
    noise = b"".join(hashlib.sha256(n.to_bytes(4, "big")).digest() for n in range(3000))
    mixed = images.app() + noise + bytes(20000) + noise[:5000] + b"ab" * 9000
    said = on_device(lay_out(tmp_path, made(mixed, compress=True), mixed), "good").splitlines()
    assert all(line.endswith(" True") for line in said[1:])
    assert made(noise, compress=True).packed == {}  # what compression makes larger travels as it is


# -- the manifest ---------------------------------------------------------------------------------------------------


def check(envelope: bytes) -> Any:
    keyset = release.load_keyset(make_keyset().document)
    return release.check(envelope, keyset, IDENTITY)


@pytest.mark.parametrize("kind", KINDS)
def test_the_engine_judges_the_image_and_needs_not_know_how_it_travels(kind: str) -> None:
    what = made(**KINDS[kind])
    plan = check(what.envelope)
    assert (bytes(plan.targets[0].digest), plan.targets[0].size) == (hashlib.sha256(IMAGE).digest(), len(IMAGE))
    assert plan.targets[0].uri is None
    assert len(suit.strip(what.envelope)) < 600


@pytest.mark.parametrize("kind", KINDS)
def test_an_independent_processor_installs_the_same_image(kind: str) -> None:
    """Standard SUIT but for one custom parameter: fetch into a component of its own, compare, copy, compare."""
    what = made(**KINDS[kind])
    files = {f"/payload/{digest.hex()}": data for digest, data in what.packed.items()}
    asked: list[str] = []

    def fetch(uri: str) -> bytes:
        asked.append(uri)
        return files[uri]

    device = suit_run.Device(
        vendors=[IDENTITY.vendor],
        classes=list(IDENTITY.classes),
        fetch=fetch,
        decrypt=lambda info, data: packing.decrypt(data, info.encoded, [GROUP]),
    )
    suit_run.update(suit.decode(what.envelope), device)
    assert device.storage[(b"fw",)] == IMAGE
    assert asked == list(files)


def test_firmware_and_application_travel_packed_together(monkeypatch: pytest.MonkeyPatch) -> None:
    deflate.install(monkeypatch)
    parts = (release.Component("fw", IMAGE), release.Component("app", b"app " * 5000))
    request = release.Request(VENDOR, CLASS, "1.0", 2, parts, compress=True, groups=(GROUP,))
    keyset = make_keyset()
    what = release.create(request, keyset.release[0], keyset.document)
    plan = check(what.envelope)
    for forms, part, target in zip(payload.offers(what.envelope, plan), parts, plan.targets, strict=True):
        form = payload.choose(forms, [Kek(GROUP.kek)], ANY)
        out = bytearray()
        unpacker = payload.Unpacker(form, target.size, 0, lambda _at, view, out=out: out.extend(view))
        data = memoryview(bytearray(what.packed[form.digest]))
        for at in range(0, len(data), 4096):
            unpacker.feed(data[at : at + 4096])
        unpacker.done()
        assert out == part.data


def test_an_application_release_with_a_tie_travels_packed() -> None:
    request = release.Request(
        VENDOR, CLASS, "1.0", 2, (release.Component("app", b"app " * 5000),), compress=True,
        ties=release.read_ties(["fw=1"]),
    )  # fmt: skip
    keyset = make_keyset()
    what = release.create(request, keyset.release[0], keyset.document)
    plan = check(what.envelope)
    forms = payload.offers(what.envelope, plan)[0]
    assert [form.compressed for form in forms] == [True, False]
    assert forms[1].uri == f"/payload/{hashlib.sha256(b'app ' * 5000).hexdigest()}"


@pytest.mark.requirement("UPE11")
def test_an_install_sequence_that_was_changed_or_cut_off_is_refused() -> None:
    what = made(compress=True)
    plan = check(what.envelope)
    members = dict(cbor2.loads(what.envelope).value)
    for changed in (members | {20: members[20].replace(b"/payload/", b"/payloae/")}, members | {20: b"\x80"}):
        data = cbor2.dumps(cbor2.CBORTag(107, changed))
        with pytest.raises(Refused) as caught:
            payload.offers(data, plan)
        assert reason(caught.value.code) == "SEVERABLE"
        with pytest.raises(ToolError, match="SEVERABLE"):
            suit.decode(data)
    with pytest.raises(Refused) as caught:
        payload.offers(suit.strip(what.envelope), plan)
    assert reason(caught.value.code) == "SEVERABLE"


def sequence(*commands: Any, sizes: int = 9) -> Any:
    """What the agent makes of an install sequence for one image, component 0, packed as component 1."""
    install = suit.dumps(list(commands))
    digest = suit.sha256_digest(suit.dumps(install))
    common = suit.dumps({2: [[b"fw"], [b"fw", b"packed"]]})
    manifest = suit.dumps({1: 1, 2: 1, 3: common, 20: digest})
    envelope = suit.dumps(cbor2.CBORTag(107, {2: b"", 3: manifest, 20: install}))
    target = SimpleNamespace(component=0, digest=bytes(32), size=sizes, uri=None)
    try:
        return payload.offers(envelope, SimpleNamespace(targets=[target]))[0]
    except Refused as refused:
        return reason(refused.code)


DIGEST = suit.dumps([-16, bytes(32)])
GOOD = [12, 1, 20, {3: DIGEST, 14: 5, 21: "/x"}, 21, 2, 3, 15, 12, 0, 20, {22: 1, -257: 1}, 22, 2, 3, 15]


def test_the_agent_reads_no_more_of_an_install_sequence_than_it_understands() -> None:
    assert [(form.uri, form.size, form.compressed) for form in sequence(*GOOD)] == [("/x", 5, True)]
    assert sequence(12, 0) == "COMMAND"  # nothing that brings the image
    assert sequence(12, 1, 20, {3: DIGEST, 14: 5, 21: "/x"}, 21, 2, 12, 0, 20, {22: 1}, 22, 2) == "COMMAND"
    assert sequence(*GOOD[:4], 3, 15, 21, 2, *GOOD[8:]) == "COMMAND"  # compared before it was fetched
    assert sequence(12, 1, 20, {14: 5, 21: "/x"}, 21, 2, 3, 15, *GOOD[8:]) == "COMMAND"  # no digest
    assert sequence(*GOOD[:11], {22: 1, -257: 2}, 22, 2) == "PARAMETER"
    assert sequence(*GOOD[:11], {22: 7}, 22, 2) == "COMMAND"
    assert sequence(*GOOD, 23, 2) == "COMMAND"
    assert sequence(*GOOD, 3, 16) == "COMMAND"
    assert sequence(12, 0, 20, {21: "/x", 18: b"content"}, 21, 2) == "PARAMETER"
    assert sequence(12, 0, 21, 2) == "PARAMETER"
    assert sequence(15, [suit.dumps([15, [suit.dumps(GOOD)]])]) == "COMMAND"  # nested deeper than we write
    both = [12, 0, 15, [suit.dumps(GOOD), suit.dumps([12, 0, 20, {21: "/y"}, 21, 2, 3, 15])]]
    assert [(form.uri, form.size) for form in sequence(*both)] == [("/x", 5), ("/y", 9)]


def test_a_device_takes_the_first_form_that_it_can_read(monkeypatch: pytest.MonkeyPatch) -> None:
    what = made(compress=True)
    forms = payload.offers(what.envelope, check(what.envelope))[0]
    deflate.install(monkeypatch)
    assert payload.choose(forms, [], ANY).compressed
    monkeypatch.setitem(__import__("sys").modules, "deflate", None)
    assert not payload.choose(forms, [], ANY).compressed


def test_whoever_has_no_key_of_the_group_gets_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    deflate.install(monkeypatch)
    what = made(groups=(GROUP,))
    forms = payload.offers(what.envelope, check(what.envelope))[0]
    for keks in ([], [Kek(OTHER.kek)]):
        with pytest.raises(Refused) as caught:
            payload.choose(forms, keks, ANY)
        assert reason(caught.value.code) == "CONTENT_KEY"
    assert payload.choose(forms, [Kek(OTHER.kek), Kek(GROUP.kek)], ANY).key is not None
    assert IMAGE[:64] not in b"".join(what.packed.values())


@pytest.mark.requirement("STS09")
def test_an_encryption_that_the_key_set_no_longer_allows_is_not_decrypted(monkeypatch: pytest.MonkeyPatch) -> None:
    deflate.install(monkeypatch)
    forms = payload.offers((what := made(groups=(GROUP,))).envelope, check(what.envelope))[0]
    plain = payload.offers((open_ := made(compress=True)).envelope, check(open_.envelope))[0]
    for policy, allowed in ((STRONGER, False), ({3: ()}, False), ({3: (-65534, -65532)}, True), ({1: (-19,)}, True)):
        trusted = keyset.parse(make_keyset(algorithms=policy).document)
        assert payload.choose(plain, [], trusted).compressed, "what is not encrypted is not touched by it"
        if allowed:
            assert payload.choose(forms, [Kek(GROUP.kek)], trusted).key is not None
            continue
        with pytest.raises(Refused) as caught:
            payload.choose(forms, [Kek(GROUP.kek)], trusted)
        assert reason(caught.value.code) == "ALGORITHM"


@pytest.mark.requirement("STS09")
def test_the_length_of_the_content_key_follows_the_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the roots choose, devices decrypt; and nothing else, though they could."""
    deflate.install(monkeypatch)
    strict = make_keyset(algorithms=STRONGER)
    request = release.Request(VENDOR, CLASS, "1.0", 2, (release.Component("fw", IMAGE),), groups=(GROUP,))
    long = release.create(replace(request, cipher=packing.A256CTR), strict.release[0], strict.document)
    form = payload.choose(
        payload.offers(long.envelope, check(long.envelope))[0], [Kek(GROUP.kek)], keyset.parse(strict.document)
    )
    assert form.key is not None
    assert len(form.key[0]) == 32
    (content,) = long.packed.values()
    stream = Cipher(algorithms.AES(form.key[0]), modes.CTR(form.key[1])).decryptor()
    assert stream.update(content) == IMAGE
    ((_, packed),) = packing.packed_forms(suit.decode(long.envelope))
    assert packing.unpack(packed, content, len(IMAGE), [GROUP]) == IMAGE
    only_short = keyset.parse(make_keyset(algorithms={3: (packing.A128CTR,)}).document)
    with pytest.raises(Refused) as caught:
        payload.choose(payload.offers(long.envelope, check(long.envelope))[0], [Kek(GROUP.kek)], only_short)
    assert reason(caught.value.code) == "ALGORITHM"


def test_a_content_key_of_the_wrong_length_is_refused() -> None:
    """A key of 128 bits under the name of 256: whoever made it cannot make a device weaker than its policy."""
    for content, length in ((packing.A256CTR, 16), (packing.A128CTR, 32), (-65533, 24), (1, 16)):
        wrapped = keywrap.aes_key_wrap(GROUP.kek, bytes(length))
        recipients = [[b"", {1: packing.A128KW, 4: GROUP.key_id}, wrapped]]
        encoded = cose.encode(cbor2.CBORTag(96, [b"", {1: content, 5: bytes(16)}, None, recipients]))
        if content in packing.CONTENT_ALGORITHMS:
            assert payload._unlock(encoded, [Kek(GROUP.kek)]) == (content, None)
        else:
            with pytest.raises(Refused) as caught:
                payload._unlock(encoded, [Kek(GROUP.kek)])
            assert reason(caught.value.code) == "PARAMETER"
        with pytest.raises(ToolError, match="PARAMETER"):
            packing.decrypt(b"x", encoded, [GROUP])


@pytest.mark.requirement("STS09")
def test_the_desk_makes_no_release_whose_encryption_the_key_set_forbids() -> None:
    request = release.Request(VENDOR, CLASS, "1.0", 2, (release.Component("fw", IMAGE),), groups=(GROUP,))
    strict, able = make_keyset(algorithms=STRONGER), make_keyset()
    with pytest.raises(ToolError, match=r"ALGORITHM.*A128CTR") as caught:
        release.create(request, strict.release[0], strict.document)
    assert caught.value.code == "ALGORITHM"
    signed = release.create(request, able.release[0], able.document)
    with pytest.raises(ToolError, match="ALGORITHM"):
        release.check(signed.envelope, release.load_keyset(strict.document), IDENTITY)


def test_the_content_key_is_another_one_for_each_plaintext_and_the_same_bytes_come_again() -> None:
    one, other = made(groups=(GROUP,)), made(IMAGE + b"\0" * 16, groups=(GROUP,))
    assert one.envelope == made(groups=(GROUP,)).envelope
    streams = [
        bytes(a ^ b for a, b in zip(next(iter(what.packed.values())), IMAGE, strict=False)) for what in (one, other)
    ]
    assert streams[0][:64] != streams[1][:64]
    assert made(groups=(GROUP, OTHER)).envelope == made(groups=(OTHER, GROUP)).envelope


# -- at the desk -----------------------------------------------------------------------------------------------------


def test_group_keys_are_secrets_and_are_read_back(tmp_path: Path) -> None:
    key = packing.make_group_key("line-a", tmp_path / "a.kek")
    assert packing.read_group_key(tmp_path / "a.kek") == key
    assert key.key_id == Kek(key.kek).id
    for sin, code in (
        (lambda: (tmp_path / "a.kek").chmod(0o644), "KEY_EXPOSED"),
        (lambda: (tmp_path / "a.kek").write_text("{}") and (tmp_path / "a.kek").chmod(0o600), "KEY_FORMAT"),
    ):
        sin()
        with pytest.raises(ToolError, match=code):
            packing.read_group_key(tmp_path / "a.kek")
    with pytest.raises(ToolError, match="KEY_EXISTS"):
        packing.make_group_key("line-a", tmp_path / "a.kek")
    with pytest.raises(ToolError, match="KEY_NAME"):
        packing.make_group_key("../line-a", tmp_path / "b.kek")
    with pytest.raises(ToolError, match="GROUPS"):
        packing.encrypt(b"x", [GROUP, GROUP])


def test_what_is_encrypted_lies_apart_from_what_is_published_and_both_are_verified(tmp_path: Path) -> None:
    what = made(compress=True, groups=(GROUP,))
    published = release.write(what, tmp_path)
    plain = tmp_path / "private" / hashlib.sha256(IMAGE).hexdigest()
    assert plain.read_bytes() == IMAGE
    assert plain not in published
    document = make_keyset().document
    verdict = release.verify(published[-1], document, now=ISSUED)
    assert [part["form"] for part in verdict["payloads"]] == ["encrypted"]
    assert release.verify(published[-1], document, now=ISSUED, groups=[GROUP])
    with pytest.raises(ToolError, match="CONTENT_KEY"):
        release.verify(published[-1], document, now=ISSUED, groups=[OTHER])
    published[0].write_bytes(published[0].read_bytes()[:-1] + b"\0")
    with pytest.raises(ToolError, match="IMAGE_DIGEST"):
        release.verify(published[-1], document, now=ISSUED)


def test_both_forms_of_a_compressed_release_are_verified(tmp_path: Path) -> None:
    published = release.write(made(compress=True), tmp_path)
    verdict = release.verify(published[-1], make_keyset().document, now=ISSUED)
    assert [part["form"] for part in verdict["payloads"]] == ["compressed", "plain"]
    packed = next(path for path in published if path.name == verdict["payloads"][0]["sha256"])
    assert zlib.decompress(packed.read_bytes()) == IMAGE


def test_limits_are_the_same_on_both_sides() -> None:
    assert packing.WINDOW <= payload.MAX_WINDOW == packing.MAX_WINDOW
    assert packing.MAX_GROUPS == payload.MAX_RECIPIENTS
    assert boot.NAMES == ("fw", "app")
