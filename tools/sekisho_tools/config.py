"""The device's configuration: the module `sekisho_config` that a build freezes in, or that stock mode puts on `vfs`.

What it holds is what the engine trusts from the start: who made the device, which product class it is, the first key
set, and the numbers below which nothing may fall. It is compiled code, not settings: those lie in `/data/sekisho.json`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from . import device_code  # noqa: F401  (makes the device packages importable)
from .errors import ToolError
from .identity import class_id, vendor_id
from .imagefile import CHIPS

TRIAL_SECONDS = 300
"""Default time in seconds in which a new image must be confirmed."""
MIN_TRIAL, MAX_TRIAL = 30, 24 * 3600
_MAX_CLASSES = 16
PINS = {
    "esp32": frozenset({*range(6), *range(12, 20), *range(21, 24), *range(25, 28), 32, 33}),
    "esp32s3": frozenset({*range(22), *range(33, 49)}),
    "esp32c3": frozenset({*range(11), *range(18, 22)}),
    "esp32c6": frozenset({*range(24)}),
}
"""Per chip the pins that can drive an LED: there are such pins, they are no inputs only, and the flash is elsewhere."""


@dataclass(frozen=True)
class DeviceConfig:
    """Everything in `sekisho_config`: UUIDs as 16 bytes, times in seconds (BUILD_TIME since 1970)."""

    vendor: bytes
    classes: tuple[bytes, ...]
    keyset: bytes
    chip: str
    build_time: int
    floor_fw: int = 0
    floor_app: int = 0
    trial_seconds: int = TRIAL_SECONDS
    product: str = ""
    efuse_floor: bool = False
    interfaces: tuple[str, ...] = ()
    """Interfaces that a production device may open at all (docs/interfaces.md)."""
    hardware: tuple[str, ...] = ()
    """Protection by eFuses that the product expects; a device without is degraded."""
    secure: str = "esp32"
    """What keeps the device's secrets: ``software``, ``esp32``, or a module of the product (docs/secure.md)."""
    led: int | None = None
    """Number of the pin that blinks in the safe state (docs/safe-state.md)."""
    console_port: int | None = None
    """TCP port of the console; None for its usual one (docs/console.md)."""
    settings: tuple[tuple[str, Any], ...] = ()
    """Settings by name that count where the device's file system has none; the same on every device."""


def first_keyset(document: bytes) -> tuple[int, int]:
    """(version, issued-at) of a key set document that may be a device's first; ToolError where it may not.

    It must be signed by the threshold of its own roots, which is what the engine asks of the one it is built with.
    """
    from sekisho_boot import keyset, reasons

    try:
        parsed = keyset.genesis(document)
    except reasons.Refused as refused:
        name = reasons.name(refused.code)
        raise ToolError(name, f"The key set cannot be a device's first one: the engine refuses it ({name}).") from None
    return parsed.version, parsed.issued_at


def _bytes(value: bytes, indent: str = "") -> str:
    """Python source of *value*, in lines of 48 bytes."""
    if len(value) <= 48:
        return repr(value)
    lines = [repr(value[at : at + 48]) for at in range(0, len(value), 48)]
    return "(\n" + "".join(f"{indent}    {line}\n" for line in lines) + f"{indent})"


def render(config: DeviceConfig) -> str:
    """Python source of the module `sekisho_config`.

    Raises ToolError CONFIG when a value cannot be right, and whatever `first_keyset` raises.
    """
    if len(config.vendor) != 16 or not config.classes or any(len(c) != 16 for c in config.classes):
        raise ToolError("CONFIG", "A device needs a vendor and at least one class, each a UUID of 16 bytes.")
    if len(config.classes) > _MAX_CLASSES:
        raise ToolError("CONFIG", f"A device can have {_MAX_CLASSES} classes, not {len(config.classes)}.")
    if config.chip not in CHIPS:
        raise ToolError("IMAGE_CHIP", f"There is no chip {config.chip!r}; known: {', '.join(CHIPS)}.")
    if not MIN_TRIAL <= config.trial_seconds <= MAX_TRIAL:
        raise ToolError("CONFIG", f"A trial lasts {MIN_TRIAL} to {MAX_TRIAL} seconds, not {config.trial_seconds}.")
    if config.efuse_floor and config.chip != "esp32":
        raise ToolError("CONFIG", f"The eFuse floor is there for esp32 only, not for {config.chip}.")
    if min(config.build_time, config.floor_fw, config.floor_app) < 0:
        raise ToolError("CONFIG", "Times and sequence numbers cannot be negative.")
    _check_names(config)
    first_keyset(config.keyset)
    classes = "".join(f"    {c!r},  # {UUID(bytes=c)}\n" for c in config.classes)
    return (
        '"""What this build trusts from the start. Made by `sekisho`; do not edit."""\n\n'
        f"PRODUCT = {config.product!r}\n"
        f"VENDOR = {config.vendor!r}  # {UUID(bytes=config.vendor)}\n"
        f"CLASSES = (\n{classes})\n"
        f"CHIP = {CHIPS[config.chip].chip_id}  # {config.chip}\n"
        f"BUILD_TIME = {config.build_time}\n"
        f"FLOOR_FW = {config.floor_fw}\n"
        f"FLOOR_APP = {config.floor_app}\n"
        f"TRIAL_SECONDS = {config.trial_seconds}\n"
        f"EFUSE_FLOOR = {config.efuse_floor}  # whether confirmed images raise the hardware floor, for good\n"
        f"INTERFACES = {config.interfaces!r}  # what a production device may open at all\n"
        f"HARDWARE = {config.hardware!r}  # protection by eFuses that is expected\n"
        f"SECURE = {config.secure!r}\n"
        + (f"LED = {config.led}  # pin that blinks in the safe state\n" if config.led is not None else "")
        + (f"CONSOLE_PORT = {config.console_port}\n" if config.console_port is not None else "")
        + (f"SETTINGS = {dict(config.settings)!r}  # where the file system has none\n" if config.settings else "")
        + f"KEYSET = {_bytes(config.keyset)}\n"
    )


def _check_names(config: DeviceConfig) -> None:
    from sekisho import hardware, values

    for what, given, known in (
        ("interface", config.interfaces, values.INTERFACES),
        ("protection", config.hardware, tuple(hardware.NAMES.values())),
    ):
        for one in given:
            if one not in known:
                raise ToolError("CONFIG", f"There is no {what} {one!r}; known: {', '.join(known)}.")
    if not config.secure.isidentifier():
        raise ToolError("CONFIG", f"{config.secure!r} is neither software, esp32, nor the name of a module.")
    pins = PINS[config.chip]
    if config.led is not None and config.led not in pins:
        raise ToolError("CONFIG", f"Pin {config.led} of the {config.chip} drives no LED; pins: {_ranges(pins)}.")
    if config.console_port is not None and not 1 <= config.console_port <= 65535:
        raise ToolError("CONFIG", f"A port is a number from 1 to 65535, not {config.console_port}.")
    common_settings(dict(config.settings))


def _ranges(pins: frozenset[int]) -> str:
    """*pins* in words: ``0-5, 12-33``."""
    found = [[pin, pin] for pin in sorted(pins) if pin - 1 not in pins]
    for pair in found:
        while pair[1] + 1 in pins:
            pair[1] += 1
    return ", ".join(f"{first}-{last}" if last > first else str(first) for first, last in found)


def common_settings(values: Any) -> dict[str, Any]:
    """*values* if they may be the settings of many devices, in an image or a key set: a device takes each, and
    none is the secret of a single one.

    Raises ToolError SETTING. With a secret that is the same on every device, whoever owns one could enter all of them.
    """
    from sekisho.values import OF_ONE_DEVICE

    from . import settings

    found = settings.check(values)
    if found.get(OF_ONE_DEVICE):
        raise ToolError("SETTING", f"{OF_ONE_DEVICE} is a secret of one device; an order may set it, for a single one.")
    return found


def make(
    vendor: str,
    classes: Sequence[str],
    keyset: bytes,
    chip: str,
    *,
    build_time: int | None = None,
    floor_fw: int = 0,
    floor_app: int = 0,
    trial_seconds: int = TRIAL_SECONDS,
    product: str = "",
    efuse_floor: bool = False,
    interfaces: Sequence[str] = (),
    hardware: Sequence[str] = (),
    secure: str = "esp32",
    led: int | None = None,
    console_port: int | None = None,
    settings: Mapping[str, Any] | None = None,
) -> DeviceConfig:
    """A configuration from what a user types; *build_time* None takes the time the key set was issued.

    That time is signed by the roots and the same for everybody, so that the same inputs give the same bytes.
    """
    issued = first_keyset(keyset)[1]
    return DeviceConfig(
        vendor=vendor_id(vendor).bytes,
        classes=tuple(class_id(vendor, text).bytes for text in classes),
        keyset=keyset,
        chip=chip,
        build_time=issued if build_time is None else build_time,
        floor_fw=floor_fw,
        floor_app=floor_app,
        trial_seconds=trial_seconds,
        product=product,
        efuse_floor=efuse_floor,
        interfaces=tuple(interfaces),
        hardware=tuple(hardware),
        secure=secure,
        led=led,
        console_port=console_port,
        settings=tuple((settings or {}).items()),
    )
