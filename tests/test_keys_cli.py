"""`sekisho keys` and `sekisho keyset` as a user meets them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from helpers.cli import Runner
from sekisho_tools import cli, cose, keys, keyset, pkcs8
from sekisho_tools.errors import ToolError

PASSPHRASE = "correct horse battery"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Runner:
    """Runs a command line in a directory of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return Runner(capfd, monkeypatch)


@pytest.fixture(scope="module")
def made_keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An open development key per role, and an encrypted root and release key of the release environment."""
    directory = tmp_path_factory.mktemp("keys")
    for role in ("root", "release", "operator"):
        keys.generate(f"dev-{role}", directory, role, "development")
    for role in ("root", "release"):
        keys.generate(f"{role}-1", directory, role, "release", passphrases=keys.Passphrases(ask=lambda _: PASSPHRASE))
    return directory


@pytest.fixture
def desk(run: Runner, made_keys: Path) -> Runner:
    """`run` with those keys in keys/."""
    shutil.copytree(made_keys, "keys")
    return run


# -- keys ---------------------------------------------------------------------------------------------------------


@pytest.mark.requirement("UPC07")
def test_a_key_is_encrypted_pkcs8_with_scrypt_that_openssl_opens(desk: Runner, tmp_path: Path) -> None:
    text = Path("keys/root-1.key").read_text()
    statement, data, encrypted = keys.read_key_file(Path("keys/root-1.key"))
    assert encrypted
    assert bytes.fromhex("2b06010401da47040b") in data  # the object identifier of scrypt
    private = load_pem_private_key(text[text.index("-----BEGIN") :].encode(), PASSPHRASE.encode())
    assert isinstance(private, Ed25519PrivateKey)
    assert private.public_key().public_bytes_raw() == statement.public_key
    (tmp_path / "passphrase").write_text(PASSPHRASE)
    shown = subprocess.run(
        ["openssl", "pkey", "-in", "keys/root-1.key", "-passin", "file:passphrase", "-noout", "-text"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "ED25519" in shown.stdout


def test_private_keys_are_for_their_owner_only(desk: Runner) -> None:
    for path in Path("keys").glob("*.key"):
        assert path.stat().st_mode & 0o777 == 0o600


def test_show_and_list_need_no_passphrase(desk: Runner) -> None:
    shown = json.loads(desk("keys show keys/root-1.pub --json").out)
    assert (shown["role"], shown["environment"], shown["label"]) == ("root", "release", "root-1")
    assert json.loads(desk("keys show keys/root-1.key --json").out) == shown
    assert shown["key_id"] in desk("keys show keys/root-1.pub").out
    listed = {Path(one["file"]).stem: one for one in json.loads(desk("keys list --json").out)}
    assert listed["root-1"]["protection"] == "encrypted"
    assert listed["dev-root"]["protection"] == "open"
    assert shown["key_id"] in desk("keys list").out


@pytest.mark.parametrize("role", keys.ROLES)
def test_a_key_of_every_role_can_be_made(run: Runner, role: str) -> None:
    made = run(f"keys generate it --role {role} --environment development --no-passphrase")
    assert made.code == 0, made.err
    assert keys.load_statement("keys/it.pub").role == role


def test_no_terminal_is_too_narrow_for_a_key_id(desk: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [one["key_id"] for one in json.loads(desk("keys list --json").out)]
    monkeypatch.setenv("COLUMNS", "60")
    listed = desk("keys list").out
    assert [one for one in ids if one not in listed] == []


def test_list_names_a_damaged_key(desk: Runner) -> None:
    Path("keys/dev-root.key").write_text("nothing")
    Path("keys/release-1.key").unlink()
    listed = {Path(one["file"]).stem: one["protection"] for one in json.loads(desk("keys list --json").out)}
    assert listed["dev-root"] == "KEY_FORMAT"
    assert listed["release-1"] == "public only"


def test_a_key_is_never_overwritten(desk: Runner) -> None:
    before = Path("keys/dev-root.key").read_bytes()
    assert desk("keys generate dev-root --role root --env development --no-passphrase").error == "KEY_EXISTS"
    assert Path("keys/dev-root.key").read_bytes() == before


def test_only_development_keys_may_go_without_a_passphrase(run: Runner) -> None:
    assert run("keys generate r --role root --env release --no-passphrase").error == "KEY_UNPROTECTED"
    assert not Path("keys").exists()


def test_short_or_missing_passphrases_are_refused(run: Runner) -> None:
    made = run("keys generate r --role root --env release", "short")
    assert made.error == "PASSPHRASE"
    assert run("keys generate r --role root --env release --passphrase-fd 99").error == "PASSPHRASE"
    assert not list(Path().glob("keys/*"))


def test_no_passphrase_is_ever_an_argument_or_environment_variable() -> None:
    asked = 0
    for command in ("keys", "keyset", "release", "issue", "factory", "order"):
        group = cli.get_command(cli.app).commands[command]
        for name, one in group.commands.items():
            for parameter in one.params:
                assert parameter.envvar is None, name
                secret = re.search("passphrase|password|pin$", parameter.name or "")
                assert not secret or parameter.name in (
                    *("passphrase_fd", "no_passphrase", "new_passphrase"),
                    *("password_fd", "password_file"),
                ), f"{command} {name} {parameter.name}"
                asked += bool(secret)
    assert asked > 10


def test_passphrases_are_asked_for_twice_when_set() -> None:
    answers = iter([PASSPHRASE, "another passphrase"])
    with pytest.raises(ToolError, match="differ"):
        keys.Passphrases(ask=lambda prompt: next(answers)).new("key")
    assert keys.Passphrases(ask=lambda prompt: PASSPHRASE).new("key") == PASSPHRASE.encode()


def test_each_key_takes_the_next_line_of_the_descriptor(run: Runner) -> None:
    reader, writer = os.pipe()
    os.write(writer, b"one\ntwo\n")
    os.close(writer)
    passphrases = keys.Passphrases(reader)
    os.close(reader)
    assert [passphrases.get("a"), passphrases.get("b")] == [b"one", b"two"]
    with pytest.raises(ToolError, match="no line left"):
        passphrases.get("c")


def test_a_wrong_passphrase_is_said_so(desk: Runner) -> None:
    made = desk("keyset create k.cose --root keys/root-1.key --release keys/release-1.pub", "wrong passphrase")
    assert made.error == "PASSPHRASE"
    assert not Path("k.cose").exists()


def test_odd_names_and_labels_are_refused(run: Runner) -> None:
    for name in ("../up", ".hidden", "a/b", "a" * 65):
        assert run(f"keys generate {name} --role root --env development --no-passphrase").error == "KEY_NAME"
    long = "x" * 65
    assert run(f"keys generate a --role root --env development --no-passphrase --label {long}").error == "KEY_LABEL"


@pytest.mark.parametrize(
    ("field", "value"), [("role", "root"), ("environment", "release"), ("label", "boss"), ("created", "2001-01-01")]
)
@pytest.mark.requirement("UPC03")
def test_a_statement_that_was_changed_is_refused(desk: Runner, field: str, value: str) -> None:
    path = Path("keys/dev-operator.pub")
    fields = json.loads(path.read_text())
    fields[field] = value
    path.write_text(json.dumps(fields))
    assert desk(f"keys show {path}").error == "KEY_STATEMENT"


def test_a_statement_of_another_key_does_not_fit(desk: Runner) -> None:
    path, other = Path("keys/dev-release.key"), Path("keys/dev-root.key")
    line = next(line for line in other.read_text().splitlines() if line.startswith("Statement"))
    text = path.read_text().splitlines()
    path.write_text("\n".join(line if one.startswith("Statement") else one for one in text))
    with pytest.raises(ToolError, match="belongs to another key"):
        keys.open_signer(str(path), keys.Passphrases())


def test_garbage_is_no_key(desk: Runner) -> None:
    for text in ("", "{}", "[]", '{"format": 1}', "\0" * 100, "[" * 5000, "null"):
        Path("x.pub").write_text(text)
        assert desk("keys show x.pub").error == "KEY_FORMAT"
    assert desk("keys show missing.pub").error == "FILE"
    assert desk("keyset create k.cose --root keys/dev-root.txt").error == "FILE"
    assert desk("keyset create k.cose --root http:key").error == "KEY_URI"


def test_release_keys_that_others_can_read_are_refused(desk: Runner) -> None:
    Path("keys/root-1.key").chmod(0o644)
    made = desk("keyset create k.cose --root keys/root-1.key --release keys/release-1.pub", PASSPHRASE)
    assert made.error == "KEY_EXPOSED"


def test_a_release_key_whose_passphrase_was_removed_is_refused(desk: Runner) -> None:
    path = Path("keys/root-1.key")
    statement, data, _ = keys.read_key_file(path)
    key = pkcs8.load(data, PASSPHRASE.encode())
    path.write_text(keys._key_file(key, statement, None))
    made = desk("keyset create k.cose --root keys/root-1.key --release keys/release-1.pub")
    assert made.error == "KEY_UNPROTECTED"


def test_a_backup_opens_and_never_overwrites(desk: Runner, tmp_path: Path) -> None:
    (tmp_path / "safe").mkdir()
    assert desk("keys backup keys/root-1.key safe", PASSPHRASE).code == 0
    copy = tmp_path / "safe" / "root-1.key"
    assert keys.open_signer(str(copy), keys.Passphrases(ask=lambda prompt: PASSPHRASE)).statement.label == "root-1"
    assert copy.stat().st_mode & 0o777 == 0o600
    assert desk("keys backup keys/root-1.key safe", PASSPHRASE).error == "KEY_EXISTS"
    assert desk("keys backup keys/root-1.key other.key", "not the passphrase").error == "PASSPHRASE"
    assert not Path("other.key").exists()


def test_a_backup_can_have_a_passphrase_of_its_own(desk: Runner) -> None:
    assert desk("keys backup keys/root-1.key b.key --new-passphrase", PASSPHRASE, "some other words").code == 0
    signer = keys.open_signer("b.key", keys.Passphrases(ask=lambda prompt: "some other words"))
    assert signer.statement == keys.load_statement(Path("keys/root-1.pub"))


def test_destroying_needs_the_right_key_id(desk: Runner) -> None:
    key_id = keys.load_statement(Path("keys/dev-root.pub")).key_id.hex()
    assert desk(f"keys destroy keys/dev-root.key --key-id {'00' * 8}").error == "KEY_UNKNOWN"
    assert Path("keys/dev-root.key").exists()
    assert desk(f"keys destroy keys/dev-root.key --key-id {key_id}").code == 0
    assert not Path("keys/dev-root.key").exists()
    assert Path("keys/dev-root.pub").exists()


def test_pkcs8_round_trip_and_refusals() -> None:
    key = Ed25519PrivateKey.generate()
    data = pkcs8.dump(key, b"passphrase")
    assert pkcs8.load(data, b"passphrase").private_bytes_raw() == key.private_bytes_raw()
    assert pkcs8.dump(key, b"passphrase") != data  # salt and IV are fresh
    for wrong in (None, b"", b"Passphrase"):
        with pytest.raises(ValueError, match=r"."):
            pkcs8.load(data, wrong)


# -- key sets -----------------------------------------------------------------------------------------------------


@pytest.mark.requirement("UPC07")
def test_create_makes_a_key_set_that_verifies(desk: Runner) -> None:
    made = desk(
        "keyset create k.cose --root keys/dev-root.key --release keys/dev-release.pub=fw "
        "--operator keys/dev-operator.pub=rollback,unlock@00010203-0405-0607-0809-0a0b0c0d0e0f "
        "--floor fw=3 --ceiling fw=500 --hardware-floor 1 --expires 2090-01-02 --issued 1000 --algorithms digests=-16"
    )
    assert made.code == 0, made.err
    content = keyset.verify(Path("k.cose").read_bytes())
    assert (content.version, content.issued_at, content.threshold, content.hardware_floor) == (1, 1000, 1, 1)
    assert content.limits == {"fw": (3, 500), "app": (0, keyset.DEFAULT_CEILING)}
    assert content.release[0].components == ("fw",)
    assert content.operators[0].rights == (3, 7)
    assert content.operators[0].classes == (bytes(range(16)),)
    assert content.algorithms == {2: (-16,)}
    assert "k.cose: good, version 1, development" in desk("keyset verify k.cose").out
    shown = json.loads(desk("keyset inspect k.cose --json").out)
    assert shown["expires"] == content.expires
    assert shown["signed_by"] == [cose.key_id(content.roots[0]).hex()]


def test_create_takes_public_roots_that_do_not_sign(desk: Runner) -> None:
    desk("keys generate dev-root-2 --role root --env development --no-passphrase")
    line = "keyset create k.cose --root keys/dev-root.key --root keys/dev-root-2.pub --release keys/dev-release.pub"
    assert desk(line + " --threshold 2").error == "KEYSET_THRESHOLD"
    assert not Path("k.cose").exists()
    assert desk(line).code == 0
    assert len(keyset.verify(Path("k.cose").read_bytes()).roots) == 2


@pytest.mark.requirement("UPC03")
def test_a_development_key_never_enters_a_release_key_set_nor_the_other_way_round(desk: Runner) -> None:
    for root, release in (("root-1", "dev-release"), ("dev-root", "release-1")):
        made = desk(f"keyset create k.cose --root keys/{root}.key --release keys/{release}.pub", PASSPHRASE)
        assert made.error == "KEYSET_ENVIRONMENT"
    made = desk(
        "keyset create k.cose --root keys/root-1.key --root keys/dev-root.pub --release keys/release-1.pub", PASSPHRASE
    )
    assert made.error == "KEYSET_ENVIRONMENT"
    assert not Path("k.cose").exists()


def test_keys_serve_in_their_own_role_only(desk: Runner) -> None:
    assert desk("keyset create k.cose --root keys/dev-release.key").error == "KEY_ROLE"
    assert desk("keyset create k.cose --root keys/dev-root.key --release keys/dev-operator.pub").error == "KEY_ROLE"
    assert desk("keyset create k.cose --root keys/dev-root.key --operator keys/dev-release.pub").error == "KEY_ROLE"


def test_mistakes_on_the_command_line_are_named(desk: Runner) -> None:
    start = "keyset create k.cose --root keys/dev-root.key --release keys/dev-release.pub"
    assert desk(start + " --floor fw").error == "USAGE"
    assert desk(start + " --floor fw=x").error == "USAGE"
    assert desk(start + " --algorithms digest=-16").error == "USAGE"
    assert desk(start + " --algorithms digests=-44").error == "ALGORITHM"
    assert desk(start + " --expires soon").error == "DATE"
    assert desk(start + " --expires 2001-01-01").error == "KEYSET"
    assert desk(start + " --floor fw=9 --ceiling fw=8").error == "KEYSET"
    assert desk(start + "@no-uuid").error == "USAGE"
    assert desk(start + " --operator keys/dev-operator.pub=fly").error == "KEYSET"
    assert desk(start + " --threshold 2").error == "KEYSET"
    assert desk(start + " --root keys/dev-root.key").error == "KEYSET_KEY_REUSE"
    assert not Path("k.cose").exists()
    Path("k.cose").write_text("precious")
    assert desk(start).error == "FILE_EXISTS"
    assert Path("k.cose").read_text() == "precious"


def test_garbage_is_no_key_set(desk: Runner) -> None:
    for data in (b"", b"\0", b"text", bytes(9000), b"\xd8\x62" + bytes(50)):
        Path("x.cose").write_bytes(data)
        for command in ("inspect", "verify"):
            assert desk(f"keyset {command} x.cose").error in ("CBOR", "COSE", "LIMIT", "KEYSET")


def test_a_tampered_key_set_does_not_verify(desk: Runner) -> None:
    desk("keyset create k.cose --root keys/dev-root.key --release keys/dev-release.pub --issued 1000")
    data = Path("k.cose").read_bytes()
    Path("k.cose").write_bytes(data.replace(bytes.fromhex("021903e8"), bytes.fromhex("021903e9")))
    assert desk("keyset inspect k.cose").code == 0
    assert desk("keyset verify k.cose").error == "KEYSET_THRESHOLD"
