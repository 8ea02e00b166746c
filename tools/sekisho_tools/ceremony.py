"""How a key set comes about: edit the last one, let the root holders see and sign it, put the signatures together.

Draft, signing and assembly can happen on different machines; what travels are small JSON files. A *request* carries
the unsigned document, the key set it replaces, and the statements of the keys it adds. A *response* carries one
signature. Nothing in them is secret, and nothing in them is trusted: each step checks what it reads.
"""

from __future__ import annotations

import base64
import binascii
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from . import cose, keys, keyset
from .errors import ToolError
from .files import read_file, require_new, write_atomic
from .keyset import KeySet, OperatorKey, ReleaseKey

DAY = 86_400
DEFAULT_LIFETIME = 730 * DAY
"""Seconds a first key set is valid; a later one is valid as long as the one it replaces."""
EXPIRY_WARNING = 90 * DAY
CLOCK_TOLERANCE = DAY
"""Seconds that the clocks of the drafter and of a signer may differ."""
MAX_REQUEST = 65_536

_REQUEST, _RESPONSE = "sekisho-keyset-request-1", "sekisho-keyset-signature-1"


@dataclass(frozen=True)
class Grant:
    """A key to be added, with what it may do; None means everything."""

    statement: keys.Statement
    rights: tuple[str, ...] | None = None
    classes: tuple[bytes, ...] | None = None


@dataclass(frozen=True)
class Edit:
    """What is to be different from the key set before. Times are seconds since 1970; None leaves things as they are."""

    roots: tuple[keys.Statement, ...] = ()
    release: tuple[Grant, ...] = ()
    operators: tuple[Grant, ...] = ()
    remove: tuple[bytes, ...] = ()
    revoke: tuple[bytes, ...] = ()
    revoke_manifests: tuple[bytes, ...] = ()
    forget_manifests: tuple[bytes, ...] = ()
    threshold: int | None = None
    floors: Mapping[str, int] = field(default_factory=dict)
    ceilings: Mapping[str, int] = field(default_factory=dict)
    hardware_floor: int | None = None
    algorithms: Mapping[int, tuple[int, ...]] | None = None
    settings: Mapping[Any, Any] | None = None
    issued_at: int | None = None
    expires: int | None = None

    def statements(self) -> tuple[keys.Statement, ...]:
        """Of every key that it adds."""
        return (*self.roots, *(g.statement for g in self.release), *(g.statement for g in self.operators))


def apply(edit: Edit, previous: KeySet | None = None) -> KeySet:
    """The key set that *edit* makes of *previous*, or the first one.

    Raises ToolError: KEY_ROLE, KEYSET_ENVIRONMENT (a key that is not meant for this), KEY_UNKNOWN (nothing to remove),
    CLOCK, KEYSET (no root key at all, or a right that does not exist).
    """
    issued = int(time.time()) if edit.issued_at is None else edit.issued_at
    if previous is None:
        if not edit.roots:
            raise ToolError("KEYSET", "A key set needs at least one root key.")
        base = KeySet(0, issued, issued + DEFAULT_LIFETIME, keyset.ENVIRONMENTS[edit.roots[0].environment], 1, ())
        base = replace(base, limits=dict.fromkeys(_components(edit), (0, keyset.DEFAULT_CEILING)))
    else:
        base = previous
    if issued < base.issued_at:
        raise ToolError("CLOCK", "The key set before this one was issued in the future; check the clock.")
    environment = base.environment_name
    for role, statements in (
        ("root", edit.roots),
        ("release", [grant.statement for grant in edit.release]),
        ("operator", [grant.statement for grant in edit.operators]),
    ):
        for statement in statements:
            keys.require(statement, role, environment)
    gone = {*edit.remove, *edit.revoke}
    for key_id in edit.remove:
        if key_id not in base.key_roles():
            raise ToolError("KEY_UNKNOWN", f"There is no key {key_id.hex()} in the key set to remove.")

    def stays(public_key: bytes) -> bool:
        return cose.key_id(public_key) not in gone

    release = [ReleaseKey(g.statement.public_key, g.rights or ("fw", "app"), g.classes) for g in edit.release]
    operators = [OperatorKey(g.statement.public_key, _right_numbers(g.rights), g.classes) for g in edit.operators]
    limits = dict(base.limits)
    for name in {*edit.floors, *edit.ceilings}:
        floor, ceiling = limits.get(name, (0, keyset.DEFAULT_CEILING))
        limits[name] = edit.floors.get(name, floor), edit.ceilings.get(name, ceiling)
    manifests = [m for m in base.revoked_manifests if m not in edit.forget_manifests]
    return replace(
        base,
        version=base.version + 1,
        issued_at=issued,
        expires=issued + base.expires - base.issued_at if edit.expires is None else edit.expires,
        threshold=base.threshold if edit.threshold is None else edit.threshold,
        roots=(*filter(stays, base.roots), *(statement.public_key for statement in edit.roots)),
        release=(*(key for key in base.release if stays(key.public_key)), *release),
        operators=(*(key for key in base.operators if stays(key.public_key)), *operators),
        revoked_keys=tuple(dict.fromkeys((*base.revoked_keys, *edit.revoke))),
        revoked_manifests=tuple(dict.fromkeys((*manifests, *edit.revoke_manifests))),
        limits=limits,
        hardware_floor=base.hardware_floor if edit.hardware_floor is None else edit.hardware_floor,
        algorithms=base.algorithms if edit.algorithms is None else edit.algorithms,
        settings=base.settings if edit.settings is None else edit.settings,
    )


def _components(edit: Edit) -> tuple[str, ...]:
    named = {name for grant in edit.release for name in grant.rights or ()}
    return tuple(sorted({"fw", "app", *named}))


def _right_numbers(names: Sequence[str] | None) -> tuple[int, ...]:
    if names is None:
        return tuple(keyset.OPERATOR_RIGHTS.values())
    for name in names:
        if name not in keyset.OPERATOR_RIGHTS:
            raise ToolError(
                "KEYSET", f"There is no operator right {name!r}; take one of {', '.join(keyset.OPERATOR_RIGHTS)}."
            )
    return tuple(keyset.OPERATOR_RIGHTS[name] for name in names)


def advice(content: KeySet, now: int | None = None) -> list[str]:
    """What is allowed but worth a second thought, one sentence each."""
    now = int(time.time()) if now is None else now
    found = []
    spare = len(content.roots) - content.threshold
    if content.environment == keyset.ENVIRONMENTS["release"]:
        if content.threshold == 1:
            found.append("One root key alone can replace this key set; two or more make a leak survivable.")
        if spare == 0:
            found.append("Every root key is needed: if one is lost, this key set can never be replaced.")
    if not content.release:
        found.append("It names no release key: nothing new can be released under it.")
    if content.expires <= now:
        found.append("It has expired: devices that hold it install nothing until they get a newer one.")
    elif content.expires - now < EXPIRY_WARNING:
        found.append(f"It expires in {(content.expires - now) // DAY} days; draft its replacement.")
    if content.issued_at > now + CLOCK_TOLERANCE:
        found.append("It was issued in the future; devices never set their clock back again after taking it.")
    for name in sorted({name for key in content.release for name in key.components}):
        ceiling = content.limits.get(name, (0, 1 << 63))[1]
        if ceiling > 1 << 48:
            found.append(f"{name} has no real ceiling: a leaked release key can push its counter out of reach.")
    return found


def sign_all(content: KeySet, signers: Sequence[keys.Signer], previous: bytes | None = None) -> bytes:
    """*content* signed by *signers* and judged as a device would, all on one machine."""
    environment = content.environment_name
    for signer in signers:
        keys.require(signer.statement, "root", environment)
    document = keyset.sign(content, signers)
    keyset.verify(document, previous)
    return document


# -- requests and responses ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Request:
    """A drafted key set on its way to the root holders. *previous* is None for the first one of a product."""

    document: bytes
    previous: bytes | None
    statements: tuple[keys.Statement, ...] = ()
    note: str = ""

    @property
    def content(self) -> KeySet:
        """What the holders are asked to sign."""
        return keyset.decode(self.document)

    @property
    def digest(self) -> str:
        """SHA-256 of the content in hex: what holders read to each other on the telephone."""
        return keyset.content_digest(self.document)

    def labels(self) -> dict[bytes, str]:
        """Key id -> label of the keys whose statements came along."""
        return {statement.key_id: statement.label for statement in self.statements}

    def review(self, known: bytes | None = None, labels: Mapping[bytes, str] | None = None) -> list[str]:
        """What signing it changes, line by line, against *known*: the key set that the holder has trusted so far.
        *labels* name keys that did not come with the request, by key id.

        Without *known* everything is listed as new, since the `previous` that came with the request proves nothing.
        Raises ToolError KEYSET_CONTENT when the request does not start from *known*.
        """
        if known is not None and (self.previous is None or cose.payload_of(known) != cose.payload_of(self.previous)):
            raise ToolError(
                "KEYSET_CONTENT", "The request does not replace the key set that you know; ask for a new request."
            )
        return keyset.diff(
            keyset.decode(known) if known is not None else None, self.content, {**(labels or {}), **self.labels()}
        )

    def to_json(self) -> str:
        """The text of a request file."""
        return json.dumps(
            {
                "format": _REQUEST,
                "note": self.note,
                "content_sha256": self.digest,
                "document": base64.b64encode(self.document).decode(),
                "previous": base64.b64encode(self.previous).decode() if self.previous is not None else None,
                "statements": [statement.to_dict() for statement in self.statements],
            },
            indent=2,
        )


def draft(content: KeySet, previous: bytes | None, statements: Sequence[keys.Statement], note: str = "") -> Request:
    """A request to sign *content* in place of *previous*. Raises ToolError when no device would ever take it."""
    request = Request(keyset.sign(content, ()), previous, tuple(statements), note)
    _check(request)
    return request


def _check(request: Request) -> None:
    """What can be said without signatures: shape, consecutive, same environment, and a statement for each new key."""
    keyset.check_unsigned(request.document, request.previous)
    content = request.content
    environment = content.environment_name
    known = set(keyset.decode(request.previous).key_roles()) if request.previous is not None else set()
    told = {statement.key_id: statement for statement in request.statements}
    for key_id, (role, public_key) in content.key_roles().items():
        if key_id in known:
            continue
        if key_id not in told or told[key_id].public_key != public_key:
            raise ToolError("KEY_STATEMENT", f"The request adds the {role} key {key_id.hex()} without its statement.")
        keys.require(told[key_id], role, environment)


def read_request(path: Path) -> Request:
    """The request in the file *path*, checked. Raises ToolError FILE, REQUEST, or what the check finds."""
    fields = _json(path, _REQUEST, "request")
    try:
        previous = fields["previous"]
        request = Request(
            base64.b64decode(fields["document"], validate=True),
            None if previous is None else base64.b64decode(previous, validate=True),
            tuple(keys.read_statement(one, f"key statement in {path}") for one in fields["statements"]),
            str(fields["note"]),
        )
        stated = fields["content_sha256"]
    except (KeyError, TypeError, ValueError, binascii.Error) as error:
        raise ToolError("REQUEST", f"{path} is damaged; get the request again.") from error
    if request.digest != stated:
        raise ToolError("REQUEST", f"The content of {path} does not match its own digest; get the request again.")
    _check(request)
    return request


def _json(path: Path, kind: str, what: str) -> dict[str, Any]:
    try:
        fields = json.loads(read_file(path, what, MAX_REQUEST))
    except (ValueError, RecursionError) as error:
        raise ToolError("REQUEST", f"{path} is no {what} file, or it is truncated; get it again.") from error
    if not isinstance(fields, dict) or fields.get("format") != kind:
        raise ToolError("REQUEST", f"{path} is not a key set {what} file.")
    return fields


@dataclass(frozen=True)
class Response(cose.MadeOffline):
    """One root holder's signature. *content* is the SHA-256 in hex of what was signed; *signed_at* is ISO 8601."""

    content: str
    public_key: bytes
    signature: bytes
    signed_at: str

    def to_json(self) -> str:
        """The text of a response file."""
        return json.dumps(
            {
                "format": _RESPONSE,
                "content_sha256": self.content,
                "key_id": self.key_id.hex(),
                "public_key": self.public_key.hex(),
                "signed_at": self.signed_at,
                "signature": self.signature.hex(),
            },
            indent=2,
        )


def respond(request: Request, signer: keys.Signer, now: int | None = None) -> Response:
    """Sign *request* with a root key, after its holder has reviewed it.

    Raises ToolError: KEY_ROLE, KEYSET_ENVIRONMENT, KEY_UNKNOWN (no root of the old or the new key set), CLOCK (the
    drafter's and this clock differ by more than a day).
    """
    content = request.content
    environment = content.environment_name
    keys.require(signer.statement, "root", environment)
    roots = set(content.roots)
    if request.previous is not None:
        roots.update(keyset.decode(request.previous).roots)
    if signer.public_key not in roots:
        raise ToolError("KEY_UNKNOWN", f"{signer.key_id.hex()} is a root key neither of the old nor of the new set.")
    now = int(time.time()) if now is None else now
    if content.issued_at > now + CLOCK_TOLERANCE:
        raise ToolError("CLOCK", "The draft was issued in the future by this machine's clock; set one of the two.")
    signature = cose.raw_signature(request.document, signer)
    signed_at = datetime.fromtimestamp(now, UTC).isoformat()
    return Response(request.digest, signer.public_key, signature, signed_at)


def read_response(path: Path) -> Response:
    """The response in the file *path*; its signature is checked by `assemble`."""
    fields = _json(path, _RESPONSE, "response")
    try:
        return Response(
            str(fields["content_sha256"]),
            bytes.fromhex(fields["public_key"]),
            bytes.fromhex(fields["signature"]),
            str(fields["signed_at"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ToolError("REQUEST", f"{path} is damaged; ask the holder to sign again.") from error


def assemble(request: Request, responses: Sequence[Response]) -> bytes:
    """The signed document, judged as a device would.

    Raises ToolError: REQUEST (a response to another request), SIGNATURE, KEYSET_THRESHOLD (who is missing).
    """
    document = request.document
    for response in responses:
        if response.content != request.digest:
            raise ToolError(
                "REQUEST", f"The signature of {response.key_id.hex()} is for another request; let it sign this one."
            )
        document = cose.add_signature(document, response)
    signed = {response.public_key for response in responses}
    sets = [("new", request.content)]
    if request.previous is not None:
        sets.insert(0, ("old", keyset.decode(request.previous)))
    for name, content in sets:
        missing = [cose.key_id(key).hex() for key in content.roots if key not in signed]
        have = len(content.roots) - len(missing)
        if have < content.threshold:
            raise ToolError(
                "KEYSET_THRESHOLD",
                f"{have} of the {name} root keys have signed, {content.threshold} must; not yet: {', '.join(missing)}.",
            )
    keyset.verify(document, request.previous)
    return document


def write_json(path: Path, text: str) -> Path:
    """Write a request or response, never over another file. Raises ToolError FILE_EXISTS or FILE."""
    require_new(path)
    return write_atomic(path, text + "\n")
