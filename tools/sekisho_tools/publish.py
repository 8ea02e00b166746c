"""Puts releases where devices look for them: a directory that any static web server can serve.

``/<class uuid>/latest.suit``, ``/<class uuid>/keyset.cose`` (the newest), ``/<class uuid>/keyset-<version>.cose`` (the
chain a device follows link by link) and ``/payload/<sha256>``. Every file appears whole or not at all, and a release
appears last, so a device never finds one whose payload is missing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from . import device_code  # noqa: F401  (makes the device packages importable)
from .errors import ToolError
from .files import read_file, write_atomic

LATEST = "latest.suit"
NEWEST = "keyset.cose"
_ENVELOPE_TAG = bytes.fromhex("d86b")
_COSE_SIGN_TAG = bytes.fromhex("d862")


def link(version: int) -> str:
    """File name of one key set of the chain."""
    return f"keyset-{version}.cose"


@dataclass
class Published:
    """What a publication wrote, in this order."""

    written: list[Path] = field(default_factory=list)


def _key_set_version(path: Path, document: bytes) -> int:
    from sekisho.envelope import keyset_version
    from sekisho_boot.reasons import Refused

    try:
        return int(keyset_version(document))
    except Refused as error:
        raise ToolError("KEYSET", f"{path} begins like a key set but cannot be read as one.") from error


def publish(root: Path, class_id: UUID, files: Sequence[Path]) -> Published:
    """Publish *files* (at most one release, any number of payloads and key sets; told apart by their content).

    Raises ToolError: FILE, ENVELOPE (two releases, or one that cannot be read), CLASS (the release does not name
    *class_id*), IMAGE_DIGEST (a payload that the release does not name), KEYSET, KEYSET_CONTENT (another key set of the
    same version is already published). Nothing is written when any check fails.
    """
    release: tuple[Path, bytes] | None = None
    payloads: list[tuple[Path, bytes]] = []
    key_sets: dict[int, bytes] = {}
    for path in files:
        data = read_file(path)
        if data.startswith(_ENVELOPE_TAG):
            if release:
                raise ToolError("ENVELOPE", f"{release[0]} and {path} are both releases; publish them one by one.")
            release = path, data
        elif data.startswith(_COSE_SIGN_TAG):
            key_sets[_key_set_version(path, data)] = data
        else:
            payloads.append((path, data))
    folder = root / str(class_id)
    if release:
        _check_release(release[0], release[1], class_id)
    for path, data in payloads:
        if release and hashlib.sha256(data).digest() not in release[1]:
            raise ToolError("IMAGE_DIGEST", f"{path} is not a payload that {release[0]} names; check both files.")
    for version, data in key_sets.items():
        old = folder / link(version)
        if old.exists() and read_file(old) != data:
            raise ToolError(
                "KEYSET_CONTENT", f"{old} is another key set of version {version}; number the new one anew."
            )
    return _write(root, folder, release, payloads, key_sets)


def _check_release(path: Path, data: bytes, class_id: UUID) -> None:
    from sekisho.envelope import sever
    from sekisho_boot.reasons import Refused

    try:
        core = sever(data)
    except Refused as error:
        raise ToolError("ENVELOPE", f"{path} begins like a release but cannot be read as one.") from error
    if class_id.bytes not in core:
        raise ToolError("CLASS", f"{path} is not for class {class_id}; see `sekisho release inspect {path}`.")


def _write(
    root: Path,
    folder: Path,
    release: tuple[Path, bytes] | None,
    payloads: Sequence[tuple[Path, bytes]],
    key_sets: dict[int, bytes],
) -> Published:
    done = Published()
    for _, data in payloads:
        done.written.append(write_atomic(root / "payload" / hashlib.sha256(data).hexdigest(), data))
    for version in sorted(key_sets):
        done.written.append(write_atomic(folder / link(version), key_sets[version]))
        newest = folder / NEWEST
        if not newest.exists() or _key_set_version(newest, read_file(newest)) <= version:
            done.written.append(write_atomic(newest, key_sets[version]))
    if release:
        done.written.append(write_atomic(folder / LATEST, release[1]))
    return done
