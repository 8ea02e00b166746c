"""`sekisho issue`: batches of device identities, who got which, labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table

from .. import issued, issuing, keys, labels, layout, packing
from ..errors import ToolError
from ..files import read_file, write_atomic
from .keys import Json, PassphraseFd

app = typer.Typer(no_args_is_help=True)

BatchFile = Annotated[Path, typer.Argument(metavar="BATCH", help="A file made by `issue batch`.")]
Which = Annotated[str, typer.Argument(metavar="DEVICE", help="Logical id, number in the batch, or MAC address.")]
Folders = Annotated[list[Path], typer.Argument(metavar="DEVICE...", help="Folders made by `issue take`.")]


def passphrase(batch: Path, descriptor: int | None, *, new: bool = False) -> bytes:
    """The passphrase of *batch*, asked for or read."""
    source = keys.Passphrases(descriptor)
    return source.new(f"batch {batch.name}") if new else source.get(f"batch {batch.name}")


@app.command(
    epilog="Example: sekisho issue batch lamps.batch -n 100 --keyset keyset-1.cose --vendor example.com --class lamp"
)
def batch(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Where the batch goes.")],
    count: Annotated[int, typer.Option("-n", "--count", metavar="N", help="How many devices.")],
    keyset: Annotated[Path, typer.Option(metavar="FILE", help="The devices' first key set; its environment counts.")],
    vendor: Annotated[str, typer.Option(metavar="UUID|DOMAIN", help="The vendor.")],
    product_class: Annotated[str, typer.Option("--class", metavar="UUID|NAME", help="The product class.")],
    product: Annotated[str, typer.Option(help="Name of the product, for labels.")] = "",
    key: Annotated[
        Literal["issued", "on-device"],
        typer.Option(help="issued: device keys are made here. on-device: each device makes its own at first start."),
    ] = "issued",
    passphrase_fd: PassphraseFd = None,
    as_json: Json = False,
) -> None:
    """Make device identities: id, keys, enrolment token, console secret; encrypted, each given out once."""
    document = read_file(keyset, "key set", 1 << 16)
    secret = passphrase(out, passphrase_fd, new=True)
    made = issuing.create(out, count, document, vendor, product_class, secret, product=product, key=key)
    if as_json:
        typer.echo(json.dumps({"out": str(out), "count": count, "batch": made.header.batch}))
        return
    typer.echo(f"Wrote {out}: {count} devices, {made.header.environment}, batch {made.header.batch}.")


@app.command("list", epilog="Example: sekisho issue list lamps.batch --state taken")
def list_(
    batch: BatchFile,
    state: Annotated[Literal["fresh", "taken", "void"] | None, typer.Option(help="Only these.")] = None,
    as_json: Json = False,
) -> None:
    """List the devices of a batch: which are given out, to which chip. No passphrase is needed."""
    found = issuing.load(batch)
    rows = [record.public() for record in found.records if state in (None, record.state)]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    table = Table("No.", "Logical id", "State", "Chip", "Given out", "Note", box=None)
    for row in rows:
        table.add_row(
            str(row["number"]), row["id"], row["state"], row["physical"] or "", row["taken"] or "", row["note"]
        )
    Console(highlight=False, width=132).print(table, markup=False) if rows else typer.echo("none")
    left, taken, void = (found.count(one) for one in (issuing.FRESH, issuing.TAKEN, issuing.VOID))
    typer.echo(f"{left} fresh, {taken} taken, {void} void")


@app.command(epilog="Example: sekisho issue show lamps.batch 24:0a:c4:00:00:01")
def show(batch: BatchFile, device: Which, as_json: Json = False) -> None:
    """Show one device of a batch. Nothing secret, no passphrase."""
    found = issuing.load(batch)
    record = {**found.header.__dict__, **found.find(device).public()}
    if as_json:
        typer.echo(json.dumps(record, indent=2))
        return
    for name, value in record.items():
        typer.echo(f"{name.replace('_', ' ')}: {'' if value is None else value}")


@app.command(epilog="Example: sekisho issue take lamps.batch --count 10 --out devices")
def take(
    batch: BatchFile,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the folders of the devices go, one each.")],
    count: Annotated[int, typer.Option("-n", "--count", metavar="N", min=1, help="How many.")] = 1,
    mac: Annotated[
        list[str] | None, typer.Option(metavar="MAC", help="Chip of the device, if known; may be repeated.")
    ] = None,
    layout_name: Annotated[
        str, typer.Option("--layout", metavar="NAME|CSV", help="Layout, for the size of the NVS partition.")
    ] = "4MiB",
    group_key: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Group whose encrypted payloads it reads (release group-key); repeatable."),
    ] = None,
    passphrase_fd: PassphraseFd = None,
    as_json: Json = False,
) -> None:
    """Give out identities: per device a folder with NVS image, issuing record, and secrets for label and server.

    The batch forgets these secrets in the same step; nothing gives them out again.
    """
    if mac and len(mac) > count:
        raise ToolError("COUNT", f"{len(mac)} chips are named for {count} devices.")
    size = layout.load(layout_name)["nvs"].size
    groups = [packing.read_group_key(path).kek for path in group_key or ()]
    check_writable(out)
    secret = passphrase(batch, passphrase_fd)
    with issuing.unlock(batch, secret) as opened:
        given = opened.take(count, mac or [])
    folders = []
    for one in given:
        folder = out / one.record.id
        issued.write(folder, issued.record_of(one), one, issued.nvs_image(issued.entries(one, groups), size))
        folders.append(str(folder))
    if as_json:
        typer.echo(json.dumps({"folders": folders}, indent=2))
        return
    for name in folders:
        typer.echo(f"wrote {name}")


def check_writable(out: Path) -> None:
    """Find out that nothing can be written *before* an identity is used up for it."""
    probe = out / ".probe"
    write_atomic(probe, b"")
    probe.unlink()


@app.command(epilog="Example: sekisho issue bind lamps.batch 7 24:0a:c4:00:00:01 --folder devices/ID")
def bind(
    batch: BatchFile,
    device: Which,
    mac: Annotated[str, typer.Argument(metavar="MAC", help="The chip's MAC address (esptool read-mac).")],
    folder: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The device's folder, whose record is brought up to date.")
    ] = None,
    passphrase_fd: PassphraseFd = None,
) -> None:
    """Bind a logical id to a physical one, for good."""
    record = issued.read_record(folder) if folder else None
    with issuing.unlock(batch, passphrase(batch, passphrase_fd)) as opened:
        found = opened.batch.find(device)
        if record and record.id != found.id:
            raise ToolError("RECORD", f"{folder} belongs to {record.id}, not to {found.id}.")
        opened.bind(found, mac)
    if record and folder:
        write_atomic(folder / issued.RECORD, issued.bound(record, mac).to_json())
    typer.echo(f"{found.id} is the chip {found.physical}.")


@app.command(epilog="Example: sekisho issue void lamps.batch 7 --reason 'solder bridge, scrapped'")
def void(
    batch: BatchFile,
    device: Which,
    reason: Annotated[str, typer.Option(help="Why, in words, for the log.")],
    passphrase_fd: PassphraseFd = None,
) -> None:
    """Take an identity out of use for ever."""
    with issuing.unlock(batch, passphrase(batch, passphrase_fd)) as opened:
        found = opened.batch.find(device)
        opened.void(found, reason)
    typer.echo(f"{found.id} is void.")


@app.command(epilog="Example: sekisho issue kek lamps.batch 7 --out lamp-7.kek")
def kek(
    batch: BatchFile,
    device: Which,
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where the 16 bytes go, readable by you alone.")],
    passphrase_fd: PassphraseFd = None,
) -> None:
    """Write a device's key-encryption key to a file, for releases that are encrypted to it."""
    if out.exists():
        raise ToolError("FILE_EXISTS", f"{out} exists already; name another file.")
    with issuing.unlock(batch, passphrase(batch, passphrase_fd)) as opened:
        found = opened.batch.find(device)
        write_atomic(out, opened.kek(found), mode=0o600)
    typer.echo(f"Wrote {out}; delete it when the release is made.")


@app.command("labels", epilog="Example: sekisho issue labels devices/* --pdf labels.pdf")
def labels_(
    folders: Folders,
    pdf: Annotated[Path | None, typer.Option(metavar="FILE", help="A sheet of A4 pages, 3 by 8 labels each.")] = None,
    png: Annotated[bool, typer.Option("--png", help="label.png in each folder.")] = False,
    without_secret: Annotated[
        bool, typer.Option("--without-secret", help="Leave the console secret out (for the carton, for a reprint).")
    ] = False,
) -> None:
    """Make labels: QR code and text with logical id, physical id and first console secret."""
    if pdf is None and not png:
        raise ToolError("USAGE", "Say what to make: --pdf FILE, --png, or both.")
    made = []
    for folder in folders:
        console = None if without_secret else issued.read_secrets(folder)["console"]
        made.append(labels.of(issued.read_record(folder), console))
    pictures = [labels.png(label) for label in made] if png else []
    if pdf is not None:
        write_atomic(pdf, labels.sheet(made), mode=0o600)
        typer.echo(f"wrote {pdf}")
    for folder, picture in zip(folders, pictures, strict=False):
        typer.echo(f"wrote {write_atomic(folder / 'label.png', picture, mode=0o600)}")
