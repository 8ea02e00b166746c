"""`sekisho release`: make, check, approve, sign, look at and verify releases."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import typer

from .. import (
    advisories,
    approvals,
    keys,
    layout,
    packing,
    published,
    release,
    release_check,
    release_desk,
    sbom,
    suit,
    suit_show,
)
from ..errors import ToolError
from ..files import read_file, require_new
from ..hawkbit import Api
from ..text import printable
from ._groups import grouped
from ._server import CaOption, JsonOption, PasswordOption, UserOption, connect

app = typer.Typer()

KeysetOption = Annotated[Path, typer.Option("--keyset", metavar="FILE", help="Key set that says who may sign.")]
VersionOption = Annotated[str, typer.Option(metavar="TEXT", help="Version, for people.")]
SequenceOption = Annotated[int, typer.Option(metavar="N", help="Sequence number, for devices: it only ever grows.")]
VendorOption = Annotated[str, typer.Option(metavar="NAME", help="Vendor: a domain or a UUID.")]
ClassOption = Annotated[str, typer.Option("--class", metavar="NAME", help="Product class: a name or a UUID.")]
OutOption = Annotated[Path, typer.Option(metavar="DIR", help="Directory to write to; made if missing.")]
FirmwareOption = Annotated[
    Path | None, typer.Option(metavar="FILE", help="MicroPython firmware: a whole-flash file or a bare app image.")
]
AppOption = Annotated[
    Path | None, typer.Option("--app", metavar="PATH", help="Application: a directory, or an image file.")
]
TextOption = Annotated[
    list[str] | None, typer.Option(metavar="LANG=FILE", help="Description in a language; may be repeated.")
]
SupportOption = Annotated[
    str | None, typer.Option("--support-until", metavar="DATE", help="Until when the product gets updates.")
]
ContactOption = Annotated[str | None, typer.Option(metavar="TEXT", help="Whom to tell of problems: address or URL.")]
NeedsOption = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=N[-M]", help="Sequence numbers wanted of the component that is not in the release."),
]
ChipOption = Annotated[str, typer.Option(metavar="NAME", help="Chip of the product.")]
LayoutOption = Annotated[str, typer.Option("--layout", metavar="NAME", help="Partition layout of the product.")]
ModeOption = Annotated[
    str, typer.Option(metavar="MODE", help="Where the product has its engine: frozen (in the firmware) or stock (vfs).")
]
NameOption = Annotated[str | None, typer.Option(metavar="NAME", help="File name; default CLASS-VERSION.")]
CompressOption = Annotated[bool, typer.Option("--compress", help="Offer a compressed payload beside the plain one.")]
EncryptOption = Annotated[
    list[Path] | None,
    typer.Option("--encrypt-for", metavar="FILE", help="Encrypt for this device group (see group-key); repeatable."),
]
CipherOption = Annotated[
    Literal["A128CTR", "A256CTR"],
    typer.Option("--cipher", help="With --encrypt-for: content encryption; the key set's policy must allow it."),
]
BillOption = Annotated[
    Path | None, typer.Option("--sbom", metavar="FILE", help="Your own SBOM (CycloneDX JSON); default: made here.")
]
NoBillOption = Annotated[bool, typer.Option("--no-sbom", help="Make no SBOM.")]
PayloadOnlyOption = Annotated[
    bool, typer.Option("--payload-only", help="Take firmware of a MicroPython that our device code does not support.")
]
PublishedOption = Annotated[
    list[str] | None,
    typer.Option(
        "--published",
        metavar="DIR|URL",
        help="Where releases are out that this one must come after: a directory, a web site, with --user the update "
        "server or hawkBit. Repeatable.",
    ),
]
AdvisoriesOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--advisories", metavar="PATH", help="Advisories to hold the SBOM against: OSV JSON, files or directories."
    ),
]
ThresholdOption = Annotated[
    str, typer.Option("--refuse-from", metavar="SEVERITY", help="Refuse known vulnerabilities from this severity on.")
]
SecureBootOption = Annotated[
    Path | None,
    typer.Option("--secure-boot-key", metavar="PEM", help="The chips have secure boot: this key must have signed it."),
]
OverrideOption = Annotated[
    str | None, typer.Option(metavar="REASON", help="Sign although the check fails; the reason is recorded.")
]
PolicyOption = Annotated[
    Path | None,
    typer.Option("--approvals", metavar="FILE", help="Approvals policy; default approvals.json by the key."),
]
ApprovalOption = Annotated[
    list[Path] | None, typer.Option(metavar="FILE", help="An approval (see `release approve`); may be repeated.")
]
PassphraseOption = Annotated[int | None, typer.Option(metavar="FD", help="Read the passphrase from here.")]
LogOption = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Signing log; signing-log.jsonl beside the key if left out.")
]
RequestArgument = Annotated[Path, typer.Argument(metavar="REQUEST", help="A file made by `release draft`.")]
KnownOption = Annotated[
    Path | None, typer.Option(metavar="RELEASE", help="The release before; shows what is different.")
]
ExpectOption = Annotated[
    str | None, typer.Option(metavar="SHA256", help="Go on without asking if this is the manifest digest.")
]
PayloadsOption = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Where payload/ and the SBOM are; beside the request if left out.")
]
KeyOption = Annotated[str, typer.Option(metavar="KEY", help="Release key that signs: a .key file or pkcs11: URI.")]


Wanted = tuple[str, str, str, bool]
"""How the gate judges: chip, layout, mode, payload_only."""


@dataclass(frozen=True)
class Product:
    """Options that say what is released, apart from who signs it."""

    PANEL: ClassVar = "What is released"

    version: VersionOption
    vendor: VendorOption
    product_class: ClassOption
    firmware: FirmwareOption = None
    application: AppOption = None
    chip: ChipOption = "esp32"
    table: LayoutOption = "4MiB"
    mode: ModeOption = "frozen"
    payload_only: PayloadOnlyOption = False

    @property
    def wanted(self) -> Wanted:
        """How the gate judges it."""
        return self.chip, self.table, self.mode, self.payload_only

    def components(self) -> tuple[release.Component, ...]:
        """The images that the files hold."""
        rows = layout.load(self.table)
        parts = []
        if self.firmware is not None:
            data = read_file(self.firmware, "firmware")
            parts.append(release.firmware(data, rows, self.chip, self.payload_only))
        if self.application is not None:
            parts.append(release.application(self.application, rows))
        return tuple(parts)

    def bill(self, parts: Sequence[release.Component]) -> bytes:
        """The SBOM of these images."""
        stock = self.mode == release_check.STOCK
        return sbom.for_release(self.vendor, self.product_class, self.version, parts, stock=stock)


@dataclass(frozen=True)
class AnyProduct(Product):
    """The same, for a command that works without a product too."""

    version: VersionOption = ""
    vendor: VendorOption = ""
    product_class: ClassOption = ""


@dataclass(frozen=True)
class Contents:
    """Options that say what stands in the release besides its images."""

    PANEL: ClassVar = "What the release says, and how it travels"

    sequence: SequenceOption
    text: TextOption = None
    support: SupportOption = None
    contact: ContactOption = None
    needs: NeedsOption = None
    name: NameOption = None
    compress: CompressOption = False
    encrypt: EncryptOption = None
    cipher: CipherOption = "A128CTR"
    bill: BillOption = None
    no_bill: NoBillOption = False

    def request(self, product: Product) -> release.Request:
        """What is to be released."""
        parts = product.components()
        document = None
        if self.bill is not None:
            document = sbom.read(self.bill)
        elif not self.no_bill:
            document = product.bill(parts)
        return release.Request(
            vendor=product.vendor,
            product_class=product.product_class,
            version=product.version,
            sequence=self.sequence,
            components=parts,
            texts=release.read_texts(self.text or []),
            ties=release.read_ties(self.needs or []),
            name=self.name,
            support=self.support,
            contact=self.contact,
            bill=document,
            compress=self.compress,
            groups=tuple(packing.read_group_key(path) for path in self.encrypt or ()),
            cipher=packing.CONTENT_NAMES[self.cipher],
        )


@dataclass(frozen=True)
class Gate:
    """Options of the gate."""

    PANEL: ClassVar = "The check before signing"

    sources: PublishedOption = None
    user: UserOption = None
    password_file: PasswordOption = None
    ca: CaOption = None
    advisory: AdvisoriesOption = None
    threshold: ThresholdOption = "medium"
    secure_boot: SecureBootOption = None

    def inputs(
        self, envelope: bytes, images: dict[str, bytes], bill: bytes | None, wanted: Wanted, keyset: bytes
    ) -> release_check.Inputs:
        """For `release_check.check`."""
        chip, table, mode, payload_only = wanted
        if self.threshold not in advisories.SEVERITIES:
            raise ToolError("USAGE", f"--refuse-from is one of {', '.join(advisories.SEVERITIES)}.")
        if mode not in (release_check.FROZEN, release_check.STOCK):
            raise ToolError("USAGE", "--mode is frozen or stock.")
        return release_check.Inputs(
            envelope=envelope,
            images=images,
            table=layout.load(table),
            chip=chip,
            mode=mode,
            keyset=keyset,
            sbom=bill,
            advisories=advisories.load(self.advisory) if self.advisory else None,
            threshold=self.threshold,
            published=self._found(envelope),
            payload_only=payload_only,
            secure_boot=self.secure_boot,
        )

    def _found(self, envelope: bytes) -> published.Found | None:
        """The releases that are out, or None where nobody said where."""
        if not self.sources:
            return None

        def log_in(url: str) -> Api:
            return connect(url, self.user, self.password_file, self.ca)

        named = self.user or os.environ.get("SEKISHO_USER")
        return published.find(self.sources, published.classes_of(suit.decode(envelope)), log_in if named else None)


@dataclass(frozen=True)
class Signing:
    """Options of whoever signs."""

    PANEL: ClassVar = "Signing"

    override: OverrideOption = None
    policy: PolicyOption = None
    approval: ApprovalOption = None
    passphrase_fd: PassphraseOption = None
    log: LogOption = None

    def judge(self, inputs: release_check.Inputs, key: str) -> release_desk.Verdict:
        """The verdict of gate and approvers."""
        given = [approvals.read(path) for path in self.approval or ()]
        return release_desk.judge(inputs, approvals.find_policy(self.policy, key), given, self.override)

    def open(self, key: str, environment: str) -> keys.Signer:
        """The release key."""
        return keys.open_signer(key, keys.Passphrases(self.passphrase_fd), role="release", environment=environment)

    def record(self, key: str, verdict: release_desk.Verdict, name: str, envelope: bytes, signer: keys.Signer) -> None:
        """Enter it into the signing log, before the signature leaves."""
        digest = suit.decode(envelope).digest.value.hex()
        keys.record(self.log or keys.log_path(key), verdict.words(name, envelope), signer, digest)


def _tell(findings: Sequence[release_check.Finding]) -> None:
    for one in findings:
        typer.echo(f"check[{one.code}]: {one.sentence}", err=True)


def _note(verdict: release_desk.Verdict) -> None:
    """Findings that were overridden in full, those of a development release as one line."""
    if verdict.environment == "release":
        _tell(verdict.findings)
    elif verdict.findings:
        codes = ", ".join(verdict.codes())
        typer.echo(f"note: good for development; a release key would not sign this ({codes}).", err=True)


def _require_key(key: str, environment: str) -> None:
    """Refuse a key of the wrong kind before anything else, without asking for its passphrase."""
    keys.require(keys.load_statement(key), "release", environment)


@app.command(
    epilog="Example: sekisho release create --firmware ESP32_GENERIC-v1.26.1.bin --mode stock --version 1.26.1 "
    "--sequence 2 --key keys/release.key --keyset keyset.cose --vendor example.com --class my-board --out release",
    help="Make a signed release: NAME.suit, payload/<sha256>, SBOM. The same inputs give the same bytes.",
)
@grouped
def create(
    product: Product,
    contents: Contents,
    key: KeyOption,
    keyset: KeysetOption,
    out: OutOption,
    gate: Gate,
    signing: Signing,
    as_json: JsonOption = False,
) -> None:
    """Gather the inputs, make the release, let the gate judge it, sign, write it, say what it is."""
    request = contents.request(product)
    document = read_file(keyset, "key set")
    _require_key(key, release_desk.environment_of(document))
    made = release.draft(request)
    images = {part.name: part.data for part in made.components}
    verdict = signing.judge(gate.inputs(made.envelope, images, made.bill, product.wanted, document), key)
    _note(verdict)
    signer = signing.open(key, verdict.environment)
    signed = release.sign(made, signer, document)
    signing.record(key, verdict, made.name, made.envelope, signer)
    told = release_desk.sidecar(signed.envelope, [verdict.to_dict()], made.bill)
    side = release_desk.write_sidecar(out / (made.name + release_desk.SIDECAR), told)
    written = release.write(signed, out)
    if as_json:
        shown = {"written": [str(path) for path in written], "sidecar": str(side), **release.summary(signed)}
        typer.echo(json.dumps(shown, indent=2))
        return
    for path in (*written, side):
        typer.echo(f"wrote {path}")
    typer.echo(f"class {release.summary(signed)['class']}, sequence {made.sequence}")


@app.command(
    epilog="Example: sekisho release draft --firmware build/micropython.bin --version 1.4.0 --sequence 12 "
    "--vendor example.com --class my-board --text en=notes.txt --support-until 2031-12-31 "
    "--contact security@example.com --out release",
    help="Offline signing, step 1: write a request for approvers and the holder of the release key, and the payloads.",
)
@grouped
def draft(
    product: Product,
    contents: Contents,
    out: OutOption,
    note: Annotated[str, typer.Option(help="Why, in words, for those who are asked to sign.")] = "",
) -> None:
    """Make everything but the signature."""
    made = release.draft(contents.request(product))
    asked = release_desk.Request(made.name, made.envelope, *product.wanted, note)
    target = out / (made.name + release_desk.REQUEST)
    require_new(target)
    for path in release.write_parts(made, out):
        typer.echo(f"wrote {path}")
    release_desk.write_new(target, asked.to_json())
    typer.echo(f"wrote {target}")
    typer.echo(f"manifest SHA-256: {made.digest.hex()}")


def _show(asked: release_desk.Request, known: Path | None) -> None:
    before = None if known is None else read_file(known, "release", release.MAX_RELEASE)
    for line in release_desk.review(asked.envelope, before):
        typer.echo(line)
    typer.echo(printable(f"judged as: {asked.chip}, {asked.layout}, {asked.mode}"))
    if asked.note:
        typer.echo(f"note of the drafter: {printable(asked.note)}")
    typer.echo(f"manifest SHA-256: {asked.digest.hex()}")


def _agree(asked: release_desk.Request, digest: str | None, question: str) -> None:
    release_desk.expect(asked, digest)
    if digest is None and not typer.confirm(question):
        raise ToolError("DECLINED", "Nothing was signed.")


@app.command(
    epilog="Example: sekisho release approve release/my-board-1.4.0.request --key keys/aiko.key "
    "--known published/my-board-1.3.0.suit",
    help="Offline signing, step 2, by each approver: look at a request and approve it.",
)
def approve(
    request: RequestArgument,
    key: Annotated[str, typer.Option(metavar="KEY", help="Your approver key: a .key file or pkcs11: URI.")],
    known: KnownOption = None,
    expect: ExpectOption = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Where the approval goes.")] = None,
    passphrase_fd: PassphraseOption = None,
    log: LogOption = None,
) -> None:
    """Show, ask, sign the digest."""
    asked = release_desk.read_request(request)
    _show(asked, known)
    _agree(asked, expect, "Approve this?")
    signer = keys.open_signer(key, keys.Passphrases(passphrase_fd), role="approver")
    target = out or request.with_name(f"{request.name}.{signer.key_id.hex()}{release_desk.APPROVAL}")
    require_new(target)
    document = approvals.approve(asked.digest, signer, signer.statement.environment)
    keys.record(log or keys.log_path(key), f"approval of release {asked.name}", signer, asked.digest.hex())
    release_desk.write_new(target, document)
    typer.echo(f"wrote {target}")


@app.command(
    epilog="Example: sekisho release sign release/my-board-1.4.0.request --key 'pkcs11:token=hsm;object=release-1' "
    "--keyset keyset.cose --published published --advisories osv --approval aiko.approval --approval cem.approval",
    help="Offline signing, step 3, by the holder of the release key: check, show, sign. Needs the payloads beside it.",
)
@grouped
def sign(
    request: RequestArgument,
    key: KeyOption,
    keyset: KeysetOption,
    gate: Gate,
    signing: Signing,
    payloads: PayloadsOption = None,
    known: KnownOption = None,
    expect: ExpectOption = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Where the signature goes.")] = None,
) -> None:
    """Judge the request anew from the bytes at hand, ask, log, sign."""
    asked = release_desk.read_request(request)
    document = read_file(keyset, "key set")
    _require_key(key, release_desk.environment_of(document))
    images, bill = release_desk.gather(asked, payloads or request.parent)
    inputs = gate.inputs(asked.envelope, images, bill, asked.wanted, document)
    _show(asked, known)
    verdict = signing.judge(inputs, key)
    _note(verdict)
    for one in verdict.approvers:
        typer.echo(f"approved by {one.label} ({one.key_id.hex()})")
    _agree(asked, expect, "Sign this?")
    signer = signing.open(key, verdict.environment)
    target = out or request.with_name(f"{request.name}.{signer.key_id.hex()}{release_desk.SIGNATURE}")
    require_new(target)
    answer = release_desk.respond(asked, signer, document, verdict)
    signing.record(key, verdict, asked.name, asked.envelope, signer)
    release_desk.write_new(target, answer.to_json())
    typer.echo(f"wrote {target}")


@app.command(
    epilog="Example: sekisho release assemble release/my-board-1.4.0.request "
    "release/my-board-1.4.0.request.*.signature --keyset keyset.cose",
    help="Offline signing, step 4: put the signatures in; written only if devices will take the release.",
)
def assemble(
    request: RequestArgument,
    signatures: Annotated[list[Path], typer.Argument(metavar="SIGNATURE...", help="Files made by `release sign`.")],
    keyset: KeysetOption,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Directory of the release; beside the request if left out.")
    ] = None,
) -> None:
    """Verify, judge, write the envelope and its sidecar."""
    asked = release_desk.read_request(request)
    answers = [release_desk.read_signature(path) for path in signatures]
    envelope = release_desk.assemble(asked, answers, read_file(keyset, "key set"))
    directory = out or request.parent
    _, bill = release_desk.gather(asked, request.parent)
    side = release_desk.sidecar(envelope, [one.verdict for one in answers], bill)
    target = directory / (asked.name + release.SUFFIX)
    require_new(target)
    release_desk.write_sidecar(directory / (asked.name + release_desk.SIDECAR), side)
    written = release_desk.write_new(target, envelope)  # last: whoever finds it finds all of the release
    typer.echo(f"wrote {written}, {len(envelope)} bytes, good for devices")


@app.command(
    epilog="Example: sekisho release check release/my-board-1.4.0.request --keyset keyset.cose --published published "
    "--advisories osv",
    help="The gate alone: everything that keeps a request from being signed. Exit code 1 if there is anything.",
)
@grouped
def check(
    request: RequestArgument,
    keyset: KeysetOption,
    gate: Gate,
    payloads: PayloadsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Judge and print."""
    asked = release_desk.read_request(request)
    images, bill = release_desk.gather(asked, payloads or request.parent)
    findings = release_check.check(
        gate.inputs(asked.envelope, images, bill, asked.wanted, read_file(keyset, "key set"))
    )
    if as_json:
        typer.echo(json.dumps([{"code": one.code, "sentence": one.sentence} for one in findings], indent=2))
    else:
        _tell(findings)
        typer.echo(f"{request}: {_count(len(findings))}" if findings else f"{request}: may be signed")
    if findings:
        raise typer.Exit(1)


def _count(number: int) -> str:
    return "1 finding" if number == 1 else f"{number} findings"


@app.command(
    epilog="Example: sekisho release policy keys/approvals.json --needed 2 --approver keys/aiko.pub "
    "--approver keys/ben.pub --approver keys/cem.pub",
    help="Write an approvals policy: who may approve releases, and how many must. Beside a release key it binds it.",
)
def policy(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Where it goes: approvals.json beside the release key.")],
    approver: Annotated[list[str], typer.Option(metavar="KEY", help="An approver's .pub file; may be repeated.")],
    needed: Annotated[int, typer.Option(min=1, help="How many must approve.")],
) -> None:
    """Parse and write."""
    made = approvals.make_policy(needed, [keys.load_statement(name) for name in approver])
    release_desk.write_new(out, made.to_json())
    for one in made.approvers:
        typer.echo(f"{one.label} ({one.key_id.hex()})")
    typer.echo(f"wrote {out}: {made.needed} of {len(made.approvers)} must approve")


@app.command(
    "group-key",
    epilog="Example: sekisho release group-key line-a keys/line-a.kek",
    help="Make the key of a device group, for payloads that only its devices can read. It goes into their NVS.",
)
def group_key(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the group.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Where the key goes; readable by its owner only.")],
) -> None:
    """Make and say its id."""
    made = packing.make_group_key(name, out)
    typer.echo(f"wrote {out}: group {made.name}, key id {made.key_id.hex()}")


@app.command(
    "sbom",
    epilog="Example: sekisho release sbom my-board.cdx.json --firmware build/micropython.bin --version 1.4.0 "
    "--vendor example.com --class my-board",
    help="Write the SBOM (CycloneDX 1.6) of a release, or with --host that of these tools as they are installed.",
)
@grouped
def bill_of_materials(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Where the document goes.")],
    product: AnyProduct,
    host: Annotated[bool, typer.Option("--host", help="The desk tools instead of a release.")] = False,
) -> None:
    """Gather and write."""
    if host:
        data = sbom.for_host()
    elif product.version and product.vendor and product.product_class:
        data = product.bill(product.components())
    else:
        raise ToolError("USAGE", "The SBOM of a release needs --version, --vendor and --class.")
    release_desk.write_new(out, data)
    typer.echo(f"wrote {out}: {len(sbom.components(sbom.parse(data)))} components")


@app.command(
    epilog="Example: sekisho release inspect release/my-board-1.26.1.suit",
    help="Show what a release says. Nothing is verified.",
)
def inspect(
    file: Annotated[Path, typer.Argument(metavar="RELEASE", help="The .suit file.")], as_json: JsonOption = False
) -> None:
    """Decode and print."""
    found = suit.decode(read_file(file, "release", release.MAX_RELEASE))
    if as_json:
        typer.echo(json.dumps(suit_show.describe(found), indent=2, ensure_ascii=False))
    else:
        typer.echo(suit_show.render(found))


@app.command(
    epilog="Example: sekisho release verify release/my-board-1.26.1.suit --keyset keyset.cose",
    help="Verify a release as a device does: signature, rights, limits, and the payloads beside it.",
)
def verify(
    file: Annotated[Path, typer.Argument(metavar="RELEASE", help="The .suit file.")],
    keyset: KeysetOption,
    payload: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="Payload; default: payload/<sha256> beside the release.")
    ] = None,
    vendor: Annotated[str | None, typer.Option(metavar="NAME", help="Refuse a release for another vendor.")] = None,
    product_class: Annotated[
        str | None, typer.Option("--class", metavar="NAME", help="Refuse a release for another class (with --vendor).")
    ] = None,
    group: Annotated[
        list[Path] | None, typer.Option("--group-key", metavar="FILE", help="Look into encrypted payloads with this.")
    ] = None,
    at: Annotated[
        int | None, typer.Option(metavar="SECONDS", help="Judge as of this time since 1970; default now.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Verify and print the verdict."""
    verdict = release.verify(
        file,
        read_file(keyset, "key set"),
        payload or [],
        identity=release.read_identity(vendor, product_class),
        now=at,
        groups=[packing.read_group_key(path) for path in group or ()],
    )
    if as_json:
        typer.echo(json.dumps(verdict, indent=2))
        return
    typer.echo(f"{file}: good, sequence {verdict['sequence']}, signed by {verdict['key']}")
    for part in verdict["payloads"]:
        typer.echo(f"  {part['component']}: {part['form']}, {part['size']} bytes, sha256 {part['sha256']}")
