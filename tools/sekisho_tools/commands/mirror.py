"""`sekisho mirror`: a verified local copy of what a manufacturer publishes."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer

from .. import mirror as mirroring
from ..files import read_file

app = typer.Typer()


@app.command(
    epilog="Example: sekisho mirror https://updates.example.com ./local --class 1492af14-2569-5e48-bf42-9b2d51f2ab45 "
    "--keyset keyset-1.cose --every 3600",
    help="Copy published releases and key sets to a local directory, verified as a device does, and keep them fresh.",
)
def mirror(
    url: Annotated[str, typer.Argument(metavar="URL", help="Base address of the manufacturer's server.")],
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The local copy; serve it with `serve`.")],
    class_id: Annotated[UUID, typer.Option("--class", metavar="UUID", help="Product class.")],
    keyset: Annotated[Path, typer.Option(metavar="FILE", help="A key set that you trust already; newer ones follow.")],
    only_keysets: Annotated[
        bool, typer.Option("--only-keysets", help="Key sets alone: revocations arrive, releases wait for approval.")
    ] = False,
    every: Annotated[
        int | None, typer.Option(metavar="S", min=mirroring.MIN_PAUSE, help="Look again every S seconds, for ever.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON (of one look).")] = False,
) -> None:
    """Parse the options, look once or again and again."""
    known = read_file(keyset, "key set", 1 << 16)
    look = partial(mirroring.mirror, url, directory, class_id, known, only_keysets=only_keysets)
    if every is not None:
        mirroring.keep_fresh(look, every, typer.echo)
        return
    done = look()
    if as_json:
        shown = {"keyset": done.keyset, "sequence": done.sequence, "notes": done.notes}
        typer.echo(json.dumps({"written": [str(path) for path in done.written], **shown}))
        return
    for path in done.written:
        typer.echo(f"wrote {path}")
    for note in done.notes:
        typer.echo(f"note: {note}", err=True)
    offered = "" if done.sequence is None else f", release {done.sequence}"
    typer.echo(f"{directory} is up to date: key set {done.keyset}{offered}.")
