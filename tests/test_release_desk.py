"""The signing desk: the gate before signing, approvals, offline request and response, the log of all that."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers import images
from helpers.cli import Result, Runner
from helpers.keys import ISSUED, keyset, make_keyset
from sekisho_tools import cose, flashimage, keys, packing, release, release_check, release_desk, sbom, signlog, suit
from sekisho_tools.device_code import BOOT, LIB
from sekisho_tools.identity import class_id
from sekisho_tools.serve import StaticServer
from server_fixtures import PASSWORD, running

PASSPHRASE = "correct horse battery"
MODULES = "\0".join(
    ["_boot.py", *(f"{p.name}/{f.name}" for p in (BOOT / "sekisho_boot", LIB / "sekisho") for f in p.glob("*.py"))]
)
"""The table of frozen modules, as MicroPython keeps it, of firmware with our engine and agent."""
BASE = "--vendor example.com --class my-board --text en=notes.txt --text ja=notes.ja.txt"
SUPPORT = "--support-until 2099-12-31 --contact security@example.com"


def frozen_app(text: str = "one", more: bytes = b"") -> bytes:
    """An app image that has what production firmware has frozen in, as far as anybody can see from outside."""
    banner = f"\0MicroPython v1.26.1 on 2025-09-11; {text}\0{MODULES}\0\0".encode() + more
    data = images.descriptor() + banner
    return images.image([(images.MAPPED["esp32"], data.ljust(-(-len(data) // 4) * 4, b"\0"))])


class Desk:
    """A company's desk in one directory: keys of the release environment, key set, firmware, advisories."""

    def __init__(self, folder: Path, run: Runner) -> None:
        self.folder, self._run = folder, run
        for name, role in (("release", "release"), ("aiko", "approver"), ("ben", "approver"), ("cem", "approver")):
            self.key(name, role)
        statement = keys.load_statement(folder / "release.pub")
        made = make_keyset(environment="release")
        self.keyset = made.next(release=(keyset.ReleaseKey(statement.public_key),))
        (folder / "keyset.cose").write_bytes(self.keyset.document)
        (folder / "fw.bin").write_bytes(frozen_app())
        (folder / "notes.txt").write_text("Fixes the pump.\nRestart it afterwards.\n")
        (folder / "notes.ja.txt").write_text("ポンプを修正しました。\n")
        (folder / "published").mkdir()
        (folder / "osv.json").write_text("[]")

    def key(self, name: str, role: str, environment: str = "release") -> None:
        keys.generate(name, self.folder, role, environment, name, _Fixed())

    def __call__(self, line: str, answer: str = "y\n") -> Result:
        return self._run(line, *([PASSPHRASE] if "--key " in line else []), answer=answer)

    def draft(self, more: str = "", sequence: int = 2, version: str = "1.2.0") -> Result:
        parts = f"--version {version} --sequence {sequence} --firmware fw.bin --out out {BASE} {SUPPORT}"
        return self(f"release draft {parts} {more}")

    def sign(self, more: str = "", gate: str = "--published published --advisories osv.json") -> Result:
        return self(f"release sign out/my-board-1.2.0.request --key release.key --keyset keyset.cose {gate} {more}")

    def approve(self, name: str) -> Result:
        return self(f"release approve out/my-board-1.2.0.request --key {name}.key")

    def create(self, more: str = "", support: str = SUPPORT) -> Result:
        parts = "--version 1.2.0 --sequence 2 --firmware fw.bin --out made --key release.key --keyset keyset.cose"
        return self(f"release create {parts} {BASE} {support} --published published --advisories osv.json {more}")

    @property
    def files(self) -> list[str]:
        return sorted(path.name for path in (self.folder / "out").iterdir())

    def log(self) -> list[signlog.Entry]:
        path = self.folder / signlog.NAME
        return signlog.verify(path) if path.exists() else []


class _Fixed(keys.Passphrases):
    def get(self, what: str) -> bytes:
        return PASSPHRASE.encode()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("desk")
    Desk(folder, None)  # type: ignore[arg-type]
    return folder


@pytest.fixture
def desk(prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Desk:
    folder = tmp_path / "desk"
    shutil.copytree(prepared, folder)
    monkeypatch.chdir(folder)
    made = Desk.__new__(Desk)
    made.folder, made._run = folder, Runner(capsys, monkeypatch)
    return made


def good(result: Result) -> Result:
    assert result.code == 0, result.err
    return result


def codes(result: Result) -> list[str]:
    """The findings behind a RELEASE_CHECK error."""
    assert result.error == "RELEASE_CHECK", result.err
    words = result.err.partition("not signed. ")[2].split()
    return [word[:-1] for word in words if word.endswith(":") and word[:-1].isupper() and len(word) > 4]


# -- the way of a release ------------------------------------------------------------------------------------------


@pytest.mark.requirement("UPC10", "UPC11", "UPC01")
def test_a_release_goes_from_draft_over_approvals_and_signature_to_a_file_that_devices_take(desk: Desk) -> None:
    good(desk("release policy approvals.json --needed 2 --approver aiko.pub --approver ben.pub --approver cem.pub"))
    good(desk.draft("--note Urgent"))
    shown = good(desk.approve("aiko")).out
    assert "sequence number: 2" in shown
    assert "text ja: ポンプを修正しました。" in shown
    assert "text en: Support-Until: 2099-12-31" in shown
    assert "note of the drafter: Urgent" in shown
    good(desk.approve("cem"))
    approvals = " ".join(f"--approval out/{name}" for name in desk.files if name.endswith(".approval"))
    signed = good(desk.sign(approvals)).out
    assert "approved by aiko" in signed
    answer = next(name for name in desk.files if name.endswith(".signature"))
    good(desk(f"release assemble out/my-board-1.2.0.request out/{answer} --keyset keyset.cose"))
    good(desk(f"release verify out/my-board-1.2.0.suit --keyset keyset.cose --at {ISSUED}"))
    side = json.loads(Path("out/my-board-1.2.0.release.json").read_text())
    assert [one["label"] for one in side["verdicts"][0]["approved_by"]] == ["aiko", "cem"]
    what = [entry.what for entry in desk.log()]
    assert what[:2] == ["approval of release my-board-1.2.0"] * 2
    assert what[2].startswith("release my-board-1.2.0, sequence 2; approved by ")
    digest = suit.decode(Path("out/my-board-1.2.0.suit").read_bytes()).digest.value.hex()
    assert [entry.object for entry in desk.log()] == [digest] * 3


@pytest.mark.requirement("UPC01", "ORG03")
def test_a_release_made_at_once_and_one_signed_offline_are_the_same_bytes(desk: Desk) -> None:
    good(desk.create())
    good(desk.draft())
    good(desk.sign())
    answer = next(name for name in desk.files if name.endswith(".signature"))
    good(desk(f"release assemble out/my-board-1.2.0.request out/{answer} --keyset keyset.cose"))
    assert Path("out/my-board-1.2.0.suit").read_bytes() == Path("made/my-board-1.2.0.suit").read_bytes()
    before = {path: path.read_bytes() for path in Path("made").rglob("*") if path.is_file()}
    good(desk.create())
    assert {path: path.read_bytes() for path in Path("made").rglob("*") if path.is_file()} == before


@pytest.mark.requirement("UPC11")
def test_nothing_is_signed_before_enough_approvers_have_agreed(desk: Desk) -> None:
    good(desk("release policy approvals.json --needed 2 --approver aiko.pub --approver ben.pub"))
    good(desk.draft())
    result = desk.sign()
    assert result.error == "APPROVAL"
    assert "0 of 2" in result.err
    good(desk.approve("aiko"))
    once = next(f"--approval out/{name}" for name in desk.files if name.endswith(".approval"))
    assert desk.sign(f"{once} {once}").error == "APPROVAL"  # one approver counts once
    assert desk.create(once).error == "APPROVAL"
    good(desk.approve("cem"))
    both = " ".join(f"--approval out/{name}" for name in desk.files if name.endswith(".approval"))
    assert desk.sign(both).error == "APPROVAL_UNKNOWN"
    assert not [name for name in desk.files if name.endswith(".signature")]
    assert not Path("made").exists()
    assert [entry.role for entry in desk.log()] == ["approver", "approver"]


@pytest.mark.requirement("UPC11")
def test_approvals_of_a_release_that_was_changed_afterwards_do_not_count(desk: Desk) -> None:
    good(desk("release policy approvals.json --needed 1 --approver aiko.pub"))
    good(desk.draft())
    good(desk.approve("aiko"))
    given = next(f"--approval kept/{name}" for name in desk.files if name.endswith(".approval"))
    Path("out").rename("kept")
    Path("fw.bin").write_bytes(frozen_app("something else"))
    good(desk.draft())
    result = desk.sign(given)
    assert result.error == "APPROVAL_RELEASE"
    assert "changed after the review" in result.err


@pytest.mark.requirement("UPC11")
def test_an_approval_is_no_release_signature_and_a_release_signature_no_approval(desk: Desk) -> None:
    good(desk("release policy approvals.json --needed 1 --approver aiko.pub"))
    good(desk.draft())
    good(desk.approve("aiko"))
    request = release_desk.read_request(Path("out/my-board-1.2.0.request"))
    signer = keys.open_signer("aiko.key", _Fixed())
    block = cose.sign1(suit.decode(request.envelope).payload, signer, attached=True)
    Path("block.approval").write_bytes(block)
    assert desk.sign("--approval block.approval").error == "APPROVAL_FORMAT"
    path = next(Path("out") / name for name in desk.files if name.endswith(".approval"))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert desk.sign(f"--approval {path}").error == "SIGNATURE"
    path.write_bytes(data[:-1])
    assert desk.sign(f"--approval {path}").error == "APPROVAL_FORMAT"
    assert desk("release approve out/my-board-1.2.0.request --key release.key").error == "KEY_ROLE"


def test_a_policy_that_cannot_be_met_is_refused(desk: Desk) -> None:
    assert desk("release policy p.json --needed 2 --approver aiko.pub").error == "APPROVALS"
    assert desk("release policy p.json --needed 2 --approver aiko.pub --approver aiko.pub").error == "APPROVALS"
    assert desk("release policy p.json --needed 1 --approver release.pub").error == "KEY_ROLE"
    good(desk("release policy p.json --needed 1 --approver aiko.pub"))
    Path("p.json").write_text(Path("p.json").read_text().replace('"aiko"', '"ben"'))
    good(desk.draft())
    assert desk.sign("--approvals p.json").error == "KEY_STATEMENT"


# -- what may happen to the files on their way -----------------------------------------------------------------------


@pytest.mark.requirement("UPC11")
def test_truncated_and_swapped_files_are_refused_by_name_and_nothing_is_half_signed(desk: Desk) -> None:
    good(desk.draft())
    path = Path("out/my-board-1.2.0.request")
    whole = path.read_text()
    for cut in (0, 1, len(whole) // 2, len(whole) - 3):
        path.write_text(whole[:cut])
        assert desk.sign().error == "REQUEST"
    fields = json.loads(whole)
    for key in fields:
        path.write_text(json.dumps({name: value for name, value in fields.items() if name != key}))
        assert desk.sign().error == "REQUEST", key
    path.write_text(json.dumps(fields | {"manifest_sha256": "00" * 32}))
    assert desk.sign().error == "REQUEST"
    path.write_text(json.dumps(fields | {"name": "../evil"}))
    assert desk.sign().error == "RELEASE"
    path.write_text(json.dumps(fields | {"format": "sekisho-keyset-request-1"}))
    assert desk.sign().error == "REQUEST"
    assert not desk.log()
    path.write_text(whole)
    good(desk.sign())
    answer = next(Path("out") / name for name in desk.files if name.endswith(".signature"))
    Path("fw.bin").write_bytes(frozen_app("other"))
    good(desk("release draft --version 1.3 --sequence 3 --firmware fw.bin --out out " + BASE))
    line = f"release assemble out/my-board-1.3.request {answer} --keyset keyset.cose"
    assert desk(line).error == "REQUEST"
    text = answer.read_text()
    answer.write_text(text[: len(text) // 2])
    assert desk(f"release assemble {path} {answer} --keyset keyset.cose").error == "REQUEST"
    fields = json.loads(text)
    changed = fields["signature"][:-2] + f"{int(fields['signature'][-2:], 16) ^ 1:02x}"
    answer.write_text(json.dumps(fields | {"signature": changed}))
    assert desk(f"release assemble {path} {answer} --keyset keyset.cose").error == "SIGNATURE"
    assert not list(Path("out").glob("*.suit"))


def test_a_request_that_changed_after_review_is_not_signed(desk: Desk) -> None:
    digest = good(desk.draft()).out.split()[-1]
    good(desk(f"release approve out/my-board-1.2.0.request --key aiko.key --expect {digest}", answer=""))
    Path("notes.txt").write_text("Fixes the pump, and something that nobody has seen.\n")
    Path("out").rename("reviewed")
    good(desk.draft())
    assert desk.sign(f"--expect {digest}").error == "REVIEW_CHANGED"
    assert not [name for name in desk.files if name.endswith(".signature")]


def test_whoever_says_no_signs_nothing(desk: Desk) -> None:
    good(desk.draft())
    request = "out/my-board-1.2.0.request"
    no = desk(f"release sign {request} --key release.key --keyset keyset.cose --published published "
              "--advisories osv.json", answer="n\n")  # fmt: skip
    assert no.error == "DECLINED"
    assert not desk.log()


def test_the_review_shows_what_is_different_from_the_release_before(desk: Desk) -> None:
    good(desk.create())
    Path("fw.bin").write_bytes(frozen_app("two"))
    good(desk.draft(sequence=3))
    shown = good(desk.approve("aiko")).out
    line = "release approve out/my-board-1.2.0.request --key ben.key --known made/my-board-1.2.0.suit"
    changed = good(desk(line)).out
    assert "+ sequence number: 3" in changed
    assert "- sequence number: 2" in changed
    assert "+ " not in shown.replace("+ -", "")


def test_signing_needs_the_payloads_and_they_must_be_the_ones_that_are_named(desk: Desk) -> None:
    good(desk.draft())
    payload = next(Path("out/payload").iterdir())
    data = payload.read_bytes()
    payload.write_bytes(data[:-1] + b"\0")
    assert desk.sign().error == "IMAGE_DIGEST"
    payload.unlink()
    assert desk.sign().error == "FILE"


@pytest.mark.requirement("ORG08")
def test_what_cannot_be_logged_is_not_signed(desk: Desk) -> None:
    good(desk.draft())
    Path(signlog.NAME).write_text('{"not": "a log"}\n')
    assert desk.sign().error == "LOG"
    assert not [name for name in desk.files if name.endswith(".signature")]
    assert desk.create().error == "LOG"
    assert not Path("made").exists()


# -- the gate ------------------------------------------------------------------------------------------------------


@pytest.mark.requirement("UPC10")
def test_a_release_that_lacks_something_is_not_signed_and_everything_is_named(desk: Desk) -> None:
    Path("fw.bin").write_bytes(images.app("no engine"))
    parts = "--version 1.2.0 --sequence 2 --firmware fw.bin --out out --vendor example.com --class my-board"
    good(desk(f"release draft {parts} --no-sbom"))
    result = desk.sign(gate="")
    assert codes(result) == ["ENGINE", "PUBLISHED", "TEXT", "SUPPORT", "SBOM"]
    shown = desk("release check out/my-board-1.2.0.request --keyset keyset.cose --json")
    assert shown.code == 1
    assert [one["code"] for one in json.loads(shown.out)] == codes(result)
    assert desk("release check out/my-board-1.2.0.request --keyset keyset.cose").err.startswith("check[ENGINE]: ")
    good(desk.draft("--name good"))
    line = "release check out/good.request --keyset keyset.cose --published published --advisories osv.json"
    assert "ENGINE" in desk(line).err


@pytest.mark.requirement("UPC10")
def test_an_override_needs_a_reason_and_is_on_record_in_log_and_sidecar(desk: Desk) -> None:
    Path("fw.bin").write_bytes(images.app("no engine"))
    assert codes(desk.create()) == ["ENGINE"]
    assert not Path("made").exists()
    assert desk.create("--override ok").error == "OVERRIDE"
    assert not desk.log()
    good(desk.create("--override bench-test-of-the-bootloader"))
    assert "override of ENGINE: bench-test-of-the-bootloader" in desk.log()[-1].what
    side = json.loads(Path("made/my-board-1.2.0.release.json").read_text())
    assert side["verdicts"][0]["override"] == "bench-test-of-the-bootloader"
    assert [one["code"] for one in side["verdicts"][0]["findings"]] == ["ENGINE"]


def test_an_override_that_nothing_calls_for_is_refused(desk: Desk) -> None:
    assert desk.create("--override just-to-be-on-the-safe-side").error == "OVERRIDE"


@pytest.mark.requirement("UPC02", "UPC10")
def test_version_and_sequence_must_come_after_everything_published(desk: Desk) -> None:
    good(desk.create())
    shutil.copy("made/my-board-1.2.0.suit", "published/latest.suit")
    line = "--firmware fw.bin --out next --key release.key --keyset keyset.cose --published published "
    line = f"release create {line} {BASE} {SUPPORT} --advisories osv.json"
    assert codes(desk(f"{line} --version 1.3 --sequence 2")) == ["SEQUENCE"]
    assert codes(desk(f"{line} --version 1.2 --sequence 3")) == ["VERSION"]
    assert codes(desk(f"{line} --version 1.2.0-rc1 --sequence 3")) == ["VERSION"]
    assert codes(desk(f"{line} --version 1.1.9 --sequence 1")) == ["SEQUENCE", "VERSION"]
    good(desk(f"{line} --version 1.10 --sequence 3"))
    other = line.replace("my-board", "other-board")
    good(desk(f"{other} --version 1.0 --sequence 1"))  # another product counts by itself
    Path("published/broken.suit").write_bytes(b"\xd8\x6b")
    assert desk(f"{line} --version 1.11 --sequence 9").error == "CBOR"


@pytest.fixture
def web(desk: Desk) -> Iterator[StaticServer]:
    """The published directory, over HTTP."""
    with StaticServer(desk.folder / "published") as server:
        yield server


NEXT = f"release create --firmware fw.bin --out next --key release.key --keyset keyset.cose {BASE} {SUPPORT}"
NEXT += " --advisories osv.json"


@pytest.mark.requirement("UPC02", "UPC10")
def test_a_web_site_is_asked_for_what_is_published(desk: Desk, web: StaticServer) -> None:
    line = f"{NEXT} --published {web.url}"
    assert desk(f"{line} --version 1.2.0 --sequence 2").error == "PUBLISHED", "a site that knows nothing of the product"
    home = str(class_id("example.com", "my-board"))
    good(desk(f"publish --to published --class {home} keyset.cose"))
    good(desk(f"{line} --version 1.2.0 --sequence 2"))
    good(desk("publish --to published next/my-board-1.2.0.suit"))
    assert codes(desk(f"{line} --version 1.1 --sequence 2")) == ["SEQUENCE", "VERSION"]
    good(desk(f"{line} --version 1.3 --sequence 3"))
    assert desk(f"{NEXT} --published http://127.0.0.1:9 --version 1.3 --sequence 3").error == "NETWORK"
    Path("published", home, "latest.suit").write_bytes(b"an error page")
    assert desk(f"{line} --version 1.4 --sequence 4").error, "what cannot be read is not taken for nothing"


@pytest.mark.requirement("UPC02", "UPC10")
def test_an_update_server_is_asked_for_everything_that_it_has(desk: Desk, tmp_path: Path) -> None:
    with running(tmp_path / "server") as site:
        Path("pw").write_text(PASSWORD)
        line = f"{NEXT} --published {site.url} --user view --password-file pw"
        good(desk(f"{line} --version 1.2.0 --sequence 7"))
        login = f"--server {site.url} --user op --password-file pw"
        good(desk(f"publish next/my-board-1.2.0.suit {login}"))
        good(desk(f"{line} --version 1.3 --sequence 8"))
        good(desk(f"publish next/my-board-1.3.suit {login}"))
        assert codes(desk(f"{line} --version 1.2.1 --sequence 8")) == ["SEQUENCE", "VERSION"]
        good(desk.draft(sequence=8, version="1.2.0"))
        found = desk(
            "release check out/my-board-1.2.0.request --keyset keyset.cose --advisories osv.json --json "
            f"--published {site.url} --user view --password-file pw"
        )
        assert found.code == 1
        assert [one["code"] for one in json.loads(found.out)] == ["VERSION", "SEQUENCE", "VERSION"]
        Path("pw").write_text("not this one, is it")
        assert desk(f"{line} --version 1.4 --sequence 9").error == "LOGIN"
        assert desk(f"{NEXT} --published {site.url} --version 1.4 --sequence 9").error == "PUBLISHED", "without --user"


@pytest.mark.requirement("UPC05", "UPC10", "STS09")
@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"limits": {"fw": (3, 99)}}, "FLOOR"),
        ({"limits": {"fw": (0, 1)}}, "CEILING"),
        ({"expires": ISSUED + 1}, "EXPIRED_KEYSET"),
        ({"algorithms": {3: (-65532,)}}, "ALGORITHM"),
        ({"revoked_manifests": ()}, "MANIFEST_REVOKED"),
    ],
)
def test_the_gate_knows_what_the_key_set_will_say(desk: Desk, change: dict[str, Any], code: str) -> None:
    packing.make_group_key("line-a", Path("a.kek"))
    good(desk.draft("--encrypt-for a.kek" if code == "ALGORITHM" else ""))
    request = release_desk.read_request(Path("out/my-board-1.2.0.request"))
    if code == "MANIFEST_REVOKED":
        change = {"revoked_manifests": (request.digest,)}
    content = keyset.decode(desk_keyset(desk))
    made = make_keyset(environment="release", release=0)
    Path("keyset.cose").write_bytes(replace(made, content=content).next(**change).document)
    line = "release check out/my-board-1.2.0.request --keyset keyset.cose --published published --advisories osv.json"
    found = desk(line)
    assert found.code == 1
    assert f"check[{code}]" in found.err
    assert "1 finding\n" in found.out
    assert code in codes(desk.sign())
    assert desk.files == ["my-board-1.2.0.cdx.json", "my-board-1.2.0.request", "payload"] + ["private"] * (
        code == "ALGORITHM"
    )
    assert desk.log() == []


@pytest.mark.requirement("UPC03", "UPC04", "UPC10")
@pytest.mark.parametrize("where", ["key set", "statement", "private key"])
def test_development_keys_in_a_release_image_are_found(desk: Desk, where: str) -> None:
    keys.generate("dev", desk.folder, "release", "development")
    planted = {
        "key set": make_keyset().document,
        "statement": Path("dev.pub").read_text().encode(),
        "private key": Path("dev.key").read_bytes(),
    }[where]
    Path("fw.bin").write_bytes(frozen_app("one", b"\xff" + planted))
    assert set(codes(desk.create())) == {"DEVELOPMENT_KEY"}
    Path("fw.bin").write_bytes(frozen_app("one", desk_keyset(desk)))
    good(desk.create())
    Path("app").mkdir()
    Path("app/data.bin").write_bytes(planted * (1 if where == "key set" else 3))
    shutil.rmtree("made")
    assert set(codes(desk.create("--app app"))) == {"DEVELOPMENT_KEY"}


def desk_keyset(desk: Desk) -> bytes:
    return (desk.folder / "keyset.cose").read_bytes()


@pytest.mark.requirement("UPC10")
def test_stock_and_frozen_products_are_told_apart(desk: Desk) -> None:
    assert codes(desk.create("--mode stock")) == ["ENGINE"]
    Path("fw.bin").write_bytes(images.app("official MicroPython"))
    good(desk.create("--mode stock"))
    Path("app/sekisho_boot").mkdir(parents=True)
    Path("app/sekisho_boot/engine.py").write_text("pass\n")
    assert codes(desk.create("--mode stock --app app")) == ["ENGINE"]


@pytest.mark.requirement("UPC10")
def test_the_gate_knows_chip_and_size(desk: Desk) -> None:
    request = release_desk.read_request(_drafted(desk))
    images_, bill = release_desk.gather(request, Path("out"))

    def judge(data: bytes, chip: str = "esp32", table: str = "4MiB") -> list[str]:
        from sekisho_tools import layout

        inputs = release_check.Inputs(
            request.envelope, {"fw": data}, layout.load(table), chip, "frozen", desk_keyset(desk), bill, []
        )
        return [one.code for one in release_check.check(inputs)][:1]

    assert judge(images_["fw"]) == ["PUBLISHED"]
    assert judge(images_["fw"], chip="esp32s3") == ["IMAGE_CHIP"]
    assert judge(images_["fw"][:-1]) == ["IMAGE_FORMAT"] or judge(images_["fw"][:-1]) == ["IMAGE_SIZE"]
    assert judge(images_["fw"][:-1] + b"\0") == ["IMAGE_HASH"]


def _drafted(desk: Desk) -> Path:
    good(desk.draft())
    return Path("out/my-board-1.2.0.request")


@pytest.mark.requirement("UPC10")
def test_texts_must_say_something_in_every_language_they_are_in(desk: Desk) -> None:
    assert codes(desk.create(support="--contact a@b")) == ["SUPPORT", "SUPPORT"]
    assert codes(desk.create(support="--support-until 2020-01-01 --contact a@b")) == ["SUPPORT", "SUPPORT"]
    assert codes(desk.create(support="--support-until soon --contact a@b")) == ["SUPPORT", "SUPPORT"]
    Path("notes.ja.txt").write_text("\n")
    assert codes(desk.create()) == ["TEXT"]


def test_texts_that_devices_would_not_download_are_too_long(desk: Desk) -> None:
    from sekisho.envelope import MAX_DOWNLOAD

    assert release_check.MAX_DOWNLOAD == MAX_DOWNLOAD
    for language in ("de", "fr", "it"):
        Path(f"{language}.txt").write_text(f"{language} " * 1300)
    result = desk.create(" ".join(f"--text {language}={language}.txt" for language in ("de", "fr", "it")))
    assert codes(result) == ["LIMIT"]


def test_the_texts_of_a_release_are_shown_by_inspect(desk: Desk) -> None:
    good(desk.create())
    shown = good(desk("release inspect made/my-board-1.2.0.suit")).out
    for words in ("Fixes the pump.", "ポンプを修正しました。", "Support-Until: 2099-12-31", "security@example.com"):
        assert words in shown


# -- SBOM ----------------------------------------------------------------------------------------------------------


@pytest.mark.requirement("ORG06", "UPC10")
def test_a_release_names_its_sbom_and_the_sbom_names_the_release(desk: Desk) -> None:
    Path("app").mkdir()
    Path("app/main.py").write_text("print(1)\n")
    good(desk.create("--app app"))
    bill = Path("made/my-board-1.2.0.cdx.json").read_bytes()
    document = sbom.parse(bill)
    assert hashlib.sha256(frozen_app()).hexdigest() in sbom.hashes(document)
    names = {one["name"]: one for one in sbom.components(document)}
    assert names["micropython"]["version"] == "1.26.1"
    assert names["micropython"]["purl"] == "pkg:github/micropython/micropython@v1.26.1"
    assert names["esp-idf"]["version"] == "5.4"
    source = (BOOT / "sekisho_boot" / "engine.py").read_bytes()
    assert names["sekisho_boot/engine.py"]["hashes"][0]["content"] == hashlib.sha256(source).hexdigest()
    assert names["/main.py"]["hashes"][0]["content"] == hashlib.sha256(b"print(1)\n").hexdigest()
    text = suit.decode(Path("made/my-board-1.2.0.suit").read_bytes()).manifest.text
    assert text is not None
    assert f"SBOM-SHA256: {hashlib.sha256(bill).hexdigest()}" in text["ja"]["manifest-description"]
    files = " ".join(str(path) for path in [*Path("made/payload").iterdir(), *Path("made").glob("*.cdx.json")])
    class_id = json.loads(good(desk.create("--app app --json")).out)["class"]
    good(desk(f"publish --to site --class {class_id} made/my-board-1.2.0.suit {files}"))
    assert (Path("site/payload") / hashlib.sha256(bill).hexdigest()).read_bytes() == bill


@pytest.mark.requirement("ORG06", "UPC10")
def test_an_sbom_of_another_release_is_not_accepted(desk: Desk) -> None:
    line = "release sbom other.cdx.json --version 1 --vendor example.com --class my-board --firmware fw.bin"
    good(desk(line))
    good(desk.create("--sbom other.cdx.json"))
    Path("fw.bin").write_bytes(frozen_app("two"))
    assert codes(desk.create("--sbom other.cdx.json")) == ["SBOM"]
    Path("other.cdx.json").write_text('{"bomFormat": "CycloneDX"}')
    assert desk.create("--sbom other.cdx.json").error == "SBOM"


def advisory(severity: Any = "HIGH", **ranges: str) -> dict[str, Any]:
    events = [{"introduced": "0"}, *([{key: value} for key, value in ranges.items()])]
    return {
        "id": "TEST-1",
        "summary": "It falls over.",
        "affected": [
            {
                "package": {"ecosystem": "GitHub", "name": "micropython/micropython"},
                "ranges": [{"type": "SEMVER", "events": events}],
                "database_specific": {"severity": severity},
            }
        ],
    }


@pytest.mark.requirement("ORG06", "UPC10")
@pytest.mark.parametrize(
    ("found", "more", "expected"),
    [
        (advisory(), "", ["VULNERABLE"]),
        (advisory(fixed="1.27.0"), "", ["VULNERABLE"]),
        (advisory(fixed="1.26.1"), "", []),
        (advisory(last_affected="1.26.0"), "", []),
        (advisory(last_affected="1.26.1"), "", ["VULNERABLE"]),
        (advisory("LOW"), "", []),
        (advisory("LOW"), "--refuse-from low", ["VULNERABLE"]),
        (advisory("MODERATE"), "--refuse-from high", []),
        (advisory(None), "--refuse-from critical", ["VULNERABLE"]),
        (advisory() | {"withdrawn": "2025-01-01T00:00:00Z"}, "", []),
    ],
)
def test_known_vulnerabilities_from_the_threshold_on_stop_a_release(
    desk: Desk, found: dict[str, Any], more: str, expected: list[str]
) -> None:
    Path("osv.json").write_text(json.dumps([found]))
    result = desk.create(more)
    assert (codes(result) if expected else result.code) == (expected or 0)


def test_versions_sort_as_people_mean_them() -> None:
    ordered = ["0.9", "1.2-alpha", "1.2.0-rc1", "v1.2", "1.2.0.1", "1.2.1", "1.10", "2"]
    assert sorted(ordered, key=release_check.version_key) == ordered
    assert sorted(sorted(ordered), key=release_check.version_key) == ordered
    assert release_check.version_key("1.2") == release_check.version_key("v1.2.0+build7")


def test_broken_advisories_are_not_good_news(desk: Desk) -> None:
    for text in ("", "{}", "[1]", '{"id": "X", "affected": 1}'):
        Path("osv.json").write_text(text)
        assert desk.create().error == "ADVISORIES", text
    Path("empty").mkdir()
    assert desk.create("--advisories empty").error == "ADVISORIES"


@pytest.mark.requirement("ORG06")
def test_the_sbom_of_the_desk_tools_names_what_they_run_on(desk: Desk) -> None:
    good(desk("release sbom host.cdx.json --host"))
    document = sbom.parse(sbom.read(Path("host.cdx.json")))
    names = {one["name"]: one["version"] for one in sbom.components(document)}
    assert {"cryptography", "cbor2", "esptool", "cyclonedx-python-lib"} <= set(names)
    assert names == {one["name"]: one["purl"].partition("@")[2] for one in sbom.components(document)}


# -- environments ---------------------------------------------------------------------------------------------------


def test_a_development_release_is_told_what_it_lacks_and_signed(desk: Desk) -> None:
    keys.generate("dev", desk.folder, "release", "development")
    made = make_keyset()
    public = keys.load_statement("dev.pub").public_key
    Path("keyset.cose").write_bytes(made.next(release=(keyset.ReleaseKey(public),)).document)
    Path("fw.bin").write_bytes(images.app())
    line = "release create --version 1 --sequence 1 --firmware fw.bin --out dev --key dev.key --keyset keyset.cose"
    result = good(desk._run(f"{line} --vendor example.com --class my-board"))
    assert "a release key would not sign this (ENGINE, PUBLISHED, TEXT, SUPPORT, ADVISORIES)" in result.err


def test_files_in_a_file_system_are_read_back(tmp_path: Path) -> None:
    files = {"a.py": b"x" * 9000, "lib/b.mpy": b"M\x06"}
    data = flashimage.make_littlefs(0x20000, files, "app_0")
    assert flashimage.read_littlefs(data) == {"/a.py": b"x" * 9000, "/lib/b.mpy": b"M\x06"}
    assert flashimage.read_littlefs(b"no file system") is None
    assert release.MAX_TEXT < release_check.MAX_DOWNLOAD
