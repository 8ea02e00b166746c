"""Options that every command with a server has."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..hawkbit import Api, credentials

ServerOption = Annotated[
    str | None, typer.Option("--server", metavar="URL", help="Update server; default SEKISHO_SERVER.")
]
UserOption = Annotated[str | None, typer.Option("--user", metavar="NAME", help="Operator; default SEKISHO_USER.")]
PasswordOption = Annotated[
    Path | None,
    typer.Option("--password-file", metavar="FILE", help="File with the password; default SEKISHO_PASSWORD."),
]
CaOption = Annotated[
    Path | None, typer.Option("--ca", metavar="FILE", help="Authority that signed the server's certificate (PEM).")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print as JSON.")]


def connect(server: str | None, user: str | None, password_file: Path | None, ca: Path | None) -> Api:
    """The API with the options' credentials."""
    return Api(*credentials(server, user, password_file), ca)
