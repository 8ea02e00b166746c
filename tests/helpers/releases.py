"""The smallest signed release of a firmware image, made from nothing but CBOR and COSE."""

from __future__ import annotations

import hashlib
from typing import Any

import cbor2
from sekisho_tools import cose
from sekisho_tools.identity import Identity


def envelope(
    image: bytes, identity: Identity, signer: cose.Signer, sequence: int = 1, *, digest: bytes | None = None
) -> bytes:
    """A SUIT envelope for component ``fw`` that holds *image*; *digest* makes it one for another image."""

    def packed(value: Any) -> bytes:
        return cose.encode(value)

    image_digest = packed([-16, digest or hashlib.sha256(image).digest()])
    parameters = {1: identity.vendor, 2: identity.classes[0], 3: image_digest, 14: len(image)}
    shared = packed([20, parameters, 1, 15, 2, 15])
    common = packed({2: [[b"fw"]], 4: shared})
    install = packed([20, {21: f"/payload/{hashlib.sha256(image).hexdigest()}"}, 21, 15, 3, 15])
    manifest = packed({1: 1, 2: sequence, 3: common, 7: packed([3, 15]), 20: install})
    signed = packed([-16, hashlib.sha256(packed(manifest)).digest()])
    wrapper = packed([signed, cose.sign1(signed, signer)])
    return packed(cbor2.CBORTag(107, {2: wrapper, 3: manifest}))
