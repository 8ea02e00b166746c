"""What a release says of itself to people: the text that its manifest names by digest."""

from hashlib import sha256

from micropython import const
from sekisho_boot.cbor import BSTR, UINT, Reader
from sekisho_boot.reasons import CBOR, Refused

MAX_TEXT = const(1000)  # characters that people are shown
_MANIFEST = const(3)  # members of the envelope and of the manifest, SUIT sections 8.2 and 8.4
_TEXT = const(23)
_TSTR = const(3)  # major type
_MAX_MEMBERS = const(24)


def text(envelope, languages) -> str:
    """What an accepted release says of itself to people, in the first of *languages* that it has; "" where it says
    nothing, or where the text is not the one that the manifest names. At most MAX_TEXT characters."""
    reader = Reader(envelope)
    reader.tag()
    manifest = enclosed = digest = None
    for _ in range(reader.map(_MAX_MEMBERS)):
        key = reader.uint() if reader.peek() == UINT else reader.tstr()
        start = reader.pos
        if key == _MANIFEST:
            manifest = reader.wrapped()
        elif key == _TEXT:
            enclosed = reader.wrapped()
            digest = sha256(reader.buf[start : reader.pos]).digest()
        else:
            reader.bstr()
    if manifest is None or enclosed is None:
        return ""
    for key in manifest.int_keys():
        if key != _TEXT:
            manifest.skip()
            continue
        named = manifest.wrapped() if manifest.peek() == BSTR else manifest
        if named.array(2) != 2 or named.int() != -16 or named.bstr() != digest:
            return ""
        return _said(enclosed, languages)
    return ""


def _said(reader: Reader, languages) -> str:
    found: dict = {}
    for _ in range(reader.map()):
        language, words = reader.tstr(), []
        for _ in range(reader.map()):
            if reader.peek() == UINT:
                reader.uint()
                words.append(_words(reader))
            else:  # of one component
                reader.skip()
                reader.skip()
        found[language] = "\n".join(words)[:MAX_TEXT]
    for language in languages:
        if language in found:
            return found[language]
    return ""


def _words(reader: Reader) -> str:
    """A text for people: any language, line breaks, no other control characters."""
    major, size = reader.head()
    if major != _TSTR:
        raise Refused(CBOR)
    try:
        found = str(bytes(reader._take(size)), "utf-8")
    except (UnicodeError, ValueError):
        raise Refused(CBOR)
    return "".join([char for char in found if char >= " " or char == "\n"])
