"""The layout of the static directory, and what `publish` refuses to put there."""

from __future__ import annotations

import hashlib
from pathlib import Path
from uuid import UUID

import pytest
from helpers.keys import signer
from sekisho_tools import suit
from sekisho_tools.errors import ToolError
from sekisho_tools.publish import publish

CLASS = UUID("1492af14-2569-5e48-bf42-9b2d51f2ab45")
OTHER = UUID("11111111-2222-3333-4444-555555555555")
PAYLOAD = b"\xe9 firmware"


def envelope(payload: bytes = PAYLOAD) -> bytes:
    uri = "/payload/" + hashlib.sha256(payload).hexdigest()
    release = suit.Release(bytes(16), CLASS.bytes, 1, (suit.Component.of("fw", payload, uri),))
    return suit.encode(release, [signer("release")])


def key_set(version: int, extra: bytes = b"\x80") -> bytes:
    return b"\xd8\x62\x84\x40\xa0\x43\xa1\x01" + bytes([version]) + extra


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    contents = {"release": envelope(), "payload": PAYLOAD, "stranger": b"\xe9 other firmware"}
    contents |= {f"keys{n}": key_set(n) for n in (1, 2, 3)} | {
        "keys2b": key_set(2, b"\x81\x00"),
        "broken": b"\xd8\x62\x84",
    }
    for name, data in contents.items():
        (tmp_path / name).write_bytes(data)
    return {name: tmp_path / name for name in contents}


def layout(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def code(*arguments: object) -> str:
    with pytest.raises(ToolError) as caught:
        publish(*arguments)  # type: ignore[arg-type]
    return caught.value.code


def test_files_stand_where_devices_look_and_the_release_comes_last(tmp_path, files):
    root = tmp_path / "site"
    done = publish(root, CLASS, [files["release"], files["keys1"], files["payload"]])
    digest = hashlib.sha256(PAYLOAD).hexdigest()
    expected = {f"payload/{digest}", f"{CLASS}/keyset-1.cose", f"{CLASS}/keyset.cose", f"{CLASS}/latest.suit"}
    assert layout(root) == expected
    assert done.written[-1] == root / str(CLASS) / "latest.suit"
    assert (root / "payload" / digest).read_bytes() == PAYLOAD


def test_the_chain_of_key_sets_grows_and_the_newest_stays_newest(tmp_path, files):
    root = tmp_path / "site"
    publish(root, CLASS, [files["keys3"], files["keys2"]])
    publish(root, CLASS, [files["keys1"]])
    assert layout(root / str(CLASS)) == {"keyset-1.cose", "keyset-2.cose", "keyset-3.cose", "keyset.cose"}
    assert (root / str(CLASS) / "keyset.cose").read_bytes() == key_set(3)


def test_refuses_another_key_set_of_a_published_version(tmp_path, files):
    root = tmp_path / "site"
    publish(root, CLASS, [files["keys2"]])
    assert code(root, CLASS, [files["keys2b"], files["payload"]]) == "KEYSET_CONTENT"
    assert layout(root) == {f"{CLASS}/keyset-2.cose", f"{CLASS}/keyset.cose"}


def test_class_and_payload_are_taken_from_the_release_and_from_beside_it(tmp_path, files):
    root, digest = tmp_path / "site", hashlib.sha256(PAYLOAD).hexdigest()
    files["payload"].unlink()
    files["payload"].mkdir()
    (tmp_path / "payload" / digest).write_bytes(PAYLOAD)
    publish(root, None, [files["release"]])
    assert layout(root) == {f"payload/{digest}", f"{CLASS}/latest.suit"}


def test_refuses_a_release_whose_payload_is_nowhere_or_is_another(tmp_path, files):
    root, digest = tmp_path / "site", hashlib.sha256(PAYLOAD).hexdigest()
    assert code(root, None, [files["release"]]) == "PAYLOAD"
    files["payload"].unlink()
    files["payload"].mkdir()
    (tmp_path / "payload" / digest).write_bytes(b"something else")
    assert code(root, None, [files["release"]]) == "IMAGE_DIGEST"
    assert code(root, None, [files["keys1"]]) == "CLASS"
    assert not root.exists()


def test_refuses_a_payload_that_the_release_does_not_name(tmp_path, files):
    assert code(tmp_path / "site", CLASS, [files["release"], files["stranger"]]) == "IMAGE_DIGEST"
    assert not (tmp_path / "site").exists()


def test_refuses_a_release_for_another_class(tmp_path, files):
    assert code(tmp_path / "site", OTHER, [files["release"]]) == "CLASS"


def test_refuses_two_releases_at_once_and_broken_files(tmp_path, files):
    assert code(tmp_path / "site", CLASS, [files["release"], files["release"]]) == "ENVELOPE"
    assert code(tmp_path / "site", CLASS, [files["broken"]]) == "KEYSET"
    assert code(tmp_path / "site", CLASS, [tmp_path / "none"]) == "FILE"
    assert not (tmp_path / "site").exists()
