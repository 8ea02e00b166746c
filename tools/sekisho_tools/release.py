"""Releases: firmware and application files -> signed SUIT envelope and payloads; reading and verifying one again.

What is made here is judged by the device's own code before it is written: a release that the key set, the engine or the
bootloader would refuse is refused at the desk, with the same reason code. The same inputs give the same bytes, since
Ed25519 is deterministic and nothing of the time or the machine goes in.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import UUID

from . import cose, device_code, imagefile, packing, publish, release_check, sbom, suit
from . import keyset as host_keyset
from .errors import ToolError
from .files import read_file, write_atomic
from .flashimage import check_firmware_version, make_littlefs, read_tree
from .identity import Identity
from .layout import Layout

assert device_code
from sekisho_boot import keyset as device_keyset  # noqa: E402
from sekisho_boot import reasons  # noqa: E402
from sekisho_boot import suit as device_suit  # noqa: E402

PAYLOAD = "payload"
"""Directory of the payloads, each under the hex of its SHA-256."""
PLAIN = "private"
"""Directory of the images that only travel encrypted; it is never published."""
SUFFIX = ".suit"
MAX_RELEASE = 1 << 20
"""Largest envelope that is read, in bytes, texts and integrated payloads included."""
MAX_TEXT = 4096
"""Largest description in one language, in bytes; devices download it with the envelope."""
DEFAULT_LANGUAGE = "en"

FW, APP = device_suit.NAMES
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")


@dataclass(frozen=True)
class Component:
    """What one component gets: its name (``fw`` or ``app``), the bytes of its image, and a few words on what it is."""

    name: str
    data: bytes = field(repr=False)
    words: str = ""

    @property
    def digest(self) -> bytes:
        """SHA-256 of the image, 32 bytes."""
        return hashlib.sha256(self.data).digest()


@dataclass(frozen=True)
class Made:
    """A release: file name without suffix, envelope (unsigned in a draft), components, verdict.

    *packed*: SHA-256 -> payloads as they travel. *secret*: components that only travel encrypted. *bill*: the SBOM.
    """

    name: str
    envelope: bytes = field(repr=False)
    components: tuple[Component, ...]
    sequence: int
    digest: bytes
    identity: Identity
    packed: Mapping[bytes, bytes] = field(default_factory=dict, repr=False)
    secret: tuple[str, ...] = ()
    bill: bytes | None = field(default=None, repr=False)


def environment(keyset_document: bytes) -> str:
    """The environment of a key set: ``development`` or ``release``."""
    number = load_keyset(keyset_document).environment
    return next(name for name, value in host_keyset.ENVIRONMENTS.items() if value == number)


@dataclass(frozen=True)
class Device:
    """What a device has: highest proven sequence number of (fw, app), and those that run."""

    counters: tuple[int, int] = (0, 0)
    running: tuple[int, int] = (0, 0)


def fitting_device(envelope: suit.Envelope) -> Device:
    """A device that has proved nothing yet and runs what the ties in *envelope* ask for."""
    running = dict.fromkeys(device_suit.NAMES, 0)
    names = [suit.show_id(identifier) for identifier in envelope.manifest.components]
    current = 0
    for command in envelope.manifest.shared:
        if command.code == 12 and not isinstance(command.argument, bool):
            current = command.argument
        elif command.code == 20 and 28 in command.argument and not running.get(names[current]):
            comparison, wanted = command.argument[28]
            running[names[current]] = wanted[0] + (comparison == 1) - (comparison == 5)
    return Device(running=(running[FW], running[APP]))


def firmware(data: bytes, table: Layout, chip: str, payload_only: bool = False) -> Component:
    """The component ``fw`` from a firmware file: the app image in it, nothing else.

    Raises ToolError IMAGE_FORMAT, IMAGE_HASH (no app image, damaged), IMAGE_CHIP (not for *chip*), IMAGE_SIZE (larger
    than a slot of *table*), FIRMWARE_VERSION (a MicroPython that device code does not support; *payload_only* lets it
    pass).
    """
    image = imagefile.parse(data)
    if image.chip != chip:
        raise ToolError("IMAGE_CHIP", f"The firmware is for {image.chip}, the product has {chip} (see --chip).")
    room = table["ota_0"].size
    if image.size > room:
        raise ToolError(
            "IMAGE_SIZE",
            f"The app image has 0x{image.size:x} bytes; a slot of this layout holds 0x{room:x} (see --layout).",
        )
    check_firmware_version(image, payload_only)
    return Component(FW, image.data, f"MicroPython {image.micropython or 'of unknown version'} for {image.chip}")


def application(path: Path, table: Layout) -> Component:
    """The component ``app``: a directory as a read-only littlefs, or a file that is an image already.

    Raises ToolError FILE, FILES (does not fit), IMAGE_SIZE.
    """
    room = table["app_0"].size
    if path.is_dir():
        files = read_tree(path)
        return Component(APP, make_littlefs(room, files, "app_0"), f"littlefs, {len(files)} files")
    data = read_file(path, "application image")
    if not 0 < len(data) <= room:
        raise ToolError(
            "IMAGE_SIZE", f"The application image has {len(data)} bytes; an application slot holds 1 to {room}."
        )
    return Component(APP, data, "application image")


def default_name(product_class: str, version: str) -> str:
    """File name of a release: ``my-board-1.16.0``."""
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", f"{product_class}-{version}").strip("-")


def load_keyset(document: bytes) -> Any:
    """The device's view of a key set document; ToolError with the device's reason when it would refuse it."""
    try:
        return device_keyset.genesis(document)
    except reasons.Refused as refused:
        raise _refused(refused, "key set") from None


def check(envelope: bytes, keyset: Any, identity: Identity, now: int | None = None, state: Device | None = None) -> Any:
    """The plan that the engine makes of *envelope* for a device of *identity*; ToolError with its reason code.

    *now* is seconds since 1970; without it times are judged as of the key set's issue. *state* None takes a device on
    which the release can be installed at all.
    """
    decoded = suit.decode(envelope)
    state = state or fitting_device(decoded)
    try:
        core = sever(envelope)
        plan = device_suit.check(core, keyset, identity, state, keyset.issued_at if now is None else now)
    except reasons.Refused as refused:
        raise _refused(refused, "release") from None
    packing.check_allowed(decoded, keyset)
    return plan


def sever(envelope: bytes) -> bytes:
    """The envelope as devices keep it: without text and integrated payloads. Raises Refused."""
    from sekisho import envelope as device_envelope

    return bytes(device_envelope.sever(envelope))


def meaning(code: int) -> str:
    """The sentence that the catalogue has for a reason code."""
    source = (device_code.BOOT / "sekisho_boot" / "reasons.py").read_text()
    found = re.search(rf"^{reasons.name(code)} = const\({code}\)  # (.*?)\.?$", source, re.MULTILINE)
    return found[1] if found else "No more is known"


def _refused(refused: reasons.Refused, what: str) -> ToolError:
    return ToolError(reasons.name(refused.code), f"A device would refuse this {what}: {_lower(meaning(refused.code))}.")


def _lower(sentence: str) -> str:
    return sentence if sentence[:2].isupper() else sentence[:1].lower() + sentence[1:]


@dataclass(frozen=True)
class Request:
    """What is to be released.

    *version* is for people, *sequence* for devices. *ties* say what the release asks of the component it does not
    bring. *texts*: language tag -> description. *use_before*: seconds since 1970, or None. *support* (ISO date) and
    *contact* go below each text, and so does the digest of the SBOM *bill*. *compress*: offer a compressed form;
    *groups*: encrypt for these device groups, and for nobody else, by *cipher* (COSE number).
    """

    vendor: str
    product_class: str
    version: str
    sequence: int
    components: tuple[Component, ...]
    texts: Mapping[str, str] = field(default_factory=dict)
    ties: tuple[suit.Tie, ...] = ()
    use_before: int | None = None
    name: str | None = None
    support: str | None = None
    contact: str | None = None
    bill: bytes | None = field(default=None, repr=False)
    compress: bool = False
    groups: tuple[packing.GroupKey, ...] = ()
    cipher: int = packing.A128CTR


def read_ties(texts: Sequence[str]) -> tuple[suit.Tie, ...]:
    """Ties from ``fw=3`` (3 or more) or ``app=1-4``; ToolError VERSION_TIE when they do not read so."""
    found = []
    for text in texts:
        match = re.fullmatch(r"(\w+)=(\d+)(?:-(\d+))?", text)
        if not match:
            raise ToolError("VERSION_TIE", f"{text!r} does not read NAME=LOWEST or NAME=LOWEST-HIGHEST, such as fw=3.")
        found.append(suit.Tie(match[1], int(match[2]), int(match[3]) if match[3] else None))
    return tuple(found)


def read_texts(pairs: Sequence[str]) -> dict[str, str]:
    """Descriptions from ``LANG=FILE``; ToolError TEXT or FILE."""
    texts = {}
    for pair in pairs:
        language, _, file = pair.partition("=")
        if not language or not file or language in texts:
            raise ToolError("TEXT", f"{pair!r} does not read LANG=FILE with each language once, such as en=notes.txt.")
        try:
            texts[language] = read_file(file, "text", MAX_TEXT).decode().strip()
        except UnicodeDecodeError as error:
            raise ToolError("TEXT", f"{file} is not UTF-8 text.") from error
    return texts


def check_name(name: str) -> None:
    """ToolError RELEASE unless *name* can name the files of a release."""
    if not _NAME.fullmatch(name):
        raise ToolError("RELEASE", f"{name!r} cannot name a file; give --name with letters, digits, dots and dashes.")


def draft(request: Request) -> Made:
    """The release without its signature. Raises ToolError: RELEASE (no name for the file), IDENTITY, VERSION_TIE ..."""
    name = request.name or default_name(request.product_class, request.version)
    check_name(name)
    identity = Identity.of(request.vendor, request.product_class)
    parts = {part.name: {"component-version": request.version} for part in request.components}
    digest = hashlib.sha256(request.bill).hexdigest() if request.bill is not None else None
    below = release_check.trailer(request.support, request.contact, digest)
    texts = {
        language: "\n".join(part for part in (text, below) if part)
        for language, text in (request.texts or {DEFAULT_LANGUAGE: ""}).items()
    }
    packed: dict[bytes, bytes] = {}
    components = [_component(part, request, packed) for part in request.components]
    content = suit.Release(
        vendor=identity.vendor,
        product=identity.classes[0],
        sequence=request.sequence,
        components=tuple(components),
        ties=request.ties,
        use_before=request.use_before,
        text={language: suit.Text(manifest=text, components=parts) for language, text in texts.items()},
    )
    envelope = suit.draft(content)
    return Made(
        name,
        envelope,
        request.components,
        request.sequence,
        suit.decode(envelope).digest.value,
        identity,
        packed,
        tuple(part.name for part in request.components if request.groups),
        request.bill,
    )


def _component(part: Component, request: Request, packed: dict[bytes, bytes]) -> suit.Component:
    forms = []
    if request.groups or request.compress:
        form, content = packing.pack(part.data, request.compress, request.groups, request.cipher)
        if request.groups or form.size < len(part.data):
            packed[form.digest] = content
            forms.append(form)
    uri = None if request.groups else "/" + payload_path(part.digest)
    return suit.Component(part.name, part.digest, len(part.data), uri, tuple(forms))


def create(request: Request, signer: cose.Signer, keyset_document: bytes) -> Made:
    """Make a release and let the device's code judge it under *keyset_document*.

    Raises ToolError: RELEASE (no name for the file), IDENTITY, KEY_UNKNOWN, KEY_REVOKED, KEY_RIGHTS (the key may not
    sign this), FLOOR, CEILING, VERSION_TIE, LIMIT and whatever else the device would refuse.
    """
    return sign(draft(request), signer, keyset_document)


def sign(made: Made, signer: cose.Signer, keyset_document: bytes) -> Made:
    """*made* signed, and judged by the device's code."""
    envelope = suit.sign(made.envelope, [signer])
    check(envelope, load_keyset(keyset_document), made.identity)
    return replace(made, envelope=envelope)


def payload_path(digest: bytes) -> str:
    """Where a payload lies, relative to the release and on the server."""
    return f"{PAYLOAD}/{digest.hex()}"


def plain_path(digest: bytes) -> str:
    """Where the image behind an encrypted payload lies, relative to the release."""
    return f"{PLAIN}/{digest.hex()}"


def write_parts(made: Made, directory: Path) -> list[Path]:
    """Write everything but the envelope into *directory*: payloads, images behind encrypted ones, SBOM."""
    written = []
    for part in made.components:
        if part.name in made.secret:
            write_atomic(directory / plain_path(part.digest), part.data, 0o600)
        else:
            written.append(write_atomic(directory / payload_path(part.digest), part.data))
    written += [write_atomic(directory / payload_path(digest), data) for digest, data in made.packed.items()]
    if made.bill is not None:
        written.append(write_atomic(directory / (made.name + sbom.SUFFIX), made.bill))
    return written


def write(made: Made, directory: Path) -> list[Path]:
    """Write the payloads and then the envelope into *directory*, each in one step; returns what is to be published."""
    return [*write_parts(made, directory), write_atomic(directory / (made.name + SUFFIX), made.envelope)]


def summary(made: Made) -> dict[str, Any]:
    """What was made, as plain values."""
    return {
        "name": made.name,
        "sequence": made.sequence,
        "manifest_digest": made.digest.hex(),
        "vendor": str(UUID(bytes=made.identity.vendor)),
        "class": str(UUID(bytes=made.identity.classes[0])),
        "envelope_bytes": len(made.envelope),
        "payloads": [
            {"component": part.name, "size": len(part.data), "sha256": part.digest.hex(), "content": part.words}
            for part in made.components
        ],
        "packed": [
            {
                "component": name,
                "size": form.size,
                "sha256": form.digest.hex(),
                "compressed": form.compressed,
                "encrypted": form.encryption is not None,
            }
            for name, form in packing.packed_forms(suit.decode(made.envelope))
        ],
    }


def files_of(envelope: suit.Envelope, plan: Any) -> list[tuple[bytes, int]]:
    """(SHA-256, size) of every payload that devices may fetch: packed forms, and images that are not encrypted."""
    forms = packing.packed_forms(envelope)
    secret = {name for name, form in forms if form.encryption}
    images = [t for t in plan.targets if device_suit.NAMES[t.component] not in secret]
    return [*((form.digest, form.size) for _, form in forms), *((bytes(t.digest), int(t.size)) for t in images)]


# -- reading ------------------------------------------------------------------------------------------------------


def read_identity(vendor: str | None, product_class: str | None) -> Identity | None:
    """The identity that a release must be for, or None for any; ToolError IDENTITY for half of one."""
    if vendor is None and product_class is None:
        return None
    if vendor is None or product_class is None:
        raise ToolError("IDENTITY", "Give both --vendor and --class, or neither.")
    return Identity.of(vendor, product_class)


def own_identity(envelope: suit.Envelope) -> Identity:
    """The identity that the release names itself, so that everything else can be verified without knowing a product."""
    named = [parameters for parameters in envelope.manifest.parameters() if 1 in parameters]
    classes = tuple(parameters[2] for parameters in named if 2 in parameters)
    device = next((parameters[24] for parameters in named if 24 in parameters), None)
    return Identity(named[0][1] if named else bytes(16), classes, device)


def find_payload(release: Path, digest: bytes, candidates: Mapping[bytes, Path]) -> Path:
    """The file that should hold the payload: one of *candidates* by SHA-256, else payload/<sha256> near *release*."""
    return candidates.get(digest) or publish.payload_near(release, digest)


def verify(
    release: Path,
    keyset_document: bytes,
    payloads: Sequence[Path] = (),
    identity: Identity | None = None,
    now: int | None = None,
    groups: Sequence[packing.GroupKey] = (),
) -> dict[str, Any]:
    """Verify the release in the file *release* and its payloads as a device does; returns what was found good.

    Of a payload that only travels encrypted, the image is judged when one of *groups* can read it.

    *payloads* are files; those not given are looked for beside the release. *identity* None takes the one the release
    names. *now*: seconds since 1970, default the computer's clock. Raises ToolError with the device's reason code:
    EXPIRED_KEYSET, SIGNATURE, KEY_*, CLASS, IMAGE_DIGEST, FILE (payload missing) ...
    """
    envelope = read_file(release, "release", MAX_RELEASE)
    decoded = suit.decode(envelope)
    keyset = load_keyset(keyset_document)
    now = int(time.time()) if now is None else now
    if keyset.expired(now):
        raise _refused(reasons.Refused(reasons.EXPIRED_KEYSET), "release")
    plan = check(envelope, keyset, identity or own_identity(decoded), now)
    candidates = {hashlib.sha256(read_file(path, "payload")).digest(): path for path in payloads}
    forms = packing.packed_forms(decoded)
    found = []
    for target in plan.targets:
        component = device_suit.NAMES[target.component]
        own = [form for name, form in forms if name == component]
        secret = any(form.encryption for form in own)
        for form in own:
            path = find_payload(release, form.digest, candidates)
            data = read_file(path, f"packed payload for {component}")
            if hashlib.sha256(data).digest() != form.digest:
                raise ToolError("IMAGE_DIGEST", f"{path} is not the packed payload that the release names.")
            if not form.encryption or groups:
                image = packing.unpack(form, data, target.size, groups)
                _judge_image(path, component, image, target)
            found.append(_found(component, path, data, "encrypted" if form.encryption else "compressed"))
        if secret:
            continue
        path = find_payload(release, bytes(target.digest), candidates)
        if payloads and bytes(target.digest) not in candidates and not path.exists():
            raise ToolError("IMAGE_DIGEST", f"None of the payloads given is the image for {component}.")
        data = read_file(path, f"payload for {component}")
        _judge_image(path, component, data, target)
        found.append(_found(component, path, data, "plain"))
    return {
        "sequence": plan.sequence,
        "manifest_digest": bytes(plan.digest).hex(),
        "key": bytes(plan.key).hex(),
        "keyset": keyset.version,
        "payloads": found,
    }


def _found(component: str, path: Path, data: bytes, form: str) -> dict[str, Any]:
    return {
        "component": component,
        "size": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "file": str(path),
        "form": form,
    }


def _judge_image(path: Path, component: str, data: bytes, target: Any) -> None:
    if len(data) != target.size:
        raise ToolError("IMAGE_SIZE", f"{path} has {len(data)} bytes for {component}; the release says {target.size}.")
    if hashlib.sha256(data).digest() != target.digest:
        raise ToolError("IMAGE_DIGEST", f"{path} is not the image that the release names: its SHA-256 differs.")
