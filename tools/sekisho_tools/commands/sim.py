"""`sekisho sim`: run a flash image on the simulated ESP32."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from sekisho_sim import bootloader
from sekisho_sim.efuse import Efuse
from sekisho_sim.flash import SHAPES, Flash, PowerCutError

from ..errors import ToolError
from ..files import read_file, write_atomic

app = typer.Typer(no_args_is_help=True)


class CauseName(StrEnum):
    """Why the chip starts."""

    POWER_ON = "power-on"
    RESET = "reset"
    WATCHDOG = "watchdog"


class ProfileName(StrEnum):
    """How the bootloader was built."""

    ROLLBACK = "rollback"
    NO_ROLLBACK = "no-rollback"
    ANTI_ROLLBACK = "anti-rollback"


@app.callback()
def _group() -> None:
    """Run a flash image on the simulated ESP32."""


def read_flash(path: Path) -> bytearray:
    """The bytes of a flash image file; ToolError when it is missing or has no flash's size."""
    data = bytearray(read_file(path, "flash image"))
    if len(data) < 1 << 16 or len(data) % 4096:
        raise ToolError(
            "FLASH_IMAGE",
            f"{path} has {len(data)} bytes; a flash image is a whole number of 4 KiB sectors, 64 KiB or more.",
        )
    return data


def open_efuse(path: Path | None) -> Efuse:
    """The eFuses kept in *path*; unburnt ones without a file."""
    if path is None or not path.exists():
        return Efuse()
    try:
        return Efuse(read_file(path, "eFuse file"))
    except ValueError as error:
        raise ToolError("EFUSE_FILE", f"{path}: {error}.") from error


@app.command("bootloader")
def bootloader_command(
    flash_file: Annotated[Path, typer.Argument(metavar="FLASH.bin", help="The flash image; otadata is updated in it.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    profile: Annotated[
        ProfileName, typer.Option(help="How the bootloader was built (rollback: MicroPython v1.26).")
    ] = ProfileName.ROLLBACK,
    cause: Annotated[CauseName, typer.Option(help="Why the chip starts.")] = CauseName.POWER_ON,
    efuse: Annotated[
        Path | None, typer.Option(metavar="FILE", help="eFuses (as espefuse --virt keeps them), for anti-rollback.")
    ] = None,
    power_cut_at: Annotated[
        int | None, typer.Option(min=0, help="Cut the power at this flash operation (0 = the first).")
    ] = None,
    torn: Annotated[str | None, typer.Option(metavar="SHAPE", help="How the cut leaves that operation.")] = None,
) -> None:
    """One power-on of the bootloader alone: which slot runs, and what becomes of otadata.

    Example: sekisho sim bootloader flash.bin --json
    """
    flash = Flash(read_flash(flash_file))
    if torn is not None and torn not in SHAPES:
        raise ToolError("TORN_SHAPE", f"There is no shape {torn!r}; known: {', '.join(SHAPES)}.")
    if torn is not None and power_cut_at is None:
        raise ToolError("TORN_SHAPE", "--torn says how a power cut leaves an operation; add --power-cut-at N.")
    flash.cut_at, flash.torn = power_cut_at, torn
    fuses = open_efuse(efuse)
    cut = None
    try:
        result = bootloader.power_on(flash, fuses, cause.value, bootloader.PROFILES[profile.value])
    except PowerCutError as error:
        cut = str(error)
        result = bootloader.BootResult(None, None, [cut])
    except ValueError as error:
        raise ToolError("TORN_SHAPE", f"{error}.") from error
    if power_cut_at is not None and cut is None:
        raise ToolError("NO_CUT", f"The power cut never happened: there were only {flash.count} flash operations.")
    if flash.count or cut:
        write_atomic(flash_file, bytes(flash.buffer))
    if efuse and fuses.burns:
        write_atomic(efuse, fuses.encode())
    if as_json:
        typer.echo(json.dumps({"running": result.running, "boot_partition": result.boot_partition, "log": result.log}))
        return
    console = Console(highlight=False, soft_wrap=True)
    for line in result.log:
        console.print(line, markup=False)
    console.print(f"runs: {result.running or 'nothing'}   otadata selects: {result.boot_partition or 'nothing'}")
