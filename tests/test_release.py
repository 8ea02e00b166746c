"""`sekisho release`: what it makes, what it refuses, and that the same inputs give the same bytes."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from helpers import firmware, images
from helpers.keys import ISSUED, make_keyset, signer
from sekisho_tools import cli, keys, layout, release, suit
from sekisho_tools.errors import ToolError
from sekisho_tools.identity import Identity

TABLE = layout.load("4MiB")
VENDOR, CLASS = "example.com", "my-board"


def fw(text: str = "one") -> release.Component:
    return release.Component("fw", images.app(text))


def app(text: str = "app") -> release.Component:
    return release.Component("app", text.encode() * 100)


def request(*components: release.Component, sequence: int = 2, **more: Any) -> release.Request:
    return release.Request(VENDOR, CLASS, "1.16.0", sequence, components or (fw(),), **more)


def refused(code: str, *args: Any, **kwargs: Any) -> ToolError:
    with pytest.raises(ToolError) as caught:
        release.create(*args, **kwargs)
    assert caught.value.code == code
    return caught.value


@pytest.fixture(scope="module")
def desk() -> Any:
    return make_keyset()


@pytest.mark.requirement("UPC01", "ORG03")
def test_the_same_inputs_give_the_same_bytes(desk: Any, tmp_path: Path) -> None:
    trees = []
    for name in ("a", "b"):
        made = release.create(request(texts={"en": "Fixes the pump."}), desk.release[0], desk.document)
        written = release.write(made, tmp_path / name)
        trees.append([(path.relative_to(tmp_path / name), path.read_bytes()) for path in written])
    assert trees[0] == trees[1]
    assert [str(path) for path, _ in trees[0]] == [
        f"payload/{hashlib.sha256(images.app('one')).hexdigest()}",
        "my-board-1.16.0.suit",
    ]


@pytest.mark.requirement("UPC01", "UPC02")
def test_a_release_says_what_was_asked_for(desk: Any) -> None:
    made = release.create(request(texts={"en": "Fixes.", "ja": "修正"}), desk.release[0], desk.document)
    decoded = suit.decode(made.envelope)
    assert decoded.manifest.sequence_number == 2 == made.sequence
    assert decoded.manifest.text is not None
    assert decoded.manifest.text["ja"]["fw"]["component-version"] == "1.16.0"
    plan = release.check(made.envelope, release.load_keyset(desk.document), Identity.of(VENDOR, CLASS))
    assert plan.targets[0].uri == f"/payload/{fw().digest.hex()}"
    assert (bytes(plan.targets[0].digest), plan.targets[0].size) == (fw().digest, len(fw().data))


@pytest.mark.requirement("UPE11", "UPC01")
def test_refuses_a_key_that_the_key_set_does_not_name(desk: Any) -> None:
    error = refused("KEY_UNKNOWN", request(), signer("release", 7), desk.document)
    assert "device would refuse" in error.sentence


@pytest.mark.requirement("UPC05")
def test_refuses_a_revoked_key() -> None:
    keyset = make_keyset(release=2)
    newer = keyset.next(release=keyset.content.release[1:], revoked_keys=(keyset.release[0].key_id,))
    refused("KEY_REVOKED", request(), keyset.release[0], newer.document)


def test_refuses_a_key_without_the_right_for_the_component() -> None:
    keyset = make_keyset(components=("app",))
    refused("KEY_RIGHTS", request(), keyset.release[0], keyset.document)


def test_refuses_a_key_of_another_class() -> None:
    keyset = make_keyset(classes=(bytes(16),))
    refused("KEY_RIGHTS", request(), keyset.release[0], keyset.document)


@pytest.mark.requirement("UPC02")
@pytest.mark.parametrize(("sequence", "code"), [(4, "FLOOR"), (21, "CEILING"), (0, "SEQUENCE"), (1 << 63, "SEQUENCE")])
def test_refuses_a_sequence_number_outside_the_limits(sequence: int, code: str) -> None:
    keyset = make_keyset(limits={"fw": (5, 20)})
    refused(code, request(sequence=sequence), keyset.release[0], keyset.document)


def test_a_release_needs_an_image(desk: Any) -> None:
    empty = release.Request(VENDOR, CLASS, "1", 1, ())
    refused("COMPONENT", empty, desk.release[0], desk.document)


def test_an_application_release_must_name_the_firmware_it_fits(desk: Any) -> None:
    refused("VERSION_TIE", request(app()), desk.release[0], desk.document)
    ties = release.read_ties(["fw=3-9"])
    made = release.create(request(app(), ties=ties), desk.release[0], desk.document)
    keyset, identity = release.load_keyset(desk.document), Identity.of(VENDOR, CLASS)
    for running, fits in ((2, False), (3, True), (9, True), (10, False)):
        state = release.Device(running=(running, 0))
        if fits:
            assert release.check(made.envelope, keyset, identity, state=state)
        else:
            with pytest.raises(ToolError, match="VERSION_TIE"):
                release.check(made.envelope, keyset, identity, state=state)


def test_both_components_have_one_sequence_number(desk: Any) -> None:
    made = release.create(request(fw(), app()), desk.release[0], desk.document)
    plan = release.check(made.envelope, release.load_keyset(desk.document), Identity.of(VENDOR, CLASS))
    assert [target.component for target in plan.targets] == [0, 1]


@pytest.mark.parametrize("text", ["fw", "fw=", "=3", "fw=a", "fw=9-", "fw=-1"])
def test_a_tie_that_does_not_read_is_refused(text: str) -> None:
    with pytest.raises(ToolError, match="VERSION_TIE"):
        release.read_ties([text])


@pytest.mark.parametrize("name", ["../evil", "a/b", ".hidden", "", "x" * 200])
def test_the_file_name_cannot_leave_the_directory(desk: Any, name: str) -> None:
    if name:
        refused("RELEASE", request(name=name), desk.release[0], desk.document)
    assert "/" not in release.default_name(name, "1/../2")


# -- firmware files -----------------------------------------------------------------------------------------------


def bad_firmware(code: str, data: bytes, **more: Any) -> None:
    with pytest.raises(ToolError) as caught:
        release.firmware(data, TABLE, more.pop("chip", "esp32"), **more)
    assert caught.value.code == code


def test_firmware_that_no_device_could_run_is_refused() -> None:
    bad_firmware("IMAGE_FORMAT", b"no firmware at all")
    bad_firmware("IMAGE_FORMAT", images.bootloader())
    bad_firmware("IMAGE_CHIP", images.app(chip="esp32s3"))
    bad_firmware("FIRMWARE_VERSION", images.app(micropython="v1.25.0"))
    bad_firmware("IMAGE_HASH", images.app()[:-1] + bytes([images.app()[-1] ^ 1]))


def test_firmware_too_large_for_the_slot_is_refused() -> None:
    large = images.image([(images.MAPPED["esp32"], images.descriptor() + bytes(0x1B0000))])
    bad_firmware("IMAGE_SIZE", large, payload_only=True)


def test_the_app_is_taken_out_of_a_genuine_whole_flash_file() -> None:
    data = firmware.read("v1.16")
    bad_firmware("FIRMWARE_VERSION", data)
    part = release.firmware(data, TABLE, "esp32", payload_only=True)
    assert len(part.data) == 1_495_344
    assert part.data == data[0xF000 : 0xF000 + len(part.data)]


def test_an_application_directory_becomes_a_file_system(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("print('hello')\n")
    part = release.application(tmp_path, TABLE)
    assert part.name == "app"
    assert len(part.data) == TABLE["app_0"].size
    assert part.data == release.application(tmp_path, TABLE).data


# -- the command ----------------------------------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path: Path, desk: Any) -> Path:
    """A directory with a release key, its key set and a firmware file."""
    files = keys.generate("release", tmp_path, "release", "development")
    private = keys.open_signer(str(files.private), keys.Passphrases())
    from helpers.keys import keyset as content

    made = desk.next(release=(content.ReleaseKey(private.public_key),))
    (tmp_path / "keyset.cose").write_bytes(made.document)
    (tmp_path / "fw.bin").write_bytes(images.app("one"))
    (tmp_path / "notes.txt").write_text("Fixes the pump.\n")
    return tmp_path


def create(project: Path, *more: str) -> int:
    base = "release create --version 1.16.0 --sequence 2 --vendor example.com --class my-board".split()
    paths = [f"--key={project / 'release.key'}", f"--keyset={project / 'keyset.cose'}", f"--out={project / 'out'}"]
    return cli.run([*base, *paths, *more])


@pytest.mark.requirement("UPE11", "UPC01")
def test_create_inspect_and_verify_agree(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert create(project, f"--firmware={project / 'fw.bin'}", f"--text=en={project / 'notes.txt'}", "--json") == 0
    made = json.loads(capsys.readouterr().out)
    file = made["written"][-1]
    assert cli.run(["release", "inspect", file, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["sequence-number"] == made["sequence"] == 2
    assert shown["manifest-digest"] == made["manifest_digest"]
    assert cli.run(["release", "inspect", file]) == 0
    assert "Fixes the pump." in capsys.readouterr().out
    arguments = ["release", "verify", file, f"--keyset={project / 'keyset.cose'}", f"--at={ISSUED}"]
    assert cli.run([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["payloads"][0]["sha256"] == made["payloads"][0]["sha256"]
    assert cli.run([*arguments, "--vendor=example.com", "--class=my-board"]) == 0
    assert "good" in capsys.readouterr().out
    assert cli.run([*arguments, "--vendor=example.com", "--class=other"]) == 1
    assert "error[CLASS]" in capsys.readouterr().err
    assert cli.run([*arguments[:-1], f"--at={ISSUED + 3_000_000_000}"]) == 1
    assert "error[EXPIRED_KEYSET]" in capsys.readouterr().err


@pytest.mark.requirement("UPE11")
def test_verify_notices_a_changed_payload_and_a_changed_envelope(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert create(project, f"--firmware={project / 'fw.bin'}", "--no-sbom", "--json") == 0
    payload, file = (Path(path) for path in json.loads(capsys.readouterr().out)["written"])
    arguments = ["release", "verify", str(file), f"--keyset={project / 'keyset.cose'}", f"--at={ISSUED}"]
    good = payload.read_bytes()
    for bad, code in ((good[:-1] + b"\0", "IMAGE_DIGEST"), (good[:-1], "IMAGE_SIZE"), (None, "FILE")):
        payload.unlink()
        if bad is not None:
            payload.write_bytes(bad)
        assert cli.run(arguments) == 1
        assert f"error[{code}]" in capsys.readouterr().err
        payload.write_bytes(good)
    (project / "elsewhere.bin").write_bytes(good)
    payload.unlink()
    assert cli.run([*arguments, f"--payload={project / 'elsewhere.bin'}"]) == 0
    envelope = file.read_bytes()
    for at in range(0, len(envelope), 7):
        file.write_bytes(envelope[:at] + bytes([envelope[at] ^ 1]) + envelope[at + 1 :])
        assert cli.run([*arguments, f"--payload={project / 'elsewhere.bin'}"]) == 1, f"byte {at}"


@pytest.mark.requirement("UPC03")
def test_a_key_of_the_other_environment_does_not_sign(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = make_keyset(environment="release")
    (project / "keyset.cose").write_bytes(made.document)
    assert create(project, f"--firmware={project / 'fw.bin'}") == 1
    assert "error[KEYSET_ENVIRONMENT]" in capsys.readouterr().err


def test_a_refused_release_leaves_nothing_behind(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert create(project, f"--firmware={project / 'keyset.cose'}") == 1
    assert "error[IMAGE_FORMAT]" in capsys.readouterr().err
    assert create(project, f"--firmware={project / 'missing.bin'}") == 1
    assert "error[FILE]" in capsys.readouterr().err
    assert create(project, f"--firmware={project / 'fw.bin'}", "--sequence=99999999999999") == 1
    assert "error[CEILING]" in capsys.readouterr().err
    assert not (project / "out").exists()
