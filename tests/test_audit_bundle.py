"""What auditors get: complete, the same bytes every time, free of secrets, and no change to it stays unnoticed."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import struct
import zipfile
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
from helpers.company import NAME, PASSPHRASE, Company
from sekisho_tools import audit, audit_file, device_code, keys, packing, pkcs8, sbom, seal, signlog
from sekisho_tools.audit_words import NOTES, WORDS
from sekisho_tools.errors import ToolError

KEYSETS = "--keyset keyset-1.cose --keyset keyset-2.cose --keyset keyset-3.cose"
WHOLE = f"audit bundle --out audit.zip {KEYSETS} --release made --published site"


def files_of(path: str = "audit.zip") -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


class Links(HTMLParser):
    """Collects where a page leads, and which elements it has."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.links: list[str] = []
        self.tags: set[str] = set()
        self.feed(page.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [value or "" for name, value in attrs if name in ("href", "src")]
        assert not [name for name, _ in attrs if name.startswith("on")]


# -- what is in it ---------------------------------------------------------------------------------------------------


@pytest.mark.requirement("ORG04")
def test_a_bundle_holds_what_an_auditor_asks_for(company: Company) -> None:
    company.good(WHOLE)
    files = files_of()
    for path in sorted((device_code.BOOT / "sekisho_boot").glob("*.py")):
        assert files[f"engine/{path.name}"] == path.read_bytes()
        assert hashlib.sha256(path.read_bytes()).hexdigest() in files["engine.html"].decode()
    sizes = re.search(r"(\d+) lines \(budget 1800\), (\d+) bytes of .mpy", files["engine.html"].decode())
    assert sizes is not None
    assert int(sizes[1]) == sum(
        len(path.read_text().splitlines()) for path in (device_code.BOOT / "sekisho_boot").glob("*.py")
    )
    assert len(sbom.components(sbom.parse(files[f"sbom/sekisho{sbom.SUFFIX}"]))) > 20
    home = next(name for name in files if name.endswith("/release.suit")).rpartition("/")[0]
    assert files[f"{home}/release.suit"] == Path(f"made/{NAME}.suit").read_bytes()
    assert files[f"{home}/sbom{sbom.SUFFIX}"] == Path(f"made/{NAME}.cdx.json").read_bytes()
    assert files[f"{home}/release.json"] == Path(f"made/{NAME}.release.json").read_bytes()
    assert files["signing-log.jsonl"] == Path("keys/signing-log.jsonl").read_bytes()
    for name in ("threat-model.html", "SECURITY.html", "LICENSE.txt", "licences.html", "evidence/powercut.html"):
        assert files[name], name
    assert {f"decisions/{path.stem}.html" for path in (device_code.ROOT / "docs/decisions").glob("*.md")} <= set(files)
    listed = json.loads(files["manifest.json"])["files"]
    assert set(listed) == set(files) - {"manifest.json"}


@pytest.mark.requirement("ORG04")
def test_the_requirement_table_shows_the_last_results_and_for_what_they_were_found(tmp_path: Path) -> None:
    for name in ("docs/evidence", "docs/decisions"):
        (tmp_path / name).mkdir(parents=True)
    guideline = (device_code.ROOT / "docs" / "guideline.toml").read_text()
    (tmp_path / "docs" / "guideline.toml").write_text(guideline)
    results = {
        "UPE01": {"tests/test_a.py::test_good": "passed"},
        "UPE02": {"tests/test_a.py::test_good": "passed", "tests/test_a.py::test_bad": "failed"},
        "UPE03": {"tests/test_a.py::test_left_out": "skipped"},
    }
    record = {
        "format": audit.RECORD_FORMAT,
        "commit": "c0ffee" * 6 + "c0ff",
        "changed": False,
        "date": "2026-11-20",
        "boot": device_code.boot_digest(),
        "requirements": results,
    }
    place = tmp_path / "docs" / "evidence" / audit.RECORD
    place.write_text(json.dumps(record))
    files, gaps = audit.gather(audit.Inputs(), tmp_path)
    page = files["requirements.html"].decode()
    assert "2026-11-20" in page
    assert record["commit"] in page
    rows = dict(re.findall(r"<h2><span class=\"(good|bad)\">[^<]*</span> (\w+)", page)[i][::-1] for i in range(77))
    assert len(rows) == 77
    assert [name for name, how in rows.items() if how == "good"] == ["UPE01"]
    assert "1 / 77; 2026-11-20, c0ffeec0ffee" in files["index.html"].decode()
    assert not [one for one in gaps if one.startswith("requirements")]
    place.write_text(json.dumps(record | {"boot": "0" * 64, "changed": True}))
    files, gaps = audit.gather(audit.Inputs(), tmp_path)
    told = [one for one in gaps if one.startswith("requirements")]
    assert "was recorded for engine 0000000000000000" in told[0]
    assert "not committed" in told[1]
    assert "recorded for engine 0000000000000000" in files["index.html"].decode()
    assert "別のエンジン 0000000000000000" in files["index.ja.html"].decode()
    for language in ("ja", "en"):
        assert set(NOTES[language]) == set(NOTES["en"])
        assert set(WORDS[language]) == set(WORDS["en"])
    place.unlink()
    files, gaps = audit.gather(audit.Inputs(), tmp_path)
    assert "requirements: no results are recorded here (make requirements)" in gaps


@pytest.mark.requirement("ORG04")
def test_the_key_inventory_says_when_keys_were_made_revoked_and_expire(company: Company) -> None:
    company.good(WHOLE)
    found = {one["label"]: one for one in json.loads(files_of()["keys.json"])}
    stolen, release = found["stolen <b>of</b> Aiko"], found["release <b>of</b> Aiko"]
    told = keys.load_statement(Path("keys/stolen.pub"))
    assert (stolen["key_id"], stolen["created"]) == (told.key_id.hex(), told.created)
    assert (stolen["role"], stolen["environment"], stolen["algorithm"]) == ("release", "release", "Ed25519")
    assert (stolen["in_key_sets"], stolen["revoked"], stolen["revoked_in"]) == ([2], "2026-01-01", 3)
    assert (release["in_key_sets"], release["revoked"], release["expires"]) == ([2, 3], None, "2035-12-30")
    assert release["kept"] == "file, encrypted"
    assert found["toy <b>of</b> Aiko"]["environment"] == "development"
    assert {one["role"] for one in found.values()} == {"root", "release", "approver"}
    page = files_of()["keys.html"].decode()
    assert "<b>" not in page
    assert "2026-01-01 (key set 3)" in page


@pytest.mark.requirement("ORG04")
def test_published_releases_stand_in_it_with_the_verdict_on_their_signatures(company: Company) -> None:
    company.good(WHOLE)
    told = json.loads(files_of()["releases.json"])
    assert [(one["sequence"], one["version"], one["published"]) for one in told] == [(2, "1.2.0", True)]
    assert told[0]["signature"].startswith("verified, by ")
    Path("made").rename("away")
    company.create("stolen", "keyset-2.cose")
    company.good(WHOLE)
    told = json.loads(files_of()["releases.json"])  # the same manifest, signed by another key
    verdicts = {one["published"]: one["signature"] for one in told}
    assert (len(told), len({one["manifest_sha256"] for one in told})) == (2, 1)
    assert verdicts[True].startswith("verified, by ")
    assert verdicts[False].endswith("which key set 3 revokes")
    gaps = company.good(f"{WHOLE} --json").out
    assert any("which key set 3 revokes" in one for one in json.loads(gaps)["gaps"])
    company.good("audit bundle --out audit.zip --release made --keyset keyset-1.cose")
    assert "does NOT verify" in json.loads(files_of()["releases.json"])[0]["signature"]


def test_a_broken_signing_log_is_told_and_left_out(company: Company) -> None:
    company.good(f"{WHOLE} --sign-with keys/aiko.key")
    log = Path("keys") / signlog.NAME
    log.write_bytes(log.read_bytes().replace(b"release my-board", b"release my-other", 1))
    assert "log: the chain does not hold" in company.good(WHOLE).err
    files = files_of()
    assert signlog.NAME not in files
    assert "the chain does not hold" in files["index.html"].decode()


def test_without_a_company_only_gaps_are_told(company: Company) -> None:
    Path("keys").rename("hidden")
    told = company.good("audit bundle --out audit.zip").err
    for gap in ("keys: no key directory", "log: no signing log", "releases: no release"):
        assert gap in told
    assert company("audit bundle --out audit.zip --release hidden").error == "RELEASE"
    assert company("audit bundle --out audit.zip --keys nowhere").error == "FILE"


# -- how it is -------------------------------------------------------------------------------------------------------


@pytest.mark.requirement("ORG04")
def test_every_page_is_reached_from_the_index_and_nothing_is_loaded_or_run(company: Company) -> None:
    company.good(WHOLE)
    files = files_of()
    seen, waiting = set(), ["index.html"]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        if not name.endswith(".html"):
            continue
        found = Links(files[name])
        assert not found.tags & {"script", "img", "link", "iframe", "object", "form"}, name
        assert b"default-src 'none'" in files[name]
        assert b'name="viewport"' in files[name]
        for link in found.links:
            if not link.startswith("https://"):
                target = str(Path("/", name).parent.joinpath(link).resolve())[1:]
                assert target in files, f"{name} leads to {link}"
                waiting.append(target)
    kept_beside = {name for name in files if name.endswith(("release.suit", "release.json"))}
    assert set(files) - seen == {"manifest.json", "LICENSE.txt", *kept_beside}
    assert '<html lang="ja">' in files["index.ja.html"].decode()
    assert Links(files["index.ja.html"]).links[1:] == Links(files["index.html"]).links[1:]


@pytest.mark.requirement("ORG04")
def test_the_same_inputs_give_the_same_bytes(company: Company) -> None:
    company.good(WHOLE)
    first = Path("audit.zip").read_bytes()
    company.good(WHOLE)
    assert Path("audit.zip").read_bytes() == first
    with zipfile.ZipFile("audit.zip") as archive:
        entries = archive.infolist()
    assert [one.filename for one in entries] == sorted(one.filename for one in entries)
    assert {(one.date_time, one.compress_type) for one in entries} == {((1980, 1, 1, 0, 0, 0), zipfile.ZIP_STORED)}


@pytest.mark.requirement("ORG04")
def test_no_secret_of_the_desk_is_in_it(company: Company) -> None:
    """Private keys raw and as they stand in their files, the passphrase, the group key; in any usual spelling."""
    company.good(f"{WHOLE} --sign-with keys/aiko.key")
    secrets = [PASSPHRASE.encode(), packing.read_group_key(Path("keys/line-a.kek")).kek]
    for path in sorted(Path("keys").glob("*.key")):
        _, encrypted, _ = keys.read_key_file(path)
        secrets += [encrypted, pkcs8.load(encrypted, PASSPHRASE.encode()).private_bytes_raw()]
    assert len(secrets) == 12
    whole = b"".join(files_of().values()) + Path("audit.zip").read_bytes()
    squeezed = re.sub(rb"\s+", b"", whole)
    for secret in secrets:
        for spelled in (secret, secret.hex().encode(), secret.hex().upper().encode(), base64.b64encode(secret)):
            assert spelled not in whole
            assert spelled not in squeezed
        assert base64.b64encode(secret)[:40] not in squeezed
    assert b"PRIVATE KEY" not in whole
    assert Path("keys/line-a.kek").read_bytes().strip() not in whole


def test_a_private_key_that_slipped_into_a_document_stops_the_bundle(company: Company, tmp_path: Path) -> None:
    (tmp_path / "docs" / "decisions").mkdir(parents=True)
    (tmp_path / "docs" / "decisions" / "1.md").write_text("# Why\n\n" + Path("keys/root.key").read_text())
    with pytest.raises(ToolError) as caught:
        audit.gather(audit.Inputs(), tmp_path)
    assert caught.value.code == "AUDIT_SECRET"
    assert company("audit bundle --out audit.zip --log keys/root.key").code == 0
    assert b"PRIVATE KEY" not in Path("audit.zip").read_bytes()
    assert company("audit bundle --out audit.zip --release keys/root.key").code == 1


# -- verifying -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small() -> dict[str, bytes]:
    files = {"index.html": b"<p>hello</p>", "engine/a.py": b"pass\n", "keys.json": b"[]\n"}
    return {**files, "manifest.json": audit_file.manifest(files)}


def refusal(data: bytes) -> ToolError:
    with pytest.raises(ToolError) as caught:
        audit_file.verify(data)
    return caught.value


def plain_zip(files: list[tuple[str, bytes]], compression: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in files:
            archive.writestr(zipfile.ZipInfo(name), data, compression)
    return out.getvalue()


@pytest.mark.requirement("ORG04")
def test_removed_added_and_changed_files_are_named(small: dict[str, bytes]) -> None:
    assert audit_file.verify(audit_file.pack(small)).files == 4
    removed = {name: data for name, data in small.items() if name != "keys.json"}
    assert refusal(audit_file.pack(removed)).sentence.endswith("removed: keys.json.")
    assert refusal(audit_file.pack({**small, "new.html": b""})).sentence.endswith("added: new.html.")
    changed = refusal(audit_file.pack({**small, "engine/a.py": b"fail\n"}))
    assert (changed.code, changed.sentence.endswith("changed: engine/a.py.")) == ("AUDIT_CHANGED", True)
    longer = refusal(audit_file.pack({**small, "engine/a.py": b"pass\n\n"}))
    assert longer.sentence.endswith("changed: engine/a.py.")
    renamed = {name.replace("keys", "kays"): data for name, data in small.items()}
    assert "removed: keys.json; added: kays.json" in refusal(audit_file.pack(renamed)).sentence
    without = {name: data for name, data in small.items() if name != "manifest.json"}
    assert refusal(audit_file.pack(without)).code == "AUDIT_MANIFEST"
    # ... and with another zip tool than ours
    assert "changed: engine/a.py" in refusal(plain_zip([*{**small, "engine/a.py": b"x"}.items()])).sentence


@pytest.mark.requirement("ORG04")
@pytest.mark.parametrize(
    "name", ["../evil", "a/../../evil", "/etc/passwd", "a//b", "C:/x", "a\\..\\b", ".ssh/id", "a/", "é", "x" * 161]
)
def test_names_that_lead_elsewhere_are_refused(small: dict[str, bytes], name: str) -> None:
    told = refusal(plain_zip([*small.items(), (name, b"evil")]))
    assert told.code == "AUDIT_ZIP"
    with pytest.raises(ToolError):
        audit_file.pack({name: b""})


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def hidden(data: bytes) -> bytes:
    """A file behind the last one that the central directory does not name."""
    at = data.index(b"PK\x01\x02")
    other = plain_zip([("hidden", b"x")])
    end = struct.pack("<L", at + other.index(b"PK\x01\x02"))
    return data[:at] + other[: other.index(b"PK\x01\x02")] + data[at:-6] + end + data[-2:]


TRICKS: dict[str, Callable[[bytes], bytes]] = {
    "something in front": lambda data: b"#!/bin/sh\n" + data,
    "something behind": lambda data: data + b"more",
    "a comment": lambda data: data[:-2] + b"\x04\x00more",
    "cut off": lambda data: data[:-1],
    "cut in a file": lambda data: data[:60],
    "another name in the directory": lambda data: (
        data[: data.rindex(b"keys.json")] + b"kays.json" + data[data.rindex(b"keys.json") + 9 :]
    ),
    "another time": lambda data: flipped(data, 12),
    "no archive": lambda data: b"hello",
    "nothing": lambda data: b"",
}


@pytest.mark.requirement("ORG04")
@pytest.mark.parametrize("trick", TRICKS)
def test_what_hides_in_the_archive_is_found(small: dict[str, bytes], trick: str) -> None:
    data = TRICKS[trick](audit_file.pack(small))
    assert refusal(data).code == "AUDIT_ZIP"


def test_a_file_that_the_directory_does_not_name_is_found(small: dict[str, bytes]) -> None:
    data = hidden(audit_file.pack(small))
    assert "hidden" not in zipfile.ZipFile(io.BytesIO(data)).namelist()
    assert "added: hidden" in refusal(data).sentence


def test_no_byte_of_a_bundle_can_change_unnoticed(small: dict[str, bytes]) -> None:
    data = audit_file.pack(small)
    for at in range(len(data)):
        with pytest.raises(ToolError):
            audit_file.verify(flipped(data, at))


@pytest.mark.requirement("ORG04")
def test_duplicates_and_bombs_are_refused(small: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.warns(UserWarning, match="Duplicate"):
        twice = plain_zip([*small.items(), ("keys.json", b"[1]")])
    assert "twice" in refusal(twice).sentence
    assert "twice" in refusal(plain_zip([*small.items(), ("KEYS.json", b"[1]")])).sentence
    bomb = plain_zip([("zeros", bytes(10 << 20))], compression=zipfile.ZIP_DEFLATED)
    assert len(bomb) < 20_000
    assert "compressed" in refusal(bomb).sentence
    monkeypatch.setattr(audit_file, "MAX_FILES", 3)
    assert "more than 3 files" in refusal(plain_zip([*small.items()])).sentence
    with pytest.raises(ToolError, match="at most 3 files"):
        audit_file.pack(small)
    monkeypatch.setattr(audit_file, "MAX_BUNDLE", 100)
    assert "more than 100 bytes" in refusal(bytes(101)).sentence


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"[]",
        b"{}",
        b"[" * 100_000,
        b'{"files": {}, "format": "sekisho-audit-2"}',
        b'{\n "files": {\n  "a": []\n },\n "format": "sekisho-audit-1"\n}\n',
        b'{\n "files": {\n  "a": {\n   "size": "1"\n  }\n },\n "format": "sekisho-audit-1"\n}\n',
        b'{\n "files": [],\n "format": "sekisho-audit-1"\n}\n',
        b'{\n "files": {},\n "files": {},\n "format": "sekisho-audit-1"\n}\n',
    ],
)
def test_a_manifest_that_is_none_is_refused(document: bytes) -> None:
    assert refusal(audit_file.pack({"manifest.json": document})).code == "AUDIT_MANIFEST"


@pytest.mark.requirement("ORG04")
def test_a_signed_bundle_shows_who_stands_for_it(company: Company) -> None:
    company.good(f"{WHOLE} --sign-with keys/aiko.key")
    assert "not checked" in company.good("audit verify audit.zip").out
    assert "approver key 'aiko" in company.good("audit verify audit.zip --key keys/aiko.pub").out
    assert company("audit verify audit.zip --key keys/release.pub").error == "KEY_UNKNOWN"
    assert company("audit verify audit.zip --keyset keyset-3.cose").error == "KEY_UNKNOWN"
    assert company("audit verify audit.zip --key keys/root.pub").error == "KEY_ROLE"
    last = signlog.verify(Path("keys") / signlog.NAME)[-1]
    files = files_of()
    assert (last.what, last.role) == ("audit bundle audit.zip", "approver")
    assert last.object == hashlib.sha256(files["manifest.json"]).hexdigest()
    files["index.html"] += b" "
    files["manifest.json"] = audit_file.manifest(files)  # what somebody does who changes the manifest, too
    Path("changed.zip").write_bytes(audit_file.pack(files))
    assert company("audit verify changed.zip --key keys/aiko.pub").error == "SIGNATURE"
    del files["manifest.json.cose"]
    Path("bare.zip").write_bytes(audit_file.pack(files))
    assert company("audit verify bare.zip --key keys/aiko.pub").error == "AUDIT_UNSIGNED"
    assert "not signed" in company.good("audit verify bare.zip").out
    company.good(f"{WHOLE} --sign-with keys/release.key")
    assert "release key of key set 3" in company.good("audit verify audit.zip --keyset keyset-3.cose").out
    company.good(f"{WHOLE} --sign-with keys/stolen.key")
    assert company("audit verify audit.zip --keyset keyset-3.cose").error == "KEY_REVOKED"
    assert company(f"{WHOLE} --sign-with keys/root.key").error == "KEY_ROLE"


@pytest.mark.parametrize("document", [b"", b"\xd2\x84", b"hello", bytes(600)])
def test_what_is_no_signature_is_refused(small: dict[str, bytes], document: bytes) -> None:
    data = audit_file.pack({**small, audit_file.SIGNATURE: document})
    assert refusal(data).code == "SIGNATURE"
    with pytest.raises(ToolError):
        audit_file.verify(data, seal.Trusted({}))


def test_an_unprotected_key_and_a_damaged_one_are_told(company: Company) -> None:
    told = keys.load_statement(Path("keys/release.pub"))
    _, data, _ = keys.read_key_file(Path("keys/release.key"))
    plain = keys._key_file(pkcs8.load(data, PASSPHRASE.encode()), told, None)
    Path("keys/release.key").write_text(plain)
    Path("keys/toy.key").write_text("nothing")
    Path("keys/toy.pub").unlink()
    err = company.good(WHOLE).err
    assert f"({told.key_id.hex()}) is not encrypted" in err
    assert "toy.key cannot be read (KEY_FORMAT)" in err
    assert b"BEGIN PRIVATE" not in Path("audit.zip").read_bytes()
