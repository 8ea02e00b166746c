"""`sekisho publish`: puts a release, its payloads and key sets into a static directory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer

from .. import publish as publishing

app = typer.Typer()


@app.command(
    epilog="Example: sekisho publish --to ./site releases/blinker-1.3.suit keyset.cose",
    help="Put a release, its payloads and key sets where devices find them (see `serve`).",
)
def publish(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Release (.suit), payloads, key sets.")],
    to: Annotated[Path, typer.Option("--to", metavar="DIR", help="Directory of the web site; made if missing.")],
    class_id: Annotated[
        UUID | None, typer.Option("--class", metavar="UUID", help="Product class; default: the one the release names.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the written files as JSON.")] = False,
) -> None:
    """Parse the options, publish, print what was written."""
    done = publishing.publish(to, class_id, files)
    if as_json:
        typer.echo(json.dumps({"written": [str(path) for path in done.written]}))
    else:
        for path in done.written:
            typer.echo(f"wrote {path}")
