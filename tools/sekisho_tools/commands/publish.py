"""`sekisho publish`: puts a release, its payloads and key sets into a static directory or onto an update server."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer

from .. import publish as publishing
from ..errors import ToolError
from ._server import CaOption, PasswordOption, UserOption, connect

app = typer.Typer()


@app.command(
    epilog="Example: sekisho publish --to ./site releases/blinker-1.3.suit keyset.cose   "
    "or: sekisho publish --server https://updates.example.com --user alice releases/blinker-1.3.suit",
    help="Put a release, its payloads and key sets, or key sets alone, where devices find them: a static directory, "
    "or an update server, which gives them to the devices that they are assigned to (`assign`, `rollout`).",
)
def publish(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Release (.suit), payloads, key sets.")],
    to: Annotated[
        Path | None, typer.Option("--to", metavar="DIR", help="Directory of the web site; made if missing.")
    ] = None,
    class_id: Annotated[
        UUID | None, typer.Option("--class", metavar="UUID", help="Product class; default: the one the release names.")
    ] = None,
    server: Annotated[
        str | None,
        typer.Option("--server", metavar="URL", help="Update server instead of --to; default SEKISHO_SERVER."),
    ] = None,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="At a server: name of the distribution set.")] = None,
    user: UserOption = None,
    password_file: PasswordOption = None,
    ca: CaOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was written as JSON.")] = False,
) -> None:
    """Parse the options, publish, print what was written."""
    if to is not None and server is not None:
        raise ToolError(
            "USAGE", "Give --to or --server, not both; a release that is out in both ways is published twice."
        )
    if to is None and not server and not os.environ.get("SEKISHO_SERVER"):
        raise ToolError("USAGE", "Name a directory with --to, or an update server with --server or SEKISHO_SERVER.")
    if to is None:
        from .. import fleet

        made = fleet.publish_to(connect(server, user, password_file, ca), files, name)
        if as_json:
            typer.echo(json.dumps(made))
        else:
            typer.echo(
                f"{made['name']} {made['version']} is on the server as distribution set {made['distributionSet']}"
            )
        return
    done = publishing.publish(to, class_id, files)
    if as_json:
        typer.echo(json.dumps({"written": [str(path) for path in done.written]}))
    else:
        for path in done.written:
            typer.echo(f"wrote {path}")
