"""`sekisho factory`: the production line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .. import issued, keys
from .. import register as registering

app = typer.Typer(no_args_is_help=True)

Folders = Annotated[list[Path], typer.Argument(metavar="DEVICE...", help="Folders made by `issue take`.")]
ServerUrl = Annotated[str, typer.Option("--server", metavar="URL", help="The server's management API (hawkBit's).")]
User = Annotated[str, typer.Option(metavar="NAME", help="User of the server who may create targets.")]
PasswordFd = Annotated[
    int | None,
    typer.Option("--password-fd", metavar="N", min=0, help="Read the password from this file descriptor."),
]
Ca = Annotated[Path | None, typer.Option(metavar="FILE", help="Certificate authority of the server (PEM).")]


@app.callback()
def _group() -> None:
    """The production line."""


def connect(url: str, user: str, descriptor: int | None, ca: Path | None) -> registering.Server:
    """The server, with a password that was asked for or read."""
    password = keys.Passphrases(descriptor).get(f"user {user} at {url}").decode()
    return registering.Server(url, user, password, str(ca) if ca else None)


@app.command(epilog="Example: sekisho factory register devices/* --server https://updates.example.com --user factory")
def register(folders: Folders, server: ServerUrl, user: User, password_fd: PasswordFd = None, ca: Ca = None) -> None:
    """Tell the update server of devices: logical id as controllerId, enrolment token as securityToken."""
    devices = [(issued.read_record(folder), issued.read_secrets(folder)["token"]) for folder in folders]
    new = registering.register(connect(server, user, password_fd, ca), devices)
    typer.echo(f"{new} registered, {len(devices) - new} known already.")
