"""SUIT envelopes as trees of which one item can be spoilt, whatever it is wrapped and signed in.

`Envelope` holds a manifest as nested Python values; its bytes are written here, head by head, so that any item can be
given a wrong head, a wrong type or a byte too many, while what is around it - lengths, digests, signatures - is right.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sekisho_tools import cose

SIGNER = cose.MemorySigner(bytes([9]) * 32)
Path = tuple[Any, ...]
Spoil = Callable[[Any, bytes], bytes]
"""(item, its right encoding) -> what stands there instead."""


@dataclass
class Map:
    """A map in the order given; keys may be doubled."""

    pairs: list[tuple[Any, Any]]


@dataclass
class Wrap:
    """A byte string that holds an item."""

    item: Any


@dataclass
class Tag:
    """A tagged item."""

    number: int
    item: Any


@dataclass
class Raw:
    """Bytes as they are."""

    data: bytes


def head(major: int, value: int, wider: int = 0) -> bytes:
    """The head of an item; *wider*: so many widths more than it needs."""
    widths = [0, 1, 2, 4, 8]
    need = 0 if value < 24 else next(at for at in (1, 2, 3, 4) if value < 1 << 8 * widths[at])
    at = min(4, need + wider)
    return bytes([major << 5 | value]) if at == 0 else bytes([major << 5 | 23 + at]) + value.to_bytes(widths[at], "big")


def parts(item: Any) -> tuple[int, int]:
    """(major type, argument) of the head of *item*, wrapped ones apart."""
    if item is None or isinstance(item, bool):
        return 7, 22 if item is None else 20 + item
    if isinstance(item, int):
        return (0, item) if item >= 0 else (1, -1 - item)
    if isinstance(item, bytes):
        return 2, len(item)
    if isinstance(item, str):
        return 3, len(item.encode())
    if isinstance(item, list):
        return 4, len(item)
    if isinstance(item, Map):
        return 5, len(item.pairs)
    assert isinstance(item, Tag)
    return 6, item.number


@dataclass
class Writer:
    """Writes items; that at *target* is spoilt. *seen* collects (path, item) of all."""

    target: Path | None = None
    spoil: Spoil | None = None
    seen: list[tuple[Path, Any]] = field(default_factory=list)

    def write(self, item: Any, path: Path) -> bytes:
        """The encoding of *item*."""
        if isinstance(item, Raw):
            return item.data
        self.seen.append((path, item))
        data = self._right(item, path)
        return self.spoil(item, data) if path == self.target and self.spoil else data

    def _right(self, item: Any, path: Path) -> bytes:
        if isinstance(item, Wrap):
            inner = self.write(item.item, (*path, "bstr"))
            return head(2, len(inner)) + inner
        out = head(*parts(item))
        if isinstance(item, bytes):
            return out + item
        if isinstance(item, str):
            return out + item.encode()
        if isinstance(item, list):
            return out + b"".join(self.write(one, (*path, at)) for at, one in enumerate(item))
        if isinstance(item, Map):
            for at, (key, value) in enumerate(item.pairs):
                name = key if isinstance(key, int | str) else at
                out += self.write(key, (*path, f"key {name}")) + self.write(value, (*path, name))
        if isinstance(item, Tag):
            out += self.write(item.item, (*path, "tag"))
        return out


def plain(data: bytes) -> list[Any]:
    """The SUIT_Digest of *data*."""
    return [-16, hashlib.sha256(data).digest()]


@dataclass
class Envelope:
    """A manifest (a `Map`) and severable members, {key: item}, whose digests are put into it."""

    manifest: Map
    members: dict[Any, Any] = field(default_factory=dict)
    algorithm: int = -19

    def build(self, target: Path | None = None, spoil: Spoil | None = None, **how: Any) -> bytes:
        """The signed envelope, with one item spoilt; the digests and the signature are over what is spoilt.

        *how*: ``digest``, ``wrapper`` and ``top`` put something else there; ``again`` wraps the manifest once more;
        ``text`` false leaves the digests of severable members as the manifest has them.
        """
        return self.write(Writer(target, spoil), **how)

    def write(self, writer: Writer, **how: Any) -> bytes:
        """The signed envelope."""
        members = {
            key: writer.write(item if isinstance(item, Raw) else Wrap(item), ("envelope", key))
            for key, item in self.members.items()
        }
        digests = {key: plain(data) for key, data in members.items() if isinstance(key, int) and how.get("text", True)}
        pairs = sorted({**dict(self.manifest.pairs), **digests}.items(), key=lambda pair: head(*parts(pair[0])))
        if not digests:
            pairs = self.manifest.pairs
        manifest = writer.write(Wrap(Map(pairs)), ("envelope", 3))
        if how.get("again"):
            manifest = head(2, len(manifest)) + manifest
        actual = {"actual": plain(manifest)[1], "bare": hashlib.sha256(content(manifest)).digest()}
        of_it = [actual.get(one, one) if isinstance(one, str) else one for one in how.get("digest", plain(manifest))]
        signed = writer.write(Wrap(of_it), ("envelope", 2, "bstr", 0))
        payload = content(signed)
        protected = writer.write(Wrap(Map([(1, self.algorithm)])), ("block", 0))
        signature = SIGNER.sign(cose.sign1_input(content(protected), payload))
        block = writer.write(Tag(18, [Raw(protected), Map([(4, SIGNER.key_id)]), None, signature]), ("block",))
        parts_of_it = how["wrapper"](payload, block) if "wrapper" in how else [Raw(signed), block]
        wrapper = writer.write(Wrap(parts_of_it), ("envelope", 2))
        top = [(2, Raw(wrapper)), (3, Raw(manifest)), *((key, Raw(data)) for key, data in members.items())]
        return writer.write(how["top"](Raw(wrapper), Raw(manifest)) if "top" in how else Tag(107, Map(top)), ())

    def items(self) -> list[tuple[Path, Any]]:
        """Every item of the envelope and where it stands."""
        writer = Writer()
        self.write(writer)
        return writer.seen

    @staticmethod
    def plain_bytes(item: Any) -> bytes:
        """The encoding of *item*."""
        return Writer().write(item, ())


def content(data: bytes) -> bytes:
    """What a byte string holds, whatever its head; the whole of anything else."""
    if data[:1] and data[0] >> 5 == 2:
        info = data[0] & 31
        return data[1 + (0 if info < 24 else 1 << info - 24 if info < 28 else 0) :]
    return data
