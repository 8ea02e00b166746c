"""`sekisho image`: put a flash image together and look at one."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .. import config, flashimage, imagefile, layout
from .. import libraries as bundled
from ..errors import ToolError
from ..files import read_file, write_atomic
from ..text import printable

app = typer.Typer(no_args_is_help=True)

DEFAULT_LAYOUT = "4MiB"


class Mode(StrEnum):
    """Where the device code lives."""

    FROZEN = flashimage.FROZEN
    STOCK = flashimage.STOCK


@app.callback()
def _group() -> None:
    """Put a flash image together and look at one."""


@app.command()
def build(
    firmware: Annotated[
        Path, typer.Option("--firmware", metavar="FILE", help="MicroPython: whole-flash file or bare app image.")
    ],
    keyset: Annotated[Path, typer.Option("--keyset", metavar="FILE", help="The device's first key set.")],
    vendor: Annotated[str, typer.Option(metavar="UUID|DOMAIN", help="The vendor.")],
    classes: Annotated[list[str], typer.Option("--class", metavar="UUID|NAME", help="Product class; may be repeated.")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The flash image to write.")],
    layout_name: Annotated[
        str, typer.Option("--layout", metavar="NAME|CSV", help="4MiB, 8MiB, 16MiB, or a partition CSV.")
    ] = DEFAULT_LAYOUT,
    release: Annotated[
        Path | None, typer.Option("--release", metavar="FILE", help="The signed release of this very firmware.")
    ] = None,
    bootloader: Annotated[
        Path | None, typer.Option("--bootloader", metavar="FILE", help="Bootloader, for a bare app image.")
    ] = None,
    files: Annotated[
        Path | None, typer.Option("--files", metavar="DIR", help="Further files for the file system vfs.")
    ] = None,
    settings: Annotated[
        Path | None, typer.Option("--settings", metavar="FILE", help="The agent's settings (JSON).")
    ] = None,
    mode: Annotated[
        Mode, typer.Option(help="stock: put the device code on vfs. frozen: it is in the firmware.")
    ] = Mode.FROZEN,
    chip: Annotated[
        str | None, typer.Option(metavar="CHIP", help="Refuse firmware for any other chip (esp32, esp32s3, ...).")
    ] = None,
    product: Annotated[str, typer.Option(help="Name of the product.")] = "",
    trial_seconds: Annotated[
        int, typer.Option(metavar="S", help="Time in which a new image must be confirmed.")
    ] = config.TRIAL_SECONDS,
    efuse_floor: Annotated[
        bool, typer.Option("--efuse-floor", help="Let confirmed images burn the floor of docs/efuses.md. ESP32.")
    ] = False,
    interface: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Production devices may open this interface; may be given several times."),
    ] = None,
    hardware: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Protection that the product expects: secure-boot, flash-encryption, ..."),
    ] = None,
    secure: Annotated[
        str, typer.Option(metavar="NAME", help="Where secrets are kept: software, esp32, or a module of the product.")
    ] = "esp32",
    led: Annotated[
        int | None, typer.Option("--led", metavar="PIN", help="Pin that blinks in the safe state; none by default.")
    ] = None,
    console_port: Annotated[
        int | None, typer.Option("--console-port", metavar="PORT", help="TCP port of the console [80].")
    ] = None,
    product_settings: Annotated[
        Path | None,
        typer.Option(
            "--product-settings",
            metavar="FILE",
            help="Settings (JSON) that are built in, for a device whose file system data has none.",
        ),
    ] = None,
    payload_only: Annotated[
        bool, typer.Option("--payload-only", help="Take firmware that our device code cannot run on, as bytes only.")
    ] = False,
    config_out: Annotated[
        Path | None,
        typer.Option("--config-out", metavar="FILE", help="Where sekisho_config.py goes [frozen: OUT.config.py]."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Put a whole flash image together: one file that esptool writes at 0x0.

    Example: sekisho image build --firmware ESP32_GENERIC.bin --keyset keyset.cose --vendor example.com --class lamp
    --mode stock --out flash.bin
    """
    image = imagefile.parse(read_file(firmware, "firmware"))
    if chip is not None and chip != image.chip:
        raise ToolError("IMAGE_CHIP", f"{firmware} is for {image.chip}, not for {chip}.")
    document = read_file(keyset, "key set", 1 << 16)
    device = config.make(
        vendor,
        classes,
        document,
        image.chip,
        trial_seconds=trial_seconds,
        product=product,
        efuse_floor=efuse_floor,
        interfaces=interface or (),
        hardware=hardware or (),
        secure=secure,
        led=led,
        console_port=console_port,
        settings=json.loads(flashimage.read_settings(product_settings)) if product_settings else None,
    )
    built = flashimage.build(
        flashimage.Inputs(
            app=image,
            table=layout.load(layout_name),
            device=device,
            mode=mode.value,
            bootloader=imagefile.parse_bootloader(read_file(bootloader, "bootloader")) if bootloader else None,
            release=read_file(release, "release", 1 << 20) if release else None,
            files=flashimage.read_tree(files) if files else {},
            settings=flashimage.read_settings(settings) if settings else None,
            payload_only=payload_only,
        )
    )
    write_atomic(out, built.data)
    if config_out is None and mode.value == flashimage.FROZEN:
        config_out = flashimage.config_beside(out)
    if config_out:
        write_atomic(config_out, config.render(built.device))
    command = flashimage.esptool_command(built.chip, out)
    if as_json:
        rows = [dict(zip(("name", "offset", "used", "size", "content"), row, strict=True)) for row in built.parts]
        result = {"out": str(out), "size": len(built.data), "sha256": built.digest, "chip": built.chip, "parts": rows}
        typer.echo(json.dumps(result | {"warnings": built.warnings, "esptool": command}, indent=2))
        return
    console = Console(highlight=False)
    table = Table("Part", "Offset", "Bytes", "Room", "Content", box=None)
    for name, offset, used, size, words in built.parts:
        table.add_row(name, f"0x{offset:06x}", str(used), str(size), words)
    console.print(table)
    console.print(f"{out}: {len(built.data)} bytes, SHA-256 {built.digest}", soft_wrap=True, markup=False)
    for warning in built.warnings:
        console.print(f"note: {warning}", soft_wrap=True, markup=False)
    console.print("Write it to a board with:", f"  {command}", sep="\n", soft_wrap=True, markup=False)


@app.command()
def inspect(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A flash image, a whole-flash file or an app image.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show what a firmware file or a flash image holds, and whether the bootloader would take it.

    Example: sekisho image inspect flash.bin
    """
    data = read_file(file, "image")
    if flashimage.is_flash_image(data):
        found = flashimage.describe_flash(data)
    else:
        found = flashimage.describe_app(imagefile.parse(data))
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    elif found["kind"] == "flash":
        _print_flash(found)
    else:
        _print_app(found)


def _print_rows(rows: list[tuple[str, str]]) -> None:
    table = Table.grid(padding=(0, 2))
    for name, value in rows:
        table.add_row(name, value)
    Console(highlight=False, markup=False).print(table)


def _print_app(found: dict[str, Any]) -> None:
    kind = "whole-flash file" if found["kind"] == "whole-flash" else "app image"
    _print_rows(
        [
            ("kind", kind + (", with a bootloader" if found["has_bootloader"] else "")),
            ("chip", found["chip"]),
            ("MicroPython", found["micropython"] or "no version found"),
            ("device code", "runs on it" if found["supported"] else "does not run on it (only --payload-only)"),
            ("ESP-IDF", found["idf"]),
            ("built", found["built"]),
            ("app size", f"{found['size']} bytes (0x{found['size']:x})"),
            ("app SHA-256", found["sha256"]),
            ("checksum", f"0x{found['checksum']:02x}, right"),
            ("appended hash", f"{found['appended_hash']}, right"),
            ("secure version", str(found["secure_version"])),
            *(
                (f"segment {n}", f"0x{s['address']:08x}, 0x{s['length']:x} bytes at 0x{s['offset']:x}")
                for n, s in enumerate(found["segments"])
            ),
        ]
    )


def _print_flash(found: dict[str, Any]) -> None:
    console = Console(highlight=False)
    console.print(f"flash image for {found['chip'] or 'an unknown chip'}, {found['size']} bytes", markup=False)
    table = Table("Partition", "Type", "Offset", "Size", "Content", box=None)
    for row in found["partitions"]:
        content = row["content"]
        if "app" in row:
            content = f"MicroPython {row['app']['micropython'] or '?'}, {row['app']['sha256'][:16]}"
        elif row.get("files"):
            names = printable(", ".join(row["files"]))
            content = f"{content}, {len(row['files'])} files: {names}"
        table.add_row(
            escape(row["label"]),
            f"{row['type']}/{row['subtype']}",
            f"0x{row['offset']:06x}",
            f"0x{row['size']:x}",
            escape(content),
        )
    console.print(table)
    for number, entry in enumerate(found["otadata"]):
        console.print(f"otadata {number}: {entry}", markup=False)
    state = found.get("sekisho")
    if state:
        console.print(
            f"ledger: {state['ledger']}, counters {state['counters']}, chosen ota_{state['chosen']}"
            f"{', locked' if state['locked'] else ''}",
            markup=False,
        )
        for name, slot in state["slots"].items():
            if slot:
                console.print(f"slot record {name}: sequence {slot['sequence']}, {slot['digest'][:16]}", markup=False)


@app.command()
def libraries(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Directory to write to.")] = Path("build/libraries"),
) -> None:
    """Write the libraries of others that a firmware build freezes in, with their licences.

    They are taken from the pinned packages, and refused where a byte differs from what was reviewed.

    Example: sekisho image libraries --out build/libraries
    """
    for path in bundled.write(out):
        typer.echo(path)
