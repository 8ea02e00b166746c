"""Replacing a key set with root keys on separate machines, and the signing log."""

from __future__ import annotations

import json
import re
import resource
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from helpers import images
from helpers.cli import Runner
from sekisho.cbor import decode
from sekisho_boot import keyset as device
from sekisho_tools import ceremony, cose, keys, keyset, release, signlog
from sekisho_tools.errors import ToolError

ROOTS = ("root-1", "root-2", "root-3")
EXPIRES = "--expires 2090-01-01"


@pytest.fixture(scope="module")
def made_keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Development keys without passphrases: three roots and a spare, two release keys, one operator key."""
    directory = tmp_path_factory.mktemp("keys")
    for name in (*ROOTS, "root-4", "release-1", "release-2", "operator-1"):
        keys.generate(name, directory, name.split("-")[0], "development", f"{name} of the test")
    keys.generate("alien", directory, "root", "development")
    return directory


@pytest.fixture
def run(tmp_path: Path, made_keys: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Runner:
    """A desk with all keys and a first key set, 2 of 3 roots."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    shutil.copytree(made_keys, "keys")
    runner = Runner(capfd, monkeypatch)
    roots = " ".join(f"--root keys/{name}.key" for name in ROOTS)
    made = runner(
        f"keyset create k1.cose {roots} --threshold 2 --release keys/release-1.pub --issued 1700000000 {EXPIRES}"
    )
    assert made.code == 0, made.err
    return runner


def key_id(name: str) -> str:
    return keys.load_statement(Path(f"keys/{name}.pub")).key_id.hex()


def sign(run: Runner, request: str, *names: str) -> str:
    """Every holder signs without being asked; returns the signature files."""
    digest = ceremony.read_request(Path(request)).digest
    for name in names:
        done = run(f"keyset sign {request} --key keys/{name}.key --known k1.cose --expect {digest}")
        assert done.code == 0, done.err
    return " ".join(f"{request}.{key_id(name)}.signature" for name in names)


DRAFT = "keyset draft r --previous k1.cose --revoke keys/release-1.pub --release keys/release-2.pub=fw --floor fw=12"


@pytest.mark.requirement("UPC05", "UPC06", "UPC07", "UPC11")
def test_a_leaked_release_key_is_replaced_by_two_of_three_holders_on_their_own_machines(run: Runner) -> None:
    assert run(DRAFT).code == 0
    signatures = sign(run, "r", "root-1", "root-3")
    made = run(f"keyset assemble r {signatures} --out k2.cose")
    assert made.code == 0, made.err
    held = device.accept(device.genesis(Path("k1.cose").read_bytes()), Path("k2.cose").read_bytes())
    assert held.version == 2
    assert bytes.fromhex(key_id("release-1")) in held.revoked_keys
    assert held.release_keys() == [keys.load_statement(Path("keys/release-2.pub")).public_key]
    assert held.limit("fw") == (12, keyset.DEFAULT_CEILING)
    assert "k2.cose: good, version 2" in run("keyset verify k1.cose k2.cose").out


@pytest.mark.requirement("UPC11", "ORG08")
def test_a_holder_sees_what_changes_before_signing(run: Runner) -> None:
    assert run(DRAFT + " --note leak").code == 0
    shown = run("keyset sign r --key keys/root-1.key --known k1.cose", answer="n\n")
    assert shown.error == "DECLINED"
    lines = shown.out.splitlines()
    assert "version: 1 -> 2" in lines
    assert f"- release key for fw and app, every class {key_id('release-1')} (release-1 of the test)" in lines
    assert f"+ release key for fw, every class {key_id('release-2')} (release-2 of the test)" in lines
    assert f"+ revoked key {key_id('release-1')} (release-1 of the test)" in lines
    assert "security floor of fw: 0 -> 12" in lines
    assert "note of the drafter: leak" in lines
    assert not any("root key" in line for line in lines)  # what stays is not shown
    assert not list(Path().glob("*.signature"))
    assert run("keyset sign r --key keys/root-1.key --known k1.cose", answer="y\n").code == 0


def test_without_a_copy_of_their_own_holders_see_everything(run: Runner) -> None:
    run(DRAFT)
    shown = run("keyset sign r --key keys/root-1.key", answer="n\n")
    for name in ROOTS:
        assert f"+ root key {key_id(name)}" in shown.out


def test_a_request_that_hides_a_key_in_a_forged_previous_key_set_is_noticed(run: Runner) -> None:
    """The drafter pretends that the key set before named the intruder's key already."""
    true = keyset.decode(Path("k1.cose").read_bytes())
    intruder = keys.load_statement(Path("keys/release-2.pub"))
    forged = replace(true, release=(*true.release, keyset.ReleaseKey(intruder.public_key)))
    request = ceremony.draft(
        ceremony.apply(ceremony.Edit(issued_at=1_700_000_001), forged), keyset.sign(forged, []), (), "nothing special"
    )
    Path("r").write_text(request.to_json())
    assert run("keyset sign r --key keys/root-1.key --known k1.cose", answer="y\n").error == "KEYSET_CONTENT"
    assert (
        f"+ release key for fw and app, every class {intruder.key_id.hex()}"
        in run("keyset sign r --key keys/root-1.key", answer="n\n").out
    )


def test_a_diff_that_changed_after_review_is_not_signed(run: Runner) -> None:
    run(DRAFT)
    digest = ceremony.read_request(Path("r")).digest
    Path("r").unlink()
    run(DRAFT + " --hardware-floor 3")
    line = f"keyset sign r --key keys/root-1.key --known k1.cose --expect {digest}"
    assert run(line).error == "KEYSET_CONTENT"
    assert not list(Path().glob("*.signature"))


def test_a_signature_for_another_request_is_refused(run: Runner) -> None:
    run(DRAFT)
    old = sign(run, "r", "root-1", "root-2").split()
    Path("r").unlink()
    run(DRAFT + " --hardware-floor 3")
    assert run(f"keyset assemble r {' '.join(old)} --out k2.cose").error == "REQUEST"
    for path in old:  # even if somebody mends the digest
        fields = json.loads(Path(path).read_text())
        fields["content_sha256"] = ceremony.read_request(Path("r")).digest
        Path(path).write_text(json.dumps(fields))
    assert run(f"keyset assemble r {' '.join(old)} --out k2.cose").error == "SIGNATURE"
    assert not Path("k2.cose").exists()


@pytest.mark.requirement("ORG08")
def test_too_few_signatures_name_who_is_missing(run: Runner) -> None:
    run(DRAFT)
    signatures = sign(run, "r", "root-1")
    made = run(f"keyset assemble r {signatures} --out k2.cose")
    assert made.error == "KEYSET_THRESHOLD"
    assert key_id("root-2") in made.err
    assert key_id("root-3") in made.err
    assert run(f"keyset assemble r {signatures} {signatures} --out k2.cose").error == "KEYSET_THRESHOLD"
    assert not Path("k2.cose").exists()


@pytest.mark.requirement("UPC06")
def test_a_root_key_is_rotated_with_overlap(run: Runner) -> None:
    run("keyset draft r --previous k1.cose --root keys/root-4.pub --revoke keys/root-1.pub")
    old_only = sign(run, "r", "root-1", "root-2")
    assert run(f"keyset assemble r {old_only} --out k2.cose").error == "KEYSET_THRESHOLD"
    more = sign(run, "r", "root-4")
    assert run(f"keyset assemble r {old_only} {more} --out k2.cose").code == 0
    content = keyset.verify(Path("k2.cose").read_bytes(), Path("k1.cose").read_bytes())
    assert {cose.key_id(root).hex() for root in content.roots} == {key_id(n) for n in ("root-2", "root-3", "root-4")}


@pytest.mark.requirement("UPC06")
def test_release_and_operator_keys_are_rotated_with_overlap_and_from_a_chosen_day_on(run: Runner) -> None:
    """k2 names old and new keys, k3 the new alone. A key counts from the day on which its key set is published."""
    both = "--key keys/root-1.key --key keys/root-2.key"
    for name in ("release-1", "release-2", "operator-1", "operator-2"):
        if not Path(f"keys/{name}.pub").exists():
            keys.generate(name, Path("keys"), name.split("-")[0], "development")
    steps = (
        f"keyset replace k2.cose --previous k1.cose {both} --operator keys/operator-1.pub",
        f"keyset replace k3.cose --previous k2.cose {both} --release keys/release-2.pub --operator keys/operator-2.pub",
        f"keyset replace k4.cose --previous k3.cose {both} --remove keys/release-1.pub --remove keys/operator-1.pub",
    )
    for line in steps:
        done = run(line)
        assert done.code == 0, done.err
    assert run("keyset verify k1.cose k2.cose k3.cose k4.cose").code == 0
    request = release.Request("example.com", "lamp", "1", 1, (release.Component("fw", images.app()),))

    def may(number: int) -> tuple[list[int], list[int]]:
        """Which release and operator keys count under key set *number*."""
        document = Path(f"k{number}.cose").read_bytes()
        refused = []
        for one in (1, 2):
            try:
                release.create(request, keys.open_signer(f"keys/release-{one}.key", keys.Passphrases()), document)
            except ToolError as error:
                refused.append((one, error.code))
        assert {code for _, code in refused} <= {"KEY_UNKNOWN"}
        signers = [one for one in (1, 2) if (one, "KEY_UNKNOWN") not in refused]
        operators = {key.public_key for key in keyset.decode(document).operators}
        named = [n for n in (1, 2) if keys.load_statement(f"keys/operator-{n}.pub").public_key in operators]
        return signers, named

    assert [may(number) for number in (1, 2, 3, 4)] == [([1], []), ([1], [1]), ([1, 2], [1, 2]), ([2], [2])]


def test_strangers_and_other_roles_cannot_sign(run: Runner) -> None:
    run(DRAFT)
    digest = ceremony.read_request(Path("r")).digest
    line = f"keyset sign r --known k1.cose --expect {digest} --key keys/"
    assert run(line + "alien.key").error == "KEY_UNKNOWN"
    assert run(line + "release-1.key").error == "KEY_ROLE"


@pytest.mark.requirement("UPC03")
def test_a_root_of_the_other_environment_cannot_sign(run: Runner, made_keys: Path) -> None:
    passphrase = keys.Passphrases(ask=lambda _: "correct horse battery")
    keys.generate("other", Path("keys"), "root", "release", passphrases=passphrase)
    run(DRAFT)
    digest = ceremony.read_request(Path("r")).digest
    done = run(f"keyset sign r --known k1.cose --expect {digest} --key keys/other.key", "correct horse battery")
    assert done.error == "KEYSET_ENVIRONMENT"
    assert run("keyset draft r2 --previous k1.cose --root keys/other.pub").error == "KEYSET_ENVIRONMENT"


def test_truncated_swapped_and_mended_files_are_refused(run: Runner) -> None:
    run(DRAFT)
    signature = sign(run, "r", "root-1")
    text, answer = Path("r").read_text(), Path(signature).read_text()
    fields = json.loads(text)
    fields["statements"] = []
    broken = {
        "truncated": text[: len(text) // 2],
        "empty": "",
        "list": "[]",
        "deep": "[" * 50_000,
        "response": answer,
        "digest": text.replace(fields["content_sha256"], "0" * 64),
        "base64": text.replace(json.loads(text)["document"], "%%%"),
        "huge": text + " " * ceremony.MAX_REQUEST,
    }
    for name, content in broken.items():
        Path("x").write_text(content)
        done = run("keyset sign x --key keys/root-1.key", answer="y\n")
        assert done.error in ("REQUEST", "FILE_TOO_LARGE"), name
    Path("x").write_text(json.dumps(fields))
    assert run("keyset sign x --key keys/root-1.key", answer="y\n").error == "KEY_STATEMENT"
    for content in ("", text, answer[:100], answer.replace('"signature": "', '"signature": "zz')):
        Path("x").write_text(content)
        assert run("keyset assemble r x --out k2.cose").error == "REQUEST"
    assert not Path("k2.cose").exists()


def test_drafts_that_no_device_would_take_are_refused(run: Runner) -> None:
    start = "keyset draft r --previous k1.cose "
    release = keys.load_statement(Path("keys/release-1.pub")).key_id.hex()
    assert run(start + "--release keys/release-1.pub").error == "KEYSET_KEY_REUSE"
    assert run(start + f"--remove {'00' * 8}").error == "KEY_UNKNOWN"
    assert run(start + "--remove not-hex").error == "USAGE"
    assert run(start + "--threshold 4").error == "KEYSET"
    assert run(start + "--floor fw=5 --ceiling fw=4").error == "KEYSET"
    assert run(start + "--issued 1600000000").error == "CLOCK"
    assert run(start + f"--revoke {release} --release keys/release-1.pub").error == "KEYSET_KEY_REUSE"
    assert not Path("r").exists()


def test_clocks_that_disagree_are_noticed(run: Runner) -> None:
    run(DRAFT + " --issued 1800000000")
    request = ceremony.read_request(Path("r"))
    signer = keys.open_signer("keys/root-1.key", keys.Passphrases())
    assert ceremony.respond(request, signer, now=1_800_000_000 - ceremony.CLOCK_TOLERANCE)
    with pytest.raises(ToolError, match="CLOCK"):
        ceremony.respond(request, signer, now=1_800_000_000 - ceremony.CLOCK_TOLERANCE - 1)


def test_replace_does_it_all_on_one_machine(run: Runner) -> None:
    line = (
        "keyset replace k2.cose --previous k1.cose --key keys/root-1.key --floor app=4 --revoke-manifest " + "ab" * 32
    )
    assert run(line).error == "KEYSET_THRESHOLD"
    assert not Path("k2.cose").exists()
    assert run(line + " --key keys/root-2.key").code == 0
    content = keyset.verify(Path("k2.cose").read_bytes(), Path("k1.cose").read_bytes())
    assert content.revoked_manifests == (bytes.fromhex("ab" * 32),)
    lines = run("keyset diff k1.cose k2.cose").out.splitlines()
    assert "+ revoked manifest " + "ab" * 32 in lines
    assert "security floor of app: 0 -> 4" in lines


@pytest.mark.requirement("STS09")
def test_the_algorithm_policy_can_be_changed(run: Runner) -> None:
    line = "keyset replace k2.cose --previous k1.cose --key keys/root-1.key --key keys/root-2.key --algorithms "
    assert run(line + "signatures=-9").error == "ALGORITHM"
    assert run(line + "content=AES").error == "USAGE"
    assert "algorithm policy: none -> content encryption A256CTR (-65532)" in run(line + "content=A256CTR").out
    held = device.accept(device.genesis(Path("k1.cose").read_bytes()), Path("k2.cose").read_bytes())
    assert held.allows(device.CONTENT, -65532)
    assert not held.allows(device.CONTENT, -65534)


@pytest.mark.requirement("STS06", "HLC04")
def test_the_roots_sign_the_secure_default_settings(run: Runner) -> None:
    Path("secure.json").write_text('{"poll": 600, "update_start": "administrator"}')
    line = "keyset replace k2.cose --previous k1.cose --key keys/root-1.key --key keys/root-2.key --settings "
    assert run(line + "nothing.json").error == "FILE"
    Path("wrong.json").write_text('{"poll": "often"}')
    assert run(line + "wrong.json").error == "SETTING"
    Path("broken.json").write_text("{")
    assert run(line + "broken.json").error == "SETTING"
    assert not Path("k2.cose").exists()
    done = run(line + "secure.json")
    assert "secure default of poll: none -> 600" in done.out.splitlines(), done.err
    found = device.accept(device.genesis(Path("k1.cose").read_bytes()), Path("k2.cose").read_bytes())
    assert decode(found.settings) == {"poll": 600, "update_start": "administrator"}, "as a restore order reads them"
    Path("secure.json").write_text('{"poll": 600}')
    shown = run("keyset draft r --previous k2.cose --settings secure.json").out
    assert 'secure default of update_start: "administrator" -> none' in shown.splitlines()
    assert json.loads(run("keyset inspect k2.cose --json").out)["settings"] == json.loads(
        '{"poll": 600, "update_start": "administrator"}'
    )


def test_the_next_key_set_lives_as_long_as_the_one_before(run: Runner) -> None:
    old = keyset.decode(Path("k1.cose").read_bytes())
    new = ceremony.apply(ceremony.Edit(issued_at=old.issued_at + 1000), old)
    assert new.expires == old.expires + 1000


def test_nearing_expiry_and_lone_roots_are_pointed_out() -> None:
    base = keyset.KeySet(1, 0, 1000 * ceremony.DAY, keyset.ENVIRONMENTS["release"], 1, (bytes(32),))
    said = " ".join(ceremony.advice(base, now=950 * ceremony.DAY))
    for words in ("expires in 50 days", "One root key alone", "if one is lost"):
        assert words in said
    assert "has expired" in " ".join(ceremony.advice(base, now=1000 * ceremony.DAY))
    assert "in the future" in " ".join(ceremony.advice(replace(base, issued_at=10 * ceremony.DAY), now=0))
    open_ended = replace(base, release=(keyset.ReleaseKey(bytes(32), ("fw",)),))
    assert "fw has no real ceiling" in " ".join(ceremony.advice(open_ended, now=0))
    sound = replace(open_ended, threshold=2, roots=(bytes(32),) * 3, limits={"fw": (0, 1000)})
    assert ceremony.advice(sound, now=0) == []


# -- the signing log ----------------------------------------------------------------------------------------------

LOG = Path("keys") / signlog.NAME


@pytest.mark.requirement("ORG08", "UPC11")
def test_every_signature_is_in_the_log(run: Runner) -> None:
    run(DRAFT)
    sign(run, "r", "root-2")
    shown = json.loads(run("log verify --json").out)
    assert [(entry["what"], entry["key_id"]) for entry in shown["entries"]] == [
        *(("key set version 1", key_id(name)) for name in ROOTS),
        ("key set version 2", key_id("root-2")),
    ]
    assert shown["entries"][-1]["object"] == ceremony.read_request(Path("r")).digest
    assert shown["head"] in run("log verify").out
    assert "@" in shown["entries"][0]["who"]


def alter_text(lines: list[str]) -> list[str]:
    return [lines[0].replace("version 1", "version 9"), *lines[1:]]


def remove_first(lines: list[str]) -> list[str]:
    return lines[1:]


def remove_middle(lines: list[str]) -> list[str]:
    return [lines[0], *lines[2:]]


def swap(lines: list[str]) -> list[str]:
    return [lines[1], lines[0], *lines[2:]]


def double(lines: list[str]) -> list[str]:
    return [lines[0], *lines]


def cut_a_line(lines: list[str]) -> list[str]:
    return [*lines[:-1], lines[-1][:-5]]


def respace(lines: list[str]) -> list[str]:
    return [lines[0].replace(",", ", "), *lines[1:]]


def garbage(lines: list[str]) -> list[str]:
    return [*lines, "{}"]


@pytest.mark.parametrize(
    "change", [alter_text, remove_first, remove_middle, swap, double, cut_a_line, respace, garbage]
)
def test_a_log_that_was_changed_is_refused(run: Runner, change: Callable[[list[str]], list[str]]) -> None:
    lines = LOG.read_text().splitlines()
    LOG.write_text("\n".join(change(lines)) + "\n")
    assert run("log verify").error == "LOG"
    before = Path("k1.cose").read_bytes()
    done = run("keyset replace k2.cose --previous k1.cose --key keys/root-1.key --key keys/root-2.key")
    assert done.error == "LOG"  # and nothing is signed into a broken log
    assert not Path("k2.cose").exists()
    assert Path("k1.cose").read_bytes() == before


def test_a_log_whose_end_was_cut_off_is_noticed_by_the_head(run: Runner) -> None:
    head = json.loads(run("log verify --json").out)["head"]
    assert run(f"log verify --head {head}").code == 0
    lines = LOG.read_text().splitlines()
    LOG.write_text("\n".join(lines[:-1]) + "\n")
    assert run("log verify").code == 0
    assert run(f"log verify --head {head}").error == "LOG"


@pytest.mark.requirement("UPC11")
def test_nothing_in_a_request_can_paint_over_what_the_holder_reads(run: Runner) -> None:
    evil = "harmless\x1b[2K\x1b[1A\u202esecond"
    run(DRAFT)
    request = ceremony.read_request(Path("r"))
    content = replace(request.content, settings={"poll\x1b[1A": evil})
    forged = ceremony.draft(content, request.previous, request.statements, evil)
    ceremony.write_json(Path("r2"), forged.to_json())
    shown = run("keyset sign r2 --key keys/root-1.key --known k1.cose", answer="n\n").out
    assert all(line.isprintable() for line in shown.splitlines())
    assert "harmless?[2K" in shown
    told = request.statements[0]
    with pytest.raises(ToolError, match="KEY_STATEMENT"):
        keys.read_statement(replace(told, label=evil).to_dict())
    signer = keys.open_signer("keys/release-2.key", keys.Passphrases())
    named = replace(told, label="a\x1b[1A")
    with pytest.raises(ToolError, match="KEY_STATEMENT"):
        keys.read_statement(replace(named, signature=signer.sign(named.message())).to_dict())


def test_keys_that_are_known_by_name_are_shown_by_name(run: Runner) -> None:
    drafted = run("keyset draft r --previous k1.cose --revoke keys/release-1.pub")
    assert f"- release key for fw and app, every class {key_id('release-1')} (release-1 of the test)" in drafted.out
    assert "names no release key" in drafted.err
    assert "(root-1 of the test)" in run("keyset inspect k1.cose").out


def test_an_entry_that_a_power_cut_tore_is_made_again(run: Runner) -> None:
    whole = LOG.read_bytes()
    LOG.write_bytes(whole + whole.splitlines()[0][:40])
    assert run("log verify").error == "LOG"
    run(DRAFT)
    sign(run, "r", "root-2")
    assert LOG.read_bytes().startswith(whole)
    assert [entry.number for entry in signlog.verify(LOG)] == [1, 2, 3, 4]


def test_a_disk_that_takes_half_an_entry_leaves_the_log_as_it_was(run: Runner) -> None:
    whole = LOG.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) + 50, limits[1]))
    try:
        with pytest.raises(ToolError, match="nothing was signed"):
            signlog.record(LOG, "something", b"12345678", "root", "development", "00" * 32)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert LOG.read_bytes() == whole


def test_nothing_is_signed_when_the_log_cannot_be_written(run: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    run(DRAFT)
    digest = ceremony.read_request(Path("r")).digest
    size = LOG.stat().st_size

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    done = run(f"keyset sign r --key keys/root-1.key --known k1.cose --expect {digest}")
    assert done.error == "FILE"
    assert "no space left" in done.err
    assert not list(Path().glob("*.signature"))
    assert LOG.stat().st_size == size


# -- the guide ----------------------------------------------------------------------------------------------------


def test_the_commands_of_the_two_person_company_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], repo: Path
) -> None:
    """The commands are taken from docs/keys.md, line by line."""
    monkeypatch.chdir(tmp_path)
    run = Runner(capfd, monkeypatch)
    page = (repo / "docs" / "keys.md").read_text()
    part = page[page.index("## The two-person company") : page.index("For development, one command")]
    lines = re.findall(r"^ {8}sekisho (.*?)(?:\s+#.*)?$", part.replace("\\\n", ""), re.MULTILINE)
    phrase = "correct horse battery"
    for name in ("root-2", "root-3"):
        assert run(f"keys generate {name} --role root --env release", phrase).code == 0
    (tmp_path / "stick").mkdir()
    root_3 = key_id("root-3")
    for line in lines:
        line = (
            line.replace("/media/stick", "stick").replace(" --passphrase-fd 3", "").replace("58b41ff17a7078c8", root_3)
        )
        line = re.sub(r"'[^']*'", lambda quoted: quoted.group().replace("'", "").replace(" ", "_"), line)
        if "*.signature" in line:
            line = line.replace("k1.request.*.signature", " ".join(map(str, Path().glob("k1.request.*.signature"))))
        takes_passphrase = line.startswith(("keys generate", "keys backup", "keyset sign"))
        done = run(line, *([phrase] if takes_passphrase else []), answer="y\n")
        assert done.code == 0, f"{line}: {done.err}"
    assert len(lines) == 8
    assert keyset.verify(Path("keyset-1.cose").read_bytes()).threshold == 2
    assert not Path("keys/root-3.key").exists()
