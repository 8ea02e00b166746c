"""`sekisho order`: what an operator has devices do."""

from __future__ import annotations

import json
import os
import time
from datetime import datetime
from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer

from .. import cose, keys, packing, settings
from .. import line as lines
from .. import order as orders
from ..errors import ToolError
from ..files import read_file, write_atomic
from .keys import Json

app = typer.Typer(no_args_is_help=True)

OrderFile = Annotated[Path, typer.Argument(metavar="ORDER", help="An order, signed or not.")]
_MAX = 1 << 16


def _time(text: str | None, what: str) -> int | None:
    """Seconds since 1970 of ``30d``, ``12h``, ``90m`` from now, of an ISO 8601 time, or of such seconds."""
    if text is None:
        return None
    units = {"d": 86_400, "h": 3_600, "m": 60}
    try:
        if text[-1:] in units and text[:-1].isdigit():
            return int(time.time()) + int(text[:-1]) * units[text[-1]]
        return int(text) if text.isdigit() else int(datetime.fromisoformat(text).astimezone().timestamp())
    except (ValueError, OverflowError) as error:
        raise ToolError("ORDER", f"{what} {text!r} is no time: use 30d, 12h, 90m or 2027-01-31T12:00+00:00.") from error


@app.command(
    epilog="Example: sekisho order create settings poll=600 --group north --reason 'quiet nights' --out poll.order"
)
def create(
    action: Annotated[str, typer.Argument(metavar="ACTION", help="settings, approve, refuse, postpone, rollback, ...")],
    values: Annotated[list[str] | None, typer.Argument(metavar="[VALUE]...", help="What the action takes.")] = None,
    device: Annotated[UUID | None, typer.Option(help="For this device (its id).")] = None,
    product: Annotated[UUID | None, typer.Option("--class", help="For every device of this product class.")] = None,
    group: Annotated[str | None, typer.Option(help="For every device whose setting `groups` has this name.")] = None,
    nonce: Annotated[int | None, typer.Option(min=1, help="The nonce that the device shows, for one use.")] = None,
    counter: Annotated[int | None, typer.Option(min=1, help="Larger than in any order of this key before.")] = None,
    expires: Annotated[str, typer.Option(help="Not obeyed after this time.")] = "30d",
    until: Annotated[str | None, typer.Option(help="With postpone: not before this time.")] = None,
    attach: Annotated[Path | None, typer.Option(help="With put-back: the backup; give it to `sign` as well.")] = None,
    backup_key: Annotated[
        Path | None,
        typer.Option("--backup-key", help="With backup, put-back: 32 bytes; made if there are none. Needs --kek."),
    ] = None,
    kek: Annotated[
        Path | None, typer.Option(help="Key-encryption key of the device (`issue kek`) or of a group of its.")
    ] = None,
    passphrase_fd: Annotated[
        int | None,
        typer.Option("--passphrase-fd", metavar="N", min=0, help="Passphrase of a backup from this descriptor."),
    ] = None,
    reason: Annotated[str | None, typer.Option(help="Why, for those who read the log.")] = None,
    out: Annotated[Path, typer.Option("--out", help="File to write.")] = Path("order.cbor"),
) -> None:
    """Put an order together, to be signed by `order sign`, here or on another machine."""
    if action in orders.KEYED:
        secret = _backup_secret(backup_key, passphrase_fd, fresh=action == "backup")
        sealed = settings.sealed(read_file(attach, "backup", _MAX)) if attach else None
        wrapping = packing.read_group_key(kek).kek if kek else None
        argument = orders.backup_argument(action, secret, wrapping, sealed)
    else:
        argument = orders.argument(action, values or [], _time(until, "--until"))
    made = orders.create(
        action,
        orders.Address(device, product, group),
        argument=argument,
        nonce=nonce,
        counter=counter,
        expires=_time(expires, "--expires"),
        reason=reason,
    )
    write_atomic(out, made.encode())
    typer.echo(f"Wrote {out}, not signed yet.")


def _backup_secret(file: Path | None, descriptor: int | None, *, fresh: bool) -> bytes | str:
    """The key in *file*, made now where it may be and is not there; else a passphrase, which stands in the order."""
    if file is None:
        return keys.Passphrases(descriptor).get("the backup").decode(errors="replace")
    if fresh and not file.exists():
        write_atomic(file, os.urandom(32), mode=0o600)
    key = read_file(file, "backup key", 64)
    if len(key) != 32:
        raise ToolError("BACKUP", f"{file} has {len(key)} bytes; a key has 32.")
    return key


@app.command(epilog="Example: sekisho order sign poll.order --key keys/operator-1.key --out poll.cose")
def sign(
    order: OrderFile,
    key: Annotated[str, typer.Option("--key", metavar="KEY", help="An operator's .key file or pkcs11: URI.")],
    out: Annotated[Path, typer.Option("--out", help="File to write.")] = Path("order.cose"),
    attach: Annotated[Path | None, typer.Option(help="The backup that an order `put-back` names.")] = None,
    log: Annotated[Path | None, typer.Option(help="Signing log; beside the key if left out.")] = None,
    passphrase_fd: Annotated[
        int | None,
        typer.Option("--passphrase-fd", metavar="N", min=0, help="Read the passphrase from this descriptor."),
    ] = None,
) -> None:
    """Sign an order. Devices obey it if the key set gives the key the right for it."""
    payload = read_file(order, "order", _MAX)
    told = orders.parse_payload(payload)
    signer = keys.open_signer(key, keys.Passphrases(passphrase_fd), role="operator")
    sealed = settings.sealed(read_file(attach, "backup", _MAX)) if attach else b""
    document = orders.sign(payload, signer, log or keys.log_path(key), sealed)
    write_atomic(out, document)
    typer.echo(f"Signed {told.action} with {signer.key_id.hex()}: {out}.")


@app.command(epilog="Example: sekisho order inspect poll.cose --key-set keyset.cose")
def inspect(
    order: OrderFile,
    key_set: Annotated[Path | None, typer.Option("--key-set", help="Also ask whether its signer may give it.")] = None,
    as_json: Json = False,
) -> None:
    """Show what an order says, and with a key set whether devices would take it from its signer."""
    document = read_file(order, "order", _MAX)
    parsed = orders.parse(document)
    told = parsed.order if isinstance(parsed, orders.Signed) else parsed
    shown = orders.describe(told)
    if isinstance(parsed, orders.Signed):
        shown["signed by"] = parsed.key_id.hex() if parsed.key_id else "?"
        shown["name in results"] = parsed.name
    if key_set is not None:
        _, granted = orders.verify(document, read_file(key_set, "key set", _MAX))
        shown["signature"] = f"good, by operator key {cose.key_id(granted.public_key).hex()} that has the right"
    if as_json:
        typer.echo(json.dumps(shown, indent=2))
        return
    for name, value in shown.items():
        typer.echo(f"{name:16} {value}")


Port = Annotated[str | None, typer.Option("--port", metavar="PORT", help="Serial port of a device: /dev/ttyUSB0.")]
Baud = Annotated[int, typer.Option(min=300, help="Bits per second of the port.")]


@app.command(epilog="Example: sekisho order send poll.cose --site site --device 7e0c5a9e-4a0e-5d0b-9a75-0f0e5a0f9d0c")
def send(
    order: OrderFile,
    site: Annotated[Path | None, typer.Option(help="Static directory that devices ask (see `publish`).")] = None,
    device: Annotated[
        list[UUID] | None, typer.Option(help="Device that is to find it; may be given several times.")
    ] = None,
    port: Port = None,
    baud: Baud = lines.BAUD,
    report: Annotated[
        Path | None, typer.Option(help="With --port and an order `report`: write the signed report here.")
    ] = None,
    log: Annotated[Path | None, typer.Option(help="With --report: write the event log here.")] = None,
    backup: Annotated[
        Path | None, typer.Option(help="With --port and an order `backup`: write the sealed settings here.")
    ] = None,
) -> None:
    """Hand over a signed order: to the static directory that devices ask, or to a device at a serial port."""
    document = read_file(order, "order", _MAX)
    if (port is None) == (site is None or not device):
        raise ToolError("ORDER", "Say where to: --site with --device, or --port.")
    if port is None:
        for one in device or []:
            typer.echo(f"Wrote {orders.send(document, site or Path(), one)}.")
        return
    signed = orders.parse(document)
    if isinstance(signed, orders.Order):
        raise ToolError("COSE", "This order is not signed yet.")
    with lines.Line(lines.open_port(port, baud)) as line:
        told = line.hello()
        line.order(document)
        typer.echo(f"{told.device}: obeyed.")
        for target, what in ((report, lines.device.REPORT), (log, lines.device.LOG), (backup, lines.device.BACKUP)):
            if target is not None:
                write_atomic(target, line.read(what))
                typer.echo(f"Wrote {target}.")


@app.command(epilog="Example: sekisho order nonce --port /dev/ttyUSB0")
def nonce(
    port: Annotated[str, typer.Option("--port", metavar="PORT", help="Serial port of a device: /dev/ttyUSB0.")],
    baud: Baud = lines.BAUD,
) -> None:
    """Ask a device at a serial port for the number that an order to it may carry, once."""
    with lines.Line(lines.open_port(port, baud)) as line:
        told = line.hello()
        typer.echo(f"{told.device} {line.nonce()}")


@app.command(epilog="Example: sekisho order status poll.cose --report lamp.report")
def status(
    order: OrderFile,
    report: Annotated[Path, typer.Option(help="A report of the device (verify it first).")],
) -> None:
    """Say what became of an order, by the report of a device."""
    from .. import report as reports

    told = reports.parse(read_file(report, "report", reports.MAX_REPORT))
    typer.echo(f"{told.device}: {orders.status(read_file(order, 'order', _MAX), told.results)}")
