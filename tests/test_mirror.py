"""The local copy: complete, fresh, and nothing in it that a device would refuse."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import pytest
from helpers import images, keys, releases
from helpers.cli import Runner
from sekisho_tools import download, mirror, packing, publish, release
from sekisho_tools.errors import ToolError
from sekisho_tools.identity import Identity
from sekisho_tools.serve import StaticServer

IDENTITY = Identity.of("example.com", "lamp")
CLASS = UUID(bytes=IDENTITY.classes[0])
FIRST = keys.make_keyset()
SIGNER = keys.signer("release", 0)
NOW = keys.ISSUED + 1000


@dataclass
class Upstream:
    """The manufacturer's site."""

    root: Path
    url: str
    home: Path

    def release(self, sequence: int, signer: keys.cose.Signer = SIGNER, identity: Identity = IDENTITY) -> bytes:
        payload = images.app(f"release {sequence}")
        envelope = releases.envelope(payload, identity, signer, sequence)
        self.put({f"{sequence}.suit": envelope, f"{sequence}.bin": payload})
        return payload

    def put(self, files: dict[str, bytes]) -> None:
        folder = self.root.parent / "in"
        folder.mkdir(exist_ok=True)
        for path in folder.iterdir():
            path.unlink()
        for name, data in files.items():
            (folder / name).write_bytes(data)
        publish.publish(self.root, CLASS, sorted(folder.iterdir()))


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[Upstream]:
    root = tmp_path / "upstream"
    root.mkdir()
    with StaticServer(root) as server:
        yield Upstream(root, server.url, root / str(CLASS))


@pytest.fixture
def local(tmp_path: Path) -> Path:
    return tmp_path / "local"


def tree(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def look(upstream: Upstream, local: Path, **more: object) -> mirror.Mirrored:
    return mirror.mirror(upstream.url, local, CLASS, FIRST.document, now=NOW, **more)  # type: ignore[arg-type]


def refused(upstream: Upstream, local: Path) -> str:
    before = tree(local) if local.exists() else {}
    with pytest.raises(ToolError) as caught:
        look(upstream, local)
    after = tree(local)
    assert {name for name in after if after[name] != before.get(name)} <= {
        f"{CLASS}/keyset-1.cose",
        f"{CLASS}/keyset.cose",
    }
    return caught.value.code


def test_the_copy_is_the_original_and_follows_it(upstream: Upstream, local: Path) -> None:
    second = FIRST.next()
    upstream.put({"1.cose": FIRST.document, "2.cose": second.document})
    upstream.release(1)
    done = look(upstream, local)
    assert tree(local) == tree(upstream.root)
    assert (done.keyset, done.sequence) == (2, 1)
    assert look(upstream, local).written == []
    upstream.put({"3.cose": second.next().document})
    upstream.release(2)
    assert look(upstream, local).keyset == 3
    assert tree(local) == tree(upstream.root)


@pytest.mark.requirement("UPC05")
@pytest.mark.parametrize("encrypted", [False, True])
def test_packed_payloads_are_copied_as_devices_fetch_them(upstream: Upstream, local: Path, encrypted: bool) -> None:
    upstream.put({"k.cose": FIRST.document})
    groups = (packing.GroupKey("line-a", bytes(16)),) if encrypted else ()
    parts = (release.Component("fw", images.app() + bytes(9000)),)
    request = release.Request("example.com", "lamp", "2", 2, parts, compress=True, groups=groups)
    made = release.create(request, SIGNER, FIRST.document)
    plain = () if encrypted else (parts[0].data,)
    payloads = {str(number): data for number, data in enumerate((*made.packed.values(), *plain))}
    upstream.put({"2.suit": made.envelope, **payloads})
    assert look(upstream, local).sequence == 2
    assert {name: data for name, data in tree(local).items() if name.startswith("payload")} == {
        release.payload_path(hashlib.sha256(data).digest()): data for data in payloads.values()
    }


def with_bill(sequence: int) -> tuple[release.Made, bytes]:
    parts = (release.Component("fw", images.app()),)
    bill = b'{"an": "SBOM"}'
    request = release.Request("example.com", "lamp", str(sequence), sequence, parts, bill=bill)
    return release.create(request, SIGNER, FIRST.document), bill


@pytest.mark.requirement("ORG06")
def test_the_sbom_is_copied_with_its_release(upstream: Upstream, local: Path) -> None:
    upstream.put({"k.cose": FIRST.document})
    made, bill = with_bill(1)
    release.write(made, upstream.root.parent / "made")
    publish.publish(upstream.root, CLASS, [upstream.root.parent / "made" / "lamp-1.suit"])
    path = f"payload/{hashlib.sha256(bill).hexdigest()}"
    assert tree(upstream.root)[path] == bill, "publishing takes the SBOM that lies beside the release"
    look(upstream, local)
    assert tree(local) == tree(upstream.root)
    (local / path).write_bytes(b"rot")
    (upstream.root / path).write_bytes(b"other")
    assert refused(upstream, local) == "SBOM"
    (upstream.root / path).unlink()
    assert "SBOM" in look(upstream, local).notes[0], "devices do not need it, so the rest is copied"


def test_an_sbom_of_another_release_is_not_published(tmp_path: Path) -> None:
    made, _ = with_bill(1)
    release.write(made, tmp_path / "made")
    (tmp_path / "made" / "lamp-1.cdx.json").write_bytes(b"{}")
    with pytest.raises(ToolError, match="SBOM"):
        publish.publish(tmp_path / "site", CLASS, [tmp_path / "made" / "lamp-1.suit"])
    assert not (tmp_path / "site").exists()


def test_revocations_arrive_while_releases_wait_for_approval(upstream: Upstream, local: Path) -> None:
    upstream.put({"1.cose": FIRST.document, "2.cose": FIRST.next().document})
    upstream.release(1)
    done = look(upstream, local, only_keysets=True)
    assert (done.keyset, done.sequence) == (2, None)
    assert {Path(name).name for name in tree(local)} == {"keyset-1.cose", "keyset-2.cose", "keyset.cose"}


@pytest.mark.parametrize("what", ["signature", "payload", "class", "missing", "keyset", "sequence", "revoked"])
def test_what_a_device_would_refuse_never_gets_into_the_copy(upstream: Upstream, local: Path, what: str) -> None:
    code = {
        "signature": "KEY_UNKNOWN",
        "payload": "IMAGE_DIGEST",
        "class": "CLASS",
        "missing": "SERVER",
        "keyset": "ROOT_THRESHOLD",
        "sequence": "SEQUENCE",
        "revoked": "KEY_REVOKED",
    }[what]
    upstream.put({"1.cose": FIRST.document})
    if what == "signature":
        upstream.release(1, keys.signer("release", 99))
    elif what == "class":
        other = Identity.of("example.com", "pump")
        upstream.release(1)
        (upstream.home / "latest.suit").write_bytes(releases.envelope(images.app(), other, SIGNER, 2))
    elif what == "keyset":
        forged = FIRST.next(signed_by=[keys.signer("root", 77)])
        (upstream.home / "keyset-2.cose").write_bytes(forged.document)
    elif what == "sequence":
        upstream.release(5)
        look(upstream, local)
        upstream.release(4)
    elif what == "revoked":
        revoking = FIRST.next(release=(), revoked_keys=(SIGNER.key_id,))
        upstream.put({"2.cose": revoking.document})
        upstream.release(1)
        look(upstream, local, only_keysets=True)
    else:
        upstream.release(1)
        payload = next((upstream.root / "payload").iterdir())
        payload.unlink() if what == "missing" else payload.write_bytes(b"x" + payload.read_bytes()[1:])
    got = refused(upstream, local)
    assert got == code or (what == "keyset" and got in ("KEYSET", "SIGNATURE", "THRESHOLD", "KEYSET_THRESHOLD"))


def test_a_chain_with_a_gap_is_told(upstream: Upstream, local: Path) -> None:
    third = FIRST.next().next()
    upstream.put({"1.cose": FIRST.document, "3.cose": third.document})
    assert "3" in look(upstream, local).notes[0]


def test_a_damaged_copy_is_mended(upstream: Upstream, local: Path) -> None:
    upstream.put({"1.cose": FIRST.document})
    upstream.release(1)
    look(upstream, local)
    payload = next((local / "payload").iterdir())
    payload.write_bytes(b"rot")
    look(upstream, local)
    assert tree(local) == tree(upstream.root)


def test_dead_and_wrong_servers_are_named(local: Path, upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    for url, code in (("http://127.0.0.1:9", "NETWORK"), ("file:///etc", "SERVER"), ("nonsense", "SERVER")):
        with pytest.raises(ToolError) as caught:
            mirror.mirror(url, local, CLASS, FIRST.document)
        assert caught.value.code == code
    (upstream.home).mkdir()
    (upstream.home / "keyset-2.cose").write_bytes(bytes(download.MAX_KEYSET + 1))
    with pytest.raises(ToolError) as caught:
        look(upstream, local)
    assert caught.value.code == "FILE_TOO_LARGE"


def test_the_command_keeps_going_after_an_error(
    upstream: Upstream, local: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Runner(capsys, monkeypatch)
    (local.parent / "k.cose").write_bytes(FIRST.document)
    upstream.put({"1.cose": FIRST.document})
    upstream.release(1)
    line = f"mirror {upstream.url} {local} --class {CLASS} --keyset {local.parent}/k.cose"
    done = run(line)
    assert done.code == 0, done.err
    assert "release 1" in done.out
    heard: list[str] = []
    answers = iter([ToolError("NETWORK", "gone"), mirror.Mirrored(notes=["back"])])

    def look_once() -> mirror.Mirrored:
        answer = next(answers)
        if isinstance(answer, ToolError):
            raise answer
        return answer

    monkeypatch.setattr(mirror.time, "sleep", lambda _: None)
    mirror.keep_fresh(look_once, 10, heard.append, rounds=2)
    assert heard == ["error[NETWORK]: gone", "note: back"]
