"""Reports that devices sign: COSE_Sign1 with the payload inside, by the device key (Ed25519)."""

from __future__ import annotations

from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from .. import cose, strict_cbor
from ..errors import ToolError

VERIFIED, UNVERIFIED, INVALID = "verified", "unverified", "invalid"
MAX_SHOWN = 4000


def usable(public_key: bytes) -> bool:
    """Whether these 32 bytes are an Ed25519 public key."""
    try:
        Ed25519PublicKey.from_public_bytes(public_key)
    except (ValueError, UnsupportedAlgorithm):
        return False
    return True


def _open(body: bytes) -> tuple[bytes, bytes, bytes]:
    """Protected headers, payload and signature. Raises ToolError."""
    found = strict_cbor.loads(body, ordered=False)
    if not isinstance(found, strict_cbor.Tag) or found.number != cose.TAG_SIGN1:
        raise ToolError("COSE", "A report is a tagged COSE_Sign1.")
    parts = found.value
    if not isinstance(parts, tuple) or len(parts) != 4 or not all(isinstance(parts[at], bytes) for at in (0, 2, 3)):
        raise ToolError("COSE", "A report carries its payload and one signature.")
    headers = strict_cbor.loads(parts[0], ordered=False)
    if not isinstance(headers, dict) or headers.get(1) not in (cose.ALG_ED25519, cose.ALG_EDDSA):
        raise ToolError("COSE", "A report is signed with Ed25519.")
    return parts[0], parts[2], parts[3]


def verdict(body: bytes, public_key: bytes | None) -> str:
    """VERIFIED, UNVERIFIED (the server knows no key of the device) or INVALID (malformed, or another key's)."""
    try:
        protected, payload, signature = _open(body)
    except ToolError:
        return INVALID
    if public_key is None:
        return UNVERIFIED
    return VERIFIED if cose.verify(public_key, cose.sign1_input(protected, payload), signature) else INVALID


def _plain(value: Any, depth: int = 0) -> str:
    if depth > 8:
        return "…"
    if isinstance(value, bytes):
        return f"h'{value.hex()}'"
    if isinstance(value, str):
        return repr(value)
    if isinstance(value, dict):
        return (
            "{" + ", ".join(f"{_plain(key, depth + 1)}: {_plain(item, depth + 1)}" for key, item in value.items()) + "}"
        )
    if isinstance(value, tuple):
        return "[" + ", ".join(_plain(item, depth + 1) for item in value) + "]"
    if isinstance(value, strict_cbor.Tag):
        return f"{value.number}({_plain(value.value, depth + 1)})"
    return (
        {True: "true", False: "false", None: "null"}.get(value, str(value))
        if value in (True, False, None)
        else str(value)
    )


def shown(body: bytes) -> str:
    """The payload in words, for people; never longer than MAX_SHOWN."""
    try:
        payload = _open(body)[1]
    except ToolError as error:
        return error.sentence
    try:
        text = _plain(strict_cbor.loads(payload, ordered=False))
    except ToolError:
        text = _plain(payload)
    return text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + " …"
