"""Put a whole flash image together, and look into one.

One file for `esptool write-flash 0x0`: bootloader, partition table, otadata, the app in ota_0, the `sekisho` partition
with the first ledger, the file systems. The same inputs give the same bytes.

Why otadata is written and not left blank: with blank otadata the bootloader runs the first slot that verifies, whatever
that is, and writes the entry seq 1 VALID on its first boot. The image carries that very entry, so that the first boot
is like every later one: ota_0 is selected, nothing else is tried first, and no write can be cut.
"""

from __future__ import annotations

import hashlib
import json
import shlex
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from littlefs import LittleFS, LittleFSError
from sekisho_sim.bootloader import VALID, Entry, read_entries
from sekisho_sim.flash import SECTOR, Flash, MemPart

from . import config, imagefile, layout, libraries
from .config import DeviceConfig, common_settings
from .device_code import BOOT, FIRMWARE, LIB
from .errors import ToolError
from .files import read_file
from .identity import Identity
from .imagefile import CHIPS, AppImage, Chip
from .layout import Layout, Partition
from .measure import compile_module

FROZEN, STOCK = "frozen", "stock"
OLDEST, NEWEST = (1, 26), (1, 29)
"""MicroPython releases that the device code supports and whose bytecode (`.mpy` version 6) our compiler emits."""
MPY_VERSION = 6
SMALL_INT_BITS = 31
"""Most bits of a small integer that a `.mpy` may assume on a 32-bit chip."""
XTENSA, RISC_V = ("xtensawin", 10), ("rv32imc", 11)
"""What mpy-cross calls a chip's machine code, and its number in a `.mpy`."""
ARCHITECTURES = {"esp32": XTENSA, "esp32s3": XTENSA, "esp32c3": RISC_V, "esp32c6": RISC_V}
STOCK_SOURCES = ("boot.py", "main.py")
"""What MicroPython itself starts; it wants sources there, so they stay short and import the rest."""
PACK = "sekisho.pack"
"""All device code in one file, since littlefs gives each file a block of 4 KiB; `boot.py` reads it."""
ROOMY = (
    *(
        "account",
        "backup",
        "byhand",
        "card",
        "cbor",
        "courier",
        "devicekey",
        "door",
        "duties",
        "efuse",
        "eventlog",
        "hardware",
    ),
    *("interfaces", "line", "orders", "peer", "record", "report", "seal", "secure", "signing", "syslog", "wipe"),
    *("accounts", "console", "console_files", "console_form", "console_pages", "console_text"),
    *("console_web", "console_words"),
)
"""Modules of lib/ that stock mode takes along only where `vfs` has `ROOMY_VFS` bytes: their code would also want more
heap than a chip without PSRAM has (`sekisho.STOCK_ROOM`)."""
ROOMY_VFS = 256 << 10
DISK_VERSION = 0x00020000
"""littlefs 2.0, which every MicroPython that we support mounts."""
SETTINGS = "sekisho.json"
"""Name of the agent's settings on the `data` file system (`/data/sekisho.json`)."""
_MAX_FILE = 1 << 20


def check_firmware_version(app: AppImage, payload_only: bool = False) -> None:
    """ToolError FIRMWARE_VERSION unless our device code can run on this MicroPython.

    Its `.mpy` files are of version 6 and use what v1.26 has. *payload_only* lets any firmware pass: its bytes are then
    only something to install, and no device code is expected to run on it.
    """
    known = f"supported are v{OLDEST[0]}.{OLDEST[1]} to v{NEWEST[0]}.{NEWEST[1]}"
    if payload_only:
        return
    if app.micropython is None:
        raise ToolError(
            "FIRMWARE_VERSION", f"There is no MicroPython version in this firmware; {known} (or use --payload-only)."
        )
    if not OLDEST <= imagefile.release_of(app.micropython) <= NEWEST:
        raise ToolError(
            "FIRMWARE_VERSION",
            f"This firmware is MicroPython {app.micropython}; {known}, since Sekisho's device files are compiled for "
            f".mpy version {MPY_VERSION} (use --payload-only if its bytes are only to be installed).",
        )


# -- file systems ---------------------------------------------------------------------------------------------------


def compile_device(source: Path, chip: str) -> bytes:
    """The `.mpy` of *source* (`mpy-cross -O3`, no source path in it); ToolError MPY when *chip* could not load it."""
    arch, number = ARCHITECTURES[chip]
    with tempfile.TemporaryDirectory() as directory:
        code = compile_module(source, Path(directory) / "out.mpy", arch)
    check_mpy(code, source.name, number)
    return code


def check_mpy(code: bytes, name: str, arch: int = 0) -> None:
    """ToolError MPY unless *code* is bytecode that any supported 32-bit MicroPython loads, or machine code for the
    architecture *arch* (its number in a `.mpy`)."""
    if code[:1] != b"M" or len(code) < 4:
        raise ToolError("MPY", f"{name} is no .mpy file.")
    if code[1] != MPY_VERSION:
        raise ToolError("MPY", f"{name} has .mpy version {code[1]}; the firmware loads version {MPY_VERSION} only.")
    if code[2] >> 2 not in (0, arch):
        raise ToolError("MPY", f"{name} holds native code for one architecture; compile it to bytecode.")
    if code[3] > SMALL_INT_BITS:
        raise ToolError("MPY", f"{name} assumes small integers of {code[3]} bits; the chip has {SMALL_INT_BITS}.")


def device_modules(source: str, chip: str, lean: bool = False) -> dict[str, bytes]:
    """Engine, library and configuration, compiled for *chip*: path -> `.mpy`. *source* is the text of `sekisho_config`.

    *lean* leaves out `ROOMY` and the libraries of others.
    """
    modules: dict[str, bytes] = {}
    for root in (BOOT / "sekisho_boot", LIB / "sekisho"):
        for path in sorted(root.rglob("*.py")):
            if lean and path.stem in ROOMY and root.name == "sekisho":
                continue
            modules[f"{root.name}/{path.relative_to(root).with_suffix('.mpy').as_posix()}"] = compile_device(path, chip)
    sources = {"sekisho_config": source.encode()}
    if not lean:
        sources.update({library.name: libraries.source(library) for library in libraries.LIBRARIES})
    with tempfile.TemporaryDirectory() as directory:
        for name, content in sources.items():
            module = Path(directory) / f"{name}.py"
            module.write_bytes(content)
            modules[f"{name}.mpy"] = compile_device(module, chip)
    return modules


def make_pack(files: Mapping[str, bytes]) -> bytes:
    """One file that holds *files*, as firmware/boot.py reads it: the index as text, then the contents."""
    index, at = "", 0
    for name, content in files.items():
        index += f"{at} {len(content)} {name}\n"
        at += len(content)
    return f"{index}\n".encode() + b"".join(files.values())


def device_files(source: str, size: int, chip: str) -> dict[str, bytes]:
    """Everything stock mode puts on a `vfs` of *size* bytes: path -> content. *source* is that of `sekisho_config`."""
    lean = size < ROOMY_VFS
    files = {PACK: make_pack(device_modules(source, chip, lean))}
    for name in STOCK_SOURCES:
        files[name] = (FIRMWARE / name).read_bytes()
    return files


def read_tree(directory: Path) -> dict[str, bytes]:
    """The files under *directory* as path -> content; `.mpy` files are checked. ToolError FILE, FILES or MPY."""
    if not directory.is_dir():
        raise ToolError("FILE", f"{directory} is no directory of files for the device.")
    files: dict[str, bytes] = {}
    for path in sorted(directory.rglob("*")):
        name = path.relative_to(directory).as_posix()
        if path.is_dir() or "__pycache__" in path.parts:
            continue
        if not path.is_file():
            raise ToolError("FILES", f"{path} is neither a file nor a directory.")
        files[name] = read_file(path, "device file", _MAX_FILE)
        if path.suffix == ".mpy":
            check_mpy(files[name], name)
    return files


def _littlefs(size: int, content: bytes | None = None) -> LittleFS:
    """A littlefs of *size* bytes with the geometry that official MicroPython v1.26.1 mounts: new, or unmounted over
    *content*."""
    fs = LittleFS(
        mount=content is None,
        block_size=SECTOR,
        block_count=size // SECTOR,
        read_size=32,
        prog_size=32,
        lookahead_size=32,
        # What we write, every device must be able to mount. What a device has written is 2.1, and must be read.
        disk_version=DISK_VERSION if content is None else 0,
    )
    if content is not None:
        fs.context.buffer = bytearray(content)
    return fs


def is_stock(data: bytes) -> bool:
    """Whether a flash image carries the device code on its file system, for official firmware to run."""
    try:
        part = layout.decode(data[layout.TABLE_OFFSET :][: layout.TABLE_SIZE], len(data)).get("vfs")
        if part is None:
            return False
        fs = _littlefs(part.size, data[part.offset : part.offset + part.size])
        fs.mount()
        fs.stat(PACK)
    except (ToolError, LittleFSError):
        return False
    return True


def config_beside(out: Path) -> Path:
    """Where the configuration of a frozen build is kept for the simulator, which has no firmware of its own to read it
    from: ``flash.bin.config.py`` beside ``flash.bin``."""
    return out.with_name(out.name + ".config.py")


def make_littlefs(size: int, files: Mapping[str, bytes], label: str) -> bytes:
    """A littlefs of *size* bytes that holds *files*; ToolError FILES when they do not fit. No times are stored."""
    fs = _littlefs(size)
    try:
        for name in sorted(files):
            folder = name.rpartition("/")[0]
            if folder:
                fs.makedirs(folder, exist_ok=True)
            with fs.open(name, "wb") as file:
                file.write(files[name])
    except LittleFSError as error:
        total = sum(len(content) for content in files.values())
        raise ToolError(
            "FILES",
            f"{len(files)} files of {total} bytes do not fit in the {size} bytes of partition {label} ({error}).",
        ) from error
    return bytes(fs.context.buffer)


def list_littlefs(data: bytes) -> dict[str, int] | None:
    """Path -> size of the files in a littlefs, or None where there is none."""
    files = read_littlefs(data)
    return None if files is None else {name: len(content) for name, content in files.items()}


def read_littlefs(data: bytes) -> dict[str, bytes] | None:
    """Path -> content of the files in a littlefs, or None where there is none."""
    if not data or len(data) % SECTOR:
        return None
    fs = _littlefs(len(data), data)
    files = {}
    try:
        fs.mount()
        for folder, _, names in fs.walk("/"):
            for name in sorted(names):
                path = f"{folder.rstrip('/')}/{name}"
                with fs.open(path, "rb") as file:
                    files[path] = file.read()
    except LittleFSError:
        return None
    return files


def littlefs_version(data: bytes) -> str | None:
    """The version on disk (``2.1``) of the littlefs in *data*, None where none can be mounted. A device's first write
    makes a 2.1 of our 2.0."""
    if not data or len(data) % SECTOR:
        return None
    fs = _littlefs(len(data), data)
    try:
        fs.mount()
        number = int(fs.fs_stat().disk_version)
    except LittleFSError:
        return None
    return f"{number >> 16}.{number & 0xFFFF}"


def read_settings(path: Path) -> bytes:
    """The settings of many devices as they go to each: JSON of an object. ToolError FILE, SETTINGS or SETTING."""
    try:
        settings = json.loads(read_file(path, "settings", 1 << 16))
    except ValueError as error:
        raise ToolError("SETTINGS", f"The settings {path} are no JSON: {error}.") from error
    if not isinstance(settings, dict):
        raise ToolError("SETTINGS", f"The settings {path} must be one JSON object.")
    return json.dumps(common_settings(settings), sort_keys=True, ensure_ascii=False).encode()


# -- the sekisho partition ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Factory:
    """State of a device that has proved nothing yet."""

    counters: tuple[int, int] = (0, 0)
    running: tuple[int, int] = (0, 0)


def check_release(envelope: bytes, device: DeviceConfig, app: AppImage) -> Any:
    """The engine's plan for the factory release, which must be for this very *app*; ToolError with the engine's reason.

    Judged by the engine's own code under the key set the device is built with, at the time of the build.
    """
    from sekisho_boot import keyset, reasons, suit

    identity = Identity(device.vendor, device.classes)
    try:
        plan = suit.check(envelope, keyset.genesis(device.keyset), identity, _Factory(), device.build_time)
    except reasons.Refused as refused:
        name = reasons.name(refused.code)
        raise ToolError(name, f"The engine would refuse the factory release: {name}.") from None
    targets = [target for target in plan.targets if target.component == suit.FW]
    if len(plan.targets) != 1 or not targets:
        raise ToolError("COMPONENT", "The factory release must be for the component fw, and for it alone.")
    if (bytes(targets[0].digest), targets[0].size) != (app.digest, app.size):
        raise ToolError("IMAGE_DIGEST", "The factory release is for another image than the firmware given.")
    return plan


def sever(envelope: bytes) -> bytes:
    """The envelope as the engine stores it; ToolError ENVELOPE when it is none."""
    from sekisho import envelope as device_envelope
    from sekisho_boot import reasons

    try:
        return bytes(device_envelope.sever(envelope))
    except reasons.Refused as refused:
        raise ToolError("ENVELOPE", f"The release is no SUIT envelope ({reasons.name(refused.code)}).") from None


def provision_sekisho_partition(part: MemPart, envelope: bytes | None, plan: Any) -> None:
    """Write the first ledger, and with a factory release the slot record of ota_0, through the engine's own code.

    The ledger says: ota_0 is chosen, the factory image's sequence number is the counter. The slot record proves that
    number even when the ledger is gone. A device without a release starts at counter 0.
    """
    from sekisho_boot import ledger, records

    log = ledger.Ledger(part)
    sequence = plan.sequence if plan else 0
    log.state.apply(ledger.COUNTERS, 0, 0, sequence, 0, ledger.NO_DIGEST, 0)
    if plan is not None and envelope is not None:
        log.state.apply(ledger.PAIR, 0, ledger.NO_APP, sequence, 0, ledger.NO_DIGEST, 0)
        records.save_slot(part, plan.targets[0].component, 0, plan.targets[0], plan, envelope)
    log.format()


# -- the image ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Inputs:
    """What an image is made of. *bootloader* None takes the one in the firmware file."""

    app: AppImage
    table: Layout
    device: DeviceConfig
    mode: str = FROZEN
    bootloader: tuple[Chip, bytes] | None = None
    release: bytes | None = None
    files: Mapping[str, bytes] = field(default_factory=dict)
    settings: bytes | None = None
    payload_only: bool = False


@dataclass(frozen=True)
class Built:
    """A flash image: its bytes, and what was put where as (label, offset, bytes used, size, words)."""

    data: bytes = field(repr=False)
    chip: str
    parts: tuple[tuple[str, int, int, int, str], ...]
    warnings: tuple[str, ...]
    device: DeviceConfig

    @property
    def digest(self) -> str:
        """SHA-256 of the image in hex."""
        return hashlib.sha256(self.data).hexdigest()


def esptool_command(chip: str, path: Path) -> str:
    """The command line that writes the image at *path* to a board."""
    return f"esptool --chip {chip} write-flash 0x0 {shlex.quote(str(path))}"


def bootloader_for(data: bytes, flash_size: int) -> bytes:
    """The bootloader with *flash_size* in its header, as esptool sets it when it flashes one on its own.

    The bootloader refuses a partition table that reaches beyond the size it is told. Where the size changes, the
    appended hash is made anew.
    """
    code = imagefile.FLASH_SIZES.get(flash_size)
    if code is None:
        raise ToolError("LAYOUT", f"The layout is for a flash of 0x{flash_size:x} bytes, which no bootloader can name.")
    out = bytearray(data)
    if out[3] >> 4 != code:
        if imagefile.signed_length(out, imagefile.read_structure(out).length) > imagefile.read_structure(out).length:
            raise ToolError(
                "BOOTLOADER", "The bootloader is signed for another flash size; build and sign it for the one you have."
            )
        out[3] = code << 4 | out[3] & 0x0F
        structure = imagefile.read_structure(out)
        if structure.hash_appended:
            end = structure.length - imagefile.HASH_SIZE
            out[end : structure.length] = hashlib.sha256(out[:end]).digest()
    return bytes(out)


def build(inputs: Inputs) -> Built:
    """Put the image together.

    Raises ToolError: IMAGE_SIZE, IMAGE_CHIP, FIRMWARE_VERSION, LAYOUT, FILES, and the engine's reasons for a key set
    or factory release that it would refuse.
    """
    app, table = inputs.app, layout.check_sekisho(inputs.table)
    chip, bootloader = _bootloader(inputs)
    if chip != app.chip or inputs.device.chip != app.chip:
        raise ToolError("IMAGE_CHIP", f"The firmware is for {app.chip}, the bootloader for {chip}.")
    slot = table["ota_0"]
    if app.size > slot.size:
        raise ToolError(
            "IMAGE_SIZE",
            f"The app has 0x{app.size:x} bytes; a slot of this layout holds 0x{slot.size:x}. Use a larger one.",
        )
    check_firmware_version(app, inputs.payload_only)
    device, plan, envelope = inputs.device, None, None
    if inputs.release is not None:
        envelope = sever(inputs.release)
        plan = check_release(envelope, device, app)
        device = replace(device, floor_fw=max(device.floor_fw, plan.sequence))
    source = config.render(device)

    flash = Flash(bytearray(b"\xff" * table.flash_size), keep_log=False)
    parts = [
        _put(flash, "bootloader", CHIPS[chip].bootloader_offset, bootloader, layout.TABLE_OFFSET, f"for {chip}"),
        _put(flash, "partition table", layout.TABLE_OFFSET, table.encode(), layout.TABLE_OFFSET + SECTOR, ""),
    ]
    content: dict[str, tuple[bytes, str]] = {
        "ota_0": (app.data, f"MicroPython {app.micropython or 'of unknown version'}, {app.digest.hex()[:16]}")
    }
    if table.otadata:
        content[table.otadata.label] = (Entry.make(1, VALID).encode(), "ota_0 VALID")
    part = MemPart(table["sekisho"].size)
    provision_sekisho_partition(part, envelope, plan)
    words = f"ledger, slot record (fw sequence {plan.sequence})" if plan else "ledger (counter 0)"
    content["sekisho"] = (part.flash.read(0, part.size), words)
    files = {**(device_files(source, table["vfs"].size, chip) if inputs.mode == STOCK else {}), **inputs.files}
    content["vfs"] = (make_littlefs(table["vfs"].size, files, "vfs"), _count(files))
    data = {} if inputs.settings is None else {SETTINGS: inputs.settings}
    content["data"] = (make_littlefs(table["data"].size, data, "data"), _count(data))
    for row in table:
        if row.label in content:
            parts.append(_put(flash, row.label, row.offset, content[row.label][0], row.end, content[row.label][1]))
        else:
            parts.append((row.label, row.offset, 0, row.size, "blank"))
    return Built(bytes(flash.buffer), chip, tuple(parts), tuple(_warnings(inputs)), device)


def _bootloader(inputs: Inputs) -> tuple[str, bytes]:
    if inputs.bootloader:
        chip, data = inputs.bootloader[0].name, inputs.bootloader[1]
    elif inputs.app.bootloader is not None:
        chip, data = inputs.app.chip, inputs.app.bootloader
    else:
        raise ToolError("BOOTLOADER", "The firmware is a bare app image; name the bootloader with --bootloader FILE.")
    return chip, bootloader_for(data, inputs.table.flash_size)


def _warnings(inputs: Inputs) -> list[str]:
    if not inputs.payload_only:
        if inputs.mode == STOCK or b"sekisho_boot" in inputs.app.data:
            return []
        return [
            "There is no Sekisho in this firmware, so nothing on the board would verify updates: take --mode stock for "
            "an official MicroPython, or firmware built with our board definitions."
        ]
    return [
        f"The firmware ({inputs.app.micropython or 'of unknown version'}) is only a payload here: Sekisho's device "
        "code is not expected to run on it."
    ]


def _count(files: Mapping[str, bytes]) -> str:
    return f"littlefs, {len(files)} files, {sum(map(len, files.values()))} bytes"


def _put(flash: Flash, name: str, offset: int, data: bytes, end: int, words: str) -> tuple[str, int, int, int, str]:
    if offset + len(data) > end:
        raise ToolError("IMAGE_SIZE", f"{name} has 0x{len(data):x} bytes; there is room for 0x{end - offset:x}.")
    flash.program(offset, data)
    return name, offset, len(data.rstrip(b"\xff")), end - offset, words


# -- looking into files ---------------------------------------------------------------------------------------------


def describe_app(app: AppImage) -> dict[str, Any]:
    """An app image as plain values."""
    return {
        "kind": app.kind,
        "chip": app.chip,
        "size": app.size,
        "sha256": app.digest.hex(),
        "micropython": app.micropython,
        "supported": _supported(app),
        "idf": app.idf,
        "built": app.built,
        "version": app.version,
        "project": app.project,
        "secure_version": app.secure_version,
        "entry": app.structure.entry,
        "checksum": app.checksum,
        "appended_hash": app.appended_hash.hex(),
        "has_bootloader": app.bootloader is not None,
        "segments": [{"address": s.address, "length": s.length, "offset": s.offset} for s in app.segments],
    }


def _supported(app: AppImage) -> bool:
    try:
        check_firmware_version(app)
    except ToolError:
        return False
    return True


def is_flash_image(data: bytes) -> bool:
    """Whether *data* is the content of a flash from address 0, with a partition table at 0x8000 and otadata."""
    if data[layout.TABLE_OFFSET : layout.TABLE_OFFSET + 2] != b"\xaa\x50" or len(data) % SECTOR:
        return False
    try:
        return layout.decode(data[layout.TABLE_OFFSET :][: layout.TABLE_SIZE], len(data)).otadata is not None
    except ToolError:
        return False


def describe_flash(data: bytes) -> dict[str, Any]:
    """A flash image as plain values: partitions, what is in them, what otadata selects."""
    flash = Flash(bytearray(data))
    table = layout.decode(flash.read(layout.TABLE_OFFSET, layout.TABLE_SIZE), len(data))
    found = imagefile.find_bootloader(data)
    out: dict[str, Any] = {
        "kind": "flash",
        "size": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "chip": found[0].name if found else None,
        "bootloader": found is not None,
        "partitions": [_describe_partition(data, row) for row in table],
        "otadata": [str(entry) for entry in read_entries(flash, table.otadata)] if table.otadata else [],
    }
    state = table.get("sekisho")
    if state:
        # A copy: reading a ledger brings its banks level where a cut left them apart.
        window = Flash(bytearray(data[state.offset : state.end]))
        out["sekisho"] = describe_state(MemPart(state.size, window))
    return out


def _describe_partition(data: bytes, row: Partition) -> dict[str, Any]:
    content = data[row.offset : row.end]
    out: dict[str, Any] = {
        "label": row.label,
        "type": row.type_name,
        "subtype": row.subtype_name,
        "offset": row.offset,
        "size": row.size,
    }
    if not content.strip(b"\xff"):
        out["content"] = "blank"
    elif row.type == layout.APP:
        try:
            app = imagefile.parse(content)
            out["content"] = "app"
            out["app"] = describe_app(app)
        except ToolError as error:
            out["content"] = f"no bootable app: {error.sentence}"
    elif row.subtype == layout.SUBTYPES[layout.DATA]["littlefs"]:
        files = list_littlefs(content)
        out["files"] = files
        out["content"] = f"littlefs {littlefs_version(content)}"
        if files is None:
            ours = b"littlefs" in (content[8:16], content[SECTOR + 8 : SECTOR + 16])
            out["content"] = "a littlefs that is damaged, or newer than these tools" if ours else "no littlefs"
    else:
        out["content"] = "data"
    return out


def describe_state(part: MemPart) -> dict[str, Any]:
    """The `sekisho` partition as plain values: ledger and documents."""
    from sekisho_boot import ledger, records

    log = ledger.Ledger(part)
    slots = {}
    for component, name in enumerate(("fw", "app")):
        for slot in (0, 1):
            record = records.load_slot(part, component, slot)
            slots[f"{name}_{slot}"] = record and {
                "sequence": record.sequence,
                "size": record.size,
                "digest": bytes(record.digest).hex(),
                "manifest": bytes(record.manifest).hex(),
            }
    return {
        "ledger": "foreign" if log.foreign else "lost" if log.lost else "ok",
        "counters": list(log.state.counters),
        "chosen": log.state.chosen,
        "phase": log.state.phase,
        "locked": log.state.locked,
        "degraded": log.state.degraded,
        "keyset_version": log.state.keyset[0],
        "slots": slots,
    }
