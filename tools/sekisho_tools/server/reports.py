"""Reports and last statements that devices signed (docs/report.md, docs/wipe.md), as the server judges them."""

from __future__ import annotations

from .. import cose, device_code, order, report, settings, strict_cbor, wipe
from ..errors import ToolError

assert device_code
from sekisho import report as device  # noqa: E402
from sekisho_boot import ed25519  # noqa: E402

VERIFIED, UNVERIFIED, INVALID = "verified", "unverified", "invalid"
LAST_WORDS = "tag:sekisho,2026:wipe-1"
"""Profile of the statement that a device signs before its key is erased (docs/wipe.md)."""
MAX_SHOWN = 500
"""Characters of one value that are shown."""
_HOSTILE = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError, AssertionError)
"""What reading a document made by somebody else may raise beyond ToolError, once its outer form is right."""


def usable(public_key: bytes) -> bool:
    """Whether these are a device's public key: Ed25519 by the device's own rules (docs/decisions/0003), or P-256."""
    try:
        kind = cose.device_key_type(public_key)
    except ToolError:
        return False
    return kind != cose.ED25519 or ed25519.decompress(public_key) is not None


def verdict(body: bytes, public_key: bytes | None) -> str:
    """VERIFIED, UNVERIFIED (the server knows no key of the device) or INVALID (malformed, or another key's)."""
    if last_words(body, public_key):
        return VERIFIED
    if public_key is None and _statement(body):
        return UNVERIFIED
    try:
        found = _backup(body) or report.parse(body)
        if public_key is None:
            return UNVERIFIED
        report.check_signature(found, public_key)
    except (ToolError, *_HOSTILE):
        return INVALID
    return VERIFIED


def _statement(body: bytes) -> tuple[report.Report, str] | None:
    """A last statement, its signature not yet checked, and what it announces."""
    try:
        parts = strict_cbor.loads(body).value
        claims = strict_cbor.loads(parts[2])
        deed = order.NAMES[claims[device.SEKISHO][1]]
        if claims[device.PROFILE] != LAST_WORDS or deed not in ("wipe", "transfer", "decommission"):
            return None
        return report.Report(claims, {}, parts[1][cose.LABEL_KID], body), deed
    except (ToolError, *_HOSTILE):
        return None


def _backup(body: bytes) -> report.Report | None:
    """The settings of a device, sealed, its signature not yet checked."""
    found = settings.statement(body)
    return found and report.Report(found[0], {}, found[2], body)


def last_words(body: bytes, public_key: bytes | None) -> str | None:
    """``wipe``, ``transfer`` or ``decommission`` where *body* is such a statement by this key; else None."""
    found = _statement(body)
    if found is None or public_key is None:
        return None
    try:
        report.check_signature(found[0], public_key)
    except (ToolError, *_HOSTILE):
        return None
    return found[1]


def order_in(body: bytes) -> str | None:
    """The action of a signed operator order; None for anything else. Whether it is obeyed is the device's to judge."""
    try:
        found = order.parse(body)
    except (ToolError, *_HOSTILE):
        return None
    return found.order.action if isinstance(found, order.Signed) else None


def shown(body: bytes, public_key: bytes | None) -> tuple[dict[str, str], list[str]]:
    """What a report says, name by name, and what is wrong, in sentences. Never raises."""
    if last := _statement(body):
        more = wipe.parse(body).describe() if wipe.is_statement(body) else {}
        return {"last statement": last[1], **more}, []
    if kept := settings.statement(body):
        return {"backup": f"the settings, sealed ({len(kept[1])} bytes); sekisho settings open reads it"}, []
    try:
        found = report.parse(body)
        said = {name[:MAX_SHOWN]: value[:MAX_SHOWN] for name, value in report.describe(found).items()}
        wrong = [] if public_key is None else [one.text for one in report.verify(body, public_key).findings if one.bad]
    except ToolError as error:
        return {}, [error.sentence]
    except _HOSTILE:
        return {}, ["The report cannot be read."]
    return said, wrong
