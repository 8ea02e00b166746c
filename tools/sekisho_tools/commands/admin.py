"""`sekisho admin`: accounts of the update server, backup. Works on the data directory, also while the server runs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import ToolError
from ..files import read_file
from ._server import JsonOption

if TYPE_CHECKING:
    from ..server.store import Store

app = typer.Typer()

DataOption = Annotated[Path, typer.Option("--data", metavar="DIR", help="Data directory of the update server.")]
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Name of the account.")]
FileOption = Annotated[
    Path | None, typer.Option("--password-file", metavar="FILE", help="Read the password from here; else it is asked.")
]
ROLE_HELP = "viewer (looks), operator (assigns and rolls out), admin (also settings and deleting)."


@contextmanager
def _opened(data: Path, create: bool = False) -> Iterator[Store]:
    from ..server.store import Store

    with Store(data, exclusive=False, create=create) as store:
        yield store


def _password(file: Path | None) -> str:
    if file is not None:
        return read_file(file, "password", 1024).decode("utf-8", "replace").rstrip("\r\n")
    if not sys.stdin.isatty():
        raise ToolError("PASSWORD", "Give --password-file, or run this in a terminal to be asked.")
    return str(typer.prompt("Password", hide_input=True, confirmation_prompt=True))


@app.command(
    epilog="Example: sekisho admin create alice --role admin --data ./fleet", help="Make an account for the server."
)
def create(
    name: NameArgument,
    data: DataOption,
    role: Annotated[str, typer.Option(metavar="ROLE", help=ROLE_HELP)] = "admin",
    password_file: FileOption = None,
) -> None:
    """Ask for the password, make the account."""
    from ..server import operators

    password = _password(password_file)
    with _opened(data, create=True) as store:
        operators.create(store, name, password, role)
    typer.echo(f"{name} may log in as {role}.")


@app.command(
    epilog="Example: sekisho admin passwd alice --data ./fleet",
    help="Set another password: ends the account's sessions and lifts a lock.",
)
def passwd(name: NameArgument, data: DataOption, password_file: FileOption = None) -> None:
    """Ask for the password, set it."""
    from ..server import operators

    password = _password(password_file)
    with _opened(data) as store:
        operators.change(store, name, password=password)
    typer.echo(f"{name} has a new password.")


@app.command(epilog="Example: sekisho admin role alice viewer --data ./fleet", help="Give an account another role.")
def role(
    name: NameArgument, role: Annotated[str, typer.Argument(metavar="ROLE", help=ROLE_HELP)], data: DataOption
) -> None:
    """Change it."""
    from ..server import operators

    with _opened(data) as store:
        operators.change(store, name, role=role)
    typer.echo(f"{name} is {role} now.")


@app.command(epilog="Example: sekisho admin remove alice --data ./fleet", help="Delete an account.")
def remove(name: NameArgument, data: DataOption) -> None:
    """Delete it."""
    from ..server import operators

    with _opened(data) as store:
        operators.remove(store, name)
    typer.echo(f"{name} is gone.")


@app.command("list", epilog="Example: sekisho admin list --data ./fleet", help="Show the accounts.")
def show(data: DataOption, as_json: JsonOption = False) -> None:
    """Print them."""
    from ..server import operators

    with _opened(data) as store:
        found = store.look(operators.everybody)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    for row in found:
        made = datetime.fromtimestamp(row["created_at"] / 1000, UTC)
        typer.echo(f"{row['name']}  {row['role']}  since {made:%Y-%m-%d}")


@app.command(
    epilog="Example: sekisho admin backup ./backup-2026-11-23 --data ./fleet",
    help="Copy database and artifacts into a new directory, while the server runs; `serve --data` takes it as it is.",
)
def backup(
    to: Annotated[Path, typer.Argument(metavar="DIR", help="Directory of the copy; made, must not exist.")],
    data: DataOption,
) -> None:
    """Copy."""
    from ..server import backups

    copied = backups.copy(data, to)
    typer.echo(f"Copied the database and {copied} artifacts to {to}.")
