"""Releases for tests, written with cbor2 alone, so that they check the tools' encoder rather than use it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import cbor2
from sekisho_boot import suit

from helpers.keys import signer

NAMES = {0: b"fw", 1: b"app"}


@dataclass(frozen=True)
class Release:
    """An envelope and its payloads by component; ``plan`` is what the engine should make of it."""

    envelope: bytes
    payloads: dict[int, bytes]
    plan: Any


def encode(value: Any) -> bytes:
    return cbor2.dumps(value, canonical=True)


def make(
    sequence: int,
    payloads: dict[int, bytes],
    *,
    key: Any = None,
    vendor: bytes,
    product: bytes,
    ties: dict[int, int] | None = None,
    use_before: int | None = None,
    size: int | None = None,
    digest: bytes | None = None,
) -> Release:
    """A signed release of *payloads* (component -> image); *ties*: component -> least sequence it must have."""
    ties = ties or {}
    components = sorted(set(payloads) | set(ties))
    many = len(components) > 1
    shared: list[Any] = []
    install: list[Any] = []
    validate: list[Any] = []
    targets = []
    for index, component in enumerate(components):
        select = [12, index] if many else []
        if component in payloads:
            image = payloads[component]
            sha = digest or hashlib.sha256(image).digest()
            length = len(image) if size is None else size
            parameters = {1: vendor, 2: product, 3: encode([-16, sha]), 14: length}
            if use_before is not None:
                parameters[4] = use_before
            shared += [*select, 20, parameters, 1, 15, 2, 15]
            if use_before is not None:
                shared += [4, 15]
            uri = "../payload/" + sha.hex()
            install += [*select, 20, {21: uri}, 21, 2, 3, 15]
            validate += [*select, 3, 15]
            targets.append(suit.Target(component, sha, length, uri))
        else:
            shared += [*select, 20, {28: encode([2, [ties[component]]])}, 28, 15]
    manifest = {
        1: 1,
        2: sequence,
        3: encode({2: [[NAMES[c]] for c in components], 4: encode(shared)}),
        7: encode(validate),
        20: encode(install),
    }
    body = encode(manifest)
    manifest_digest = hashlib.sha256(encode(body)).digest()
    signed = encode([-16, manifest_digest])
    key = key or signer("release", 0)
    protected = encode({1: -19})
    signature = key.sign(encode(["Signature1", protected, b"", signed]))
    block = cbor2.dumps(cbor2.CBORTag(18, [protected, {4: key.key_id}, None, signature]))
    envelope = b"\xd8\x6b\xa2\x02" + encode(encode([signed, block])) + b"\x03" + encode(body)
    plan = SimpleNamespace(sequence=sequence, digest=manifest_digest, targets=targets, key=key.key_id)
    return Release(envelope, payloads, plan)
