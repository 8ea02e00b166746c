"""SUIT manifests on the desk: writing the product's own, and reading any (draft-ietf-suit-manifest-37).

`encode` turns a `Release` into a signed envelope for `sekisho_boot.suit`. `decode` reads the whole manifest, with the
extensions for dependencies (trust-domains-12), encrypted payloads (firmware-encryption) and update management
(update-management-14), strictly: whatever the documents do not allow is refused by reason. docs/suit-profile.md has
the tables.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import cbor2
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from sekisho_tools import cose, device_code, strict_cbor
from sekisho_tools.errors import ToolError
from sekisho_tools.suit_names import (
    COMMANDS,
    COMPARISONS,
    COMPONENT_TEXTS,
    COMPRESSION,
    DIRECTIVES,
    ENVELOPE_MEMBERS,
    MANIFEST_MEMBERS,
    MANIFEST_TEXTS,
    METADATA,
    PARAMETERS,
    SEQUENCES,
    SEVERABLE,
    WAIT_EVENTS,
    ZLIB,
)

assert device_code.BOOT  # imported for its effect: it makes `sekisho_boot` importable

from sekisho_boot.suit import (  # noqa: E402
    MAX_BLOCKS,
    MAX_ENVELOPE,
    MAX_IMAGE,
    MAX_NUMBER,
    MAX_URI,
    NAMES,
)

TAG_ENVELOPE = 107
SHA256 = -16

MAX_NESTING = 5
"""Levels of try-each and run-sequence that the decoder follows."""
MAX_COMMANDS = 512
"""Commands in one manifest, nested ones included."""
FIRST_CUSTOM = -257


# -- writing -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Packed:
    """A payload as it travels: SHA-256 *digest*, *size* in bytes, *uri*; how to unpack it: decrypt, then inflate.

    *encryption* is a SUIT_Encryption_Info (parameter 19) or None, *compressed* whether zlib (RFC 1950) made it smaller.
    """

    digest: bytes
    size: int
    uri: str
    encryption: bytes | None = None
    compressed: bool = False


@dataclass(frozen=True)
class Component:
    """One image of a release: *name* ``fw`` or ``app``, SHA-256 *digest*, *size* in bytes, *uri* of the payload.

    *packed* are other forms of the payload, the best one first; *uri* None leaves them alone.
    """

    name: str
    digest: bytes
    size: int
    uri: str | None = None
    packed: tuple[Packed, ...] = ()

    @classmethod
    def of(cls, name: str, image: bytes, uri: str | None = None) -> Component:
        """The component that *image* makes."""
        return cls(name, hashlib.sha256(image).digest(), len(image), uri)


@dataclass(frozen=True)
class Tie:
    """What a release asks of the component it does not bring: its sequence number, from *minimum* to *maximum*."""

    name: str
    minimum: int
    maximum: int | None = None


@dataclass(frozen=True)
class Text:
    """What people read, in one language; empty fields are left out."""

    manifest: str = ""
    update: str = ""
    components: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Component name -> {name of `COMPONENT_TEXTS`: text}."""


@dataclass(frozen=True)
class Release:
    """Everything a manifest says. *vendor*, *product* and *device* are 16-byte UUIDs, *use_before* is s since 1970."""

    vendor: bytes
    product: bytes
    sequence: int
    components: tuple[Component, ...]
    ties: tuple[Tie, ...] = ()
    device: bytes | None = None
    use_before: int | None = None
    reference_uri: str | None = None
    text: Mapping[str, Text] = field(default_factory=dict)
    """Language tag (BCP 47) -> text."""


def dumps(value: Any) -> bytes:
    """*value* as deterministic CBOR; what `cbor2` wrote is read back by the strict decoder."""
    data = cbor2.dumps(value, canonical=True)
    strict_cbor.loads(data)
    return data


def sha256_digest(data: bytes) -> list[Any]:
    """The SUIT_Digest of *data*."""
    return [SHA256, hashlib.sha256(data).digest()]


def _require(good: bool, code: str, sentence: str) -> None:
    if not good:
        raise ToolError(code, sentence)


def _check_uri(uri: str, what: str) -> None:
    _require(
        uri.isascii() and uri.isprintable() and " " not in uri and 0 < len(uri) <= MAX_URI,
        "PARAMETER",
        f"The {what} must be 1 to {MAX_URI} printable ASCII characters without blanks.",
    )


def _check_release(release: Release) -> None:
    names = [component.name for component in release.components]
    tied = [tie.name for tie in release.ties]
    _require(bool(names), "COMPONENT", "A release needs at least one component.")
    _require(
        len(set(names + tied)) == len(names + tied) and set(names + tied) <= set(NAMES),
        "COMPONENT",
        f"Components and ties are each one of {', '.join(NAMES)}, and each named once.",
    )
    _require(0 < release.sequence <= MAX_NUMBER, "SEQUENCE", f"The sequence number must be between 1 and {MAX_NUMBER}.")
    for what, value in (("vendor", release.vendor), ("product class", release.product), ("device", release.device)):
        _require(value is None or len(value) == 16, "PARAMETER", f"The {what} must be a UUID of 16 bytes.")
    for component in release.components:
        _require(len(component.digest) == 32, "PARAMETER", f"The digest of {component.name} must have 32 bytes.")
        _require(
            0 < component.size <= MAX_IMAGE,
            "IMAGE_SIZE",
            f"The image for {component.name} has {component.size} bytes; 1 to {MAX_IMAGE} are possible.",
        )
        for uri in (component.uri, *(packed.uri for packed in component.packed)):
            if uri is not None:
                _check_uri(uri, f"URI of {component.name}")
    if release.reference_uri is not None:
        _check_uri(release.reference_uri, "reference URI")
    _require(
        "fw" in names + tied, "VERSION_TIE", "An application release must say which firmware sequence numbers it fits."
    )
    for tie in release.ties:
        _require(
            0 <= tie.minimum <= (MAX_NUMBER if tie.maximum is None else tie.maximum) <= MAX_NUMBER,
            "VERSION_TIE",
            f"The sequence numbers of {tie.name} must be a range, lowest first.",
        )
    _require(release.use_before is None or 0 < release.use_before <= MAX_NUMBER, "PARAMETER", "use-before is no time.")


def _shared(release: Release, several: bool) -> list[Any]:
    commands: list[Any] = []
    for index, component in enumerate(release.components):
        parameters: dict[int, Any] = {
            1: release.vendor,
            2: release.product,
            3: dumps([SHA256, component.digest]),
            14: component.size,
        }
        conditions = [1, 15, 2, 15]
        if release.device is not None:
            parameters[24] = release.device
            conditions += [24, 15]
        if release.use_before is not None:
            parameters[4] = release.use_before
            conditions += [4, 15]
        commands += [12, index] if several else []
        commands += [20, parameters, *conditions]
    for index, tie in enumerate(release.ties, len(release.components)):
        commands += [12, index, 20, {28: dumps([2, [tie.minimum]])}, 28, 15]
        if tie.maximum is not None:
            commands += [20, {28: dumps([4, [tie.maximum]])}, 28, 15]
    return commands


def _text(release: Release) -> bytes:
    languages: dict[str, Any] = {}
    for language, text in release.text.items():
        _require(
            re.fullmatch(r"[a-zA-Z]{1,8}(-[a-zA-Z0-9]{1,8})*", language) is not None,
            "PARAMETER",
            f"{language!r} is not a language tag such as en or de-CH.",
        )
        entry: dict[Any, Any] = {key: value for key, value in ((1, text.manifest), (2, text.update)) if value}
        for name, fields in text.components.items():
            _require(
                name in [component.name for component in release.components],
                "COMPONENT",
                f"The text describes {name}, which this release does not bring.",
            )
            numbers = {label: number for number, label in COMPONENT_TEXTS.items()}
            unknown = set(fields) - set(numbers)
            _require(not unknown, "PARAMETER", f"Unknown text fields: {', '.join(sorted(unknown))}.")
            entry[(name.encode(),)] = {numbers[label]: value for label, value in fields.items()}
        for value in _strings(entry):
            _require(
                all(char.isprintable() or char == "\n" for char in value),
                "PARAMETER",
                "Text must not hold control characters.",
            )
        languages[language] = entry
    return dumps(languages)


def _strings(entry: Mapping[Any, Any]) -> list[str]:
    found: list[str] = []
    for value in entry.values():
        found += _strings(value) if isinstance(value, Mapping) else [value]
    return found


PACKED = b"packed"
"""Second part of the identifier of what is fetched to make a component."""


def _install(release: Release) -> tuple[list[Any], bool]:
    """(the install sequence, whether it is for the agent alone and thus severable)."""
    packed = [component for component in release.components if component.packed]
    several = len(release.components) + len(release.ties) + len(packed) > 1
    place = len(release.components) + len(release.ties)
    install: list[Any] = []
    for index, component in enumerate(release.components):
        select = [12, index] if several else []
        alternatives: list[list[Any]] = []
        for form in component.packed:
            fetch = {3: dumps([SHA256, form.digest]), 14: form.size, 21: form.uri}
            copy: dict[int, Any] = {22: place}
            if form.encryption is not None:
                copy[19] = form.encryption
            if form.compressed:
                copy[COMPRESSION] = ZLIB
            alternatives.append([12, place, 20, fetch, 21, 2, 3, 15, 12, index, 20, copy, 22, 2, 3, 15])
        place += bool(component.packed)
        if component.uri is not None:
            alternatives.append([*select, 20, {21: component.uri}, 21, 2, 3, 15])
        if len(alternatives) > 1:
            install += [12, index, 15, [dumps(alternative) for alternative in alternatives]]
        elif alternatives:
            install += alternatives[0]
    return install, bool(packed)


def draft(release: Release, payloads: Mapping[str, bytes] | None = None) -> bytes:
    """The envelope of *release* without a signature, as a tagged SUIT_Envelope in deterministic CBOR.

    One component is written as in Example 1 of the draft, several with set-component-index. The text is severable, and
    so is an install sequence with packed payloads, which only the agent runs. *payloads* (URI -> bytes) are put into
    the envelope. Raises ToolError by the reason codes of the engine for whatever the engine would refuse.
    """
    _check_release(release)
    packed = [component.name for component in release.components if component.packed]
    several = len(release.components) + len(release.ties) + len(packed) > 1
    install, severable = _install(release)
    validate: list[Any] = []
    for index in range(len(release.components)):
        validate += [*([12, index] if several else []), 3, 15]
    names = [component.name for component in release.components] + [tie.name for tie in release.ties]
    identifiers = [[name.encode()] for name in names] + [[name.encode(), PACKED] for name in packed]
    common = {2: identifiers, 4: dumps(_shared(release, several))}
    manifest: dict[int, Any] = {1: 1, 2: release.sequence, 3: dumps(common), 7: dumps(validate)}
    if release.reference_uri is not None:
        manifest[4] = release.reference_uri
    members: dict[Any, Any] = {}
    if install:
        manifest[20] = dumps(install)
    if severable:
        members[20] = manifest[20]
        manifest[20] = sha256_digest(dumps(members[20]))
    if release.text:
        members[23] = _text(release)
        manifest[23] = sha256_digest(dumps(members[23]))
    members.update(payloads or {})
    encoded = dumps(manifest)
    payload = dumps(sha256_digest(dumps(encoded)))
    envelope = dumps(cbor2.CBORTag(TAG_ENVELOPE, {2: dumps([payload]), 3: encoded, **members}))
    _check_written(envelope, release)
    return envelope


def encode(release: Release, signers: Sequence[cose.Signer], payloads: Mapping[str, bytes] | None = None) -> bytes:
    """The envelope that `draft` makes, signed. Raises LIMIT when the part a device keeps is too large."""
    return sign(draft(release, payloads), signers)


def sign(envelope: bytes, signers: Sequence[cose.Signer]) -> bytes:
    """*envelope* signed by *signers*, each read back and verified. Raises ToolError KEY_UNKNOWN, LIMIT, SIGNATURE."""
    _require(bool(signers), "KEY_UNKNOWN", "A release needs at least one signature.")
    _require(len(signers) <= MAX_BLOCKS, "LIMIT", f"A release has at most {MAX_BLOCKS} signatures.")
    for signer in signers:
        envelope = add_signature(envelope, signer)
    keys = [signer.public_key for signer in signers]
    _require(set(verify(decode(envelope), keys)) == set(range(len(keys))), "SIGNATURE", "A signature does not verify.")
    kept = len(strip(envelope))
    _require(kept <= MAX_ENVELOPE, "LIMIT", f"A device keeps {MAX_ENVELOPE} bytes of an envelope; this needs {kept}.")
    return envelope


def _check_written(envelope: bytes, release: Release) -> None:
    """Reads *envelope* back with the decoder, so that an error in the writer cannot leave the desk."""
    decoded = decode(envelope)
    _require(decoded.manifest.sequence_number == release.sequence, "SEQUENCE", "The sequence number came out wrong.")
    found = [(parameters.get(3), parameters.get(14)) for parameters in decoded.manifest.parameters()]
    for index, component in enumerate(release.components):
        _require(
            found[index] == (Digest(SHA256, component.digest), component.size), "MANIFEST", "An image came out wrong."
        )
        data = decoded.payloads.get(component.uri or "")
        _require(
            data is None or (len(data), hashlib.sha256(data).digest()) == (component.size, component.digest),
            "IMAGE_DIGEST",
            f"The payload under {component.uri} is not the image of {component.name}.",
        )
    unused = set(decoded.payloads) - {component.uri for component in release.components}
    _require(not unused, "ENVELOPE", f"No component fetches the payload {', '.join(sorted(unused))}.")


def add_signature(envelope: bytes, signer: cose.Signer) -> bytes:
    """*envelope* with one more authentication block; a block of the same key is replaced. The manifest stays."""
    decoded = decode(envelope)
    kept = [block.encoded for block in decoded.blocks if block.kid != signer.key_id]
    _require(len(kept) < MAX_BLOCKS, "LIMIT", f"A release has at most {MAX_BLOCKS} signatures.")
    members = dict(strict_cbor.loads(envelope).value)
    members[2] = dumps([decoded.payload, *kept, cose.sign1(decoded.payload, signer)])
    return dumps(cbor2.CBORTag(TAG_ENVELOPE, members))


def strip(envelope: bytes) -> bytes:
    """What a device keeps of *envelope*: authentication and manifest, without severable members and payloads."""
    members = _envelope_map(envelope, True)
    return dumps(cbor2.CBORTag(TAG_ENVELOPE, {key: members[key] for key in (2, 3)}))


# -- reading ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Digest:
    """A SUIT_Digest."""

    algorithm: int
    value: bytes

    def matches(self, data: bytes) -> bool:
        """Whether this is the SHA-256 digest of *data*."""
        return self.algorithm == SHA256 and hashlib.sha256(data).digest() == self.value


@dataclass(frozen=True)
class Command:
    """One command. *argument*: reporting policy, index, parameters, or nested sequences, by *code*."""

    code: int
    argument: Any

    @property
    def name(self) -> str:
        """The name in the registry; custom commands are named by number."""
        return COMMANDS.get(self.code, f"custom {self.code}")


Commands = tuple[Command, ...]
ComponentId = tuple[bytes, ...]


@dataclass(frozen=True)
class Manifest:
    """A decoded manifest. Severable members that the envelope holds are resolved; `severed` ones are cut off."""

    sequence_number: int
    components: tuple[ComponentId, ...]
    dependencies: Mapping[int, ComponentId | None]
    shared: Commands
    sequences: Mapping[int, Commands]
    reference_uri: str | None
    component_id: ComponentId | None
    set_version: tuple[int, ...] | None
    text: Mapping[str, Any] | None
    coswid: bytes | None
    mud: Any
    severable: Mapping[int, Digest]
    severed: tuple[int, ...]

    def parameters(self) -> list[dict[int, Any]]:
        """Parameters of each component after the shared sequence, as far as it has no branches."""
        found: list[dict[int, Any]] = [{} for _ in self.components]
        current = list(range(len(found)))
        for command in self.shared:
            if command.code == 12:
                current = _indices(command.argument, len(found))
            elif command.code == 20:
                for index in current:
                    if index < len(found):
                        found[index].update(command.argument)
        return found

    def uris(self) -> list[str]:
        """Every URI that a command sets, in the order of the sequences, whatever branch it stands in."""
        sequences = (self.shared, *self.sequences.values())
        overrides = [c.argument for commands in sequences for c in _walk(commands) if c.code == 20]
        return [parameters[21] for parameters in overrides if 21 in parameters]


def _walk(commands: Commands) -> Iterator[Command]:
    """All commands of a sequence, those of nested sequences included."""
    for command in commands:
        yield command
        nested = command.argument if command.code == 15 else [command.argument] if command.code == 32 else []
        for sequence in nested:
            yield from _walk(sequence or ())


@dataclass(frozen=True)
class Envelope:
    """A decoded envelope; signatures are not verified by decoding."""

    digest: Digest
    payload: bytes
    """What the authentication blocks sign."""
    blocks: tuple[cose.Block, ...]
    manifest: Manifest
    payloads: Mapping[str, bytes]
    size: int


def _indices(argument: Any, count: int) -> list[int]:
    if argument is True:
        return list(range(count))
    return [argument] if isinstance(argument, int) else list(argument)


def _uint(value: Any, code: str, what: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ToolError(code, f"The {what} is not an unsigned number.")
    return value


def _int(value: Any, code: str, what: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ToolError(code, f"The {what} is not a number.")
    return value


def _bstr(value: Any, code: str, what: str) -> bytes:
    if not isinstance(value, bytes):
        raise ToolError(code, f"The {what} is not a byte string.")
    return value


def _tstr(value: Any, code: str, what: str) -> str:
    if not isinstance(value, str):
        raise ToolError(code, f"The {what} is not a text.")
    return value


def _array(value: Any, code: str, what: str) -> tuple[Any, ...]:
    if not isinstance(value, tuple):
        raise ToolError(code, f"The {what} is not an array.")
    return value


def _map(value: Any, code: str, what: str) -> dict[Any, Any]:
    if not isinstance(value, dict):
        raise ToolError(code, f"The {what} is not a map.")
    if any(isinstance(key, bool) for key in value):  # to Python true is 1 and false is 0
        raise ToolError(code, f"The {what} has a truth value as a key.")
    return value


def _digest(value: Any, code: str, what: str) -> Digest:
    items = _array(value, code, what)
    if len(items) != 2:
        raise ToolError(code, f"The {what} is not a digest of two parts.")
    algorithm, content = _int(items[0], code, what), _bstr(items[1], code, what)
    if algorithm != SHA256 or len(content) != 32:
        raise ToolError(code, f"The {what} is not a SHA-256 digest (algorithm {algorithm}, {len(content)} bytes).")
    return Digest(algorithm, content)


def _component_id(value: Any) -> ComponentId:
    parts = _array(value, "MANIFEST", "component identifier")
    if not parts:
        raise ToolError("COMPONENT", "A component identifier is empty.")
    return tuple(_bstr(part, "MANIFEST", "component identifier part") for part in parts)


def _version(value: Any) -> tuple[int, ...]:
    numbers = tuple(_int(number, "PARAMETER", "version") for number in _array(value, "PARAMETER", "version"))
    release = next((place for place, number in enumerate(numbers) if number < 0), len(numbers))
    if not 1 <= release <= 3 or any(n < 0 for n in numbers[release + 1 :]) or min(numbers) < -3:
        raise ToolError("PARAMETER", f"{list(numbers)} is not a version: 1 to 3 numbers, then at most one pre-release.")
    return numbers


def _version_match(value: Any) -> tuple[int, tuple[int, ...]]:
    parts = _array(value, "PARAMETER", "version match")
    if len(parts) != 2 or _int(parts[0], "PARAMETER", "comparison") not in COMPARISONS:
        raise ToolError("PARAMETER", "A version match is not a comparison and a version.")
    return int(parts[0]), _version(parts[1])


def _wait_info(value: Any) -> dict[int, Any]:
    events = _map(value, "PARAMETER", "wait info")
    for key, event in events.items():
        if key not in WAIT_EVENTS:
            raise ToolError("PARAMETER", f"Wait event {key} is not known.")
        if key == 4:
            pair = _array(event, "PARAMETER", "other-device-version")
            if len(pair) != 2 or not _array(pair[1], "PARAMETER", "other-device-version"):
                raise ToolError("PARAMETER", "other-device-version is not a device and its versions.")
            _bstr(pair[0], "PARAMETER", "other-device-version")
            for match in pair[1]:
                _version_match(match)
        elif key < 4:
            _int(event, "PARAMETER", WAIT_EVENTS[key])
        else:
            _uint(event, "PARAMETER", WAIT_EVENTS[key])
    if not events:
        raise ToolError("PARAMETER", "The wait info names no event.")
    return events


def _metadata(value: Any) -> dict[int, Any]:
    data = _map(value, "PARAMETER", "component metadata")
    unknown = [key for key in data if key not in METADATA]
    if unknown or not data:
        raise ToolError("PARAMETER", f"The component metadata has unknown members {unknown} or none at all.")
    return data


@dataclass(frozen=True)
class Encryption:
    """SUIT_Encryption_Info: a COSE_Encrypt with detached ciphertext."""

    algorithm: int
    iv: bytes | None
    recipients: tuple[tuple[int | None, bytes | None, bytes | None], ...]
    """(key distribution algorithm, key id, wrapped key) of each."""
    protected: bytes
    encoded: bytes


def _cose_headers(protected: Any, unprotected: Any) -> dict[Any, Any]:
    raw = _bstr(protected, "PARAMETER", "protected COSE header")
    inner = _map(strict_cbor.loads(raw, ordered=False), "PARAMETER", "protected COSE header") if raw else {}
    outer = _map(unprotected, "PARAMETER", "unprotected COSE header")
    if set(inner) & set(outer):
        raise ToolError("PARAMETER", "A header of the encryption info is given twice.")
    return {**inner, **outer}


def encryption_info(data: bytes) -> Encryption:
    """Reads a SUIT_Encryption_Info (parameter 19). Its header maps need not be sorted: published ones are not."""
    tagged = strict_cbor.loads(data, ordered=False)
    parts = tagged.value if isinstance(tagged, strict_cbor.Tag) and tagged.number == 96 else None
    if not isinstance(parts, tuple) or len(parts) != 4 or parts[2] is not None or not isinstance(parts[3], tuple):
        raise ToolError("PARAMETER", "The encryption info is not a COSE_Encrypt with detached ciphertext.")
    headers = _cose_headers(parts[0], parts[1])
    algorithm = headers.get(cose.LABEL_ALG)
    if not isinstance(algorithm, int) or not parts[3]:
        raise ToolError("PARAMETER", "The encryption info names no algorithm or no recipient.")
    recipients = []
    for recipient in parts[3]:
        fields = _array(recipient, "PARAMETER", "recipient")
        if len(fields) not in (3, 4):
            raise ToolError("PARAMETER", "A recipient of the encryption info does not have 3 or 4 parts.")
        own = _cose_headers(fields[0], fields[1])
        recipients.append((own.get(cose.LABEL_ALG), own.get(cose.LABEL_KID), fields[2]))
    return Encryption(algorithm, headers.get(5), tuple(recipients), parts[0], data)


def _identifier(value: Any) -> bytes:
    if isinstance(value, strict_cbor.Tag) and value.number == 112:  # a relative OID: Private Enterprise Number
        return _bstr(value.value, "PARAMETER", "vendor identifier")
    if len(_bstr(value, "PARAMETER", "identifier")) != 16:
        raise ToolError("PARAMETER", "A vendor, class or device identifier does not have the 16 bytes of a UUID.")
    return bytes(value)


def _wrapped(parse: Callable[[Any], Any], what: str) -> Callable[[Any], Any]:
    return lambda value: parse(strict_cbor.loads(_bstr(value, "PARAMETER", what)))


def _bool(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ToolError("PARAMETER", "strict-order and soft-failure are true or false.")
    return value


_PARSERS: dict[int, Callable[[Any], Any]] = {
    1: _identifier,
    2: _identifier,
    3: _wrapped(lambda value: _digest(value, "PARAMETER", "image digest"), "image digest"),
    12: _bool,
    13: _bool,
    18: lambda value: _bstr(value, "PARAMETER", "content"),
    19: lambda value: encryption_info(_bstr(value, "PARAMETER", "encryption info")),
    21: lambda value: _tstr(value, "PARAMETER", "URI"),
    23: lambda value: _bstr(value, "PARAMETER", "invoke arguments"),
    24: _identifier,
    25: lambda value: _bstr(value, "PARAMETER", "fetch arguments"),
    27: lambda value: _int(value, "PARAMETER", "update priority"),
    28: _wrapped(_version_match, "version"),
    29: _wrapped(_wait_info, "wait info"),
    30: _wrapped(_metadata, "component metadata"),
}


def _parameters(value: Any, shared: bool) -> dict[int, Any]:
    items = _map(value, "PARAMETER", "parameters argument")
    if not items:
        raise ToolError("PARAMETER", "An override-parameters command sets nothing.")
    result: dict[int, Any] = {}
    for key, raw in items.items():
        if isinstance(key, int) and not isinstance(key, bool) and key <= FIRST_CUSTOM and not shared:
            if not isinstance(raw, int | bool | str | bytes):
                raise ToolError("PARAMETER", f"The custom parameter {key} has a type that is not allowed.")
            result[key] = raw
        elif isinstance(key, bool) or key not in PARAMETERS:
            raise ToolError("PARAMETER", f"Parameter {key} is not known.")
        else:
            parse = _PARSERS.get(key)
            result[key] = parse(raw) if parse else _uint(raw, "PARAMETER", PARAMETERS[key])
    return result


class _Walk:
    """Decodes command sequences and checks them against the component list."""

    def __init__(self, components: int, dependencies: Mapping[int, Any]) -> None:
        self.known = set(range(components)) | set(dependencies)
        self.dependencies = bool(dependencies)
        self.left = MAX_COMMANDS

    def top(self, data: bytes, shared: bool = False) -> Commands:
        """A sequence that a manifest member holds; with several components it must begin with their index."""
        items = strict_cbor.loads(data)
        pairs = isinstance(items, tuple) and len(items) % 2 == 0 and items
        if pairs and type(items[0]) is int and items[0] not in (12, 34) and len(self.known) > 1:
            raise ToolError("COMPONENT", "With several components a sequence must begin with set-component-index.")
        return self.sequence(data, shared, MAX_NESTING)

    def sequence(self, data: bytes, shared: bool, depth: int) -> Commands:
        if depth == 0:
            raise ToolError("LIMIT", f"Sequences are nested more than {MAX_NESTING} levels deep.")
        items = _array(strict_cbor.loads(data), "COMMAND", "command sequence")
        if not items or len(items) % 2:
            raise ToolError("COMMAND", "A command sequence is empty or not made of pairs.")
        self.left -= len(items) // 2
        if self.left < 0:
            raise ToolError("LIMIT", f"The manifest has more than {MAX_COMMANDS} commands.")
        pairs = zip(items[::2], items[1::2], strict=True)
        return tuple(self.command(code, argument, shared, depth) for code, argument in pairs)

    def command(self, code: Any, argument: Any, shared: bool, depth: int) -> Command:
        _int(code, "COMMAND", "command code")
        if code <= FIRST_CUSTOM and not shared:
            if argument is not None and (not isinstance(argument, bytes | str | int) or isinstance(argument, bool)):
                raise ToolError("COMMAND", f"The custom command {code} has an argument that is not allowed.")
            return Command(code, argument)
        if code not in COMMANDS:
            raise ToolError("COMMAND", f"Command {code} is not known.")
        name = COMMANDS[code]
        if (
            shared
            and code in DIRECTIVES
            and code not in ((12, 15, 20, 32, 19) if self.dependencies else (12, 15, 20, 32))
        ):
            raise ToolError("COMMAND", f"The shared sequence must not hold {name}, which has side effects.")
        if code == 12:
            return Command(code, self.index(argument))
        if code in (19, 20):
            return Command(code, _parameters(argument, shared))
        if code == 15:
            return Command(code, self.alternatives(argument, shared, depth))
        if code == 32:
            return Command(code, self.sequence(_bstr(argument, "COMMAND", "run-sequence"), shared, depth - 1))
        if code in (34, 35):
            return Command(code, self.multiple(code, argument))
        if _uint(argument, "COMMAND", f"reporting policy of {name}") > 15:
            raise ToolError("COMMAND", f"The reporting policy of {name} is {argument}; 0 to 15 are defined.")
        return Command(code, argument)

    def index(self, argument: Any) -> Any:
        if argument is True:
            return True
        many = isinstance(argument, tuple)
        listed = argument if many else (argument,)
        for index in listed:
            if _uint(index, "COMMAND", "component index") not in self.known:
                raise ToolError("COMPONENT", f"Component index {index} does not exist.")
        if not listed or len(set(listed)) != len(listed):
            raise ToolError("COMMAND", "A list of component indices is empty or names one twice.")
        return listed if many else argument

    def alternatives(self, argument: Any, shared: bool, depth: int) -> tuple[Commands, ...]:
        items = _array(argument, "COMMAND", "try-each")
        found: list[Commands] = []
        for place, item in enumerate(items):
            if item is None and place == len(items) - 1 and place > 1:
                found.append(())
            else:
                found.append(self.sequence(_bstr(item, "COMMAND", "try-each alternative"), shared, depth - 1))
        if len(found) < 2:
            raise ToolError("COMMAND", "try-each has fewer than two alternatives.")
        return tuple(found)

    def multiple(self, code: int, argument: Any) -> dict[int, Any]:
        result: dict[int, Any] = {}
        for index, value in _map(argument, "COMMAND", COMMANDS[code]).items():
            self.index(index)
            if code == 34:
                result[index] = _parameters(value, False)
            else:
                result[index] = _array(value, "COMMAND", "copy-params")
                if not value or any(isinstance(key, bool) or key not in PARAMETERS for key in value):
                    raise ToolError("PARAMETER", "copy-params names an unknown parameter or none.")
        if not result:
            raise ToolError("COMMAND", f"{COMMANDS[code]} has an empty argument.")
        return result


def _common(data: bytes) -> tuple[tuple[ComponentId, ...], dict[int, ComponentId | None], bytes | None]:
    members = _map(strict_cbor.loads(data), "MANIFEST", "common section")
    if set(members) - {1, 2, 4} or any(isinstance(key, bool) for key in members):
        raise ToolError("MANIFEST", f"The common section has unknown members: {sorted(map(str, members))}.")
    components = tuple(_component_id(item) for item in _array(members.get(2, ()), "MANIFEST", "component list"))
    if not components or len(set(components)) != len(components):
        raise ToolError("COMPONENT", "The component list is empty or names a component twice.")
    dependencies: dict[int, ComponentId | None] = {}
    for index, metadata in _map(members.get(1, {}), "MANIFEST", "dependencies").items():
        inner = _map(metadata, "MANIFEST", "dependency metadata")
        if set(inner) - {1}:
            raise ToolError("MANIFEST", "The dependency metadata has unknown members.")
        dependencies[_uint(index, "MANIFEST", "dependency index")] = _component_id(inner[1]) if inner else None
    shared = _bstr(members[4], "MANIFEST", "shared sequence") if 4 in members else None
    return components, dependencies, shared


def _texts(data: bytes, components: Sequence[ComponentId]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for language, raw in _map(strict_cbor.loads(data), "MANIFEST", "text").items():
        entry: dict[str, Any] = {}
        for key, value in _map(raw, "MANIFEST", "text of a language").items():
            if isinstance(key, tuple):
                if key not in components:
                    raise ToolError("COMPONENT", f"The text describes {show_id(key)}, which is not a component.")
                entry[show_id(key)] = _named(value, COMPONENT_TEXTS)
            else:
                entry.update(_named({key: value}, MANIFEST_TEXTS))
        result[_tstr(language, "MANIFEST", "language tag")] = entry
    return result


def _named(value: Any, names: Mapping[int, str]) -> dict[str, str]:
    items = _map(value, "MANIFEST", "text map")
    for key in items:
        if isinstance(key, bool) or key not in names:
            raise ToolError("MANIFEST", f"Text member {key} is not known.")
    return {names[key]: _tstr(text, "MANIFEST", names[key]) for key, text in items.items()}


def _envelope_map(data: bytes, tagged: bool) -> dict[Any, Any]:
    """The envelope's map; key order is judged here, since the wrapper must come first whatever the keys are."""
    item = strict_cbor.loads(data, ordered=False)
    if tagged:
        if not isinstance(item, strict_cbor.Tag) or item.number != TAG_ENVELOPE:
            raise ToolError("ENVELOPE", "This is not a SUIT envelope: it does not begin with CBOR tag 107.")
        item = item.value
    members = _map(item, "ENVELOPE", "SUIT envelope")
    if list(members)[:2] != [2, 3]:
        raise ToolError("ENVELOPE", "The envelope must begin with the authentication wrapper and the manifest.")
    strict_cbor.loads(data)
    for key, value in members.items():
        if not isinstance(key, str) and (isinstance(key, bool) or key not in ENVELOPE_MEMBERS):
            raise ToolError("ENVELOPE", f"The envelope has the unknown member {key}.")
        _bstr(value, "ENVELOPE", f"envelope member {key}")
    return members


def decode(data: bytes, *, tagged: bool = True) -> Envelope:
    """Reads a SUIT envelope of any kind. *tagged* false reads the bare map that TEEP embeds.

    What cannot be right whoever signed it is refused: encoding, the manifest's digest, structure, registries, digests
    of severable members. Raises ToolError by the reason codes of the engine. Signatures: see `verify`.
    """
    members = _envelope_map(data, tagged)
    wrapper = _array(strict_cbor.loads(members[2]), "ENVELOPE", "authentication wrapper")
    if not wrapper:
        raise ToolError("ENVELOPE", "The authentication wrapper is empty.")
    payload = _bstr(wrapper[0], "ENVELOPE", "manifest digest")
    digest = _digest(strict_cbor.loads(payload), "ENVELOPE", "manifest digest")
    blocks = tuple(cose.parse_block(_bstr(block, "ENVELOPE", "authentication block")) for block in wrapper[1:])
    if not digest.matches(dumps(members[3])):
        raise ToolError("MANIFEST_DIGEST", "The manifest was changed after it was signed: its digest does not match.")
    manifest = _manifest(members[3], {key: value for key, value in members.items() if isinstance(key, int)})
    payloads = {key: value for key, value in members.items() if isinstance(key, str)}
    return Envelope(digest, payload, blocks, manifest, payloads, len(data))


def _resolve(members: dict[Any, Any], envelope: Mapping[int, bytes]) -> tuple[dict[int, Digest], tuple[int, ...]]:
    """Puts severable members of the envelope in the place of their digests; returns (all digests, what is cut off)."""
    digests: dict[int, Digest] = {}
    severed = []
    for key in SEVERABLE:
        if isinstance(members.get(key), tuple):
            digests[key] = _digest(members[key], "MANIFEST", f"digest of {ENVELOPE_MEMBERS[key]}")
            if key not in envelope:
                severed.append(key)
                del members[key]
            elif digests[key].matches(dumps(envelope[key])):
                members[key] = envelope[key]
            else:
                raise ToolError("SEVERABLE", f"The {ENVELOPE_MEMBERS[key]} in the envelope is not the signed one.")
        elif key in envelope:
            raise ToolError("SEVERABLE", f"The {ENVELOPE_MEMBERS[key]} in the envelope is not covered by a signature.")
    return digests, tuple(severed)


def _manifest(data: bytes, envelope: Mapping[int, bytes]) -> Manifest:
    members = dict(_map(strict_cbor.loads(data), "MANIFEST", "manifest"))
    version = _uint(members.get(1), "MANIFEST", "manifest version")
    if version != 1:
        raise ToolError("MANIFEST_VERSION", f"The manifest version is {version}; only 1 exists.")
    for key in members:
        if isinstance(key, bool) or key not in MANIFEST_MEMBERS:
            raise ToolError("MANIFEST", f"The manifest has the unknown member {key}.")
    number = _uint(members.get(2), "MANIFEST", "sequence number")
    components, dependencies, shared = _common(_bstr(members.get(3), "MANIFEST", "common section"))
    digests, severed = _resolve(members, envelope)
    commands = _Walk(len(components), dependencies)
    sequences = {
        key: commands.top(_bstr(members[key], "MANIFEST", MANIFEST_MEMBERS[key])) for key in SEQUENCES if key in members
    }
    return Manifest(
        number,
        components,
        dependencies,
        () if shared is None else commands.top(shared, shared=True),
        sequences,
        _tstr(members[4], "MANIFEST", "reference URI") if 4 in members else None,
        _component_id(members[5]) if 5 in members else None,
        _version(strict_cbor.loads(_bstr(members[6], "MANIFEST", "set version"))) if 6 in members else None,
        _texts(_bstr(members[23], "MANIFEST", "text"), components) if 23 in members else None,
        _bstr(members[14], "MANIFEST", "CoSWID") if 14 in members else None,
        members.get(25),
        digests,
        severed,
    )


def verify(envelope: Envelope, keys: Sequence[bytes | cose.AnyKey]) -> list[int]:
    """The indices of the *keys* (32-byte Ed25519 public keys, or key objects) that signed *envelope*.

    As on the device, a key id of ours in a block chooses the key.
    """
    objects = [Ed25519PublicKey.from_public_bytes(key) if isinstance(key, bytes) else key for key in keys]
    return [
        index
        for index, key in enumerate(objects)
        if any(_meant(block, key) and cose.verify_block(block, envelope.payload, key) for block in envelope.blocks)
    ]


def _meant(block: cose.Block, key: cose.AnyKey) -> bool:
    if not isinstance(key, Ed25519PublicKey) or block.kid is None or len(block.kid) != cose.KEY_ID_SIZE:
        return True
    return block.kid == cose.key_id(key.public_bytes_raw())


def show_id(identifier: ComponentId) -> str:
    """A component identifier for people: parts as text where they are, else in hexadecimal."""
    return "/".join(
        part.decode() if part and all(0x20 < byte < 0x7F for byte in part) else "h'" + part.hex() + "'"
        for part in identifier
    )
