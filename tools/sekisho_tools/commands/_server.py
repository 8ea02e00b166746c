"""Options that every command with a server has."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, get_type_hints

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
FilterOption = Annotated[str | None, typer.Option("--filter", metavar="FILTER", help="Only these; hawkBit's language.")]
ReleaseArgument = Annotated[str, typer.Argument(metavar="RELEASE", help="Id, name, or 'NAME VERSION'.")]
DeviceArgument = Annotated[str, typer.Argument(metavar="DEVICE", help="Controller id.")]
_OPTIONS = {"server": ServerOption, "user": UserOption, "password_file": PasswordOption, "ca": CaOption}


def connect(server: str | None, user: str | None, password_file: Path | None, ca: Path | None) -> Api:
    """The API with the options' credentials."""
    return Api(*credentials(server, user, password_file), ca)


def with_api(command: Callable[..., None]) -> Callable[..., None]:
    """Gives *command*, whose first parameter is the API, the options that name the server and who asks."""
    hints = get_type_hints(command, include_extras=True)
    own = list(inspect.signature(command).parameters.values())[1:]

    @wraps(command)
    def run(**given: Any) -> None:
        chosen = [given.pop(name) for name in _OPTIONS]
        command(connect(*chosen), **given)

    kind = inspect.Parameter.KEYWORD_ONLY
    parameters = [one.replace(kind=kind, annotation=hints[one.name]) for one in own]
    parameters += [inspect.Parameter(name, kind, default=None, annotation=type_) for name, type_ in _OPTIONS.items()]
    parameters.sort(key=lambda one: one.name == "as_json")  # the last of the list in every help text
    del run.__dict__["__wrapped__"]  # whose parameters are not those of the command line
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {one.name: one.annotation for one in parameters}
    return run
