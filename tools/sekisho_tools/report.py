"""Reports of devices at the desk: verify, hold against what is known, say in plain words what is wrong.

Written apart from the device's writer, with `cbor2`'s strict sibling of this package; the numbers are the device's own.
"""

from __future__ import annotations

import hashlib
import hmac
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from . import advisories, cose, device_code, issued, publish, sbom, strict_cbor
from . import suit as suit_tools
from .errors import ToolError

assert device_code
from sekisho import eventlog, hardware, record, syslog  # noqa: E402
from sekisho import report as device  # noqa: E402
from sekisho_boot import reasons, suit  # noqa: E402

MAX_REPORT = 1 << 16
_WORDS = {
    "engine-fault": "The update engine itself broke down at this start.",
    "locked": "Nothing proves a counter any more: no installs until an operator unlocks the device.",
    "keyset-lost": "The newest key set is lost and must be fetched again.",
    "keyset-expired": "The key set has expired: nothing is installed until there is a newer one.",
    "below-floor": "What runs is below the security floor: it may only update.",
    "revoked": "What runs was revoked: it may only update.",
    "unproven": "No record proves what the running firmware is.",
    "record-lost": "The device record is lost: orders need a nonce.",
    "log-lost": "The event log cannot be kept.",
}
_KINDS = {
    "engine": "The update engine: {}.",
    "changed": "The bytes in {} are not those that were installed.",
    "mount": "The file system {} cannot be used.",
    "safe": "The device is in its safe state: {}.",
    "interface": "The interface {} is open and must not be on a production device.",
    "hardware": "The product asks for {}, which is not burnt into this chip.",
}


def word(reason: str) -> str:
    """A reason of a device's verdict as a sentence."""
    kind, _, what = reason.partition(":")
    return _WORDS.get(reason) or _KINDS.get(kind, "Degraded: {}.").format(what or reason)


def _octets(value: object) -> bytes:
    """A byte string that a device wrote; ToolError REPORT for anything else, as a number would be that many bytes."""
    if not isinstance(value, bytes):
        raise ToolError("REPORT", "The report has something else where bytes belong.")
    return value


def _uuid(value: object) -> UUID:
    """A UUID that a device wrote; ToolError REPORT unless it is 16 bytes."""
    octets = _octets(value)
    if len(octets) != 16:
        raise ToolError("REPORT", "The report has an identifier that is no UUID.")
    return UUID(bytes=octets)


@dataclass(frozen=True)
class Report:
    """A report whose form is right. *claims* are those of RFC 8392 and 9711, *ours* the private claim."""

    claims: dict[int, Any]
    ours: dict[int, Any]
    key_id: bytes
    document: bytes

    @property
    def device(self) -> UUID:
        """The id that manifests and orders carry."""
        return UUID(bytes=bytes(self.claims[device.UEID])[1:])

    @property
    def results(self) -> list[tuple[bytes, int, int, int]]:
        """Results of operator orders."""
        return [tuple(one) for one in self.ours.get(device.RESULTS, [])]

    def running(self) -> dict[str, tuple[int, bytes, bytes]]:
        """Component -> (sequence number, manifest digest, SHA-256 of the image as measured)."""
        return {suit.NAMES[s[0]]: (s[3], _octets(s[4]), _octets(s[7])) for s in self.ours[device.SLOTS] if s[2]}

    def head(self) -> str:
        """The head of the event log as `sekisho events verify --head` takes it."""
        number, digest = self.ours[device.LOG]
        return f"{number}:{_octets(digest).hex()}"


_SHAPE: dict[int, type | tuple[type, ...]] = {
    device.MODE: int,
    device.SLOTS: tuple,
    device.KEYSET: tuple,
    device.COUNTERS: tuple,
    device.LAST: tuple,
    device.RESULTS: tuple,
    device.INTERFACES: tuple,
    device.SETTINGS: bytes,
    device.LOG: tuple,
    device.CLOCK: tuple,
    device.VERDICT: tuple,
    device.VERSIONS: tuple,
}


def parse(document: bytes) -> Report:
    """Reads a report, its signature not yet checked. Raises ToolError REPORT, CBOR, LIMIT."""
    wrong = ToolError("REPORT", "This is no report of a device.")
    parts = strict_cbor.loads(document)
    if not isinstance(parts, strict_cbor.Tag) or parts.number != cose.TAG_SIGN1:
        raise wrong
    parts = parts.value
    if not isinstance(parts, tuple) or len(parts) != 4 or not isinstance(parts[1], dict):
        raise wrong
    kid = parts[1].get(cose.LABEL_KID)
    if not isinstance(kid, bytes) or not all(isinstance(part, bytes) for part in (parts[0], parts[2], parts[3])):
        raise wrong
    claims = strict_cbor.loads(parts[2])
    if not isinstance(claims, dict) or claims.get(device.PROFILE) != device.PROFILE_NAME:
        raise wrong
    ours, ueid = claims.get(device.SEKISHO), claims.get(device.UEID)
    if not isinstance(ours, dict) or not isinstance(ueid, bytes) or len(ueid) != 17:
        raise wrong
    for member, kind in _SHAPE.items():
        if not isinstance(ours.get(member), kind):
            raise wrong
    sizes = {device.LOG: 2, device.LAST: 3, device.COUNTERS: 2, device.CLOCK: 2}
    if any(len(ours[member]) != size for member, size in sizes.items()):
        raise wrong
    for slot in ours[device.SLOTS]:
        if not isinstance(slot, tuple) or len(slot) != 8 or slot[0] not in (0, 1):
            raise wrong
    return Report(dict(claims), dict(ours), bytes(kid), document)


def check_signature(report: Report, public_key: bytes) -> None:
    """ToolError SIGNATURE unless *public_key* signed it, KEY_UNKNOWN when it names another key."""
    if report.key_id != cose.key_id(public_key):
        raise ToolError(
            "KEY_UNKNOWN",
            f"The key {report.key_id.hex()} signed the report; this device has {cose.key_id(public_key).hex()}.",
        )
    if not cose.verify_sign1_by_device(report.document, public_key):
        raise ToolError("SIGNATURE", "The report was changed after the device signed it.")


@dataclass
class Finding:
    """What is wrong (*bad* true) or merely worth knowing, in a sentence."""

    text: str
    bad: bool = True


@dataclass
class Verdict:
    """All that was found about one report."""

    report: Report
    findings: list[Finding] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Nothing is wrong."""
        return not any(one.bad for one in self.findings)

    def add(self, text: str, bad: bool = True) -> None:
        """One more finding."""
        self.findings.append(Finding(text, bad))


def verify(
    document: bytes,
    public_key: bytes,
    *,
    nonce: bytes | None = None,
    known: issued.IssuingRecord | None = None,
    releases: Sequence[bytes] = (),
    boms: Sequence[Bom] = (),
    known_vulnerabilities: Sequence[Mapping[str, Any]] = (),
) -> Verdict:
    """The verdict on a report. *releases* are SUIT envelopes, *boms* their SBOMs, which are held against the advisories
    *known_vulnerabilities* (OSV; see `advisories.load`).

    Raises ToolError when the report cannot be believed at all (REPORT, KEY_UNKNOWN, SIGNATURE, NONCE).
    """
    report = parse(document)
    check_signature(report, public_key)
    if nonce is not None and not hmac.compare_digest(report.claims.get(device.NONCE, b""), nonce):
        raise ToolError("NONCE", "The report does not answer this nonce: it is an old one, or one for somebody else.")
    verdict = Verdict(report)
    for reason in report.ours[device.VERDICT]:
        verdict.add(word(str(reason)))
    if known is not None:
        _hold_against_record(verdict, known)
    if releases:
        _hold_against_releases(verdict, releases)
    _hold_against_boms(verdict, boms, releases, known_vulnerabilities)
    _events(verdict)
    if report.ours[device.MODE] == 1:
        verdict.add("The device is in development mode.", bad=known is not None and known.environment == "release")
    if not report.ours[device.CLOCK][1]:
        verdict.add("Its clock was not set; it cannot tell whether it is being kept from newer key sets.", bad=False)
    if nonce is None:
        verdict.add("No nonce was asked for, so this report may be an old one.", bad=False)
    for digest, _, code, _ in report.results:
        if code:
            verdict.add(f"Order {_octets(digest).hex()} could not be done: {reasons.name(code)}.", bad=False)
    code, _, sequence = report.ours[device.LAST]
    if code:
        verdict.add(f"The last update, release {sequence}, failed: {reasons.name(code)}.", bad=False)
    return verdict


def entries(report: Report) -> list[bytes]:
    """The entries of the event log that came with a report, 64 bytes each, oldest first."""
    found = report.ours.get(device.EVENTS, b"")
    if not isinstance(found, bytes) or len(found) % eventlog.ENTRY or len(found) > device.MAX_EVENTS * eventlog.ENTRY:
        raise ToolError("REPORT", "The report has event log entries of a wrong size.")
    return [found[at : at + eventlog.ENTRY] for at in range(0, len(found), eventlog.ENTRY)]


def _events(verdict: Verdict) -> None:
    """Whether the entries that came along follow each other, and the last of them the head."""
    found = entries(verdict.report)
    number, head = verdict.report.ours[device.LOG]
    for before, entry in itertools.pairwise(found):
        follows = int.from_bytes(entry[:4], "little") == int.from_bytes(before[:4], "little") + 1
        if not follows or eventlog.chain(before[eventlog.BODY :], entry[: eventlog.BODY]) != entry[eventlog.BODY :]:
            verdict.add("Entries of its event log were removed, changed or moved.")
            return
    if found and int.from_bytes(found[-1][:4], "little") == number and found[-1][eventlog.BODY :] != _octets(head):
        verdict.add("The last entry of its event log is not the one that it signed for.")


def _hold_against_record(verdict: Verdict, known: issued.IssuingRecord) -> None:
    report = verdict.report
    identity = report.ours.get(device.ID)
    if identity is not None and _uuid(identity) != UUID(known.id):
        verdict.add(f"It says it is {_uuid(identity)}, but the record is for {known.id}.")
    if known.suit_device is not None and UUID(known.suit_device) != report.device:
        verdict.add("It runs on another chip than the one that was issued: the identity was moved or copied.")
    classes = [_uuid(one) for one in report.ours.get(device.CLASSES, ())]
    if UUID(known.product_class) not in classes:
        verdict.add("Its product class is not the one that was issued.")
    trust = report.ours[device.KEYSET]
    if trust and trust[0] == known.keyset_version and _octets(trust[1]).hex() != known.keyset:
        verdict.add("Its key set has the version that was issued, but other content.")
    if trust and trust[0] < known.keyset_version:
        verdict.add("Its key set is older than the one that was issued.")
    running = report.running().get("fw")
    issued_image = known.firmware
    if issued_image and running and running[0] == issued_image.sequence and running[2].hex() != issued_image.digest:
        verdict.add("The firmware has the sequence number that was issued, but other bytes.")


def _hold_against_releases(verdict: Verdict, releases: Sequence[bytes]) -> None:
    known: dict[bytes, tuple[int, dict[str, bytes]]] = {}
    for envelope in releases:
        decoded = suit_tools.decode(envelope)
        manifest = decoded.manifest
        images = {
            b"".join(names).decode(errors="replace"): parameters[3].value
            for names, parameters in zip(manifest.components, manifest.parameters(), strict=True)
            if 3 in parameters
        }
        known[decoded.digest.value] = (manifest.sequence_number, images)
    newest = max(sequence for sequence, _ in known.values())
    for component, (sequence, digest, measured) in verdict.report.running().items():
        if digest not in known:
            verdict.add(f"{component} runs release {sequence}, which is none of the known ones.")
        elif measured != known[digest][1].get(component, measured):
            verdict.add(f"{component} claims release {sequence}, but its bytes are not those of that release.")
        elif sequence < newest:
            verdict.add(f"{component} runs release {sequence}; release {newest} is out.", bad=False)


@dataclass(frozen=True)
class Bom:
    """A software bill of materials: the CycloneDX *document* and the SHA-256 of its file, by which releases name it."""

    document: Mapping[str, Any]
    digest: bytes


def read_bom(path: Path) -> Bom:
    """The SBOM in a file. Raises ToolError FILE or SBOM."""
    data = sbom.read(path)
    return Bom(sbom.parse(data, str(path)), hashlib.sha256(data).digest())


def _hold_against_boms(
    verdict: Verdict, boms: Sequence[Bom], releases: Sequence[bytes], known: Sequence[Mapping[str, Any]]
) -> None:
    """What runs, by its measured SHA-256, in the bills that name it: vulnerabilities listed there or in *known*."""
    measured = {component: digest.hex() for component, (_, _, digest) in verdict.report.running().items()}
    named = {digest for one in releases for digest in publish.sbom_digests(suit_tools.decode(one).manifest)}
    unseen = dict(measured)
    for bom in boms:
        hits = [component for component, digest in measured.items() if digest in sbom.hashes(bom.document)]
        if not hits:
            continue
        if releases and bom.digest not in named:
            verdict.add("An SBOM that lists what runs is none that the known releases name: nobody has signed it.")
            continue
        for component in hits:
            unseen.pop(component, None)
        _vulnerabilities(verdict, bom.document, known)
    for component in unseen if boms else ():
        verdict.add(f"None of the SBOMs is about what runs as {component}.", bad=False)


def _vulnerabilities(verdict: Verdict, bom: Mapping[str, Any], known: Sequence[Mapping[str, Any]]) -> None:
    for found in bom.get("vulnerabilities", []):
        state = found.get("analysis", {}).get("state", "")
        harmless = state in ("not_affected", "false_positive", "resolved", "resolved_with_pedigree")
        rating = next((r.get("severity", "") for r in found.get("ratings", [])), "")
        text = " ".join(filter(None, ("What runs has the known vulnerability", found.get("id", "?"), rating, state)))
        verdict.add(text + ".", bad=not harmless)
    for one in advisories.check(sbom.components(bom), known):
        verdict.add(f"What runs has a known vulnerability: {one}.")


def _time(seconds: Any) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
    except (OverflowError, ValueError, OSError, TypeError):
        return str(seconds)


def describe(report: Report) -> dict[str, str]:
    """A report in words, name by name."""
    ours = report.ours
    shown = {
        "device": str(report.device),
        "product": str(ours.get(device.PRODUCT, "")),
        "made": _time(report.claims.get(device.IAT)),
        "mode": {1: "development", 2: "production"}.get(ours[device.MODE], "?"),
        "says of itself": "degraded: " + ", ".join(map(str, ours[device.VERDICT])) if ours[device.VERDICT] else "ok",
        "versions": " ".join(map(str, ours[device.VERSIONS])),
    }
    for component, slot, runs, sequence, manifest, size, _, measured in ours[device.SLOTS]:
        runs = "runs" if runs else "idle"
        digests = f"manifest {_octets(manifest).hex()[:16]}, image {_octets(measured).hex()[:16]}"
        shown[f"{suit.NAMES[component]} slot {slot}"] = f"{runs}, release {sequence}, {size} bytes, {digests}"
    trust = ours[device.KEYSET]
    shown["key set"] = f"version {trust[0]}, expires {_time(trust[3])}" if trust else "lost"
    shown["counters"] = ", ".join(f"{n} {c}" for n, c in zip(suit.NAMES, ours[device.COUNTERS], strict=False))
    if device.HARDWARE in ours:
        states = ours[device.HARDWARE]
        shown["hardware"] = ", ".join(f"{n} {'yes' if states.get(i) else 'no'}" for i, n in hardware.NAMES.items())
    recent = entries(report)
    if recent:
        names = [syslog.event_name(one[8]) for one in recent]
        shown["events"] = f"{int.from_bytes(recent[0][:4], 'little')}: " + ", ".join(names)
    shown["interfaces"] = ", ".join(map(str, ours[device.INTERFACES])) or "none open"
    shown["event log"] = report.head()
    shown["order nonce"] = str(ours.get(device.ORDER_NONCE, ""))
    for digest, action, code, when in report.results:
        outcome = "obeyed" if code == 0 else reasons.name(code)
        shown[f"order {_octets(digest).hex()}"] = f"action {action}, {outcome}, {_time(when)}"
    return shown


def last_statement(values: dict[int, Any]) -> bytes | None:
    """The statement that a device signed before a wipe destroyed its key, out of its device record."""
    found = values.get(record.STATEMENT)
    return _octets(found) if found is not None else None
