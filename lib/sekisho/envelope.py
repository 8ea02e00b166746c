"""What the agent takes off an envelope before the engine sees it, and what it may learn from unverified bytes.

Nothing here is trusted: the engine judges what these functions return as if it had come from the network.
"""

from micropython import const
from sekisho_boot.cbor import UINT, Reader
from sekisho_boot.reasons import ENVELOPE, KEYSET, Refused

MAX_DOWNLOAD = const(12288)  # bytes of an envelope as published, with its text; the engine's own limit is lower

_SUIT_ENVELOPE = const(107)  # CBOR tags
_COSE_SIGN = const(98)
_AUTHENTICATION = const(2)  # members of the envelope, SUIT section 8.2
_MANIFEST = const(3)
_INSTALL = const(20)
_MAX_MEMBERS = const(24)


def sever(envelope) -> bytes:
    """The same envelope with nothing but its authentication wrapper and manifest, byte for byte.

    Text, other severed members and integrated payloads are bound by digests inside the manifest, so leaving them out
    changes nothing that is signed (SUIT section 8.5). Raises Refused(CBOR or ENVELOPE).
    """
    reader = Reader(envelope, wrong=ENVELOPE)
    if reader.tag() != _SUIT_ENVELOPE:
        raise Refused(ENVELOPE)
    kept = []
    for _ in range(reader.map(_MAX_MEMBERS)):
        start = reader.pos
        key = reader.uint() if reader.peek() == UINT else reader.tstr()
        reader.bstr()
        if key in (_AUTHENTICATION, _MANIFEST):
            kept.append(bytes(reader.buf[start : reader.pos]))
    reader.done()
    if len(kept) != 2:
        raise Refused(ENVELOPE)
    return b"\xd8\x6b\xa2" + kept[0] + kept[1]


def tells_how(envelope) -> bool:
    """Whether the envelope has an install sequence of its own: how the payloads come, if not as they are."""
    reader = Reader(envelope)
    reader.tag()
    for _ in range(reader.map(_MAX_MEMBERS)):
        key = reader.uint() if reader.peek() == UINT else reader.tstr()
        if key == _INSTALL:
            return True
        reader.bstr()
    return False


def keyset_version(document) -> int:
    """The version that a key set document claims, before anything of it is verified. Raises Refused(CBOR, KEYSET)."""
    reader = Reader(document)
    if reader.tag() != _COSE_SIGN or reader.array(4) != 4:
        raise Refused(KEYSET)
    reader.bstr()
    reader.skip()
    content = reader.wrapped()
    if content.map() == 0 or content.uint() != 1:
        raise Refused(KEYSET)
    return content.uint()
