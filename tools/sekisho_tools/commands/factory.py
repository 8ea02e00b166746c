"""`sekisho factory`: the production line."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from .. import cli, efuse_plan, factory, first_contact, flasher, flashimage, imagefile, issued, issuing, keys
from .. import register as registering
from .. import report as reports
from ..errors import ToolError
from ..files import read_file, write_atomic
from ._server import CaOption, ServerOption, UserOption
from .issue import Folders, passphrase
from .keys import Json, PassphraseFd

app = typer.Typer(no_args_is_help=True)

PasswordFd = Annotated[
    int | None,
    typer.Option(
        "--password-fd",
        metavar="N",
        min=0,
        help="Read the password from this file descriptor; default SEKISHO_PASSWORD.",
    ),
]
SecureBoot = Annotated[
    Path | None,
    typer.Option("--secure-boot-key", metavar="PEM", help="Secure boot is planned: this key must have signed it all."),
]


@app.callback()
def _group() -> None:
    """The production line."""


def connect(url: str | None, user: str | None, descriptor: int | None, ca: Path | None) -> registering.Server:
    """The server: what was given, else SEKISHO_SERVER and SEKISHO_USER. The password is read from the descriptor, else
    SEKISHO_PASSWORD, else asked for. Raises ToolError SERVER or LOGIN when something is missing."""
    url, user = url or os.environ.get("SEKISHO_SERVER"), user or os.environ.get("SEKISHO_USER")
    if not url:
        raise ToolError("SERVER", "Name the server with --server or SEKISHO_SERVER.")
    if not user:
        raise ToolError("LOGIN", "Name the user who may create targets with --user or SEKISHO_USER.")
    password = os.environ.get("SEKISHO_PASSWORD")
    if descriptor is not None or password is None:
        password = keys.Passphrases(descriptor).get(f"user {user} at {url}").decode()
    return registering.Server(url, user, password, str(ca) if ca else None)


@app.command(epilog="Example: sekisho factory register devices/* --server https://updates.example.com --user factory")
def register(
    folders: Folders,
    server: ServerOption = None,
    user: UserOption = None,
    password_fd: PasswordFd = None,
    ca: CaOption = None,
) -> None:
    """Tell the update server of devices: logical id as controllerId, enrolment token as securityToken."""
    devices = [(issued.read_record(folder), issued.read_secrets(folder)["token"]) for folder in folders]
    new = registering.register(connect(server, user, password_fd, ca), devices)
    typer.echo(f"{new} registered, {len(devices) - new} known already.")


@app.command(epilog="Example: sekisho factory check flash.bin --keyset keyset-1.cose --development-key keys/dev.pub")
def check(
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="A flash image (see `image build`).")],
    environment: Annotated[
        Literal["release", "development"], typer.Option(help="What it is to be shipped as.")
    ] = "release",
    keyset: Annotated[Path | None, typer.Option(metavar="FILE", help="The key set that must be in the image.")] = None,
    development_key: Annotated[
        list[str] | None, typer.Option(metavar="KEY", help="A .pub file whose key must not be in it; may be repeated.")
    ] = None,
    device: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of the device whose identity must be in it.")
    ] = None,
    secure_boot: SecureBoot = None,
    as_json: Json = False,
) -> None:
    """Refuse an image that must not leave the factory, and name every reason."""
    statements = [keys.load_statement(name) for name in development_key or ()]
    wanted = factory.Wanted(
        environment=environment,
        keyset=read_file(keyset, "key set", 1 << 16) if keyset else None,
        development_keys=[(statement.label, statement.public_key) for statement in statements],
        record=issued.read_record(device) if device else None,
        secure_boot=secure_boot,
    )
    found = factory.check(read_file(image, "image"), wanted)
    if as_json:
        shown = [{"code": one.code, "sentence": one.sentence} for one in found.findings]
        more = {"chip": found.chip, "mode": found.mode, "environment": found.environment, "device": found.device}
        typer.echo(json.dumps({"fit": found.fit, "findings": shown, **more}, indent=2))
        if not found.fit:
            raise typer.Exit(1)
        return
    for finding in found.findings:
        cli.show_error(ToolError(finding.code, finding.sentence))
    if not found.fit:
        raise typer.Exit(1)
    what = f"{found.mode} engine, {found.chip}, key set version {', '.join(str(n) for n, _ in found.keysets)}"
    typer.echo(f"{image}: fit to be shipped as {environment} ({what}).")


@app.command(epilog="Example: sekisho factory image flash.bin --device devices/ID")
def image(
    common: Annotated[Path, typer.Argument(metavar="IMAGE", help="The common flash image (see `image build`).")],
    device: Annotated[list[Path], typer.Option(metavar="DIR", help="Folder of a device; may be repeated.")],
) -> None:
    """Make the flash image of each device: the common image with the device's identity in its NVS."""
    data = read_file(common, "image")
    made = [
        (folder, *factory.personalise(data, issued.read_record(folder), read_file(folder / issued.NVS, "NVS image")))
        for folder in device
    ]
    for folder, content, record in made:
        path = write_atomic(folder / "flash.bin", content, mode=0o600)
        write_atomic(folder / issued.RECORD, record.to_json())
        typer.echo(f"wrote {path}")
        typer.echo(f"  {flashimage.esptool_command(record.chip or 'esp32', path)}")


@app.command(
    epilog="Example: sekisho factory flash flash.bin --port /dev/ttyUSB0 --device devices/ID --batch lamps.batch"
)
def flash(
    common: Annotated[Path, typer.Argument(metavar="IMAGE", help="The common flash image, or a whole one.")],
    port: Annotated[str, typer.Option(metavar="PORT", help="Serial port of the board.")],
    device: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of the device that the board is to become.")
    ] = None,
    batch: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Its batch, in which the chip is bound to it.")
    ] = None,
    environment: Annotated[
        Literal["release", "development"], typer.Option(help="What the image is to be shipped as (see `check`).")
    ] = "release",
    read_back: Annotated[
        Literal["stub", "rom", "none"],
        typer.Option(help="How to read back what was written: fast with esptool's stub, through the ROM, not at all."),
    ] = "stub",
    secure_boot: SecureBoot = None,
    passphrase_fd: PassphraseFd = None,
) -> None:
    """Check an image, write it to a board with esptool, verify it, read it back; bind the board to its identity."""
    data = read_file(common, "image")
    record = issued.read_record(device) if device else None
    if batch and not record:
        raise ToolError("USAGE", "--batch binds the device that --device names; give both.")
    if device and record:
        data, record = factory.personalise(data, record, read_file(device / issued.NVS, "NVS image"))
    found = factory.check(data, factory.Wanted(environment=environment, record=record, secure_boot=secure_boot))
    for finding in found.findings:
        cli.show_error(ToolError(finding.code, finding.sentence))
    if not found.fit:
        raise ToolError("NOT_FIT", f"{common} must not be shipped as {environment}; nothing was written.")
    secret = passphrase(batch, passphrase_fd) if batch else b""
    board = flasher.Port(port, found.chip or imagefile.CHIPS["esp32"].name)
    mac = flasher.read_mac(board)
    if record and record.physical not in (None, mac):
        raise ToolError("PHYSICAL_ID", f"The board on {port} is {mac}, but the device belongs to {record.physical}.")
    if batch and record:
        with issuing.unlock(batch, secret) as opened:
            opened.bind(opened.batch.find(record.id), mac)
    flasher.flash(board, data, typer.echo, read_back=read_back)
    if device and record:
        write_atomic(device / issued.RECORD, issued.bound(record, mac).to_json())
    typer.echo(f"{mac} is {record.id if record else 'flashed'}.")


@app.command(
    "efuse-plan",
    epilog="Example: sekisho factory efuse-plan --chip esp32s3 --secure-boot-key secure-boot.pem "
    "--flash-key flash-key.bin --out plan.sh",
)
def efuse_plan_(
    chip: Annotated[
        Literal["esp32", "esp32s3", "esp32c3", "esp32c6"], typer.Option(help="Which chip the plan is for.")
    ],
    secure_boot_key: Annotated[
        Path | None, typer.Option(metavar="PEM", help="Secure boot v2: the RSA-3072 key, public half or both.")
    ] = None,
    flash_key: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Flash encryption: where this device's key is, or will be made.")
    ] = None,
    secure_version: Annotated[
        int, typer.Option(metavar="N", min=0, help="Anti-rollback: lowest secure version that may start.")
    ] = 0,
    jtag: Annotated[Literal["off", "keep"], typer.Option(help="The debugging port.")] = "off",
    download: Annotated[
        Literal["secure", "off", "keep"], typer.Option(help="Download mode; the ESP32 has no secure one, so off.")
    ] = "secure",
    port: Annotated[
        str | None, typer.Option(metavar="PORT", help="Look at the board on this port (only read) and plan the rest.")
    ] = None,
    summary: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The same from a file: espefuse summary --format json.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where the script goes; printed if left out.")
    ] = None,
) -> None:
    """Write the espefuse commands that make a board a product, rehearsed on a virtual chip. Burns nothing."""
    wishes = efuse_plan.Wishes(
        secure_boot=str(secure_boot_key) if secure_boot_key else None,
        flash_key=str(flash_key) if flash_key else None,
        secure_version=secure_version,
        jtag_off=jtag == "off",
        download=download,
    )
    if secure_boot_key:
        read_file(secure_boot_key, "secure boot key", 1 << 16)
    steps = efuse_plan.plan(chip, wishes)
    efuse_plan.rehearse(chip, steps, wishes)
    mac = None
    if port or summary:
        fuses, mac = (
            efuse_plan.read_chip(chip, port)
            if port
            else efuse_plan.read_summary(read_file(summary or Path(), "eFuse summary", efuse_plan.MAX_SUMMARY))
        )
        efuse_plan.check_revision(chip, wishes, fuses)
        steps = efuse_plan.missing(steps, fuses)
    text = efuse_plan.script(chip, steps, wishes, mac)
    if out is None:
        typer.echo(text, nl=False)
        return
    write_atomic(out, text)
    typer.echo(f"Wrote {out}: {len(steps)} steps, none of which can be undone. Read it before you run it.")


def _hex(text: str | None, what: str) -> bytes | None:
    try:
        return None if text is None else bytes.fromhex(text)
    except ValueError as error:
        raise ToolError("USAGE", f"A {what} is given in hex digits.") from error


@app.command(epilog="Example: sekisho factory attest devices/ID first.report --nonce 0011223344556677")
def attest(
    folder: Annotated[Path, typer.Argument(metavar="DEVICE", help="Folder of the device, with its record.json.")],
    file: Annotated[Path, typer.Argument(metavar="REPORT", help="The first report that it made, for your nonce.")],
    nonce: Annotated[str, typer.Option(metavar="HEX", help="The fresh nonce that it was asked with.")],
    release: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="A release that it may have updated to; may be repeated.")
    ] = None,
    device_key: Annotated[
        str | None, typer.Option(metavar="HEX", help="Public key of a device that made its key itself; noted for good.")
    ] = None,
) -> None:
    """First contact: is this the device that left the factory? Exit code 1 where anything is wrong."""
    record = issued.read_record(folder)
    verdict, known = first_contact.attest(
        read_file(file, "report", reports.MAX_REPORT),
        record,
        _hex(nonce, "nonce") or b"",
        [read_file(path, "release", 1 << 20) for path in release or ()],
        _hex(device_key, "public key"),
    )
    for one in verdict.findings:
        typer.echo(f"{'WRONG' if one.bad else 'note'}: {one.text}")
    if not verdict.good:
        raise typer.Exit(1)
    if known != record:
        write_atomic((folder / issued.RECORD) if folder.is_dir() else folder, known.to_json())
    typer.echo(f"{record.id} is the device that left the factory, on the chip {record.physical}.")
