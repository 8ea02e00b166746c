"""Deterministic development keys and ready signed key sets for everybody's tests."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sekisho_tools import cose, keyset
from sekisho_tools.cose import MemorySigner

ISSUED = 1_767_225_600  # 2026-01-01, s since 1970
YEAR = 365 * 86_400
CLASS = bytes(range(16))  # a product class for tests that need just one


def signer(role: str, number: int = 0) -> MemorySigner:
    """Key *number* of *role*, the same one on every call and machine: ``signer("root", 1)``."""
    return MemorySigner(hashlib.sha256(f"sekisho test key: {role} {number}".encode()).digest())


@dataclass(frozen=True)
class MadeKeySet:
    """A signed key set and the keys behind it."""

    content: keyset.KeySet
    document: bytes
    roots: tuple[MemorySigner, ...]
    release: tuple[MemorySigner, ...]
    operators: tuple[MemorySigner, ...]

    def next(self, *, signed_by: Sequence[MemorySigner] | None = None, **changes: Any) -> MadeKeySet:
        """The following version with *changes* to the content, signed by these roots or by *signed_by*."""
        content = replace(self.content, **{"version": self.content.version + 1, **changes})
        document = keyset.sign(content, self.roots if signed_by is None else signed_by)
        return replace(self, content=content, document=document)


def make_keyset(
    version: int = 1,
    roots: int = 1,
    threshold: int = 1,
    release: int = 1,
    operators: int = 0,
    *,
    components: tuple[str, ...] = ("fw", "app"),
    classes: tuple[bytes, ...] | None = None,
    environment: str = "development",
    issued_at: int = ISSUED,
    expires: int = ISSUED + 10 * YEAR,
    limits: Mapping[str, tuple[int, int]] | None = None,
    revoked_keys: Sequence[bytes] = (),
    revoked_manifests: Sequence[bytes] = (),
    **members: Any,
) -> MadeKeySet:
    """A key set signed by all its roots; keys are ``signer(role, 0..n-1)``, *members* go to `keyset.KeySet`."""
    root_keys = tuple(signer("root", n) for n in range(roots))
    release_keys = tuple(signer("release", n) for n in range(release))
    operator_keys = tuple(signer("operator", n) for n in range(operators))
    ceiling = keyset.DEFAULT_CEILING
    content = keyset.KeySet(
        version=version,
        issued_at=issued_at,
        expires=expires,
        environment=keyset.ENVIRONMENTS[environment],
        threshold=threshold,
        roots=tuple(key.public_key for key in root_keys),
        release=tuple(keyset.ReleaseKey(key.public_key, components, classes) for key in release_keys),
        operators=tuple(keyset.OperatorKey(key.public_key) for key in operator_keys),
        revoked_keys=tuple(revoked_keys),
        revoked_manifests=tuple(revoked_manifests),
        limits={"fw": (0, ceiling), "app": (0, ceiling)} if limits is None else dict(limits),
        **members,
    )
    return MadeKeySet(content, keyset.sign(content, root_keys), root_keys, release_keys, operator_keys)


__all__ = ["CLASS", "ISSUED", "YEAR", "MadeKeySet", "cose", "make_keyset", "signer"]
