"""The eFuse plan: which bits of a chip to burn for a product, as the commands of Espressif's own tools.

Nothing here burns anything: the plan is a shell script for a person to read and run; espefuse asks before every burn.
`rehearse` runs the same commands on espefuse's virtual chip, so that none of them is wrong on the day.

Sources: ESP-IDF `security-features-enablement-workflows.rst`, `secure-boot-v2.rst`; eFuse fields of esptool 5.6. Flash
encryption comes before secure boot: secure boot write-protects RD_DIS, and then no key can be read-protected any more.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import ToolError

CHIPS = ("esp32", "esp32s3", "esp32c3", "esp32c6")
SECURE_VERSION_BITS = {"esp32": 32, "esp32s3": 16, "esp32c3": 16, "esp32c6": 16}
KEEP, SECURE, OFF = "keep", "secure", "off"
"""What becomes of the download mode: nothing, only what secure download mode allows, none at all."""
FLASH_KEY_SIZE = 32
TIMEOUT = 120
MAX_SUMMARY = 1 << 20


@dataclass(frozen=True)
class Wishes:
    """What the product is to have. *secure_boot* is a PEM file (RSA-3072; the public half will do), *flash_key* a file
    of 32 random bytes of this one device, *secure_version* the anti-rollback floor, *download* one of KEEP, SECURE,
    OFF."""

    secure_boot: str | None = None
    flash_key: str | None = None
    secure_version: int = 0
    jtag_off: bool = True
    download: str = SECURE


@dataclass(frozen=True)
class Step:
    """One command: what it does, its words, what can never be undone, and the fields it sets (name -> number)."""

    title: str
    words: tuple[str, ...]
    undone: str = ""
    sets: Mapping[str, int] | None = None
    tool: str = "espefuse"

    def done(self, fuses: Mapping[str, int]) -> bool:
        """Whether the chip whose *fuses* these are has it already."""
        return bool(self.sets) and all(fuses.get(name, 0) & bits == bits for name, bits in (self.sets or {}).items())


def _burn(title: str, undone: str, **fields: int) -> Step:
    words = [word for name, value in fields.items() for word in (name, f"0x{value:x}" if value > 1 else str(value))]
    return Step(title, ("burn-efuse", *words), undone, fields)


_FLASH_LOST = "The flash is readable and writable only by this chip; without this key file nobody flashes it by cable."


def _flash_encryption(chip: str, key: str) -> list[Step]:
    if chip == "esp32":
        return [
            Step("flash encryption key, read- and write-protected", ("burn-key", "flash_encryption", key), _FLASH_LOST),
            _burn("how addresses enter the key", _FLASH_LOST, FLASH_CRYPT_CONFIG=0xF),
            _burn(
                "no way around the encryption in download mode",
                "The chip never encrypts, decrypts or caches for a cable again.",
                DISABLE_DL_ENCRYPT=1,
                DISABLE_DL_DECRYPT=1,
                DISABLE_DL_CACHE=1,
            ),
            _burn("flash encryption on for ever", "Plain images do not boot any more.", FLASH_CRYPT_CNT=127),
        ]
    cache = {"DIS_DOWNLOAD_ICACHE": 1, **({"DIS_DOWNLOAD_DCACHE": 1} if chip == "esp32s3" else {})}
    return [
        Step(
            "flash encryption key, read- and write-protected",
            ("burn-key", "BLOCK_KEY1", key, "XTS_AES_128_KEY"),
            _FLASH_LOST,
            {"KEY_PURPOSE_1": 4},
        ),
        _burn(
            "no way around the encryption in download mode",
            "The chip never encrypts or caches for a cable again.",
            DIS_DOWNLOAD_MANUAL_ENCRYPT=1,
            **cache,
        ),
        _burn("flash encryption on for ever", "Plain images do not boot any more.", SPI_BOOT_CRYPT_CNT=7),
    ]


_BOOT_LOST = "Only bootloaders and apps signed with this key start; if the key is lost, so is every later bootloader."


def _secure_boot(chip: str, key: str) -> list[Step]:
    if chip == "esp32":
        return [
            Step(
                "digest of the secure boot key, as a file",
                ("digest-sbv2-public-key", "--keyfile", key, "--output", "secure-boot-digest.bin"),
                tool="espsecure",
            ),
            Step(
                "digest of the secure boot key into the chip (revision 3.0 or newer)",
                ("burn-key", "secure_boot_v2", "secure-boot-digest.bin"),
                _BOOT_LOST,
            ),
            _burn("secure boot on", _BOOT_LOST, ABS_DONE_1=1),
        ]
    return [
        Step(
            "digest of the secure boot key into the chip",
            ("burn-key-digest", "BLOCK_KEY0", key, "SECURE_BOOT_DIGEST0"),
            _BOOT_LOST,
            {"KEY_PURPOSE_0": 9},
        ),
        _burn(
            "the two unused key slots closed",
            "No second secure boot key can be added; leave this out if you want to be able to change keys.",
            SECURE_BOOT_KEY_REVOKE1=1,
            SECURE_BOOT_KEY_REVOKE2=1,
        ),
        _burn("secure boot on", _BOOT_LOST, SECURE_BOOT_EN=1),
    ]


def _protections(chip: str, wishes: Wishes) -> list[Step]:
    steps = []
    if wishes.secure_boot:
        # Only now: with RD_DIS write-protected no key could be read-protected, and a digest must stay readable.
        steps.append(
            Step(
                "no key can be hidden any more, so the digest stays readable",
                ("write-protect-efuse", "RD_DIS"),
                "Nothing can be read-protected after this, a flash encryption key included.",
                {"WR_DIS": 1},
            )
        )
    if wishes.flash_key:
        field, lock = ("DIS_CACHE", 1 << 3) if chip == "esp32" else ("DIS_ICACHE", 1 << 2)
        steps.append(
            Step("the cache cannot be switched off", ("write-protect-efuse", field), "As it says.", {"WR_DIS": lock})
        )
    return steps


def _jtag(chip: str, wishes: Wishes) -> list[Step]:
    if not wishes.jtag_off:
        return []
    off = {"JTAG_DISABLE": 1} if chip == "esp32" else {"DIS_PAD_JTAG": 1, "DIS_USB_JTAG": 1}
    return [_burn("JTAG off", "No debugger reaches this chip again.", **off)]


def _download(chip: str, wishes: Wishes) -> list[Step]:
    steps = []
    if wishes.download != KEEP and chip != "esp32":
        steps.append(_burn("no start from uncached flash", "As it says.", DIS_DIRECT_BOOT=1))
    if wishes.download == SECURE and chip != "esp32":
        lost = "The cable writes flash but reads neither flash, memory nor eFuses; espefuse does not work any more."
        steps.append(_burn("secure download mode", lost, ENABLE_SECURITY_DOWNLOAD=1))
    elif wishes.download != KEEP:
        field = "UART_DOWNLOAD_DIS" if chip == "esp32" else "DIS_DOWNLOAD_MODE"
        lost = "Nothing is ever flashed by cable again; a device that does not start any more is scrap."
        steps.append(_burn("download mode off", lost, **{field: 1}))
    return steps


def plan(chip: str, wishes: Wishes) -> list[Step]:
    """The commands for *chip*, in the order in which they must run. Raises ToolError CHIP or SECURE_VERSION."""
    if chip not in CHIPS:
        raise ToolError("CHIP", f"There is no eFuse plan for {chip!r}; known: {', '.join(CHIPS)}.")
    bits = SECURE_VERSION_BITS[chip]
    if not 0 <= wishes.secure_version <= bits:
        raise ToolError("SECURE_VERSION", f"The {chip} counts secure versions from 0 to {bits}.")
    steps: list[Step] = []
    if wishes.flash_key:
        steps += _flash_encryption(chip, wishes.flash_key)
    if wishes.secure_boot:
        steps += _secure_boot(chip, wishes.secure_boot)
    if wishes.secure_version:
        lost = "Firmware with a lower secure version never starts again where the bootloader checks it."
        steps.append(
            _burn(f"anti-rollback floor {wishes.secure_version}", lost, SECURE_VERSION=(1 << wishes.secure_version) - 1)
        )
    # The protection of the cache switch locks the JTAG bits as well, and the download mode is needed until the end.
    return [*steps, *_jtag(chip, wishes), *_protections(chip, wishes), *_download(chip, wishes)]


# -- the chip at hand -----------------------------------------------------------------------------------------------


def read_summary(text: str | bytes) -> tuple[dict[str, int], str | None]:
    """(field -> number, MAC address or None) of what ``espefuse summary --format json`` prints; ToolError EFUSES."""
    data = text.decode(errors="replace") if isinstance(text, bytes) else text
    try:
        raw = json.loads(data[data.index("{") : data.rindex("}") + 1])
        fields = {str(name): _number(entry) for name, entry in raw.items()}
        mac = re.search(r"(?:[0-9a-f]{2}:){5}[0-9a-f]{2}", str(raw.get("MAC", {}).get("value", "")).lower())
    except (ValueError, AttributeError, KeyError, TypeError, RecursionError) as error:
        raise ToolError("EFUSES", "This is not what `espefuse summary --format json` prints.") from error
    if "WR_DIS" not in fields:
        raise ToolError("EFUSES", "This is not what `espefuse summary --format json` prints.")
    return fields, mac[0] if mac else None


def _number(entry: dict[str, Any]) -> int:
    text = str(entry.get("raw_value", ""))
    return int(text, 16) if re.fullmatch(r"0x[0-9a-fA-F]{1,16}", text) else 0


def read_chip(chip: str, port: str) -> tuple[dict[str, int], str | None]:
    """The eFuses of the board on *port*; nothing is written. Raises ToolError EFUSES."""
    done = _run("espefuse", "--chip", chip, "--port", port, "summary", "--format", "json")
    if done.returncode:
        raise ToolError("EFUSES", f"The eFuses of the board on {port} cannot be read: {_last(done)}")
    return read_summary(done.stdout)


def check_revision(chip: str, wishes: Wishes, fuses: Mapping[str, int]) -> None:
    """Refuse an ESP32 that is too old for secure boot v2: ToolError CHIP_REVISION."""
    major = fuses.get("WAFER_VERSION_MAJOR", 0)
    if chip == "esp32" and wishes.secure_boot and major < 3:
        raise ToolError("CHIP_REVISION", f"Secure boot v2 needs an ESP32 of revision 3.0; this one is {major}.x.")


def missing(steps: Sequence[Step], fuses: Mapping[str, int]) -> list[Step]:
    """The steps that a chip with these *fuses* still needs."""
    return [step for step in steps if not step.done(fuses)]


# -- rehearsal ------------------------------------------------------------------------------------------------------


def rehearse(chip: str, steps: Sequence[Step], wishes: Wishes) -> dict[str, int]:
    """Run *steps* on a virtual chip; returns its fuses. Raises ToolError EFUSE_PLAN when a command fails or burns
    something else than it says, KEY_FILE for a key file that cannot be one.

    A flash encryption key that does not exist yet (it is made per device) is replaced by one of the right size.
    """
    with tempfile.TemporaryDirectory(prefix="sekisho-efuse-") as directory:
        home = Path(directory)
        replaced = {}
        if wishes.flash_key:
            replaced[wishes.flash_key] = _flash_key(Path(wishes.flash_key), home)
        virtual = ("--chip", chip, "--virt", "--path-efuse-file", str(home / "efuse.bin"))
        for step in steps:
            words = [
                replaced.get(word, str(home / word) if word == "secure-boot-digest.bin" else word)
                for word in step.words
            ]
            options = (*virtual, "--do-not-confirm") if step.tool == "espefuse" else ()
            done = _run(step.tool, *options, *words)
            if done.returncode:
                raise ToolError("EFUSE_PLAN", f"{shlex.join(step.words)} fails on a virtual {chip}: {_last(done)}")
        fuses, _ = read_summary(_run("espefuse", *virtual, "summary", "--format", "json").stdout)
    for step in steps:
        if step.sets and not step.done(fuses):
            raise ToolError("EFUSE_PLAN", f"{shlex.join(step.words)} leaves a virtual {chip} without what it says.")
    return fuses


def _flash_key(path: Path, home: Path) -> str:
    if not path.exists():
        (home / "flash-key.bin").write_bytes(bytes(range(FLASH_KEY_SIZE)))
        return str(home / "flash-key.bin")
    if path.stat().st_size != FLASH_KEY_SIZE:
        raise ToolError("KEY_FILE", f"{path} is no flash encryption key: it needs {FLASH_KEY_SIZE} random bytes.")
    return str(path)


def _run(tool: str, *words: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            [sys.executable, "-m", tool, *words], capture_output=True, text=True, check=False, timeout=TIMEOUT
        )
    except subprocess.TimeoutExpired as error:
        raise ToolError("EFUSES", f"{tool} {words[-1]} did not finish within {TIMEOUT} s.") from error


def _last(done: subprocess.CompletedProcess[str]) -> str:
    lines = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    return (lines or ["it said nothing"])[-1]


# -- the script -----------------------------------------------------------------------------------------------------

_HEAD = """\
#!/bin/sh
# eFuse plan for {what}. Made by `sekisho factory efuse-plan`; rehearsed on a virtual chip; nothing is burnt yet.
#
# An eFuse that is burnt stays burnt: there is no way back from any step below. espefuse asks before each one.
# Try the whole plan on one board that you can lose. Run it on a board that is flashed and has started once.
# PORT must name the board: PORT=/dev/ttyUSB0 sh plan.sh
set -eu
: "${{PORT:?name the serial port of the board, for example PORT=/dev/ttyUSB0}}"
"""


def script(chip: str, steps: Sequence[Step], wishes: Wishes, mac: str | None = None) -> str:
    """The plan as a shell script; *mac* of the board that it is for, if it is known."""
    parts = [_HEAD.format(what=f"the {chip} {mac}" if mac else f"an {chip}")]
    if mac:
        parts.append(
            f'{shlex.join(("esptool", "--chip", chip))} --port "$PORT" read-mac | grep -qi {mac} \\\n'
            f"  || {{ echo 'This is another board than {mac}.' >&2; exit 1; }}\n"
        )
    if chip == "esp32" and wishes.secure_boot:
        parts.append("# Secure boot v2 needs revision 3.0 or newer: look at WAFER_VERSION_MAJOR before you go on.\n")
    if wishes.flash_key:
        parts.append(
            "# One flash encryption key per device, from the operating system's random numbers:\n"
            f"test -e {shlex.quote(wishes.flash_key)} || espsecure generate-flash-encryption-key "
            f"{shlex.quote(wishes.flash_key)}\n"
        )
    for number, step in enumerate(steps, 1):
        port = f' --chip {chip} --port "$PORT"' if step.tool == "espefuse" else ""
        undone = f"# Cannot be undone: {step.undone}\n" if step.undone else ""
        parts.append(f"# {number}. {step.title}\n{undone}{step.tool}{port} {shlex.join(step.words)}\n")
    if not steps:
        parts.append("# This chip has everything already.\n")
    return "\n".join(parts)
