"""Key sets on the host: put together, encode, sign, verify, compare (docs/decisions/0004-key-set-format.md).

The encoding is written here with `cbor2`, apart from the device's parser, so that each checks the other. Verdicts are
the device's own: `verify` calls `sekisho_boot.keyset`, so desk and device can never disagree about a document.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import cbor2

from . import cose
from . import device_code as _device_code  # makes sekisho_boot importable
from .errors import ToolError
from .text import printable

assert _device_code
from sekisho import orders  # noqa: E402
from sekisho_boot import keyset as device  # noqa: E402
from sekisho_boot import reasons  # noqa: E402

ENVIRONMENTS = {"development": device.DEVELOPMENT, "release": device.RELEASE}
"""Name of an environment -> its number in a key set."""

OPERATOR_RIGHTS: dict[str, int] = dict(orders.RIGHTS)
"""Name of an operator's right -> its number in a key set: which operator orders the key may sign."""

DEFAULT_CEILING = 0xFFFF_FFFF
"""Ceiling of a component unless another is asked for: above every counter or date anybody numbers releases with, and
far below 2^63-1, so that a leaked release key cannot push a device's counter out of reach."""

_NO_CEILING: int = device.MAX_NUMBER


@dataclass(frozen=True)
class ReleaseKey:
    """A key that may sign manifests for *components*; *classes* are 16-byte class ids, None means every class."""

    public_key: bytes
    components: tuple[str, ...] = ("fw", "app")
    classes: tuple[bytes, ...] | None = None


@dataclass(frozen=True)
class OperatorKey:
    """A key that may sign the operator orders in *rights* (numbers of `OPERATOR_RIGHTS`)."""

    public_key: bytes
    rights: tuple[int, ...] = tuple(OPERATOR_RIGHTS.values())
    classes: tuple[bytes, ...] | None = None


@dataclass(frozen=True)
class KeySet:
    """The content of a key set. Times are seconds since 1970; *limits* maps a component to (floor, ceiling).

    *algorithms* is the policy: part (1 signatures, 2 digests, 3 content encryption) -> COSE algorithm numbers.
    """

    version: int
    issued_at: int
    expires: int
    environment: int
    threshold: int
    roots: tuple[bytes, ...]
    release: tuple[ReleaseKey, ...] = ()
    operators: tuple[OperatorKey, ...] = ()
    revoked_keys: tuple[bytes, ...] = ()
    revoked_manifests: tuple[bytes, ...] = ()
    limits: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    hardware_floor: int = 0
    algorithms: Mapping[int, tuple[int, ...]] | None = None
    settings: Mapping[Any, Any] | None = None

    @property
    def environment_name(self) -> str:
        """``development`` or ``release``."""
        return {number: name for name, number in ENVIRONMENTS.items()}[self.environment]

    def encode(self) -> bytes:
        """The payload: deterministic CBOR (RFC 8949 section 4.2.1)."""
        members: dict[int, Any] = {
            1: self.version,
            2: self.issued_at,
            3: self.expires,
            4: self.environment,
            5: [self.threshold, list(self.roots)],
            6: [_grant(key.public_key, key.components, key.classes) for key in self.release],
            7: [_grant(key.public_key, key.rights, key.classes) for key in self.operators],
            8: list(self.revoked_keys),
            9: list(self.revoked_manifests),
            10: {name: list(pair) for name, pair in self.limits.items()},
            11: self.hardware_floor,
        }
        if self.algorithms is not None:
            members[12] = {part: list(numbers) for part, numbers in self.algorithms.items()}
        if self.settings is not None:
            members[13] = dict(self.settings)
        return cose.encode(members)

    def key_roles(self) -> dict[bytes, tuple[str, bytes]]:
        """Every key in it: key id -> (role, public key)."""
        roles: list[tuple[str, Iterable[bytes]]] = [
            ("root", self.roots),
            ("release", (key.public_key for key in self.release)),
            ("operator", (key.public_key for key in self.operators)),
        ]
        return {cose.key_id(key): (role, key) for role, keys in roles for key in keys}


def _grant(public_key: bytes, rights: Sequence[Any], classes: Sequence[bytes] | None) -> dict[int, Any]:
    grant: dict[int, Any] = {1: public_key, 2: list(rights)}
    if classes is not None:
        grant[3] = list(classes)
    return grant


_SENTENCES = {
    "KEYSET": "it is malformed, or its times, threshold or limits contradict each other",
    "KEYSET_VERSION": "its version does not follow that of the key set before it; publish versions one after the other",
    "KEYSET_CONTENT": "there is another key set with the same version; a version is never issued twice",
    "KEYSET_THRESHOLD": "too few root keys have signed it (the threshold of the old and of the new roots is needed)",
    "KEYSET_ENVIRONMENT": "it belongs to the other environment; development and release are never mixed",
    "KEYSET_KEY_REUSE": "a key is in it twice, in two roles, after its revocation, or a revocation was taken back",
    "ALGORITHM": "its algorithm policy leaves out Ed25519 or SHA-256, without which no device can update",
    "LIMIT": "it is larger, or has more entries, than a device takes",
}


@contextmanager
def _device_verdict() -> Iterator[None]:
    """Turns the device's refusal into a ToolError with the same code."""
    try:
        yield
    except reasons.Refused as refused:
        code = reasons.name(refused.code)
        why = _SENTENCES.get(code, "it is not a well-formed key set document")
        raise ToolError(code, f"A device would refuse this key set: {why}.") from refused


def decode(document: bytes) -> KeySet:
    """Read a document without asking who signed it; what a device could not read is refused with its reason code."""
    with _device_verdict():
        device.parse(document)
    try:
        members = cbor2.loads(cose.payload_of(document))
    except (cbor2.CBORDecodeError, ValueError) as error:  # devices do not look into the settings
        raise ToolError("CBOR", f"The settings in this key set cannot be read: {error}.") from error
    return KeySet(
        version=members[1],
        issued_at=members[2],
        expires=members[3],
        environment=members[4],
        threshold=members[5][0],
        roots=tuple(members[5][1]),
        release=tuple(ReleaseKey(e[1], tuple(e[2]), _classes(e)) for e in members[6]),
        operators=tuple(OperatorKey(e[1], tuple(e[2]), _classes(e)) for e in members[7]),
        revoked_keys=tuple(members[8]),
        revoked_manifests=tuple(members[9]),
        limits={name: (pair[0], pair[1]) for name, pair in members[10].items()},
        hardware_floor=members[11],
        algorithms={part: tuple(n) for part, n in members[12].items()} if 12 in members else None,
        settings=members.get(13),
    )


def _classes(entry: Mapping[int, Any]) -> tuple[bytes, ...] | None:
    return tuple(entry[3]) if 3 in entry else None


def sign(content: KeySet, signers: Sequence[cose.Signer]) -> bytes:
    """*content* as a document signed by *signers*; none is allowed, for signatures that come later."""
    document = cose.sign(content.encode(), signers)
    if len(document) > device.MAX_KEYSET:
        raise ToolError(
            "LIMIT", f"The key set has {len(document)} bytes but devices take {device.MAX_KEYSET}; drop old entries."
        )
    return document


def verify(document: bytes, previous: bytes | None = None) -> KeySet:
    """The device's verdict on *document*: as the replacement of *previous*, or as the first one of a build.

    Raises ToolError with the device's reason code. Who signed *previous* is taken as checked before.
    """
    with _device_verdict():
        if previous is None:
            device.genesis(document)
        else:
            device.accept(device.parse(previous), document)
    return decode(document)


def check_unsigned(document: bytes, previous: bytes | None = None) -> None:
    """Everything that `verify` checks but the signatures, for a draft. Raises ToolError as `verify` does."""
    with _device_verdict():
        new = device.parse(document)
        if previous is not None:
            old = device.parse(previous)
            if new.version != old.version + 1:
                raise reasons.Refused(reasons.KEYSET_VERSION)
            device.follows(old, new)


def content_digest(document: bytes) -> str:
    """SHA-256 over the content (not the signatures) in hex: what root holders compare before they sign."""
    return hashlib.sha256(cose.payload_of(document)).hexdigest()


# -- comparing ----------------------------------------------------------------------------------------------------


def _time(seconds: int) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
    except (OverflowError, ValueError, OSError):
        return f"{seconds} s after 1970"


def _right_names(rights: Iterable[int]) -> str:
    names = {number: name for name, number in OPERATOR_RIGHTS.items()}
    return ", ".join(names.get(right, f"right {right}") for right in rights)


def _for_classes(classes: Sequence[bytes] | None) -> str:
    return "every class" if classes is None else "class " + ", ".join(c.hex() for c in classes)


def _key_lines(content: KeySet) -> dict[bytes, str]:
    lines = {cose.key_id(key): "root key" for key in content.roots}
    for grant in content.release:
        rights = " and ".join(grant.components)
        lines[cose.key_id(grant.public_key)] = f"release key for {rights}, {_for_classes(grant.classes)}"
    for order in content.operators:
        rights = _right_names(order.rights)
        lines[cose.key_id(order.public_key)] = f"operator key for {rights}; {_for_classes(order.classes)}"
    return lines


def _ceiling(value: int) -> str:
    return "none" if value >= _NO_CEILING else str(value)


def diff(old: KeySet | None, new: KeySet, labels: Mapping[bytes, str] | None = None) -> list[str]:
    """What changes from *old* to *new*, one readable line each, nothing left out; *labels* name key ids."""
    lines: list[str] = []

    def changed(what: str, before: object, after: object) -> None:
        if before != after:
            lines.append(f"{what}: {before} -> {after}" if before is not None else f"{what}: {after}")

    def called(key_id: bytes) -> str:
        label = (labels or {}).get(key_id)
        return f"{key_id.hex()} ({label})" if label else key_id.hex()

    def was(value: object) -> object:
        return None if old is None else value

    before = old or new
    changed("version", was(before.version), new.version)
    changed("environment", was(before.environment_name), new.environment_name)
    changed("issued", was(_time(before.issued_at)), _time(new.issued_at))
    changed("expires", was(_time(before.expires)), _time(new.expires))
    changed(
        "root signatures needed",
        was(f"{before.threshold} of {len(before.roots)}"),
        f"{new.threshold} of {len(new.roots)}",
    )
    old_keys, new_keys = _key_lines(old) if old else {}, _key_lines(new)
    lines += [f"+ {text} {called(key)}" for key, text in new_keys.items() if key not in old_keys]
    for key, text in new_keys.items():
        if key in old_keys and old_keys[key] != text:
            lines.append(f"! {called(key)}: {old_keys[key]} -> {text}")
    lines += [f"- {text} {called(key)}" for key, text in old_keys.items() if key not in new_keys]
    old_revoked, old_manifests = (old.revoked_keys, old.revoked_manifests) if old else ((), ())
    lines += [f"+ revoked key {called(key)}" for key in new.revoked_keys if key not in old_revoked]
    lines += [f"- revoked key {called(key)}" for key in old_revoked if key not in new.revoked_keys]
    lines += [f"+ revoked manifest {m.hex()}" for m in new.revoked_manifests if m not in old_manifests]
    lines += [f"- revoked manifest {m.hex()}" for m in old_manifests if m not in new.revoked_manifests]
    free = (0, _NO_CEILING)
    for name in sorted({*(old.limits if old else ()), *new.limits}):
        a, b = old.limits.get(name, free) if old else None, new.limits.get(name, free)
        changed(f"security floor of {name}", a and a[0], b[0])
        changed(f"ceiling of {name}", a and _ceiling(a[1]), _ceiling(b[1]))
    changed("hardware floor", was(before.hardware_floor), new.hardware_floor)
    changed("algorithm policy", _policy(old) if old else None, _policy(new))
    defaults, wanted = _settings(old), _settings(new)
    for name in sorted({*defaults, *wanted}):
        changed(f"secure default of {name}", defaults.get(name, "none") if old else None, wanted.get(name, "none"))
    return [printable(line) for line in lines]


def _settings(content: KeySet | None) -> dict[str, str]:
    """The secure default settings as text."""
    return {str(name): _value(value) for name, value in ((content and content.settings) or {}).items()}


def _value(value: object) -> str:
    try:
        return json.dumps(value)
    except (TypeError, ValueError, RecursionError):  # devices do not look into the settings, so anything may be there
        return repr(value)


ALGORITHMS = {-19: "Ed25519", -16: "SHA-256", -65534: "A128CTR", -65533: "A192CTR", -65532: "A256CTR"}
"""COSE number -> name of what an algorithm policy usually names."""


def _policy(content: KeySet) -> str:
    parts = {1: "signatures", 2: "digests", 3: "content encryption"}
    if content.algorithms is None:
        return "none"

    def called(numbers: Sequence[int]) -> str:
        return ", ".join(f"{ALGORITHMS[n]} ({n})" if n in ALGORITHMS else str(n) for n in numbers) or "nothing"

    return "; ".join(f"{parts.get(part, part)} {called(n)}" for part, n in sorted(content.algorithms.items()))
