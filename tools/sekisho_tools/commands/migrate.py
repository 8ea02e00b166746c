"""`sekisho migrate`: devices and releases to another server, such as Eclipse hawkBit."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from .. import hawkbit
from ..errors import ToolError
from ._server import CaOption, JsonOption, PasswordOption, ServerOption, UserOption

app = typer.Typer()


@app.command(
    epilog="Example: sekisho migrate --server https://updates.example.com --user alice "
    "--to https://hawkbit.example.com --to-user admin --dry-run",
    help="Copy releases and devices to another update server that speaks hawkBit's management API (docs/scale.md). "
    "Nothing is made twice: a run that broke off is simply repeated.",
)
def migrate(
    to: Annotated[str, typer.Option("--to", metavar="URL", help="The server to move to.")],
    to_user: Annotated[
        str | None, typer.Option(metavar="NAME", help="Operator there; default SEKISHO_TO_USER.")
    ] = None,
    to_password_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="File with the password there; default SEKISHO_TO_PASSWORD.")
    ] = None,
    to_ca: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Authority that signed the certificate there (PEM).")
    ] = None,
    tokens: Annotated[
        Path | None,
        typer.Option(metavar="FILE.csv", help="Tokens that devices have already: controllerId,securityToken."),
    ] = None,
    new_tokens: Annotated[
        Path, typer.Option(metavar="FILE.csv", help="Where tokens are written that devices must be told.")
    ] = Path("new-tokens.csv"),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    server: ServerOption = None,
    user: UserOption = None,
    password_file: PasswordOption = None,
    ca: CaOption = None,
    as_json: JsonOption = False,
) -> None:
    """Move, print what was done."""
    from .. import migrate as moving

    there = hawkbit.credentials(
        to, to_user or os.environ.get("SEKISHO_TO_USER"), to_password_file, "SEKISHO_TO_PASSWORD"
    )
    if new_tokens.exists() and tokens is not None and new_tokens.samefile(tokens):
        raise ToolError(
            "USAGE", "--tokens and --new-tokens are two files: what devices have, and what they must be told."
        )
    source = moving.Patient(*hawkbit.credentials(server, user, password_file), ca)
    known = moving.read_tokens(tokens) if tokens else {}
    say = (lambda _: None) if as_json else (lambda words: typer.echo(words))
    done = moving.Migration(source, moving.Patient(*there, to_ca), known, new_tokens, dry_run, say).run()
    if as_json:
        typer.echo(json.dumps(done.as_dict(), indent=2))
        return
    verb = "would be copied" if dry_run else "copied"
    typer.echo(
        f"{verb}: {done.modules} modules with {done.artifacts} artifacts ({done.bytes} bytes), {done.sets} releases, "
        f"{done.devices} devices, {done.notes} notes, {done.installed} installed releases; there already: {done.there}"
    )
    for words in done.warnings:
        typer.echo(f"note: {words}")
    if done.new_tokens:
        what = "would get" if dry_run else "have"
        typer.echo(f"{len(done.new_tokens)} devices {what} a new token ({new_tokens}); orders must bring it to them")
