"""`sekisho serve`: a static directory over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()


@app.command(
    epilog="Example: sekisho serve ./site --host 0.0.0.0 --port 8000",
    help="Serve a directory made by `publish` to devices, with ranges and ETags, until Ctrl-C.",
)
def serve(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Directory made by `sekisho publish --to DIR`.")],
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 is every one.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8000,
) -> None:
    """Parse the options, say where the server listens, and serve."""
    from ..serve import StaticServer  # here, because a web framework is slow to import for every other command

    server = StaticServer(directory, host, port, access_log=True)
    typer.echo(f"Serving {server.root} at {server.url}/ (Ctrl-C stops)")
    server.run()
    typer.echo("Stopped.")
