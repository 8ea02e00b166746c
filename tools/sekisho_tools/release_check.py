"""The gate before signing: what a release must be, besides good for a device (guideline UPC10).

`check` names everything that is wrong at once. In the release environment none of it may be left; whoever signs anyway
must say why, and the reason goes into the signing log and the release's sidecar. Development releases are only told.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from . import advisories, device_code, flashimage, imagefile, keyset, packing, published, sbom, secure_boot, suit
from .errors import ToolError
from .layout import Layout

assert device_code.BOOT

from sekisho_boot import keyset as device_keyset  # noqa: E402

FROZEN, STOCK = flashimage.FROZEN, flashimage.STOCK
MAX_DOWNLOAD = 12288
"""Bytes of an envelope that the agent takes (`sekisho.envelope.MAX_DOWNLOAD`)."""
MIN_REASON = 10
"""Characters of a reason to override; "ok" is none."""
SUPPORT, CONTACT, SBOM = "Support-Until", "Contact", "SBOM-SHA256"
"""Labels of the last lines of each text: until when the product gets updates, whom to tell, the SBOM's digest."""

_ENGINE = ("sekisho_boot/engine.py", "sekisho_boot/suit.py", "sekisho_boot/keyset.py", "_boot.py")
_AGENT = "sekisho/agent.py"
_FAR = 253_402_300_799  # 9999-12-31, the last day that `datetime` knows
_SIGN_TAG = b"\xd8\x62\x84\x40\xa0"  # a COSE_Sign with empty headers, as every key set document begins
SECRETS = (b"PRIVATE KEY-----", b'"format":"sekisho-kek-1"')


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: a *code* to name it by, and a sentence."""

    code: str
    sentence: str

    def __str__(self) -> str:
        return f"{self.code}: {self.sentence}"


@dataclass(frozen=True)
class Inputs:
    """What the gate looks at.

    *images*: component name -> its bytes (not packed). *keyset*: the document that devices will judge it by. *mode*:
    ``frozen`` or ``stock``. *published*: the releases that are out, None where nobody said. *threshold*: severity
    (`advisories.SEVERITIES`) from which a known vulnerability is too much. *secure_boot*: the key (PEM file) that the
    product's chips ask for, where they do.
    """

    envelope: bytes
    images: Mapping[str, bytes]
    table: Layout
    chip: str
    mode: str
    keyset: bytes
    sbom: bytes | None = None
    advisories: Sequence[Mapping[str, Any]] | None = None
    threshold: str = "medium"
    published: Sequence[tuple[str, suit.Envelope]] | None = None
    payload_only: bool = False
    secure_boot: Path | None = None
    today: date = field(default_factory=lambda: datetime.now(UTC).date())

    @property
    def environment(self) -> str:
        """``development`` or ``release``."""
        return keyset.decode(self.keyset).environment_name


def check(inputs: Inputs) -> list[Finding]:
    """Everything that is wrong with a release, in a fixed order; an empty list when it may be signed."""
    decoded = suit.decode(inputs.envelope)
    found: list[Finding] = []
    if len(inputs.envelope) > MAX_DOWNLOAD:
        found.append(
            Finding("LIMIT", f"The envelope has {len(inputs.envelope)} bytes; devices take {MAX_DOWNLOAD}: cut texts.")
        )
    if "fw" in inputs.images:
        found += _firmware(inputs, inputs.images["fw"])
    if "app" in inputs.images:
        found += _application(inputs, inputs.images["app"])
    if inputs.environment == "release":
        for name, data in inputs.images.items():
            found += _strange_keys(name, data)
    found += _trust(inputs, decoded)
    found += _published(inputs, decoded)
    found += _texts(inputs, decoded)
    found += _bill(inputs, decoded)
    return found


# -- images ---------------------------------------------------------------------------------------------------------


def _firmware(inputs: Inputs, data: bytes) -> list[Finding]:
    try:
        image = imagefile.parse(data)
        if image.chip != inputs.chip:
            return [Finding("IMAGE_CHIP", f"The firmware is for {image.chip}, the product has {inputs.chip}.")]
        flashimage.check_firmware_version(image, inputs.payload_only)
    except ToolError as error:
        return [Finding(error.code, error.sentence)]
    found = []
    room = inputs.table["ota_0"].size
    if len(data) > room or image.size != len(data):
        found.append(Finding("IMAGE_SIZE", f"The image has {len(data)} bytes and must be one that {room} can hold."))
    words = secure_boot.problem(data, inputs.secure_boot, "firmware") if inputs.secure_boot else None
    if words:
        found.append(Finding(secure_boot.CODE, words))
    frozen = sbom.frozen_modules(data)
    missing = [name for name in (*_ENGINE, _AGENT) if name not in frozen]
    if inputs.mode == FROZEN and missing:
        found.append(
            Finding(
                "ENGINE",
                f"The firmware has no {', '.join(missing)} frozen in: a device that installed it could not verify or "
                "fetch the next update (for official MicroPython with the engine on vfs: --mode stock).",
            )
        )
    if inputs.mode == STOCK and not missing:
        found.append(Finding("ENGINE", "The firmware has an engine frozen in, but the product is stock (see --mode)."))
    return found


def _application(inputs: Inputs, data: bytes) -> list[Finding]:
    room = inputs.table["app_0"].size
    found = []
    if not 0 < len(data) <= room:
        found.append(Finding("IMAGE_SIZE", f"The application has {len(data)} bytes; a slot holds 1 to {room}."))
    files = flashimage.read_littlefs(data) or {}
    names = sorted(name for name in files if re.match(r"/(lib/)?(sekisho_boot|sekisho|sekisho_config)(/|\.|$)", name))
    if names:
        found.append(
            Finding("ENGINE", f"The application brings {names[0]}, which would stand in front of the device's own.")
        )
    return found


def _strange_keys(name: str, data: bytes) -> list[Finding]:
    """Development key sets and private keys anywhere in an image, or in the files of its file system."""
    found: dict[str, Finding] = {}
    for what, content in [(name, data), *(flashimage.read_littlefs(data) or {}).items()]:
        place = content.find(_SIGN_TAG)
        while place >= 0:
            if _environment(content[place : place + device_keyset.MAX_KEYSET]) == "development":
                sentence = f"{what} holds a development key set: whoever has those open keys could sign for it."
                found["key set"] = Finding("DEVELOPMENT_KEY", sentence)
            place = content.find(_SIGN_TAG, place + 1)
        if b'"environment":"development"' in content.replace(b" ", b"") and b'"sekisho-key-1"' in content:
            found["statement"] = Finding("DEVELOPMENT_KEY", f"{what} holds a development key or its statement.")
        if any(mark in content for mark in SECRETS):
            found["secret"] = Finding("DEVELOPMENT_KEY", f"{what} holds a private key; no image may.")
    return list(found.values())


def _environment(data: bytes) -> str | None:
    """The environment of the key set document at the start of *data*, or None where there is none."""
    import io

    import cbor2

    try:
        stream = io.BytesIO(data)
        tagged = cbor2.CBORDecoder(stream).decode()
        return keyset.decode(cbor2.dumps(tagged, canonical=True)).environment_name
    except (ToolError, cbor2.CBORDecodeError, ValueError, TypeError, KeyError, RecursionError, OverflowError):
        return None


# -- what devices trust ---------------------------------------------------------------------------------------------


def _trust(inputs: Inputs, decoded: suit.Envelope) -> list[Finding]:
    """What the key set says against the release, whoever signs it."""
    content, found = keyset.decode(inputs.keyset), []
    number = decoded.manifest.sequence_number
    if datetime.fromtimestamp(min(content.expires, _FAR), UTC).date() <= inputs.today:
        found.append(Finding("EXPIRED_KEYSET", "The key set has expired: devices install nothing; renew it first."))
    if decoded.digest.value in content.revoked_manifests:
        found.append(Finding("MANIFEST_REVOKED", "The key set revokes this very release."))
    for name in inputs.images:
        floor, ceiling = content.limits.get(name, (0, number))
        if number < floor:
            found.append(Finding("FLOOR", f"The sequence number {number} is below the floor of {name}, {floor}."))
        if number > ceiling:
            found.append(Finding("CEILING", f"The sequence number {number} is above the ceiling of {name}, {ceiling}."))
    try:
        packing.check_allowed(decoded, device_keyset.parse(inputs.keyset))
    except ToolError as error:
        found.append(Finding(error.code, error.sentence))
    return found


# -- what is out already --------------------------------------------------------------------------------------------


def version_key(version: str) -> list[tuple[int, str]]:
    """A key that sorts version texts: 1.2 = 1.2.0 < 1.10, 1.2-rc1 < 1.2."""
    return advisories.order(version)


def _versions(decoded: suit.Envelope) -> set[str]:
    texts = (decoded.manifest.text or {}).values()
    parts = [part for text in texts for part in text.values() if isinstance(part, Mapping)]
    return {part["component-version"] for part in parts if part.get("component-version")}


def _published(inputs: Inputs, decoded: suit.Envelope) -> list[Finding]:
    if inputs.published is None:
        return [Finding("PUBLISHED", "Nobody said what is published already (--published DIR or URL).")]
    found = []
    own, versions = published.classes_of(decoded), sorted(_versions(decoded))
    for path, other in inputs.published:
        if not own & published.classes_of(other):
            continue
        if other.manifest.sequence_number >= decoded.manifest.sequence_number:
            number = other.manifest.sequence_number
            found.append(Finding("SEQUENCE", f"{path} has the sequence number {number}; this one needs a larger one."))
        late = [one for one in _versions(other) for mine in versions if version_key(one) >= version_key(mine)]
        if late:
            found.append(Finding("VERSION", f"{path} is version {late[0]}; {versions[0]} does not come after it."))
    return found


# -- text -----------------------------------------------------------------------------------------------------------


def trailer(support: str | None, contact: str | None, sbom_digest: str | None) -> str:
    """The last lines of a text."""
    lines = ((SUPPORT, support), (CONTACT, contact), (SBOM, sbom_digest))
    return "\n".join(f"{label}: {value}" for label, value in lines if value)


def labels(text: str) -> dict[str, str]:
    """What the last lines of a text say: label -> value."""
    found = {}
    for line in text.splitlines():
        label, colon, value = line.partition(":")
        if colon and label in (SUPPORT, CONTACT, SBOM):
            found[label] = value.strip()
    return found


def _texts(inputs: Inputs, decoded: suit.Envelope) -> list[Finding]:
    texts = decoded.manifest.text or {}
    found = []
    if not texts:
        found.append(Finding("TEXT", "There is no description for people (--text LANG=FILE)."))
    for language, text in texts.items():
        description = str(text.get("manifest-description", ""))
        said = labels(description)
        if len(description.splitlines()) <= len(said):
            found.append(Finding("TEXT", f"The description in {language} is empty (--text {language}=FILE)."))
        if SUPPORT not in said or CONTACT not in said:
            sentence = f"The text in {language} does not say until when there is support and whom to contact"
            found.append(Finding("SUPPORT", f"{sentence} (--support-until DATE, --contact TEXT)."))
            continue
        try:
            if date.fromisoformat(said[SUPPORT]) < inputs.today:
                found.append(Finding("SUPPORT", f"Support ended on {said[SUPPORT]}."))
        except ValueError:
            found.append(Finding("SUPPORT", f"{said[SUPPORT]!r} is no date; write it as 2031-12-31."))
    return found


# -- parts ----------------------------------------------------------------------------------------------------------


def _bill(inputs: Inputs, decoded: suit.Envelope) -> list[Finding]:
    import hashlib

    if inputs.sbom is None:
        return [Finding("SBOM", "There is no software bill of materials (--sbom FILE, or leave out --no-sbom).")]
    try:
        document = sbom.parse(inputs.sbom)
    except ToolError as error:
        return [Finding(error.code, error.sentence)]
    found = []
    named = sbom.hashes(document)
    for name, data in inputs.images.items():
        if hashlib.sha256(data).hexdigest() not in named:
            found.append(Finding("SBOM", f"The SBOM does not name the image of {name} by its SHA-256."))
    digest = hashlib.sha256(inputs.sbom).hexdigest()
    for language, text in (decoded.manifest.text or {}).items():
        if labels(str(text.get("manifest-description", ""))).get(SBOM) != digest:
            found.append(Finding("SBOM", f"The text in {language} does not name this SBOM."))
    if inputs.advisories is None:
        return [*found, Finding("ADVISORIES", "The SBOM was held against no advisories (--advisories FILE or DIR).")]
    worst = advisories.SEVERITIES.index(inputs.threshold)
    for one in advisories.check(sbom.components(document), inputs.advisories):
        if advisories.SEVERITIES.index(one.severity) >= worst:
            found.append(Finding("VULNERABLE", f"{one}."))
    return found


# -- the verdict ----------------------------------------------------------------------------------------------------


def require(findings: Sequence[Finding], environment: str, override: str | None = None) -> None:
    """Raise ToolError RELEASE_CHECK unless nothing was found, it is a development release, or *override* says why.

    OVERRIDE is raised for a reason that is none, or for one that nothing calls for.
    """
    if override is not None and (len(override.strip()) < MIN_REASON or not override.isprintable()):
        raise ToolError("OVERRIDE", f"A reason to override has at least {MIN_REASON} printable characters.")
    if override is not None and not findings:
        raise ToolError("OVERRIDE", "There is nothing to override: the release passes.")
    if findings and environment == "release" and override is None:
        listed = " ".join(str(one) for one in findings)
        raise ToolError("RELEASE_CHECK", f"The release does not pass, so it is not signed. {listed}")
