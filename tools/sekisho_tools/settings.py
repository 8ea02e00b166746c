"""The device's settings on the desk: the schema with its words, checking a file, opening a backup.

The schema is the device's own (`sekisho.values.SCHEMA`); the meaning of each line is the comment before it.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from . import cose, strict_cbor
from . import device_code as _device_code  # makes the device packages importable
from .errors import ToolError

assert _device_code
from sekisho import backup, cbor, report, seal  # noqa: E402
from sekisho import values as device  # noqa: E402
from sekisho_boot.reasons import Refused, name  # noqa: E402

ROLES = {device.USER: "user", device.ADMIN: "administrator", device.ORDER: "order"}
_LINE = re.compile(r'^    # (.+)\n    \("(\w+)",', re.MULTILINE)


@dataclass(frozen=True)
class Setting:
    """One line of the schema in words. *who* is the least that may change it."""

    name: str
    meaning: str
    values: str
    default: Any
    secure: Any
    kept: bool
    who: str
    effect: str


def _values(kind: int, limits: Any) -> str:
    words: dict[int, Callable[[], str]] = {
        device.FLAG: lambda: "true, false",
        device.NUMBER: lambda: f"{limits[0]} to {limits[1]}",
        device.TEXT: lambda: f"text, at most {limits} bytes",
        device.CHOICE: lambda: ", ".join(f"`{word}`" for word in limits),
        device.WORDS: lambda: "any of " + ", ".join(f"`{word}`" for word in limits),
        device.NAMES: lambda: f"at most {limits[0]} texts of {limits[1]} bytes",
        device.URL: lambda: "URL, " + " ".join(f"`{scheme}`" for scheme in limits),
        device.NETWORKS: lambda: f"at most {limits} pairs of name and passphrase",
        device.SECRET: lambda: f"secret text of {limits[0]} to {limits[1]} bytes, or none",
        device.WINDOW: lambda: f"at most {limits} windows",
    }
    return words[kind]()


@cache
def schema() -> tuple[Setting, ...]:
    """Every setting in the order of the schema."""
    meanings = {found: meaning for meaning, found in _LINE.findall(inspect.getsource(device))}
    return tuple(
        Setting(key, meanings[key], _values(kind, limits), default, secure, secure is device.KEEP, ROLES[who], effect)
        for key, kind, limits, default, secure, who, effect in device.SCHEMA
    )


def check(values: Any) -> dict[str, Any]:
    """*values* as a device takes them; ToolError SETTING for the first that it would not."""
    if not isinstance(values, dict):
        raise ToolError("SETTING", "Settings are one JSON object of names and values.")
    for key, value in values.items():
        try:
            device.check(key, value)
        except Refused as refused:
            known = {one.name: one for one in schema()}
            why = f"it takes {known[key].values}" if key in known else "there is no setting of that name"
            raise ToolError("SETTING", f"{key} cannot be {value!r}: {why}.") from refused
    return values


def parse(text: str) -> tuple[str, Any]:
    """(name, value) of ``NAME=VALUE`` on a command line; VALUE is JSON, or text where it is none."""
    key, equals, value = text.partition("=")
    if not equals:
        raise ToolError("SETTING", f"{text!r} is not NAME=VALUE.")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value


def sealed(document: bytes) -> bytes:
    """The sealed settings in *document*: itself, or what a device signed for its server (`sekisho.backup.statement`),
    its signature not looked at: opening it shows who had the key. ToolError BACKUP."""
    if document[:1] != b"\xd2":
        return document
    found = statement(document)
    if found is None:
        raise ToolError("BACKUP", "This is no backup of a device.")
    return found[1]


def statement(document: bytes) -> tuple[dict[Any, Any], bytes, bytes] | None:
    """(claims, sealed settings, key id) of a backup as a device signs it, nothing verified; None for anything else."""
    try:
        parts = strict_cbor.loads(document).value
        claims = strict_cbor.loads(parts[2])
        content, kid = claims[report.SEKISHO][1], parts[1][cose.LABEL_KID]
        ueid = claims[report.UEID]
    except (ToolError, ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return None
    good = claims.get(report.PROFILE) == backup.PROFILE and all(isinstance(x, bytes) for x in (content, kid, ueid))
    return (claims, content, kid) if good and len(ueid) == 17 else None


def open_backup(document: bytes, key: bytes | str) -> dict[str, Any]:
    """The values in a backup that a device exported. ToolError BACKUP or LIMIT."""
    _use_cryptography()
    try:
        content: Any = cbor.decode(seal.unseal(key, sealed(document)))  # type: ignore[no-untyped-call]
    except Refused as refused:
        raise ToolError(
            name(refused.code), "The backup does not open: another key or passphrase, or it was changed."
        ) from refused
    values = content.get("values") if isinstance(content, dict) else None
    if not isinstance(values, dict):
        raise ToolError("BACKUP", "The backup opens but holds no settings.")
    return values


def make_backup(values: dict[str, Any], key: bytes | str) -> bytes:
    """A backup as a device makes it. ToolError SETTING, or LIMIT for a passphrase that is too short."""
    _use_cryptography()
    try:
        return bytes(seal.seal(key, cbor.encode({"version": device.VERSION, "values": check(values)})))
    except Refused as refused:
        raise ToolError(name(refused.code), f"A passphrase has at least {seal.MIN_PASSPHRASE} characters.") from refused


def _use_cryptography() -> None:
    """On the desk AES comes from `cryptography`."""
    import sys
    import types

    from cryptography.hazmat.primitives.ciphers import Cipher
    from cryptography.hazmat.primitives.ciphers.algorithms import AES
    from cryptography.hazmat.primitives.ciphers.modes import ECB

    class Aes:
        def __init__(self, key: bytes, mode: int) -> None:
            if mode != 1:
                raise ValueError("only ECB, of which the device code makes CTR")
            self._encrypt = Cipher(AES(bytes(key)), ECB()).encryptor()  # noqa: S305 (single blocks, for CTR)

        def encrypt(self, data: Any, out: Any = None) -> bytes:
            done = self._encrypt.update(bytes(data))
            if out is not None:
                out[:] = done
            return done

    module: Any = types.ModuleType("cryptolib")
    module.aes = Aes
    sys.modules.setdefault("cryptolib", module)
