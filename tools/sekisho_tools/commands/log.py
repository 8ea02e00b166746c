"""`sekisho log`: check logs: the desk's signing log, and the event log of a device."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer

from .. import events, signlog
from ..errors import ToolError
from ..files import read_file
from ..text import printable
from .events import verify as verify_events
from .keys import Json

app = typer.Typer(no_args_is_help=True)


@app.command(epilog="Example: sekisho log verify keys/signing-log.jsonl")
def verify(
    path: Annotated[
        Path, typer.Argument(metavar="LOG", help="A signing log, or the event log that a device exported.")
    ] = Path("keys") / signlog.NAME,
    head: Annotated[
        str | None,
        typer.Option(
            metavar="HEAD", help="Must be in the log: SHA-256 noted earlier; of an event log NUMBER:HASH of a report."
        ),
    ] = None,
    device: Annotated[UUID | None, typer.Option(help="Of an event log: it must be this device's.")] = None,
    as_json: Json = False,
) -> None:
    """Check the chain of a log and print it: entries that were removed, changed or moved show.

    Which kind of log it is shows in its first bytes. Note the head of a signing log; that of an event log stands in the
    signed reports of its device. Only a head shows that the end was not cut off.
    """
    data = read_file(path, "log", signlog.MAX_LOG)
    if events.is_log(data):
        verify_events(path, device, head, as_json)
        return
    if device is not None:
        raise ToolError("LOG", f"{path} is no event log of a device; --device is for those.")
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
