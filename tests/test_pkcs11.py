"""Keys in a PKCS#11 token, on SoftHSM2. Needs python-pkcs11 and Debian's softhsm2; says so where they are missing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.cli import Result, Runner
from helpers.fleet import firmware
from helpers.needs import lacking
from sekisho_tools import audit_file, ceremony, cose, keys, keyset, pkcs11_keys, release_desk, signlog
from sekisho_tools.errors import ToolError

MODULES = ("/usr/lib/softhsm/libsofthsm2.so", "/usr/lib64/pkcs11/libsofthsm2.so", "/usr/lib64/libsofthsm2.so")
PIN = "87654321"


@pytest.fixture(scope="module")
def soft_hsm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The module path, with two tokens ``desk`` and ``safe`` in a directory of their own."""
    pytest.importorskip("pkcs11", reason="needs python-pkcs11 (pip install 'sekisho[pkcs11]')")
    module = next((path for path in MODULES if Path(path).exists()), None)
    tool = shutil.which("softhsm2-util")
    if module is None or tool is None:
        lacking("needs SoftHSM2 (apt-get install softhsm2)")
    directory = tmp_path_factory.mktemp("softhsm")
    (directory / "tokens").mkdir()
    (directory / "softhsm2.conf").write_text(f"directories.tokendir = {directory / 'tokens'}\nlog.level = ERROR\n")
    before = {name: os.environ.get(name) for name in ("SOFTHSM2_CONF", pkcs11_keys.MODULE_VARIABLE)}
    os.environ["SOFTHSM2_CONF"] = str(directory / "softhsm2.conf")
    os.environ[pkcs11_keys.MODULE_VARIABLE] = module
    for token in ("desk", "safe"):
        line = ("--init-token", "--free", "--label", token, "--so-pin", "12345678", "--pin", PIN)
        subprocess.run([tool, *line], check=True, capture_output=True)
    yield module
    pkcs11_keys.close()
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


@pytest.fixture
def run(
    soft_hsm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Runner]:
    """Runs a command line in a directory of its own; the tokens are empty before, and logged out after."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    yield Runner(capfd, monkeypatch)
    pkcs11_keys.close()
    for token in ("desk", "safe"):
        uri = pkcs11_keys.parse_uri(f"pkcs11:token={token}")
        session = pkcs11_keys._login(uri, keys.Passphrases(ask=lambda _: PIN))
        for one in list(session.get_objects()):
            one.destroy()
    pkcs11_keys.close()


ROOT = "pkcs11:token=desk;object=root-1"
GENERATE = f"keys generate {ROOT} --role root --env release"


@pytest.mark.requirement("UPC11", "ORG08")
def test_a_key_is_made_on_the_token_and_signs_a_key_set(run: Runner) -> None:
    made = run(GENERATE, PIN)
    assert made.code == 0, made.err
    told = keys.load_statement("keys/root-1.pub")
    assert (told.role, told.environment) == ("root", "release")
    assert keys.load_statement(ROOT) == told
    assert run("keys generate pkcs11:token=safe;object=rel --role release --env release", PIN).code == 0
    pkcs11_keys.close()
    created = run(f"keyset create k.cose --root {ROOT} --release keys/rel.pub", PIN)
    assert created.code == 0, created.err
    assert keyset.verify(Path("k.cose").read_bytes()).roots == (told.public_key,)
    assert told.key_id.hex() in run("log verify keys/signing-log.jsonl").out


@pytest.mark.requirement("UPC11")
def test_the_private_key_never_leaves_the_token(run: Runner) -> None:
    import pkcs11

    run(GENERATE, PIN)
    signer = keys.open_signer(ROOT, keys.Passphrases(ask=lambda _: PIN))
    assert isinstance(signer, pkcs11_keys.TokenSigner)
    private = signer._private
    assert private[pkcs11.Attribute.SENSITIVE]
    assert not private[pkcs11.Attribute.EXTRACTABLE]
    with pytest.raises(pkcs11.exceptions.PKCS11Error):
        private[pkcs11.Attribute.VALUE]
    assert not list(Path("keys").glob("*.key"))


def test_token_and_file_keys_sign_one_ceremony(run: Runner) -> None:
    assert run(f"keys generate {ROOT} --role root --env release", PIN).code == 0
    phrase = "correct horse battery"
    assert run("keys generate root-2 --role root --env release", phrase).code == 0
    assert run("keys generate rel --role release --env release", phrase).code == 0
    assert (
        run("keyset draft r --root keys/root-1.pub --root keys/root-2.pub --threshold 2 --release keys/rel.pub").code
        == 0
    )
    digest = ceremony.read_request(Path("r")).digest
    assert run(f"keyset sign r --key {ROOT} --expect {digest}", PIN).code == 0
    assert run(f"keyset sign r --key keys/root-2.key --expect {digest}", phrase).code == 0
    signatures = " ".join(str(path) for path in Path().glob("r.*.signature"))
    assert run(f"keyset assemble r {signatures} --out k.cose").code == 0
    assert keyset.verify(Path("k.cose").read_bytes()).threshold == 2


@pytest.mark.requirement("ORG08")
def test_a_wrong_pin_is_told_and_never_retried(run: Runner) -> None:
    run(GENERATE, PIN)
    pkcs11_keys.close()
    asked = []

    def ask(prompt: str) -> str:
        asked.append(prompt)
        return "00000000"

    with pytest.raises(ToolError, match=r"tried once only; wrong PINs since the last right one: at least 1"):
        keys.open_signer(ROOT, keys.Passphrases(ask=ask))
    assert len(asked) == 1

    def ask_again(prompt: str) -> str:
        asked.append(prompt)
        return PIN

    assert keys.open_signer(ROOT, keys.Passphrases(ask=ask_again))
    pkcs11_keys.close()
    assert keys.open_signer(ROOT, keys.Passphrases(ask=ask_again))
    told = ["a wrong one was entered before" in prompt for prompt in asked]
    assert told == [False, True, False], "whoever enters the next one is told first; a right one resets the count"


@pytest.mark.requirement("ORG08")
@pytest.mark.parametrize(
    ("flags", "words"), [(0, "nothing"), (0x1_0000, "at least 1"), (0x3_0000, "ONE try"), (0x7_0000, "locked now")]
)
def test_what_a_token_tells_of_its_count_is_told(flags: int, words: str) -> None:
    assert words in pkcs11_keys._tries(flags)


def test_the_last_pin_try_is_never_spent(run: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = pkcs11_keys.parse_uri(ROOT)

    class Token:
        flags = 0x2_0000

        def open(self, **_: object) -> None:
            pytest.fail("the PIN was tried")

    with monkeypatch.context() as patch:
        patch.setattr(pkcs11_keys, "_token", lambda _: Token())
        with pytest.raises(ToolError, match="PIN_FINAL_TRY"):
            pkcs11_keys._login(uri, keys.Passphrases(ask=lambda _: PIN))
        Token.flags = 0x4_0000
        with pytest.raises(ToolError, match="PIN_LOCKED"):
            pkcs11_keys._login(uri, keys.Passphrases(ask=lambda _: PIN))


def test_a_token_removed_in_the_middle_signs_nothing(run: Runner) -> None:
    run(GENERATE, PIN)
    signer = keys.open_signer(ROOT, keys.Passphrases(ask=lambda _: PIN))
    pkcs11_keys.close()  # what removing it does to its sessions
    with pytest.raises(ToolError, match="TOKEN"):
        signer.sign(b"data")


# -- releases signed on the token --------------------------------------------------------------------------------------

RELEASE = "pkcs11:token=desk;object=release-1"
GATE = "--published published --advisories osv.json"


@pytest.fixture
def drafted(run: Runner) -> Runner:
    """A release key on the token, a key set that names it, and a request for a release that passes the gate."""
    phrase = "correct horse battery"
    assert run(f"keys generate {RELEASE} --role release --env release", PIN).code == 0
    assert run("keys generate root-1 --role root --env release", phrase).code == 0
    assert run("keyset create k.cose --root keys/root-1.key --release keys/release-1.pub", phrase).code == 0
    Path("fw.bin").write_bytes(firmware("1.0"))
    Path("notes.txt").write_text("Fixes the pump.")
    Path("osv.json").write_text("[]")
    Path("published").mkdir()
    made = run(
        "release draft --firmware fw.bin --version 1.0 --sequence 1 --vendor example.com --class lamp "
        "--text en=notes.txt --support-until 2099-12-31 --contact security@example.com --out out"
    )
    assert made.code == 0, made.err
    pkcs11_keys.close()
    Path("keys/signing-log.jsonl").unlink()
    return run


def sign(run: Runner, *lines: str, more: str = "") -> Result:
    return run(f"release sign out/lamp-1.0.request --key {RELEASE} --keyset k.cose {GATE} {more}", *lines, answer="y\n")


def nothing_happened() -> bool:
    left = [path for path in Path().rglob("*") if path.suffix in (".signature", ".tmp", ".suit")]
    return not left and not Path("keys/signing-log.jsonl").exists()


@pytest.mark.requirement("UPC11", "ORG08", "UPC01")
def test_a_release_is_signed_on_the_token(drafted: Runner) -> None:
    signed = sign(drafted, PIN)
    assert signed.code == 0, signed.err
    assert "Sign this?" in signed.out
    assert not list(Path("keys").glob("release-1.key")), "the key has never been in a file"
    done = drafted(
        f"release assemble out/lamp-1.0.request {next(iter(Path('out').glob('*.signature')))} --keyset k.cose"
    )
    assert done.code == 0, done.err
    verified = drafted("release verify out/lamp-1.0.suit --keyset k.cose --vendor example.com --class lamp")
    assert verified.code == 0, verified.err
    key = keys.load_statement("keys/release-1.pub").key_id.hex()
    assert key in verified.out
    assert [entry.key_id for entry in signlog.verify(Path("keys/signing-log.jsonl"))] == [key]


@pytest.mark.requirement("UPC11")
def test_create_signs_on_the_token_and_gives_the_same_bytes_as_the_offline_way(drafted: Runner) -> None:
    made = drafted(
        f"release create --firmware fw.bin --version 1.0 --sequence 1 --vendor example.com --class lamp {GATE} "
        "--text en=notes.txt --support-until 2099-12-31 --contact security@example.com --out made "
        f"--key {RELEASE} --keyset k.cose",
        PIN,
    )
    assert made.code == 0, made.err
    assert sign(drafted, PIN).code == 0
    signature = next(iter(Path("out").glob("*.signature")))
    assert drafted(f"release assemble out/lamp-1.0.request {signature} --keyset k.cose").code == 0
    assert Path("out/lamp-1.0.suit").read_bytes() == Path("made/lamp-1.0.suit").read_bytes()


@pytest.mark.requirement("UPC11", "ORG08")
def test_a_wrong_pin_signs_no_release_and_is_not_tried_again(drafted: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []
    wrong = sign(drafted, "00000000")
    assert wrong.error == "PIN"
    assert "at least 1" in wrong.err, "what the token says of the tries that are left"
    assert nothing_happened()
    with monkeypatch.context() as patch:
        patch.setattr(keys.Passphrases, "get", lambda self, what: tried.append(what) or b"11111111")
        assert sign(drafted).error == "PIN"
    assert len(tried) == 1, "asked for once, tried once"
    assert nothing_happened()
    assert sign(drafted, PIN).code == 0, "and a right one is taken afterwards"


@pytest.mark.requirement("UPC11")
def test_a_session_that_ends_between_review_and_signature_leaves_nothing_half_signed(
    drafted: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = release_desk.respond

    def removed(*arguments: Any) -> release_desk.Signature:
        pkcs11_keys.close()
        return honest(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(release_desk, "respond", removed)
        gone = sign(drafted, PIN)
    assert gone.error == "TOKEN", gone.err
    assert "nothing was signed" in gone.err
    assert nothing_happened()
    assert sign(drafted, PIN).code == 0, "plugged in again, it signs"


REMOVES = """
import os, sys
from sekisho_tools import cli, release_desk
honest = release_desk.respond
def removed(*arguments):
    os.rename(sys.argv[1], sys.argv[1] + "-away")
    return honest(*arguments)
release_desk.respond = removed
sys.exit(cli.run(sys.argv[2:]))
"""


@pytest.mark.requirement("UPC11")
def test_a_token_taken_away_after_the_login_leaves_nothing_half_signed(drafted: Runner) -> None:
    """In a process of its own, which SoftHSM2 does not survive in a usable state."""
    store = Path(os.environ["SOFTHSM2_CONF"]).parent / "tokens"
    line = f"release sign out/lamp-1.0.request --key {RELEASE} --keyset k.cose {GATE} --passphrase-fd "
    reader, writer = os.pipe()
    os.write(writer, PIN.encode() + b"\n")
    os.close(writer)
    try:
        gone = subprocess.run(
            [sys.executable, "-c", REMOVES, str(store), *line.split(), str(reader)],
            input="y\n",
            capture_output=True,
            text=True,
            check=False,
            pass_fds=(reader,),
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            timeout=60,
        )
    finally:
        os.close(reader)
        store.with_name("tokens-away").rename(store)
    assert "error[TOKEN]" in gone.stderr, gone.stdout + gone.stderr
    assert "nothing was signed" in gone.stderr
    assert gone.returncode == 1
    assert nothing_happened()


def test_what_is_not_there_is_named(run: Runner) -> None:
    assert run("keys show pkcs11:token=none;object=a").error == "TOKEN"
    assert run("keys show pkcs11:token=desk;object=none").error == "KEY_UNKNOWN"
    assert run("keys show pkcs11:token=desk;object=a?module-path=/nonexistent.so").error == "TOKEN"
    for uri in ("pkcs11:", "pkcs11:object=a", "pkcs11:token", "pkcs11:token=a;pin=1", "pkcs11:token=a?pin-value=1"):
        assert run(f"keys show {uri}").error == "KEY_URI", uri


def test_a_token_key_is_never_overwritten_and_listed(run: Runner) -> None:
    run(GENERATE, PIN)
    Path("keys/root-1.pub").rename("keys/away.pub")
    assert run(GENERATE, PIN).error == "KEY_EXISTS"
    listed = json.loads(run("keys list --token pkcs11:token=desk --json").out)
    assert [(one["label"], one["protection"]) for one in listed] == [("root-1", "token")]


def test_roles_and_environments_hold_on_tokens_too(run: Runner) -> None:
    run(GENERATE, PIN)
    passphrases = keys.Passphrases(ask=lambda _: pytest.fail("asked for the PIN of a key that is of no use here"))
    with pytest.raises(ToolError, match="KEY_ROLE"):
        keys.open_signer(ROOT, passphrases, role="release")
    with pytest.raises(ToolError, match="KEYSET_ENVIRONMENT"):
        keys.open_signer(ROOT, passphrases, environment="development")


def test_a_swapped_statement_on_the_token_is_noticed(run: Runner) -> None:
    import pkcs11

    run(GENERATE, PIN)
    run("keys generate pkcs11:token=desk;object=other --role root --env release", PIN)
    uri = pkcs11_keys.parse_uri(ROOT)
    session = pkcs11_keys._login(uri, keys.Passphrases(ask=lambda _: PIN))
    data = {pkcs11.Attribute.CLASS: pkcs11.ObjectClass.DATA}
    held = {one[pkcs11.Attribute.LABEL]: one for one in session.get_objects(data)}
    held["root-1"].destroy()
    held["other"].copy({pkcs11.Attribute.LABEL: "root-1"})
    with pytest.raises(ToolError, match="KEY_STATEMENT"):
        keys.open_signer(ROOT, keys.Passphrases(ask=lambda _: PIN))


def test_destroying_a_token_key_needs_its_key_id(run: Runner) -> None:
    run(GENERATE, PIN)
    told = keys.load_statement(ROOT)
    assert run(f"keys destroy {ROOT} --key-id {'00' * 8}", PIN).error == "KEY_UNKNOWN"
    assert run(f"keys destroy {ROOT} --key-id {told.key_id.hex()}", PIN).code == 0
    assert run(f"keys show {ROOT}").error == "KEY_UNKNOWN"
    assert cose.key_id(told.public_key) == told.key_id


@pytest.mark.requirement("ORG04")
def test_an_audit_bundle_lists_the_keys_of_a_token_and_is_signed_on_it(run: Runner) -> None:
    aiko = "pkcs11:token=safe;object=aiko"
    assert run(f"keys generate {aiko} --role approver --env release", PIN).code == 0
    assert run(GENERATE, PIN).code == 0
    pkcs11_keys.close()
    line = f"audit bundle --out audit.zip --keys keys --token pkcs11:token=safe --sign-with {aiko} --json"
    made = run(line, PIN)
    assert made.code == 0, made.err
    key = keys.load_statement("keys/aiko.pub").key_id.hex()
    assert json.loads(made.out)["signed_by"] == key
    verified = run("audit verify audit.zip --key keys/aiko.pub")
    assert "approver key 'aiko'" in verified.out, verified.err
    files = audit_file.unpack(Path("audit.zip").read_bytes())
    kept = {one["key_id"]: one["kept"] for one in json.loads(files["keys.json"])}
    assert kept[key] == "token safe"
    assert kept[keys.load_statement("keys/root-1.pub").key_id.hex()] == "file, public only"
    assert PIN.encode() not in b"".join(files.values())
