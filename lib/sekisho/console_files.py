"""Files that people bring to the console: recognised by their first bytes, judged by the door (`sekisho.door`)."""

import asyncio
import gc

from micropython import const
from sekisho_boot.keyset import MAX_KEYSET
from sekisho_boot.reasons import DISABLED, LIMIT, NOTHING, Refused, name

from . import offline
from .console_words import said
from .envelope import MAX_DOWNLOAD
from .orders import MAX_FILE

_ORDER = b"\xd2"  # CBOR tag 18: COSE_Sign1
_KEYSET = b"\xd8\x62"  # tag 98: COSE_Sign
_RELEASE = b"\xd8\x6b"  # tag 107: SUIT envelope
COMPONENTS = ("fw", "app")
_SHOWN = const(8)  # bytes of a digest that people compare


async def _document(parts, first, limit: int) -> bytes:
    try:
        return await parts.content(first, limit)
    except ValueError:
        raise Refused(LIMIT)


async def bring(web, parts, japanese: bool) -> str:
    """Takes one file; returns what people are told. Raises Refused; ValueError, OSError where it breaks off."""
    first = b""
    while len(first) < 2:
        piece = await parts.step()
        if piece is None:
            break
        first += bytes(piece)
    if not first:
        raise ValueError
    try:
        door = offline()
    except (ImportError, OSError):
        raise Refused(DISABLED)
    if first[:1] == _ORDER:
        code = door.order(await _document(parts, first, MAX_FILE))
        if code:
            return said("not possible", japanese) + ": " + name(code)
        return "The order was obeyed."
    if first[:2] == _KEYSET:
        door.keyset(await _document(parts, first, MAX_KEYSET))
        return "The key set was taken."
    if first[:2] == _RELEASE:
        web.missing = []
        web.missing = list(door.envelope(await _document(parts, first, MAX_DOWNLOAD)))
        return "The release was accepted. Still to be brought:"
    if not web.missing:
        raise Refused(NOTHING)
    await _payload(web, door, parts, first)
    if web.missing:
        return "The release was accepted. Still to be brought:"
    web.checking = asyncio.create_task(_stage(web, door))
    return "Everything has come. It is checked now; then the device restarts."


async def _stage(web, door) -> None:
    """Once the connection and its memory are gone: the whole image is read back."""
    while web.console.links:
        await asyncio.sleep(0.1)
    gc.collect()
    web.refused = ""
    try:
        door.stage()
    except Refused as refused:
        web.refused = name(refused.code)
    except MemoryError:
        web.refused = "not possible"
    web.checking = None


async def _payload(web, door, parts, first) -> None:
    """The payload that is to come next, from where it broke off before."""
    component, _, size = web.missing[0]
    try:
        skip = at = door.offset(component)
        piece = first
        while piece is not None:
            if skip:
                passed = min(skip, len(piece))
                piece = piece[passed:]
                skip -= passed
            if piece:
                door.put(component, piece)
                at += len(piece)
            piece = await parts.step()
    except Refused:
        web.missing = []
        raise
    if at < size:
        raise ValueError  # it broke off; what has come is kept
    web.missing.pop(0)
