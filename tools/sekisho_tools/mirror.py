"""A local copy of what a manufacturer publishes, kept fresh, every byte verified before devices can find it.

For networks that do not reach the manufacturer's server: one machine does, and serves the copy to devices. It trusts
that server no more than a device does. Key sets are followed link by link from one that the administrator brought;
a release is judged under the newest of them by the device's own code; payloads are compared with the signed digest.
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

from . import keyset, publish, release, suit
from .download import MAX_KEYSET, fetch
from .errors import ToolError
from .files import MAX_READ, read_file, write_atomic

MAX_LINKS = 1000
"""Key sets taken in one go."""
MIN_PAUSE = 10
"""Fewest seconds between two looks at the manufacturer's server."""


@dataclass
class Mirrored:
    """One look: files *written*, *keyset* version that is the newest now, *sequence* of the release that is offered
    (None: none), *notes* for the administrator."""

    written: list[Path] = field(default_factory=list)
    keyset: int = 0
    sequence: int | None = None
    notes: list[str] = field(default_factory=list)


def mirror(
    base: str, root: Path, class_id: UUID, known: bytes, *, only_keysets: bool = False, now: int | None = None
) -> Mirrored:
    """Bring the copy in *root* up to date with the server at *base*; *known* is a key set that is trusted already.

    Raises ToolError: NETWORK, SERVER, FILE, FILE_TOO_LARGE, and the device's reasons for a key set, release or payload
    that it would refuse. What was verified before the error is kept; nothing else is written.
    """
    done = Mirrored()
    newest = _follow_keysets(base, root, class_id, known, done)
    if not only_keysets:
        _take_release(base, root, class_id, newest, done, int(time.time()) if now is None else now)
    return done


def _put(root: Path, class_id: UUID, files: dict[str, bytes], done: Mirrored) -> None:
    with tempfile.TemporaryDirectory(prefix="sekisho-mirror-") as directory:
        paths = [write_atomic(Path(directory) / name, data) for name, data in files.items()]
        done.written += publish.publish(root, class_id, paths).written


def _follow_keysets(base: str, root: Path, class_id: UUID, known: bytes, done: Mirrored) -> bytes:
    content = keyset.decode(known)
    folder = root / str(class_id)
    if not (folder / publish.link(content.version)).exists():
        _put(root, class_id, {publish.link(content.version): known}, done)
    for _ in range(MAX_LINKS):
        name = publish.link(content.version + 1)
        local = folder / name
        document = read_file(local, "key set", MAX_KEYSET) if local.exists() else None
        document = document or fetch(base, f"{class_id}/{name}", MAX_KEYSET)
        if document is None:
            break
        content = keyset.verify(document, known)
        if not local.exists():
            _put(root, class_id, {name: document}, done)
        known = document
    done.keyset = content.version
    _check_newest(base, class_id, content.version, done)
    return known


def _check_newest(base: str, class_id: UUID, version: int, done: Mirrored) -> None:
    """Tell of a chain with a gap: devices that slept could not follow it either."""
    newest = fetch(base, f"{class_id}/{publish.NEWEST}", MAX_KEYSET)
    if newest is None:
        return
    try:
        offered = keyset.decode(newest).version
    except ToolError as error:
        done.notes.append(f"The server's {publish.NEWEST} cannot be read: {error.sentence}")
        return
    if offered > version:
        done.notes.append(f"The server has key set {offered}, but not the link {version + 1} that leads to it.")


def _take_release(base: str, root: Path, class_id: UUID, newest: bytes, done: Mirrored, now: int) -> None:
    envelope = fetch(base, f"{class_id}/{publish.LATEST}", release.MAX_RELEASE)
    local = root / str(class_id) / publish.LATEST
    old = read_file(local, "release", release.MAX_RELEASE) if local.exists() else None
    if envelope is None:
        if old is not None:
            done.notes.append("The server offers no release any more; the copy keeps the last one.")
        return
    plan = _judge(envelope, class_id, newest, now)
    done.sequence = plan.sequence
    if old is not None and old != envelope:
        before = suit.decode(old).manifest.sequence_number
        if plan.sequence < before:
            raise ToolError("SEQUENCE", f"The server offers release {plan.sequence}; the copy has {before} already.")
    files = {}
    decoded = suit.decode(envelope)
    for digest, size in release.files_of(decoded, plan):
        if not _have(root, digest):
            files[digest.hex()] = _payload(base, digest, size)
    for digest in sorted(publish.sbom_digests(decoded.manifest)):
        if not _have(root, digest):
            files.update(_bill(base, digest, done))
    if old != envelope or files:
        _put(root, class_id, {**files, publish.LATEST: envelope}, done)


def _judge(envelope: bytes, class_id: UUID, newest: bytes, now: int) -> Any:
    trusted = release.load_keyset(newest)
    if trusted.expired(now):
        raise ToolError("EXPIRED_KEYSET", "The newest key set has expired; no device would install anything.")
    identity = release.own_identity(suit.decode(envelope))
    if class_id.bytes not in identity.classes:
        raise ToolError("CLASS", f"The release on the server is not for class {class_id}.")
    return release.check(envelope, trusted, identity, now)


def _have(root: Path, digest: bytes) -> bool:
    path = root / "payload" / digest.hex()
    return path.exists() and hashlib.sha256(read_file(path, "payload")).digest() == digest


def _payload(base: str, digest: bytes, size: int) -> bytes:
    data = fetch(base, release.payload_path(digest), min(size, MAX_READ))
    if data is None:
        raise ToolError("SERVER", f"The server has no payload {digest.hex()}, which its release needs.")
    if len(data) != size or hashlib.sha256(data).digest() != digest:
        raise ToolError("IMAGE_DIGEST", f"The payload {digest.hex()} is not what the release says.")
    return data


def _bill(base: str, digest: bytes, done: Mirrored) -> dict[str, bytes]:
    """The SBOM for auditors; devices do not need it, so a server without it is told and no error."""
    data = fetch(base, release.payload_path(digest), publish.MAX_BILL)
    if data is None:
        done.notes.append(f"The server has no SBOM {digest.hex()}, which its release names.")
        return {}
    if hashlib.sha256(data).digest() != digest:
        raise ToolError("SBOM", f"The SBOM {digest.hex()} on the server is not the one that the release names.")
    return {digest.hex(): data}


def keep_fresh(look: Callable[[], Mirrored], every: int, say: Callable[[str], None], rounds: int | None = None) -> None:
    """Look again and again, *every* seconds (MIN_PAUSE or more); an error is said and tried again at the next round."""
    while rounds is None or rounds > 0:
        try:
            done = look()
            for path in done.written:
                say(f"wrote {path}")
            for note in done.notes:
                say(f"note: {note}")
        except ToolError as error:
            say(str(error))
        rounds = None if rounds is None else rounds - 1
        if rounds != 0:
            time.sleep(max(every, MIN_PAUSE))
