"""`sekisho log`: look at the signing log."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from .. import signlog
from ..text import printable
from .keys import Json

app = typer.Typer(no_args_is_help=True)


@app.command(epilog="Example: sekisho log verify keys/signing-log.jsonl")
def verify(
    path: Annotated[Path, typer.Argument(metavar="LOG", help="A signing log.")] = Path("keys") / signlog.NAME,
    head: Annotated[
        str | None, typer.Option(metavar="SHA256", help="Head noted earlier: the log must still contain it.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Check the chain of a signing log and print it; note the head it prints, to notice a log that was cut off."""
    entries = signlog.verify(path, head)
    last = entries[-1].hash() if entries else signlog.START
    if as_json:
        typer.echo(json.dumps({"head": last, "entries": [asdict(entry) for entry in entries]}, indent=2))
        return
    for entry in entries:
        key = f"{entry.role} key {entry.key_id or '(made on the device)'} ({entry.environment})"
        typer.echo(printable(f"{entry.number:4} {entry.time} {entry.who}: {entry.what}"))
        typer.echo(printable(f"     {key}, SHA-256 {entry.object}"))
    count = "1 entry" if len(entries) == 1 else f"{len(entries)} entries"
    typer.echo(f"The chain of {count} holds. Head: {last}")
