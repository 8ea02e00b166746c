"""`sekisho events`: the event logs of devices."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer

from .. import events
from ..errors import ToolError
from ..files import read_file
from .keys import Json

app = typer.Typer(no_args_is_help=True)


def _head(text: str | None) -> tuple[int, bytes] | None:
    if text is None:
        return None
    number, _, digest = text.partition(":")
    try:
        return int(number), bytes.fromhex(digest)
    except ValueError as error:
        raise ToolError("LOG", "A head is NUMBER:HASH, as `sekisho report verify` prints it.") from error


@app.command(epilog="Example: sekisho events verify lamp.events --head 41:9f2c...")
def verify(
    file: Annotated[Path, typer.Argument(metavar="LOG", help="What a device exported.")],
    device: Annotated[UUID | None, typer.Option(help="It must be the log of this device.")] = None,
    head: Annotated[str | None, typer.Option(metavar="NUMBER:HASH", help="Entry that a signed report names.")] = None,
    as_json: Json = False,
) -> None:
    """Show a log after checking that no entry was removed, changed or moved."""
    found = events.verify(read_file(file, "event log", events.MAX_EXPORT), device, _head(head))
    if as_json:
        rows = [{**vars(one), "detail": one.detail.hex(), "hash": one.hash.hex()} for one in found]
        typer.echo(json.dumps(rows, indent=2))
        return
    for one in found:
        typer.echo(one.line())
    if found:
        typer.echo(f"The chain holds. Head: {found[-1].number}:{found[-1].hash.hex()}")
    if head is None:
        typer.echo("Only the head in a signed report shows that the end was not cut off (--head).")


@app.command("list", epilog="Example: sekisho events list")
def list_() -> None:
    """List the events that devices write down."""
    for number, (name, meaning) in events.catalogue().items():
        typer.echo(f"{number:3} {name:16} {meaning}")
