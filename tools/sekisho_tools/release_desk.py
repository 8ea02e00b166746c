"""A release on its way to be signed offline: request file, review, approvals, signature, assembly.

`release draft` writes a *request* (a small JSON file around the unsigned envelope) beside the payloads. Approvers and
the holder of the release key look at it on machines of their own; each makes a file with one signature. `release
assemble` puts them together. Nothing in these files is secret and nothing is believed: what the envelope says is bound
by the manifest digest, which is what people compare and keys sign, and every step judges the release anew.
"""

from __future__ import annotations

import base64
import binascii
import difflib
import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from . import approvals, cose, keys, keyset, packing, release, release_check, sbom, suit
from .errors import ToolError
from .files import read_file, require_new, write_atomic
from .text import printable

REQUEST, SIGNATURE, APPROVAL, SIDECAR = ".request", ".signature", ".approval", ".release.json"
MAX_REQUEST = 4 << 20
_REQUEST, _SIGNATURE, _SIDECAR = "sekisho-release-request-1", "sekisho-release-signature-1", "sekisho-release-1"


@dataclass(frozen=True)
class Request:
    """An unsigned release that is to be reviewed. *chip*, *layout*, *mode*, *payload_only*: how the gate judges it."""

    name: str
    envelope: bytes
    chip: str
    layout: str
    mode: str
    payload_only: bool = False
    note: str = ""

    @property
    def wanted(self) -> tuple[str, str, str, bool]:
        """How the gate judges it: chip, layout, mode, payload_only."""
        return self.chip, self.layout, self.mode, self.payload_only

    @property
    def digest(self) -> bytes:
        """The manifest digest, 32 bytes: what is reviewed, approved and signed."""
        return suit.decode(self.envelope).digest.value

    def to_json(self) -> str:
        """The text of a request file."""
        return json.dumps(
            {
                "format": _REQUEST,
                "name": self.name,
                "manifest_sha256": self.digest.hex(),
                "chip": self.chip,
                "layout": self.layout,
                "mode": self.mode,
                "payload_only": self.payload_only,
                "note": self.note,
                "envelope": base64.b64encode(self.envelope).decode(),
            },
            indent=2,
        )


def _fields(path: Path, kind: str, what: str) -> dict[str, Any]:
    try:
        fields = json.loads(read_file(path, what, MAX_REQUEST))
    except (ValueError, RecursionError) as error:
        raise ToolError("REQUEST", f"{path} is no {what} file, or it is truncated; get it again.") from error
    if not isinstance(fields, dict) or fields.get("format") != kind:
        raise ToolError("REQUEST", f"{path} is not a release {what} file.")
    return fields


def read_request(path: Path) -> Request:
    """The request in the file *path*. Raises ToolError FILE, REQUEST, or what is wrong with the envelope in it."""
    fields = _fields(path, _REQUEST, "request")
    try:
        request = Request(
            str(fields["name"]),
            base64.b64decode(fields["envelope"], validate=True),
            str(fields["chip"]),
            str(fields["layout"]),
            str(fields["mode"]),
            fields["payload_only"] is True,
            str(fields["note"]),
        )
        stated = str(fields["manifest_sha256"])
    except (KeyError, TypeError, ValueError, binascii.Error) as error:
        raise ToolError("REQUEST", f"{path} is damaged; get the request again.") from error
    release.check_name(request.name)
    decoded = suit.decode(request.envelope)
    if decoded.blocks or decoded.payloads:
        raise ToolError("REQUEST", f"{path} holds a signed release or payloads; a request holds neither.")
    if decoded.digest.value.hex() != stated:
        raise ToolError("REQUEST", f"The release in {path} does not have the digest that it names; get it again.")
    return request


# -- review ---------------------------------------------------------------------------------------------------------


def summary(envelope: bytes) -> list[str]:
    """What a release says, line by line, for the people who answer for it."""
    decoded = suit.decode(envelope)
    manifest = decoded.manifest
    lines = [f"sequence number: {manifest.sequence_number}"]
    names = [suit.show_id(identifier) for identifier in manifest.components]
    for name, parameters in zip(names, manifest.parameters(), strict=True):
        if 3 in parameters:
            lines += [
                f"{name}: vendor {UUID(bytes=parameters[1])}",
                f"{name}: class {UUID(bytes=parameters[2])}",
                f"{name}: {parameters[14]} bytes, SHA-256 {parameters[3].value.hex()}",
            ]
        if 24 in parameters:
            lines.append(f"{name}: only for the device {UUID(bytes=parameters[24])}")
        if 4 in parameters:
            lines.append(f"{name}: to be installed before {datetime.fromtimestamp(parameters[4], UTC).isoformat()}")
    lines += _ties(manifest, names)
    for name, form in packing.packed_forms(decoded):
        how = " and ".join(word for word in (form.encryption and "encrypted", form.compressed and "compressed") if word)
        lines.append(f"{name}: travels {how}, {form.size} bytes, SHA-256 {form.digest.hex()}")
        if form.encryption:
            groups = [kid.hex() for _, kid, _ in suit.encryption_info(form.encryption).recipients if kid]
            lines.append(f"{name}: readable by the device groups {', '.join(groups)}")
    for language, text in (manifest.text or {}).items():
        for key, value in text.items():
            if isinstance(value, str):
                lines += [f"text {language}: {line}" for line in value.splitlines()]
            else:
                lines += [f"text {language}: {key} {label}: {words}" for label, words in value.items()]
    return [printable(line) for line in lines]


def _ties(manifest: suit.Manifest, names: Sequence[str]) -> list[str]:
    lines, current = [], 0
    for command in manifest.shared:
        if command.code == 12 and isinstance(command.argument, int):
            current = command.argument
        elif command.code == 20 and 28 in command.argument:
            comparison, wanted = command.argument[28]
            sign = {1: ">", 2: ">=", 3: "=", 4: "<=", 5: "<"}[comparison]
            lines.append(f"{names[current]}: must run with sequence number {sign} {wanted[0]}")
    return lines


def review(envelope: bytes, known: bytes | None = None) -> list[str]:
    """`summary`, or with *known* (the release before) what is different from it: lines with ``+`` and ``-``."""
    lines = summary(envelope)
    if known is None:
        return lines
    return [line for line in difflib.ndiff(summary(known), lines) if line[:1] != "?"]


def expect(request: Request, digest: str | None) -> None:
    """Refuse with REVIEW_CHANGED when the request is not the one with the manifest *digest* (hex) that was reviewed."""
    if digest is not None and digest.lower() != request.digest.hex():
        raise ToolError(
            "REVIEW_CHANGED",
            f"This request is for {request.digest.hex()}, not for the release that was reviewed; nothing was signed.",
        )


# -- signing --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Verdict:
    """What was found before signing, and on whose word it is signed."""

    environment: str
    findings: tuple[release_check.Finding, ...] = ()
    override: str | None = None
    policy: approvals.Policy | None = None
    approvals: tuple[approvals.Approval, ...] = ()
    approvers: tuple[keys.Statement, ...] = ()

    def words(self, name: str, envelope: bytes) -> str:
        """The entry for the signing log."""
        decoded = suit.decode(envelope)
        parts = [f"release {name}, sequence {decoded.manifest.sequence_number}"]
        if self.policy is not None:
            who = ", ".join(one.key_id.hex() for one in self.approvers)
            parts.append(f"approved by {who} under policy {self.policy.digest[:16]}")
        if self.override is not None:
            parts.append(f"override of {', '.join(self.codes())}: {self.override.strip()}")
        return "; ".join(parts)

    def codes(self) -> list[str]:
        """What was found, each code once."""
        return list(dict.fromkeys(one.code for one in self.findings))

    def to_dict(self) -> dict[str, Any]:
        """For signature files and sidecars."""
        return {
            "environment": self.environment,
            "findings": [{"code": one.code, "sentence": one.sentence} for one in self.findings],
            "override": self.override,
            "policy_sha256": self.policy.digest if self.policy else None,
            "approvals": [base64.b64encode(one.document).decode() for one in self.approvals],
            "approved_by": [{"key_id": one.key_id.hex(), "label": one.label} for one in self.approvers],
        }


def judge(
    inputs: release_check.Inputs,
    policy: approvals.Policy | None = None,
    given: Sequence[approvals.Approval] = (),
    override: str | None = None,
) -> Verdict:
    """Run the gate and count the approvals. ToolError RELEASE_CHECK, OVERRIDE, APPROVAL..., KEYSET_ENVIRONMENT."""
    findings = release_check.check(inputs)
    release_check.require(findings, inputs.environment, override)
    approvers: list[keys.Statement] = []
    if policy is None and given:
        raise ToolError("APPROVALS", "There are approvals but no policy that says whose count (--approvals FILE).")
    if policy is not None:
        keys.require(policy.approvers[0], "approver", inputs.environment)
        approvers = approvals.require(policy, suit.decode(inputs.envelope).digest.value, given)
    return Verdict(inputs.environment, tuple(findings), override, policy, tuple(given), tuple(approvers))


@dataclass(frozen=True)
class Signature(cose.MadeOffline):
    """A release key's signature, made offline. *manifest* is the digest that it is for; *signed_at* is ISO 8601."""

    manifest: bytes
    public_key: bytes
    signature: bytes
    signed_at: str
    verdict: dict[str, Any]

    def to_json(self) -> str:
        """The text of a signature file."""
        return json.dumps(
            {
                "format": _SIGNATURE,
                "manifest_sha256": self.manifest.hex(),
                "key_id": self.key_id.hex(),
                "public_key": self.public_key.hex(),
                "signed_at": self.signed_at,
                "signature": self.signature.hex(),
                "verdict": self.verdict,
            },
            indent=2,
        )


def respond(request: Request, signer: keys.Signer, keyset_document: bytes, verdict: Verdict) -> Signature:
    """Sign *request* with a release key, if devices would take it under the key set. Raises ToolError like `judge`."""
    keys.require(signer.statement, "release", verdict.environment)
    signed = suit.sign(request.envelope, [signer])
    release.check(signed, release.load_keyset(keyset_document), release.own_identity(suit.decode(signed)))
    block = suit.decode(signed).blocks[0]
    signed_at = datetime.fromtimestamp(int(time.time()), UTC).isoformat()
    return Signature(request.digest, signer.public_key, block.signature, signed_at, verdict.to_dict())


def read_signature(path: Path) -> Signature:
    """The signature in the file *path*; it is verified by `assemble`. Raises ToolError FILE or REQUEST."""
    fields = _fields(path, _SIGNATURE, "signature")
    try:
        return Signature(
            bytes.fromhex(fields["manifest_sha256"]),
            bytes.fromhex(fields["public_key"]),
            bytes.fromhex(fields["signature"]),
            str(fields["signed_at"]),
            dict(fields["verdict"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ToolError("REQUEST", f"{path} is damaged; let it be signed again.") from error


def assemble(request: Request, signatures: Sequence[Signature], keyset_document: bytes) -> bytes:
    """The signed release, judged as a device would under the key set.

    Raises ToolError REQUEST (a signature for another release), SIGNATURE, or the device's reason.
    """
    for one in signatures:
        if one.manifest != request.digest:
            raise ToolError(
                "REQUEST", f"The signature of {one.key_id.hex()} is for another release; the files were swapped."
            )
    envelope = suit.sign(request.envelope, signatures)
    release.check(envelope, release.load_keyset(keyset_document), release.own_identity(suit.decode(envelope)))
    return envelope


def sidecar(envelope: bytes, verdicts: Sequence[dict[str, Any]], bill: bytes | None) -> str:
    """The text of the sidecar: what was signed, by whom, what the gate found, who approved, why it was overridden."""
    decoded = suit.decode(envelope)
    return json.dumps(
        {
            "format": _SIDECAR,
            "manifest_sha256": decoded.digest.value.hex(),
            "envelope_sha256": hashlib.sha256(envelope).hexdigest(),
            "sequence": decoded.manifest.sequence_number,
            "signed_by": [block.kid.hex() for block in decoded.blocks if block.kid],
            "sbom_sha256": hashlib.sha256(bill).hexdigest() if bill is not None else None,
            "verdicts": list(verdicts),
        },
        indent=2,
    )


# -- files ----------------------------------------------------------------------------------------------------------


def write_new(path: Path, data: str | bytes) -> Path:
    """Write a file that must not be there yet. Raises ToolError FILE_EXISTS or FILE."""
    require_new(path)
    return write_atomic(path, data + "\n" if isinstance(data, str) else data)


def write_sidecar(path: Path, text: str) -> Path:
    """Write the sidecar of a release; one that says something else is kept under a number."""
    number, target = 1, path
    while target.exists() and target.read_text() != text + "\n":
        number += 1
        target = path.with_name(f"{path.name}.{number}")
    return write_atomic(target, text + "\n")


def gather(request: Request, directory: Path) -> tuple[dict[str, bytes], bytes | None]:
    """(images by component, SBOM) that the request names, from *directory*, so that the gate can judge them anew.

    An image that travels encrypted is looked for beside the others. Raises ToolError FILE, IMAGE_DIGEST, SBOM.
    """
    decoded = suit.decode(request.envelope)
    images = {}
    for identifier, parameters in zip(decoded.manifest.components, decoded.manifest.parameters(), strict=True):
        if 3 not in parameters:
            continue
        name, digest = suit.show_id(identifier), parameters[3].value
        path = next(
            (
                found
                for found in (directory / release.payload_path(digest), directory / release.plain_path(digest))
                if found.exists()
            ),
            directory / release.payload_path(digest),
        )
        images[name] = read_file(path, f"image of {name}")
        if hashlib.sha256(images[name]).digest() != digest:
            raise ToolError("IMAGE_DIGEST", f"{path} is not the image that the release names: its SHA-256 differs.")
    for name, form in packing.packed_forms(decoded):
        data = read_file(directory / release.payload_path(form.digest), f"packed payload of {name}")
        if hashlib.sha256(data).digest() != form.digest:
            raise ToolError("IMAGE_DIGEST", f"The packed payload of {name} is not the one that the release names.")
    path = directory / (request.name + sbom.SUFFIX)
    return images, sbom.read(path) if path.exists() else None


def environment_of(keyset_document: bytes) -> str:
    """``development`` or ``release``."""
    return keyset.decode(keyset_document).environment_name
