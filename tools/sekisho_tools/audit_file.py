"""The file of an audit bundle: an archive that every zip tool opens, and that is verified without trusting any of it.

Files are stored, not compressed, in the order of their names, without times: the same files are the same bytes on every
machine, and nothing can unpack to more than it is. ``manifest.json`` lists size and SHA-256 of each file but itself and
its signature ``manifest.json.cose``. After the files have been held against the manifest the archive is made again from
them and compared, so that whatever a zip reader might see differently is found, wherever in the archive it hides.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from . import seal
from .errors import ToolError
from .text import printable

MANIFEST = "manifest.json"
SIGNATURE = MANIFEST + seal.SUFFIX
FORMAT = "sekisho-audit-1"
MAX_BUNDLE = 64 << 20
"""Bytes of a bundle; as nothing is compressed, of what is in it, too."""
MAX_FILES = 2_000
MAX_NAME = 160
MAX_MANIFEST = 1 << 20
TOLD = 10
"""Names that an error lists before it only counts."""

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]*(?:/[A-Za-z0-9_][A-Za-z0-9._+-]*)*")
_HEADER = struct.Struct("<4s5H3L2H")
_LOCAL = b"PK\x03\x04"
_LONG_AGO = (1980, 1, 1, 0, 0, 0)
_MODE = 0o100644 << 16


def _bad(sentence: str) -> ToolError:
    return ToolError("AUDIT_ZIP", sentence)


def check_name(name: str) -> None:
    """Refuse with AUDIT_ZIP a name that is not a plain relative path: no ``..``, no root, no drive, no odd letter."""
    if len(name) > MAX_NAME or not _NAME.fullmatch(name):
        raise _bad(f"{name[:MAX_NAME]!r} is no name for a file in a bundle; do not unpack this archive.")


# -- writing ------------------------------------------------------------------------------------------------------


def manifest(files: Mapping[str, bytes]) -> bytes:
    """The manifest of *files*."""
    listed = {
        name: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for name, data in sorted(files.items())
        if name not in (MANIFEST, SIGNATURE)
    }
    return _dump({"format": FORMAT, "files": listed})


def _dump(content: Any) -> bytes:
    return (json.dumps(content, indent=1, sort_keys=True) + "\n").encode()


def pack(files: Mapping[str, bytes]) -> bytes:
    """The archive of *files* (name -> content), the same bytes every time. Raises ToolError AUDIT_ZIP over a limit."""
    if len(files) > MAX_FILES or sum(map(len, files.values())) > MAX_BUNDLE:
        raise _bad(f"A bundle has at most {MAX_FILES} files and {MAX_BUNDLE} bytes; name fewer releases.")
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            check_name(name)
            entry = zipfile.ZipInfo(name, _LONG_AGO)
            entry.create_system = 3
            entry.external_attr = _MODE
            archive.writestr(entry, files[name])
    return out.getvalue()


# -- reading ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Verdict:
    """A bundle whose files are those of its manifest. *signed_by* is None where nobody signed.

    *checked*: whether the signature was verified with a key that the reader named.
    """

    files: int
    size: int
    manifest_sha256: str
    signed_by: str | None
    checked: bool


def unpack(data: bytes) -> dict[str, bytes]:
    """Name -> content of every file, from the front. ToolError AUDIT_ZIP: names, duplicates, packing, limits."""
    if len(data) > MAX_BUNDLE:
        raise _bad(f"The bundle has more than {MAX_BUNDLE} bytes.")
    files: dict[str, bytes] = {}
    seen: set[str] = set()
    at = 0
    while data[at : at + 4] == _LOCAL:
        if len(files) == MAX_FILES:
            raise _bad(f"The bundle has more than {MAX_FILES} files.")
        if len(data) - at < _HEADER.size:
            raise _bad("The bundle was cut off.")
        _, _, flags, method, _, _, _, packed, size, name_size, extra = _HEADER.unpack_from(data, at)
        start = at + _HEADER.size + name_size + extra
        name = data[at + _HEADER.size : start - extra].decode("latin-1")
        check_name(name)
        if name.lower() in seen:
            raise _bad(f"{name} is in the bundle twice.")
        if method or flags or packed != size:
            raise _bad(f"{name} is compressed, encrypted or of unknown length; a bundle stores its files as they are.")
        if start + size > len(data):
            raise _bad(f"The bundle was cut off in {name}.")
        seen.add(name.lower())
        files[name] = data[start : start + size]
        at = start + size
    if not files:
        raise _bad("This is no audit bundle.")
    return files


def listed(document: bytes) -> dict[str, dict[str, Any]]:
    """What a manifest lists. Raises ToolError AUDIT_MANIFEST."""
    try:
        content: Any = json.loads(document) if len(document) <= MAX_MANIFEST else None
        good = content is not None and _dump(content) == document and set(content) == {"format", "files"}
        good = good and content["format"] == FORMAT and all(_good(one) for one in content["files"].values())
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        good = False
    if not good:
        raise ToolError("AUDIT_MANIFEST", f"{MANIFEST} of this bundle is missing, damaged, or of another format.")
    found: dict[str, dict[str, Any]] = content["files"]
    return found


def _good(entry: dict[str, Any]) -> bool:
    return set(entry) == {"size", "sha256"} and isinstance(entry["size"], int) and isinstance(entry["sha256"], str)


def verify(data: bytes, trusted: seal.Trusted | None = None) -> Verdict:
    """Judge the bundle *data*; *trusted* are the keys of which one must have signed it.

    Raises ToolError: AUDIT_ZIP (no bundle, or one with more in it than its files), AUDIT_MANIFEST, AUDIT_CHANGED
    (which files were removed, added or changed), AUDIT_UNSIGNED, SIGNATURE, KEY_UNKNOWN, KEY_REVOKED.
    """
    files = unpack(data)
    document = files.get(MANIFEST, b"")
    _compare(listed(document), files)
    if pack(files) != data:
        raise _bad("The archive is not as sekisho wrote it: it holds bytes besides its files, or was packed again.")
    seal_of = files.get(SIGNATURE)
    if seal_of is None:
        if trusted is not None:
            raise ToolError("AUDIT_UNSIGNED", "Nobody has signed this bundle; ask for a signed one.")
        signed_by = None
    elif trusted is not None:
        signed_by = seal.check(document, seal_of, trusted)
    else:
        signed_by = seal.key_id_of(seal_of).hex()
    return Verdict(
        len(files),
        len(data),
        hashlib.sha256(document).hexdigest(),
        signed_by,
        signed_by is not None and trusted is not None,
    )


def _compare(wanted: Mapping[str, Mapping[str, Any]], files: Mapping[str, bytes]) -> None:
    have = {name: data for name, data in files.items() if name not in (MANIFEST, SIGNATURE)}
    said = {
        "removed": [name for name in wanted if name not in have],
        "added": [name for name in have if name not in wanted],
        "changed": [
            name
            for name, data in have.items()
            if name in wanted
            and (len(data), hashlib.sha256(data).hexdigest()) != (wanted[name]["size"], wanted[name]["sha256"])
        ],
    }
    parts = [f"{how}: {_names(names)}" for how, names in said.items() if names]
    if parts:
        raise ToolError("AUDIT_CHANGED", f"The bundle is not what it was; {'; '.join(parts)}.")


def _names(names: list[str]) -> str:
    more = f" and {len(names) - TOLD} more" if len(names) > TOLD else ""
    return printable(", ".join(sorted(names)[:TOLD])) + more
