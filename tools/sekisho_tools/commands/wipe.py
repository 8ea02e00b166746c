"""`sekisho wipe`: what became of devices whose data was to be erased."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from .. import issued, wipe
from .. import line as lines
from ..errors import ToolError
from ..files import read_file, write_atomic
from .keys import Json
from .report import _key

app = typer.Typer(no_args_is_help=True)


@app.callback()
def _group() -> None:
    """The last statements of devices that were wiped, transferred or decommissioned."""


@app.command(epilog="Example: sekisho wipe verify console.txt --record issued/7e0c/record.json")
def verify(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A statement, or what the console printed of one.")],
    record: Annotated[Path | None, typer.Option(help="Issuing record of the device.")] = None,
    device_key: Annotated[str | None, typer.Option("--device-key", metavar="HEX", help="Its public key.")] = None,
    order: Annotated[Path | None, typer.Option(help="The signed order; the statement must be about it.")] = None,
    as_json: Json = False,
) -> None:
    """Check the last statement of a device; exit code 1 where it only promises, and was not able to say: done."""
    known = issued.read_record(record) if record else None
    found = wipe.verify(wipe.read(read_file(file, "statement", 1 << 20)), _key(device_key, known))
    if order is not None:
        from .. import order as orders

        signed = orders.parse(read_file(order, "order", 1 << 16))
        if isinstance(signed, orders.Order) or signed.name != found.order:
            raise ToolError("ORDER", "The statement is about another order.")
    if as_json:
        typer.echo(json.dumps({"done": found.done, **found.describe()}, indent=2))
    else:
        for name, value in found.describe().items():
            typer.echo(f"{name:16} {value}")
        typer.echo("The signature is good.")
    if not found.done:
        raise typer.Exit(1)


@app.command(epilog="Example: sekisho wipe fetch --port /dev/ttyUSB0 --out lamp.statement")
def fetch(
    port: Annotated[str, typer.Option("--port", metavar="PORT", help="Serial port of a device: /dev/ttyUSB0.")],
    out: Annotated[Path, typer.Option("--out", help="File to write.")] = Path("statement.cose"),
    baud: Annotated[int, typer.Option(min=300, help="Bits per second.")] = lines.BAUD,
) -> None:
    """Get the last statement of a wiped device that works again, over its serial line."""
    with lines.Line(lines.open_port(port, baud)) as line:
        line.hello()
        content = line.read(lines.device.STATEMENT)
    if not content:
        raise ToolError("STATEMENT", "The device has none: it was never wiped, or its key was gone.")
    write_atomic(out, content)
    typer.echo(f"Wrote {out}.")
