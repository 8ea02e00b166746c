"""The last look at a flash image before it leaves the factory, and the image of one device.

`check` finds what must not be shipped and names it; it never stops at the first finding. Every code is a reason of the
engine where one fits. docs/factory.md lists them.
"""

from __future__ import annotations

import hashlib
import io
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from uuid import UUID

import cbor2
from sekisho_sim import nvs
from sekisho_sim.bootloader import VALID, read_entries
from sekisho_sim.flash import Flash, MemPart

from . import flashimage, imagefile, issued, keyset, layout, release, secure_boot, suit
from .errors import ToolError
from .imagefile import AppImage
from .issued import IssuingRecord
from .layout import Layout, Partition

RELEASE, DEVELOPMENT = "release", "development"
PRODUCTION_MARK = re.compile(rb"; [^\0\n]{1,80} \(production\) with ESP32")
"""What firmware built with `firmware/boards/sekisho.h` says of its board: the prompt is off on every port."""
ENGINE_MARK = b"sekisho_boot/engine"
_PRIVATE_KEY = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----|sekisho-key-1")
_KEYSET_MARK = bytes.fromhex("d86284")
_START_UP = ("boot.py", "main.py", "webrepl_cfg.py")


@dataclass(frozen=True)
class Finding:
    """One reason why the image must not be shipped."""

    code: str
    sentence: str


@dataclass
class Found:
    """What is in an image: the *findings*, and what was recognised."""

    findings: list[Finding] = field(default_factory=list)
    chip: str | None = None
    environment: str | None = None
    keysets: list[tuple[int, str]] = field(default_factory=list)
    firmware: issued.Image | None = None
    mode: str | None = None
    device: str | None = None

    @property
    def fit(self) -> bool:
        """Whether nothing was found."""
        return not self.findings


@dataclass(frozen=True)
class Wanted:
    """What the image must be: *environment*, perhaps one *keyset* document, no key of *development_keys* (public keys,
    32 bytes), at *now* (s since 1970), with the identity of *record*, or with none at all. *secure_boot*: the key (PEM
    file) that the chip will ask for, where secure boot is planned."""

    environment: str = RELEASE
    keyset: bytes | None = None
    development_keys: Sequence[tuple[str, bytes]] = ()
    now: int | None = None
    record: IssuingRecord | None = None
    secure_boot: Path | None = None


def check(data: bytes, wanted: Wanted | None = None) -> Found:
    """Look at a whole flash image. Never raises for what is in *data*."""
    look = _Look(data, wanted or Wanted())
    look.all()
    return look.found


class _Look:
    def __init__(self, data: bytes, wanted: Wanted) -> None:
        self.data, self.wanted, self.found = data, wanted, Found()
        self.table: Layout | None = None
        self.app: AppImage | None = None
        self.files: dict[str, bytes] = {}

    def refuse(self, code: str, sentence: str) -> None:
        self.found.findings.append(Finding(code, sentence))

    def content(self, label: str) -> bytes:
        part = self.table.get(label) if self.table else None
        return self.data[part.offset : part.end] if part else b""

    def all(self) -> None:
        if not self._table():
            return
        self._bootloader()
        self._app()
        self._signatures()
        self._otadata()
        self._files()
        self._engine()
        self._prompt()
        documents = self._keysets()
        self._keys()
        self._slot(documents)
        self._identity()

    # -- where things are -------------------------------------------------------------------------------------------

    def _table(self) -> bool:
        if len(self.data) < layout.TABLE_OFFSET + layout.TABLE_SIZE or len(self.data) % 4096:
            self.refuse("FLASH_IMAGE", "This is no image of a whole flash; `sekisho image build` makes one.")
            return False
        try:
            table = layout.decode(self.data[layout.TABLE_OFFSET :][: layout.TABLE_SIZE], len(self.data))
            self.table = layout.check_sekisho(table)
        except ToolError as error:
            self.refuse("LAYOUT", error.sentence)
        return self.table is not None

    def _bootloader(self) -> None:
        found = imagefile.find_bootloader(self.data[: layout.TABLE_OFFSET])
        if found is None:
            self.refuse("BOOTLOADER", "There is no bootloader in the image.")
            return
        self.found.chip = found[0].name
        if imagefile.FLASH_SIZES.get(len(self.data)) != found[1][3] >> 4:
            self.refuse("BOOTLOADER", "The bootloader is told another flash size than the image has.")

    def _app(self) -> None:
        try:
            self.app = app = imagefile.parse(self.content("ota_0"))
        except ToolError as error:
            self.refuse("IMAGE", f"The slot ota_0 holds no bootable app: {error.sentence}")
            return
        if self.found.chip not in (None, app.chip):
            self.refuse("IMAGE_CHIP", f"The app is for {app.chip}, the bootloader for {self.found.chip}.")
        try:
            flashimage.check_firmware_version(app)
        except ToolError as error:
            self.refuse(error.code, error.sentence)
        for label in ("ota_1", "app_0", "app_1"):
            if self.content(label).strip(b"\xff"):
                self.refuse("SLOT", f"The slot {label} is not blank; a bootloader falls back to whatever is in there.")

    def _signatures(self) -> None:
        """Where secure boot is planned, a chip starts neither bootloader nor app without the signature."""
        key = self.wanted.secure_boot
        if key is None:
            return
        bootloader = imagefile.find_bootloader(self.data[: layout.TABLE_OFFSET])
        for what, data in (("bootloader", bootloader and bootloader[1]), ("app", self.app and self.app.data)):
            words = secure_boot.problem(data, key, what) if data else None
            if words:
                self.refuse(secure_boot.CODE, words)

    def _otadata(self) -> None:
        assert self.table is not None
        assert self.table.otadata is not None
        first, second = read_entries(Flash(bytearray(self.data)), self.table.otadata)
        if (first.seq, first.state) != (1, VALID) or not first.valid or second.valid:
            self.refuse("OTADATA", "otadata does not select ota_0 as valid, and it alone.")

    def _files(self) -> None:
        for label in ("vfs", "data"):
            found = flashimage.read_littlefs(self.content(label))
            if found is None:
                self.refuse("FILES", f"The partition {label} holds no readable file system.")
            else:
                self.files.update({f"{label}:{name}": content for name, content in found.items()})

    # -- what it is -------------------------------------------------------------------------------------------------

    def _engine(self) -> None:
        if f"vfs:/{flashimage.PACK}" in self.files:
            self.found.mode = flashimage.STOCK
            if self.wanted.secure_boot is not None:
                words = "lies on the partition vfs, which secure boot does not verify; freeze it into the firmware"
                self.refuse(secure_boot.CODE, f"The engine {words} (docs/efuses.md).")
        elif self.app and ENGINE_MARK in self.app.data:
            self.found.mode = flashimage.FROZEN
        else:
            self.refuse("NO_ENGINE", "There is no update engine in this image; nothing would verify updates.")

    def _prompt(self) -> None:
        if self.wanted.environment != RELEASE or self.app is None:
            return
        if self.found.mode == flashimage.STOCK:
            self.refuse("REPL_OPEN", "Official firmware has an open prompt; build with a production board instead.")
        elif not PRODUCTION_MARK.search(self.app.data):
            self.refuse("REPL_OPEN", "The firmware does not say that it was built with the production profile.")
        if self.found.mode != flashimage.STOCK:
            for name in _START_UP:
                if f"vfs:/{name}" in self.files:
                    self.refuse("FILES", f"The file {name} on vfs has no place beside firmware that brings its own.")

    def _regions(self) -> Iterator[bytes]:
        yield self.data
        yield from self.files.values()

    def _keysets(self) -> list[bytes]:
        documents = {document for region in self._regions() for document in find_keysets(region)}
        wanted = self.wanted
        for document in sorted(documents):
            content = keyset.decode(document)
            self.found.keysets.append((content.version, hashlib.sha256(document).hexdigest()))
            self.found.environment = content.environment_name
            if content.environment_name != wanted.environment:
                self.refuse(
                    "KEYSET_ENVIRONMENT",
                    f"The image holds a key set of the {content.environment_name} environment (version "
                    f"{content.version}), but it is to be shipped as {wanted.environment}.",
                )
            if content.expires <= (int(time.time()) if wanted.now is None else wanted.now):
                self.refuse("EXPIRED_KEYSET", f"The key set of version {content.version} in the image has expired.")
        if not documents:
            self.refuse("NO_KEYSET", "There is no key set in the image; the device would trust nobody.")
        elif wanted.keyset is not None and wanted.keyset not in documents:
            self.refuse("KEYSET_CONTENT", "The image holds another key set than the one it must have.")
        return sorted(documents)

    def _keys(self) -> None:
        for label, key in self.wanted.development_keys:
            if any(key in region for region in self._regions()):
                self.refuse("DEVELOPMENT_KEY", f"The public key of {label} is in the image.")
        for name, content in self.files.items():
            if _PRIVATE_KEY.search(content):
                self.refuse("PRIVATE_KEY", f"There is a private key in {name.replace(':', '')}.")

    def _slot(self, documents: Sequence[bytes]) -> None:
        from sekisho_boot import records

        assert self.table is not None
        row = self.table["sekisho"]
        state = flashimage.describe_state(_part(self.data, row))
        if state["ledger"] != "ok" or state["phase"] or state["locked"] or state["degraded"]:
            self.refuse("LEDGER", "The ledger is not that of a new device; make the image anew.")
        record = records.load_slot(_part(self.data, row), 0, 0)
        if record is None:
            self.refuse("UNSIGNED_SLOT", "Nothing proves the app in ota_0: build the image with --release.")
            return
        if self.app is None:
            return
        if (bytes(record.digest), record.size) != (self.app.digest, self.app.size):
            self.refuse("IMAGE_DIGEST", "The release in the slot record is for another app than the one in ota_0.")
        if state["counters"][0] != record.sequence:
            self.refuse("LEDGER", "The ledger's counter is not the sequence number of the app in ota_0.")
        self.found.firmware = issued.Image(record.sequence, bytes(record.digest).hex(), record.size)
        self._judge(record.envelope, documents)

    def _judge(self, envelope: bytes, documents: Sequence[bytes]) -> None:
        """At least one key set in the image must let the device accept the release it is shipped with."""
        errors = []
        for document in documents:
            try:
                release.check(envelope, release.load_keyset(document), release.own_identity(suit.decode(envelope)))
                return
            except ToolError as error:
                errors.append(error)
        if errors:
            self.refuse(errors[0].code, f"The device would refuse its own firmware: {errors[0].sentence}")

    def _identity(self) -> None:
        self.found.device = name = read_identity(self.content("nvs"))
        record = self.wanted.record
        if record is None and name is not None:
            self.refuse("IDENTITY", f"The image holds the identity of device {name}; a common image has none.")
        elif record is not None and name != record.id:
            self.refuse("IDENTITY", f"The image is for {name or 'no device'}, not for {record.id}.")


def _part(data: bytes, row: Partition) -> MemPart:
    return MemPart(row.size, Flash(bytearray(data[row.offset : row.end])))


def find_keysets(data: bytes) -> Iterator[bytes]:
    """Every key set document that lies in one piece in *data*."""
    at = data.find(_KEYSET_MARK)
    while at >= 0:
        document = _document_at(data[at : at + 8192])
        if document is not None:
            yield document
        at = data.find(_KEYSET_MARK, at + 1)


def _document_at(data: bytes) -> bytes | None:
    file = io.BytesIO(data)
    try:
        cbor2.CBORDecoder(file, read_size=1).decode()
        document = data[: file.tell()]
        keyset.decode(document)
    except (cbor2.CBORDecodeError, ToolError, ValueError, RecursionError, MemoryError):
        return None
    return document


def read_identity(partition: bytes) -> str | None:
    """The logical id in an NVS partition, or None where there is none."""
    if not partition.strip(b"\xff"):
        return None
    try:
        store = nvs.Nvs(MemPart(len(partition), Flash(bytearray(partition))))
        return str(UUID(bytes=bytes(store.get(store.open(issued.NAMESPACE), "id", nvs.BLOB_INDEX))))
    except (OSError, ValueError):
        return None


def personalise(data: bytes, record: IssuingRecord, nvs_image: bytes) -> tuple[bytes, IssuingRecord]:
    """The image of one device: the common image *data* with the device's NVS, and its record with chip and firmware.

    Raises ToolError: LAYOUT, NVS (another size), KEYSET_CONTENT (the device was issued for another key set),
    KEYSET_ENVIRONMENT, IDENTITY (the image has one already).
    """
    found = check(data, Wanted(environment=record.environment))
    for finding in found.findings:
        if finding.code in ("FLASH_IMAGE", "LAYOUT", "IDENTITY", "KEYSET_ENVIRONMENT", "NO_KEYSET"):
            raise ToolError(finding.code, finding.sentence)
    if record.keyset not in {digest for _, digest in found.keysets}:
        raise ToolError(
            "KEYSET_CONTENT", f"Device {record.id} was issued for another key set than the one in the image."
        )
    row = layout.decode(data[layout.TABLE_OFFSET :][: layout.TABLE_SIZE], len(data))["nvs"]
    if len(nvs_image) != row.size:
        raise ToolError("NVS", f"The device's NVS has 0x{len(nvs_image):x} bytes, the partition 0x{row.size:x}.")
    image = data[: row.offset] + nvs_image + data[row.end :]
    return image, replace(record, chip=found.chip, firmware=found.firmware)
