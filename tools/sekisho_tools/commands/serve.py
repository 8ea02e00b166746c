"""`sekisho serve`: a static directory, or the embedded update server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import ToolError

app = typer.Typer()


@app.command(
    epilog="Example: sekisho serve ./site --host 0.0.0.0   (static)   "
    "sekisho serve --data ./fleet --host 0.0.0.0 --tls-cert server.pem --tls-key server.key   (update server)",
    help="Serve updates to devices until Ctrl-C: a directory made by `publish --to`, or with --data the update server "
    "with device management, rollouts and a web page (see docs/server.md).",
)
def serve(
    directory: Annotated[
        Path | None, typer.Argument(metavar="DIR", help="Directory made by `sekisho publish --to DIR`.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Run the update server; its database is here, made if missing.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 is every one.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8000,
    tls_cert: Annotated[
        Path | None, typer.Option(metavar="FILE", help="With --data: certificate chain (PEM), for HTTPS.")
    ] = None,
    tls_key: Annotated[
        str | None,
        typer.Option(
            metavar="KEY",
            help="Private key of the certificate: a PEM file, or pkcs11:token=LABEL;object=LABEL?module-path=FILE.",
        ),
    ] = None,
    tls_pin_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="File with the token's PIN; default SEKISHO_TLS_PIN.")
    ] = None,
) -> None:
    """Parse the options, say where the server listens, and serve."""
    if (directory is None) == (data is None):
        raise ToolError("USAGE", "Name a directory for static serving, or --data DIR for the update server.")
    if data is not None:
        from ..server import operators, run  # here, because a web framework is slow to import for every other command

        embedded = run.EmbeddedServer(data, host, port, tls_cert, tls_key, tls_pin_file=tls_pin_file)
        run.log_lines()
        typer.echo(f"Update server for {data} at {embedded.url}/ (Ctrl-C stops)")
        if not embedded.store.look(operators.everybody):
            typer.echo(f"Nobody can log in yet; make the first account with: sekisho admin create NAME --data {data}")
        embedded.run()
    elif directory is not None:
        if (tls_cert, tls_key, tls_pin_file) != (None, None, None):
            raise ToolError("USAGE", "--tls-cert and --tls-key need --data; put a proxy before a static directory.")
        from ..serve import StaticServer

        server = StaticServer(directory, host, port, access_log=True)
        typer.echo(f"Serving {server.root} at {server.url}/ (Ctrl-C stops)")
        server.run()
    typer.echo("Stopped.")
