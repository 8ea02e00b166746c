"""Reports that devices signed (docs/report.md), as the server judges and shows them."""

from __future__ import annotations

from .. import device_code, report
from ..errors import ToolError

assert device_code
from sekisho_boot import ed25519  # noqa: E402

VERIFIED, UNVERIFIED, INVALID = "verified", "unverified", "invalid"
MAX_SHOWN = 500
"""Characters of one value that are shown."""
_HOSTILE = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError, AssertionError)
"""What reading a document made by somebody else may raise beyond ToolError, once its outer form is right."""


def usable(public_key: bytes) -> bool:
    """Whether these 32 bytes are an Ed25519 public key, by the device's own rules (docs/decisions/0003)."""
    return ed25519.decompress(public_key) is not None


def verdict(body: bytes, public_key: bytes | None) -> str:
    """VERIFIED, UNVERIFIED (the server knows no key of the device) or INVALID (malformed, or another key's)."""
    try:
        found = report.parse(body)
        if public_key is None:
            return UNVERIFIED
        report.check_signature(found, public_key)
    except (ToolError, *_HOSTILE):
        return INVALID
    return VERIFIED


def shown(body: bytes, public_key: bytes | None) -> tuple[dict[str, str], list[str]]:
    """What a report says, name by name, and what is wrong, in sentences. Never raises."""
    try:
        found = report.parse(body)
        said = {name[:MAX_SHOWN]: value[:MAX_SHOWN] for name, value in report.describe(found).items()}
        wrong = [] if public_key is None else [one.text for one in report.verify(body, public_key).findings if one.bad]
    except ToolError as error:
        return {}, [error.sentence]
    except _HOSTILE:
        return {}, ["The report cannot be read."]
    return said, wrong
