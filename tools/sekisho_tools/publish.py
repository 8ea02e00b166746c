"""Puts releases where devices look for them: a directory that any static web server can serve.

``/<class uuid>/latest.suit``, ``/<class uuid>/keyset.cose`` (the newest), ``/<class uuid>/keyset-<version>.cose`` (the
chain a device follows link by link) and ``/payload/<sha256>``, where the SBOM of a release lies too. Every file appears
whole or not at all, and a release appears last, so a device never finds one whose payload is missing.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from . import (
    device_code,  # noqa: F401  (makes the device packages importable)
    suit,
)
from .errors import ToolError
from .files import read_file, write_atomic

LATEST = "latest.suit"
NEWEST = "keyset.cose"
BILL = ".cdx.json"
"""Suffix of an SBOM beside its release."""
MAX_BILL = 4 << 20
_PAYLOAD_URI = re.compile(r"(?:^|/)payload/([0-9a-f]{64})$")
_SBOM = re.compile(r"SBOM-SHA256: ([0-9a-f]{64})")
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


@dataclass(frozen=True)
class Gathered:
    """Files told apart: release (path, envelope) with its manifest, payloads (path, content), key sets by version."""

    release: tuple[Path, bytes] | None
    manifest: suit.Manifest | None
    class_id: UUID | None
    payloads: Sequence[tuple[Path, bytes]]
    key_sets: dict[int, bytes]


def gather(root: Path | None, class_id: UUID | None, files: Sequence[Path]) -> Gathered:
    """Read *files* and the payloads that the release names; *root* is where some may have been published already.

    Raises ToolError FILE, ENVELOPE, CLASS, IMAGE_DIGEST, PAYLOAD, KEYSET as `publish` does.
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
    if release is None:
        return Gathered(None, None, class_id, payloads, key_sets)
    manifest = suit.decode(release[1]).manifest
    class_id = _class_of(release[0], manifest, class_id)
    payloads += _named_payloads(root, release[0], manifest, payloads)
    return Gathered(release, manifest, class_id, payloads, key_sets)


def publish(root: Path, class_id: UUID | None, files: Sequence[Path]) -> Published:
    """Publish *files* (at most one release, any number of payloads and key sets; told apart by their content).

    *class_id* None takes the class that the release names. Payloads and SBOM that are not among *files* are taken from
    beside the release, where `release create` puts them, or from the site that the release lies in.

    Raises ToolError: FILE, ENVELOPE (two releases, or one that cannot be read), CLASS (the release does not name
    *class_id*, or nothing says which class is meant), IMAGE_DIGEST (a payload that the release does not name), PAYLOAD
    (one that it names is nowhere to be found), KEYSET, KEYSET_CONTENT (another key set of the same version is already
    published). Nothing is written when any check fails.
    """
    found = gather(root, class_id, files)
    release, payloads, key_sets = found.release, found.payloads, found.key_sets
    if found.class_id is None:
        raise ToolError("CLASS", "Key sets alone do not say for which product class they are; add --class.")
    folder = root / str(found.class_id)
    for version, data in key_sets.items():
        old = folder / link(version)
        if old.exists() and read_file(old) != data:
            raise ToolError(
                "KEYSET_CONTENT", f"{old} is another key set of version {version}; number the new one anew."
            )
    return _write(root, folder, release, payloads, key_sets)


def _class_of(path: Path, manifest: suit.Manifest, class_id: UUID | None) -> UUID:
    """The class to publish for: *class_id*, or the only one that the release names."""
    named = {UUID(bytes=parameters[2]) for parameters in manifest.parameters() if 2 in parameters}
    if class_id is None and len(named) == 1:
        return named.pop()
    if class_id is None or class_id not in named:
        wanted = f"not for class {class_id}" if class_id else "not for one class only, so add --class"
        raise ToolError("CLASS", f"{path} is {wanted}; see `sekisho release inspect {path}`.")
    return class_id


def _named_payloads(
    root: Path | None, release: Path, manifest: suit.Manifest, given: Sequence[tuple[Path, bytes]]
) -> list[tuple[Path, bytes]]:
    """The payloads that the release names and that were not given; everything given must be named."""
    named = {parameters[3].value for parameters in manifest.parameters() if 3 in parameters}
    fetched = {bytes.fromhex(match[1]) for match in map(_PAYLOAD_URI.search, manifest.uris()) if match}
    bills = sbom_digests(manifest)
    have = set()
    for path, data in given:
        digest = hashlib.sha256(data).digest()
        if digest not in (fetched or named) | bills:  # the image behind an encrypted payload stays private
            raise ToolError("IMAGE_DIGEST", f"{path} is not a payload that {release} names; check both files.")
        have.add(digest)
    found: list[tuple[Path, bytes]] = []
    for digest in sorted((fetched or named) - have):
        beside = payload_near(release, digest)
        if beside.exists():
            found.append((beside, read_file(beside, "payload")))
            if hashlib.sha256(found[-1][1]).digest() != digest:
                raise ToolError("IMAGE_DIGEST", f"{beside} is not what its name says; make the release again.")
        elif root is None or not (root / "payload" / digest.hex()).exists():
            raise ToolError("PAYLOAD", f"{release} needs a payload that is neither named here nor at {beside}.")
    return found + bill_beside(release, bills - have)


def payload_near(release: Path, digest: bytes) -> Path:
    """Where a payload of the file *release* lies: in ``payload/`` beside it, or in that of the site that it lies in."""
    beside, site = (folder / "payload" / digest.hex() for folder in (release.parent, release.parent.parent))
    return site if site.exists() and not beside.exists() else beside


def sbom_digests(manifest: suit.Manifest) -> set[bytes]:
    """SHA-256 of the SBOMs that the texts of a release name."""
    return {bytes.fromhex(digest) for digest in _SBOM.findall(" ".join(map(str, (manifest.text or {}).values())))}


def bill_beside(release: Path, wanted: set[bytes]) -> list[tuple[Path, bytes]]:
    """The SBOM beside *release* with its path, if there is one; ToolError SBOM for one that is not *wanted*."""
    places = [release.with_suffix(BILL), *(payload_near(release, digest) for digest in wanted)]
    path = next((one for one in places if one.exists()), None)
    if not wanted or path is None:
        return []
    data = read_file(path, "SBOM", MAX_BILL)
    if hashlib.sha256(data).digest() not in wanted:
        raise ToolError("SBOM", f"{path} is not the SBOM that {release} names; make the release again.")
    return [(path, data)]


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
