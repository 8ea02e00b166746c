"""A strict decoder of deterministic CBOR (RFC 8949 section 4.2.1) for the desk.

It is written apart from the device's reader and apart from `cbor2`, so that three decoders can be held against each
other. Refused: longer heads than needed, indefinite lengths, floats, simple values other than false, true and null,
unsorted or doubled map keys, text that is not UTF-8, nesting over `MAX_DEPTH`, more than `MAX_ITEMS` members, and
anything after the item.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sekisho_tools.errors import ToolError

MAX_DEPTH = 24
MAX_ITEMS = 1 << 16
"""Members of one array or map."""
_WIDTHS = {24: 1, 25: 2, 26: 4, 27: 8}
_SIMPLE: dict[int, bool | None] = {20: False, 21: True, 22: None}


@dataclass(frozen=True)
class Tag:
    """A tagged item."""

    number: int
    value: Any


class Map(dict[Any, Any]):
    """A decoded map; a class of its own, hashable by content, since CBOR maps may be keys."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(tuple(self.items()))


def loads(data: bytes, *, ordered: bool = True) -> Any:
    """The one item that *data* holds: int, bytes, str, tuple, Map, Tag, bool or None.

    With *ordered* false, maps may be in any order (COSE headers and CoSWID inside SUIT are written so in the field);
    doubled keys stay refused. Raises ToolError CBOR or LIMIT.
    """
    item, end = _item(data, 0, ordered, MAX_DEPTH)
    if end != len(data):
        raise ToolError("CBOR", f"{len(data) - end} bytes follow the CBOR item; the file was appended to or damaged.")
    return item


def _malformed(pos: int, why: str) -> ToolError:
    return ToolError("CBOR", f"At byte {pos} the CBOR {why}; this is not deterministic CBOR.")


def _item(data: bytes, pos: int, ordered: bool, depth: int) -> tuple[Any, int]:
    if depth == 0:
        raise ToolError("LIMIT", f"At byte {pos} the CBOR is nested more than {MAX_DEPTH} levels deep.")
    major, value, at = _head(data, pos)
    if major == 0:
        return value, at
    if major == 1:
        return -1 - value, at
    if major in (2, 3):
        return _string(data, at, value, major == 3)
    if major == 6:
        inner, end = _item(data, at, ordered, depth - 1)
        return Tag(value, inner), end
    if major == 7:
        if value not in _SIMPLE:
            raise _malformed(pos, f"has the unassigned simple value {value}")
        return _SIMPLE[value], at
    if value > MAX_ITEMS:
        raise ToolError("LIMIT", f"At byte {pos} the CBOR claims {value} members; {MAX_ITEMS} are the most.")
    if value > len(data) - at:
        raise _malformed(pos, "has more members than bytes")
    return _array(data, at, value, ordered, depth) if major == 4 else _map(data, at, value, ordered, depth)


def _head(data: bytes, pos: int) -> tuple[int, int, int]:
    if pos >= len(data):
        raise _malformed(pos, "ends too early")
    major, info = divmod(data[pos], 32)
    if info < 24:
        return major, info, pos + 1
    width = _WIDTHS.get(info)
    if width is None or major == 7:
        raise _malformed(pos, "has a reserved or indefinite length, or a float")
    end = pos + 1 + width
    if end > len(data):
        raise _malformed(pos, "ends too early")
    value = int.from_bytes(data[pos + 1 : end], "big")
    if value < (24 if width == 1 else 1 << 4 * width):
        raise _malformed(pos, "has a head longer than needed")
    return major, value, end


def _string(data: bytes, pos: int, size: int, text: bool) -> tuple[str | bytes, int]:
    if size > len(data) - pos:
        raise _malformed(pos, "has a string that reaches past its end")
    raw = data[pos : pos + size]
    if not text:
        return raw, pos + size
    try:
        return raw.decode(), pos + size
    except UnicodeDecodeError as error:
        raise _malformed(pos, "has text that is not UTF-8") from error


def _array(data: bytes, pos: int, count: int, ordered: bool, depth: int) -> tuple[tuple[Any, ...], int]:
    items = []
    for _ in range(count):
        item, pos = _item(data, pos, ordered, depth - 1)
        items.append(item)
    return tuple(items), pos


def _map(data: bytes, pos: int, count: int, ordered: bool, depth: int) -> tuple[Map, int]:
    pairs: dict[bytes, tuple[Any, Any]] = {}
    last = b""
    for _ in range(count):
        start = pos
        key, pos = _item(data, start, ordered, depth - 1)
        encoded = data[start:pos]
        if encoded in pairs:
            raise _malformed(start, "has a map key twice")
        if ordered and encoded <= last:
            raise _malformed(start, "has unsorted map keys")
        last = encoded
        value, pos = _item(data, pos, ordered, depth - 1)
        pairs[encoded] = key, value
    result = Map(pairs.values())
    if len(result) != count:  # 0 and false, 1 and true are one key to Python; no SUIT map has both
        raise _malformed(pos, "has both numbers and truth values as map keys")
    return result, pos
